//! Query parameters.

use std::borrow::Cow;

use crate::model::QueryMatch;

/// Whether the first parameter of the wanted name has the wanted value, both decoded.
pub(super) fn matches(wanted: &QueryMatch, query: Option<&[u8]>) -> bool {
    query.and_then(|query| first(query, wanted.name.as_bytes())).is_some_and(|value| wanted.value.matches(&value))
}

/// The decoded value of the first parameter of a name.
pub fn first<'q>(query: &'q [u8], wanted: &[u8]) -> Option<Cow<'q, [u8]>> {
    for pair in query.split(|&byte| byte == b'&') {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        if *decode(name) == *wanted {
            return Some(decode(value));
        }
    }
    None
}

/// Percent- and plus-decoded; an escape that is none stays as it is.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                out.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = &after[2..];
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}
