//! htpasswd files, and passwords against the hashes in them.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};

use super::apr1;

/// bcrypt's cost is a power of two; one more than this takes seconds for every password.
const COST_LIMIT: u32 = 14;
/// Rounds of SHA crypt that take about as long.
const ROUNDS_LIMIT: u32 = 1_000_000;

/// How a hash was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Bcrypt,
    ShaCrypt,
    Apr1,
    Sha1,
}

impl Scheme {
    /// Of a hash that can be checked; else why it cannot.
    fn of(hash: &str) -> Result<Self, &'static str> {
        let is_crypt = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
        let parts: Vec<&str> = hash.split('$').collect();
        match parts[..] {
            ["", "2a" | "2b" | "2y" | "2x", cost, rest] => {
                let cost: u32 = cost.parse().map_err(|_none| "its cost is no number")?;
                if !(4..=COST_LIMIT).contains(&cost) {
                    return Err("its cost is not between 4 and 14");
                }
                if rest.len() == 53 && is_crypt(rest) { Ok(Self::Bcrypt) } else { Err("it is cut or damaged") }
            }
            ["", kind @ ("5" | "6"), .., hash] if parts.len() == 4 || parts.len() == 5 => {
                if parts.len() == 5 {
                    let rounds = parts[2].strip_prefix("rounds=").and_then(|text| text.parse::<u32>().ok());
                    if !rounds.is_some_and(|rounds| (1000..=ROUNDS_LIMIT).contains(&rounds)) {
                        return Err("its rounds are not between 1000 and 1000000");
                    }
                }
                let length = if kind == "5" { 43 } else { 86 };
                if hash.len() == length && is_crypt(hash) { Ok(Self::ShaCrypt) } else { Err("it is cut or damaged") }
            }
            ["", "apr1", salt, hash] if salt.len() <= 8 && hash.len() == 22 => Ok(Self::Apr1),
            ["", "apr1", ..] => Err("it is cut or damaged"),
            ["", _, ..] => Err("its scheme is not known: bcrypt, $5$, $6$, $apr1$ and {SHA} are"),
            _ => match hash.strip_prefix("{SHA}") {
                Some(encoded) if STANDARD.decode(encoded).is_ok_and(|sum| sum.len() == 20) => Ok(Self::Sha1),
                Some(_) => Err("it is cut or damaged"),
                None => {
                    Err("it is plain text or of the old crypt, which is no protection: make it anew by htpasswd -B")
                }
            },
        }
    }
}

/// The users of a file with their hashes. The error names the line, counted from 1, and never shows a hash.
pub fn parse(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|_invalid| "it is not UTF-8".to_owned())?;
    let mut users = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = index + 1;
        let Some((user, hash)) = line.split_once(':') else { return Err(format!("line {at} has no colon")) };
        // A comment may stand behind a second colon.
        let hash = hash.split(':').next().unwrap_or_default();
        if user.is_empty() || user.chars().any(char::is_control) {
            return Err(format!("line {at} has no user"));
        }
        Scheme::of(hash).map_err(|why| format!("the hash in line {at} cannot be used: {why}"))?;
        if users.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err(format!("line {at} has a user that is there already"));
        }
    }
    if users.is_empty() { Err("it has no users".to_owned()) } else { Ok(users) }
}

/// Whether a password has this hash.
pub fn verify(password: &[u8], hash: &str) -> bool {
    match Scheme::of(hash) {
        Ok(Scheme::Bcrypt) => bcrypt::verify(password, hash).unwrap_or(false),
        Ok(Scheme::ShaCrypt) => ShaCrypt::default().verify_password(password, hash).is_ok(),
        Ok(Scheme::Apr1) => {
            let mut parts = hash.rsplit('$');
            let (wanted, salt) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            verify_slices_are_equal(&apr1::hash(password, salt.as_bytes()), wanted.as_bytes()).is_ok()
        }
        Ok(Scheme::Sha1) => {
            let wanted = hash.strip_prefix("{SHA}").and_then(|encoded| STANDARD.decode(encoded).ok());
            let made = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
            wanted.is_some_and(|wanted| verify_slices_are_equal(made.as_ref(), &wanted).is_ok())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of `open sesame` by `openssl passwd` and Python's bcrypt.
    const HASHES: &[&str] = &[
        "$2b$04$j2pMHBcYv1/Wg7vw6D3STekJSdVQINPvks4YYp.vc6MneOeh2zMoq",
        "$2y$04$j2pMHBcYv1/Wg7vw6D3STekJSdVQINPvks4YYp.vc6MneOeh2zMoq",
        "$5$saltstring$sOFRiuqOzKEQCZAIFmMrCbPuMEMUPOi/BmBpBwWMgW3",
        "$6$saltstring$b4SOQO.YI.BXjgbKQa.97c9EQud0NW8Txr5rCRGsAucjEsL95TW5MDF/7KcC3bcG5NoxZbmB6Lh82fxg8soAZ0",
        "$6$rounds=2000$abc$qOKkleyckMlmzB5Bn4er920qk4lDbD2A5j6RZD3BQnc9/.svLN6qPuHfpijQhgYozNQ7T4/Tf3ZDa9zaYM99T1",
        "$apr1$abcdefgh$T64oOxnD8c28.dQa.2Lty1",
        "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=",
    ];

    #[test]
    fn passwords_against_hashes_of_other_tools() {
        for hash in HASHES {
            assert!(verify(b"open sesame", hash), "{hash}");
            for wrong in ["open sesam", "open sesame ", "", "Open sesame"] {
                assert!(!verify(wrong.as_bytes(), hash), "{hash} {wrong}");
            }
        }
    }

    #[test]
    fn files() {
        let file = format!("# people\n\nme:{}\r\n you:{}:a comment\n", HASHES[0], HASHES[1]);
        let users = parse(file.as_bytes()).unwrap();
        assert_eq!(users.keys().collect::<Vec<_>>(), ["me", "you"]);
        assert_eq!(users["you"], HASHES[1]);
        for (file, expected) in [
            ("", "it has no users"),
            ("# nobody\n", "it has no users"),
            ("me", "line 1 has no colon"),
            (":x", "line 1 has no user"),
            ("me:open sesame", "plain text"),
            ("me:", "plain text"),
            ("me:{SHA}x", "cut or damaged"),
            ("me:$2y$04$short", "cut or damaged"),
            ("me:$2y$31$......................../////////////////////////////", "cost"),
            ("me:$6$rounds=999999999$salt$x", "rounds"),
            ("me:$1$salt$x", "scheme"),
        ] {
            let error = parse(file.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{file}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
        let twice = format!("me:{}\nme:{}", HASHES[0], HASHES[1]);
        assert!(parse(twice.as_bytes()).unwrap_err().contains("line 2"));
        assert!(parse(b"\xff:x").is_err());
    }
}
