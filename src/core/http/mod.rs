//! What every version of HTTP shares: methods, versions, fields and who may pass them on (RFC 9110).

pub mod basic;
pub mod coding;
pub mod cookie;
pub mod cors;
mod date;
mod field;
mod method;

pub use date::Date;
pub use field::{Tag, classify_request, classify_response, connection_options, is_forbidden_trailer, is_token};
pub use method::{Method, Version};

/// Removes optional white space at both ends (RFC 9110 section 5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}
