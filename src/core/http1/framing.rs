//! Where a message's body ends (RFC 9112 section 6).

use crate::http::{list, trim};

/// A Content-Length value: one or more decimal digits, or a list in which all members are the same (section 6.3, rule
/// 5). No sign, no white space inside, no overflow.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if let Some(length) = digits(value) {
        return Some(length);
    }
    let mut members = value.split(|&byte| byte == b',').map(trim);
    let first = digits(members.next()?)?;
    members.all(|member| digits(member) == Some(first)).then_some(first)
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        byte.is_ascii_digit().then_some(())?;
        length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

/// Collects the framing fields of a head.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    length: Option<u64>,
    bad_length: bool,
    codings: u32,
    last_is_chunked: bool,
    chunked: u32,
    transfer_encoding: bool,
}

/// What they say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framed {
    /// Neither field.
    Unframed,
    Length(u64),
    Chunked,
    /// Both fields, differing lengths, not a number, or a last coding that is not chunked.
    Bad,
    /// Chunked over a coding that is not ours to undo.
    UnknownCoding,
}

impl Framing {
    pub(crate) fn content_length(&mut self, value: &[u8]) {
        match (content_length(value), self.length) {
            (None, _) => self.bad_length = true,
            (Some(length), Some(other)) if length != other => self.bad_length = true,
            (Some(length), _) => self.length = Some(length),
        }
    }

    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) {
        self.transfer_encoding = true;
        for coding in list(value) {
            self.codings += 1;
            self.last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += u32::from(self.last_is_chunked);
        }
    }

    pub(crate) fn has_transfer_encoding(&self) -> bool {
        self.transfer_encoding
    }

    pub(crate) fn framed(&self) -> Framed {
        if self.bad_length || (self.transfer_encoding && self.length.is_some()) {
            return Framed::Bad;
        }
        if self.transfer_encoding {
            return match (self.last_is_chunked, self.chunked, self.codings) {
                (true, 1, 1) => Framed::Chunked,
                (true, 1, _) => Framed::UnknownCoding,
                _ => Framed::Bad,
            };
        }
        self.length.map_or(Framed::Unframed, Framed::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let cases: [(&str, Option<u64>); 14] = [
            ("0", Some(0)),
            ("0042", Some(42)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("0x10", None),
            ("1_0", None),
            ("1 0", None),
            ("5, 5", Some(5)),
            ("5,6", None),
            ("5,", None),
            (",5", None),
        ];
        for (value, expected) in cases {
            assert_eq!(content_length(value.as_bytes()), expected, "{value:?}");
        }
    }
}
