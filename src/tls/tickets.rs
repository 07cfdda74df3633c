//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): sessions are resumed on any core, and by any process that has
//! the keys, without a table of sessions anywhere.
//!
//! The control thread makes the ring and rotates it: what was next encrypts, what encrypted is still understood for one
//! more period, and a new key is handed out before anybody uses it. Every core keeps its own reference to the ring in
//! its thread, so taking a ticket is no lock and no shared write.
//!
//! A ticket is bound to the trust under which its session was made ([`Context`]): one that was given without asking for
//! a certificate, or under other authorities, does not open a session where certificates are asked for
//! (CVE-2025-23419). The library binds it to the server name as well.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use rustls::server::ProducesTickets;

/// How long one key encrypts. A ticket is understood for at least this long, at most twice.
pub const PERIOD: Duration = Duration::from_secs(8 * 3600);

const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;

thread_local! {
    static RING: RefCell<Option<Arc<TicketRing>>> = const { RefCell::new(None) };
}

/// The keys. The first encrypts; all of them decrypt.
#[derive(Debug)]
pub struct TicketRing {
    keys: Vec<Arc<Key>>,
}

struct Key {
    name: [u8; NAME],
    aead: RandomizedNonceKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    fn new(bytes: &[u8; 48]) -> Self {
        let (name, secret) = bytes.split_at(NAME);
        Self {
            name: name.try_into().expect("16 bytes"),
            aead: RandomizedNonceKey::new(&AES_256_GCM, secret).expect("32 bytes are a key"),
        }
    }

    fn random() -> Arc<Self> {
        let mut bytes = [0; 48];
        rand::fill(&mut bytes).expect("the system's random numbers");
        Arc::new(Self::new(&bytes))
    }
}

/// Why a file of keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeyError {
    /// A line that is no key.
    #[error("line {0} is not 48 bytes in base64; `openssl rand -base64 48` makes a key")]
    Line(usize),
    /// No line.
    #[error("there is no key in it; `openssl rand -base64 48` makes one")]
    Empty,
}

impl TicketRing {
    /// Random keys: the one in use, and the next.
    pub fn random() -> Self {
        Self { keys: vec![Key::random(), Key::random()] }
    }

    /// One key per line, 48 bytes in base64; the first encrypts. Several machines that have the same file understand
    /// each other's tickets.
    pub fn parse(text: &str) -> Result<Self, TicketKeyError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = base64::engine::general_purpose::STANDARD.decode(line).ok();
            let bytes: [u8; 48] =
                bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(TicketKeyError::Line(number + 1))?;
            keys.push(Arc::new(Key::new(&bytes)));
        }
        if keys.is_empty() { Err(TicketKeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// One period later: the next key is in use, the one that was is still understood, older ones are forgotten.
    pub fn rotated(&self) -> Self {
        let current = Arc::clone(&self.keys[0]);
        let next = self.keys.get(1).map_or_else(Key::random, Arc::clone);
        Self { keys: vec![next, Key::random(), current] }
    }

    /// Makes it this thread's.
    pub fn install(self: Arc<Self>) {
        RING.set(Some(self));
    }

    fn seal(&self, plain: &[u8], context: &Context) -> Option<Vec<u8>> {
        let key = &self.keys[0];
        let mut ticket = Vec::with_capacity(NAME + NONCE + plain.len() + TAG);
        ticket.extend_from_slice(&key.name);
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(context.0), &mut sealed).ok()?;
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], context: &Context) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let key = self.keys.iter().find(|key| key.name == name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.aead.open_in_place(nonce, Aad::from(context.0), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

/// What a ticket is bound to: a hash over the authorities that clients are verified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context(pub [u8; 32]);

/// The library's side: tickets by this thread's ring.
#[derive(Debug)]
pub(super) struct Ticketer {
    pub(super) context: Context,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(PERIOD.as_secs()).expect("hours")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        RING.with_borrow(|ring| ring.as_ref()?.seal(plain, &self.context))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        RING.with_borrow(|ring| ring.as_ref()?.open(ticket, &self.context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Context = Context([1; 32]);

    #[test]
    fn a_ticket_lives_for_two_periods() {
        let first = TicketRing::random();
        let ticket = first.seal(b"session", &HERE).unwrap();
        assert_eq!(first.open(&ticket, &HERE).unwrap(), b"session");
        let second = first.rotated();
        assert_eq!(second.open(&ticket, &HERE).unwrap(), b"session");
        assert_eq!(second.rotated().open(&ticket, &HERE), None);
        // Whoever rotates a moment later understands whoever rotated already.
        let early = second.seal(b"new", &HERE).unwrap();
        assert_eq!(first.open(&early, &HERE).unwrap(), b"new");
    }

    #[test]
    fn a_ticket_belongs_to_its_context_and_is_whole() {
        let ring = TicketRing::random();
        let ticket = ring.seal(b"session", &HERE).unwrap();
        assert_eq!(ring.open(&ticket, &Context([2; 32])), None);
        for end in 0..ticket.len() {
            assert_eq!(ring.open(&ticket[..end], &HERE), None);
        }
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(ring.open(&bent, &HERE), None, "byte {at}");
        }
        assert_ne!(ring.seal(b"session", &HERE), ring.seal(b"session", &HERE));
    }

    #[test]
    fn keys_from_a_file() {
        let key = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 48]);
        let one = TicketRing::parse(&format!("# ours\n{}\n\n{}\n", key(1), key(2))).unwrap();
        let other = TicketRing::parse(&format!("{}\n{}\n", key(2), key(1))).unwrap();
        let ticket = one.seal(b"s", &HERE).unwrap();
        assert_eq!(other.open(&ticket, &HERE).unwrap(), b"s");
        assert_eq!(TicketRing::parse("\n# none\n").unwrap_err(), TicketKeyError::Empty);
        assert_eq!(TicketRing::parse(&format!("{}\nAAAA\n", key(1))).unwrap_err(), TicketKeyError::Line(2));
    }
}
