//! `ringway.dev/v1alpha1 L4ForwardingPolicy`: how the traffic of TCP and UDP listeners gets to the servers.

use crate::control::read::{Int, List, choice, object};
use crate::control::source::Spanned;

use super::policy::{GATEWAY, Policy, TCP_ROUTE, UDP_ROUTE};
use super::refs::PolicyTargetRef;
use super::ringway::Positive;
use super::text::Port;

object! {
    /// `L4ForwardingPolicy.spec`.
    L4ForwardingPolicySpec = "L4ForwardingPolicy spec" {
        /// TCPRoutes, UDPRoutes, Gateways, or listeners of Gateways by `sectionName`.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// How.
        forwarding / "forwarding": Forwarding = required,
        /// Whether servers are usable, with direct server return.
        health_check / "healthCheck": HealthCheck = optional,
    }
    rules |this, cx| {
        if let Some(found) = &this.health_check
            && this.forwarding.mode.value == ForwardingMode::Proxy
        {
            cx.error(found.span, "healthCheck is for mode DSR: proxied backends have it in their BackendPolicy");
        }
    }
}

impl Policy for L4ForwardingPolicySpec {
    const KIND: &'static str = "L4ForwardingPolicy";
    const TARGETS: &'static [(&'static str, &'static str)] = &[TCP_ROUTE, UDP_ROUTE, GATEWAY];

    fn target_refs(&self) -> &[PolicyTargetRef] {
        &self.target_refs
    }
}

choice! {
    /// Which way traffic goes.
    ForwardingMode {
        /// Both directions through Ringway.
        Proxy = "Proxy",
        /// Requests through Ringway, answers straight from the server.
        Dsr = "DSR",
    }
}

object! {
    /// How traffic gets to the servers.
    Forwarding = "forwarding" {
        /// Which way.
        mode / "mode": Spanned<ForwardingMode> = required,
        /// With mode DSR.
        dsr / "dsr": Dsr = optional,
    }
    rules |this, cx| {
        match (this.mode.value, &this.dsr) {
            (ForwardingMode::Dsr, None) => cx.error(this.mode.span, "mode DSR needs `dsr` with its interface"),
            (ForwardingMode::Proxy, Some(dsr)) => cx.error(dsr.span, "`dsr` must not be specified with mode Proxy"),
            _ => {}
        }
    }
}

choice! {
    /// Where the XDP program runs.
    XdpChoice {
        /// In the driver where that works, else in the stack.
        Auto = "Auto",
        /// In the driver.
        Native = "Native",
        /// In the stack.
        Generic = "Generic",
    }
}

choice! {
    /// What decides about a flow's server.
    FlowHash {
        /// Both addresses and ports, and the protocol.
        FiveTuple = "FiveTuple",
        /// The client's address.
        SourceIp = "SourceIP",
    }
}

object! {
    /// Direct server return.
    Dsr = "dsr" {
        /// The interface that requests come in by.
        interface / "interface": Spanned<String> = required,
        /// Where the program runs there.
        xdp / "xdp": XdpChoice = or(XdpChoice::Auto),
        /// What decides about a flow's server.
        hash / "hash": FlowHash = or(FlowHash::FiveTuple),
        /// What is remembered.
        flow_table / "flowTable": FlowTable = optional,
        /// How long flows of a server that was taken out may go on.
        drain_timeout / "drainTimeout": Positive = optional,
    }
    rules |this, cx| {
        let name = &this.interface.value;
        // IFNAMSIZ is 16 with the end of the string.
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) || name == "." || name == ".." {
            cx.error(this.interface.span, "an interface's name has 1 to 15 bytes, without `/` and spaces");
        }
    }
}

object! {
    /// What is remembered about flows.
    FlowTable = "flowTable" {
        /// Flows of all services together.
        max_entries / "maxEntries": Int<1024, 16_777_216> = optional,
        /// New flows of one service that are remembered per second.
        new_flows_per_second / "newFlowsPerSecond": Int<0, 10_000_000> = optional,
        /// Nothing is.
        stateless / "stateless": bool = or(false),
    }
}

object! {
    /// Whether servers are usable.
    HealthCheck = "healthCheck" {
        /// By asking them.
        active / "active": ActiveHealthCheck = required,
    }
}

choice! {
    /// What is asked.
    HealthCheckType {
        /// That a connection is accepted.
        Tcp = "TCP",
        /// That an HTTP request is answered.
        Http = "HTTP",
        /// Nothing: only whether the server answers on the network.
        None = "None",
    }
}

object! {
    /// By asking them. Names are Envoy Gateway's.
    ActiveHealthCheck = "active" {
        /// What is asked.
        kind / "type": Spanned<HealthCheckType> = required,
        /// Between two probes.
        interval / "interval": Positive = optional,
        /// For one probe.
        timeout / "timeout": Positive = optional,
        /// Failures in a row that make a server unhealthy.
        unhealthy_threshold / "unhealthyThreshold": Int<1, 100> = optional,
        /// Successes in a row that make it healthy again.
        healthy_threshold / "healthyThreshold": Int<1, 100> = optional,
        /// The port, if it is not the listener's.
        port / "port": Port = optional,
        /// With type HTTP.
        http / "http": HttpHealthCheck = optional,
    }
    rules |this, cx| {
        if (this.kind.value == HealthCheckType::Http) != this.http.is_some() {
            cx.error(this.kind.span, "`http` must be specified with type HTTP, and only with it");
        }
    }
}

object! {
    /// An HTTP request and what is expected of its answer.
    HttpHealthCheck = "http" {
        /// Its path.
        path / "path": Spanned<String> = required,
        /// Its Host; none: the address.
        hostname / "hostname": Spanned<String> = optional,
        /// Statuses that are taken as success; none: 200.
        expected_statuses / "expectedStatuses": List<Int<100, 599>, 1, 16> = optional,
    }
    rules |this, cx| {
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 512;
        if !this.path.value.starts_with('/') || !visible(&this.path.value) {
            cx.error(this.path.span, "a path starts with `/` and has at most 512 visible ASCII characters");
        }
        if let Some(found) = this.hostname.as_ref().filter(|found| !visible(&found.value) || found.value.is_empty()) {
            cx.error(found.span, "a hostname has 1 to 512 visible ASCII characters");
        }
    }
}
