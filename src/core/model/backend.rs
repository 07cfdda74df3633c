//! Backends and their endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Keepalive, UpstreamTls};
use crate::balance::TableSize;

/// A backend's index in [`super::Model::backends`]; dense, valid for one model only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// A set of endpoints that serve the same: a Service's port, or a `ringway.dev Backend`, and how they are treated. The
/// same endpoints stand in a model once per BackendPolicy that is in force for some way to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// `Service/namespace/name:port` or `Backend/namespace/name`: the metrics' `backend` label.
    pub name: String,
    /// `namespace/name` of the BackendPolicy that is in force.
    pub policy: Option<String>,
    /// Ready endpoints only; none: 503 over HTTP, reset over TCP.
    pub endpoints: Vec<Endpoint>,
    /// How they are treated.
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

/// How a backend's endpoints are treated: `ringway.dev/v1alpha1 BackendPolicy`, defaults included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSettings {
    /// Which endpoint is next.
    pub balancing: Balancing,
    /// How connections are made and kept.
    pub connection: ConnectionSettings,
    /// Endpoints tried for one request or connection, no byte of which has been sent yet; 1 or more.
    pub connect_attempts: u32,
    /// How much it is given at once.
    pub limits: BackendLimits,
    /// How much of what it gets may be sent again because routes want that.
    pub retry_budget: RetryBudget,
    /// What requests name in Host in place of what their clients have named.
    pub host: Option<String>,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self {
            balancing: Balancing::default(),
            connection: ConnectionSettings::default(),
            connect_attempts: 3,
            limits: BackendLimits::default(),
            retry_budget: RetryBudget::default(),
            host: None,
        }
    }
}

/// How much of what a backend gets may be requests that are sent again, over all cores (XBackendTrafficPolicy
/// `retryConstraint`, GEP-3388).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// At most this share of its requests, those sent again included, 0 to 100.
    pub percent: u32,
    /// Of the requests of this time.
    pub interval: Duration,
    /// But always this many, 1 or more.
    pub min_count: u32,
    /// In this time.
    pub min_interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10), min_count: 10, min_interval: Duration::from_secs(1) }
    }
}

/// Which endpoint is next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balancing {
    /// By what.
    pub policy: LoadBalancer,
    /// How long an endpoint that comes to a backend takes less than its share; not for consistent hashing.
    pub slow_start: Option<Duration>,
}

/// By what an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// Weighted round robin, unless a random other endpoint has fewer requests in flight for its weight.
    #[default]
    LeastRequest,
    /// Weighted round robin.
    RoundRobin,
    /// By weight.
    Random,
    /// As least request, by latency times load.
    PeakEwma,
    /// By a hash of something.
    ConsistentHash {
        /// Of what.
        key: HashKey,
        /// Slots of the table.
        table: TableSize,
    },
}

/// What is hashed. What is not there hashes to nothing: then the choice is random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    SourceIp,
    /// Addresses and ports of the client's connection.
    FiveTuple,
    /// The values of header fields, by name in lower case.
    Headers(Vec<String>),
    /// A cookie's value.
    Cookie(String),
    /// The values of query parameters, as they stand in the query.
    QueryParams(Vec<String>),
    /// The request's path.
    Path,
}

/// How connections to a backend are made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Until a connection is established.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept per endpoint and core.
    pub max_idle: usize,
    /// Tell the endpoint who the client is.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Encrypt, and verify the endpoint; none: plain.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Which version of HTTP requests are sent in.
    pub http: UpstreamHttp,
    /// How connections of HTTP/2 are used.
    pub http2: Http2Settings,
    /// Probes of quiet connections.
    pub keepalive: Option<Keepalive>,
    /// Connections and datagrams leave from the client's address (IP_TRANSPARENT).
    pub transparent: bool,
    /// The kernel's congestion control for what is sent to endpoints (TCP_CONGESTION).
    pub congestion: Option<String>,
}

/// Which version of HTTP requests are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge (`appProtocol: kubernetes.io/h2c`, GRPCRoute).
    Http2,
    /// What the endpoint chooses by ALPN.
    Negotiated,
}

/// How connections of HTTP/2 to a backend are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Settings {
    /// Requests at a time on one connection, 1 or more; an endpoint may ask for fewer.
    pub max_streams: u32,
    /// How long an endpoint may be silent, with requests open, before it is asked whether it is there (PING).
    pub ping_interval: Duration,
    /// How long it may take to answer that.
    pub ping_timeout: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self { max_streams: 100, ping_interval: Duration::from_secs(300), ping_timeout: Duration::from_secs(10) }
    }
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            max_idle: 512,
            proxy_protocol: None,
            tls: None,
            http: UpstreamHttp::default(),
            http2: Http2Settings::default(),
            keepalive: Some(Keepalive::default()),
            transparent: false,
            congestion: None,
        }
    }
}

/// The PROXY protocol header that goes ahead of every connection to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary, with what else is to be told.
    V2(ProxyTlvs),
}

/// What a version 2 header tells besides the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one field of the policy")]
pub struct ProxyTlvs {
    /// The protocol that was negotiated by ALPN (0x01).
    pub alpn: bool,
    /// The name that the client asked for by SNI (0x02).
    pub authority: bool,
    /// How the client's connection was encrypted (0x20).
    pub ssl: bool,
    /// An identity of the connection (0x05).
    pub unique_id: bool,
    /// A checksum of the header (0x03).
    pub crc32c: bool,
}

/// How much a backend is given at once, by all cores together. What is over it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendLimits {
    /// Connections to all of its endpoints, unused ones included.
    pub connections: Option<u32>,
    /// Requests that have been given to an endpoint and not been answered; TCP connections count as one each.
    pub requests: Option<u32>,
    /// Requests and connections that may wait for a place.
    pub pending: u32,
    /// How long they wait.
    pub pending_timeout: Duration,
}

impl BackendLimits {
    /// Whether there are none.
    pub fn is_unlimited(&self) -> bool {
        self.connections.is_none() && self.requests.is_none()
    }
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self { connections: None, requests: None, pending: 1024, pending_timeout: Duration::from_secs(1) }
    }
}
