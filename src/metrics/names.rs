//! Reasons, as metrics name them.

/// Makes an enum whose variants have label values and index arrays of counters.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// What a client did wrong, or what it was told that was not an origin's answer.
    DownstreamError {
        /// A malformed request head.
        MalformedHead = "malformed_head",
        /// Neither HTTP/1.0 nor HTTP/1.1.
        Version = "version",
        /// A malformed target.
        BadTarget = "bad_target",
        /// A target over the limit.
        UriTooLong = "uri_too_long",
        /// A head over its limits.
        HeadTooLarge = "head_too_large",
        /// Host missing, repeated or malformed.
        BadHost = "bad_host",
        /// Content-Length and Transfer-Encoding that do not say one thing.
        AmbiguousFraming = "ambiguous_framing",
        /// A transfer coding other than chunked.
        TransferCoding = "transfer_coding",
        /// An expectation other than 100-continue.
        Expectation = "expectation",
        /// CONNECT or TRACE.
        Method = "method",
        /// A head that did not come in time.
        HeaderTimeout = "header_timeout",
        /// A connection that waited for too long.
        IdleTimeout = "idle_timeout",
        /// A body that did not go on in time.
        BodyTimeout = "body_timeout",
        /// A body over the limit.
        BodyTooLarge = "body_too_large",
        /// A body that ended early.
        BodyCut = "body_cut",
        /// Malformed chunks.
        BadChunk = "bad_chunk",
        /// No rule matched.
        NoRoute = "no_route",
        /// The listener was removed, or none takes this host.
        NoListener = "no_listener",
        /// The rule cannot be served: no backends, or a filter that cannot be honoured.
        InvalidRoute = "invalid_route",
        /// The split's share has no backend.
        InvalidBackend = "invalid_backend",
        /// A client that an AccessPolicy does not let in.
        AccessDenied = "access_denied",
        /// A request without a name and password that are right.
        Unauthorized = "unauthorized",
        /// A password that could not be checked: too many waited.
        PasswordsBusy = "passwords_busy",
        /// A server that an ExternalAuth filter asks has not answered as it should.
        AuthUnavailable = "auth_unavailable",
        /// A request over a rate limit.
        RateLimited = "rate_limited",
        /// A request beyond those that may be under way.
        ConcurrencyLimited = "concurrency_limited",
        /// What was let pass uncounted: its limit is full of other keys.
        LimitFull = "limit_full",
        /// The client went away.
        Aborted = "aborted",
        /// A PROXY protocol header that is missing, malformed, too long or has a wrong checksum.
        ProxyHeader = "proxy_header",
        /// A PROXY protocol header that did not come in time.
        ProxyTimeout = "proxy_timeout",
        /// A peer that is not trusted where a PROXY protocol header is required.
        ProxyUntrusted = "proxy_untrusted",
        /// Something else than TLS on a TLS port.
        NotTls = "not_tls",
        /// A ClientHello that is malformed or too long.
        BadHello = "bad_hello",
        /// No listener or route takes the server name, or there is none.
        NoServerName = "no_server_name",
        /// A TLS handshake that did not end in time.
        HandshakeTimeout = "handshake_timeout",
        /// A TLS handshake that failed.
        Handshake = "handshake",
        /// A client's certificate that is missing or not valid.
        ClientCertificate = "client_certificate",
        /// A request for a host whose listener is not the one that the server name chose.
        Misdirected = "misdirected",
        /// A UDP flow that made room for another.
        FlowEvicted = "flow_evicted",
        /// An answer's datagram that could not be sent.
        DatagramDropped = "datagram_dropped",
        /// An HTTP/2 connection whose client broke the protocol.
        H2Protocol = "h2_protocol",
        /// An HTTP/2 connection of too many small or empty frames, CONTINUATION frames, or streams that had to be reset.
        H2Flood = "h2_flood",
        /// Too many requests taken back on an HTTP/2 connection.
        H2ResetFlood = "h2_reset_flood",
        /// Too many PING frames.
        H2PingFlood = "h2_ping_flood",
        /// Too many SETTINGS frames.
        H2SettingsFlood = "h2_settings_flood",
        /// Too many PRIORITY or unknown frames.
        H2FrameFlood = "h2_frame_flood",
        /// Too many WINDOW_UPDATE frames for what they let through.
        H2WindowFlood = "h2_window_flood",
        /// A client that gave no credit for an answer's body.
        H2Stalled = "h2_stalled",
    }
}

reasons! {
    /// Why a request or connection failed on its way to an endpoint.
    UpstreamError {
        /// Refused or unreachable.
        ConnectRefused = "connect_refused",
        /// Not connected in time.
        ConnectTimeout = "connect_timeout",
        /// No descriptor, port or memory left here.
        NoResources = "no_resources",
        /// Reset by the endpoint.
        Reset = "reset",
        /// Ended by the endpoint.
        Eof = "eof",
        /// No answer in time.
        Timeout = "timeout",
        /// An answer that breaks the protocol.
        BadResponse = "bad_response",
        /// The request could not be written.
        Write = "write",
        /// An endpoint that speaks HTTP/2 refused a request unseen: REFUSED_STREAM, GOAWAY.
        Refused = "refused",
        /// No endpoint is ready.
        NoEndpoint = "no_endpoint",
        /// A limit of the backend is reached, and as many wait for a place as may.
        Overflow = "overflow",
        /// No place among the backend's became free in time.
        PendingTimeout = "pending_timeout",
        /// A request that would have been sent again, but that the backend's retry budget is spent.
        RetryOverflow = "retry_overflow",
        /// A TLS handshake with an endpoint that failed.
        TlsHandshake = "tls_handshake",
        /// An endpoint's certificate that is not valid, or not for it.
        TlsCertificate = "tls_certificate",
        /// A copy of a request that was not made: it is too long, or too many are on their way.
        MirrorDropped = "mirror_dropped",
    }
}

reasons! {
    /// What came of asking whether a request may pass (filter ExternalAuth).
    Authorization {
        /// It passes.
        Allowed = "allowed",
        /// Its client got the server's refusal.
        Denied = "denied",
        /// The server has not answered, or not as it should: the request does not pass.
        Error = "error",
    }
}

reasons! {
    /// What became of a session with the request that asked for it.
    SessionResult {
        /// It began: the request brought no token.
        Begun = "begun",
        /// It went on at its endpoint.
        Kept = "kept",
        /// Its endpoint had gone, or could not be connected to: it went on at another one.
        Moved = "moved",
        /// It had ended, and another began.
        Expired = "expired",
        /// The token was none of ours or of another rule, and a session began.
        Rejected = "rejected",
    }
}

reasons! {
    /// Why a connection was not accepted.
    AcceptError {
        /// The limit on open connections is reached: accepting pauses.
        ConnectionLimit = "connection_limit",
        /// No descriptors are left: accepting pauses.
        Descriptors = "descriptors",
        /// Reset because its listener has as many connections as it may.
        ListenerLimit = "listener_limit",
        /// Reset because its client has as many connections as it may.
        ClientLimit = "client_limit",
        /// Reset after waiting for a place.
        TurnedAway = "turned_away",
        /// The peer had gone.
        Aborted = "aborted",
        /// Still waiting when its listener was closed.
        Lost = "lost",
        /// Anything else.
        Other = "other",
    }
}

impl From<ringway_core::http1::request::RequestError> for DownstreamError {
    fn from(error: ringway_core::http1::request::RequestError) -> Self {
        use ringway_core::http1::request::RequestError as E;
        match error {
            E::Version => Self::Version,
            E::Target => Self::BadTarget,
            E::TargetTooLong => Self::UriTooLong,
            E::TooLarge => Self::HeadTooLarge,
            E::Host => Self::BadHost,
            E::Framing => Self::AmbiguousFraming,
            E::TransferCoding => Self::TransferCoding,
            E::Expectation => Self::Expectation,
            E::Method => Self::Method,
            _ => Self::MalformedHead,
        }
    }
}
