//! How downstream peers are treated: `ringway.dev/v1alpha1 ClientPolicy`, defaults included.

use std::time::Duration;

use ipnet::IpNet;

/// Settings of one socket towards its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientPolicy {
    /// Deadlines.
    pub timeouts: ClientTimeouts,
    /// Sizes.
    pub limits: ClientLimits,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` fields are believed and extended.
    pub trusted: Vec<IpNet>,
    /// Also send RFC 7239 `Forwarded` upstream.
    pub forwarded: bool,
    /// Send `Via` upstream (RFC 9110 section 7.6.3).
    pub via: bool,
    /// Say upstream by `X-Forwarded-Client-Cert` who the client is by its certificate.
    pub client_certificate: bool,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: Option<ProxyProtocol>,
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
            forwarded: false,
            via: true,
            client_certificate: false,
            proxy_protocol: None,
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
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { head_bytes: 64 << 10, head_fields: 128, uri_bytes: 16 << 10, body_bytes: None, udp_flows: 65_536 }
    }
}
