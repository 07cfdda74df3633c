//! Apache's variant of the MD5 crypt of FreeBSD, which `htpasswd` writes unless told otherwise.
//!
//! MD5 is no protection for passwords by now; files that have it are taken so that nobody is locked out.

use md5::{Digest as _, Md5};

/// `$apr1$salt$hash` of a password.
pub(super) fn hash(password: &[u8], salt: &[u8]) -> [u8; 22] {
    const MAGIC: &[u8] = b"$apr1$";
    let salt = &salt[..salt.len().min(8)];
    let inner = digest(&[password, salt, password]);
    let mut outer = Md5::new();
    for part in [password, MAGIC, salt] {
        outer.update(part);
    }
    for piece in password.chunks(16) {
        outer.update(&inner[..piece.len()]);
    }
    let mut length = password.len();
    while length > 0 {
        // The algorithm's own slip: a zero byte, or the password's first one.
        outer.update(if length & 1 == 1 { &[0] } else { &password[..1] });
        length >>= 1;
    }
    let mut sum: [u8; 16] = outer.finalize().into();
    for round in 0..1000_u32 {
        let odd = round & 1 == 1;
        let first: &[u8] = if odd { password } else { &sum };
        let second = if round % 3 == 0 { &[][..] } else { salt };
        let third = if round % 7 == 0 { &[][..] } else { password };
        let last: &[u8] = if odd { &sum } else { password };
        sum = digest(&[first, second, third, last]);
    }
    encode(&sum)
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// Six bits a character, of bytes in the algorithm's order.
fn encode(sum: &[u8; 16]) -> [u8; 22] {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = [0; 22];
    let groups = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];
    for (group, (a, b, c)) in out.chunks_mut(4).zip(groups) {
        let mut bits = usize::from(sum[a]) << 16 | usize::from(sum[b]) << 8 | usize::from(sum[c]);
        for character in group {
            *character = ALPHABET[bits & 63];
            bits >>= 6;
        }
    }
    out[20] = ALPHABET[usize::from(sum[11]) & 63];
    out[21] = ALPHABET[usize::from(sum[11]) >> 6];
    out
}

#[cfg(test)]
mod tests {
    /// Vectors are of `openssl passwd -apr1`.
    #[test]
    fn known_hashes() {
        for (password, salt, expected) in VECTORS {
            let made = super::hash(password.as_bytes(), salt.as_bytes());
            assert_eq!(std::str::from_utf8(&made).unwrap(), *expected, "{password}");
        }
    }

    const VECTORS: &[(&str, &str, &str)] = &[
        ("", "abcdefgh", "L.PT565ESX4Tp2bqNs7Ie."),
        ("a", "abcdefgh", "G8IsPsylW5ROvIKsQMRG61"),
        ("secret", "xyz", "HXgo9gtz4gpj4JWTLYmjB0"),
        ("a password of more than sixteen bytes", "12345678", "JGzV.nxBNyP84/zq0Btaq0"),
        ("pässwörd", "./AZaz09", "yhWgqMrGhxqqphl02ZQn/."),
        ("sixteen bytes!!!", "s", "itYZlqJsP6fblyHkh4b461"),
    ];
}
