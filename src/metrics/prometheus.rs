//! The Prometheus text format, version 0.0.4.

use std::collections::HashMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use ringway_core::model::RouteId;

use super::{AcceptError, Authorization, CoreMetrics, DownstreamError, Registry, SessionResult, UpstreamError};
use crate::tls::Version;

/// What is exposed besides the counters.
#[derive(Debug)]
pub struct Info<'a> {
    /// Of the build.
    pub version: &'a str,
    /// In use.
    pub driver: &'a str,
    /// Being served.
    pub generation: u64,
    /// Loads that were refused since the last good one.
    pub config_errors: u64,
    /// Objects in error whose last good version is served.
    pub stale: u64,
    /// Objects in error that are left out.
    pub left_out: u64,
    /// By `RouteId` of the generation being served.
    pub routes: &'a [String],
    /// Certificates being served and when they cease to be valid.
    pub certificates: &'a [(String, i64)],
}

const QUANTILES: [(f64, &str); 5] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1")];

#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.line(format_args!(" {value}"));
    }
}

/// Everything, as one page.
pub fn render(registry: &Registry, latencies: &HashMap<RouteId, Histogram<u64>>, info: &Info<'_>) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    page.family("ringway_build_info", "gauge", "The build that is running.");
    page.sample("ringway_build_info", &[("version", info.version)], 1);
    page.family("ringway_driver_info", "gauge", "The system interface that the event loops wait on.");
    page.sample("ringway_driver_info", &[("driver", info.driver)], 1);
    page.family("ringway_config_generation", "gauge", "The configuration generation being served.");
    page.sample("ringway_config_generation", &[], info.generation);
    page.family(
        "ringway_config_errors",
        "gauge",
        "Errors in the newest configuration; 0 when it is the one being served.",
    );
    page.sample("ringway_config_errors", &[], info.config_errors);
    page.family(
        "ringway_config_objects_in_error",
        "gauge",
        "Objects of the newest configuration that are in error, by what is served in their place.",
    );
    page.sample("ringway_config_objects_in_error", &[("served", "last_good")], info.stale);
    page.sample("ringway_config_objects_in_error", &[("served", "nothing")], info.left_out);
    cores(&mut page, registry);
    listeners(&mut page, registry);
    handshakes(&mut page, registry);
    certificates(&mut page, info.certificates);
    routes(&mut page, registry, latencies, info.routes);
    backends(&mut page, registry);
    page.0
}

fn cores(page: &mut Page, registry: &Registry) {
    let gauges = [
        ("ringway_worker_connections", "Client connections open on a worker."),
        ("ringway_worker_pool_idle", "Upstream connections that a worker keeps for reuse."),
        ("ringway_worker_buffers_in_use", "I/O buffers that a worker has in use."),
        ("ringway_worker_pipes_in_use", "Pipes that a worker has in use for splicing."),
    ];
    for (index, (name, help)) in gauges.into_iter().enumerate() {
        page.family(name, "gauge", help);
        for (worker, core) in registry.cores.iter().enumerate() {
            let gauge = [&core.connections, &core.pool_idle, &core.buffers_in_use, &core.pipes_in_use][index];
            page.sample(name, &[("worker", &worker.to_string())], gauge.get());
        }
    }
    let sum = |of: fn(&CoreMetrics) -> u64| registry.cores.iter().map(|core| of(core)).sum::<u64>();
    page.family("ringway_spliced_bytes_total", "counter", "Bytes that were relayed without passing user space.");
    page.sample("ringway_spliced_bytes_total", &[], sum(|core| core.spliced.get()));
    page.family("ringway_pipe_refusals_total", "counter", "Bulk flows that were copied because no pipe could be had.");
    page.sample("ringway_pipe_refusals_total", &[], sum(|core| core.pipes_refused.get()));
    page.family("ringway_panics_total", "counter", "Panics that were caught; each closed one connection.");
    page.sample("ringway_panics_total", &[], registry.cores.iter().map(|core| core.panics.get()).sum::<u64>());
    page.family(
        "ringway_downstream_errors_total",
        "counter",
        "Requests and connections of clients that ended in an error.",
    );
    for (index, error) in DownstreamError::ALL.iter().enumerate() {
        let count: u64 = registry.cores.iter().map(|core| core.downstream.0[index].get()).sum();
        page.sample("ringway_downstream_errors_total", &[("reason", error.as_str())], count);
    }
    page.family("ringway_accept_errors_total", "counter", "Connections that could not be accepted, and pauses.");
    for (index, error) in AcceptError::ALL.iter().enumerate() {
        let count: u64 = registry.cores.iter().map(|core| core.accept[index].get()).sum();
        page.sample("ringway_accept_errors_total", &[("reason", error.as_str())], count);
    }
}

fn listeners(page: &mut Page, registry: &Registry) {
    let all = registry.listeners.sorted();
    page.family("ringway_connections_total", "counter", "Connections accepted.");
    for (listener, cores) in &all {
        let count: u64 = cores.iter().map(|core| core.connections.get()).sum();
        page.sample("ringway_connections_total", &[("listener", listener)], count);
    }
    page.family("ringway_connections_active", "gauge", "Connections open.");
    for (listener, cores) in &all {
        let count: u64 = cores.iter().map(|core| core.active.get()).sum();
        page.sample("ringway_connections_active", &[("listener", listener)], count);
    }
    page.family(
        "ringway_bytes_total",
        "counter",
        "Bytes that came from clients and went to them: heads and bodies of HTTP, what TLS carries, datagrams.",
    );
    for (listener, cores) in &all {
        let received: u64 = cores.iter().map(|core| core.bytes_in.get()).sum();
        let sent: u64 = cores.iter().map(|core| core.bytes_out.get()).sum();
        page.sample("ringway_bytes_total", &[("listener", listener), ("direction", "in")], received);
        page.sample("ringway_bytes_total", &[("listener", listener), ("direction", "out")], sent);
    }
}

fn handshakes(page: &mut Page, registry: &Registry) {
    page.family("ringway_tls_handshakes_total", "counter", "TLS handshakes with clients that succeeded.");
    for (listener, cores) in &registry.listeners.sorted() {
        for version in [Version::Tls12, Version::Tls13] {
            for resumed in [false, true] {
                let count: u64 =
                    cores.iter().map(|core| core.handshakes[version as usize][usize::from(resumed)].get()).sum();
                if count > 0 {
                    let resumed = if resumed { "true" } else { "false" };
                    let labels = [("listener", *listener), ("version", version.as_str()), ("resumed", resumed)];
                    page.sample("ringway_tls_handshakes_total", &labels, count);
                }
            }
        }
    }
}

fn certificates(page: &mut Page, certificates: &[(String, i64)]) {
    let name = "ringway_tls_certificate_expiry_timestamp_seconds";
    page.family(name, "gauge", "When a certificate that is served ceases to be valid, in seconds since 1970.");
    for (certificate, not_after) in certificates {
        page.sample(name, &[("certificate", certificate)], not_after);
    }
}

fn routes(page: &mut Page, registry: &Registry, latencies: &HashMap<RouteId, Histogram<u64>>, names: &[String]) {
    page.family("ringway_requests_total", "counter", "Requests by route and class of status; 0xx got no answer.");
    for (route, cores) in registry.routes.sorted() {
        for class in 0..6 {
            let count: u64 = cores.iter().map(|core| core.by_class[class].get()).sum();
            if count > 0 || class == 2 {
                page.sample("ringway_requests_total", &[("route", route), ("code", &format!("{class}xx"))], count);
            }
        }
    }
    let name = "ringway_grpc_requests_total";
    page.family(name, "counter", "Calls of gRPC by route and status.");
    for (route, cores) in registry.routes.sorted() {
        for status in 0..ringway_core::grpc::STATUSES {
            let count: u64 = cores.iter().map(|core| core.grpc[status].get()).sum();
            if count > 0 {
                page.sample(name, &[("route", route), ("grpc_status", &status.to_string())], count);
            }
        }
    }
    let name = "ringway_external_auth_total";
    page.family(name, "counter", "Questions to servers of ExternalAuth filters, by route and what came of them.");
    for (route, cores) in registry.routes.sorted() {
        for (index, result) in Authorization::ALL.iter().enumerate() {
            let count: u64 = cores.iter().map(|core| core.authorizations[index].get()).sum();
            if count > 0 {
                page.sample(name, &[("route", route), ("result", result.as_str())], count);
            }
        }
    }
    let name = "ringway_sessions_total";
    page.family(name, "counter", "Requests to rules with sessions, by route and what became of the session.");
    for (route, cores) in registry.routes.sorted() {
        for (index, result) in SessionResult::ALL.iter().enumerate() {
            let count: u64 = cores.iter().map(|core| core.sessions[index].get()).sum();
            if count > 0 {
                page.sample(name, &[("route", route), ("result", result.as_str())], count);
            }
        }
    }
    let name = "ringway_request_duration_seconds";
    page.family(name, "summary", "From the request's head to the last byte of its answer.");
    // Of an object that is there twice both versions may be routes.
    let mut measured: std::collections::BTreeMap<&str, Histogram<u64>> = std::collections::BTreeMap::new();
    for (id, histogram) in latencies {
        let Some(route) = names.get(id.0 as usize) else { continue };
        match measured.get_mut(route.as_str()) {
            Some(sum) => sum.add(histogram).expect("all are made alike"),
            None => drop(measured.insert(route, histogram.clone())),
        }
    }
    for (route, histogram) in measured {
        for (quantile, label) in QUANTILES {
            let seconds = seconds(histogram.value_at_quantile(quantile));
            page.sample(name, &[("route", route), ("quantile", label)], seconds);
        }
        let sum: f64 = histogram.iter_recorded().map(|step| seconds(step.value_iterated_to()) * count(&step)).sum();
        page.sample("ringway_request_duration_seconds_sum", &[("route", route)], sum);
        page.sample("ringway_request_duration_seconds_count", &[("route", route)], histogram.len());
    }
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a float")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "a metric's value is a float")]
fn count(step: &hdrhistogram::iterators::IterationValue<u64>) -> f64 {
    step.count_at_value() as f64
}

fn backends(page: &mut Page, registry: &Registry) {
    let all = registry.backends.sorted();
    page.family(
        "ringway_upstream_requests_total",
        "counter",
        "Requests and connections given to a backend's endpoints.",
    );
    for (backend, cores) in &all {
        let count: u64 = cores.iter().map(|core| core.requests.get()).sum();
        page.sample("ringway_upstream_requests_total", &[("backend", backend)], count);
    }
    let name = "ringway_upstream_retries_total";
    page.family(name, "counter", "Requests that were sent again because a route wants that.");
    for (backend, cores) in &all {
        let count: u64 = cores.iter().map(|core| core.retries.get()).sum();
        if count > 0 {
            page.sample(name, &[("backend", backend)], count);
        }
    }
    page.family("ringway_upstream_in_flight", "gauge", "Requests and connections that a backend's endpoints work on.");
    let mut in_flight: std::collections::BTreeMap<&str, u64> = all.iter().map(|(backend, _)| (*backend, 0)).collect();
    for (label, cores) in registry.endpoints.sorted() {
        let backend = label.split(' ').next().unwrap_or(label);
        *in_flight.entry(backend).or_default() += cores.iter().map(|core| core.in_flight.get()).sum::<u64>();
    }
    for (backend, count) in in_flight {
        page.sample("ringway_upstream_in_flight", &[("backend", backend)], count);
    }
    page.family("ringway_upstream_pending", "gauge", "Requests and connections that wait for a place at a backend.");
    let mut pending: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
    for ((backend, _), limiter) in &registry.limiters {
        *pending.entry(backend).or_default() += limiter.waiting();
    }
    for (backend, count) in pending {
        page.sample("ringway_upstream_pending", &[("backend", backend)], count);
    }
    page.family("ringway_upstream_errors_total", "counter", "Failures on the way to a backend's endpoints.");
    for (backend, cores) in &all {
        for (index, error) in UpstreamError::ALL.iter().enumerate() {
            let count: u64 = cores.iter().map(|core| core.errors[index].get()).sum();
            if count > 0 {
                let labels = [("backend", *backend), ("reason", error.as_str())];
                page.sample("ringway_upstream_errors_total", &labels, count);
            }
        }
    }
}
