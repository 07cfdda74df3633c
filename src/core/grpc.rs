//! What gRPC says in fields of HTTP/2 (PROTOCOL-HTTP2.md of the gRPC project).

pub mod web;

use std::time::Duration;

use crate::http::trim;

/// Statuses there are; what else a server may send counts as [`UNKNOWN`].
pub const STATUSES: usize = 17;

/// The call was taken back.
pub const CANCELLED: u8 = 1;
/// No status, or none that is known.
pub const UNKNOWN: u8 = 2;
/// The call's time is over.
pub const DEADLINE_EXCEEDED: u8 = 4;
/// The trailer lines of a call whose time is over.
pub const LATE: &[u8] = b"grpc-status: 4\r\ngrpc-message: Deadline exceeded\r\n";
/// What is wrong is neither the caller's fault nor the called one's.
pub const INTERNAL: u8 = 13;

/// How a call is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// In frames of HTTP/2 with trailers.
    Native,
    /// gRPC-Web: trailers are a part of the body (PROTOCOL-WEB.md of the gRPC project).
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl Call {
    /// By its Content-Type: this name, and behind it the message's format or parameters.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        Self::split(content_type).map(|(call, _)| call)
    }

    /// The kind of call, and what stands behind its name: `+proto`, for instance.
    pub fn split(content_type: &[u8]) -> Option<(Self, &[u8])> {
        const NAME: &[u8] = b"application/grpc";
        let (name, rest) = content_type.split_at_checked(NAME.len())?;
        if !name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let behind = |name: &[u8]| {
            let (found, rest) = rest.split_at_checked(name.len())?;
            let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' '));
            (ends && found.eq_ignore_ascii_case(name)).then_some(rest)
        };
        let kinds: [(Self, &[u8]); 3] = [(Self::WebText, b"-web-text"), (Self::Web, b"-web"), (Self::Native, b"")];
        kinds.into_iter().find_map(|(kind, name)| Some((kind, behind(name)?)))
    }

    /// Its Content-Type without what may stand behind it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Native => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }
}

/// The status that a status of ours stands for: what nothing serves is not implemented, and what cannot be reached, or
/// not in time, is unavailable. Only the call's own time makes its deadline exceeded.
pub fn status_of(http: u16) -> u8 {
    match http {
        400 | 408 => INTERNAL,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        413 | 414 | 431 => 8,
        429 | 500 | 502 | 503 | 504 => 14,
        _ => UNKNOWN,
    }
}

/// A deadline: up to eight digits and a unit.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = trim(value).split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A `grpc-status` field's number.
pub fn status(value: &[u8]) -> u8 {
    let number = std::str::from_utf8(trim(value)).ok().and_then(|text| text.parse::<u8>().ok());
    number.filter(|number| usize::from(*number) < STATUSES).unwrap_or(UNKNOWN)
}

/// The status among trailer lines, if there is one.
pub fn status_in_lines(lines: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"grpc-status:";
    lines.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| status(value.strip_suffix(b"\r").unwrap_or(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (text, call, rest) in [
            ("application/grpc", Call::Native, ""),
            ("application/grpc+proto", Call::Native, "+proto"),
            ("Application/gRPC; x=1", Call::Native, "; x=1"),
            ("application/grpc-web", Call::Web, ""),
            ("application/grpc-web+proto", Call::Web, "+proto"),
            ("application/grpc-web-text+proto", Call::WebText, "+proto"),
            ("APPLICATION/GRPC-WEB-TEXT", Call::WebText, ""),
        ] {
            assert_eq!(Call::split(text.as_bytes()), Some((call, rest.as_bytes())), "{text}");
        }
        for no in
            ["", "application/grp", "application/grpcx", "application/grpc-webx", "application/grpc-", "text/plain"]
        {
            assert_eq!(Call::of(no.as_bytes()), None, "{no}");
        }
    }

    #[test]
    fn deadlines() {
        assert_eq!(timeout(b"1S"), Some(Duration::from_secs(1)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout(b"5u"), Some(Duration::from_micros(5)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1x", "1.5S"] {
            assert_eq!(timeout(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(status_in_lines(b"a: b\r\ngrpc-status: 5\r\ngrpc-message: x\r\n"), Some(5));
        assert_eq!(status_in_lines(b"x-grpc-status: 5\r\n"), None);
        assert_eq!((status(b"16"), status(b"17"), status(b"x"), status(b"-1")), (16, UNKNOWN, UNKNOWN, UNKNOWN));
        assert_eq!((status_of(404), status_of(503), status_of(504), status_of(418)), (12, 14, 14, UNKNOWN));
    }
}
