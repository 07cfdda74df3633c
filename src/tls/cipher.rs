//! The ciphers of records: keys of either library for one direction, used in place.

use ringway_core::tls::record::TAG;
use rustls::ConnectionTrafficSecrets;
use {aws_lc_rs::aead as aws_lc, ring::aead as ring};

use super::provider::Aes;

/// A key.
pub(super) enum Key {
    AwsLc(aws_lc::LessSafeKey),
    // The other library's is a pointer too.
    Ring(Box<ring::LessSafeKey>),
}

impl Key {
    /// Out of what a handshake or a key update has come to, with the vector that nonces are made of. None for an algorithm
    /// that is not ours.
    pub(super) fn new(secrets: &ConnectionTrafficSecrets, aes: Aes) -> Option<(Self, [u8; 12])> {
        use ConnectionTrafficSecrets as Secrets;
        let (key, iv, of_ring, of_aws_lc) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (key, iv, Some(&ring::AES_128_GCM), &aws_lc::AES_128_GCM),
            Secrets::Aes256Gcm { key, iv } => (key, iv, Some(&ring::AES_256_GCM), &aws_lc::AES_256_GCM),
            Secrets::Chacha20Poly1305 { key, iv } => (key, iv, None, &aws_lc::CHACHA20_POLY1305),
            _ => return None,
        };
        let key = match of_ring.filter(|_| aes == Aes::Ring) {
            Some(algorithm) => {
                let key = ring::UnboundKey::new(algorithm, key.as_ref()).ok()?;
                Self::Ring(Box::new(ring::LessSafeKey::new(key)))
            }
            None => Self::AwsLc(aws_lc::LessSafeKey::new(aws_lc::UnboundKey::new(of_aws_lc, key.as_ref()).ok()?)),
        };
        Some((key, iv.as_ref().try_into().ok()?))
    }

    /// Encrypts in place, and returns the tag. The nonce must not have been used with the key.
    pub(super) fn seal(&self, nonce: [u8; 12], additional: &[u8], text: &mut [u8]) -> Option<[u8; TAG]> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(additional), text).ok()?;
                tag.as_ref().try_into().ok()
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::from(additional), text).ok()?;
                tag.as_ref().try_into().ok()
            }
        }
    }

    /// Decrypts in place what ends in its tag; returns how long the text is at the front of it.
    pub(super) fn open(&self, nonce: [u8; 12], additional: &[u8], text: &mut [u8]) -> Option<usize> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(additional), text).ok().map(|text| text.len())
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(additional), text).ok().map(|text| text.len())
            }
        }
    }
}
