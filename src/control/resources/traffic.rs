//! `ringway.dev/v1alpha1` AccessPolicy, RateLimitPolicy, ResponsePolicy: what is asked of requests and done to answers.
//! Names are those of Envoy Gateway's SecurityPolicy and BackendTrafficPolicy where they have them.

use crate::control::read::{Int, List, choice, object};

use crate::control::source::Spanned;

use super::policy::{GATEWAY, GRPC_ROUTE, HTTP_ROUTE, Policy};
use super::refs::PolicyTargetRef;
use super::ringway::Cidr;
use super::route_filter::ResponseBody;
use super::text::{Duration, Group, HeaderName, HeaderValue, Kind, ObjectName, SectionName};

macro_rules! policy {
    ($spec:ident, $kind:literal) => {
        impl Policy for $spec {
            const KIND: &'static str = $kind;
            const TARGETS: &'static [(&'static str, &'static str)] = &[GATEWAY, HTTP_ROUTE, GRPC_ROUTE];

            fn target_refs(&self) -> &[PolicyTargetRef] {
                &self.target_refs
            }
        }
    };
}

policy!(AccessPolicySpec, "AccessPolicy");
policy!(RateLimitPolicySpec, "RateLimitPolicy");
policy!(ResponsePolicySpec, "ResponsePolicy");

object! {
    /// `AccessPolicy.spec`: who may ask.
    AccessPolicySpec = "AccessPolicy spec" {
        /// Gateways, listeners, HTTPRoutes, or rules of them.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// By the client's address.
        authorization / "authorization": Authorization = optional,
        /// By a name and a password.
        basic_auth / "basicAuth": BasicAuth = optional,
        /// Whether an address that is let in and a password that is right are both needed.
        satisfy / "satisfy": Satisfy = or(Satisfy::All),
    }
    rules |this, cx| {
        let both = this.authorization.is_some() && this.basic_auth.is_some();
        if this.authorization.is_none() && this.basic_auth.is_none() {
            cx.error(this.span, "authorization or basicAuth must be specified");
        }
        if this.satisfy == Satisfy::Any && !both {
            cx.error(this.span, "satisfy: Any goes with authorization and basicAuth");
        }
    }
}

choice! {
    /// Which of two conditions have to hold.
    Satisfy {
        /// Both.
        All = "All",
        /// One.
        Any = "Any",
    }
}

object! {
    /// By a name and a password (RFC 7617).
    BasicAuth = "basicAuth" {
        /// A Secret with an htpasswd file under the key `auth` (or `.htpasswd`): bcrypt, SHA crypt, apr1 or SHA-1.
        users / "users": UsersRef = required,
        /// What the browser shows; `Restricted` unless given.
        realm / "realm": Spanned<String> = optional,
        /// The endpoint gets the Authorization field.
        forward / "forwardAuthorization": bool = or(false),
    }
    rules |this, cx| {
        if let Some(realm) = &this.realm
            && (realm.value.is_empty() || !realm.value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte)))
        {
            cx.error(realm.span, "a realm is of printable ASCII characters other than quotes and backslashes");
        }
    }
}

object! {
    /// A Secret of the policy's namespace.
    UsersRef = "users" {
        /// Its group.
        group / "group": Group = or(Group(String::new())),
        /// Its kind.
        kind / "kind": Kind = or(Kind("Secret".to_owned())),
        /// Its name.
        name / "name": ObjectName = required,
    }
}

choice! {
    /// What becomes of a request.
    AccessAction {
        /// It goes on.
        Allow = "Allow",
        /// It is answered 403.
        Deny = "Deny",
    }
}

object! {
    /// By the client's address.
    Authorization = "authorization" {
        /// Of anybody that no rule names.
        default_action / "defaultAction": AccessAction = or(AccessAction::Deny),
        /// The longest range that holds the address counts, whatever the order.
        rules / "rules": List<AccessRule, 0, 64> = or(List::default()),
    }
}

object! {
    /// Some clients.
    AccessRule = "rule" {
        /// For people.
        name / "name": SectionName = optional,
        /// What becomes of their requests.
        action / "action": AccessAction = required,
        /// Who they are.
        principal / "principal": Principal = required,
    }
}

object! {
    /// Clients.
    Principal = "principal" {
        /// By address.
        client_cidrs / "clientCIDRs": List<Cidr, 1, 10000> = required,
    }
}

object! {
    /// `RateLimitPolicy.spec`.
    RateLimitPolicySpec = "RateLimitPolicy spec" {
        /// Gateways, listeners, HTTPRoutes, or rules of them.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// All of them hold.
        rules / "rules": List<RateLimitRule, 1, 8> = required,
    }
}

choice! {
    /// A time.
    RateLimitUnit {
        /// One second.
        Second = "Second",
        /// Sixty.
        Minute = "Minute",
        /// Sixty times sixty.
        Hour = "Hour",
        /// A day of 24 hours.
        Day = "Day",
    }
}

object! {
    /// So many in a time.
    RateLimitValue = "limit" {
        /// How many.
        requests / "requests": Int<1, 1_000_000_000> = required,
        /// The time.
        unit / "unit": RateLimitUnit = required,
    }
}

choice! {
    /// Each of what is limited.
    RateLimitKeyType {
        /// A client's address, or a network of 64 bits.
        ClientIp = "ClientIP",
        /// A field's value.
        Header = "Header",
        /// The policy's target as a whole.
        Route = "Route",
    }
}

object! {
    /// Each of what is limited.
    RateLimitKey = "key" {
        /// By what.
        kind / "type": RateLimitKeyType = or(RateLimitKeyType::ClientIp),
        /// For `Header`.
        header / "header": HeaderName = optional,
    }
    rules |this, cx| {
        if (this.kind == RateLimitKeyType::Header) != this.header.is_some() {
            cx.error(this.span, "header must be specified with type Header, and only then");
        }
    }
}

object! {
    /// One limit.
    RateLimitRule = "rule" {
        /// How many in a time; or else `maxConcurrentRequests`.
        limit / "limit": RateLimitValue = optional,
        /// Requests at once; none: those of a second, one at least.
        burst / "burst": Int<1, 1_000_000_000> = optional,
        /// How many under way at a time, over all cores, from a request's head to the end of its answer; or else `limit`.
        max_concurrent / "maxConcurrentRequests": Int<1, 1_000_000> = optional,
        /// Each of what.
        key / "key": RateLimitKey = optional,
        /// Clients that it does not concern.
        exempt / "exemptCIDRs": List<Cidr, 0, 10000> = or(List::default()),
        /// Keys that are known at once.
        max_keys / "maxKeys": Int<8, 16_777_216> = or(Int(65_536)),
    }
    rules |this, cx| {
        if this.limit.is_some() == this.max_concurrent.is_some() {
            cx.error(this.span, "exactly one of limit and maxConcurrentRequests must be specified");
        }
        if this.limit.is_none() && this.burst.is_some() {
            cx.error(this.span, "burst goes with limit");
        }
    }
}

object! {
    /// `ResponsePolicy.spec`.
    ResponsePolicySpec = "ResponsePolicy spec" {
        /// Gateways, listeners, HTTPRoutes, or rules of them.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// Browsers come by TLS only.
        hsts / "strictTransportSecurity": Hsts = optional,
        /// Answers that are said otherwise; the first that matches counts.
        overrides / "responseOverride": List<ResponseOverride, 0, 32> = or(List::default()),
        /// Answers are compressed for those who take that.
        compression / "compression": Compression = optional,
    }
}

choice! {
    /// A content coding.
    CompressorType {
        /// `gzip`.
        Gzip = "Gzip",
        /// `br`.
        Brotli = "Brotli",
        /// `zstd`.
        Zstd = "Zstd",
    }
}

object! {
    /// A content coding with its level.
    Compressor = "compressor" {
        /// Which.
        kind / "type": CompressorType = required,
        /// How hard it tries: 1 to 9 for Gzip (4 unless given), 0 to 9 for Brotli (4), 1 to 9 for Zstd (3).
        level / "level": Int<0, 9> = optional,
    }
    rules |this, cx| {
        if this.kind != CompressorType::Brotli && this.level.is_some_and(|level| level.0 == 0) {
            cx.error(this.span, "level must be 1 or more");
        }
    }
}

object! {
    /// Answers are compressed for those who take that.
    Compression = "compression" {
        /// Preferred first among those that a client likes alike; none: Brotli, Zstd, Gzip.
        compressors / "compressors": List<Compressor, 1, 3> = optional,
        /// Bodies that are known to be shorter stay as they are, in bytes.
        min_length / "minContentLength": Int<0, 1_048_576> = or(Int(1024)),
        /// Media types, `text/*` for all of a kind; none: the usual texts.
        content_types / "contentTypes": List<Spanned<String>, 1, 64> = optional,
    }
    rules |this, cx| {
        let all = this.compressors.iter().flat_map(|list| &**list);
        for (index, compressor) in all.clone().enumerate() {
            if all.clone().take(index).any(|earlier| earlier.kind == compressor.kind) {
                cx.error(compressor.span, format!("{} is there already", compressor.kind.as_str()));
            }
        }
        for given in this.content_types.iter().flat_map(|list| &**list) {
            let good = given.value.split_once('/').is_some_and(|(kind, of)| {
                let token = |text: &str| ringway_core::http::is_token(text.as_bytes());
                token(kind) && token(of) && !kind.contains('*') && (of == "*" || !of.contains('*'))
            });
            if !good {
                cx.error(given.span, format!("\"{}\" is not a media type such as text/html or text/*", given.value));
            }
        }
    }
}

object! {
    /// Browsers come by TLS only (RFC 6797).
    Hsts = "strictTransportSecurity" {
        /// For how long.
        max_age / "maxAge": Duration = or(Duration(std::time::Duration::from_secs(31_536_000))),
        /// To subdomains too.
        include_sub_domains / "includeSubDomains": bool = or(false),
        /// It may be in browsers' own lists.
        preload / "preload": bool = or(false),
    }
}

object! {
    /// An answer in place of others.
    ResponseOverride = "responseOverride" {
        /// In place of which.
        matches / "match": OverrideMatch = required,
        /// What is said instead.
        response / "response": OverrideResponse = required,
    }
}

object! {
    /// Answers by their statuses.
    OverrideMatch = "match" {
        /// Any of them.
        codes / "statusCodes": List<StatusCodes, 1, 64> = required,
    }
}

choice! {
    /// How statuses are given.
    StatusCodesType {
        /// One.
        Value = "Value",
        /// All between two.
        Range = "Range",
    }
}

object! {
    /// Statuses.
    StatusCodes = "statusCodes" {
        /// Which of the two.
        kind / "type": StatusCodesType = or(StatusCodesType::Value),
        /// One.
        value / "value": Int<400, 599> = optional,
        /// All between two.
        range / "range": StatusRange = optional,
    }
    rules |this, cx| {
        let one = this.kind == StatusCodesType::Value;
        if one != this.value.is_some() || one == this.range.is_some() {
            cx.error(this.span, "type Value goes with value, and type Range with range");
        }
    }
}

object! {
    /// All between two, both included.
    StatusRange = "range" {
        /// The first.
        start / "start": Int<400, 599> = required,
        /// The last.
        end / "end": Int<400, 599> = required,
    }
    rules |this, cx| {
        if this.end < this.start {
            cx.error(this.span, "end must not be below start");
        }
    }
}

object! {
    /// What is said instead.
    OverrideResponse = "response" {
        /// Its status; none: the same.
        status / "statusCode": Int<200, 599> = optional,
        /// What the body is.
        content_type / "contentType": HeaderValue = optional,
        /// The body.
        body / "body": ResponseBody = optional,
    }
}
