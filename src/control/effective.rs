//! The model as JSON: what is served after every default, for `ringway check --effective` and `/config`.

mod http;
mod tls;

use std::time::Duration;

use ringway_core::dsr::Hashing;
use ringway_core::health::Probe;
use ringway_core::model::{
    Backend, BackendSettings, ClientPolicy, DsrService, EscapedSlashes, HashKey, HttpListener, HttpRoute, Keepalive,
    ListenOptions, LoadBalancer, Model, Protocol, ProxyHeader, Socket, Target, UpstreamHttp, WeightedTarget,
};
use serde_json::{Map, Value, json};

use http::rule;

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
    if let Some(name) = &options.congestion {
        out.insert("congestionControl".into(), json!(name));
    }
    if let Some(found) = &options.keepalive {
        out.insert("tcpKeepalive".into(), keepalive(found));
    }
    Value::Object(out)
}

fn keepalive(found: &Keepalive) -> Value {
    let Keepalive { idle, interval, probes } = found;
    json!({ "idleTime": format!("{idle}s"), "interval": format!("{interval}s"), "probes": probes })
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
            "requestReceived": policy.timeouts.request.map(duration),
            "connection": policy.timeouts.connection.map(duration),
        },
        "limits": {
            "headBytes": policy.limits.head_bytes,
            "headFields": policy.limits.head_fields,
            "uriBytes": policy.limits.uri_bytes,
            "bodyBytes": policy.limits.body_bytes,
            "udpFlows": policy.limits.udp_flows,
            "connections": policy.limits.connections,
            "requestsPerConnection": policy.limits.requests,
        },
        "connectionsPerClient": policy.per_client.as_ref().map(|found| json!({
            "value": found.connections,
            "exempt": found.exempt.ranges().into_iter().map(|(net, _)| net).collect::<Vec<_>>(),
            "maxClients": found.clients,
        })),
        "path": {
            "escapedSlashes": match policy.limits.path.escaped_slashes {
                EscapedSlashes::Keep => "keep",
                EscapedSlashes::Reject => "reject",
                EscapedSlashes::Unescape => "unescape",
                EscapedSlashes::Redirect => "redirect",
            },
            "mergeSlashes": policy.limits.path.merge_slashes,
        },
        "http2": {
            "maxConcurrentStreams": policy.http2.streams,
            "streamWindow": policy.http2.stream_window,
            "connectionWindow": policy.http2.connection_window,
        },
        "trusted": trusted,
        "trustedHops": policy.trusted_hops,
        "connection": connection(&policy.connection),
        "proxyProtocol": policy.proxy_protocol.as_ref().map(|found| json!({
            "trusted": found.trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "optional": found.optional,
            "timeout": duration(found.timeout),
        })),
        "forwarded": policy.forwarded,
        "via": policy.via,
        "clientCertificate": policy.client_certificate,
        "httpsRedirect": policy.https_redirect.map(|(status, port)| json!({ "status": status, "port": port })),
    })
}

fn listener(model: &Model, listener: &HttpListener) -> Value {
    let mut out = json!({
        "name": listener.name,
        "hostname": listener.hostname.to_string(),
        "routes": listener.routes.iter().map(|each| route(model, each)).collect::<Vec<_>>(),
    });
    if let Some(found) = &listener.responses {
        out["responses"] = http::responses(found);
    }
    out
}

fn route(model: &Model, route: &HttpRoute) -> Value {
    let hostnames: Vec<String> = route.hostnames.iter().map(ToString::to_string).collect();
    json!({
        "name": model.routes[route.id.0 as usize],
        "hostnames": hostnames,
        "rules": route.rules.iter().map(|each| rule(model, each)).collect::<Vec<_>>(),
    })
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
    let BackendSettings { balancing, connection, connect_attempts, limits, retry_budget, host } = &found.settings;
    let mut out = json!({
        "name": found.name,
        "endpoints": endpoints,
        "balancing": balancer(&balancing.policy),
        "connectTimeout": duration(connection.connect_timeout),
        "connectAttempts": connect_attempts,
        "idleTimeout": duration(connection.idle_timeout),
        "maxIdle": connection.max_idle,
        "retryBudget": {
            "percent": retry_budget.percent,
            "interval": duration(retry_budget.interval),
            "minCount": retry_budget.min_count,
            "minInterval": duration(retry_budget.min_interval),
        },
    });
    if let Some(host) = host {
        out["host"] = json!(host);
    }
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
    if let Some(found) = &connection.keepalive {
        out["tcpKeepalive"] = keepalive(found);
    }
    if let Some(name) = &connection.congestion {
        out["congestionControl"] = json!(name);
    }
    if connection.transparent {
        out["transparentSource"] = json!(true);
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
