//! Annotations that become policies of traffic: who may ask, how often, and what errors look like.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ingress::{Ingress, secret};
use super::yaml::Yaml;

/// The fields of a policy's spec without its targets.
type Spec = Vec<(&'static str, Yaml)>;

/// Statuses that a ResponsePolicy can say otherwise, in one go.
const MAX_CODES: usize = 64;

/// The largest limits of a RateLimitPolicy: on requests in a time, and on those under way.
const MAX_LIMIT: i64 = 1_000_000_000;
const MAX_AT_ONCE: i64 = 1_000_000;

/// Addresses and ranges as nginx has them, separated by commas, and what is none.
fn ranges(list: &str) -> (Vec<IpNet>, Vec<&str>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        // Bits behind the prefix mean nothing there.
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(range) => good.push(range.trunc()),
            Err(_) => bad.push(text),
        }
    }
    good.sort_unstable();
    good.dedup();
    (good, bad)
}

fn cidrs(list: &[IpNet]) -> Yaml {
    Yaml::List(list.iter().map(|range| range.to_string().into()).collect())
}

/// The ranges that are let in: the annotation has two names.
fn allowed(ingress: &Ingress) -> Option<(&'static str, &str)> {
    ["whitelist-source-range", "allowlist-source-range"]
        .into_iter()
        .find_map(|name| ingress.annotation(name).map(|list| (name, list)))
}

/// `AccessPolicy.spec` as far as it can be written, and why the rules must stay closed if that is not all of it.
pub(super) fn access(ingress: &Ingress) -> (Spec, Vec<String>) {
    let (mut spec, mut why) = (Spec::new(), Vec::new());
    match authorization(ingress) {
        Ok(found) => spec.extend(found.map(|found| ("authorization", found))),
        Err(reasons) => why.extend(reasons),
    }
    match basic_auth(ingress) {
        Ok(found) => spec.extend(found.map(|found| ("basicAuth", found))),
        Err(reason) => why.push(reason),
    }
    // With one of the two there is nothing to choose between.
    if spec.len() == 2 && ingress.annotation("satisfy") == Some("any") {
        spec.push(("satisfy", "Any".into()));
    }
    if ingress.annotation("satisfy") == Some("any") && ingress.annotation("auth-url").is_some() && !spec.is_empty() {
        why.push(
            "satisfy: any: with auth-url there is no choice: everything that is asked for has to be met".to_owned(),
        );
    }
    (spec, why)
}

fn authorization(ingress: &Ingress) -> Result<Option<Yaml>, Vec<String>> {
    let denied = ingress.annotation("denylist-source-range").map(|list| ("denylist-source-range", list));
    let allowed = allowed(ingress);
    if denied.is_none() && allowed.is_none() {
        return Ok(None);
    }
    let mut why = Vec::new();
    let mut read = |given: Option<(&'static str, &str)>| {
        let Some((name, list)) = given else { return Vec::new() };
        let (good, bad) = ranges(list);
        why.extend(bad.iter().map(|text| format!("{name}: \"{text}\" is not an address or range")));
        if good.is_empty() && bad.is_empty() {
            why.push(format!("{name}: there is no address in it"));
        }
        good
    };
    let (deny, mut allow) = (read(denied), read(allowed));
    if !why.is_empty() {
        return Err(why);
    }
    // nginx asks the denylist first, Ringway the longest prefix.
    allow.retain(|range| !deny.iter().any(|denied| denied.contains(range)));
    let rule = |action: &str, list: &[IpNet]| {
        let principal = Yaml::Map(vec![("clientCIDRs", cidrs(list))]);
        (!list.is_empty()).then(|| Yaml::Map(vec![("action", action.into()), ("principal", principal)]))
    };
    let rules: Vec<Yaml> = [rule("Allow", &allow), rule("Deny", &deny)].into_iter().flatten().collect();
    let default = if allowed.is_some() { "Deny" } else { "Allow" };
    let note =
        "by the client's address: what forwards to Ringway is named by ClientPolicy clientIPDetection or proxyProtocol";
    let mut parts = vec![("defaultAction", default.into())];
    parts.push(("rules", Yaml::List(rules)));
    Ok(Some(Yaml::Map(parts).noted(vec![note.to_owned()])))
}

fn basic_auth(ingress: &Ingress) -> Result<Option<Yaml>, String> {
    let Some(kind) = ingress.annotation("auth-type") else { return Ok(None) };
    if kind != "basic" {
        return Err(format!("auth-type: {kind} is not served: basic is"));
    }
    match ingress.annotation("auth-secret-type") {
        None | Some("auth-file") => {}
        Some(other) => {
            return Err(format!("auth-secret-type: {other}: the users have to be lines of a file, under the key auth"));
        }
    }
    let Some(given) = ingress.annotation("auth-secret") else {
        return Err("auth-secret: it is missing, so nobody is known".to_owned());
    };
    let Some((namespace, name)) = secret(given, &ingress.namespace) else {
        return Err(format!("auth-secret: {given}: this is not the name of a Secret"));
    };
    if namespace != ingress.namespace {
        return Err(format!("auth-secret: {given}: users have to be in the namespace of their route: copy the Secret"));
    }
    let mut parts = vec![("users", Yaml::Map(vec![("name", name.into())]))];
    if let Some(realm) = ingress.annotation("auth-realm") {
        let shown: String = realm.chars().filter(|c| matches!(c, ' '..='~') && !['"', '\\'].contains(c)).collect();
        if !shown.trim().is_empty() {
            parts.push(("realm", shown.into()));
        }
    }
    let note = "a Secret with the key auth, as for ingress-nginx; plain text and the old crypt are refused. As there, the endpoint gets the \
                Authorization field; without forwardAuthorization it does not";
    parts.push(("forwardAuthorization", Yaml::Bool(true)));
    Ok(Some(Yaml::Map(parts).noted(vec![note.to_owned()])))
}

/// `RateLimitPolicy.spec`.
pub(super) fn rates(ingress: &Ingress, problems: &mut Vec<String>) -> Spec {
    let mut number = |name: &str| {
        let text = ingress.annotation(name)?;
        let number = text.parse::<i64>().ok().filter(|number| (0..=MAX_LIMIT).contains(number));
        if number.is_none() {
            problems.push(format!("{name}: \"{text}\" is not a number that can be a limit"));
        }
        number.filter(|number| *number > 0)
    };
    let multiplier = number("limit-burst-multiplier").unwrap_or(5);
    let limits = [("limit-rps", "Second"), ("limit-rpm", "Minute")];
    let limits: Vec<(i64, &str)> = limits.into_iter().filter_map(|(name, unit)| Some((number(name)?, unit))).collect();
    let at_once = number("limit-connections");
    if limits.is_empty() && at_once.is_none() {
        return Spec::new();
    }
    let (exempt, bad) = ranges(ingress.annotation("limit-whitelist").unwrap_or_default());
    problems.extend(bad.iter().map(|text| format!("limit-whitelist: \"{text}\" is not an address or range")));
    let rule = |mut parts: Spec| {
        if !exempt.is_empty() {
            parts.push(("exemptCIDRs", cidrs(&exempt)));
        }
        Yaml::Map(parts)
    };
    let rate = |(requests, unit): (i64, &str)| {
        let limit = Yaml::Map(vec![("requests", Yaml::Int(requests)), ("unit", unit.into())]);
        let burst = requests.saturating_mul(multiplier).min(MAX_LIMIT);
        rule(vec![("limit", limit), ("burst", Yaml::Int(burst))])
    };
    let mut notes = Vec::new();
    if !limits.is_empty() {
        notes.push("for each client's address, as in ingress-nginx; answered 429 with Retry-After, not 503, and counted over all cores".to_owned());
    }
    let mut rules: Vec<Yaml> = limits.into_iter().map(rate).collect();
    if let Some(most) = at_once {
        notes.push("limit-connections counts requests under way, as nginx does: of HTTP/2 each stream is one; answered 429, not 503. Connections \
                    themselves are limited by ClientPolicy connectionLimit.perClient".to_owned());
        rules.push(rule(vec![("maxConcurrentRequests", Yaml::Int(most.min(MAX_AT_ONCE)))]));
    }
    vec![("rules", Yaml::List(rules).noted(notes))]
}

/// `ResponsePolicy.spec`.
pub(super) fn pages(ingress: &Ingress, problems: &mut Vec<String>) -> Spec {
    let Some(list) = ingress.annotation("custom-http-errors") else { return Spec::new() };
    let mut codes: Vec<i64> = Vec::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(code) if (400..600).contains(&code) => codes.push(code),
            _ => problems.push(format!("custom-http-errors: {text}: only 400 to 599 have pages")),
        }
    }
    codes.sort_unstable();
    codes.dedup();
    codes.truncate(MAX_CODES);
    if codes.is_empty() {
        return Spec::new();
    }
    let from = ingress.annotation("default-backend").map_or_else(
        || "the controller's default backend".to_owned(),
        |service| format!("Service {service} (default-backend)"),
    );
    problems.push(format!(
        "custom-http-errors: the page came from {from}: put it in the place of that of the ResponsePolicy"
    ));
    let codes = Yaml::List(codes.into_iter().map(|code| Yaml::Map(vec![("value", Yaml::Int(code))])).collect());
    let inline = Yaml::Verbatim("<!DOCTYPE html><title>Error</title><p>This page is not available.</p>\n".to_owned());
    let body = Yaml::Map(vec![("inline", inline)]);
    let response = Yaml::Map(vec![("contentType", "text/html".into()), ("body", body)]);
    let note = format!("a placeholder: {from} made the page; up to 64 KiB can be in a ConfigMap (valueRef)");
    let one = Yaml::Map(vec![("match", Yaml::Map(vec![("statusCodes", codes)])), ("response", response)]);
    vec![("responseOverride", Yaml::List(vec![one]).noted(vec![note]))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ranges_are_nginx_s() {
        let (good, bad) = ranges(" 10.1.2.3/8 ,192.0.2.1,, 2001:db8::/32, office,10.0.0.0/33");
        let good: Vec<String> = good.iter().map(ToString::to_string).collect();
        assert_eq!(good, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(bad, ["office", "10.0.0.0/33"]);
    }
}
