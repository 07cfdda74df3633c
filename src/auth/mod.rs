//! Basic authentication: passwords against the hashes of an htpasswd file.
//!
//! A good hash takes long, so it is computed on a thread of its own with a queue of bounded length, and what has been found
//! right is known to its core for a while: by a keyed hash (HMAC) of name, password and stored hash under a key that only
//! this process has, never by the password. What was found wrong is not remembered. A name that is not in the file costs as
//! much as one that is, so that names cannot be told from the time an answer takes.

mod apr1;
mod checker;
mod htpasswd;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use ringway_core::http::basic::{self, Credentials};
use ringway_core::model::BasicAuth;
use zeroize::Zeroizing;

pub use checker::{Busy, Checked, Checker, Verdict};
pub use htpasswd::{parse, verify};

/// How long a password that was right stays known.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// Passwords that are known to a core.
const KNOWN_LIMIT: usize = 4096;
/// Longest encoded name and password: bcrypt looks at 72 bytes of a password, and nobody types more than this.
const ENCODED_LIMIT: usize = 1024;

type Tag = [u8; 32];

/// What a core knows.
pub struct Known {
    key: hmac::Key,
    table: RefCell<Table>,
}

#[derive(Default)]
struct Table {
    until: HashMap<Tag, Instant>,
    /// In the order in which they came, which is that in which they expire.
    order: VecDeque<(Instant, Tag)>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// What is to be done about a request.
#[derive(Debug)]
pub enum Judgement {
    /// It may go on.
    Pass,
    /// It is asked for a name and password that are right.
    Challenge,
    /// That has to be found out.
    Check(Claim),
}

/// A name and password that are to be checked.
pub struct Claim {
    password: Zeroizing<Vec<u8>>,
    /// The hash that it has to have; that of somebody else when there is nobody of the name.
    hash: String,
    /// `None`: it is wrong in any case.
    tag: Option<Tag>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

impl Claim {
    /// Whether they are right. That takes long.
    pub fn is_right(&self) -> bool {
        // Somebody unknown costs as much as somebody known.
        verify(&self.password, &self.hash) && self.tag.is_some()
    }
}

impl Known {
    /// Nothing, under a key of its own.
    pub fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *key).expect("the system has random numbers");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &*key), table: RefCell::default() }
    }

    /// Judges the value of a request's Authorization field.
    pub fn judge(&self, rules: &BasicAuth, authorization: Option<&[u8]>, now: Instant) -> Judgement {
        use base64::Engine as _;
        let Some(encoded) = authorization.and_then(basic::encoded).filter(|found| found.len() <= ENCODED_LIMIT) else {
            return Judgement::Challenge;
        };
        let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(encoded) else {
            return Judgement::Challenge;
        };
        let decoded = Zeroizing::new(decoded);
        let Some(Credentials { user, password }) = Credentials::of(&decoded) else { return Judgement::Challenge };
        let own = std::str::from_utf8(user).ok().and_then(|user| rules.users.get(user));
        let Some(hash) = own.or_else(|| rules.users.values().next()) else { return Judgement::Challenge };
        let tag = own.map(|hash| self.tag(user, password, hash));
        if tag.is_some_and(|tag| self.table.borrow().until.get(&tag).is_some_and(|until| *until > now)) {
            return Judgement::Pass;
        }
        Judgement::Check(Claim { password: Zeroizing::new(password.to_vec()), hash: hash.clone(), tag })
    }

    fn tag(&self, user: &[u8], password: &[u8], hash: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user, hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// A password was right.
    fn learn(&self, tag: Tag, now: Instant) {
        let mut table = self.table.borrow_mut();
        let Table { until, order } = &mut *table;
        while order.len() >= KNOWN_LIMIT || order.front().is_some_and(|(end, _)| *end <= now) {
            let Some((end, oldest)) = order.pop_front() else { break };
            // Unless it was learnt again.
            if until.get(&oldest) == Some(&end) {
                until.remove(&oldest);
            }
        }
        let end = now + KNOWN_FOR;
        until.insert(tag, end);
        order.push_back((end, tag));
    }
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use base64::Engine as _;

    use super::*;

    fn rules(users: &[(&str, &str)]) -> BasicAuth {
        let users: BTreeMap<String, String> =
            users.iter().map(|(user, hash)| ((*user).to_owned(), (*hash).to_owned())).collect();
        BasicAuth { realm: "r".to_owned(), users: Arc::new(users) }
    }

    fn field(both: &str) -> Vec<u8> {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both)).into_bytes()
    }

    #[test]
    fn what_was_right_is_known_for_a_while_and_while_it_is_the_same() {
        let known = Known::new();
        let now = Instant::now();
        let before = rules(&[("me", "{SHA}hash")]);
        let Judgement::Check(claim) = known.judge(&before, Some(&field("me:x")), now) else { panic!("not known yet") };
        known.learn(claim.tag.unwrap(), now);
        let is_known =
            |rules: &BasicAuth, both: &str, at| matches!(known.judge(rules, Some(&field(both)), at), Judgement::Pass);
        assert!(is_known(&before, "me:x", now));
        for other in ["me:y", "me:", "m:ex", "you:x"] {
            assert!(!is_known(&before, other, now), "{other}");
        }
        assert!(!is_known(&rules(&[("me", "{SHA}other")]), "me:x", now), "the password was changed");
        assert!(!is_known(&rules(&[("you", "{SHA}hash")]), "me:x", now), "nobody of the name is left");
        assert!(!is_known(&before, "me:x", now + KNOWN_FOR));
        for n in 0..KNOWN_LIMIT as u64 {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&n.to_le_bytes());
            known.learn(tag, now);
        }
        assert!(!is_known(&before, "me:x", now), "the oldest makes room");
        assert_eq!(known.table.borrow().until.len(), KNOWN_LIMIT);
    }

    #[test]
    fn what_is_no_password_is_asked_for_one() {
        let known = Known::new();
        let rules = rules(&[("me", "{SHA}hash")]);
        let long = field(&format!("me:{}", "x".repeat(ENCODED_LIMIT)));
        let values = [&b""[..], b"Basic", b"Basic !", b"Basic bWU=", b"Bearer bWU6eA==", &long];
        for value in values.into_iter().map(Some).chain([None]) {
            assert!(matches!(known.judge(&rules, value, Instant::now()), Judgement::Challenge), "{value:?}");
        }
        // Somebody unknown costs as much as somebody known, and is wrong in any case.
        let Judgement::Check(claim) = known.judge(&rules, Some(&field("you:x")), Instant::now()) else { panic!() };
        assert!(claim.tag.is_none() && claim.hash == "{SHA}hash");
    }
}
