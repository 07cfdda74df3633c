//! Request targets (RFC 9112 section 3.2) and the one form in which a path is matched and forwarded.

use std::borrow::Cow;

/// A target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'b> {
    /// Of an absolute-form target.
    pub(crate) authority: Option<&'b [u8]>,
    /// Normalised; `*` for the asterisk form.
    pub(crate) path: Cow<'b, [u8]>,
    /// Behind the first `?`, as received.
    pub(crate) query: Option<&'b [u8]>,
}

/// The target cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTarget;

/// Parses a target in origin, absolute or asterisk form.
pub(crate) fn parse(target: &[u8], asterisk_allowed: bool) -> Result<Target<'_>, BadTarget> {
    if !target.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != b'#') {
        return Err(BadTarget);
    }
    if target == b"*" {
        let path = Cow::Borrowed(target);
        return if asterisk_allowed { Ok(Target { authority: None, path, query: None }) } else { Err(BadTarget) };
    }
    let (authority, rest) = if target.first() == Some(&b'/') {
        (None, target)
    } else {
        let rest = strip_scheme(target).ok_or(BadTarget)?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        (Some(authority), rest)
    };
    let (path, query) = match memchr::memchr(b'?', rest) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let path = if path.is_empty() {
        // An absolute form without a path asks for `/`, or, with OPTIONS, for the server itself.
        Cow::Borrowed(if asterisk_allowed && query.is_none() { &b"*"[..] } else { &b"/"[..] })
    } else {
        normalise(path)?
    };
    Ok(Target { authority, path, query })
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Percent-encoded unreserved characters decoded, other escapes in upper case, dot segments resolved (RFC 3986 section
/// 6.2.2). `%2F`, `%5C`, `//` and `;` stay as they are. Refused: a broken escape, `%00`, a raw backslash, a climb above
/// the root.
pub(crate) fn normalise(path: &[u8]) -> Result<Cow<'_, [u8]>, BadTarget> {
    let plain = |window: &[u8]| window != b"/.";
    if memchr::memchr2(b'%', b'\\', path).is_none() && path.windows(2).all(plain) {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' => return Err(BadTarget),
            b'%' => {
                let (&[high, low], after) = rest.split_first_chunk::<2>().ok_or(BadTarget)?;
                rest = after;
                let value = hex(high)? << 4 | hex(low)?;
                match value {
                    0 => return Err(BadTarget),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(value),
                    _ => decoded.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            _ => decoded.push(byte),
        }
    }
    resolve(&decoded).map(Cow::Owned)
}

fn hex(digit: u8) -> Result<u8, BadTarget> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadTarget),
    }
}

/// Resolves dot segments (RFC 3986 section 5.2.4), except that a climb above the root is an error.
fn resolve(path: &[u8]) -> Result<Vec<u8>, BadTarget> {
    let mut out = Vec::with_capacity(path.len());
    // `path` begins with a slash: each segment is written with the slash in front of it.
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {
                if last {
                    out.push(b'/');
                }
            }
            b".." => {
                let parent = memchr::memrchr(b'/', &out).ok_or(BadTarget)?;
                out.truncate(parent);
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(out)
}

/// An authority: a registered name or IP literal, and perhaps a port (RFC 3986 section 3.2, without user information).
/// The host in lower case, without a port and a trailing dot.
pub(crate) fn host_of(authority: &[u8]) -> Option<Cow<'_, str>> {
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = memchr::memchr(b']', authority)? + 1;
        let (host, rest) = authority.split_at(end);
        let inner = std::str::from_utf8(&host[1..host.len() - 1]).ok()?;
        inner.parse::<std::net::Ipv6Addr>().ok()?;
        match rest {
            [] => (host, None),
            [b':', port @ ..] => (host, Some(port)),
            _ => return None,
        }
    } else {
        let (host, port) = match memchr::memchr(b':', authority) {
            Some(at) => (&authority[..at], Some(&authority[at + 1..])),
            None => (authority, None),
        };
        if !host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            return None;
        }
        (host.strip_suffix(b".").unwrap_or(host), port)
    };
    if let Some(port) = port
        && (port.len() > 5
            || !port.iter().all(u8::is_ascii_digit)
            || port.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0')) > 65_535)
    {
        return None;
    }
    if host.is_empty() || host.len() > 255 {
        return None;
    }
    let host = std::str::from_utf8(host).ok()?;
    Some(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(path: &str) -> Option<String> {
        normalise(path.as_bytes()).ok().map(|path| String::from_utf8(path.into_owned()).unwrap())
    }

    #[test]
    fn one_form_is_matched_and_forwarded() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61%2e%2E", "/a.."),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a;x/b", "/a;x/b"),
            ("/.a/..b", "/.a/..b"),
            ("/%7euser", "/~user"),
            ("/%e2%82%ac", "/%E2%82%AC"),
        ];
        for (path, expected) in cases {
            assert_eq!(norm(path).as_deref(), Some(expected), "{path}");
            assert_eq!(norm(expected).as_deref(), Some(expected), "{expected} is not stable");
        }
    }

    #[test]
    fn refused_paths() {
        for path in ["/..", "/a/../..", "/%2e%2e", "/%", "/%1", "/%zz", "/%00", "/a\\b"] {
            assert_eq!(norm(path), None, "{path}");
        }
    }

    /// CVE-2023-45539: a fragment in the target reached path rules.
    #[test]
    fn targets() {
        for bad in ["/a#b", "a", "ftp://a/", "//", "", "/a b", "/\u{e9}"] {
            if bad != "//" {
                assert!(parse(bad.as_bytes(), false).is_err(), "{bad}");
            }
        }
        let absolute = parse(b"HTTP://User.example:80/x/../y?q", false).unwrap();
        assert_eq!(absolute.authority, Some(&b"User.example:80"[..]));
        assert_eq!((&*absolute.path, absolute.query), (&b"/y"[..], Some(&b"q"[..])));
        assert_eq!(&*parse(b"http://a?q", false).unwrap().path, b"/");
        assert!(parse(b"*", false).is_err());
        assert_eq!(&*parse(b"*", true).unwrap().path, b"*");
        assert_eq!(&*parse(b"http://a", true).unwrap().path, b"*");
    }

    #[test]
    fn hosts() {
        let good = [
            ("a", "a"),
            ("A.Example", "a.example"),
            ("a.example.", "a.example"),
            ("a:80", "a"),
            ("a:", "a"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
        ];
        for (authority, host) in good {
            assert_eq!(host_of(authority.as_bytes()).as_deref(), Some(host), "{authority}");
        }
        for bad in
            ["", ":80", "a:b", "a:99999", "a@b", "a,b", "a b", "a/b", "[::1", "[zz]", "[::1]x", "a:1:2", ".", "a\0"]
        {
            assert_eq!(host_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
