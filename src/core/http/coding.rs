//! Content codings (RFC 9110 sections 8.4.1 and 12.5.3): what a client takes, and which answers may be coded on their way.

use super::{list, trim};
use crate::http1::response::{Framing, ResponseHead};
use crate::model::Compression;

/// A content coding that answers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with the window of RFC 9659.
    Zstd,
}

impl Coding {
    /// Its name in fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Self::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// Fields that say something of the very bytes, which are others in another coding.
pub(crate) const OF_THE_BYTES: [&str; 5] = ["accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

/// The coding of `offered` that the values of Accept-Encoding like best, the first of those that they like alike. None
/// where the answer is to stay as it is: nothing is said, nothing offered is taken, or being left alone is liked better.
pub fn choose<'v>(values: impl Iterator<Item = &'v [u8]>, offered: &[Coding]) -> Option<Coding> {
    let mut wanted = [None; 3];
    let (mut identity, mut others) = (None, None);
    for member in values.flat_map(list) {
        let mut parts = member.split(|&byte| byte == b';');
        let name = trim(parts.next().unwrap_or_default());
        let weight = parts.map(trim).find_map(weight).unwrap_or(1000);
        if name == b"*" {
            others = Some(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity = Some(weight);
        } else if let Some(at) = offered.iter().take(wanted.len()).position(|coding| coding.is_named(name)) {
            wanted[at] = Some(weight);
        }
    }
    let (mut best, mut least) = (None, identity.unwrap_or(0).max(1));
    for (coding, weight) in offered.iter().zip(wanted) {
        let weight = weight.or(others).unwrap_or(0);
        if weight >= least {
            best = Some(*coding);
            least = weight + 1;
        }
    }
    best
}

/// `q=0.5` in thousandths; what is malformed refuses.
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_first_chunk::<2>()?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, digits) = value.split_first().unwrap_or((&b'0', &[]));
    let digits = match digits {
        [] => &[][..],
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return Some(0),
    };
    let thousandths =
        digits.iter().chain(b"000").take(3).fold(0, |so_far, digit| so_far * 10 + u16::from(digit - b'0'));
    match whole {
        b'0' => Some(thousandths),
        b'1' => Some(1000),
        _ => Some(0),
    }
}

impl Compression {
    /// Whether an answer may be compressed for those who want that.
    pub fn suits(&self, head: &ResponseHead<'_>) -> bool {
        let long = match head.body {
            Framing::None(_) => false,
            Framing::Length(length) => length >= self.min_length,
            Framing::Chunked | Framing::UntilClose => true,
        };
        if !long || matches!(head.status, 0..=199 | 204..=206 | 304) {
            return false;
        }
        let mut of_a_type = false;
        for (name, value) in head.fields.iter() {
            match name.len() {
                12 if name.eq_ignore_ascii_case(b"content-type") => of_a_type = self.has_type(value),
                13 if name.eq_ignore_ascii_case(b"cache-control") => {
                    let kept = |directive: &[u8]| directive.eq_ignore_ascii_case(b"no-transform");
                    if list(value).any(kept) {
                        return false;
                    }
                }
                13 if name.eq_ignore_ascii_case(b"content-range") => return false,
                16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                    return false;
                }
                _ => {}
            }
        }
        of_a_type
    }

    fn has_type(&self, value: &[u8]) -> bool {
        let given = trim(value.split(|&byte| byte == b';').next().unwrap_or_default());
        self.types.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => {
                given.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            None => given.eq_ignore_ascii_case(wanted.as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::http1::FieldStorage;
    use crate::http1::response::parse_response;
    use crate::model::ClientLimits;

    #[test]
    fn what_a_client_likes_best() {
        let all = [Coding::Brotli, Coding::Zstd, Coding::Gzip];
        for (said, expected) in [
            ("", None),
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP, Br", Some(Coding::Brotli)),
            ("gzip, deflate, br, zstd", Some(Coding::Brotli)),
            ("br;q=0.5, gzip;q=0.8, zstd;q=0.8", Some(Coding::Zstd)),
            ("br;q=0.001, gzip; q=0", Some(Coding::Brotli)),
            ("br;q=0, gzip;q=0, zstd;q=0", None),
            ("*", Some(Coding::Brotli)),
            ("*;q=0", None),
            ("*;q=0, gzip", Some(Coding::Gzip)),
            ("br;q=0, *;q=0.1", Some(Coding::Zstd)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=x", None),
            ("gzip;q=1.000", Some(Coding::Gzip)),
            ("deflate, compress", None),
            (";;;,,q=1", None),
        ] {
            assert_eq!(choose([said.as_bytes()].into_iter(), &all), expected, "{said}");
        }
        assert_eq!(choose(std::iter::empty(), &all), None);
        // Several lines are one list.
        assert_eq!(choose([&b"gzip;q=0"[..], b"zstd"].into_iter(), &all), Some(Coding::Zstd));
        assert_eq!(choose([&b"br"[..]].into_iter(), &[Coding::Gzip]), None);
    }

    #[test]
    fn which_answers_may_be_compressed() {
        let rules = Compression {
            codings: vec![(Coding::Gzip, 6)],
            min_length: 100,
            types: vec!["text/*".to_owned(), "application/json".to_owned()],
        };
        let long = "Content-Length: 100\r\n";
        for (status, fields, expected) in [
            (200, "Content-Type: text/html; charset=utf-8\r\nContent-Length: 100\r\n", true),
            (404, "Content-Type: application/JSON\r\nContent-Length: 100\r\n", true),
            (200, "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n", true),
            (200, "Content-Type: text/html\r\n", true),
            (200, "Content-Type: text/html\r\nContent-Length: 99\r\n", false),
            (200, "Content-Type: image/png\r\nContent-Length: 100\r\n", false),
            (200, "Content-Type: texts/html\r\nContent-Length: 100\r\n", false),
            (200, long, false),
            (206, "Content-Type: text/html\r\nContent-Length: 100\r\n", false),
            (204, "Content-Type: text/html\r\n", false),
            (304, "Content-Type: text/html\r\nContent-Length: 100\r\n", false),
            (200, "Content-Type: text/html\r\nContent-Encoding: br\r\nContent-Length: 100\r\n", false),
            (200, "Content-Type: text/html\r\nContent-Range: bytes 0-99/200\r\nContent-Length: 100\r\n", false),
            (200, "Content-Type: text/html\r\nCache-Control: public, No-Transform\r\nContent-Length: 100\r\n", false),
        ] {
            let bytes = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
            for (method, expected) in [(Method::Get, expected), (Method::Head, false)] {
                let mut storage = FieldStorage::new();
                let head = parse_response(bytes.as_bytes(), &mut storage, method, &ClientLimits::default());
                assert_eq!(rules.suits(&head.unwrap().unwrap()), expected, "{bytes}");
            }
        }
    }
}
