//! `BackendPolicy`: how a backend's endpoints are treated. Field names follow Envoy Gateway's BackendTrafficPolicy where
//! it has them.

use ringway_core::balance::TableSize;

use crate::control::read::{Int, List, choice, object};
use crate::control::source::Spanned;

use super::policy::{self, Policy};
use super::refs::PolicyTargetRef;
use super::ringway::{Positive, TcpKeepalive};
use super::session::{SessionCookieAttributes, SessionPersistence};
use super::text::{CongestionControl, HeaderName, PreciseHostname};

object! {
    /// `BackendPolicy.spec`.
    BackendPolicySpec = "BackendPolicy spec" {
        /// Where it applies: backends, or ways to them.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// Which endpoint is next.
        load_balancer / "loadBalancer": LoadBalancer = optional,
        /// Limits.
        circuit_breaker / "circuitBreaker": CircuitBreaker = optional,
        /// Deadlines.
        timeout / "timeout": BackendTimeout = optional,
        /// How connections are made and kept.
        connection / "connection": BackendConnection = optional,
        /// The version of HTTP, where `appProtocol` does not say it or is wrong. Not in Envoy Gateway.
        protocol / "protocol": BackendProtocol = optional,
        /// What requests name in Host. Not in Envoy Gateway, whose HTTPRouteFilter has it by route.
        host_rewrite / "hostRewrite": HostRewrite = optional,
        /// Connections of HTTP/2.
        http2 / "http2": BackendHttp2 = optional,
        /// Probes of quiet connections.
        tcp_keepalive / "tcpKeepalive": TcpKeepalive = optional,
        /// Other endpoints for what could not be sent.
        retry / "retry": Retry = optional,
        /// How much may be sent again because routes want that (XBackendTrafficPolicy).
        retry_constraint / "retryConstraint": RetryConstraint = optional,
        /// Who the client is, told to the endpoint.
        proxy_protocol / "proxyProtocol": BackendProxyProtocol = optional,
        /// Clients go where they went. A rule's own takes the place of it.
        session_persistence / "sessionPersistence": SessionPersistence = optional,
        /// Attributes of session cookies, also of those that rules ask for.
        session_cookie / "sessionCookie": SessionCookieAttributes = optional,
    }
}

impl Policy for BackendPolicySpec {
    const KIND: &'static str = "BackendPolicy";
    const TARGETS: &'static [(&'static str, &'static str)] = &[
        policy::GATEWAY,
        policy::HTTP_ROUTE,
        policy::GRPC_ROUTE,
        policy::TCP_ROUTE,
        policy::UDP_ROUTE,
        policy::TLS_ROUTE,
        policy::SERVICE,
        policy::BACKEND,
    ];

    fn target_refs(&self) -> &[PolicyTargetRef] {
        &self.target_refs
    }
}

choice! {
    /// By what an endpoint is chosen.
    LoadBalancerType {
        /// Fewest in flight of two.
        LeastRequest = "LeastRequest",
        /// In turn.
        RoundRobin = "RoundRobin",
        /// At random.
        Random = "Random",
        /// Latency times load of two.
        PeakEwma = "PeakEwma",
        /// By a hash.
        ConsistentHash = "ConsistentHash",
    }
}

object! {
    /// Which endpoint is next.
    LoadBalancer = "loadBalancer" {
        /// By what.
        kind / "type": LoadBalancerType = required,
        /// With type ConsistentHash.
        consistent_hash / "consistentHash": ConsistentHash = optional,
        /// For endpoints that come.
        slow_start / "slowStart": SlowStart = optional,
    }
    rules |this, cx| {
        let hashes = this.kind == LoadBalancerType::ConsistentHash;
        match &this.consistent_hash {
            None if hashes => {
                cx.error(this.span, "If LoadBalancer type is ConsistentHash, consistentHash must be specified");
            }
            Some(given) if !hashes => {
                cx.error(given.span, "consistentHash must not be specified unless the type is ConsistentHash");
            }
            _ => {}
        }
        if let Some(slow_start) = this.slow_start.as_ref().filter(|_| hashes) {
            cx.error(slow_start.span, "slowStart cannot be used with ConsistentHash, whose shares must not change");
        }
    }
}

object! {
    /// For endpoints that come.
    SlowStart = "slowStart" {
        /// How long until they take their whole share.
        window / "window": Positive = required,
    }
}

choice! {
    /// What is hashed.
    HashType {
        /// The client's address.
        SourceIp = "SourceIP",
        /// Addresses and ports.
        FiveTuple = "FiveTuple",
        /// A header field.
        Header = "Header",
        /// Several.
        Headers = "Headers",
        /// A cookie.
        Cookie = "Cookie",
        /// Query parameters.
        QueryParams = "QueryParams",
        /// The path.
        Path = "Path",
    }
}

object! {
    /// What is hashed, into how large a table.
    ConsistentHash = "consistentHash" {
        /// What.
        kind / "type": HashType = required,
        /// With type Header.
        header / "header": HashedHeader = optional,
        /// With type Headers.
        headers / "headers": List<HashedHeader, 1, 16> = optional,
        /// With type Cookie.
        cookie / "cookie": HashedCookie = optional,
        /// With type QueryParams.
        query_params / "queryParams": List<HashedQueryParam, 1, 16> = optional,
        /// Slots.
        table_size / "tableSize": Spanned<Slots> = optional,
    }
    rules |this, cx| {
        let fields = [
            (HashType::Header, "header", this.header.is_some()),
            (HashType::Headers, "headers", this.headers.is_some()),
            (HashType::Cookie, "cookie", this.cookie.is_some()),
            (HashType::QueryParams, "queryParams", this.query_params.is_some()),
        ];
        for (kind, field, given) in fields {
            if given != (this.kind == kind) {
                let must = if given { "must not be specified unless" } else { "must be specified when" };
                cx.error(this.span, format!("{field} {must} the type is {}", kind.as_str()));
            }
        }
        if let Some(size) = &this.table_size
            && prime(size).is_none()
        {
            cx.error(size.span, format!("{} is not a prime number: try 16381 or 65537", size.value.0));
        }
    }
}

impl ConsistentHash {
    /// `tableSize`, or its default.
    pub fn size(&self) -> TableSize {
        self.table_size.as_ref().and_then(prime).unwrap_or_default()
    }
}

fn prime(size: &Spanned<Slots>) -> Option<TableSize> {
    u32::try_from(size.value.0).ok().and_then(TableSize::new)
}

/// A number of slots.
pub type Slots = Int<2, { TableSize::MAX as i64 }>;

object! {
    /// A header field.
    HashedHeader = "header" {
        /// Its name.
        name / "name": HeaderName = required,
    }
}

object! {
    /// A cookie.
    HashedCookie = "cookie" {
        /// Its name.
        name / "name": HeaderName = required,
    }
}

object! {
    /// A query parameter.
    HashedQueryParam = "queryParam" {
        /// Its name.
        name / "name": HeaderName = required,
    }
}

/// A limit.
pub type Count = Int<1, { u32::MAX as i64 }>;

object! {
    /// Limits of a backend, over all cores.
    CircuitBreaker = "circuitBreaker" {
        /// Connections to it.
        max_connections / "maxConnections": Count = optional,
        /// Requests and connections waiting.
        max_pending_requests / "maxPendingRequests": Int<0, { u32::MAX as i64 }> = optional,
        /// Requests given to it and not answered.
        max_parallel_requests / "maxParallelRequests": Count = optional,
        /// How long one waits.
        pending_timeout / "pendingTimeout": Positive = optional,
    }
}

object! {
    /// Deadlines.
    BackendTimeout = "timeout" {
        /// Of connecting.
        tcp / "tcp": BackendTcpTimeout = optional,
        /// Of kept connections.
        http / "http": BackendHttpTimeout = optional,
    }
}

object! {
    /// Of connecting.
    BackendTcpTimeout = "tcp timeout" {
        /// Until a connection is established.
        connect / "connectTimeout": Positive = optional,
    }
}

object! {
    /// Of kept connections.
    BackendHttpTimeout = "http timeout" {
        /// How long an unused one is kept.
        idle / "connectionIdleTimeout": Positive = optional,
    }
}

object! {
    /// How connections are made and kept. Not in Envoy Gateway.
    BackendConnection = "connection" {
        /// Unused ones per endpoint and core.
        max_idle / "maxIdle": Int<0, 65536> = optional,
        /// From the client's address.
        transparent_source / "transparentSource": bool = optional,
        /// The kernel's congestion control for what is sent to endpoints: a name of `net.ipv4.tcp_available_congestion_control`.
        congestion / "congestionControl": CongestionControl = optional,
    }
}

choice! {
    /// A version of HTTP, with TLS or without.
    BackendProtocol {
        /// HTTP/1.1.
        Http1 = "HTTP1",
        /// HTTP/2, by prior knowledge.
        Http2 = "HTTP2",
    }
}

choice! {
    /// What requests name in Host.
    HostRewriteType {
        /// What their clients have named.
        Preserve = "Preserve",
        /// The hostname of the Backend's endpoints, or else that which its TLS is verified by.
        Backend = "Backend",
        /// What is given here.
        Literal = "Literal",
    }
}

object! {
    /// What requests name in Host.
    HostRewrite = "hostRewrite" {
        /// What.
        kind / "type": HostRewriteType = required,
        /// With type Literal.
        hostname / "hostname": PreciseHostname = optional,
    }
    rules |this, cx| {
        if (this.kind == HostRewriteType::Literal) != this.hostname.is_some() {
            cx.error(this.span, "hostname must be specified with type Literal, and only then");
        }
    }
}

object! {
    /// Connections of HTTP/2.
    BackendHttp2 = "http2" {
        /// Requests at a time on one of them.
        max_concurrent_streams / "maxConcurrentStreams": Int<1, 65536> = optional,
        /// Whether an endpoint that is silent is still there.
        keep_alive / "keepAlive": BackendKeepAlive = optional,
    }
}

object! {
    /// PING frames to endpoints that have requests and say nothing.
    BackendKeepAlive = "keepAlive" {
        /// Silence before one is sent.
        interval / "interval": Positive = optional,
        /// How long its answer may take.
        timeout / "timeout": Positive = optional,
    }
}

object! {
    /// Other endpoints for what could not be sent.
    Retry = "retry" {
        /// How many after the first.
        num_retries / "numRetries": Int<0, 10> = optional,
    }
}

object! {
    /// How much of what a backend gets may be sent again because routes want that, over all cores (GEP-3388).
    RetryConstraint = "retryConstraint" {
        /// A share of its requests.
        budget / "budget": RetryShare = optional,
        /// So much in any case.
        min_rate / "minRetryRate": MinRetryRate = optional,
    }
}

object! {
    /// A share of a backend's requests, those that are sent again included.
    RetryShare = "budget" {
        /// Of a hundred.
        percent / "percent": Int<0, 100> = or(Int(20)),
        /// Of the requests of this time.
        interval / "interval": Spanned<Positive> = optional,
    }
    rules |this, cx| {
        let whole_hour = std::time::Duration::from_secs(3600);
        if let Some(interval) = &this.interval
            && !(std::time::Duration::from_secs(1)..=whole_hour).contains(&interval.value.0)
        {
            cx.error(interval.span, "interval cannot be greater than one hour or less than one second");
        }
    }
}

object! {
    /// So many in a time.
    MinRetryRate = "minRetryRate" {
        /// How many.
        count / "count": Int<1, 1_000_000> = or(Int(10)),
        /// The time.
        interval / "interval": Spanned<Positive> = optional,
    }
    rules |this, cx| {
        let whole_hour = std::time::Duration::from_secs(3600);
        if let Some(interval) = &this.interval
            && !(std::time::Duration::from_millis(10)..=whole_hour).contains(&interval.value.0)
        {
            cx.error(interval.span, "interval cannot be greater than one hour or less than 10ms");
        }
    }
}

choice! {
    /// The PROXY protocol's versions.
    ProxyVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

choice! {
    /// What a version 2 header may tell.
    ProxyTlv {
        /// The protocol negotiated by ALPN.
        Alpn = "ALPN",
        /// The name asked for by SNI.
        Authority = "Authority",
        /// How the client's connection is encrypted.
        Ssl = "SSL",
        /// An identity of the connection.
        UniqueId = "UniqueID",
        /// A checksum.
        Crc32c = "CRC32C",
    }
}

object! {
    /// The header ahead of every connection.
    BackendProxyProtocol = "proxyProtocol" {
        /// Which.
        version / "version": ProxyVersion = required,
        /// What version 2 tells besides the addresses.
        tlvs / "tlvs": List<ProxyTlv, 0, 8> = or(List::default()),
    }
    rules |this, cx| {
        if this.version == ProxyVersion::V1 && !this.tlvs.is_empty() {
            cx.error(this.span, "tlvs must not be specified with version V1, which has none");
        }
    }
}
