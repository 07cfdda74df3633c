//! Cross-origin resource sharing (the Fetch standard; Gateway API HTTPCORSFilter).

use crate::model::{Cors, OriginPattern};

/// The request fields that CORS goes by.
#[derive(Debug, Clone, Copy, Default)]
pub struct CorsRequest<'r> {
    /// Origin
    pub origin: Option<&'r [u8]>,
    /// Access-Control-Request-Method
    pub method: Option<&'r [u8]>,
    /// Access-Control-Request-Headers
    pub headers: Option<&'r [u8]>,
}

/// Response fields of an endpoint that the filter's own take the place of.
pub const REPLACED: [&str; 3] =
    ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"];

impl OriginPattern {
    /// Parses `*`, `https://www.example.com`, `http://*.example.com:8080`, `https://*`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host, port) = split(text.as_bytes())?;
        let (wildcard, host) = match host.strip_prefix('*') {
            Some(rest) if rest.is_empty() || rest.starts_with('.') => (true, rest.to_owned()),
            Some(_) => return None,
            None => (false, host),
        };
        (!host.contains('*')).then_some(Self::Origin { scheme, host, wildcard, port })
    }

    fn matches(&self, origin: &(String, String, u16)) -> bool {
        match self {
            Self::Any => true,
            Self::Origin { scheme, host, wildcard, port } => {
                let same = if *wildcard {
                    origin.1.len() > host.len() && origin.1.ends_with(host.as_str())
                } else {
                    origin.1 == *host
                };
                same && *scheme == origin.0 && *port == origin.2
            }
        }
    }
}

/// Scheme and host in lower case, and the port.
fn split(origin: &[u8]) -> Option<(String, String, u16)> {
    let text = std::str::from_utf8(origin).ok()?;
    let (scheme, authority) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match port_at {
        Some(at) => (&authority[..at], authority[at + 1..].parse().ok().filter(|port| *port > 0)?),
        None => (authority, default),
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(good)).then(|| (scheme, host.to_ascii_lowercase(), port))
}

impl Cors {
    /// Whether this origin may share.
    pub fn allows(&self, origin: &[u8]) -> bool {
        if self.origins.contains(&OriginPattern::Any) {
            // It is written into a field: what no browser sends is not.
            return !origin.is_empty() && origin.iter().all(u8::is_ascii_graphic);
        }
        split(origin).is_some_and(|origin| self.origins.iter().any(|pattern| pattern.matches(&origin)))
    }

    /// Appends the fields of the answer to a preflight, as lines; none for an origin that may not.
    pub fn preflight(&self, request: &CorsRequest<'_>, out: &mut Vec<u8>) {
        let Some(origin) = request.origin.filter(|origin| self.allows(origin)) else { return };
        self.origin_fields(origin, out);
        if let Some(method) = request.method {
            self.list("access-control-allow-methods", &self.methods, Some(method), out);
        }
        if let Some(headers) = request.headers {
            self.list("access-control-allow-headers", &self.headers, Some(headers), out);
        }
        field("access-control-max-age", self.max_age.to_string().as_bytes(), out);
    }

    /// Appends the fields of the answer to any other request, as lines; none for an origin that may not.
    pub fn response(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            self.origin_fields(origin, out);
        }
    }

    fn origin_fields(&self, origin: &[u8], out: &mut Vec<u8>) {
        field("access-control-allow-origin", origin, out);
        if self.credentials {
            field("access-control-allow-credentials", b"true", out);
        }
        self.list("access-control-expose-headers", &self.expose, None, out);
        // Caches must not give this answer to another origin.
        field("vary", b"Origin", out);
    }

    /// A list; with credentials a `*` means itself only, so that what was asked for is said instead.
    fn list(&self, name: &str, values: &[String], asked: Option<&[u8]>, out: &mut Vec<u8>) {
        let all = matches!(values, [only] if only == "*");
        if all && self.credentials {
            if let Some(asked) = asked.filter(|asked| asked.iter().all(|byte| (b' '..0x7f).contains(byte))) {
                field(name, asked, out);
            }
        } else if !values.is_empty() {
            field(name, values.join(", ").as_bytes(), out);
        }
    }
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool, methods: &[&str], headers: &[&str]) -> Cors {
        let strings = |list: &[&str]| list.iter().map(|each| (*each).to_owned()).collect();
        Cors {
            origins: origins.iter().map(|origin| OriginPattern::parse(origin).unwrap()).collect(),
            credentials,
            methods: strings(methods),
            headers: strings(headers),
            expose: Vec::new(),
            max_age: 5,
        }
    }

    #[test]
    fn origins() {
        let some = cors(&["https://www.foo.com", "http://*.bar.com:8080", "https://*.baz.com"], false, &[], &[]);
        for (origin, expected) in [
            ("https://www.foo.com", true),
            ("https://WWW.foo.com:443", true),
            ("http://www.foo.com", false),
            ("https://www.foo.com:8443", false),
            ("http://a.b.bar.com:8080", true),
            ("http://bar.com:8080", false),
            ("https://xbaz.com", false),
            ("https://x.baz.com", true),
            ("null", false),
            ("", false),
            ("https://", false),
            ("https://a b.baz.com", false),
        ] {
            assert_eq!(some.allows(origin.as_bytes()), expected, "{origin}");
        }
        let any = cors(&["*"], false, &[], &[]);
        assert!(any.allows(b"null") && any.allows(b"https://x:1") && !any.allows(b"a\tb") && !any.allows(b""));
        assert!(cors(&["https://*"], false, &[], &[]).allows(b"https://anything.org"));
        for bad in ["ftp://x", "https://a.*.com", "https://*a.com", "https://x:0", "https://x:99999", "x"] {
            assert_eq!(OriginPattern::parse(bad), None, "{bad}");
        }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn preflights() {
        let request = CorsRequest { origin: Some(b"https://x.org"), method: Some(b"PUT"), headers: Some(b"x-a, x-b") };
        let with = text(|out| cors(&["*"], true, &["*"], &["*"]).preflight(&request, out));
        assert!(with.contains("allow-origin: https://x.org\r\n") && with.contains("allow-credentials: true\r\n"));
        assert!(with.contains("allow-methods: PUT\r\n") && with.contains("allow-headers: x-a, x-b\r\n"), "{with}");
        let without = text(|out| cors(&["*"], false, &["GET", "PUT"], &["*"]).preflight(&request, out));
        assert!(without.contains("allow-methods: GET, PUT\r\n") && without.contains("allow-headers: *\r\n"));
        assert!(!without.contains("credentials") && without.contains("max-age: 5\r\n"), "{without}");
        let bare = CorsRequest { headers: None, ..request };
        assert!(!text(|out| cors(&["*"], true, &[], &["*"]).preflight(&bare, out)).contains("allow-headers"));
        assert_eq!(text(|out| cors(&["https://y.org"], false, &[], &[]).preflight(&request, out)), "");
        assert_eq!(text(|out| cors(&["https://y.org"], false, &[], &[]).response(request.origin, out)), "");
    }
}
