//! What policies have in common: they name what they apply to (GEP-713).

use super::refs::{GATEWAY_GROUP, PolicyTargetRef, RINGWAY_GROUP};

/// A kind of policy.
pub trait Policy {
    /// Its kind.
    const KIND: &'static str;
    /// `apiVersion` of its objects.
    const API_VERSION: &'static str = "ringway.dev/v1alpha1";
    /// What it may be attached to: group and kind.
    const TARGETS: &'static [(&'static str, &'static str)];

    /// `spec.targetRefs`.
    fn target_refs(&self) -> &[PolicyTargetRef];
}

/// A Gateway or one of its listeners.
pub const GATEWAY: (&str, &str) = (GATEWAY_GROUP, "Gateway");
/// An HTTPRoute or one of its rules.
pub const HTTP_ROUTE: (&str, &str) = (GATEWAY_GROUP, "HTTPRoute");
/// A GRPCRoute or one of its rules.
pub const GRPC_ROUTE: (&str, &str) = (GATEWAY_GROUP, "GRPCRoute");
/// A TCPRoute or its rule.
pub const TCP_ROUTE: (&str, &str) = (GATEWAY_GROUP, "TCPRoute");
/// A UDPRoute or its rule.
pub const UDP_ROUTE: (&str, &str) = (GATEWAY_GROUP, "UDPRoute");
/// A TLSRoute or its rule.
pub const TLS_ROUTE: (&str, &str) = (GATEWAY_GROUP, "TLSRoute");
/// A Service or one of its ports, by name.
pub const SERVICE: (&str, &str) = ("", "Service");
/// A `ringway.dev` Backend.
pub const BACKEND: (&str, &str) = (RINGWAY_GROUP, "Backend");
