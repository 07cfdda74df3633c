//! Every annotation that ingress-nginx documents (its `annotations.md` of controller v1.15.1), and what becomes of it.
//!
//! The table is what `docs/migrating-from-ingress-nginx.md` is written from (`tests/tools` holds the two together), and what
//! the comments of a translation say.

/// What becomes of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is translated to this.
    Translated(&'static str),
    /// It has no counterpart; the Ingress is translated without it. Why, and what to do.
    Refused(&'static str),
    /// It keeps somebody out and cannot be honoured: the rules of the Ingress answer 403 until a person has decided. Why.
    Closed(&'static str),
    /// Nothing has to be done. Why.
    NoEffect(&'static str),
}

use Fate::{Closed, NoEffect, Refused, Translated};

const SIGN_IN: &str = "the client gets the server's own answer: let that redirect to the sign-in page in place of 401";
const AUTH_DETAIL: &str = "the filter ExternalAuth has no field for it";
const RATE: &str = "RateLimitPolicy with the key ClientIP, burst as in ingress-nginx; 429, not 503";
const RANGES: &str = "AccessPolicy authorization; its rules are closed if something else than addresses is in the list";
const STREAMED: &str = "bodies are streamed in both directions with at most 64 KiB of each in memory, never to disk";
const SNIPPET: &str =
    "there is no way to put lines into a configuration: what they do has to become fields, a filter or a policy";
const WAF: &str = "there is no web application firewall: put one behind Ringway";
const TRACING: &str = "spans are not exported; traceparent is passed on";
const CANARY: &str = "weights and matches of the HTTPRoute of the Ingress that it belongs to";
const CORS: &str = "filter CORS";
const BACKEND_TLS: &str = "BackendTLSPolicy";

/// Name without `nginx.ingress.kubernetes.io/`, and what becomes of it, in the order of the documentation.
pub const ANNOTATIONS: &[(&str, Fate)] = &[
    ("app-root", Translated("a rule for exactly `/` with RequestRedirect, 302")),
    ("affinity", Translated("sessionPersistence of the rules")),
    ("affinity-mode", NoEffect("a session stays with its endpoint in either mode, as with persistent")),
    ("affinity-canary-behavior", NoEffect("sessions win over weights, as with sticky")),
    ("auth-realm", Translated("AccessPolicy basicAuth.realm")),
    ("auth-secret", Translated("AccessPolicy basicAuth.users, in the same namespace; else its rules are closed")),
    ("auth-secret-type", Translated("AccessPolicy basicAuth for auth-file; auth-map closes the rules")),
    ("auth-type", Translated("AccessPolicy basicAuth for basic; digest closes the rules")),
    (
        "auth-tls-secret",
        Translated("Gateway tls.frontend, if every Ingress with TLS has the same; else its rules are closed"),
    ),
    ("auth-tls-verify-depth", NoEffect("chains are verified whatever their length")),
    (
        "auth-tls-verify-client",
        Translated("Gateway tls.frontend mode: AllowValidOnly for on, AllowInsecureFallback for the optional ones"),
    ),
    ("auth-tls-error-page", Refused("a client without a valid certificate is refused in the handshake")),
    (
        "auth-tls-pass-certificate-to-upstream",
        Translated(
            "ClientPolicy headers.xForwardedClientCert: the field is X-Forwarded-Client-Cert, not ssl-client-cert",
        ),
    ),
    (
        "auth-tls-match-cn",
        Closed(
            "the common name of a client's certificate is not compared; it is told to the backend by X-Forwarded-Client-Cert",
        ),
    ),
    (
        "auth-url",
        Translated(
            "filter ExternalAuth, if it is a path of a Service asked in plain HTTP without variables; else the rules are closed",
        ),
    ),
    ("auth-method", Refused("the server is asked by the client's own method")),
    ("auth-signin", Refused(SIGN_IN)),
    ("auth-signin-redirect-param", Refused(SIGN_IN)),
    ("auth-response-headers", Translated("allowedResponseHeaders of the filter ExternalAuth")),
    ("auth-request-redirect", Refused(AUTH_DETAIL)),
    ("auth-always-set-cookie", Refused(AUTH_DETAIL)),
    ("auth-cache-key", Refused(AUTH_DETAIL)),
    ("auth-cache-duration", Refused(AUTH_DETAIL)),
    ("auth-keepalive", NoEffect("connections are kept by default")),
    ("auth-keepalive-share-vars", NoEffect("a detail of nginx's sub-requests")),
    ("auth-keepalive-requests", NoEffect("connections are kept by default")),
    ("auth-keepalive-timeout", NoEffect("connections are kept by default")),
    ("auth-proxy-set-headers", Refused(AUTH_DETAIL)),
    ("auth-snippet", Refused(SNIPPET)),
    (
        "enable-global-auth",
        Refused(
            "the controller's global-auth-url is not read; where it is in force, routes need their own authorization",
        ),
    ),
    (
        "backend-protocol",
        Translated(
            "BackendTLSPolicy for HTTPS and GRPCS; BackendPolicy protocol for GRPC; HTTP and AUTO_HTTP are the default",
        ),
    ),
    ("canary", Translated(CANARY)),
    ("canary-by-header", Translated(CANARY)),
    ("canary-by-header-value", Translated(CANARY)),
    ("canary-by-header-pattern", Translated(CANARY)),
    ("canary-by-cookie", Translated(CANARY)),
    ("canary-weight", Translated(CANARY)),
    ("canary-weight-total", Translated(CANARY)),
    ("client-body-buffer-size", NoEffect(STREAMED)),
    ("configuration-snippet", Refused(SNIPPET)),
    ("custom-http-errors", Translated("ResponsePolicy responseOverride, with a placeholder for the page")),
    ("custom-headers", Translated("filter ResponseHeaderModifier, if the ConfigMap is among the files")),
    (
        "default-backend",
        Refused("a page is not fetched from a backend: ResponsePolicy has it; a backend without endpoints answers 503"),
    ),
    ("enable-cors", Translated(CORS)),
    ("cors-allow-origin", Translated(CORS)),
    ("cors-allow-methods", Translated(CORS)),
    ("cors-allow-headers", Translated(CORS)),
    ("cors-expose-headers", Translated(CORS)),
    ("cors-allow-credentials", Translated(CORS)),
    ("cors-max-age", Translated(CORS)),
    (
        "force-ssl-redirect",
        Translated("an HTTPRoute at the plain listener with RequestRedirect, 308, unless X-Forwarded-Proto says https"),
    ),
    ("from-to-www-redirect", Translated("an HTTPRoute of the other name with RequestRedirect, 308")),
    ("http2-push-preload", NoEffect("browsers have given up server push")),
    (
        "limit-connections",
        Translated(
            "RateLimitPolicy maxConcurrentRequests with the key ClientIP: requests under way, as nginx counts; 429, not 503",
        ),
    ),
    ("limit-rps", Translated(RATE)),
    ("limit-rpm", Translated(RATE)),
    ("limit-burst-multiplier", Translated("RateLimitPolicy burst: the limit times this, 5 unless given")),
    ("limit-rate", Refused("bandwidth is not limited")),
    ("limit-rate-after", Refused("bandwidth is not limited")),
    ("limit-whitelist", Translated("RateLimitPolicy exemptCIDRs")),
    ("permanent-redirect", Translated("filter RequestRedirect")),
    ("permanent-redirect-code", Translated("RequestRedirect statusCode: 301, 302, 303, 307 or 308")),
    ("temporal-redirect", Translated("filter RequestRedirect")),
    ("temporal-redirect-code", Translated("RequestRedirect statusCode: 301, 302, 303, 307 or 308")),
    ("preserve-trailing-slash", NoEffect("redirects keep the path as it is")),
    (
        "proxy-body-size",
        Translated("ClientPolicy limits.bodyBytes: one limit for the Gateway, the largest that any Ingress has"),
    ),
    ("proxy-cookie-domain", Refused("cookies of backends are passed on as they are")),
    ("proxy-cookie-path", Refused("cookies of backends are passed on as they are")),
    ("proxy-connect-timeout", Translated("BackendPolicy timeout.tcp.connectTimeout")),
    (
        "proxy-send-timeout",
        Translated("ClientPolicy timeout.http.streamIdleTimeout and timeout.tcp.idleTimeout: the largest of all"),
    ),
    (
        "proxy-read-timeout",
        Translated("ClientPolicy timeout.http.streamIdleTimeout and timeout.tcp.idleTimeout: the largest of all"),
    ),
    ("proxy-next-upstream", Translated("an HTTPRoute's retry with its codes; off is BackendPolicy retry.numRetries 0")),
    ("proxy-next-upstream-timeout", Refused("the time of all attempts is not limited apart from timeouts.request")),
    ("proxy-next-upstream-tries", Translated("BackendPolicy retry.numRetries and retry.attempts: one less")),
    ("proxy-request-buffering", NoEffect(STREAMED)),
    ("proxy-redirect-from", Refused("Location of backends is passed on as it is")),
    ("proxy-redirect-to", Refused("Location of backends is passed on as it is")),
    (
        "proxy-http-version",
        NoEffect("backends are spoken to in HTTP/1.1 or HTTP/2, and those that answer in HTTP/1.0 are understood"),
    ),
    (
        "proxy-ssl-secret",
        Translated(
            "BackendTLSPolicy validation.caCertificateRefs; its certificate is Gateway tls.backend.clientCertificateRef",
        ),
    ),
    (
        "proxy-ssl-ciphers",
        Refused("cipher suites towards backends cannot be chosen: all are forward secret and authenticated"),
    ),
    ("proxy-ssl-name", Translated(BACKEND_TLS)),
    ("proxy-ssl-protocols", Refused("TLS 1.2 and 1.3 are spoken to backends")),
    (
        "proxy-ssl-verify",
        Translated("BackendTLSPolicy, which always verifies: off, ingress-nginx's default, has no counterpart"),
    ),
    ("proxy-ssl-verify-depth", NoEffect("chains are verified whatever their length")),
    ("proxy-ssl-server-name", NoEffect("the server name is always sent")),
    ("enable-rewrite-log", NoEffect("`ringway explain` shows what a rewrite does")),
    ("rewrite-target", Translated("URLRewrite, or with captures an HTTPRouteFilter")),
    ("satisfy", Translated("AccessPolicy satisfy, between addresses and passwords")),
    ("server-alias", Translated("further hostnames of the HTTPRoute")),
    ("server-snippet", Refused(SNIPPET)),
    (
        "service-upstream",
        NoEffect("EndpointSlices are used; what has to go to a Service's own address is a Backend with that address"),
    ),
    (
        "session-cookie-change-on-failure",
        NoEffect(
            "a session that moves gets another cookie; it moves when its endpoint is gone or cannot be connected to",
        ),
    ),
    ("session-cookie-conditional-samesite-none", Refused("browsers that do not know SameSite=None are not told apart")),
    ("session-cookie-domain", Translated("BackendPolicy sessionCookie.domain")),
    (
        "session-cookie-expires",
        Translated(
            "sessionPersistence absoluteTimeout and cookie.lifetimeType: Permanent, unless there is session-cookie-max-age",
        ),
    ),
    ("session-cookie-max-age", Translated("sessionPersistence absoluteTimeout and cookie.lifetimeType: Permanent")),
    ("session-cookie-name", Translated("sessionPersistence cookie.name; INGRESSCOOKIE unless given")),
    (
        "session-cookie-path",
        Translated(
            "sessionPersistence cookie.path; the path of the Ingress unless given, `/` where it is a regular expression",
        ),
    ),
    ("session-cookie-samesite", Translated("BackendPolicy sessionCookie.sameSite; Lax unless given")),
    ("session-cookie-secure", Translated("BackendPolicy sessionCookie.secure; on HTTPS listeners in any case")),
    (
        "ssl-redirect",
        Translated("an HTTPRoute at the plain listener with RequestRedirect, 308; it is the default with TLS"),
    ),
    ("ssl-passthrough", Translated("a TLS listener in mode Passthrough, and a TLSRoute")),
    ("stream-snippet", Refused(SNIPPET)),
    ("upstream-hash-by", Translated("BackendPolicy loadBalancer type ConsistentHash, for one variable")),
    ("upstream-hash-by-subset", Refused("a hash leads to one endpoint, not to a set of them")),
    ("upstream-hash-by-subset-size", Refused("a hash leads to one endpoint, not to a set of them")),
    ("x-forwarded-prefix", Translated("filter RequestHeaderModifier, where there is a rewrite, as in ingress-nginx")),
    ("load-balance", Translated("BackendPolicy loadBalancer: RoundRobin, PeakEwma for ewma")),
    ("upstream-vhost", Translated("URLRewrite hostname")),
    ("denylist-source-range", Translated(RANGES)),
    ("whitelist-source-range", Translated(RANGES)),
    ("proxy-buffering", NoEffect(STREAMED)),
    ("proxy-buffers-number", NoEffect(STREAMED)),
    ("proxy-buffer-size", NoEffect("response heads of up to 64 KiB are taken")),
    ("proxy-busy-buffers-size", NoEffect(STREAMED)),
    ("proxy-max-temp-file-size", NoEffect(STREAMED)),
    ("ssl-ciphers", Translated("ClientPolicy tls.ciphers, as far as they are served")),
    ("ssl-prefer-server-ciphers", NoEffect("every suite that is served is a good one")),
    ("connection-proxy-header", NoEffect("Connection is written anew for every hop, and upgrades pass")),
    ("enable-access-log", Refused("there is no access log yet")),
    ("enable-opentelemetry", Refused(TRACING)),
    ("opentelemetry-trust-incoming-span", Refused(TRACING)),
    ("use-regex", Translated("matches of type RegularExpression")),
    ("enable-modsecurity", Refused(WAF)),
    ("enable-owasp-core-rules", Refused(WAF)),
    ("modsecurity-transaction-id", Refused(WAF)),
    ("modsecurity-snippet", Refused(WAF)),
    ("mirror-request-body", NoEffect("copies have the request's body, up to 64 KiB; larger requests are not copied")),
    ("mirror-target", Translated("filter RequestMirror to a Backend")),
    ("mirror-host", Refused("a copy is exactly what the backend was sent, Host included")),
];

/// What becomes of an annotation; `None`: it is not documented.
pub fn fate(name: &str) -> Option<Fate> {
    // A second name that the controller takes.
    let name = if name == "allowlist-source-range" { "whitelist-source-range" } else { name };
    ANNOTATIONS.iter().find(|(known, _)| *known == name).map(|(_, fate)| *fate)
}
