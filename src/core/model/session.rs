//! Sessions that stay with an endpoint: `sessionPersistence` (Gateway API GEP-1619), defaults included.

use std::time::Duration;

/// Clients of a rule go where they went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What its tokens are good for: one rule of one route, the same in every process and after every reload.
    pub scope: [u8; 16],
    /// What a client brings its token in.
    pub carrier: SessionCarrier,
    /// Whole seconds after which a session ends, however busy it is; at least one.
    pub absolute: Option<Duration>,
    /// Whole seconds without a request after which it ends; at least one.
    pub idle: Option<Duration>,
}

/// What a client brings its token in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie, which browsers send by themselves.
    Cookie(SessionCookie),
    /// A field of requests and answers, by its name in lower case.
    Header(String),
}

/// A cookie and its attributes (RFC 6265 section 4.1). It is always HttpOnly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name, a token.
    pub name: String,
    /// `Path`, without control characters and `;`.
    pub path: String,
    /// `Domain`: none is the host that was asked.
    pub domain: Option<String>,
    /// `Max-Age` says when the session ends; without, the client forgets the cookie when it ends.
    pub permanent: bool,
    /// `Secure`.
    pub secure: bool,
    /// `SameSite`.
    pub same_site: SameSite,
}

/// Which requests from other sites come with a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Those that lead a browser here.
    Lax,
    /// All. Browsers take it only with `Secure`, so it is left out without.
    None,
}

impl SameSite {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}
