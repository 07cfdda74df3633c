//! Annotations that become policies: of the Gateway as a whole, of a route, of a Service.

use super::affinity;
use super::ingress::Ingress;
use super::yaml::Yaml;

/// A size as nginx writes it, in bytes; 0 is no limit.
fn size(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(digits) => (
            digits,
            match text.as_bytes().last() {
                Some(b'k') => 1 << 10,
                Some(b'm') => 1 << 20,
                _ => 1 << 30,
            },
        ),
        None => (text.as_str(), 1),
    };
    digits.parse::<i64>().ok().filter(|size| *size >= 0)?.checked_mul(unit)
}

/// Seconds, with or without `s`.
fn seconds(ingress: &Ingress, name: &str) -> Option<i64> {
    ingress.annotation(name)?.trim_end_matches('s').parse().ok().filter(|seconds| *seconds > 0)
}

/// A duration of the Gateway API, which has at most five digits per unit.
pub(super) fn duration(seconds: i64) -> Yaml {
    let (hours, rest) = (seconds / 3600, seconds % 3600);
    let text = if seconds <= 99_999 { format!("{seconds}s") } else { format!("{}h{rest}s", hours.min(99_999)) };
    text.into()
}

/// `ClientPolicy.spec` without its targets, and what there is to say about it.
pub(super) fn of_clients(ingresses: &[&Ingress], attention: &mut Vec<String>) -> Vec<(&'static str, Yaml)> {
    let mut spec = Vec::new();
    let mut timeouts = Vec::new();
    let reads = ingresses.iter().flat_map(|ingress| {
        [seconds(ingress, "proxy-read-timeout"), seconds(ingress, "proxy-send-timeout")].into_iter().flatten()
    });
    if let Some(longest) = reads.max() {
        let note = "proxy-read-timeout and proxy-send-timeout: the time without a byte in either direction, the longest of all Ingresses \
                    (ingress-nginx: 60 s unless given)";
        let longest = longest.max(60);
        timeouts.push(("http", Yaml::Map(vec![("streamIdleTimeout", duration(longest))]).noted(vec![note.to_owned()])));
        // Connections that were upgraded wait as long there.
        timeouts.push(("tcp", Yaml::Map(vec![("idleTimeout", duration(longest))])));
        spec.push(("timeout", Yaml::Map(timeouts)));
    }
    let sizes: Vec<Option<i64>> = ingresses
        .iter()
        .map(|ingress| match ingress.annotation("proxy-body-size") {
            None => Some(1 << 20),
            Some(text) => size(text).or_else(|| {
                attention.push(format!("{}: proxy-body-size: \"{text}\" is not a size", ingress.full_name()));
                Some(1 << 20)
            }),
        })
        .collect();
    if !sizes.contains(&Some(0)) && !sizes.is_empty() {
        let largest = sizes.into_iter().flatten().max().unwrap_or(1 << 20);
        let note = "proxy-body-size: there is one limit for the Gateway, the largest of all Ingresses (ingress-nginx: 1m unless given)";
        spec.push(("limits", Yaml::Map(vec![("bodyBytes", Yaml::Int(largest).noted(vec![note.to_owned()]))])));
    }
    if ingresses.iter().any(|ingress| ingress.is("auth-tls-pass-certificate-to-upstream")) {
        let note =
            "auth-tls-pass-certificate-to-upstream: backends get X-Forwarded-Client-Cert in place of ssl-client-cert";
        let mode = Yaml::Map(vec![("mode", "SanitizeSet".into())]).noted(vec![note.to_owned()]);
        spec.push(("headers", Yaml::Map(vec![("xForwardedClientCert", mode)])));
    }
    spec.extend(ciphers(ingresses, attention));
    spec
}

fn ciphers(ingresses: &[&Ingress], attention: &mut Vec<String>) -> Option<(&'static str, Yaml)> {
    let all = || ingresses.iter().filter_map(|ingress| Some((ingress, ingress.annotation("ssl-ciphers")?)));
    let mut known: Vec<&str> = Vec::new();
    for (ingress, list) in all() {
        for name in list.split([':', ',', ' ']).map(str::trim).filter(|name| !name.is_empty()) {
            if crate::tls::cipher_suite(name).is_none() {
                attention.push(format!("{}: ssl-ciphers: {name} is not served", ingress.full_name()));
            } else if !known.contains(&name) {
                known.push(name);
            }
        }
    }
    if known.is_empty() {
        return None;
    }
    let note = "ssl-ciphers: for TLS 1.2, as far as they are served, for every host of the Gateway";
    let list = Yaml::List(known.into_iter().take(32).map(Yaml::from).collect()).noted(vec![note.to_owned()]);
    Some(("tls", Yaml::Map(vec![("ciphers", list)])))
}

/// `BackendPolicy.spec` of an Ingress's routes without its targets.
pub(super) fn of_backends(ingress: &Ingress, problems: &mut Vec<String>) -> Vec<(&'static str, Yaml)> {
    let mut spec = Vec::new();
    if let Some(balancer) = load_balancer(ingress, problems) {
        spec.push(("loadBalancer", balancer));
    }
    if let Some(connect) = seconds(ingress, "proxy-connect-timeout") {
        spec.push(("timeout", Yaml::Map(vec![("tcp", Yaml::Map(vec![("connectTimeout", duration(connect))]))])));
    }
    if ingress.annotation("backend-protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("GRPC")) {
        spec.push(("protocol", "HTTP2".into()));
    }
    let off = ingress.annotation("proxy-next-upstream") == Some("off");
    let tries = ingress.annotation("proxy-next-upstream-tries").and_then(|tries| tries.parse::<i64>().ok());
    let retries = match tries {
        _ if off => Some(0),
        Some(0) => Some(10),
        tries => tries.map(|tries| (tries - 1).clamp(0, 10)),
    };
    if let Some(retries) = retries {
        spec.push(("retry", Yaml::Map(vec![("numRetries", Yaml::Int(retries))])));
    }
    spec.extend(affinity::attributes(ingress, problems).map(|found| ("sessionCookie", found)));
    spec
}

fn load_balancer(ingress: &Ingress, problems: &mut Vec<String>) -> Option<Yaml> {
    if let Some(by) = ingress.annotation("upstream-hash-by") {
        let bare = by.trim_matches(['"', '\'']);
        let name = bare.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| bare.strip_prefix('$'));
        let word = name.filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let named = |name: &str| Yaml::Map(vec![("name", name.into())]);
        let hash: Option<Vec<(&'static str, Yaml)>> = match word {
            Some("remote_addr" | "binary_remote_addr") => Some(vec![("type", "SourceIP".into())]),
            Some("uri" | "document_uri") => Some(vec![("type", "Path".into())]),
            Some("request_uri") => {
                let note = "$request_uri: its query is not part of the hash";
                Some(vec![("type", Yaml::from("Path").noted(vec![note.to_owned()]))])
            }
            Some("host" | "http_host") => Some(vec![("type", "Header".into()), ("header", named("host"))]),
            Some(word) => {
                if let Some(field) = word.strip_prefix("http_") {
                    Some(vec![("type", "Header".into()), ("header", named(&field.replace('_', "-")))])
                } else if let Some(cookie) = word.strip_prefix("cookie_") {
                    Some(vec![("type", "Cookie".into()), ("cookie", named(cookie))])
                } else {
                    let query = word.strip_prefix("arg_");
                    query.map(|name| {
                        vec![("type", "QueryParams".into()), ("queryParams", Yaml::List(vec![named(name)]))]
                    })
                }
            }
            None => None,
        };
        match hash {
            Some(hash) => {
                return Some(Yaml::Map(vec![("type", "ConsistentHash".into()), ("consistentHash", Yaml::Map(hash))]));
            }
            None => problems.push(format!("upstream-hash-by: \"{by}\" is not one variable that can be hashed here")),
        }
    }
    match ingress.annotation("load-balance")? {
        "round_robin" => Some(Yaml::Map(vec![("type", "RoundRobin".into())])),
        "ewma" => Some(Yaml::Map(vec![("type", "PeakEwma".into())])),
        other => {
            problems.push(format!("load-balance: {other} has no counterpart"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_nginx_s() {
        let cases =
            [("8m", Some(8 << 20)), ("1k", Some(1024)), ("2G", Some(2 << 30)), ("100", Some(100)), ("0", Some(0))];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text}");
        }
        assert_eq!((size("x"), size("-1"), size("9223372036854775807g")), (None, None, None));
    }
}
