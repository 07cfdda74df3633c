//! Requests.

use std::net::IpAddr;
use std::time::Instant;

use ringway_core::access::{self, PrefixMap};
use ringway_core::balance::key::{self, Flow, KeyedRequest};
use ringway_core::grpc::{Call, web};
use ringway_core::http::Date;
use ringway_core::http1::FieldStorage;
use ringway_core::http1::authorize::{self, Granted};
use ringway_core::http1::choose::{self, Chosen, Unserved};
use ringway_core::http1::encode::{self, Reply, RequestContext};
use ringway_core::http1::request::{self, RequestHead};
use ringway_core::model::{
    Access, Action, Cors, ExternalAuth, Filters, HeaderModifier, Login, Mirror, NotAdmitted, PathModifier, RateKey,
    Redirect, RuleExtras, ShareFilters, Target, ValueMatch, WeightedTarget,
};
use ringway_core::route::{CandidateSeen, CompiledRule, Fate, FieldLookup, Lost, PathCondition, RouteTable};
use serde_json::{Map, Value, json};

use super::{Scheme, World, backends, certain_failure};
use crate::auth::{Judgement, Known};

/// Stands for a client that nobody has named (RFC 5737).
const SOMEBODY: &str = "192.0.2.1";
/// Stands for the identity that every request gets.
const REQUEST_ID: &str = "(a random UUID)";

/// Puts down what becomes of the request. `shaken` is the listener that the TLS handshake chose.
pub(super) fn explain(
    world: &World<'_>,
    table: &RouteTable,
    listeners: &[String],
    shaken: Option<usize>,
    out: &mut Value,
) {
    let policy = &world.socket.client;
    let bytes = head_bytes(world);
    out["request"] = lines(&bytes);
    let mut storage = FieldStorage::new();
    let head = match request::parse_request(&bytes, &mut storage, &policy.limits) {
        Ok(Some(head)) => head,
        Ok(None) => {
            out["outcome"] = json!({ "answer": 408, "reason": "the head is not whole" });
            return;
        }
        Err(error) => {
            out["outcome"] = json!({ "answer": error.status(), "reason": error.reason() });
            return;
        }
    };
    out["matchedAs"] = json!({
        "host": head.host,
        "path": String::from_utf8_lossy(&head.path),
        "query": head.query.map(String::from_utf8_lossy),
        "method": String::from_utf8_lossy(head.method_token),
    });
    considered(world, table, listeners, &head, out);
    match choose::choose(table, &head, &policy.limits, shaken) {
        Ok(chosen) => served(world, &head, &chosen, out),
        Err(choose::Refused { why: unserved, .. }) => {
            let reason = match unserved {
                Unserved::Redirected => "the path has escaped slashes, and the client is told to ask without them",
                Unserved::BodyTooLarge => "the body is longer than the limit",
                Unserved::LastHop => "Max-Forwards is used up",
                Unserved::Misdirected => "the name in the TLS handshake chose another listener than the request's host",
                Unserved::NoRoute => "no rule of the listener takes it",
            };
            out["outcome"] = json!({ "answer": unserved.status(), "reason": reason });
            if unserved == Unserved::Redirected {
                let scheme = if world.question.url.scheme == Scheme::Https { "https" } else { "http" };
                let mut answer = Vec::new();
                encode::ask_again(&head, scheme, Reply::to(&head, false), &Date::at(0), &mut answer);
                out["outcome"]["location"] = json!(location_in(&answer));
            }
        }
    }
}

/// The head as a client would send it.
fn head_bytes(world: &World<'_>) -> Vec<u8> {
    let question = world.question;
    let mut head = format!("{} {} HTTP/1.1\r\n", question.method, question.url.target);
    let is_host = |field: &&String| field.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("host"));
    if !question.headers.iter().any(|field| is_host(&field)) {
        head += &format!("Host: {}\r\n", question.url.authority);
    }
    for field in &question.headers {
        head += &format!("{field}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// The lines of a head.
fn lines(head: &[u8]) -> Value {
    let text = String::from_utf8_lossy(head);
    text.split("\r\n").filter(|line| !line.is_empty()).map(|line| json!(line)).collect()
}

/// Listeners and candidates.
fn considered(world: &World<'_>, table: &RouteTable, names: &[String], head: &RequestHead<'_>, out: &mut Value) {
    let trace = table.trace(&choose::key(head));
    let listeners = trace.listeners.iter().map(|seen| {
        let result = match seen.fate {
            Fate::Chosen => "chosen",
            Fate::LessSpecific => "a more specific hostname takes it",
            Fate::OtherHost => "another host",
        };
        json!({ "name": names[seen.index], "hostname": seen.hostname.to_string(), "result": result })
    });
    out["listeners"] = listeners.collect();
    let candidates = trace.candidates.iter().map(|seen| candidate(world, table, head, seen));
    out["candidates"] = candidates.collect();
}

fn candidate(world: &World<'_>, table: &RouteTable, head: &RequestHead<'_>, seen: &CandidateSeen<'_>) -> Value {
    let rule = &table.rules()[seen.rule.index()];
    let mut conditions = vec![match seen.path {
        PathCondition::Exact(path) => format!("path is {}", String::from_utf8_lossy(path)),
        PathCondition::Regex(pattern) => format!("path matches {pattern}"),
        PathCondition::Prefix("") => "any path".to_owned(),
        PathCondition::Prefix(prefix) => format!("path under {prefix}"),
    }];
    conditions.extend(seen.method.map(|method| format!("method {}", String::from_utf8_lossy(method))));
    conditions
        .extend(seen.headers.iter().map(|wanted| format!("header {} {}", wanted.name, wanted_value(&wanted.value))));
    conditions.extend(seen.query.iter().map(|wanted| format!("query {} {}", wanted.name, wanted_value(&wanted.value))));
    json!({
        "rule": rule_name(world, rule),
        "match": seen.match_index,
        "hostname": seen.hostname.to_string(),
        "conditions": conditions.join(", "),
        "lost": seen.lost.map(|lost| why(head, seen, lost)),
    })
}

/// `HTTPRoute/namespace/name rules[0]`.
fn rule_name(world: &World<'_>, rule: &CompiledRule) -> String {
    format!("{} rules[{}]", world.snapshot.routes[rule.route.0 as usize], rule.rule_index)
}

fn wanted_value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(text) => format!("is \"{text}\""),
        ValueMatch::Regex(pattern) => format!("matches {}", pattern.as_str()),
    }
}

fn why(head: &RequestHead<'_>, seen: &CandidateSeen<'_>, lost: Lost<'_>) -> String {
    let found = |values: Vec<String>| match values.as_slice() {
        [] => "there is none".to_owned(),
        values => format!("it is \"{}\"", values.join(",")),
    };
    match lost {
        Lost::Host => format!("hostname: {} does not take {}", seen.hostname, head.host),
        Lost::Path => "path".to_owned(),
        Lost::Method => format!("method: it is {}", String::from_utf8_lossy(head.method_token)),
        Lost::Header(wanted) => {
            let mut values = Vec::new();
            head.values(&wanted.name, &mut |value| values.push(String::from_utf8_lossy(value).into_owned()));
            format!("header {}: {}", wanted.name, found(values))
        }
        Lost::Query(wanted) => {
            let first =
                head.query.and_then(|query| ringway_core::route::first_query_param(query, wanted.name.as_bytes()));
            let first = first.map(|value| String::from_utf8_lossy(&value).into_owned());
            format!("query {}: {}", wanted.name, found(first.into_iter().collect()))
        }
        Lost::Outranked => "one above takes it".to_owned(),
    }
}

/// What the rule does.
fn served(world: &World<'_>, head: &RequestHead<'_>, chosen: &Chosen<'_>, out: &mut Value) {
    let policy = &world.socket.client;
    let from = world.question.from;
    let whose = from.map(|from| access::of_request(from.ip, policy, head));
    if whose != from.map(|from| from.ip) {
        out["client"] = json!(whose);
    }
    let client = from.map_or_else(|| SOMEBODY.to_owned(), |from| from.ip.to_string());
    // At rules for gRPC, gRPC-Web leaves as that.
    let web = Reply::to(head, false).call.filter(|call| chosen.rule.grpc && *call != Call::Native);
    let translated = web.map(|call| web::request(call, head));
    let context = RequestContext {
        client: &client,
        scheme: if world.question.url.scheme == Scheme::Https { "https" } else { "http" },
        trusted: from.is_some_and(|from| policy.believes(from.ip)),
        policy,
        request_id: REQUEST_ID,
        client_certificate: None,
        host: match &chosen.rule.action {
            Action::Forward(split) => split.iter().find_map(|share| host(world, share)),
            Action::Redirect(_) | Action::Respond(_) | Action::Fail(_) => None,
        },
        content_type: translated.as_ref().map(|(_, format)| format.as_slice()),
        granted: &[],
    };
    let rule = chosen.rule;
    out["rule"] = json!(rule_name(world, rule));
    let extras = rule.extras.as_deref();
    let auth = extras.and_then(|extras| extras.auth.as_deref());
    let cors = extras.and_then(|extras| extras.cors.as_ref());
    if let Some(fields) = cors.and_then(|cors| choose::preflight(cors, head)) {
        out["outcome"] = json!({ "answer": 204, "reason": "CORS preflight", "fields": lines(&fields) });
        return;
    }
    if let Some(access) = extras.and_then(|extras| extras.access.as_ref())
        && let Some(refusal) = refused(access, whose, head)
    {
        out["outcome"] = refusal;
        return;
    }
    if let Some(rules) = auth.filter(|_| !matches!(rule.action, Action::Fail(_))) {
        if rules.target == Target::Invalid {
            let reason = "the server that filter ExternalAuth asks is not to be had: `ringway check` says why";
            out["outcome"] = json!({ "answer": 500, "reason": reason });
            return;
        }
        out["externalAuth"] = asked(world, head, rules, &context);
    }
    let granted: Vec<Granted<'_>> = auth.map(granted).into_iter().collect();
    let context = RequestContext { granted: &granted, ..context };
    match &rule.action {
        Action::Fail(status) => {
            let reason = "the rule has no backendRefs, or a filter that cannot be honoured: `ringway check` says which";
            out["outcome"] = json!({ "answer": status, "reason": reason });
        }
        Action::Redirect(redirect) => {
            let location = location(head, redirect, chosen, context.scheme);
            out["outcome"] = json!({ "answer": redirect.status, "reason": "RequestRedirect", "location": location });
        }
        Action::Respond(response) => {
            out["outcome"] = json!({ "answer": response.status, "reason": "HTTPRouteFilter directResponse" });
        }
        Action::Forward(split) => {
            let head = translated.as_ref().map_or(head, |(sent, _)| sent);
            let steps = Steps { world, head, chosen, context: &context };
            // Every field is named here, so that none can be forgotten.
            let none = RuleExtras::default();
            let RuleExtras {
                shares,
                mirrors,
                cors,
                auth: _,
                retry,
                session,
                access: _,
                rate_limits,
                concurrency_limits,
                responses,
            } = extras.unwrap_or(&none);
            limits(world, rate_limits, concurrency_limits, whose, out);
            if let Some(rules) = responses {
                out["responseOverrides"] = json!(rules.pages.len());
                if let Some(found) = &rules.compression {
                    let codings: Vec<&str> = found.codings.iter().map(|(coding, _)| coding.name()).collect();
                    out["compression"] = json!(codings);
                }
            }
            out["filters"] = steps.all(&rule.filters, cors.as_ref(), mirrors);
            out["backends"] = forwarded(world, head, split);
            if let Some(session) = session {
                out["session"] = super::session::explain(world, session, split, head);
            }
            for (index, own) in shares.iter().enumerate() {
                if let Some(own) = own {
                    let context = RequestContext { host: host(world, &split[index]), ..context };
                    Steps { context: &context, ..steps }.share(own, &mut out["backends"][index]);
                }
            }
            out["retry"] = json!(retry.as_ref().map(|retry| {
                json!({ "codes": retry.codes, "attempts": retry.attempts, "backoff": format!("{:?}", retry.backoff) })
            }));
            match certain_failure(world, split) {
                Some(failure) => {
                    let status = if failure == super::Failure::Invalid { 500 } else { 503 };
                    out["outcome"] = json!({ "answer": status, "reason": failure.why() });
                }
                None => {
                    out["outcome"] = json!({ "forward": true });
                    match shares.as_slice() {
                        [Some(_)] => alone(out),
                        // Every share has filters of its own, and its head stands with it.
                        [_, ..] if shares.iter().all(Option::is_some) => {}
                        _ => out["upstreamRequest"] = lines(&steps.head(&rule.filters)),
                    }
                }
            }
            out["timeouts"] = json!({
                "request": rule.timeouts.request.map(|limit| format!("{limit:?}")),
                "backendRequest": rule.timeouts.backend_request.map(|limit| format!("{limit:?}")),
            });
        }
    }
}

/// The limits that a request counts for, by the names of their policies and the numbers of their rules.
fn limits(world: &World<'_>, rates: &[usize], concurrency: &[usize], client: Option<IpAddr>, out: &mut Value) {
    let exempt = |ranges: &PrefixMap| client.and_then(|client| ranges.get(client)) == Some(true);
    if !rates.is_empty() {
        let names = rates.iter().map(|index| json!(world.snapshot.rates[*index].limit.name));
        out["rateLimits"] = names.collect();
    }
    if !concurrency.is_empty() {
        let shown = |index: &usize| {
            let limit = &world.snapshot.concurrency[*index].limit;
            let by = match &limit.key {
                RateKey::ClientIp => "each client".to_owned(),
                RateKey::Header(name) => format!("each value of {name}"),
                RateKey::Route => "all clients together".to_owned(),
            };
            json!({ "name": limit.name, "requests": limit.requests, "of": by, "exempt": exempt(&limit.exempt) })
        };
        out["concurrencyLimits"] = concurrency.iter().map(shown).collect();
    }
}

/// What becomes of a request whose only share has filters of its own.
fn alone(out: &mut Value) {
    let share = &out["backends"][0];
    if let Some(location) = share["redirect"]["location"].as_str() {
        out["outcome"] = json!({
            "answer": share["redirect"]["answer"],
            "reason": "RequestRedirect of the backendRef",
            "location": location,
        });
    } else if share["directResponse"].is_number() {
        let reason = "HTTPRouteFilter directResponse of the backendRef";
        out["outcome"] = json!({ "answer": share["directResponse"], "reason": reason });
    } else {
        out["upstreamRequest"] = share["upstreamRequest"].clone();
    }
}

/// What requests of a share name in Host, where its backend's policy says so.
fn host<'w>(world: &'w World<'_>, share: &WeightedTarget) -> Option<&'w str> {
    match share.target {
        Target::Backend(id) => world.snapshot.host(id),
        Target::Invalid => None,
    }
}

/// The answer of an AccessPolicy that does not let the request in. Of a client that nobody has named, the address is let in.
fn refused(access: &Access, from: Option<IpAddr>, head: &RequestHead<'_>) -> Option<Value> {
    let answer = |status: u16, reason: &str| Some(json!({ "answer": status, "reason": reason }));
    let rules = match access.login(from.is_none_or(|from| access.admits(from))) {
        Err(NotAdmitted) => return answer(403, "an AccessPolicy does not let this client in"),
        Ok(None) => return None,
        Ok(Some(Login::Closed)) => {
            return answer(500, "the users of an AccessPolicy cannot be read, so nobody is let in");
        }
        Ok(Some(Login::Basic(rules))) => rules,
    };
    match Known::new().judge(rules, head.named("authorization").next(), Instant::now()) {
        Judgement::Pass => None,
        Judgement::Challenge => answer(401, "an AccessPolicy asks for a name and a password"),
        Judgement::Check(claim) if claim.is_right() => None,
        Judgement::Check(_) => answer(401, "the name or the password is not right"),
    }
}

fn forwarded(world: &World<'_>, head: &RequestHead<'_>, split: &[WeightedTarget]) -> Value {
    backends(world, split, |wanted| {
        let request = KeyedRequest { path: &head.path, query: head.query, fields: head };
        let flow = world.flow(key::TCP);
        // Without a client there is nothing to hash of it.
        if flow.is_none()
            && matches!(wanted, ringway_core::model::HashKey::SourceIp | ringway_core::model::HashKey::FiveTuple)
        {
            return None;
        }
        let nobody = || Flow { source: world.socket.bind, destination: world.socket.bind, protocol: key::TCP };
        key::of_request(wanted, &request, || flow.unwrap_or_else(nobody))
    })
}

/// What a server would be asked, which is not done here.
fn asked(world: &World<'_>, head: &RequestHead<'_>, rules: &ExternalAuth, context: &RequestContext<'_>) -> Value {
    let ExternalAuth { target, path: _, request_headers: _, response_headers, body_bytes } = rules;
    let mut question = Vec::new();
    authorize::question(head, rules, context, &mut question);
    json!({
        "to": match target {
            Target::Backend(id) => json!(world.snapshot.backends[id.0 as usize].name),
            Target::Invalid => json!(null),
        },
        "question": lines(&question),
        "bodyUpTo": body_bytes,
        "copies": if response_headers.is_empty() { json!("all") } else { json!(response_headers) },
    })
}

/// The client's word does not count for these, whatever its server answers.
fn granted(rules: &ExternalAuth) -> Granted<'_> {
    Granted { names: &rules.response_headers, fields: &[] }
}

/// Filters at work, one after the other.
struct Steps<'s> {
    world: &'s World<'s>,
    head: &'s RequestHead<'s>,
    chosen: &'s Chosen<'s>,
    context: &'s RequestContext<'s>,
}

impl Steps<'_> {
    fn head(&self, filters: &Filters) -> Vec<u8> {
        let mut out = Vec::new();
        encode::request(self.head, filters, self.chosen.matched, self.context, &mut out);
        out
    }

    /// Each filter with the lines of the head that it takes away and puts there, or what else it does.
    fn all(&self, filters: &Filters, cors: Option<&Cors>, mirrors: &[Mirror]) -> Value {
        let Filters { request_headers, response_headers, rewrite } = filters;
        let mut steps = Vec::new();
        let mut so_far = Filters::default();
        let mut step = |name: &str, filters: Filters| {
            let (before, after) = (lines(&self.head(&so_far)), lines(&self.head(&filters)));
            let only = |these: &Value, others: &Value| -> Vec<Value> {
                let others = others.as_array().map(Vec::as_slice).unwrap_or_default();
                these.as_array().into_iter().flatten().filter(|line| !others.contains(line)).cloned().collect()
            };
            steps.push(json!({ "filter": name, "removed": only(&before, &after), "added": only(&after, &before) }));
            so_far = filters;
        };
        if let Some(found) = rewrite {
            let by_regex = matches!(found.path, Some(PathModifier::ReplaceRegex(_)));
            let name = if by_regex { "HTTPRouteFilter urlRewrite" } else { "URLRewrite" };
            step(name, Filters { rewrite: rewrite.clone(), ..Filters::default() });
        }
        if !request_headers.is_empty() {
            let (rewrite, request_headers) = (rewrite.clone(), request_headers.clone());
            step("RequestHeaderModifier", Filters { rewrite, request_headers, ..Filters::default() });
        }
        if !response_headers.is_empty() {
            steps.push(json!({ "filter": "ResponseHeaderModifier", "response": modifier(response_headers) }));
        }
        if let Some(cors) = cors {
            let mut fields = Vec::new();
            choose::shared(cors, self.head, &mut fields);
            steps.push(json!({ "filter": "CORS", "response": { "set": lines(&fields) } }));
        }
        for Mirror { backend, fraction } in mirrors {
            let name = &self.world.snapshot.backends[backend.0 as usize].name;
            steps.push(
                json!({ "filter": "RequestMirror", "to": name, "share": format!("{} of {}", fraction.0, fraction.1) }),
            );
        }
        steps.into()
    }

    /// What is done for one share of the split, its rule's filters included.
    fn share(&self, own: &ShareFilters, out: &mut Value) {
        let ShareFilters { filters, redirect, response, mirrors, cors, auth } = own;
        if let Some(rules) = auth {
            out["externalAuth"] = asked(self.world, self.head, rules, self.context);
            let granted: Vec<Granted<'_>> = self.context.granted.iter().copied().chain([granted(rules)]).collect();
            let context = RequestContext { granted: &granted, ..*self.context };
            let own = ShareFilters { auth: None, ..own.clone() };
            return Steps { context: &context, ..*self }.share(&own, out);
        }
        out["filters"] = self.all(filters, cors.as_ref(), mirrors);
        match (redirect, response) {
            (Some(redirect), _) => {
                let location = location(self.head, redirect, self.chosen, self.context.scheme);
                out["redirect"] = json!({ "answer": redirect.status, "location": location });
            }
            (None, Some(response)) => out["directResponse"] = json!(response.status),
            (None, None) => out["upstreamRequest"] = lines(&self.head(filters)),
        }
    }
}

/// Where a redirect leads.
fn location(head: &RequestHead<'_>, redirect: &Redirect, chosen: &Chosen<'_>, scheme: &str) -> Option<String> {
    let mut answer = Vec::new();
    let reply = Reply::to(head, false);
    encode::redirect(head, redirect, chosen.matched, scheme, reply, &Date::at(0), &mut answer);
    location_in(&answer)
}

fn location_in(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    text.split("\r\n").find_map(|line| line.strip_prefix("location: ")).map(str::to_owned)
}

fn modifier(found: &HeaderModifier) -> Value {
    let mut out = Map::new();
    let pairs =
        |list: &[(String, String)]| list.iter().map(|(name, value)| json!(format!("{name}: {value}"))).collect();
    if !found.set.is_empty() {
        out.insert("set".into(), pairs(&found.set));
    }
    if !found.add.is_empty() {
        out.insert("add".into(), pairs(&found.add));
    }
    if !found.remove.is_empty() {
        out.insert("remove".into(), json!(found.remove));
    }
    Value::Object(out)
}
