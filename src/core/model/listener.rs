//! Sockets and the listeners behind them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ClientPolicy, HostPattern, HttpRoute, ResponseRules, RouteId, TlsListener, WeightedTarget};

/// One bound address and port. Several Gateway API listeners share it when they differ by hostname.
#[derive(Debug, Clone, PartialEq)]
pub struct Socket {
    /// What to bind; an unspecified IPv6 address is bound dual stack.
    pub bind: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How downstream peers are treated.
    pub client: ClientPolicy,
}

/// What a socket speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Protocol {
    /// Plain HTTP/1.1; at least one listener, distinct by hostname.
    Http(Vec<HttpListener>),
    /// TLS; at least one listener, distinct by hostname.
    Tls(Vec<TlsListener>),
    /// Raw TCP.
    Tcp(L4Listener),
    /// UDP datagrams.
    Udp(L4Listener),
}

/// A Gateway API listener of protocol HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpListener {
    /// `namespace/gateway/listener`: the metrics' `listener` label.
    pub name: String,
    /// Hosts this listener takes; the most specific listener of a socket wins, and only its routes are considered.
    pub hostname: HostPattern,
    /// Attached routes in precedence order: oldest first, then by namespace and name.
    pub routes: Vec<HttpRoute>,
    /// What is done to answers for which there is no rule.
    pub responses: Option<Arc<ResponseRules>>,
}

/// A Gateway API listener of protocol TCP or UDP.
#[derive(Debug, Clone, PartialEq)]
pub struct L4Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// The route that serves it and its split; none: connections are reset, datagrams dropped.
    pub route: Option<(RouteId, Vec<WeightedTarget>)>,
}
