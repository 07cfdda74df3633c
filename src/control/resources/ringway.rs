//! `ringway.dev/v1alpha1`: what the Gateway API has no kind for.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::control::read::{Cx, FromNode, Int, List, choice, numbers, object};
use crate::control::source::Spanned;
use crate::control::yaml::Node;

use super::policy::{self, Policy};
use super::refs::PolicyTargetRef;
use super::text::{CongestionControl, Duration, Port, PreciseHostname};
use super::tls::BackendTlsValidation;

object! {
    /// `Backend.spec`: endpoints that are written down.
    BackendSpec = "Backend spec" {
        /// Where.
        endpoints / "endpoints": List<BackendEndpoint, 0, 1024> = required,
        /// TLS, without a BackendTLSPolicy of its own.
        tls / "tls": BackendTlsValidation = optional,
        /// As a Service port's.
        app_protocol / "appProtocol": AppProtocol = optional,
    }
    rules |this, cx| {
        let demos = this.endpoints.iter().filter(|endpoint| endpoint.demo.is_some()).count();
        if demos > 0 && this.endpoints.len() > 1 {
            cx.error(this.span, "a demo endpoint must be the only one");
        }
    }
}

choice! {
    /// What a backend speaks that is not HTTP/1.1.
    AppProtocol {
        /// HTTP/2 by prior knowledge.
        H2c = "kubernetes.io/h2c",
    }
}

choice! {
    /// The built-in responders.
    Demo {
        /// Answers with what it got.
        Echo = "Echo",
    }
}

object! {
    /// One endpoint: exactly one of `ip`, `hostname`, `unix` and `demo`.
    BackendEndpoint = "endpoint" {
        /// An address.
        ip / "ip": IpAddr = optional,
        /// A name, which is resolved.
        hostname / "hostname": PreciseHostname = optional,
        /// A Unix socket's path.
        unix / "unix": Spanned<String> = optional,
        /// A built-in responder.
        demo / "demo": Demo = optional,
        /// With `ip` and `hostname`.
        port / "port": Port = optional,
        /// Its share.
        weight / "weight": Int<0, 1000> = or(Int(1)),
    }
    rules |this, cx| {
        let given = [this.ip.is_some(), this.hostname.is_some(), this.unix.is_some(), this.demo.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            cx.error(this.span, "exactly one of ip, hostname, unix and demo must be specified");
        }
        let by_port = this.ip.is_some() || this.hostname.is_some();
        if by_port && this.port.is_none() {
            cx.error(this.span, "port must be specified with ip and hostname");
        }
        if !by_port && this.port.is_some() {
            cx.error(this.span, "port must not be specified with unix and demo");
        }
        if let Some(path) = &this.unix {
            // sockaddr_un holds 108 bytes with the end of the string.
            if path.value.is_empty() || path.value.len() > 107 || path.value.contains('\0') {
                cx.error(path.span, "a socket's path has 1 to 107 bytes");
            }
        }
    }
}

object! {
    /// `Certificate.spec`: PEM files.
    CertificateSpec = "Certificate spec" {
        /// The chain, leaf first.
        certificate_file / "certificateFile": Spanned<FilePath> = required,
        /// The key.
        private_key_file / "privateKeyFile": Spanned<FilePath> = required,
        /// An OCSP response (DER) that is stapled.
        ocsp_file / "ocspFile": Spanned<FilePath> = optional,
    }
}

/// A path; a relative one counts from the directory of the file that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromNode for FilePath {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        if text.is_empty() {
            cx.error(node.span, "expected a path");
            return None;
        }
        Some(Self(cx.directory.join(text)))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "minLength": 1 })
    }
}

object! {
    /// `ClientPolicy.spec`: how the clients of a Gateway or of one of its listeners are treated. Field names follow
    /// Envoy Gateway's ClientTrafficPolicy where it has them.
    ClientPolicySpec = "ClientPolicy spec" {
        /// Gateways, or listeners of them by `sectionName`.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// Who is believed.
        client_ip_detection / "clientIPDetection": ClientIpDetection = optional,
        /// Who says whose a connection is.
        proxy_protocol / "proxyProtocol": ClientProxyProtocol = optional,
        /// How sockets are bound.
        connection / "connection": ClientConnection = optional,
        /// Probes of quiet connections.
        tcp_keepalive / "tcpKeepalive": TcpKeepalive = optional,
        /// Deadlines.
        timeout / "timeout": ClientTimeout = optional,
        /// Sizes.
        limits / "limits": ClientLimits = optional,
        /// What paths may be, and become.
        path / "path": PathSettings = optional,
        /// Connections of HTTP/2.
        http2 / "http2": ClientHttp2 = optional,
        /// Fields that are sent upstream.
        headers / "headers": ClientHeaders = optional,
        /// Versions and algorithms.
        tls / "tls": ClientTls = optional,
        /// Plain HTTP is sent to HTTPS. Not in Envoy Gateway.
        https_redirect / "httpsRedirect": HttpsRedirect = optional,
    }
}

choice! {
    /// What is done about `%2F` and `%5C` in a path.
    EscapedSlashesAction {
        /// They stay.
        KeepUnchanged = "KeepUnchanged",
        /// 400.
        RejectRequest = "RejectRequest",
        /// They become slashes.
        UnescapeForward = "UnescapeForward",
        /// The client is sent to that by 307.
        UnescapeRedirect = "UnescapeRedirect",
    }
}

object! {
    /// What paths may be, and become. Dot segments are resolved in any case.
    PathSettings = "path" {
        /// What is done about `%2F` and `%5C`; Envoy Gateway's default is UnescapeRedirect.
        escaped_slashes / "escapedSlashesAction": EscapedSlashesAction = or(EscapedSlashesAction::KeepUnchanged),
        /// Several slashes in a row stay; Envoy Gateway's default is false.
        disable_merge_slashes / "disableMergeSlashes": bool = or(true),
    }
}

object! {
    /// Connections of HTTP/2.
    ClientHttp2 = "http2" {
        /// Requests at a time on one of them.
        max_concurrent_streams / "maxConcurrentStreams": Int<1, 10000> = optional,
        /// Bytes of one request's body that may be on their way.
        stream_window / "initialStreamWindowSize": Int<65535, 1_048_576> = optional,
        /// Bytes of the bodies of all requests of a connection.
        connection_window / "initialConnectionWindowSize": Int<65535, 16_777_216> = optional,
    }
}

object! {
    /// How many, and for how long.
    ConnectionLimit = "connectionLimit" {
        /// Connections of a port over all cores; one more is reset.
        value / "value": Int<1, { u32::MAX as i64 }> = optional,
        /// How long one of HTTP takes requests.
        max_duration / "maxConnectionDuration": Positive = optional,
        /// How many requests one takes.
        max_requests / "maxRequestsPerConnection": Int<1, { u32::MAX as i64 }> = optional,
        /// How many each client has. Not in Envoy Gateway.
        per_client / "perClient": PerClientLimit = optional,
    }
}

object! {
    /// Connections of each client: of an address, or of a network of 64 bits of IPv6.
    PerClientLimit = "perClient" {
        /// Connections at a port that one client has at a time, over all cores; one more is reset.
        value / "value": Int<1, 1_000_000> = required,
        /// Clients that it does not concern.
        exempt / "exemptCIDRs": List<Cidr, 0, 10000> = or(List::default()),
        /// Clients that are counted at once.
        max_clients / "maxClients": Int<8, 16_777_216> = or(Int(65_536)),
    }
}

numbers! {
    /// By which status plain HTTP is sent there.
    HttpsRedirectStatus { 301, 302, 307, 308, }
}

object! {
    /// Where plain HTTP is sent.
    HttpsRedirect = "httpsRedirect" {
        /// By which status.
        status / "statusCode": HttpsRedirectStatus = optional,
        /// To which port.
        port / "port": Port = or(Int(443)),
    }
}

impl Policy for ClientPolicySpec {
    const KIND: &'static str = "ClientPolicy";
    const TARGETS: &'static [(&'static str, &'static str)] = &[policy::GATEWAY];

    fn target_refs(&self) -> &[PolicyTargetRef] {
        &self.target_refs
    }
}

object! {
    /// How sockets are bound, which is not in Envoy Gateway, and limits of connections.
    ClientConnection = "connection" {
        /// Connections that wait to be accepted, per core.
        backlog / "backlog": Int<1, 65535> = optional,
        /// Accept with the first bytes, or after this.
        defer_accept / "deferAccept": Positive = optional,
        /// Connections of TCP Fast Open that may wait.
        fast_open / "fastOpen": Int<1, 65535> = optional,
        /// No IPv4 on the unspecified IPv6 address.
        ipv6_only / "ipv6Only": bool = optional,
        /// Only by this interface.
        device / "bindToDevice": Spanned<String> = optional,
        /// The kernel's congestion control for what is sent to clients: a name of `net.ipv4.tcp_available_congestion_control`.
        congestion / "congestionControl": CongestionControl = optional,
        /// How many, and for how long.
        limit / "connectionLimit": ConnectionLimit = optional,
    }
    rules |this, cx| {
        // IFNAMSIZ is 16 with the end of the string.
        if let Some(device) = &this.device
            && (device.value.is_empty() || device.value.len() > 15 || device.value.contains(['/', '\0', ' ']))
        {
            cx.error(device.span, format!("\"{}\" is not an interface's name", device.value));
        }
    }
}

object! {
    /// Probes of quiet connections; `probes: 0` is none.
    TcpKeepalive = "tcpKeepalive" {
        /// How many.
        probes / "probes": Int<0, 127> = optional,
        /// Quiet for this long before the first.
        idle_time / "idleTime": Positive = optional,
        /// Between two.
        interval / "interval": Positive = optional,
    }
}

object! {
    /// Who says whose a connection is, ahead of its first byte.
    ClientProxyProtocol = "proxyProtocol" {
        /// Peers that are believed.
        trusted_cidrs / "trustedCIDRs": List<Cidr, 1, 1024> = required,
        /// A connection may come without a header.
        optional / "optional": bool = or(false),
        /// How long the header may take.
        timeout / "timeout": Positive = or(Positive(std::time::Duration::from_secs(5))),
    }
}

object! {
    /// Who is believed about whom a request comes from.
    ClientIpDetection = "clientIPDetection" {
        /// By `X-Forwarded-For`.
        x_forwarded_for / "xForwardedFor": XForwardedFor = required,
    }
}

object! {
    /// By `X-Forwarded-For`.
    XForwardedFor = "xForwardedFor" {
        /// Peers whose fields are kept and extended.
        trusted_cidrs / "trustedCIDRs": List<Cidr, 1, 1024> = optional,
        /// Everybody's are, and the client is this many addresses from the right.
        num_trusted_hops / "numTrustedHops": Int<1, 64> = optional,
    }
    rules |this, cx| {
        if this.trusted_cidrs.is_some() == this.num_trusted_hops.is_some() {
            cx.error(this.span, "only one of numTrustedHops or trustedCIDRs must be set");
        }
    }
}

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(pub ipnet::IpNet);

impl FromNode for Cidr {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        let range = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from));
        if range.is_none() {
            cx.error(node.span, format!("\"{text}\" is not an address range such as 10.0.0.0/8"));
        }
        range.map(Self)
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"] })
    }
}

object! {
    /// Deadlines.
    ClientTimeout = "timeout" {
        /// Of HTTP.
        http / "http": HttpTimeout = optional,
        /// Of TCP connections and tunnels.
        tcp / "tcp": TcpTimeout = optional,
        /// Of TLS.
        tls / "tls": TlsTimeout = optional,
        /// Of UDP flows.
        udp / "udp": UdpTimeout = optional,
    }
}

object! {
    /// Deadlines of TLS.
    TlsTimeout = "tls timeout" {
        /// A handshake, from accept to its end.
        handshake / "handshakeTimeout": Positive = optional,
    }
}

choice! {
    /// A version of TLS.
    TlsVersionName {
        /// The lowest or highest that is served.
        Auto = "Auto",
        /// 1.2.
        V12 = "1.2",
        /// 1.3.
        V13 = "1.3",
    }
}

object! {
    /// Versions and algorithms.
    ClientTls = "tls" {
        /// The lowest version.
        min_version / "minVersion": TlsVersionName = or(TlsVersionName::Auto),
        /// The highest version.
        max_version / "maxVersion": TlsVersionName = or(TlsVersionName::Auto),
        /// Cipher suites of TLS 1.2, by their IANA or OpenSSL names.
        ciphers / "ciphers": List<Spanned<String>, 1, 32> = optional,
        /// Key exchange groups, preferred first.
        ecdh_curves / "ecdhCurves": List<Spanned<String>, 1, 16> = optional,
        /// Application protocols, preferred first.
        alpn_protocols / "alpnProtocols": List<Spanned<String>, 0, 8> = optional,
    }
    rules |this, cx| {
        if this.min_version == TlsVersionName::V13 && this.max_version == TlsVersionName::V12 {
            cx.error(this.span, "minVersion must not be above maxVersion");
        }
        for cipher in this.ciphers.iter().flat_map(|list| &**list) {
            if crate::tls::cipher_suite(&cipher.value).is_none() {
                cx.error(cipher.span, format!("\"{}\" is not a cipher suite of TLS 1.2 that is served", cipher.value));
            }
        }
        for curve in this.ecdh_curves.iter().flat_map(|list| &**list) {
            if crate::tls::group(&curve.value).is_none() {
                let message = format!("\"{}\" is not a key exchange group: X25519MLKEM768, X25519, P-256, P-384", curve.value);
                cx.error(curve.span, message);
            }
        }
        for protocol in this.alpn_protocols.iter().flat_map(|list| &**list) {
            if !["h2", "http/1.1"].contains(&protocol.value.as_str()) {
                cx.error(protocol.span, "only h2 and http/1.1 are served");
            }
        }
    }
}

object! {
    /// Deadlines of HTTP; `0s` is refused: each has to be something.
    HttpTimeout = "http timeout" {
        /// A head from its first byte to its last.
        request_headers / "requestHeadersReceivedTimeout": Positive = optional,
        /// Between two requests.
        idle / "idleTimeout": Positive = optional,
        /// Without progress in a body.
        stream_idle / "streamIdleTimeout": Positive = optional,
        /// A request from its head to the end of its body.
        request / "requestReceivedTimeout": Positive = optional,
    }
}

object! {
    /// Deadlines of TCP connections and tunnels.
    TcpTimeout = "tcp timeout" {
        /// Without a byte in either direction.
        idle / "idleTimeout": Positive = optional,
    }
}

object! {
    /// Deadlines of UDP flows.
    UdpTimeout = "udp timeout" {
        /// Without a datagram in either direction.
        idle / "idleTimeout": Positive = optional,
    }
}

/// A duration that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positive(pub std::time::Duration);

impl FromNode for Positive {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let duration = Duration::from_node(node, cx)?;
        if duration.limit().is_none() {
            cx.error(node.span, "must be longer than 0s");
        }
        duration.limit().map(Self)
    }

    fn schema() -> serde_json::Value {
        Duration::schema()
    }
}

object! {
    /// Sizes.
    ClientLimits = "limits" {
        /// Of a request head in bytes; buffers of 64 KiB hold it.
        head_bytes / "headBytes": Int<1024, 65536> = optional,
        /// Fields in it.
        head_fields / "headFields": Int<1, 128> = optional,
        /// Of the request target in bytes.
        uri_bytes / "uriBytes": Int<64, 65536> = optional,
        /// Of a request body in bytes.
        body_bytes / "bodyBytes": Int<0, { i64::MAX }> = optional,
        /// UDP flows per core.
        udp_flows / "udpFlows": Int<1, 1048576> = optional,
    }
}

object! {
    /// Fields that are sent upstream.
    ClientHeaders = "headers" {
        /// `Forwarded` (RFC 7239).
        forwarded / "forwarded": bool = optional,
        /// `Via` (RFC 9110 section 7.6.3).
        via / "via": bool = optional,
        /// Who a client is by its certificate.
        client_cert / "xForwardedClientCert": ForwardedClientCert = optional,
    }
}

choice! {
    /// What is done about `X-Forwarded-Client-Cert`. A client's own is never passed on.
    ClientCertMode {
        /// Nothing is sent.
        Sanitize = "Sanitize",
        /// The verified certificate of the client is described.
        SanitizeSet = "SanitizeSet",
    }
}

object! {
    /// Who a client is by its certificate.
    ForwardedClientCert = "xForwardedClientCert" {
        /// What is sent.
        mode / "mode": ClientCertMode = or(ClientCertMode::Sanitize),
    }
}
