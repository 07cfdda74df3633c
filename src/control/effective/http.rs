//! Rules of HTTP routes.

use ringway_core::http::coding::Coding;
use ringway_core::model::{
    Action, Cors, DirectResponse, ExternalAuth, Filters, HeaderModifier, HttpMatch, HttpRule, Login, Mirror, Model,
    OriginPattern, PathMatch, PathModifier, RateKey, Redirect, RedirectPort, ResponseRules, RuleExtras, Session,
    SessionCarrier, Substitution, Target, ValueMatch,
};
use serde_json::{Map, Value, json};

use super::{duration, targets};

pub(super) fn rule(model: &Model, rule: &HttpRule) -> Value {
    let mut out = Map::new();
    out.insert("matches".into(), rule.matches.iter().map(to_match).collect());
    filters(&rule.filters, &mut out);
    match &rule.action {
        Action::Forward(split) => out.insert("forward".into(), targets(model, split)),
        Action::Redirect(found) => out.insert("redirect".into(), redirect(found)),
        Action::Respond(found) => out.insert("respond".into(), response(found)),
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
    if let Some(found) = &rule.extras {
        extras(model, found, &mut out);
    }
    Value::Object(out)
}

fn response(found: &DirectResponse) -> Value {
    json!({ "status": found.status, "contentType": found.content_type, "bytes": found.body.len() })
}

fn filters(found: &Filters, out: &mut Map<String, Value>) {
    if !found.request_headers.is_empty() {
        out.insert("requestHeaders".into(), modifier(&found.request_headers));
    }
    if !found.response_headers.is_empty() {
        out.insert("responseHeaders".into(), modifier(&found.response_headers));
    }
    if let Some(rewrite) = &found.rewrite {
        let mut changes = Map::new();
        if let Some(hostname) = &rewrite.hostname {
            changes.insert("hostname".into(), json!(hostname));
        }
        if let Some(change) = &rewrite.path {
            changes.insert("path".into(), path(change));
        }
        out.insert("rewrite".into(), Value::Object(changes));
    }
}

fn extras(model: &Model, found: &RuleExtras, out: &mut Map<String, Value>) {
    if !found.shares.is_empty() {
        let shares = found.shares.iter().map(|share| {
            let mut out = Map::new();
            if let Some(share) = share {
                filters(&share.filters, &mut out);
                if let Some(found) = &share.redirect {
                    out.insert("redirect".into(), redirect(found));
                }
                if let Some(found) = &share.response {
                    out.insert("respond".into(), response(found));
                }
                mirrors(model, &share.mirrors, &mut out);
                if let Some(found) = &share.cors {
                    out.insert("cors".into(), cors(found));
                }
                auth(model, share.auth.as_deref(), &mut out);
            }
            Value::Object(out)
        });
        out.insert("shares".into(), shares.collect());
    }
    policies(model, found, out);
    mirrors(model, &found.mirrors, out);
    if let Some(found) = &found.cors {
        out.insert("cors".into(), cors(found));
    }
    auth(model, found.auth.as_deref(), out);
    if let Some(found) = &found.retry {
        let retry = json!({ "codes": found.codes, "attempts": found.attempts, "backoff": duration(found.backoff) });
        out.insert("retry".into(), retry);
    }
    if let Some(found) = &found.session {
        out.insert("session".into(), session(found));
    }
}

fn session(found: &Session) -> Value {
    let mut out = match &found.carrier {
        SessionCarrier::Header(name) => json!({ "header": name }),
        SessionCarrier::Cookie(cookie) => json!({ "cookie": {
            "name": cookie.name,
            "path": cookie.path,
            "domain": cookie.domain,
            "lifetime": if cookie.permanent { "permanent" } else { "session" },
            "secure": cookie.secure,
            "sameSite": cookie.same_site.as_str(),
        }}),
    };
    for (name, limit) in [("absoluteTimeout", found.absolute), ("idleTimeout", found.idle)] {
        if let Some(limit) = limit {
            out[name] = duration(limit);
        }
    }
    out["scope"] = json!(format!("{:032x}", u128::from_be_bytes(found.scope)));
    out
}

fn auth(model: &Model, found: Option<&ExternalAuth>, out: &mut Map<String, Value>) {
    let Some(found) = found else { return };
    let ExternalAuth { target, path, request_headers, response_headers, body_bytes } = found;
    let shown = json!({
        "backend": match target {
            Target::Backend(id) => json!(model.backends[id.0 as usize].name),
            Target::Invalid => json!("invalid"),
        },
        "path": path,
        "requestHeaders": request_headers,
        "responseHeaders": response_headers,
        "bodyBytes": body_bytes,
    });
    out.insert("externalAuth".into(), shown);
}

fn policies(model: &Model, found: &RuleExtras, out: &mut Map<String, Value>) {
    if let Some(access) = &found.access {
        let action = |allowed: bool| if allowed { "allow" } else { "deny" };
        let ranges = access.ranges.ranges();
        let ranges: Map<String, Value> =
            ranges.into_iter().map(|(net, allowed)| (net, json!(action(allowed)))).collect();
        let mut shown = json!({ "ranges": ranges, "others": action(access.others) });
        match &access.login {
            None => {}
            Some(Login::Closed) => shown["basicAuth"] = json!("nobody"),
            Some(Login::Basic(basic)) => {
                let users: Vec<&String> = basic.users.keys().collect();
                shown["basicAuth"] = json!({ "realm": basic.realm, "users": users });
            }
        }
        if access.any {
            shown["satisfy"] = json!("any");
        }
        out.insert("access".into(), shown);
    }
    if !found.rate_limits.is_empty() {
        let limit = |index: &usize| {
            let limit = &model.rate_limits[*index];
            json!({
                "name": limit.name,
                "requests": limit.requests,
                "per": duration(limit.per),
                "burst": limit.burst,
                "key": rate_key(&limit.key),
                "exempt": limit.exempt.ranges().into_iter().map(|(net, _)| net).collect::<Vec<_>>(),
                "maxKeys": limit.keys,
            })
        };
        out.insert("rateLimits".into(), found.rate_limits.iter().map(limit).collect());
    }
    if !found.concurrency_limits.is_empty() {
        let limit = |index: &usize| {
            let limit = &model.concurrency_limits[*index];
            json!({
                "name": limit.name,
                "requests": limit.requests,
                "key": rate_key(&limit.key),
                "exempt": limit.exempt.ranges().into_iter().map(|(net, _)| net).collect::<Vec<_>>(),
                "maxKeys": limit.keys,
            })
        };
        out.insert("concurrencyLimits".into(), found.concurrency_limits.iter().map(limit).collect());
    }
    if let Some(rules) = &found.responses {
        out.insert("responses".into(), responses(rules));
    }
}

fn rate_key(key: &RateKey) -> Value {
    match key {
        RateKey::ClientIp => json!("clientIP"),
        RateKey::Header(name) => json!({ "header": name }),
        RateKey::Route => json!("route"),
    }
}

/// What is done to answers.
pub(super) fn responses(rules: &ResponseRules) -> Value {
    let page = |(first, last, page): &(u16, u16, DirectResponse)| {
        json!({
            "statuses": format!("{first}-{last}"),
            "status": page.status,
            "contentType": page.content_type,
            "bytes": page.body.len(),
        })
    };
    let hsts = rules.hsts.as_ref().map(|line| line.trim_end());
    let mut out = json!({ "hsts": hsts, "pages": rules.pages.iter().map(page).collect::<Vec<_>>() });
    if let Some(found) = &rules.compression {
        let level = |(coding, level): &(Coding, u32)| (coding.name().to_owned(), json!(level));
        out["compression"] = json!({
            "levels": found.codings.iter().map(level).collect::<Map<_, _>>(),
            "minContentLength": found.min_length,
            "contentTypes": found.types,
        });
    }
    out
}

fn mirrors(model: &Model, found: &[Mirror], out: &mut Map<String, Value>) {
    if !found.is_empty() {
        let mirror = |mirror: &Mirror| {
            let backend = &model.backends[mirror.backend.0 as usize];
            json!({ "backend": backend.name, "fraction": format!("{}/{}", mirror.fraction.0, mirror.fraction.1) })
        };
        out.insert("mirrors".into(), found.iter().map(mirror).collect());
    }
}

fn cors(found: &Cors) -> Value {
    let origin = |origin: &OriginPattern| match origin {
        OriginPattern::Any => "*".to_owned(),
        OriginPattern::Origin { scheme, host, wildcard, port } => {
            format!("{scheme}://{}{host}:{port}", if *wildcard { "*" } else { "" })
        }
    };
    json!({
        "origins": found.origins.iter().map(origin).collect::<Vec<_>>(),
        "credentials": found.credentials,
        "methods": found.methods,
        "headers": found.headers,
        "expose": found.expose,
        "maxAge": found.max_age,
    })
}

fn to_match(found: &HttpMatch) -> Value {
    let mut out = Map::new();
    let (kind, text) = match &found.path {
        PathMatch::Exact(path) => ("exact", path.as_str()),
        PathMatch::Prefix(path) => ("prefix", path.as_str()),
        PathMatch::Regex(regex) => ("regex", regex.as_str()),
        PathMatch::Method(regex) => ("method", regex.as_str()),
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
        PathModifier::ReplaceRegex(found) => {
            let part = |part: &Substitution| match part {
                Substitution::Text(text) => text.replace('$', "$$"),
                Substitution::Group(group) => format!("${{{group}}}"),
            };
            let substitution: String = found.substitution.iter().map(part).collect();
            json!({ "replaceRegex": found.pattern.as_str(), "by": substitution })
        }
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
