//! backendRefs: to Services with their EndpointSlices, and to `ringway.dev` Backends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringway_core::model::{Backend, BackendId, BackendSettings, Endpoint, EndpointAddress, Target, WeightedTarget};

use crate::control::resources::core::{EndpointSliceSpec, ServicePort, ServiceSpec};
use crate::control::resources::meta::Meta;
use crate::control::resources::refs::{BackendObjectRef, BackendRef, HttpBackendRef, RINGWAY_GROUP};
use crate::control::resources::ringway::BackendSpec;
use crate::control::resources::text::{Group, Kind, Namespace, ObjectName, Port};
use crate::control::resources::{Resource, Resources};
use crate::control::source::Span;

use super::backend_tls::BackendTls;
use super::grant::Reference;
use super::policy::{BackendObject, Target as PolicyTarget};
use super::{Affinity, BackendState, Problem, Report, Resolve};

/// The label by which EndpointSlices belong to a Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Who refers.
#[derive(Debug)]
pub(super) struct Referrer<'a> {
    pub(super) kind: &'static str,
    pub(super) namespace: &'a str,
}

/// To what.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    span: Span,
    group: &'a Group,
    kind: &'a Kind,
    namespace: Option<&'a Namespace>,
    name: &'a ObjectName,
    port: Option<Port>,
}

/// The kinds of references name the same things.
macro_rules! wanted {
    ($($reference:ty),*) => {$(
        impl<'a> From<&'a $reference> for Wanted<'a> {
            fn from(target: &'a $reference) -> Self {
                Self {
                    span: target.span,
                    group: &target.group,
                    kind: &target.kind,
                    namespace: target.namespace.as_ref(),
                    name: &target.name,
                    port: target.port,
                }
            }
        }
    )*};
}

wanted!(HttpBackendRef, BackendObjectRef, BackendRef);

/// The backends that have been referred to.
pub(super) struct Backends<'r> {
    resources: &'r Resources,
    resolver: &'r mut dyn Resolve,
    known: HashMap<String, BackendId>,
    /// By namespace and name.
    services: HashMap<(&'r str, &'r str), &'r Resource<ServiceSpec>>,
    /// By namespace and the Service that they belong to.
    slices: HashMap<(&'r str, &'r str), Vec<&'r Resource<EndpointSliceSpec>>>,
    all: Vec<BackendState>,
}

impl<'r> Backends<'r> {
    pub(super) fn new<'a: 'r>(resources: &'r Resources, resolver: &'a mut dyn Resolve) -> Self {
        let services =
            resources.services.iter().map(|each| ((each.meta.namespace.as_str(), each.meta.name.as_str()), each));
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for slice in &resources.slices {
            if let Some(service) = slice.meta.labels.get(SERVICE_LABEL) {
                slices.entry((slice.meta.namespace.as_str(), service.as_str())).or_default().push(slice);
            }
        }
        let services = services.collect();
        Self { resources, resolver, known: HashMap::new(), services, slices, all: Vec::new() }
    }

    /// What they are found in.
    pub(super) fn resources(&self) -> &'r Resources {
        self.resources
    }

    pub(super) fn finish(self) -> Vec<BackendState> {
        self.all
    }

    /// What a reference stands for. One that does not resolve is reported, kept in `problem`, and takes its share of
    /// the traffic as an error.
    pub(super) fn resolve(
        &mut self,
        referrer: &Referrer<'_>,
        wanted: &Wanted<'_>,
        problem: &mut Option<Problem>,
        report: &mut Report,
    ) -> Target {
        match self.find(referrer, wanted, report) {
            Ok(id) => Target::Backend(id),
            Err((found, help)) => {
                report.warning_with_help(wanted.span, found.message.clone(), help);
                problem.get_or_insert(found);
                Target::Invalid
            }
        }
    }

    /// The split of the only rule of a route that moves bytes or datagrams, and the first of its references that does not resolve.
    pub(super) fn split(
        &mut self,
        kind: &'static str,
        route: &Meta,
        refs: &[BackendRef],
        report: &mut Report,
    ) -> (Vec<WeightedTarget>, Option<Problem>) {
        let referrer = Referrer { kind, namespace: &route.namespace };
        let mut unresolved = None;
        let split = refs
            .iter()
            .map(|target| WeightedTarget {
                weight: super::http_rule::weight(target.weight),
                target: self.resolve(&referrer, &Wanted::from(target), &mut unresolved, report),
            })
            .collect();
        (split, unresolved)
    }

    fn find(
        &mut self,
        referrer: &Referrer<'_>,
        wanted: &Wanted<'_>,
        report: &mut Report,
    ) -> Result<BackendId, (Problem, Option<String>)> {
        let namespace = wanted.namespace.map_or(referrer.namespace, |found| &found.0);
        let full_name = format!("{namespace}/{}", wanted.name);
        let kind: &'static str = match (&**wanted.group, &**wanted.kind) {
            ("", "Service") => "Service",
            (RINGWAY_GROUP, "Backend") => "Backend",
            (group, kind) => {
                let message = format!("backendRef {full_name}: kind {kind} of group \"{group}\" cannot take traffic");
                let help = "a Service of the core group, or a Backend of group ringway.dev".to_owned();
                return Err((Problem::new("InvalidKind", message), Some(help)));
            }
        };
        let reference = Reference {
            from_kind: referrer.kind,
            from_namespace: referrer.namespace,
            group: wanted.group,
            kind,
            namespace,
            name: wanted.name,
        };
        if !reference.is_permitted(self.resources) {
            let message = format!("backendRef to {}", reference.refusal());
            return Err((Problem::new("RefNotPermitted", message), None));
        }
        if kind == "Backend" {
            self.backend(wanted, namespace, &full_name, report)
        } else {
            self.service(referrer, wanted, namespace, &full_name, report)
        }
    }

    fn backend(
        &mut self,
        wanted: &Wanted<'_>,
        namespace: &str,
        full_name: &str,
        report: &mut Report,
    ) -> Result<BackendId, (Problem, Option<String>)> {
        let all = &self.resources.backends;
        let found = all.iter().find(|each| each.meta.name == wanted.name.0 && each.meta.namespace == namespace);
        let Some(found) = found else {
            let help = known_name(all, namespace, wanted.name);
            return Err((Problem::new("BackendNotFound", format!("there is no Backend {full_name}")), help));
        };
        let name = format!("Backend/{full_name}");
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let endpoints = self.static_endpoints(found, report);
        let object = BackendObject { kind: "Backend", namespace: namespace.to_owned(), name: wanted.name.0.clone() };
        let http2 = found.spec.app_protocol.is_some();
        let id = self.add(name, endpoints, vec![PolicyTarget::Backend(object)], http2);
        let mut hostnames = found.spec.endpoints.iter().map(|endpoint| endpoint.hostname.as_ref());
        let first = hostnames.next().flatten();
        self.all[id.0 as usize].hostname =
            first.filter(|first| hostnames.all(|other| other == Some(*first))).map(ToString::to_string);
        Ok(id)
    }

    fn static_endpoints(&mut self, backend: &Resource<BackendSpec>, report: &mut Report) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut put = |address: EndpointAddress, weight: u32| {
            if weight == 0 {
                return;
            }
            match endpoints.iter_mut().find(|known| known.address == address) {
                Some(known) => known.weight = known.weight.saturating_add(weight),
                None => endpoints.push(Endpoint { address, weight }),
            }
        };
        for endpoint in &*backend.spec.endpoints {
            let weight = u32::try_from(endpoint.weight.0).expect("0 to 1000");
            let port = endpoint.port.map_or(0, Port::get);
            if let Some(ip) = endpoint.ip {
                put(EndpointAddress::Tcp(SocketAddr::new(ip, port)), weight);
            } else if let Some(path) = &endpoint.unix {
                put(EndpointAddress::Unix(PathBuf::from(&path.value)), weight);
            } else if endpoint.demo.is_some() {
                put(EndpointAddress::Echo(backend.meta.name.clone()), weight.max(1));
            } else if let Some(hostname) = &endpoint.hostname {
                let addresses = self.resolver.resolve(hostname);
                if addresses.is_empty() {
                    report.warning(endpoint.span, format!("hostname {hostname} does not resolve: it is tried again"));
                }
                for ip in addresses {
                    put(EndpointAddress::Tcp(SocketAddr::new(ip, port)), weight);
                }
            }
        }
        endpoints
    }

    fn service(
        &mut self,
        referrer: &Referrer<'_>,
        wanted: &Wanted<'_>,
        namespace: &str,
        full_name: &str,
        report: &mut Report,
    ) -> Result<BackendId, (Problem, Option<String>)> {
        let Some(&found) = self.services.get(&(namespace, &*wanted.name.0)) else {
            let help = known_name(&self.resources.services, namespace, wanted.name);
            return Err((Problem::new("BackendNotFound", format!("there is no Service {full_name}")), help));
        };
        if found.spec.external_name.is_some() {
            let message = format!("Service {full_name} is of type ExternalName, which is not followed");
            return Err((
                Problem::new("BackendNotFound", message),
                Some("use a ringway.dev Backend with `hostname`".to_owned()),
            ));
        }
        let number = wanted.port.expect("the rules on references demand it for Services");
        let protocol = if referrer.kind == "UDPRoute" { "UDP" } else { "TCP" };
        let Some(port) = found.spec.ports.iter().find(|port| port.port == number && port.protocol == protocol) else {
            return Err(missing_port(found, number, protocol, full_name));
        };
        // A name server has both on one port.
        let suffix = if protocol == "UDP" { "/udp" } else { "" };
        let name = format!("Service/{full_name}:{}{suffix}", number.get());
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let endpoints = slice_endpoints(self.slices.get(&(namespace, &*wanted.name.0)), port);
        if endpoints.is_empty() {
            let message = format!("Service {full_name} has no ready endpoint on port {}", number.get());
            let help = format!("endpoints come from EndpointSlices labelled {SERVICE_LABEL}: {}", wanted.name);
            report.warning_with_help(wanted.span, message, Some(help));
        }
        let object = BackendObject { kind: "Service", namespace: namespace.to_owned(), name: wanted.name.0.clone() };
        let targets = vec![PolicyTarget::Port(object.clone(), port.name.clone()), PolicyTarget::Backend(object)];
        let http2 = port.app_protocol.as_deref().is_some_and(means_http2);
        let id = self.add(name, endpoints, targets, http2);
        self.all[id.0 as usize].affinity = found.spec.client_ip.map(Affinity);
        Ok(id)
    }

    fn add(
        &mut self,
        name: String,
        endpoints: Vec<Endpoint>,
        policy_targets: Vec<PolicyTarget>,
        http2: bool,
    ) -> BackendId {
        let id = BackendId(u32::try_from(self.all.len()).expect("fewer backends than 2^32"));
        self.known.insert(name.clone(), id);
        let model = Backend { name, policy: None, endpoints, settings: BackendSettings::default() };
        self.all.push(BackendState {
            model,
            policy_targets,
            tls: BackendTls::default(),
            http2,
            hostname: None,
            affinity: None,
        });
        id
    }
}

/// Application protocols of Service ports that mean HTTP/2 by prior knowledge; the API's is the first (GEP-1911).
fn means_http2(protocol: &str) -> bool {
    matches!(protocol, "kubernetes.io/h2c" | "grpc" | "h2c")
}

fn known_name<S>(all: &[Resource<S>], namespace: &str, name: &str) -> Option<String> {
    let known: Vec<&str> =
        all.iter().filter(|each| each.meta.namespace == namespace).map(|each| each.meta.name.as_str()).collect();
    crate::control::read::suggestion(name, &known).map(|meant| format!("did you mean `{meant}`?"))
}

fn missing_port(
    service: &Resource<ServiceSpec>,
    number: Port,
    protocol: &str,
    full_name: &str,
) -> (Problem, Option<String>) {
    if service.spec.ports.iter().any(|port| port.port == number) {
        let message = format!("port {} of Service {full_name} is not {protocol}", number.get());
        return (Problem::new("UnsupportedProtocol", message), None);
    }
    let known: Vec<String> = service.spec.ports.iter().map(|port| port.port.get().to_string()).collect();
    let help = if known.is_empty() { "it has no ports".to_owned() } else { format!("its ports: {}", known.join(", ")) };
    (Problem::new("BackendNotFound", format!("Service {full_name} has no port {}", number.get())), Some(help))
}

/// Ready endpoints of a Service's port; where there are none, those that are about to end but still answer.
fn slice_endpoints(slices: Option<&Vec<&Resource<EndpointSliceSpec>>>, port: &ServicePort) -> Vec<Endpoint> {
    let mut ready = Vec::new();
    let mut ending = Vec::new();
    for slice in slices.into_iter().flatten() {
        let number = slice.spec.ports.iter().find(|each| each.name == port.name).and_then(|each| each.port);
        let Some(number) = number else { continue };
        for endpoint in &slice.spec.endpoints {
            let Some(address) = endpoint.addresses.first() else { continue };
            let found =
                Endpoint { address: EndpointAddress::Tcp(SocketAddr::new(address.value, number.get())), weight: 1 };
            let list = if endpoint.ready && !endpoint.terminating {
                &mut ready
            } else if endpoint.serving && endpoint.terminating {
                &mut ending
            } else {
                continue;
            };
            if !list.contains(&found) {
                list.push(found);
            }
        }
    }
    if ready.is_empty() { ending } else { ready }
}
