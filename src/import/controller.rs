//! The controller's own ConfigMap: those of its options that say who the client is.
//!
//! Everything else in it is ingress-nginx's own tuning; what it is not is said by name.

use super::ingress::{Given, Named};
use super::yaml::Yaml;

/// Options that are read here.
const READ: [&str; 5] = [
    "use-forwarded-headers",
    "compute-full-forwarded-for",
    "forwarded-for-header",
    "proxy-real-ip-cidr",
    "use-proxy-protocol",
];
/// Ranges of a list of the API.
const MAX_RANGES: usize = 1024;

/// The controller's ConfigMap, by the names that its charts give it.
pub(super) fn find(given: &Given) -> Option<&Named<String>> {
    let is_it = |name: &str| name.ends_with("ingress-nginx-controller") || name == "nginx-configuration";
    given.config_maps.iter().find(|(_, name, _)| is_it(name))
}

/// Fields of `ClientPolicy.spec`, and what there is to say about them.
pub(super) fn of_clients(given: &Given, attention: &mut Vec<String>) -> Option<(&'static str, Yaml)> {
    let (namespace, name, data) = find(given)?;
    let name = format!("ConfigMap {namespace}/{name}");
    let option = |wanted: &str| data.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.trim());
    let is = |wanted: &str| option(wanted) == Some("true");
    let others: Vec<&str> = data.iter().map(|(key, _)| key.as_str()).filter(|key| !READ.contains(key)).collect();
    if !others.is_empty() {
        attention.push(format!("{name}: not translated: {}", others.join(", ")));
    }
    let mut wrong = Vec::new();
    let mut ranges: Vec<String> = Vec::new();
    for entry in option("proxy-real-ip-cidr").unwrap_or_default().split(',').map(str::trim) {
        if entry.parse::<ipnet::IpNet>().is_ok() || entry.parse::<std::net::IpAddr>().is_ok() {
            ranges.push(entry.to_owned());
        } else if !entry.is_empty() {
            wrong.push(entry);
        }
    }
    if !wrong.is_empty() {
        attention.push(format!("{name}: proxy-real-ip-cidr: not addresses: {}", wrong.join(", ")));
    }
    if ranges.len() > MAX_RANGES {
        attention.push(format!("{name}: proxy-real-ip-cidr: only the first {MAX_RANGES} ranges are taken"));
        ranges.truncate(MAX_RANGES);
    }
    let everybody = |range: &String| matches!(range.as_str(), "0.0.0.0/0" | "::/0");
    let anybody = ranges.iter().any(everybody) || option("proxy-real-ip-cidr").is_none();
    // Where nothing of the list can be read nobody is believed.
    if !anybody && ranges.is_empty() {
        return None;
    }
    let list = |ranges: &[String]| Yaml::List(ranges.iter().map(|range| range.as_str().into()).collect());
    if is("use-proxy-protocol") {
        let mut notes = vec![format!(
            "{name}: use-proxy-protocol: connections without a PROXY header, or from elsewhere, are reset"
        )];
        let trusted = if anybody {
            let message = "use-proxy-protocol without proxy-real-ip-cidr believes everybody: name your load balancers in proxyProtocol.trustedCIDRs";
            attention.push(format!("{name}: {message}"));
            notes.push(message.to_owned());
            list(&["0.0.0.0/0".to_owned(), "::/0".to_owned()])
        } else {
            list(&ranges)
        };
        if is("use-forwarded-headers") {
            notes.push("use-forwarded-headers: the client is the one of the PROXY header; what it says of itself in X-Forwarded-For is dropped".to_owned());
        }
        return Some(("proxyProtocol", Yaml::Map(vec![("trustedCIDRs", trusted)]).noted(notes)));
    }
    if !is("use-forwarded-headers") {
        if is("compute-full-forwarded-for") {
            let message = "compute-full-forwarded-for without use-forwarded-headers: X-Forwarded-For of clients is dropped, not extended";
            attention.push(format!("{name}: {message}"));
        }
        return None;
    }
    if let Some(field) = option("forwarded-for-header").filter(|field| !field.eq_ignore_ascii_case("X-Forwarded-For")) {
        attention
            .push(format!("{name}: forwarded-for-header: {field} is not read: have the proxy send X-Forwarded-For"));
        return None;
    }
    let mut notes = Vec::new();
    let by = if anybody {
        let message = "use-forwarded-headers without proxy-real-ip-cidr believes everybody; here the client is what the one proxy in front \
                       says, and nobody else may be able to connect: name your proxies in trustedCIDRs in place of numTrustedHops";
        attention.push(format!("{name}: {message}"));
        notes.push(format!("{name}: {message}"));
        ("numTrustedHops", Yaml::Int(1))
    } else {
        notes.push(format!("{name}: use-forwarded-headers and proxy-real-ip-cidr"));
        ("trustedCIDRs", list(&ranges))
    };
    notes.push(
        if is("compute-full-forwarded-for") {
            "compute-full-forwarded-for: X-Forwarded-For of a proxy that is believed is extended, as there"
        } else {
            "X-Forwarded-For of a proxy that is believed is extended by its address; ingress-nginx sends the client's alone unless \
             compute-full-forwarded-for is true"
        }
        .to_owned(),
    );
    let found = Yaml::Map(vec![("xForwardedFor", Yaml::Map(vec![by]))]);
    Some(("clientIPDetection", found.noted(notes)))
}
