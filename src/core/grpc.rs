//! What gRPC says in fields of HTTP/2 (PROTOCOL-HTTP2.md of the gRPC project).

use std::time::Duration;

use crate::http::trim;

/// Statuses there are; what else a server may send counts as [`UNKNOWN`].
pub const STATUSES: usize = 17;

/// The call was taken back.
pub const CANCELLED: u8 = 1;
/// No status, or none that is known.
pub const UNKNOWN: u8 = 2;
/// What is wrong is neither the caller's fault nor the called one's.
pub const INTERNAL: u8 = 13;

/// Whether a Content-Type is that of a gRPC call; gRPC-Web is another.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some(rest) = content_type.get(..16).filter(|start| start.eq_ignore_ascii_case(b"application/grpc")) else {
        return false;
    };
    matches!(content_type[rest.len()..].first(), None | Some(b'+' | b';' | b' '))
}

/// The status that a status of ours stands for: what nothing serves is not implemented, what cannot be reached is
/// unavailable, and what has taken too long has exceeded its deadline.
pub fn status_of(http: u16) -> u8 {
    match http {
        400 | 408 => INTERNAL,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        413 | 414 | 431 => 8,
        429 | 500 | 502 | 503 => 14,
        504 => 4,
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
        for yes in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=1"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["", "application/grp", "application/grpc-web", "application/grpc-web+proto", "text/plain"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
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
        assert_eq!((status_of(404), status_of(503), status_of(504), status_of(418)), (12, 14, 4, UNKNOWN));
    }
}
