//! GatewayClass, Gateway, ReferenceGrant.

use ringway_core::model::HostPattern;

use crate::control::read::{Cx, Ignored, List, Table, choice, object};
use crate::control::source::Spanned;

use super::refs::{CertificateRef, FromNamespaces, LabelSelector};
use super::text::{ControllerName, Group, Hostname, Kind, Namespace, ObjectName, Port, ProtocolName, SectionName};
use super::tls::{GatewayTls, LocalObjectRef};

object! {
    /// `GatewayClass.spec`.
    GatewayClassSpec = "GatewayClass spec" {
        /// Who serves it.
        controller_name / "controllerName": ControllerName = required,
        /// None is taken.
        parameters_ref / "parametersRef": Spanned<Ignored> = optional,
        /// Not used.
        description / "description": Ignored = optional,
    }
}

object! {
    /// `Gateway.spec`.
    GatewaySpec = "Gateway spec" {
        /// Its class.
        class / "gatewayClassName": Spanned<ObjectName> = required,
        /// Its listeners.
        listeners / "listeners": List<Listener, 0, 64> = required,
        /// Where it listens; none: everywhere.
        addresses / "addresses": List<Address, 0, 16> = or(List::default()),
        /// Concerns generated resources of a cluster.
        infrastructure / "infrastructure": Spanned<Infrastructure> = optional,
        /// Which ListenerSets may add listeners; none: none.
        allowed_listeners / "allowedListeners": AllowedListeners = optional,
        /// TLS towards clients and backends as a whole.
        tls / "tls": GatewayTls = optional,
        /// Experimental; accepted and not used.
        default_scope / "defaultScope": Ignored = optional,
    }
    rules |this, cx| {
        check_listeners(&this.listeners, cx);
        check_addresses(&this.addresses, cx);
    }
}

object! {
    /// What is said about generated resources of a cluster.
    Infrastructure = "infrastructure" {
        /// Their labels.
        labels / "labels": Ignored = optional,
        /// Their annotations.
        annotations / "annotations": Ignored = optional,
        /// An object with parameters of an implementation.
        parameters_ref / "parametersRef": Spanned<LocalObjectRef> = optional,
    }
}

object! {
    /// Which ListenerSets may add listeners.
    AllowedListeners = "allowedListeners" {
        /// From which namespaces; none: none.
        namespaces / "namespaces": ListenerNamespaces = optional,
    }
}

object! {
    /// Which namespaces.
    ListenerNamespaces = "namespaces" {
        /// Which.
        from / "from": FromNamespaces = or(FromNamespaces::None),
        /// For `Selector`.
        selector / "selector": LabelSelector = optional,
    }
}

object! {
    /// `ListenerSet.spec`: listeners that are added to a Gateway.
    ListenerSetSpec = "ListenerSet spec" {
        /// The Gateway.
        parent_ref / "parentRef": ParentGatewayRef = required,
        /// The listeners.
        listeners / "listeners": List<Listener, 1, 64> = required,
    }
    rules |this, cx| {
        check_listeners(&this.listeners, cx);
    }
}

object! {
    /// A ListenerSet's Gateway.
    ParentGatewayRef = "parentRef" {
        /// Its group.
        group / "group": Group = or(Group(super::refs::GATEWAY_GROUP.to_owned())),
        /// Its kind.
        kind / "kind": Kind = or(Kind("Gateway".to_owned())),
        /// Its namespace; none: the ListenerSet's.
        namespace / "namespace": Namespace = optional,
        /// Its name.
        name / "name": ObjectName = required,
    }
}

object! {
    /// A listener.
    Listener = "listener" {
        /// Its name.
        name / "name": Spanned<SectionName> = required,
        /// Which hosts; none: all.
        hostname / "hostname": Spanned<Hostname> = optional,
        /// Its port.
        port / "port": Spanned<Port> = required,
        /// Its protocol.
        protocol / "protocol": Spanned<ProtocolName> = required,
        /// For HTTPS and TLS.
        tls / "tls": ListenerTls = optional,
        /// Which routes may attach.
        allowed_routes / "allowedRoutes": AllowedRoutes = optional,
    }
}

impl Listener {
    /// Its hostname as a pattern.
    pub fn host(&self) -> HostPattern {
        self.hostname.as_ref().map_or(HostPattern::Any, |hostname| hostname.value.0.clone())
    }
}

choice! {
    /// What is done with TLS.
    TlsMode {
        /// Ended here.
        Terminate = "Terminate",
        /// Passed on untouched.
        Passthrough = "Passthrough",
    }
}

object! {
    /// `listener.tls`.
    ListenerTls = "tls" {
        /// What is done with TLS.
        mode / "mode": TlsMode = optional,
        /// With which certificates.
        certificate_refs / "certificateRefs": List<CertificateRef, 0, 64> = or(List::default()),
        /// Options of implementations.
        options / "options": Table<String> = or(Table::default()),
    }
    rules |this, cx| {
        if this.mode.unwrap_or(TlsMode::Terminate) == TlsMode::Terminate
            && this.certificate_refs.is_empty()
            && this.options.0.is_empty()
        {
            cx.error(this.span, "certificateRefs or options must be specified when mode is Terminate");
        }
    }
}

object! {
    /// Which routes may attach.
    AllowedRoutes = "allowedRoutes" {
        /// From which namespaces; none: the Gateway's.
        namespaces / "namespaces": RouteNamespaces = optional,
        /// Of which kinds; none: those that the protocol has.
        kinds / "kinds": List<RouteKind, 0, 8> = or(List::default()),
    }
}

object! {
    /// Which namespaces.
    RouteNamespaces = "namespaces" {
        /// Which.
        from / "from": FromNamespaces = or(FromNamespaces::Same),
        /// For `Selector`.
        selector / "selector": LabelSelector = optional,
    }
}

object! {
    /// A kind of route.
    RouteKind = "route kind" {
        /// Its group.
        group / "group": Group = or(Group(super::refs::GATEWAY_GROUP.to_owned())),
        /// Its kind.
        kind / "kind": Spanned<Kind> = required,
    }
}

object! {
    /// An address.
    Address = "address" {
        /// `IPAddress`, `Hostname` or a type of an implementation.
        kind / "type": String = or("IPAddress".to_owned()),
        /// The address.
        value / "value": Spanned<String> = optional,
    }
}

fn check_listeners(listeners: &[Listener], cx: &Cx<'_>) {
    for (index, listener) in listeners.iter().enumerate() {
        let protocol = listener.protocol.value.0.as_str();
        if ["HTTP", "TCP", "UDP"].contains(&protocol)
            && let Some(tls) = &listener.tls
        {
            cx.error(tls.span, "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']");
        }
        if protocol == "HTTPS"
            && let Some(tls) = &listener.tls
            && tls.mode == Some(TlsMode::Passthrough)
        {
            cx.error(tls.span, "tls mode must be Terminate for protocol HTTPS");
        }
        // The CRD's default for the mode is Terminate, so its rule concerns `tls` itself.
        if protocol == "TLS" && listener.tls.is_none() {
            cx.error(listener.protocol.span, "tls mode must be set for protocol TLS");
        }
        if ["TCP", "UDP"].contains(&protocol)
            && let Some(hostname) = &listener.hostname
        {
            cx.error(hostname.span, "hostname must not be specified for protocols ['TCP', 'UDP']");
        }
        for earlier in &listeners[..index] {
            if earlier.name.value == listener.name.value {
                cx.error(listener.name.span, "Listener name must be unique within the Gateway");
            } else if earlier.port.value == listener.port.value
                && earlier.protocol.value == listener.protocol.value
                && earlier.host() == listener.host()
            {
                let message = "Combination of port, protocol and hostname must be unique for each listener";
                cx.error(listener.span, message);
            }
        }
    }
}

fn check_addresses(addresses: &[Address], cx: &Cx<'_>) {
    for (index, address) in addresses.iter().enumerate() {
        let Some(value) = &address.value else { continue };
        match address.kind.as_str() {
            "IPAddress" if value.value.parse::<std::net::IpAddr>().is_err() => {
                cx.error(value.span, format!("\"{}\" is not an IP address", value.value));
            }
            "Hostname" if !value.value.is_empty() && HostPattern::parse(&value.value).is_err() => {
                let message = r"Hostname value must be empty or contain only valid characters (matching ^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)";
                cx.error(value.span, message);
            }
            _ => {}
        }
        let same = |earlier: &&Address| {
            earlier.kind == address.kind && earlier.value.as_ref().map(|each| &each.value) == Some(&value.value)
        };
        if ["IPAddress", "Hostname"].contains(&address.kind.as_str())
            && addresses[..index].iter().any(|each| same(&each))
        {
            cx.error(value.span, format!("{} values must be unique", address.kind));
        }
    }
}

object! {
    /// `ReferenceGrant.spec`.
    ReferenceGrantSpec = "ReferenceGrant spec" {
        /// Who may refer.
        from / "from": List<GrantFrom, 1, 16> = required,
        /// To what.
        to / "to": List<GrantTo, 1, 16> = required,
    }
}

object! {
    /// Who may refer.
    GrantFrom = "from" {
        /// A group.
        group / "group": Group = required,
        /// A kind.
        kind / "kind": Kind = required,
        /// A namespace.
        namespace / "namespace": Namespace = required,
    }
}

object! {
    /// To what.
    GrantTo = "to" {
        /// A group.
        group / "group": Group = required,
        /// A kind.
        kind / "kind": Kind = required,
        /// One object; none: all of the kind.
        name / "name": ObjectName = optional,
    }
}
