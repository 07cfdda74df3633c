//! Backends and their endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A backend's index in [`super::Model::backends`]; dense, valid for one model only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// A set of endpoints that serve the same: a Service's port, or a `ringway.dev Backend`.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// `Service/namespace/name:port` or `Backend/namespace/name`: the metrics' `backend` label.
    pub name: String,
    /// Ready endpoints only; none: 503 over HTTP, reset over TCP.
    pub endpoints: Vec<Endpoint>,
    /// How connections to it are made and kept.
    pub settings: BackendSettings,
}

/// One place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Relative weight among its backend's endpoints, 1 or more.
    pub weight: u32,
}

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
    /// The built-in responder; its `backend` field carries this name.
    Echo(String),
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, `unix:/run/app.sock`, `echo:name`: what an endpoint is known by in consistent
/// hashing, metrics and messages.
impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Echo(name) => write!(f, "echo:{name}"),
        }
    }
}

/// How connections to a backend are made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSettings {
    /// Until a connection is established.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept per endpoint set and core.
    pub max_idle: usize,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(2), idle_timeout: Duration::from_secs(60), max_idle: 512 }
    }
}
