//! HPACK (RFC 7541): the compression of fields in HTTP/2.
//!
//! A connection has a [`Decoder`] for what comes in and an [`Encoder`] for what goes out. Neither has memory before it
//! is needed, and then about as much as the table's limit.

mod decode;
mod encode;
mod huffman;
mod names;
mod table;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;

pub use decode::Decoder;
pub use encode::Encoder;

/// SETTINGS_HEADER_TABLE_SIZE where nothing else is announced, in octets (RFC 9113 section 6.5.2).
pub const DEFAULT_LIMIT: usize = 4096;

/// COMPRESSION_ERROR, RFC 9113 section 4.3: the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionError;

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field block does not decode")
    }
}

impl Error for CompressionError {}
