//! Basic authentication (RFC 7617).

/// What a client has said by `Authorization: Basic`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'d> {
    /// Before the first colon.
    pub user: &'d [u8],
    /// Behind it.
    pub password: &'d [u8],
}

/// The password is never shown.
impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The encoded part of a field's value, if it is of this scheme.
pub fn encoded(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_it = scheme[..5].eq_ignore_ascii_case(b"basic") && scheme[5] == b' ';
    is_it.then(|| super::trim(rest))
}

impl<'d> Credentials<'d> {
    /// Takes what was decoded apart. Control characters are none of either part (RFC 7617 section 2).
    pub fn of(decoded: &'d [u8]) -> Option<Self> {
        let colon = memchr::memchr(b':', decoded)?;
        if decoded.iter().any(u8::is_ascii_control) {
            return None;
        }
        Some(Self { user: &decoded[..colon], password: &decoded[colon + 1..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_their_parts() {
        for (value, expected) in [
            ("Basic QWxhZGRpbg==", Some("QWxhZGRpbg==")),
            ("bAsIc   x ", Some("x")),
            ("Basic ", Some("")),
            ("Basic", None),
            ("Basic\tx", None),
            ("Basics x", None),
            ("Bearer x", None),
            ("", None),
        ] {
            assert_eq!(encoded(value.as_bytes()), expected.map(str::as_bytes), "{value}");
        }
        let both =
            |decoded: &'static str| Credentials::of(decoded.as_bytes()).map(|found| (found.user, found.password));
        assert_eq!(both("Aladdin:open sesame"), Some((&b"Aladdin"[..], &b"open sesame"[..])));
        assert_eq!(both("a:b:c"), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(both(":"), Some((&b""[..], &b""[..])));
        assert_eq!(both("nobody"), None);
        assert_eq!(both("a:b\0c"), None);
        assert_eq!(both("a\n:b"), None);
        assert!(!format!("{:?}", Credentials::of(b"me:secret")).contains("secret"));
    }
}
