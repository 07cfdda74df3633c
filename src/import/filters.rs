//! Annotations that become filters, redirects and retries of a rule.

use super::authorize;
use super::ingress::{Given, Ingress, Path};
use super::yaml::Yaml;

/// What the annotations of an Ingress make of a rule.
#[derive(Debug, Default)]
pub(super) struct Rule {
    pub(super) filters: Vec<Yaml>,
    /// A redirect: there are no backendRefs then.
    pub(super) redirect: bool,
    pub(super) retry: Option<Yaml>,
    /// Objects that the filters refer to: the path's pattern and what it is replaced by.
    pub(super) rewrite: Option<(String, String)>,
    /// The mirror's host and port.
    pub(super) mirror: Option<(String, u16)>,
    /// What could not be translated.
    pub(super) problems: Vec<String>,
}

/// A map of one filter.
pub(super) fn filter(kind: &'static str, field: &'static str, value: Yaml) -> Yaml {
    Yaml::Map(vec![("type", kind.into()), (field, value)])
}

/// Filters for one path. `name` is what the objects that they refer to are called.
pub(super) fn rule(given: &Given, ingress: &Ingress, path: &Path, name: &str) -> Rule {
    let mut rule = Rule::default();
    if let Some(Ok(server)) = authorize::server(ingress) {
        rule.filters.push(authorize::external(ingress, &server, &mut rule.problems));
    }
    if redirect(ingress, &mut rule) {
        return rule;
    }
    let target = ingress.annotation("rewrite-target");
    if let Some(prefix) = ingress.annotation("x-forwarded-prefix") {
        match target {
            Some(_) if !is_value(prefix) => {
                rule.problems.push(format!("x-forwarded-prefix: {prefix:?} is not a value"))
            }
            Some(_) => {
                let set = Yaml::List(vec![header("X-Forwarded-Prefix", prefix)]);
                let set = Yaml::Map(vec![("set", set)]);
                rule.filters.push(filter("RequestHeaderModifier", "requestHeaderModifier", set));
            }
            None => rule.problems.push("x-forwarded-prefix: without rewrite-target it had no effect".to_owned()),
        }
    }
    let mut rewrite = Vec::new();
    if let Some(host) = ingress.annotation("upstream-vhost") {
        match is_hostname(host) {
            true => rewrite.push(("hostname", host.into())),
            false => rule
                .problems
                .push(format!("upstream-vhost: \"{host}\" is not a hostname, which is all that URLRewrite takes")),
        }
    }
    if let Some(target) = target.filter(|target| *target != path.path) {
        replaced(target, path, name, &mut rule, &mut rewrite);
    }
    if !rewrite.is_empty() {
        rule.filters.push(filter("URLRewrite", "urlRewrite", Yaml::Map(rewrite)));
    }
    if rule.rewrite.is_some() {
        let reference =
            vec![("group", "ringway.dev".into()), ("kind", "HTTPRouteFilter".into()), ("name", name.into())];
        rule.filters.push(filter("ExtensionRef", "extensionRef", Yaml::Map(reference)));
    }
    custom_headers(given, ingress, &mut rule);
    if ingress.is("enable-cors") {
        let cors = cors(ingress, &mut rule.problems);
        rule.filters.push(filter("CORS", "cors", cors));
    }
    mirror(ingress, name, &mut rule);
    retry(ingress, &mut rule);
    rule
}

fn header(name: &str, value: &str) -> Yaml {
    Yaml::Map(vec![("name", name.into()), ("value", value.into())])
}

/// What can be the name of a field.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= 256 && ringway_core::http::is_token(text.as_bytes())
}

/// What can be a field's value.
pub(super) fn is_value(text: &str) -> bool {
    (1..=4096).contains(&text.chars().count()) && !text.chars().any(|c| c != '\t' && c.is_control())
}

/// What can be a path in a filter.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 1024
        && text.bytes().all(|b| (0x21..0x7f).contains(&b) && !b"$?#".contains(&b))
}

/// A hostname as the API takes it, without a wildcard.
pub(super) fn is_hostname(text: &str) -> bool {
    !text.contains('*') && text.len() <= 253 && ringway_core::model::HostPattern::parse(text).is_ok()
}

/// A URL's scheme, host, port and the rest.
pub(super) fn url(text: &str) -> Option<(&str, &str, Option<u16>, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let at = rest.find(['/', '?', '$']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(at);
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    (["http", "https"].contains(&scheme) && is_hostname(host)).then_some((scheme, host, port, rest))
}

/// permanent-redirect and temporal-redirect; the latter wins.
fn redirect(ingress: &Ingress, rule: &mut Rule) -> bool {
    let find = |name: &'static str| ingress.annotation(name).map(|target| (name, target));
    let Some((name, target)) = find("temporal-redirect").or_else(|| find("permanent-redirect")) else { return false };
    let (code_name, default) =
        if name == "temporal-redirect" { ("temporal-redirect-code", 302) } else { ("permanent-redirect-code", 301) };
    let code = ingress.annotation(code_name).map_or(Ok(default), str::parse);
    let code = match code {
        Ok(code) if [301, 302, 303, 307, 308].contains(&code) => code,
        _ => {
            rule.problems.push(format!(
                "{code_name}: only 301, 302, 303, 307 and 308 can be sent: {default} stands in its place"
            ));
            default
        }
    };
    rule.redirect = true;
    let mut parts = Vec::new();
    match url(target) {
        Some((scheme, host, port, rest)) => {
            parts.push(("scheme", scheme.into()));
            parts.push(("hostname", host.into()));
            parts.extend(port.map(|port| ("port", i64::from(port).into())));
            match rest {
                "$request_uri" => {}
                path if path.is_empty() || is_path(path) => {
                    let path = if path.is_empty() { "/" } else { path };
                    parts.push(("path", full_path(path)));
                    let note = "ingress-nginx drops the request's query, a RequestRedirect keeps it";
                    parts[0].1 = parts[0].1.clone().noted(vec![note.to_owned()]);
                }
                other => {
                    rule.problems
                        .push(format!("{name}: \"{other}\" has variables or a query, which a redirect cannot have"));
                    rule.redirect = false;
                }
            }
        }
        None => {
            rule.problems.push(format!("{name}: \"{target}\" is not a URL of http or https with a hostname"));
            rule.redirect = false;
        }
    }
    if !rule.redirect {
        return false;
    }
    parts.push(("statusCode", code.into()));
    rule.filters.push(filter("RequestRedirect", "requestRedirect", Yaml::Map(parts)));
    true
}

/// `path` of a redirect or rewrite.
pub(super) fn full_path(path: &str) -> Yaml {
    Yaml::Map(vec![("type", "ReplaceFullPath".into()), ("replaceFullPath", path.into())])
}

/// rewrite-target: the whole path becomes the target, in which `$1` and the like are the groups of the path's pattern.
fn replaced(target: &str, path: &Path, name: &str, rule: &mut Rule, rewrite: &mut Vec<(&'static str, Yaml)>) {
    if !is_path(&target.replace('$', "")) {
        rule.problems
            .push(format!("rewrite-target: \"{target}\" is not a path: queries and other hosts cannot be written"));
        return;
    }
    if !target.contains('$') {
        let value = full_path(target);
        let note = "rewrite-target without a group: the whole path becomes it, whatever the request's path was";
        rewrite.push(("path", value.noted(vec![note.to_owned()])));
        return;
    }
    let Ok(pattern) = regex::bytes::Regex::new(&format!("(?i)^(?:{}).*$", path.path)) else { return };
    let mut substitution = String::new();
    let mut rest = target;
    while let Some(at) = rest.find('$') {
        substitution += &rest[..at];
        rest = &rest[at + 1..];
        let digits = rest.chars().take_while(char::is_ascii_digit).count().min(1);
        let group = rest[..digits].parse::<usize>().ok().filter(|group| (1..pattern.captures_len()).contains(group));
        let Some(group) = group else {
            rule.problems
                .push(format!("rewrite-target: \"{target}\" refers to something other than the path's groups"));
            return;
        };
        substitution += &format!("${{{group}}}");
        rest = &rest[digits..];
    }
    substitution += rest;
    debug_assert!(!name.is_empty());
    rule.rewrite = Some((pattern.as_str().to_owned(), substitution));
}

fn custom_headers(given: &Given, ingress: &Ingress, rule: &mut Rule) {
    let Some(name) = ingress.annotation("custom-headers") else { return };
    let (namespace, name) = name.split_once('/').unwrap_or((&ingress.namespace, name));
    let found = given.config_maps.iter().find(|(in_namespace, known, _)| in_namespace == namespace && known == name);
    match found {
        Some((_, _, data)) if data.iter().any(|(name, value)| !is_name(name) || !is_value(value)) => {
            rule.problems.push(format!("custom-headers: ConfigMap {namespace}/{name} has what is no header field"));
        }
        Some((_, _, data)) if !data.is_empty() && data.len() <= 16 => {
            let set = data.iter().map(|(name, value)| header(name, value)).collect();
            let set = Yaml::Map(vec![("set", Yaml::List(set))]);
            rule.filters.push(filter("ResponseHeaderModifier", "responseHeaderModifier", set));
        }
        Some(_) => {
            rule.problems.push(format!("custom-headers: ConfigMap {namespace}/{name} has to have 1 to 16 entries"))
        }
        None => rule.problems.push(format!("custom-headers: ConfigMap {namespace}/{name} is not among the files")),
    }
}

/// The filter with ingress-nginx's defaults.
fn cors(ingress: &Ingress, problems: &mut Vec<String>) -> Yaml {
    let list = |name: &str, default: &str| -> Vec<String> {
        let value = ingress.annotation(name).unwrap_or(default);
        value.split(',').map(|each| each.trim().to_owned()).filter(|each| !each.is_empty()).collect()
    };
    let texts = |list: Vec<String>| Yaml::List(list.into_iter().take(64).map(Yaml::from).collect());
    let known = |origin: &String| ringway_core::model::OriginPattern::parse(origin).is_some();
    let (origins, strange): (Vec<_>, Vec<_>) = list("cors-allow-origin", "*").into_iter().partition(known);
    for origin in strange {
        problems.push(format!("cors-allow-origin: \"{origin}\" is not an origin of http or https"));
    }
    // `*` beside others says all that is to be said.
    let origins = if origins.iter().any(|origin| origin == "*") { vec!["*".to_owned()] } else { origins };
    let methods = list("cors-allow-methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS");
    let (methods, strange): (Vec<_>, Vec<_>) =
        methods.into_iter().map(|method| method.to_uppercase()).partition(|method| {
            ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]
                .contains(&method.as_str())
        });
    for method in strange {
        problems.push(format!("cors-allow-methods: {method} cannot be allowed by a CORS filter"));
    }
    let headers = list(
        "cors-allow-headers",
        "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
    );
    let expose = list("cors-expose-headers", "");
    let mut named = |annotation: &str, list: Vec<String>| {
        let (names, strange): (Vec<_>, Vec<_>) = list.into_iter().partition(|name| is_name(name));
        problems.extend(strange.iter().map(|name| format!("{annotation}: {name:?} is not the name of a field")));
        names
    };
    let (headers, expose) = (named("cors-allow-headers", headers), named("cors-expose-headers", expose));
    let alone = |list: Vec<String>| if list.iter().any(|each| each == "*") { vec!["*".to_owned()] } else { list };
    let age = ingress.annotation("cors-max-age").and_then(|age| age.parse().ok()).filter(|age| *age > 0);
    let credentials = ingress.annotation("cors-allow-credentials") != Some("false");
    let mut parts = vec![
        ("allowOrigins", texts(origins)),
        ("allowMethods", texts(alone(methods))),
        ("allowHeaders", texts(alone(headers))),
    ];
    if !expose.is_empty() {
        parts.push(("exposeHeaders", texts(alone(expose))));
    }
    parts.push(("allowCredentials", Yaml::Bool(credentials)));
    parts.push(("maxAge", Yaml::Int(age.unwrap_or(1_728_000))));
    Yaml::Map(parts)
}

fn mirror(ingress: &Ingress, name: &str, rule: &mut Rule) {
    let Some(target) = ingress.annotation("mirror-target") else { return };
    match url(target) {
        Some(("http", host, port, "$request_uri" | "")) => {
            rule.mirror = Some((host.to_owned(), port.unwrap_or(80)));
            let to = vec![
                ("group", "ringway.dev".into()),
                ("kind", "Backend".into()),
                ("name", format!("{name}-mirror").into()),
            ];
            let to = Yaml::Map(vec![("backendRef", Yaml::Map(to))]);
            rule.filters.push(filter("RequestMirror", "requestMirror", to));
        }
        _ => rule.problems.push(format!(
            "mirror-target: \"{target}\" is not http://HOST[:PORT]$request_uri; for https write a Backend with `tls`"
        )),
    }
}

/// proxy-next-upstream with statuses.
fn retry(ingress: &Ingress, rule: &mut Rule) {
    let Some(when) = ingress.annotation("proxy-next-upstream") else { return };
    let mut codes = Vec::new();
    for word in when.split_whitespace() {
        match word {
            // These are retried at another endpoint by default, where nothing of the request can have been acted on.
            "error" | "timeout" | "off" | "non_idempotent" => {}
            "invalid_header" => rule.problems.push("proxy-next-upstream: invalid_header has no counterpart".to_owned()),
            word => match word.strip_prefix("http_").and_then(|code| code.parse::<i64>().ok()) {
                Some(code) if (400..600).contains(&code) => codes.push(code),
                _ => rule.problems.push(format!("proxy-next-upstream: {word} has no counterpart")),
            },
        }
    }
    if codes.is_empty() {
        return;
    }
    let tries =
        ingress.annotation("proxy-next-upstream-tries").and_then(|tries| tries.parse::<i64>().ok()).unwrap_or(3);
    // 0 is no limit there.
    let attempts = if tries == 0 { 10 } else { (tries - 1).clamp(0, 10) };
    if attempts == 0 {
        return;
    }
    let note = "holds for every method; ingress-nginx repeats only GET, HEAD, PUT, DELETE and OPTIONS unless non_idempotent is given";
    let codes = Yaml::List(codes.into_iter().map(Yaml::Int).collect());
    let notes = if when.contains("non_idempotent") { Vec::new() } else { vec![note.to_owned()] };
    rule.retry = Some(Yaml::Map(vec![("codes", codes), ("attempts", Yaml::Int(attempts))]).noted(notes));
}
