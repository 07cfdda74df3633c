//! JA4: a client's fingerprint by what its hello offers (FoxIO, JA4 specification; the part that is free to use).

use std::fmt::Write as _;

use super::client_hello::{ClientHello, ServerName};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

impl ClientHello {
    /// The fingerprint, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`; `sha256` is the hash.
    pub fn ja4(&self, sha256: impl Fn(&[u8]) -> [u8; 32]) -> String {
        let short = |text: &str| {
            if text.is_empty() {
                return "000000000000".to_owned();
            }
            let digest = sha256(text.as_bytes());
            digest[..6].iter().fold(String::new(), |mut out, byte| {
                write!(out, "{byte:02x}").expect("writing to a string");
                out
            })
        };
        let version = match self.version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            _ => "00",
        };
        let name = if self.server_name == ServerName::Absent { 'i' } else { 'd' };
        let (ciphers, extensions) = (self.cipher_suites.len().min(99), self.extensions.len().min(99));
        let mut sorted = self.cipher_suites.clone();
        sorted.sort_unstable();
        let ciphers_text = joined(&sorted);
        let mut sorted: Vec<u16> =
            self.extensions.iter().copied().filter(|kind| !matches!(*kind, SERVER_NAME | ALPN)).collect();
        sorted.sort_unstable();
        let mut extensions_text = joined(&sorted);
        if !self.signature_schemes.is_empty() && !extensions_text.is_empty() {
            extensions_text.push('_');
            extensions_text.push_str(&joined(&self.signature_schemes));
        }
        let alpn = self.alpn.first().map_or_else(|| "00".to_owned(), |protocol| ends(protocol));
        format!(
            "t{version}{name}{ciphers:02}{extensions:02}{alpn}_{}_{}",
            short(&ciphers_text),
            short(&extensions_text)
        )
    }
}

fn joined(numbers: &[u16]) -> String {
    numbers.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

/// The first and the last character of a protocol's name; of its hexadecimal form where they are not alphanumeric.
fn ends(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return "00".to_owned() };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)].into_iter().collect();
    }
    let digits = |byte: u8| format!("{byte:02x}");
    [digits(*first).remove(0), digits(*last).remove(1)].into_iter().collect()
}
