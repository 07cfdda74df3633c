//! What policies ask of requests and do to answers.

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
}

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
