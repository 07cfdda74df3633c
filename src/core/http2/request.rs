//! Requests of HTTP/2 (RFC 9113 section 8.3.1).

use super::section::{self, is_name};
use crate::http::{Method, Tag, Version, is_token, list, trim};
use crate::http1::Fields;
use crate::http1::framing::content_length;
use crate::http1::request::{Framing, RequestError, RequestHead};
use crate::http1::target;
use crate::model::ClientLimits;

/// What HTTP/2 says outside of fields.
#[derive(Debug, Clone, Copy)]
pub struct Pseudo<'b> {
    /// `:method`
    pub method: &'b [u8],
    /// `:authority`
    pub authority: Option<&'b [u8]>,
    /// `:path`
    pub path: &'b [u8],
    /// `:protocol` of an extended CONNECT (RFC 8441 section 4).
    pub protocol: Option<&'b [u8]>,
    /// No body follows.
    pub end_stream: bool,
    /// How long the body is, where it has come whole already.
    pub whole: Option<u64>,
}

/// Room for what of a request's fields does not stay as it came.
#[derive(Debug, Default)]
pub struct FieldStorage {
    cookies: Vec<u8>,
}

/// Translates a request. Names have to be in lower case, which is how HTTP/2 has them.
///
/// Cookies that came in pieces are put together (section 8.2.3). Connection-specific fields, white space around values,
/// and anything that could not be a line of HTTP/1.1 make the request malformed.
pub fn request<'b>(
    pseudo: Pseudo<'b>,
    fields: &'b super::Fields,
    storage: &'b mut FieldStorage,
    limits: &ClientLimits,
) -> Result<RequestHead<'b>, RequestError> {
    // What a field costs beyond its bytes, by the reckoning of SETTINGS_MAX_HEADER_LIST_SIZE (section 6.5.2).
    const OVERHEAD: usize = 32;
    if !is_token(pseudo.method) {
        return Err(RequestError::Malformed);
    }
    let mut method = Method::from_token(pseudo.method);
    let mut method_token = pseudo.method;
    let mut upgrade = None;
    if let (Method::Connect, Some(protocol)) = (method, pseudo.protocol) {
        // It asks for what a GET with Upgrade asks for in HTTP/1.1 (RFC 8441 section 5).
        if !protocol.eq_ignore_ascii_case(b"websocket") || pseudo.end_stream {
            return Err(RequestError::Method);
        }
        (method, method_token, upgrade) = (Method::Get, b"GET", Some(protocol));
    }
    if matches!(method, Method::Connect | Method::Trace) {
        return Err(RequestError::Method);
    }
    if pseudo.path.len() > limits.uri_bytes {
        return Err(RequestError::TargetTooLong);
    }
    let (mut kept, mut cookies) = (0, 0);
    let mut size = pseudo.method.len() + pseudo.path.len() + pseudo.authority.map_or(0, <[u8]>::len);
    let (mut length, mut host, mut expect, mut te_trailers, mut max_forwards) = (None, None, None, false, None);
    for (tag, name, value) in fields.tagged() {
        size += name.len() + value.len() + OVERHEAD;
        if size > limits.head_bytes || kept >= limits.head_fields {
            return Err(RequestError::TooLarge);
        }
        if !is_name(name) || !is_value(value) {
            return Err(RequestError::Malformed);
        }
        if name == b"cookie" {
            cookies += 1;
            if cookies > 1 {
                continue;
            }
        }
        kept += 1;
        match tag {
            Tag::Connection | Tag::TransferEncoding | Tag::Upgrade => return Err(RequestError::Malformed),
            Tag::Drop if matches!(name, b"keep-alive" | b"proxy-connection") => return Err(RequestError::Malformed),
            Tag::ContentLength => {
                let this = content_length(value).ok_or(RequestError::Framing)?;
                if length.is_some_and(|other| other != this) {
                    return Err(RequestError::Framing);
                }
                length = Some(this);
            }
            Tag::Host if host.replace(value).is_some() => return Err(RequestError::Host),
            Tag::Te => {
                // Nothing else is allowed (section 8.2.2).
                if !list(value).all(|coding| coding.eq_ignore_ascii_case(b"trailers")) {
                    return Err(RequestError::Malformed);
                }
                te_trailers = true;
            }
            Tag::Expect => expect = Some(value),
            Tag::MaxForwards if method == Method::Options => {
                max_forwards = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
    if cookies > 1 {
        join(fields, &mut storage.cookies);
    }
    let authority = match (pseudo.authority, host) {
        // One of them is enough; if there are two, they have to name one place.
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(RequestError::Host),
        (Some(authority), _) => authority,
        (None, host) => host.ok_or(RequestError::Host)?,
    };
    let host = target::host_of(authority).ok_or(RequestError::Host)?;
    if pseudo.path.first() != Some(&b'/') && pseudo.path != b"*" {
        return Err(RequestError::Target);
    }
    let target = target::parse(pseudo.path, method == Method::Options, limits.path);
    let target = target.map_err(|_bad| RequestError::Target)?;
    let body = match (pseudo.end_stream, length) {
        // What comes is not of this message.
        _ if upgrade.is_some() => Framing::None,
        (true, None) if matches!(method, Method::Post | Method::Put | Method::Patch) => Framing::Length(0),
        (true, None) => Framing::None,
        (true, Some(0)) | (false, Some(_)) => Framing::Length(length.unwrap_or(0)),
        // The stream ends before what its length says (section 8.1.1).
        (true, Some(_)) => return Err(RequestError::Framing),
        (false, None) => pseudo.whole.map_or(Framing::Chunked, Framing::Length),
    };
    if expect.is_some_and(|value| !trim(value).eq_ignore_ascii_case(b"100-continue")) {
        return Err(RequestError::Expectation);
    }
    Ok(RequestHead {
        len: 0,
        method,
        method_token,
        version: Version::Http2,
        authority,
        host,
        path: target.path,
        query: target.query,
        redirect: target.redirect,
        body,
        keep_alive: true,
        expect_continue: expect.is_some() && !matches!(body, Framing::None | Framing::Length(0)),
        upgrade,
        te_trailers,
        max_forwards,
        fields: Fields::decoded(fields, (cookies > 1).then_some(&storage.cookies)),
    })
}

/// Puts cookies together that came in pieces.
fn join(fields: &super::Fields, cookies: &mut Vec<u8>) {
    for (_, crumb) in fields.iter().filter(|(name, _)| *name == b"cookie") {
        if !cookies.is_empty() {
            cookies.extend_from_slice(b"; ");
        }
        cookies.extend_from_slice(crumb);
    }
}

/// Section 8.2.1: no NUL, CR or LF, and no white space at either end; no other control character could be forwarded.
fn is_value(value: &[u8]) -> bool {
    trim(value).len() == value.len() && section::is_value(value)
}

#[cfg(test)]
mod tests {
    use super::super::Fields;
    use super::*;

    const GET: Pseudo<'static> = Pseudo {
        method: b"GET",
        authority: Some(b"a.example"),
        path: b"/",
        protocol: None,
        end_stream: true,
        whole: None,
    };

    fn judge(pseudo: Pseudo<'_>, fields: &[(&str, &str)]) -> Result<(Framing, Vec<String>), RequestError> {
        let mut storage = FieldStorage::default();
        let fields: Fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let head = request(pseudo, &fields, &mut storage, &ClientLimits::default())?;
        let line = |(name, value): (&[u8], &[u8])| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        Ok((head.body, head.fields().map(line).collect()))
    }

    #[test]
    fn pieces_of_cookies_are_put_together() {
        let (_, fields) = judge(GET, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]).unwrap();
        assert_eq!(fields, ["cookie: a=1; b=2; c=3", "x: y"]);
    }

    #[test]
    fn what_could_split_a_message_is_malformed() {
        let malformed = Some(RequestError::Malformed);
        let cases = [
            ("a b", "c"),
            ("a:", "c"),
            ("A", "c"),
            ("", "c"),
            ("a", "c\r\nx: y"),
            ("a", "c\n"),
            ("a", "\0"),
            ("a", " c"),
            ("a", "c\t"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
        ];
        for (name, value) in cases {
            assert_eq!(judge(GET, &[(name, value)]).err(), malformed, "{name:?}: {value:?}");
        }
        for method in ["", "GET /x HTTP/1.1\r\n", "G T", "GET:"] {
            assert_eq!(judge(Pseudo { method: method.as_bytes(), ..GET }, &[]).err(), malformed, "{method:?}");
        }
        for path in ["", "x", "/a b", "/a\r\n", "http://b/", "/%00", "/../..", "*", "/#"] {
            let error = judge(Pseudo { path: path.as_bytes(), ..GET }, &[]).err();
            assert_eq!(error, Some(RequestError::Target), "{path:?}");
        }
    }

    #[test]
    fn one_authority_and_one_length() {
        let none = Pseudo { authority: None, ..GET };
        assert!(judge(GET, &[("host", "A.example")]).is_ok());
        assert!(judge(none, &[("host", "a")]).is_ok());
        for (pseudo, fields) in [
            (GET, &[("host", "b.example")][..]),
            (none, &[]),
            (none, &[("host", "a"), ("host", "a")]),
            (Pseudo { authority: Some(b"u@a"), ..GET }, &[]),
            (Pseudo { authority: Some(b""), ..GET }, &[]),
        ] {
            assert_eq!(judge(pseudo, fields).err(), Some(RequestError::Host), "{fields:?}");
        }
        let post = Pseudo { method: b"POST", end_stream: false, ..GET };
        assert_eq!(judge(post, &[]).unwrap().0, Framing::Chunked);
        assert_eq!(judge(post, &[("content-length", "5")]).unwrap().0, Framing::Length(5));
        assert_eq!(judge(Pseudo { end_stream: true, ..post }, &[]).unwrap().0, Framing::Length(0));
        for fields in [&[("content-length", "5"), ("content-length", "6")][..], &[("content-length", "+5")]] {
            assert_eq!(judge(post, fields).err(), Some(RequestError::Framing), "{fields:?}");
        }
        let ended = Pseudo { end_stream: true, ..post };
        assert_eq!(judge(ended, &[("content-length", "5")]).err(), Some(RequestError::Framing));
    }

    #[test]
    fn extended_connect_is_an_upgrade() {
        let asked = Pseudo { method: b"CONNECT", protocol: Some(b"websocket"), end_stream: false, ..GET };
        let mut storage = FieldStorage::default();
        let fields = Fields::default();
        let head = request(asked, &fields, &mut storage, &ClientLimits::default()).unwrap();
        assert_eq!((head.method_token, head.upgrade, head.body), (&b"GET"[..], Some(&b"websocket"[..]), Framing::None));
        for refused in [
            Pseudo { end_stream: true, ..asked },
            Pseudo { protocol: Some(b"connect-udp"), ..asked },
            Pseudo { protocol: None, ..asked },
        ] {
            assert_eq!(judge(refused, &[]).err(), Some(RequestError::Method));
        }
    }

    #[test]
    fn limits_are_those_of_a_head() {
        let long = "x".repeat(64 << 10);
        assert_eq!(judge(GET, &[("a", &long)]).err(), Some(RequestError::TooLarge));
        let crumbs = vec![("cookie", ""); 4000];
        assert_eq!(judge(GET, &crumbs).err(), Some(RequestError::TooLarge));
        let path = format!("/{long}");
        assert_eq!(judge(Pseudo { path: path.as_bytes(), ..GET }, &[]).err(), Some(RequestError::TargetTooLong));
        assert_eq!(judge(Pseudo { method: b"CONNECT", ..GET }, &[]).err(), Some(RequestError::Method));
    }
}
