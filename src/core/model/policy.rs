//! What policies ask of requests and do to answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::DirectResponse;
use crate::access::PrefixMap;
use crate::http::coding::Coding;

/// Who may ask: `ringway.dev/v1alpha1 AccessPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// By the client's address; the longest prefix counts.
    pub ranges: PrefixMap,
    /// Anybody else may.
    pub others: bool,
    /// Who asks has to show who it is.
    pub login: Option<Login>,
    /// An address that may, or a login, is enough.
    pub any: bool,
}

/// How a client shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// By a name and a password.
    Basic(BasicAuth),
    /// It cannot: what it would be compared with is not there.
    Closed,
}

/// Basic authentication (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// What the name and password are for; without quotes and backslashes.
    pub realm: String,
    /// Users with the hashes of their passwords, as htpasswd writes them; never empty.
    pub users: Arc<BTreeMap<String, String>>,
}

/// Hashes are not shown.
impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("BasicAuth").field("realm", &self.realm).field("users", &users).finish()
    }
}

impl Access {
    /// Whether a client's address lets it in.
    pub fn admits(&self, address: IpAddr) -> bool {
        self.ranges.get(address).unwrap_or(self.others)
    }

    /// What is asked of a client beyond its address; the error: it is not let in.
    pub fn login(&self, admitted: bool) -> Result<Option<&Login>, NotAdmitted> {
        match (&self.login, admitted) {
            (Some(_), true) if self.any => Ok(None),
            (Some(login), false) if self.any => Ok(Some(login)),
            (login, true) => Ok(login.as_ref()),
            (_, false) => Err(NotAdmitted),
        }
    }
}

/// A client's address does not let it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAdmitted;

/// A limit on requests: one rule of a `ringway.dev/v1alpha1 RateLimitPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// `namespace/name/rule`: what has been counted is kept for as long as this stays.
    pub name: String,
    /// Requests...
    pub requests: u64,
    /// ...in this time.
    pub per: Duration,
    /// Requests at once.
    pub burst: u64,
    /// Each of what is limited.
    pub key: RateKey,
    /// Whom it does not concern.
    pub exempt: PrefixMap,
    /// Keys that are known at once.
    pub keys: usize,
}

/// A limit on requests under way: one rule of a `ringway.dev/v1alpha1 RateLimitPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// `namespace/name/rule`: what is under way stays counted for as long as this stays.
    pub name: String,
    /// Requests at a time: 429 over it.
    pub requests: u32,
    /// Each of what is limited.
    pub key: RateKey,
    /// Whom it does not concern.
    pub exempt: PrefixMap,
    /// Keys that are counted at once.
    pub keys: usize,
}

/// Each of what is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// Clients, by address; those of IPv6 by their network of 64 bits.
    ClientIp,
    /// Values of a field, by its name in lower case; a request without it is not limited.
    Header(String),
    /// Routes: all requests together.
    Route,
}

/// What is done to answers: `ringway.dev/v1alpha1 ResponsePolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseRules {
    /// `Strict-Transport-Security`, as a whole line, for answers over TLS.
    pub hsts: Option<String>,
    /// Answers in place of those with these statuses: first and last, and what is said instead. The first one counts.
    pub pages: Vec<(u16, u16, DirectResponse)>,
    /// Content codings for those who take them.
    pub compression: Option<Compression>,
}

/// Which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Codings with their levels, in the order in which they are preferred among those that a client likes alike; at
    /// most one of each.
    pub codings: Vec<(Coding, u32)>,
    /// Bodies that are known to be shorter stay as they are.
    pub min_length: u64,
    /// Media types; `text/*` for all of a kind.
    pub types: Vec<String>,
}

impl ResponseRules {
    /// What is said instead of an answer with this status.
    pub fn page(&self, status: u16) -> Option<&DirectResponse> {
        self.pages.iter().find(|(first, last, _)| (*first..=*last).contains(&status)).map(|(.., page)| page)
    }
}
