//! What people read in a terminal. Everything here goes to standard output or standard error on purpose.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing is done")]

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::cli::{LogFormat, LogLevel, Output};
use crate::control::Loaded;

/// Starts logging to standard error.
pub fn start_log(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    let set = match format {
        LogFormat::Json => tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish()),
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_ansi(io::stderr().is_terminal()).finish())
        }
    };
    set.expect("logging is started once");
}

/// Every error and warning with its source line, on standard error, and how many there were.
pub fn print_diagnostics(loaded: &Loaded) {
    let color = io::stderr().is_terminal();
    for each in &loaded.diagnostics {
        eprintln!("{}\n", loaded.sources.render(each, color));
    }
    let (errors, warnings) = (loaded.errors(), loaded.warnings());
    if errors + warnings > 0 {
        eprintln!(
            "{}, {}, in {}",
            many(errors, "error"),
            many(warnings, "warning"),
            many(loaded.sources.len(), "file")
        );
    }
}

/// A number and its noun.
pub fn many(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints an error on standard error.
pub fn print_error(message: &str) {
    eprintln!("ringway: {message}");
}

/// Prints to standard output; a reader that has gone is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a value in the form that was asked for; a table is made by `table`.
pub fn print_value(value: &Value, output: Output, table: impl FnOnce(&Value) -> String) {
    match output {
        Output::Table => print(&table(value)),
        Output::Json => print(&format!("{value:#}\n")),
        Output::Yaml => print(&yaml(value)),
    }
}

/// A value as YAML.
pub fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("JSON values are YAML values")
}

/// The conditions of every object, a line each, unmet ones with their message.
pub fn conditions_table(list: &Value) -> String {
    let mut out = String::new();
    for item in list["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let namespace = item["metadata"]["namespace"].as_str().map(|name| format!("{name}/")).unwrap_or_default();
        let name = format!("{} {namespace}{}", text(&item["kind"]), text(&item["metadata"]["name"]));
        let status = &item["status"];
        if status["conditions"].is_array() {
            put_conditions(&mut out, name.clone(), &status["conditions"]);
        }
        for listener in status["listeners"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let routes = listener["attachedRoutes"].as_u64().unwrap_or(0);
            let routes = many(usize::try_from(routes).unwrap_or(usize::MAX), "route");
            put_conditions(
                &mut out,
                format!("{name} listener {} ({routes})", text(&listener["name"])),
                &listener["conditions"],
            );
        }
        let parents = status["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
        for parent in parents {
            let at = &parent["parentRef"];
            let section = at["sectionName"].as_str().map(|name| format!(" listener {name}")).unwrap_or_default();
            let port = at["port"].as_u64().map(|port| format!(" port {port}")).unwrap_or_default();
            let parent_name = format!("{} {}/{}", text(&at["kind"]), text(&at["namespace"]), text(&at["name"]));
            put_conditions(&mut out, format!("{name} at {parent_name}{section}{port}"), &parent["conditions"]);
        }
        for ancestor in status["ancestors"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let at = &ancestor["ancestorRef"];
            let section = at["sectionName"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
            put_conditions(
                &mut out,
                format!("{name} at {} {}/{}{section}", text(&at["kind"]), text(&at["namespace"]), text(&at["name"])),
                &ancestor["conditions"],
            );
        }
        if status["parents"].is_array() && parents.is_empty() {
            out.push_str(&format!("  unused  {name}: it attaches to no Gateway that is served\n"));
        }
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn put_conditions(out: &mut String, what: String, conditions: &Value) {
    let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    let bad: Vec<&Value> = all.iter().filter(|each| is_bad(each)).collect();
    if bad.is_empty() {
        out.push_str(&format!("  ok      {what}\n"));
    }
    for each in bad {
        let (kind, reason, message) = (text(&each["type"]), text(&each["reason"]), text(&each["message"]));
        let is = if is_alarm(each) { "IS " } else { "NOT" };
        out.push_str(&format!("  {is} {kind} {what}: {reason}: {message}\n"));
    }
}

/// Whether a condition says by being met that something is wrong.
fn is_alarm(condition: &Value) -> bool {
    let alarms = [
        "Conflicted",
        "PartiallyInvalid",
        "OverlappingTLSConfig",
        "InsecureFrontendValidationMode",
        "ringway.dev/Stale",
    ];
    condition["type"].as_str().is_some_and(|kind| alarms.contains(&kind))
}

fn is_bad(condition: &Value) -> bool {
    (condition["status"] == "True") == is_alarm(condition)
}

/// What a running process serves.
pub fn status_table(status: &Value) -> String {
    let own = &status["ringway"];
    let mut out = format!(
        "ringway {} · {} · {} · up {} s · generation {}{}\n",
        own["version"].as_str().unwrap_or("?"),
        own["driver"].as_str().unwrap_or("?"),
        many(usize::try_from(own["workers"].as_u64().unwrap_or(0)).unwrap_or(0), "worker"),
        own["uptimeSeconds"],
        own["generation"],
        if own["draining"] == true { " · DRAINING" } else { "" },
    );
    if let Some(errors) = own["configErrors"].as_u64().filter(|errors| *errors > 0) {
        let errors = many(usize::try_from(errors).unwrap_or(usize::MAX), "error");
        out.push_str(&format!("the newest configuration is not served as it is: {errors}\n"));
        for object in items(&own["inError"]) {
            let served = match object["served"].as_str() {
                Some("LastGood") => "its last good version is served",
                Some("LastGoodInPart") => "its last good version is served, but for what only the new one protects",
                Some("Closed") => "left out, and what it was to apply to is not served",
                _ => "left out",
            };
            let name = [text(&object["namespace"]), text(&object["name"])].join("/");
            out.push_str(&format!(
                "  {} {}: {served}: {}\n",
                text(&object["kind"]),
                name.trim_start_matches('/'),
                text(&object["error"])
            ));
        }
    }
    for socket in own["sockets"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |name: &str| socket[name].as_str().unwrap_or("?").to_owned();
        out.push_str(&format!("  {:7} {}\n", text("protocol"), text("address")));
    }
    if own["dsr"].is_object() {
        out.push_str(&dsr_table(&own["dsr"]));
    }
    out + &conditions_table(status)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What direct server return is doing.
pub fn dsr_table(dsr: &Value) -> String {
    if dsr.is_null() {
        return "no direct server return here\n".to_owned();
    }
    if let Some(error) = dsr["error"].as_str() {
        return format!("direct server return: {error}\n");
    }
    let interfaces: Vec<String> = items(&dsr["interfaces"])
        .iter()
        .map(|each| format!("{} ({})", text(&each["name"]), text(&each["mode"])))
        .collect();
    let mut out = format!(
        "direct server return at {} · {} of {} flows · {} tables\n",
        if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") },
        dsr["flows"],
        dsr["maxFlows"],
        dsr["tables"]
    );
    if let Some(error) = dsr["guardError"].as_str() {
        out.push_str(&format!("  NO GUARD RULE: {error}\n"));
    }
    for service in items(&dsr["services"]) {
        out.push_str(&format!(
            "  {:4} {}  {}  {} frames, {} bytes, {} new flows{}\n",
            text(&service["protocol"]),
            text(&service["address"]),
            text(&service["listener"]),
            service["frames"],
            service["bytes"],
            service["newFlows"],
            if service["noServerIsHealthy"] == true { "  NO SERVER IS HEALTHY: all are used" } else { "" },
        ));
        for server in items(&service["servers"]) {
            let failure = server["lastFailure"].as_str().map(|why| format!("  {why}")).unwrap_or_default();
            out.push_str(&format!(
                "       {:11} {}  weight {}  {}{failure}\n",
                text(&server["state"]),
                text(&server["address"]),
                server["weight"],
                server["mac"].as_str().unwrap_or("no MAC address"),
            ));
        }
    }
    if let Some(frames) = dsr["frames"].as_object() {
        let counts: Vec<String> =
            frames.iter().filter(|each| *each.1 != 0).map(|(name, count)| format!("{name} {count}")).collect();
        out.push_str(&format!("  frames: {}\n", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }));
    }
    out
}

/// The flows that are remembered, a line each.
pub fn flows_table(flows: &Value) -> String {
    let mut out = String::new();
    for flow in items(&flows["flows"]) {
        out.push_str(&format!(
            "{:4} {} -> {}  server {}  idle {} s\n",
            text(&flow["protocol"]),
            text(&flow["client"]),
            text(&flow["vip"]),
            flow["server"].as_str().unwrap_or("gone"),
            flow["idleSeconds"]
        ));
    }
    out
}
