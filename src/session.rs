//! Keys of session tokens: what the tokens of [`ringway_core::session`] are sealed by.

use std::path::Path;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use ringway_core::session::Mac;

/// Keys that are looked at for one token.
const MAX_KEYS: usize = 4;

/// Where a machine says who it is (machine-id(5)): it stays the same from one start to the next.
const MACHINE_ID: &str = "/etc/machine-id";

/// What a key is derived for: the same secret may be used elsewhere.
const PURPOSE: &[u8] = b"ringway session tokens 1";

/// A key.
pub struct Key(hmac::Key);

/// Keys are not shown.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    fn derived(secret: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }
}

impl Mac for Key {
    fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.0, bytes).as_ref());
        mac
    }
}

/// The keys. The first seals; all of them open.
#[derive(Debug, Default)]
pub struct SessionKeys {
    keys: Vec<Key>,
}

/// Why a file of keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionKeyError {
    /// A line that is no key.
    #[error("line {0} is not 32 bytes or more in base64; `openssl rand -base64 32` makes a key")]
    Line(usize),
    /// No line.
    #[error("there is no key in it; `openssl rand -base64 32` makes one")]
    Empty,
    /// More than are looked at.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
}

impl SessionKeys {
    /// One key per line, 32 bytes or more in base64; the first seals. Several machines that have the same file take each
    /// other's tokens.
    pub fn parse(text: &str) -> Result<Self, SessionKeyError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = base64::engine::general_purpose::STANDARD.decode(line).ok().filter(|bytes| bytes.len() >= 32);
            keys.push(Key::derived(&bytes.ok_or(SessionKeyError::Line(number + 1))?));
        }
        match keys.len() {
            0 => Err(SessionKeyError::Empty),
            1..=MAX_KEYS => Ok(Self { keys }),
            _ => Err(SessionKeyError::TooMany),
        }
    }

    /// The keys of a file; the error is for people.
    pub fn read(path: &Path) -> Result<(String, Self), String> {
        let unusable = |error: &dyn std::fmt::Display| format!("session keys in {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
        let keys = Self::parse(&text).map_err(|error| unusable(&error))?;
        Ok((text, keys))
    }

    /// A key of this machine, the same after every restart. `None`: the machine does not say who it is.
    pub fn of_machine() -> Option<Self> {
        let id = std::fs::read_to_string(MACHINE_ID).ok()?;
        Self::of_machine_id(&id)
    }

    /// Of 32 hexadecimal digits. An image that has not been started yet says `uninitialized`, and nothing if it is
    /// to be the same everywhere.
    fn of_machine_id(id: &str) -> Option<Self> {
        let id = id.trim();
        let good =
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0');
        good.then(|| Self { keys: vec![Key::derived(id.as_bytes())] })
    }

    /// A key of this process.
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).expect("the system's random numbers");
        Self { keys: vec![Key::derived(&bytes)] }
    }

    /// All of them.
    pub fn all(&self) -> &[Key] {
        &self.keys
    }

    /// The one that seals.
    pub fn first(&self) -> Option<&Key> {
        self.keys.first()
    }
}

#[cfg(test)]
mod tests {
    use ringway_core::session::Token;

    use super::*;

    const TOKEN: Token = Token { endpoint: 1, began: 2, seen: 3 };

    fn key(byte: u8, len: usize) -> String {
        base64::engine::general_purpose::STANDARD.encode(vec![byte; len])
    }

    #[test]
    fn keys_from_a_file() {
        let one = SessionKeys::parse(&format!("# ours\n{}\n\n{}\n", key(1, 32), key(2, 48))).unwrap();
        let other = SessionKeys::parse(&format!("{}\n", key(2, 48))).unwrap();
        let sealed = other.first().map(|key| TOKEN.seal(&[7; 16], key)).unwrap();
        assert_eq!(Token::open(&sealed, &[7; 16], &one.all()[1]), Some(TOKEN));
        assert_eq!(Token::open(&sealed, &[7; 16], &one.all()[0]), None);
        assert_eq!(SessionKeys::parse("\n# none\n").unwrap_err(), SessionKeyError::Empty);
        assert_eq!(
            SessionKeys::parse(&format!("{}\n{}", key(1, 32), key(1, 31))).unwrap_err(),
            SessionKeyError::Line(2)
        );
        let five: String = (0..5).map(|byte| key(byte, 32) + "\n").collect();
        assert_eq!(SessionKeys::parse(&five).unwrap_err(), SessionKeyError::TooMany);
    }

    /// The form of tokens is a promise, as is the key of a machine: a restart may come with another version.
    #[test]
    fn tokens_of_a_machine_never_change() {
        let keys = SessionKeys::of_machine_id("0123456789abcdef0123456789abcdef\n").unwrap();
        let sealed = TOKEN.seal(&[7; 16], keys.first().unwrap());
        assert_eq!(std::str::from_utf8(&sealed).unwrap(), "q6FFYgf_x1Zps2qi-xaru6o1JfYMn3ctI3ZQE9XQy5dzNhNa");
        assert_eq!(Token::open(&sealed, &[7; 16], &keys.all()[0]), Some(TOKEN));
        for bad in ["", "uninitialized", "00000000000000000000000000000000", "0123456789abcdef0123456789abcdeg"] {
            assert!(SessionKeys::of_machine_id(bad).is_none(), "{bad}");
        }
    }
}
