//! TCPRoute and UDPRoute.

use crate::control::read::{Ignored, List, object};

use super::refs::{BackendRef, ParentRef, check_parents};
use super::text::SectionName;

object! {
    /// `TCPRoute.spec`.
    TcpRouteSpec = "TCPRoute spec" {
        /// Where it attaches.
        parent_refs / "parentRefs": List<ParentRef, 0, 32> = or(List::default()),
        /// What it does: exactly one rule.
        rules / "rules": List<L4Rule, 1, 1> = required,
        /// Experimental; accepted and not used.
        use_default_gateways / "useDefaultGateways": Ignored = optional,
    }
    rules |this, cx| {
        check_parents(&this.parent_refs, cx);
    }
}

object! {
    /// `UDPRoute.spec`.
    UdpRouteSpec = "UDPRoute spec" {
        /// Where it attaches.
        parent_refs / "parentRefs": List<ParentRef, 0, 32> = or(List::default()),
        /// What it does: exactly one rule.
        rules / "rules": List<L4Rule, 1, 1> = required,
        /// Experimental; accepted and not used.
        use_default_gateways / "useDefaultGateways": Ignored = optional,
    }
    rules |this, cx| {
        check_parents(&this.parent_refs, cx);
    }
}

object! {
    /// One rule.
    L4Rule = "rule" {
        /// Its name.
        name / "name": SectionName = optional,
        /// Where connections or flows go.
        backend_refs / "backendRefs": List<BackendRef, 1, 16> = required,
    }
}
