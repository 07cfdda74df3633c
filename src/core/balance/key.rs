//! What a consistent hash goes by: from a request or a connection to a hash.

use std::net::SocketAddr;

use super::hash;
use crate::http::cookie::cookies;
use crate::model::HashKey;
use crate::route::{FieldLookup, first_query_param};

/// Number of TCP in IP headers.
pub const TCP: u8 = 6;
/// Number of UDP in IP headers.
pub const UDP: u8 = 17;

/// A client's connection or datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// The client's end.
    pub source: SocketAddr,
    /// The end that it talks to.
    pub destination: SocketAddr,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
}

/// A request, as it is forwarded.
pub struct KeyedRequest<'r> {
    /// Its normalised path.
    pub path: &'r [u8],
    /// Its query.
    pub query: Option<&'r [u8]>,
    /// Its fields.
    pub fields: &'r dyn FieldLookup,
}

impl std::fmt::Debug for KeyedRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedRequest").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The hash of a flow; `None` for keys that only requests have.
pub fn of_flow(key: &HashKey, flow: &Flow) -> Option<u64> {
    match key {
        HashKey::SourceIp => Some(hash::source_ip(flow.source.ip())),
        HashKey::FiveTuple => Some(hash::five_tuple(flow.source, flow.destination, flow.protocol)),
        HashKey::Headers(_) | HashKey::Cookie(_) | HashKey::QueryParams(_) | HashKey::Path => None,
    }
}

/// The hash of a request, on its flow; `None` when nothing that the key names is there.
pub fn of_request(key: &HashKey, request: &KeyedRequest<'_>, flow: impl FnOnce() -> Flow) -> Option<u64> {
    match key {
        HashKey::SourceIp | HashKey::FiveTuple => of_flow(key, &flow()),
        HashKey::Path => Some(hash::bytes(request.path)),
        HashKey::Headers(names) => several(names, |name, take| request.fields.values(name, take)),
        HashKey::Cookie(name) => {
            let mut found = None;
            request.fields.values("cookie", &mut |line| {
                found = found.or_else(|| cookies(line, name.as_bytes()).next().map(hash::bytes));
            });
            found
        }
        HashKey::QueryParams(names) => several(names, |name, take| {
            if let Some(value) = request.query.and_then(|query| first_query_param(query, name.as_bytes())) {
                take(&value);
            }
        }),
    }
}

/// One hash of all values of all names, in their order.
fn several(names: &[String], values: impl Fn(&str, &mut dyn FnMut(&[u8]))) -> Option<u64> {
    let mut all = None;
    for (number, name) in names.iter().enumerate() {
        values(name, &mut |value| {
            // Which name a value belongs to counts as well.
            let one = hash::with_seed(number as u64, value);
            all = Some(hash::step(all.unwrap_or(hash::SEED), one));
        });
    }
    all.map(hash::finish)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields(&'static [(&'static str, &'static str)]);

    impl FieldLookup for Fields {
        fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
            self.0.iter().filter(|field| field.0 == name).for_each(|field| f(field.1.as_bytes()));
        }
    }

    fn flow() -> Flow {
        Flow {
            source: "192.0.2.1:1000".parse().unwrap(),
            destination: "198.51.100.1:80".parse().unwrap(),
            protocol: TCP,
        }
    }

    fn key(key: &HashKey, query: &str, fields: &'static [(&'static str, &'static str)]) -> Option<u64> {
        let fields = Fields(fields);
        let request = KeyedRequest { path: b"/a", query: Some(query.as_bytes()), fields: &fields };
        of_request(key, &request, flow)
    }

    #[test]
    fn what_is_not_there_has_no_hash() {
        for wanted in [
            HashKey::Headers(vec!["x-user".to_owned()]),
            HashKey::Cookie("id".to_owned()),
            HashKey::QueryParams(vec!["u".to_owned()]),
        ] {
            assert_eq!(key(&wanted, "x=1", &[("cookie", "xid=1; i=2")]), None);
            assert_eq!(of_flow(&wanted, &flow()), None);
        }
        assert!(key(&HashKey::Path, "", &[]).is_some() && key(&HashKey::SourceIp, "", &[]).is_some());
    }

    #[test]
    fn equal_values_have_equal_hashes_wherever_they_stand() {
        let cookie = HashKey::Cookie("id".to_owned());
        let all: [&[(&str, &str)]; 4] = [
            &[("cookie", "id=7")],
            &[("cookie", "a=b; id=7; c=d")],
            &[("cookie", "a=b"), ("cookie", "id=7;x=y")],
            &[("cookie", "id=7; id=8")],
        ];
        assert!(all.iter().all(|fields| key(&cookie, "", fields) == Some(hash::bytes(b"7"))));
        let params = HashKey::QueryParams(vec!["u".to_owned(), "v".to_owned()]);
        assert_eq!(key(&params, "u=a+b&v=1", &[]), key(&params, "v=1&x=2&u=a%20b&u=c", &[]));
        assert_ne!(key(&params, "u=1&v=2", &[]), key(&params, "u=2&v=1", &[]));
        assert_ne!(key(&params, "u=1", &[]), key(&params, "v=1", &[]));
        let headers = HashKey::Headers(vec!["x-a".to_owned()]);
        assert_ne!(key(&headers, "", &[("x-a", "1")]), key(&headers, "", &[("x-a", "2")]));
    }

    #[test]
    fn flows_differ_by_ports_and_sources_do_not() {
        let other = Flow { source: "192.0.2.1:1001".parse().unwrap(), ..flow() };
        assert_eq!(of_flow(&HashKey::SourceIp, &flow()), of_flow(&HashKey::SourceIp, &other));
        assert_ne!(of_flow(&HashKey::FiveTuple, &flow()), of_flow(&HashKey::FiveTuple, &other));
        let udp = Flow { protocol: UDP, ..flow() };
        assert_ne!(of_flow(&HashKey::FiveTuple, &flow()), of_flow(&HashKey::FiveTuple, &udp));
    }
}
