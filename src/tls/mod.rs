//! TLS (RFC 8446, RFC 5246): handshakes by rustls, ciphers by aws-lc-rs and ring, records by `records`.
//!
//! A leaf: nothing here knows sockets, the event loop or the configuration's files. [`Session`] is a connection without
//! its socket; `rt::Stream` owns one when it is encrypted. [`ServerTls`] and [`ClientTls`] are the library's
//! configuration for a listener and for a backend, made once per generation and copied once per core.
//!
//! The provider of algorithms is passed explicitly everywhere: there is no process-wide default that a dependency
//! could change. 0-RTT is off: it excludes tickets without a table, and requests in it can be replayed.

mod certificate;
mod cipher;
pub mod keylog;
mod provider;
mod records;
mod server;
mod session;
mod tickets;
mod upstream;

pub use certificate::{CertificateError, authorities, chain, facts};
pub use provider::{Aes, cipher_suite, group};
pub use server::{ServerTls, TlsError};
pub use session::{Session, Taken, Version};
pub use tickets::{Context, PERIOD, TicketKeyError, TicketRing};
pub use upstream::ClientTls;

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("32 bytes")
}

/// A client's JA4 fingerprint.
pub fn ja4(hello: &ringway_core::tls::ClientHello) -> String {
    hello.ja4(sha256)
}

#[cfg(test)]
mod tests {
    use ringway_core::tls::{ClientHello, ServerName};

    #[test]
    fn ja4_of_the_specifications_example() {
        let hello = ClientHello {
            server_name: ServerName::Name("example.com".to_owned()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            version: 0x0304,
            cipher_suites: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
                0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
                0x000b, 0x000a, 0x0015,
            ],
            signature_schemes: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
        };
        assert_eq!(super::ja4(&hello), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }
}
