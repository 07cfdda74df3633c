//! The model as JSON: what is served after every default, for `ringway check --effective` and `/config`.

mod tls;

use std::time::Duration;

use ringway_core::dsr::Hashing;
use ringway_core::health::Probe;
use ringway_core::model::{
    Action, Backend, BackendSettings, ClientPolicy, DsrService, HashKey, HeaderModifier, HttpListener, HttpMatch,
    HttpRoute, HttpRule, Keepalive, ListenOptions, LoadBalancer, Model, PathMatch, PathModifier, Protocol, ProxyHeader,
    Redirect, RedirectPort, Socket, Target, UpstreamHttp, ValueMatch, WeightedTarget,
};
use serde_json::{Map, Value, json};

/// The whole model.
pub fn effective(model: &Model) -> Value {
    let mut out = json!({
        "sockets": model.sockets.iter().map(|each| socket(model, each)).collect::<Vec<_>>(),
        "backends": model.backends.iter().map(backend).collect::<Vec<_>>(),
    });
    if !model.dsr.is_empty() {
        out["dsr"] = model.dsr.iter().map(dsr).collect();
    }
    out
}

fn dsr(service: &DsrService) -> Value {
    let servers: Vec<Value> =
        service.servers.iter().map(|each| json!({ "address": each.ip.to_string(), "weight": each.weight })).collect();
    let health = service.health.as_ref().map(|check| {
        let (kind, path) = match &check.probe {
            Probe::Tcp => ("TCP", None),
            Probe::Http { path, .. } => ("HTTP", Some(path)),
        };
        json!({
            "type": kind,
            "path": path,
            "port": check.port.unwrap_or_else(|| service.vip.port()),
            "interval": duration(check.interval),
            "timeout": duration(check.timeout),
            "healthyThreshold": check.rise,
            "unhealthyThreshold": check.fall,
        })
    });
    json!({
        "listener": service.name,
        "address": service.vip.to_string(),
        "protocol": service.transport.as_str(),
        "interface": service.interface,
        "xdp": service.mode.as_str(),
        "hash": if service.hashing == Hashing::SourceIp { "SourceIP" } else { "FiveTuple" },
        "stateless": service.stateless,
        "maxEntries": service.max_flows,
        "newFlowsPerSecond": service.new_flows_per_second,
        "drainTimeout": duration(service.drain),
        "healthCheck": health,
        "servers": servers,
    })
}

fn duration(duration: Duration) -> Value {
    let millis = duration.as_millis();
    json!(if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") })
}

fn socket(model: &Model, socket: &Socket) -> Value {
    let mut out = Map::new();
    out.insert("bind".into(), json!(socket.bind.to_string()));
    match &socket.protocol {
        Protocol::Http(listeners) => {
            out.insert("protocol".into(), json!("HTTP"));
            out.insert("listeners".into(), listeners.iter().map(|each| listener(model, each)).collect());
        }
        Protocol::Tls(listeners) => {
            out.insert("protocol".into(), json!("TLS"));
            out.insert("listeners".into(), listeners.iter().map(|each| tls::listener(model, each)).collect());
        }
        Protocol::Tcp(listener) | Protocol::Udp(listener) => {
            let udp = matches!(socket.protocol, Protocol::Udp(_));
            out.insert("protocol".into(), json!(if udp { "UDP" } else { "TCP" }));
            out.insert("listener".into(), json!(listener.name));
            if let Some((id, split)) = &listener.route {
                out.insert("route".into(), json!(model.routes[id.0 as usize]));
                out.insert("split".into(), targets(model, split));
            }
        }
    }
    out.insert("clients".into(), client(&socket.client));
    Value::Object(out)
}

fn connection(options: &ListenOptions) -> Value {
    let mut out = Map::new();
    out.insert("backlog".into(), json!(options.backlog));
    if let Some(seconds) = options.defer_accept {
        out.insert("deferAccept".into(), json!(format!("{seconds}s")));
    }
    if let Some(count) = options.fast_open {
        out.insert("fastOpen".into(), json!(count));
    }
    if options.ipv6_only {
        out.insert("ipv6Only".into(), json!(true));
    }
    if let Some(device) = &options.device {
        out.insert("bindToDevice".into(), json!(device));
    }
    if let Some(Keepalive { idle, interval, probes }) = options.keepalive {
        let found = json!({ "idleTime": format!("{idle}s"), "interval": format!("{interval}s"), "probes": probes });
        out.insert("tcpKeepalive".into(), found);
    }
    Value::Object(out)
}

fn client(policy: &ClientPolicy) -> Value {
    let trusted: Vec<String> = policy.trusted.iter().map(ToString::to_string).collect();
    json!({
        "timeouts": {
            "requestHeaders": duration(policy.timeouts.header),
            "idle": duration(policy.timeouts.idle),
            "bodyIdle": duration(policy.timeouts.body_idle),
            "streamIdle": duration(policy.timeouts.stream_idle),
            "handshake": duration(policy.timeouts.handshake),
            "udpIdle": duration(policy.timeouts.udp_idle),
        },
        "limits": {
            "headBytes": policy.limits.head_bytes,
            "headFields": policy.limits.head_fields,
            "uriBytes": policy.limits.uri_bytes,
            "bodyBytes": policy.limits.body_bytes,
            "udpFlows": policy.limits.udp_flows,
        },
        "trusted": trusted,
        "connection": connection(&policy.connection),
        "proxyProtocol": policy.proxy_protocol.as_ref().map(|found| json!({
            "trusted": found.trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "optional": found.optional,
            "timeout": duration(found.timeout),
        })),
        "forwarded": policy.forwarded,
        "via": policy.via,
        "clientCertificate": policy.client_certificate,
    })
}

fn listener(model: &Model, listener: &HttpListener) -> Value {
    json!({
        "name": listener.name,
        "hostname": listener.hostname.to_string(),
        "routes": listener.routes.iter().map(|each| route(model, each)).collect::<Vec<_>>(),
    })
}

fn route(model: &Model, route: &HttpRoute) -> Value {
    let hostnames: Vec<String> = route.hostnames.iter().map(ToString::to_string).collect();
    json!({
        "name": model.routes[route.id.0 as usize],
        "hostnames": hostnames,
        "rules": route.rules.iter().map(|each| rule(model, each)).collect::<Vec<_>>(),
    })
}

fn rule(model: &Model, rule: &HttpRule) -> Value {
    let mut out = Map::new();
    out.insert("matches".into(), rule.matches.iter().map(to_match).collect());
    if !rule.filters.request_headers.is_empty() {
        out.insert("requestHeaders".into(), modifier(&rule.filters.request_headers));
    }
    if !rule.filters.response_headers.is_empty() {
        out.insert("responseHeaders".into(), modifier(&rule.filters.response_headers));
    }
    if let Some(rewrite) = &rule.filters.rewrite {
        let mut found = Map::new();
        if let Some(hostname) = &rewrite.hostname {
            found.insert("hostname".into(), json!(hostname));
        }
        if let Some(change) = &rewrite.path {
            found.insert("path".into(), path(change));
        }
        out.insert("rewrite".into(), Value::Object(found));
    }
    match &rule.action {
        Action::Forward(split) => out.insert("forward".into(), targets(model, split)),
        Action::Redirect(found) => out.insert("redirect".into(), redirect(found)),
        Action::Fail(status) => out.insert("answer".into(), json!(status)),
    };
    let mut timeouts = Map::new();
    if let Some(found) = rule.timeouts.request {
        timeouts.insert("request".into(), duration(found));
    }
    if let Some(found) = rule.timeouts.backend_request {
        timeouts.insert("backendRequest".into(), duration(found));
    }
    if !timeouts.is_empty() {
        out.insert("timeouts".into(), Value::Object(timeouts));
    }
    Value::Object(out)
}

fn to_match(found: &HttpMatch) -> Value {
    let mut out = Map::new();
    let (kind, text) = match &found.path {
        PathMatch::Exact(path) => ("exact", path.as_str()),
        PathMatch::Prefix(path) => ("prefix", path.as_str()),
        PathMatch::Regex(regex) => ("regex", regex.as_str()),
    };
    out.insert("path".into(), json!({ kind: text }));
    if let Some(method) = &found.method {
        out.insert("method".into(), json!(method));
    }
    if !found.headers.is_empty() {
        let headers = found.headers.iter().map(|each| (each.name.clone(), value(&each.value)));
        out.insert("headers".into(), Value::Object(headers.collect()));
    }
    if !found.query.is_empty() {
        let query = found.query.iter().map(|each| (each.name.clone(), value(&each.value)));
        out.insert("query".into(), Value::Object(query.collect()));
    }
    Value::Object(out)
}

fn value(found: &ValueMatch) -> Value {
    match found {
        ValueMatch::Exact(text) => json!({ "exact": text }),
        ValueMatch::Regex(regex) => json!({ "regex": regex.as_str() }),
    }
}

fn modifier(found: &HeaderModifier) -> Value {
    let table = |list: &[(String, String)]| -> Value {
        Value::Object(list.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
    };
    json!({ "set": table(&found.set), "add": table(&found.add), "remove": found.remove })
}

fn path(found: &PathModifier) -> Value {
    match found {
        PathModifier::ReplaceFull(path) => json!({ "replaceFull": path }),
        PathModifier::ReplacePrefix(path) => json!({ "replacePrefix": path }),
    }
}

fn redirect(found: &Redirect) -> Value {
    let mut out = Map::new();
    out.insert("status".into(), json!(found.status));
    if let Some(scheme) = &found.scheme {
        out.insert("scheme".into(), json!(scheme));
    }
    if let Some(hostname) = &found.hostname {
        out.insert("hostname".into(), json!(hostname));
    }
    if let Some(change) = &found.path {
        out.insert("path".into(), path(change));
    }
    match found.port {
        RedirectPort::Explicit(port) | RedirectPort::Listener(port) => out.insert("port".into(), json!(port)),
        RedirectPort::OfScheme => None,
    };
    Value::Object(out)
}

fn targets(model: &Model, split: &[WeightedTarget]) -> Value {
    split
        .iter()
        .map(|share| {
            let mut out = json!({ "weight": share.weight, "backend": null });
            if let Target::Backend(id) = share.target {
                let backend = &model.backends[id.0 as usize];
                out["backend"] = json!(backend.name);
                if let Some(policy) = &backend.policy {
                    out["policy"] = json!(policy);
                }
            }
            out
        })
        .collect()
}

fn backend(found: &Backend) -> Value {
    let endpoints: Vec<Value> = found
        .endpoints
        .iter()
        .map(|endpoint| json!({ "address": endpoint.address.to_string(), "weight": endpoint.weight }))
        .collect();
    let BackendSettings { balancing, connection, connect_attempts, limits } = &found.settings;
    let mut out = json!({
        "name": found.name,
        "endpoints": endpoints,
        "balancing": balancer(&balancing.policy),
        "connectTimeout": duration(connection.connect_timeout),
        "connectAttempts": connect_attempts,
        "idleTimeout": duration(connection.idle_timeout),
        "maxIdle": connection.max_idle,
    });
    if let Some(upstream) = &connection.tls {
        out["tls"] = tls::upstream(upstream);
    }
    if connection.http != UpstreamHttp::Http1 {
        let wanted = &connection.http2;
        out["http2"] = json!({
            "negotiated": connection.http == UpstreamHttp::Negotiated,
            "maxConcurrentStreams": wanted.max_streams,
            "keepAliveInterval": duration(wanted.ping_interval),
            "keepAliveTimeout": duration(wanted.ping_timeout),
        });
    }
    if let Some(policy) = &found.policy {
        out["policy"] = json!(policy);
    }
    if let Some(window) = balancing.slow_start {
        out["slowStart"] = duration(window);
    }
    if !limits.is_unlimited() {
        out["limits"] = json!({
            "connections": limits.connections,
            "requests": limits.requests,
            "pending": limits.pending,
            "pendingTimeout": duration(limits.pending_timeout),
        });
    }
    if let Some(header) = &connection.proxy_protocol {
        out["proxyProtocol"] = match header {
            ProxyHeader::V1 => json!("v1"),
            ProxyHeader::V2(tlvs) => json!({ "v2": {
                "alpn": tlvs.alpn,
                "authority": tlvs.authority,
                "ssl": tlvs.ssl,
                "uniqueId": tlvs.unique_id,
                "crc32c": tlvs.crc32c,
            }}),
        };
    }
    out
}

fn balancer(policy: &LoadBalancer) -> Value {
    match policy {
        LoadBalancer::LeastRequest => json!("leastRequest"),
        LoadBalancer::RoundRobin => json!("roundRobin"),
        LoadBalancer::Random => json!("random"),
        LoadBalancer::PeakEwma => json!("peakEwma"),
        LoadBalancer::ConsistentHash { key, table } => {
            let key = match key {
                HashKey::SourceIp => json!("sourceIP"),
                HashKey::FiveTuple => json!("fiveTuple"),
                HashKey::Headers(names) => json!({ "headers": names }),
                HashKey::Cookie(name) => json!({ "cookie": name }),
                HashKey::QueryParams(names) => json!({ "queryParams": names }),
                HashKey::Path => json!("path"),
            };
            json!({ "hashOf": key, "tableSize": table.get() })
        }
    }
}
