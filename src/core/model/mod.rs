//! The validated model: what the configuration means, ready to be served.
//!
//! The control path builds one [`Model`] per generation out of the resources it accepted; the data path compiles it
//! and never sees YAML, names to be resolved or conditions. Every reference is an index that exists, every list that
//! must not be empty is checked where it is built, and what could not be resolved has already become the answer the
//! API prescribes ([`Target::Invalid`], [`Action::Fail`]).

mod backend;
mod client;
mod dsr;
mod hostname;
mod http;
mod listener;
mod policy;
mod session;
mod tls;

pub use backend::{
    Backend, BackendId, BackendLimits, BackendSettings, Balancing, ConnectionSettings, Endpoint, EndpointAddress,
    HashKey, Http2Settings, LoadBalancer, ProxyHeader, ProxyTlvs, RetryBudget, UpstreamHttp,
};
pub use client::{
    ClientConnections, ClientHttp2, ClientLimits, ClientPolicy, ClientTimeouts, EscapedSlashes, Keepalive,
    ListenOptions, PathRules, ProxyProtocol,
};
pub use dsr::{DsrMode, DsrServer, DsrService};
pub use hostname::{HostPattern, HostPatternError};
pub use http::{
    Action, Cors, DirectResponse, ExternalAuth, Filters, HeaderMatch, HeaderModifier, HttpMatch, HttpRoute, HttpRule,
    Mirror, OriginPattern, PathMatch, PathModifier, QueryMatch, Redirect, RedirectPort, RegexRewrite, Retry,
    RouteTimeouts, RuleExtras, ShareFilters, Substitution, UrlRewrite, ValueMatch,
};
pub use listener::{HttpListener, L4Listener, Protocol, Socket};
pub use policy::{
    Access, BasicAuth, Compression, ConcurrencyLimit, Login, NotAdmitted, RateKey, RateLimit, ResponseRules,
};
pub use session::{SameSite, Session, SessionCarrier, SessionCookie};
pub use tls::{
    CertificateChain, CertificateFacts, ClientAuth, SubjectAltName, TlsListener, TlsParameters, TlsRoute, TlsServes,
    TlsSettings, TlsVersion, TrustRoots, UpstreamTls,
};

/// A route's index in [`Model::routes`]; dense, valid for one model only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// Everything one generation serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// One per address and port that is bound.
    pub sockets: Vec<Socket>,
    /// Route names by [`RouteId`], as `Kind/namespace/name`; the metrics' `route` label.
    pub routes: Vec<String>,
    /// By [`BackendId`].
    pub backends: Vec<Backend>,
    /// Limits on requests; rules refer to them by index.
    pub rate_limits: Vec<RateLimit>,
    /// Limits on requests under way; rules refer to them by index.
    pub concurrency_limits: Vec<ConcurrencyLimit>,
    /// Services that are forwarded by an XDP program, and bound to no socket.
    pub dsr: Vec<DsrService>,
}

impl Model {
    /// By backend: whether some rule sends requests to it again.
    pub fn retried_backends(&self) -> Vec<bool> {
        let mut retried = vec![false; self.backends.len()];
        let listeners = self.sockets.iter().flat_map(|socket| match &socket.protocol {
            Protocol::Http(listeners) => listeners.iter().map(|listener| listener.routes.as_slice()).collect(),
            Protocol::Tls(listeners) => listeners
                .iter()
                .filter_map(|listener| match &listener.serves {
                    TlsServes::Https { routes, .. } => Some(routes.as_slice()),
                    TlsServes::Terminate { .. } | TlsServes::Passthrough { .. } => None,
                })
                .collect(),
            Protocol::Tcp(_) | Protocol::Udp(_) => Vec::new(),
        });
        for rule in listeners.flatten().flat_map(|route| &route.rules) {
            if let Action::Forward(split) = &rule.action
                && rule.extras.as_ref().is_some_and(|extras| extras.retry.is_some())
            {
                for share in split {
                    if let Target::Backend(id) = share.target {
                        retried[id.0 as usize] = true;
                    }
                }
            }
        }
        retried
    }
}

/// One share of a split: Gateway API `backendRefs[]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedTarget {
    /// Relative weight, 0 to 1,000,000; 0 takes no traffic.
    pub weight: u32,
    /// Where this share goes.
    pub target: Target,
}

/// Where a share of the traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A backend that exists, with or without ready endpoints.
    Backend(BackendId),
    /// A reference that did not resolve or is not permitted: its share of HTTP requests is answered 500, its share of
    /// TCP connections reset, its share of UDP flows dropped.
    Invalid,
}
