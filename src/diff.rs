//! `ringway diff`: what files would change about what a running process serves, and what that does to connections.
//!
//! Both sides are the effective model as JSON (`control::effective`) with the objects that it was made from
//! (`control::inventory`), which is what `/config` answers.

mod objects;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::control::inventory::HIDDEN;

const NOTHING: &str = "connections stay; what comes next is served by it";
const GONE: &str = "what is under way stays; nothing new comes to it";
const BOUND: &str = "bound";
const DRAINED: &str = "drained: it takes nothing new, and its connections end when they are idle";
const REBOUND: &str = "rebound: a new socket takes what comes, and connections of the old one end when they are idle";
const GIVEN: &str = "connections stay; new handshakes are given it";
const NOT_GIVEN: &str = "connections stay; new handshakes are not given it any more";

/// Everything that differs, in the order of kinds and names.
pub fn diff(running: &Value, files: &Value) -> Value {
    let mut changes = Vec::new();
    let sockets =
        |model: &Value| keyed(&model["sockets"], |each| format!("{} {}", text(&each["bind"]), text(&each["protocol"])));
    compare("socket", &sockets(running), &sockets(files), &mut changes, |old, new| {
        // What only concerns listeners and routes is said of them.
        if old["clients"]["connection"] != new["clients"]["connection"] {
            return Some(REBOUND);
        }
        (old["clients"] != new["clients"]).then_some(NOTHING)
    });
    compare("listener", &listeners(running), &listeners(files), &mut changes, differ);
    compare("route", &routes(running), &routes(files), &mut changes, differ);
    let backends = |model: &Value| {
        keyed(&model["backends"], |each| {
            let policy =
                each["policy"].as_str().map(|policy| format!(" under BackendPolicy {policy}")).unwrap_or_default();
            format!("{}{policy}", text(&each["name"]))
        })
    };
    compare("backend", &backends(running), &backends(files), &mut changes, differ);
    let services =
        |model: &Value| keyed(&model["dsr"], |each| format!("{} {}", text(&each["address"]), text(&each["protocol"])));
    compare("DSR service", &services(running), &services(files), &mut changes, differ);
    compare("certificate", &certificates(running), &certificates(files), &mut changes, |old, new| {
        (old != new).then_some(GIVEN)
    });
    let mut found = json!({});
    if let (Some(old), Some(new)) = (running["objects"].as_array(), files["objects"].as_array()) {
        if old.iter().any(|object| object["digest"] == HIDDEN) {
            found["notCompared"] = json!(["content of Secrets: the process tells it apart over its Unix socket only"]);
        }
        objects::compare(old, new, &(running, files), &mut changes);
    } else {
        found["notCompared"] = json!(["objects: the process is of a version that does not tell them"]);
    }
    found["changes"] = json!(changes);
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn differ(old: &Value, new: &Value) -> Option<&'static str> {
    (old != new).then_some(NOTHING)
}

fn keyed(list: &Value, key: impl Fn(&Value) -> String) -> BTreeMap<String, Value> {
    list.as_array().into_iter().flatten().map(|each| (key(each), each.clone())).collect()
}

/// Listeners without their routes; those of TCP and UDP are their sockets.
fn listeners(model: &Value) -> BTreeMap<String, Value> {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for socket in model["sockets"].as_array().into_iter().flatten() {
        for listener in socket["listeners"].as_array().into_iter().flatten() {
            let mut bare = listener.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.remove("routes");
            }
            // What they are is said of themselves.
            if let Some(certificates) = bare["tls"]["certificates"].as_array_mut() {
                certificates.iter_mut().for_each(|each| *each = each["name"].take());
            }
            found.insert(format!("{} at {}", text(&listener["name"]), text(&socket["bind"])), bare);
        }
        if let Some(name) = socket["listener"].as_str() {
            found.insert(format!("{name} at {}", text(&socket["bind"])), Value::Null);
        }
    }
    found
}

/// Routes, with what they are at every listener.
fn routes(model: &Value) -> BTreeMap<String, Value> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for socket in model["sockets"].as_array().into_iter().flatten() {
        for listener in socket["listeners"].as_array().into_iter().flatten() {
            for route in listener["routes"].as_array().into_iter().flatten() {
                found.entry(text(&route["name"])).or_default().push(json!([listener["name"], route]));
            }
        }
        if let Some(name) = socket["route"].as_str() {
            found.entry(name.to_owned()).or_default().push(json!([socket["listener"], socket["split"]]));
        }
    }
    found.into_iter().map(|(name, places)| (name, Value::Array(places))).collect()
}

/// Those given to clients and to endpoints, by name, as their SHA-256 fingerprints.
fn certificates(model: &Value) -> BTreeMap<String, Value> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let mut found = BTreeMap::new();
    let mut put = |each: &Value| {
        if let Some(name) = each["name"].as_str() {
            found.insert(name.to_owned(), each["sha256"].clone());
        }
    };
    for socket in list(&model["sockets"]) {
        for listener in list(&socket["listeners"]) {
            list(&listener["tls"]["certificates"]).iter().for_each(&mut put);
        }
    }
    list(&model["backends"]).iter().for_each(|backend| put(&backend["tls"]["clientCertificate"]));
    found
}

fn compare(
    kind: &str,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    changes: &mut Vec<Value>,
    changed: impl Fn(&Value, &Value) -> Option<&'static str>,
) {
    let mut put = |what: &str, name: &str, connections: &str| {
        let mut change = json!({ "change": what, "kind": kind, "name": name, "connections": connections });
        if kind == "certificate" {
            change["sha256"] = json!({ "running": old.get(name), "files": new.get(name) });
        }
        changes.push(change);
    };
    let (gone, come) = match kind {
        "socket" => (DRAINED, BOUND),
        "certificate" => (NOT_GIVEN, GIVEN),
        _ => (GONE, NOTHING),
    };
    old.keys().filter(|name| !new.contains_key(*name)).for_each(|name| put("removed", name, gone));
    new.keys().filter(|name| !old.contains_key(*name)).for_each(|name| put("added", name, come));
    for (name, old) in old {
        if let Some(connections) = new.get(name).and_then(|new| changed(old, new)) {
            put("changed", name, connections);
        }
    }
}

/// For people.
pub fn render(found: &Value) -> String {
    let changes = found["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sign = |change: &Value| match change["change"].as_str() {
        Some("added") => '+',
        Some("removed") => '-',
        _ => '~',
    };
    let line = |each: &Value| {
        let prints: Vec<String> = ["running", "files"]
            .into_iter()
            .filter_map(|whose| Some(format!("sha256 {} ({whose})", each["sha256"][whose].as_str()?)))
            .map(|print| format!("    {print}\n"))
            .collect();
        let (kind, name, connections) = (text(&each["kind"]), text(&each["name"]), text(&each["connections"]));
        format!("{} {kind} {name}\n{}    {connections}\n", sign(each), prints.concat())
    };
    let mut out: String = changes.iter().map(line).collect();
    if changes.is_empty() {
        out.push_str("no difference: the process serves these files\n");
    }
    for each in found["notCompared"].as_array().into_iter().flatten() {
        out += &format!("not compared: {}\n", text(each));
    }
    out
}
