//! An explanation for people.

use std::fmt::Write as _;

use serde_json::Value;

/// Candidates that are shown; the others are counted.
const SHOWN: usize = 40;

/// As lines of text.
pub fn render(found: &Value) -> String {
    let mut out = Page(String::new());
    let from = found["from"].as_str().unwrap_or("somebody (--from says who)");
    out.line(0, &text(&found["url"]));
    if let Some(socket) = found.get("socket") {
        out.line(
            1,
            &format!("from {from} to {}, which speaks {}", text(&socket["address"]), text(&socket["protocol"])),
        );
    }
    if let Some(limit) = found.get("connectionsPerClient") {
        let exempt = if limit["exempt"] == true { ", which does not concern this one" } else { "" };
        out.line(1, &format!("each client has at most {} connections at a time{exempt}", limit["value"]));
    }
    out.each(found, "explanation", |out, line| out.line(1, &text(line)));
    if let Some(name) = found.get("serverName") {
        out.title(&format!("TLS handshake for {}", name.as_str().unwrap_or("no name")));
        out.each(found, "handshake", |out, each| {
            out.line(1, &format!("{}  {}  {}", text(&each["name"]), text(&each["does"]), text(&each["result"])));
        });
    }
    out.section(found, "request", "Request", |out, line| out.line(1, &text(line)));
    if let Some(key) = found.get("matchedAs") {
        let query = key["query"].as_str().map(|query| format!(", query {query}")).unwrap_or_default();
        out.line(1, &format!("is matched as {} of {}{query}", text(&key["path"]), text(&key["host"])));
    }
    out.section(found, "listeners", "Listeners", |out, each| {
        out.line(1, &format!("{}  {}  {}", text(&each["name"]), text(&each["hostname"]), text(&each["result"])));
    });
    candidates(&mut out, found);
    if let Some(rule) = found["rule"].as_str() {
        out.title(&format!("Served by {rule}"));
        if let Some(client) = found["client"].as_str() {
            out.line(1, &format!("the client is {client}, by X-Forwarded-For"));
        }
    }
    if found["rateLimits"].is_array() || found["concurrencyLimits"].is_array() {
        out.title("Limits");
        limits(&mut out, found);
    }
    if found["externalAuth"].is_object() {
        out.title("Asked first");
        asked(&mut out, 1, &found["externalAuth"]);
    }
    out.section(found, "filters", "Filters", |out, step| filter(out, 1, step));
    out.section(found, "backends", "Backends", backend);
    if let Some(session) = found.get("session") {
        out.title(&format!("Session by {}", text(&session["by"])));
        out.line(1, &text(&session["result"]));
    }
    if let Some(limits) = found.get("timeouts") {
        for name in ["request", "backendRequest"] {
            if let Some(limit) = limits[name].as_str() {
                out.line(1, &format!("timeout {name}: {limit}"));
            }
        }
    }
    if let Some(retry) = found.get("retry").filter(|retry| !retry.is_null()) {
        out.line(
            1,
            &format!(
                "retry: up to {} times, also for {}, after {}",
                retry["attempts"],
                retry["codes"],
                text(&retry["backoff"])
            ),
        );
        out.each(found, "backends", |out, share| {
            if let (Some(name), budget) = (share["backend"].as_str(), &share["retryBudget"]) {
                let (percent, interval) = (&budget["percent"], text(&budget["interval"]));
                let least = text(&budget["minRetryRate"]);
                out.line(2, &format!("of {name} at most {percent}% of {interval}, but always {least}"));
            }
        });
    }
    out.section(found, "upstreamRequest", "Upstream request", |out, line| out.line(1, &text(line)));
    outcome(&mut out, &found["outcome"]);
    out.0
}

struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: &str) {
        writeln!(self.0, "{}{}", "  ".repeat(depth), text.trim_end()).expect("writing to a string");
    }

    fn title(&mut self, text: &str) {
        self.0.push('\n');
        self.line(0, text);
    }

    fn each(&mut self, found: &Value, list: &str, mut one: impl FnMut(&mut Self, &Value)) {
        for item in found[list].as_array().map(Vec::as_slice).unwrap_or_default() {
            one(self, item);
        }
    }

    fn section(&mut self, found: &Value, list: &str, title: &str, one: impl FnMut(&mut Self, &Value)) {
        if found[list].as_array().is_some_and(|items| !items.is_empty()) {
            self.title(title);
            self.each(found, list, one);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn candidates(out: &mut Page, found: &Value) {
    let all = found["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return;
    }
    out.title("Rules, in the order of precedence");
    let winner = all.iter().position(|each| each["lost"].is_null());
    for (index, each) in all.iter().enumerate() {
        if index >= SHOWN && Some(index) != winner {
            continue;
        }
        let result = each["lost"].as_str().map_or_else(|| "SERVES IT".to_owned(), |why| format!("lost: {why}"));
        let place = format!("{}.matches[{}]", text(&each["rule"]), each["match"]);
        out.line(1, &format!("{:>3}  {place}  {}  {}", index + 1, text(&each["hostname"]), text(&each["conditions"])));
        out.line(4, &result);
    }
    if all.len() > SHOWN {
        out.line(1, &format!("{} in all; -o json shows every one", all.len()));
    }
}

fn limits(out: &mut Page, found: &Value) {
    out.each(found, "rateLimits", |out, name| out.line(1, &format!("a rate: RateLimitPolicy {}", text(name))));
    out.each(found, "concurrencyLimits", |out, limit| {
        let exempt = if limit["exempt"] == true { ", which does not concern this client" } else { "" };
        let (requests, of, name) = (&limit["requests"], text(&limit["of"]), text(&limit["name"]));
        out.line(1, &format!("{requests} requests of {of} at a time: RateLimitPolicy {name}{exempt}"));
    });
}

/// What a server would be asked.
fn asked(out: &mut Page, depth: usize, found: &Value) {
    let Some(to) = found["to"].as_str() else {
        return out.line(depth, "ExternalAuth asks a server that is not to be had: the answer is 500");
    };
    out.line(depth, &format!("ExternalAuth asks {to}, and the request goes on if the answer is 2xx"));
    out.each(found, "question", |out, line| out.line(depth + 1, &text(line)));
    if let Some(limit) = found["bodyUpTo"].as_u64().filter(|limit| *limit > 0) {
        out.line(depth + 1, &format!("and the body, up to {limit} bytes"));
    }
    let names: Vec<String> = found["copies"].as_array().into_iter().flatten().map(text).collect();
    let names = if names.is_empty() { "all".to_owned() } else { names.join(", ") };
    out.line(depth, &format!("fields of its answer for the backend, and never the client's: {names}"));
}

fn filter(out: &mut Page, depth: usize, step: &Value) {
    let to = step["to"].as_str().map(|to| format!(" {} to {to}", text(&step["share"]))).unwrap_or_default();
    out.line(depth, &format!("{}{to}", text(&step["filter"])));
    out.each(step, "removed", |out, line| out.line(depth + 1, &format!("- {}", text(line))));
    out.each(step, "added", |out, line| out.line(depth + 1, &format!("+ {}", text(line))));
    if let Some(changes) = step["response"].as_object() {
        for (what, list) in changes {
            let list: Vec<String> = list.as_array().into_iter().flatten().map(text).collect();
            out.line(depth + 1, &format!("the response's fields: {what} {}", list.join("; ")));
        }
    }
}

fn backend(out: &mut Page, share: &Value) {
    let name = share["backend"].as_str().unwrap_or("(no backend)");
    let weight = format!("weight {} of {}", share["weight"], share["weights"]);
    let mut facts = vec![weight, text(&share["state"])];
    facts.extend(share["loadBalancer"].as_str().map(str::to_owned));
    facts.extend(share["policy"].as_str().map(|policy| format!("BackendPolicy {policy}")));
    facts.extend(share["tls"].as_str().map(|name| format!("TLS to {name}")));
    facts.extend(share["host"].as_str().map(|host| format!("Host {host}")));
    let pending = share["pending"].as_u64().filter(|count| *count > 0);
    facts.extend(pending.map(|count| format!("{count} waiting for a place")));
    facts.extend(share["hash"].as_str().map(|hash| format!("hash {hash}")));
    out.line(1, &format!("{name}  {}", facts.join(", ")));
    out.each(share, "endpoints", |out, endpoint| {
        out.line(2, &format!("{}  {}", text(&endpoint["address"]), super::endpoints::told(endpoint)));
    });
    if share["externalAuth"].is_object() {
        asked(out, 2, &share["externalAuth"]);
    }
    out.each(share, "filters", |out, step| filter(out, 2, step));
    if let Some(location) = share["redirect"]["location"].as_str() {
        out.line(2, &format!("in its place a redirect ({}) to {location}", share["redirect"]["answer"]));
    }
    if let Some(status) = share["directResponse"].as_u64() {
        out.line(2, &format!("in its place an answer {status}"));
    }
    if share["upstreamRequest"].is_array() {
        out.line(2, "Its request");
        out.each(share, "upstreamRequest", |out, line| out.line(3, &text(line)));
    }
}

fn outcome(out: &mut Page, found: &Value) {
    if found.is_null() {
        return;
    }
    let reason = found["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    if let Some(status) = found["answer"].as_u64() {
        out.title(&format!("Answered {status}{reason}"));
        out.each(found, "fields", |out, line| out.line(1, &text(line)));
        if let Some(location) = found["location"].as_str() {
            out.line(1, &format!("location: {location}"));
        }
    } else if let Some(how) = found["refuse"].as_str() {
        out.title(&format!("Refused ({how}){reason}"));
    } else {
        out.title(&format!("Forwarded{reason}"));
    }
}
