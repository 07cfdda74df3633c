//! Field names the proxy has to know, found once per field.
//!
//! Names are compared by length and first letter before they are compared as a whole; what is left is one comparison
//! for the names that are special and none for most others.

/// What a field is to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Passed on as it is.
    Plain,
    /// Not passed on: hop by hop (RFC 9110 section 7.6.1), nominated by Connection, or an alias of a field that the
    /// proxy sets.
    Drop,
    /// Connection
    Connection,
    /// Content-Length
    ContentLength,
    /// Transfer-Encoding
    TransferEncoding,
    /// Host
    Host,
    /// Expect
    Expect,
    /// Upgrade
    Upgrade,
    /// TE
    Te,
    /// Trailer
    Trailer,
    /// Max-Forwards
    MaxForwards,
    /// X-Forwarded-For
    XForwardedFor,
    /// X-Forwarded-Proto
    XForwardedProto,
    /// X-Forwarded-Host
    XForwardedHost,
    /// X-Request-Id
    XRequestId,
    /// Forwarded
    Forwarded,
    /// Via
    Via,
    /// Date
    Date,
    /// X-Real-IP and any other X-Forwarded-*: believed from trusted peers only.
    PeerClaim,
}

/// What a request field of this name is.
pub fn classify_request(name: &[u8]) -> Tag {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let Some(first) = name.first() else { return Tag::Plain };
    match (first | 0x20, name.len()) {
        (b'c', 10) if is(b"connection") => Tag::Connection,
        (b'c', 14) if is(b"content-length") => Tag::ContentLength,
        (b'e', 6) if is(b"expect") => Tag::Expect,
        (b'f', 9) if is(b"forwarded") => Tag::Forwarded,
        (b'h', 4) if is(b"host") => Tag::Host,
        (b'h', 14) if is(b"http2-settings") => Tag::Drop,
        (b'k', 10) if is(b"keep-alive") => Tag::Drop,
        (b'm', 12) if is(b"max-forwards") => Tag::MaxForwards,
        (b'p', 16) if is(b"proxy-connection") => Tag::Drop,
        (b't', 2) if is(b"te") => Tag::Te,
        (b't', 7) if is(b"trailer") => Tag::Trailer,
        (b't', 17) if is(b"transfer-encoding") => Tag::TransferEncoding,
        (b'u', 7) if is(b"upgrade") => Tag::Upgrade,
        (b'v', 3) if is(b"via") => Tag::Via,
        (b'x', 9) => claim(name, b"x-real-ip", Tag::PeerClaim),
        (b'x', 12) => claim(name, b"x-request-id", Tag::XRequestId),
        (b'x', 12..) => forwarded_claim(name),
        _ => Tag::Plain,
    }
}

/// `known` under its own name is `tag`; spelled with underscores it is dropped: an origin that maps both to one
/// variable (CGI) would take the client's for ours.
fn claim(name: &[u8], known: &[u8], tag: Tag) -> Tag {
    if name.eq_ignore_ascii_case(known) {
        tag
    } else if is_alias(name, known) {
        Tag::Drop
    } else {
        Tag::Plain
    }
}

fn is_alias(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name.iter().zip(known).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-'))
}

fn forwarded_claim(name: &[u8]) -> Tag {
    const PREFIX: &[u8] = b"x-forwarded-";
    let (prefix, rest) = name.split_at(PREFIX.len());
    if !is_alias(prefix, PREFIX) {
        return Tag::Plain;
    }
    if name.contains(&b'_') {
        return Tag::Drop;
    }
    match rest.len() {
        3 if rest.eq_ignore_ascii_case(b"for") => Tag::XForwardedFor,
        5 if rest.eq_ignore_ascii_case(b"proto") => Tag::XForwardedProto,
        4 if rest.eq_ignore_ascii_case(b"host") => Tag::XForwardedHost,
        // Who a client is by its certificate is never a client's to say.
        11 if rest.eq_ignore_ascii_case(b"client-cert") => Tag::Drop,
        _ => Tag::PeerClaim,
    }
}

/// What a response field of this name is.
pub fn classify_response(name: &[u8]) -> Tag {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let Some(first) = name.first() else { return Tag::Plain };
    match (first | 0x20, name.len()) {
        (b'c', 10) if is(b"connection") => Tag::Connection,
        (b'c', 14) if is(b"content-length") => Tag::ContentLength,
        (b'd', 4) if is(b"date") => Tag::Date,
        (b'k', 10) if is(b"keep-alive") => Tag::Drop,
        (b'p', 16) if is(b"proxy-connection") => Tag::Drop,
        (b't', 2) if is(b"te") => Tag::Drop,
        (b't', 7) if is(b"trailer") => Tag::Trailer,
        (b't', 17) if is(b"transfer-encoding") => Tag::TransferEncoding,
        (b'u', 7) if is(b"upgrade") => Tag::Upgrade,
        _ => Tag::Plain,
    }
}

/// Calls `f` with every option of a Connection field's value.
pub fn connection_options<'v>(value: &'v [u8], mut f: impl FnMut(&'v [u8])) {
    super::list(value).for_each(&mut f);
}

/// `token` of RFC 9110 section 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Fields that must not stand in a trailer section, since they frame, route, authenticate or describe content that has
/// been acted on by then (RFC 9110 section 6.5.1).
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 24] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"location",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"www-authenticate",
    ];
    const PREFIXES: [&[u8]; 4] = [b"content-", b"if-", b"x-forwarded-", b"via"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || PREFIXES.iter().any(|prefix| name.len() >= prefix.len() && is_alias(&name[..prefix.len()], prefix))
        || is_alias(name, b"x-request-id")
        || is_alias(name, b"x-real-ip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_names_are_found_in_any_case() {
        assert_eq!(classify_request(b"CONTENT-length"), Tag::ContentLength);
        assert_eq!(classify_request(b"X-Forwarded-FOR"), Tag::XForwardedFor);
        assert_eq!(classify_request(b"x-forwarded-prefix"), Tag::PeerClaim);
        assert_eq!(classify_request(b"accept"), Tag::Plain);
        assert_eq!(classify_request(b"x-forwarded"), Tag::Plain);
        assert_eq!(classify_request(b""), Tag::Plain);
    }

    /// Traefik CVE-2026-39858: aliases with underscores reach CGI-like origins under the same variable.
    #[test]
    fn underscore_aliases_are_dropped() {
        for name in ["x_forwarded_for", "X-Forwarded_Proto", "X_Request_Id", "x_real_ip", "x_forwarded-Prefix"] {
            assert_eq!(classify_request(name.as_bytes()), Tag::Drop, "{name}");
        }
        assert_eq!(classify_request(b"x_my_header_x"), Tag::Plain);
    }

    #[test]
    fn trailers_cannot_frame_or_authenticate() {
        for name in ["Content-Length", "transfer-encoding", "Host", "Authorization", "X_Forwarded_For", "If-Match"] {
            assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["Server-Timing", "Grpc-Status", "X-Checksum", "Digest"] {
            assert!(!is_forbidden_trailer(name.as_bytes()), "{name}");
        }
    }
}
