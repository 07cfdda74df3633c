//! Which algorithms TLS uses, and whose.
//!
//! They are those of aws-lc-rs but for one case. Its AES-GCM has code for AVX-512 and for AES-NI; for processors that have VAES
//! without AVX-512 (AMD's Zen 3, Intel's Alder Lake) it has nothing of its own, and ring has. Measured on such a processor,
//! with other work on the machine, AES-128-GCM in pieces of 16 KiB: 472 us per MiB by aws-lc-rs 1.19, 235 by ring 0.17.14.
//! So there, and only there, the suites of AES-GCM are ring's; everything else stays with aws-lc-rs.

use ringway_core::model::TlsParameters;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::{CipherSuite, SupportedCipherSuite};

use super::server::TlsError;

/// Whose AES-GCM encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aes {
    /// That of aws-lc-rs.
    AwsLc,
    /// That of ring.
    Ring,
}

impl Aes {
    /// The faster one here.
    #[must_use]
    pub fn of_this_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let wide = has!("vaes") && has!("vpclmulqdq");
            if wide && has!("avx2") && !(has!("avx512f") && has!("avx512bw") && has!("avx512vl")) {
                return Self::Ring;
            }
        }
        Self::AwsLc
    }

    /// Whose a suite is.
    pub(super) fn of(suite: SupportedCipherSuite) -> Self {
        // Suites are equal by name, whoever made them; so their places are compared.
        let place = |suite: &SupportedCipherSuite| match suite {
            SupportedCipherSuite::Tls12(suite) => std::ptr::from_ref(*suite).addr(),
            SupportedCipherSuite::Tls13(suite) => std::ptr::from_ref(*suite).addr(),
        };
        let of_ring = ring::ALL_CIPHER_SUITES.iter().any(|other| place(other) == place(&suite));
        if of_ring { Self::Ring } else { Self::AwsLc }
    }

    /// The library's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Ring => "ring",
        }
    }

    /// All algorithms, with this AES-GCM among them.
    pub(super) fn provider(self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if self == Self::Ring {
            for suite in &mut provider.cipher_suites {
                let aes = suite.suite().as_str().is_some_and(|name| name.contains("AES"));
                let same = |other: &&SupportedCipherSuite| other.suite() == suite.suite();
                if let Some(other) = ring::ALL_CIPHER_SUITES.iter().find(same).filter(|_| aes) {
                    *suite = *other;
                }
            }
        }
        provider
    }
}

/// The library's algorithms, narrowed to what is asked for.
pub(super) fn provider(parameters: &TlsParameters) -> Result<CryptoProvider, TlsError> {
    let mut provider = Aes::of_this_processor().provider();
    if parameters.cipher_suites.is_empty() {
        // The cheapest first: all of them are out of reach.
        provider.cipher_suites.sort_by_key(|suite| {
            let name = suite.suite().as_str().unwrap_or("");
            (name.contains("CHACHA20"), name.contains("AES_256"))
        });
    } else {
        // TLS 1.3's suites are not a choice that configurations make; they stay. The others are in the order given.
        let place = |suite: &SupportedCipherSuite| match suite {
            SupportedCipherSuite::Tls13(_) => Some(0),
            SupportedCipherSuite::Tls12(_) => {
                let at = parameters.cipher_suites.iter().position(|name| suite.suite().as_str() == Some(name));
                at.map(|at| at + 1)
            }
        };
        provider.cipher_suites.retain(|suite| place(suite).is_some());
        provider.cipher_suites.sort_by_key(place);
    }
    if !parameters.groups.is_empty() {
        let known = aws_lc_rs::ALL_KX_GROUPS;
        provider.kx_groups = parameters
            .groups
            .iter()
            .filter_map(|name| known.iter().find(|group| group.name().as_str() == Some(name)).copied())
            .collect();
    }
    if provider.kx_groups.is_empty() {
        return Err(TlsError("no key exchange group is left".to_owned()));
    }
    Ok(provider)
}

/// The library's name of a cipher suite, given that or OpenSSL's.
pub fn cipher_suite(name: &str) -> Option<&'static str> {
    // OpenSSL's names leave parts of the others out: ECDHE-ECDSA-AES128-GCM-SHA256.
    const OPENSSL: [(&str, CipherSuite); 6] = [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ];
    let tls12 = aws_lc_rs::ALL_CIPHER_SUITES.iter().filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)));
    tls12.map(|suite| suite.suite()).find_map(|suite| {
        let known = suite.as_str()?;
        let alias = OPENSSL.iter().any(|(openssl, of)| *openssl == name && *of == suite);
        (known == name || alias).then_some(known)
    })
}

/// The library's name of a key exchange group, given that, OpenSSL's or Envoy's.
pub fn group(name: &str) -> Option<&'static str> {
    let name = match name {
        "P-256" | "prime256v1" => "secp256r1",
        "P-384" => "secp384r1",
        other => other,
    };
    aws_lc_rs::ALL_KX_GROUPS.iter().find_map(|group| group.name().as_str().filter(|known| *known == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_are_the_same_whoever_makes_them() {
        let names = |aes: Aes| aes.provider().cipher_suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        assert_eq!(names(Aes::Ring), names(Aes::AwsLc));
        for suite in Aes::Ring.provider().cipher_suites {
            let aes = format!("{:?}", suite.suite()).contains("AES");
            assert_eq!(Aes::of(suite) == Aes::Ring, aes, "{suite:?}");
        }
        assert!(Aes::AwsLc.provider().cipher_suites.iter().all(|suite| Aes::of(*suite) == Aes::AwsLc));
    }
}
