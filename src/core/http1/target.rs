//! Request targets (RFC 9112 section 3.2) and the one form in which a path is matched and forwarded.

use std::borrow::Cow;

use crate::model::{EscapedSlashes, PathRules};

/// A target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'b> {
    /// Of an absolute-form target.
    pub(crate) authority: Option<&'b [u8]>,
    /// Normalised; `*` for the asterisk form.
    pub(crate) path: Cow<'b, [u8]>,
    /// Behind the first `?`, as received.
    pub(crate) query: Option<&'b [u8]>,
    /// The client is to ask for this path in its own words.
    pub(crate) redirect: bool,
}

/// The target cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTarget;

/// Parses a target in origin, absolute or asterisk form.
pub(crate) fn parse(target: &[u8], asterisk_allowed: bool, rules: PathRules) -> Result<Target<'_>, BadTarget> {
    let is_one = |byte: u8| (0x21..=0x7e).contains(&byte) & (byte != b'#');
    if !target.iter().fold(true, |good, byte| good & is_one(*byte)) {
        return Err(BadTarget);
    }
    if target == b"*" {
        let path = Cow::Borrowed(target);
        let server = Target { authority: None, path, query: None, redirect: false };
        return if asterisk_allowed { Ok(server) } else { Err(BadTarget) };
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
    let (path, redirect) = if path.is_empty() {
        // An absolute form without a path asks for `/`, or, with OPTIONS, for the server itself.
        (Cow::Borrowed(if asterisk_allowed && query.is_none() { &b"*"[..] } else { &b"/"[..] }), false)
    } else {
        normalise(path, rules)?
    };
    Ok(Target { authority, path, query, redirect })
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Percent-encoded unreserved characters decoded, other escapes in upper case, dot segments resolved (RFC 3986 section
/// 6.2.2). `;` stays as it is, and so do `%2F`, `%5C` and `//` unless the rules say otherwise. Refused: a broken escape,
/// `%00`, a raw backslash, a climb above the root. Also whether the client is to ask for the outcome itself.
pub(crate) fn normalise(path: &[u8], rules: PathRules) -> Result<(Cow<'_, [u8]>, bool), BadTarget> {
    let plain = |window: &[u8]| window != b"/." && !(rules.merge_slashes && window == b"//");
    if memchr::memchr2(b'%', b'\\', path).is_none() && path.windows(2).all(plain) {
        return Ok((Cow::Borrowed(path), false));
    }
    let mut redirect = false;
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
                    b'/' | b'\\' if rules.escaped_slashes != EscapedSlashes::Keep => {
                        match rules.escaped_slashes {
                            EscapedSlashes::Reject => return Err(BadTarget),
                            EscapedSlashes::Redirect => redirect = true,
                            EscapedSlashes::Unescape | EscapedSlashes::Keep => {}
                        }
                        decoded.push(b'/');
                    }
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(value),
                    _ => decoded.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            _ => decoded.push(byte),
        }
    }
    let mut path = resolve(&decoded)?;
    if rules.merge_slashes {
        path.dedup_by(|second, first| *first == b'/' && *second == b'/');
    }
    Ok((Cow::Owned(path), redirect))
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
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_' | b'~');
        if !host.iter().fold(true, |good, byte| good & is_one(*byte)) {
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
    Some(if host.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(path: &str) -> Option<String> {
        by_rules(path, PathRules::default()).map(|(path, _)| path)
    }

    fn by_rules(path: &str, rules: PathRules) -> Option<(String, bool)> {
        let normal = normalise(path.as_bytes(), rules).ok();
        normal.map(|(path, redirect)| (String::from_utf8(path.into_owned()).unwrap(), redirect))
    }

    #[test]
    fn slashes_as_the_rules_have_them() {
        use EscapedSlashes::{Keep, Redirect, Reject, Unescape};
        // Kept, merged, unescaped, and unescaped and merged.
        for (path, kept, merged, unescaped, both) in [
            ("/a/b", "/a/b", "/a/b", "/a/b", "/a/b"),
            ("//a///b//", "//a///b//", "/a/b/", "//a///b//", "/a/b/"),
            ("/a%2fb%5Cc", "/a%2Fb%5Cc", "/a%2Fb%5Cc", "/a/b/c", "/a/b/c"),
            // Dot segments that only unescaping shows are resolved all the same; before slashes are merged.
            ("/a/..%2f..%2fb", "/a/..%2F..%2Fb", "/a/..%2F..%2Fb", "!", "!"),
            ("/a/b%2f%2e%2e%2fc", "/a/b%2F..%2Fc", "/a/b%2F..%2Fc", "/a/c", "/a/c"),
            ("/a//../b", "/a/b", "/a/b", "/a/b", "/a/b"),
            ("/a/%2f/b", "/a/%2F/b", "/a/%2F/b", "/a///b", "/a/b"),
            ("/%2fevil.example", "/%2Fevil.example", "/%2Fevil.example", "//evil.example", "/evil.example"),
            // Only once.
            ("/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"),
            ("/", "/", "/", "/", "/"),
        ] {
            let by = |escaped_slashes, merge_slashes| by_rules(path, PathRules { escaped_slashes, merge_slashes });
            let text = |found: Option<(String, bool)>| found.map_or_else(|| "!".to_owned(), |(path, _)| path);
            assert_eq!(text(by(Keep, false)), kept, "{path}");
            assert_eq!(text(by(Keep, true)), merged, "{path}");
            assert_eq!(text(by(Unescape, false)), unescaped, "{path}");
            assert_eq!(text(by(Unescape, true)), both, "{path}");
            assert_eq!(text(by(Redirect, true)), both, "{path}");
            let escaped = ["%2f", "%2F", "%5c", "%5C"].iter().any(|escape| path.contains(escape));
            assert_eq!(by(Reject, true).is_none(), escaped, "{path}");
            assert_eq!(by(Redirect, false).is_none_or(|(_, redirect)| redirect), escaped, "{path}");
            // What comes of it stays as it is.
            for found in [by(Unescape, true), by(Keep, true)].into_iter().flatten() {
                let rules = PathRules { escaped_slashes: Keep, merge_slashes: true };
                assert_eq!(by_rules(&found.0, rules), Some((found.0.clone(), false)), "{path}");
            }
        }
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
                assert!(parse(bad.as_bytes(), false, PathRules::default()).is_err(), "{bad}");
            }
        }
        let absolute = parse(b"HTTP://User.example:80/x/../y?q", false, PathRules::default()).unwrap();
        assert_eq!(absolute.authority, Some(&b"User.example:80"[..]));
        assert_eq!((&*absolute.path, absolute.query), (&b"/y"[..], Some(&b"q"[..])));
        assert_eq!(&*parse(b"http://a?q", false, PathRules::default()).unwrap().path, b"/");
        assert!(parse(b"*", false, PathRules::default()).is_err());
        assert_eq!(&*parse(b"*", true, PathRules::default()).unwrap().path, b"*");
        assert_eq!(&*parse(b"http://a", true, PathRules::default()).unwrap().path, b"*");
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
