//! TLSRoute, BackendTLSPolicy, and what a Gateway says about TLS as a whole.

use crate::control::read::{Ignored, List, Table, choice, object};
use crate::control::source::Spanned;

use super::policy::{BACKEND, Policy, SERVICE};
use super::refs::{BackendRef, CertificateRef, ParentRef, PolicyTargetRef, check_parents};
use super::text::{Group, Hostname, Kind, Namespace, ObjectName, Port, PreciseHostname, SectionName};

object! {
    /// `TLSRoute.spec`.
    TlsRouteSpec = "TLSRoute spec" {
        /// Where it attaches.
        parent_refs / "parentRefs": List<ParentRef, 0, 32> = or(List::default()),
        /// Server names.
        hostnames / "hostnames": List<Spanned<Hostname>, 1, 16> = required,
        /// What it does: exactly one rule.
        rules / "rules": List<TlsRule, 1, 1> = required,
        /// Experimental; accepted and not used.
        use_default_gateways / "useDefaultGateways": Ignored = optional,
    }
    rules |this, cx| {
        check_parents(&this.parent_refs, cx);
    }
}

object! {
    /// One rule.
    TlsRule = "rule" {
        /// Its name.
        name / "name": SectionName = optional,
        /// Where connections go.
        backend_refs / "backendRefs": List<BackendRef, 1, 16> = required,
    }
}

object! {
    /// `Gateway.spec.tls`.
    GatewayTls = "Gateway tls" {
        /// Towards backends.
        backend / "backend": GatewayBackendTls = optional,
        /// Towards clients.
        frontend / "frontend": GatewayFrontendTls = optional,
    }
}

object! {
    /// Towards backends.
    GatewayBackendTls = "tls backend" {
        /// What is shown to backends that ask.
        client_certificate_ref / "clientCertificateRef": CertificateRef = optional,
    }
}

object! {
    /// Towards clients.
    GatewayFrontendTls = "tls frontend" {
        /// Of every port that is not among `perPort`.
        default / "default": FrontendTls = required,
        /// Of single ports.
        per_port / "perPort": List<PortTls, 0, 64> = or(List::default()),
    }
    rules |this, cx| {
        for (index, port) in this.per_port.iter().enumerate() {
            if this.per_port[..index].iter().any(|earlier| earlier.port == port.port) {
                cx.error(port.span, "Port for TLS configuration must be unique within the Gateway");
            }
        }
    }
}

object! {
    /// What is asked of clients.
    FrontendTls = "frontend tls" {
        /// By which authorities their certificates are verified.
        validation / "validation": FrontendValidation = optional,
    }
}

object! {
    /// What is asked of the clients of a port.
    PortTls = "perPort" {
        /// Which.
        port / "port": Port = required,
        /// What.
        tls / "tls": FrontendTls = required,
    }
}

choice! {
    /// What becomes of clients without a valid certificate.
    FrontendValidationMode {
        /// They are refused.
        AllowValidOnly = "AllowValidOnly",
        /// They are served.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
}

object! {
    /// How certificates of clients are verified.
    FrontendValidation = "validation" {
        /// ConfigMaps with `ca.crt`.
        ca_certificate_refs / "caCertificateRefs": List<ObjectRef, 1, 8> = required,
        /// What becomes of clients without a valid one.
        mode / "mode": FrontendValidationMode = or(FrontendValidationMode::AllowValidOnly),
    }
}

object! {
    /// An object that may stand in another namespace.
    ObjectRef = "reference" {
        /// Its group.
        group / "group": Group = required,
        /// Its kind.
        kind / "kind": Kind = required,
        /// Its name.
        name / "name": ObjectName = required,
        /// Its namespace; none: the referring object's.
        namespace / "namespace": Namespace = optional,
    }
}

object! {
    /// An object of the same namespace.
    LocalObjectRef = "reference" {
        /// Its group.
        group / "group": Group = required,
        /// Its kind.
        kind / "kind": Kind = required,
        /// Its name.
        name / "name": ObjectName = required,
    }
}

object! {
    /// `BackendTLSPolicy.spec`.
    BackendTlsPolicySpec = "BackendTLSPolicy spec" {
        /// Services or Backends.
        target_refs / "targetRefs": List<PolicyTargetRef, 1, 16> = required,
        /// How they are verified.
        validation / "validation": BackendTlsValidation = required,
        /// Options of implementations.
        options / "options": Table<String> = or(Table::default()),
    }
}

impl Policy for BackendTlsPolicySpec {
    const KIND: &'static str = "BackendTLSPolicy";
    const API_VERSION: &'static str = "gateway.networking.k8s.io/v1";
    const TARGETS: &'static [(&'static str, &'static str)] = &[SERVICE, BACKEND];

    fn target_refs(&self) -> &[PolicyTargetRef] {
        &self.target_refs
    }
}

choice! {
    /// Sets of authorities that need no object.
    WellKnownCa {
        /// The machine's.
        System = "System",
    }
}

object! {
    /// How a backend is verified.
    BackendTlsValidation = "validation" {
        /// ConfigMaps with `ca.crt`.
        ca_certificate_refs / "caCertificateRefs": List<Spanned<LocalObjectRef>, 0, 8> = or(List::default()),
        /// Or the machine's authorities.
        well_known / "wellKnownCACertificates": WellKnownCa = optional,
        /// Sent as SNI, and verified.
        hostname / "hostname": PreciseHostname = required,
        /// Verified instead.
        subject_alt_names / "subjectAltNames": List<SubjectAltName, 0, 5> = or(List::default()),
    }
    rules |this, cx| {
        if !this.ca_certificate_refs.is_empty() && this.well_known.is_some() {
            cx.error(this.span, "must not contain both CACertificateRefs and WellKnownCACertificates");
        }
        if this.ca_certificate_refs.is_empty() && this.well_known.is_none() {
            cx.error(this.span, "must specify either CACertificateRefs or WellKnownCACertificates");
        }
    }
}

choice! {
    /// Kinds of names.
    SubjectAltNameType {
        /// A DNS name.
        Hostname = "Hostname",
        /// A URI.
        Uri = "URI",
    }
}

object! {
    /// A name that a certificate has to have.
    SubjectAltName = "subjectAltName" {
        /// Which of the two.
        kind / "type": SubjectAltNameType = required,
        /// A DNS name.
        hostname / "hostname": PreciseHostname = optional,
        /// A URI.
        uri / "uri": String = optional,
    }
    rules |this, cx| {
        let (is_hostname, is_uri) =
            (this.kind == SubjectAltNameType::Hostname, this.kind == SubjectAltNameType::Uri);
        if is_hostname && this.hostname.is_none() {
            cx.error(this.span, "SubjectAltName element must contain Hostname, if Type is set to Hostname");
        }
        if !is_hostname && this.hostname.is_some() {
            cx.error(this.span, "SubjectAltName element must not contain Hostname, if Type is not set to Hostname");
        }
        if is_uri && this.uri.is_none() {
            cx.error(this.span, "SubjectAltName element must contain URI, if Type is set to URI");
        }
        if !is_uri && this.uri.is_some() {
            cx.error(this.span, "SubjectAltName element must not contain URI, if Type is not set to URI");
        }
    }
}
