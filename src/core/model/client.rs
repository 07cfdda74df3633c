//! How downstream peers are treated: `ringway.dev/v1alpha1 ClientPolicy`, defaults included.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::PrefixMap;

/// Settings of one socket towards its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientPolicy {
    /// Deadlines.
    pub timeouts: ClientTimeouts,
    /// Sizes.
    pub limits: ClientLimits,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` fields are believed and extended.
    pub trusted: Vec<IpNet>,
    /// Instead of that: every peer's are believed, and the client is this many addresses from the right end of
    /// `X-Forwarded-For`.
    pub trusted_hops: Option<u32>,
    /// Connections of HTTP/2.
    pub http2: ClientHttp2,
    /// Also send RFC 7239 `Forwarded` upstream.
    pub forwarded: bool,
    /// Send `Via` upstream (RFC 9110 section 7.6.3).
    pub via: bool,
    /// Say upstream by `X-Forwarded-Client-Cert` who the client is by its certificate.
    pub client_certificate: bool,
    /// How sockets are bound and what connections inherit from them.
    pub connection: ListenOptions,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Plain HTTP is sent to HTTPS: status and port.
    pub https_redirect: Option<(u16, u16)>,
    /// Connections of each client.
    pub per_client: Option<ClientConnections>,
}

/// A limit on the connections of each client of a socket, over all cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConnections {
    /// At a time, of an address or a network of 64 bits ([`crate::access::ClientKey`]): one more is reset.
    pub connections: u32,
    /// Whom it does not concern.
    pub exempt: PrefixMap,
    /// Clients that are counted at once.
    pub clients: usize,
}

impl ClientPolicy {
    /// Whether what a peer says of where a request comes from is believed.
    pub fn believes(&self, peer: IpAddr) -> bool {
        self.trusted_hops.is_some() || self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// Connections of HTTP/2 from clients (RFC 9113 section 6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHttp2 {
    /// Requests at a time, 1 or more.
    pub streams: u32,
    /// What one request's body may have on its way, in bytes: 65,535 or more.
    pub stream_window: u32,
    /// What all of a connection's may.
    pub connection_window: u32,
}

impl Default for ClientHttp2 {
    fn default() -> Self {
        Self { streams: 128, stream_window: 65_535, connection_window: 1 << 20 }
    }
}

/// Options of a listening socket. A change of them binds it anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenOptions {
    /// Connections that wait to be accepted, per core; `net.core.somaxconn` caps it.
    pub backlog: u32,
    /// A connection is accepted with its first bytes, or after about this many seconds (TCP_DEFER_ACCEPT).
    pub defer_accept: Option<u32>,
    /// Connections of TCP Fast Open that may wait for their handshake's end.
    pub fast_open: Option<u32>,
    /// An unspecified IPv6 address takes no IPv4 (IPV6_V6ONLY).
    pub ipv6_only: bool,
    /// Only what comes in by this interface (SO_BINDTODEVICE).
    pub device: Option<String>,
    /// The kernel's congestion control for what is sent to clients (TCP_CONGESTION).
    pub congestion: Option<String>,
    /// Probes of quiet TCP connections.
    pub keepalive: Option<Keepalive>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            defer_accept: None,
            fast_open: None,
            ipv6_only: false,
            device: None,
            congestion: None,
            keepalive: Some(Keepalive::default()),
        }
    }
}

/// Probes of a quiet TCP connection. One whose peer answers none is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// Quiet for this many seconds before the first.
    pub idle: u32,
    /// Seconds between two.
    pub interval: u32,
    /// How many.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: 60, interval: 10, probes: 3 }
    }
}

/// Who may say, ahead of a connection, whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Peers whose headers are believed. Other peers are refused, or served as what they are if `optional`.
    pub trusted: Vec<IpNet>,
    /// A connection may come without one.
    pub optional: bool,
    /// From accept to the header's end.
    pub timeout: Duration,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            timeouts: ClientTimeouts::default(),
            limits: ClientLimits::default(),
            trusted: Vec::new(),
            trusted_hops: None,
            http2: ClientHttp2::default(),
            forwarded: false,
            via: true,
            client_certificate: false,
            connection: ListenOptions::default(),
            proxy_protocol: None,
            https_redirect: None,
            per_client: None,
        }
    }
}

/// Deadlines towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request head to its last, and from accept to the first byte.
    pub header: Duration,
    /// Between two requests of a kept-alive connection.
    pub idle: Duration,
    /// Without progress in either body.
    pub body_idle: Duration,
    /// From a request's head to the end of its body.
    pub request: Option<Duration>,
    /// A connection of HTTP, after which it takes no more requests.
    pub connection: Option<Duration>,
    /// A TLS handshake, ClientHello included.
    pub handshake: Duration,
    /// Without a byte in either direction of a TCP connection or tunnel.
    pub stream_idle: Duration,
    /// Without a datagram in either direction of a UDP flow.
    pub udp_idle: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(60),
            request: None,
            connection: None,
            handshake: Duration::from_secs(10),
            stream_idle: Duration::from_secs(600),
            udp_idle: Duration::from_secs(30),
        }
    }
}

/// Sizes towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// A request head in bytes, request line included: 431 over it.
    pub head_bytes: usize,
    /// Fields in a head: 431 over it.
    pub head_fields: usize,
    /// The request target in bytes: 414 over it.
    pub uri_bytes: usize,
    /// A request body in bytes: 413 over it.
    pub body_bytes: Option<u64>,
    /// UDP flows of a socket per core: the least recently used one goes when there is one more.
    pub udp_flows: usize,
    /// Connections of a socket over all cores: one more is reset.
    pub connections: Option<u32>,
    /// Requests of a connection: the last one ends it.
    pub requests: Option<u32>,
    /// What paths may be, and become.
    pub path: PathRules,
}

/// What paths may be, and become, besides being normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathRules {
    /// What is done about `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// Several slashes in a row become one.
    pub merge_slashes: bool,
}

/// What is done about `%2F` and `%5C` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// They become slashes.
    Unescape,
    /// The client is told by 307 to ask for that.
    Redirect,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            head_fields: 128,
            uri_bytes: 16 << 10,
            body_bytes: None,
            udp_flows: 65_536,
            connections: None,
            requests: None,
            path: PathRules::default(),
        }
    }
}
