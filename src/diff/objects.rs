//! Objects, and what each of them does to connections.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::{BOUND, DRAINED, GONE, NOTHING, REBOUND, text};
use crate::control::inventory::HIDDEN;
use crate::control::schema;

const WITHOUT: &str = "connections stay; what comes next is served without it";
const UPSTREAM: &str = "what is under way stays; what comes next goes by it, over new connections to endpoints where it says how they are made";
const UPSTREAM_WITHOUT: &str = "what is under way stays; what comes next goes without it, over new connections to endpoints where it said how they are made";

/// Puts those that differ behind what has been found of sockets, listeners, routes, backends and certificates. What one of these is
/// already is not said again.
pub(super) fn compare(old: &[Value], new: &[Value], models: &(&Value, &Value), changes: &mut Vec<Value>) {
    let (old, new) = (keyed(old), keyed(new));
    let all: BTreeMap<&Key, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
    let told: HashSet<(&str, &str)> =
        changes.iter().filter_map(|change| Some((change["change"].as_str()?, change["name"].as_str()?))).collect();
    let mut found = Vec::new();
    for key @ (_, kind, name) in all.into_keys() {
        let what = match (old.get(key), new.get(key)) {
            (Some(_), None) => "removed",
            (None, Some(_)) => "added",
            (Some(old), Some(new)) if differ(old, new) => "changed",
            _ => continue,
        };
        if told.contains(&(what, &*format!("{kind}/{name}"))) {
            continue;
        }
        let both = [old.get(key), new.get(key)];
        let owners = owners(kind, name, &both, &[&old, &new]);
        let sockets = |effects: &[&'static str]| worst(&sockets(&owners, models), effects, changes);
        let all = [DRAINED, REBOUND, BOUND];
        let connections = match (kind.as_str(), what) {
            ("GatewayClass" | "Gateway" | "ListenerSet", "removed") => sockets(&all).unwrap_or(GONE),
            ("GatewayClass" | "Gateway" | "ListenerSet", _) => sockets(&all).unwrap_or(NOTHING),
            // It neither makes sockets nor takes them away.
            ("ClientPolicy", "removed") => sockets(&[REBOUND]).unwrap_or(WITHOUT),
            ("ClientPolicy", _) => sockets(&[REBOUND]).unwrap_or(NOTHING),
            ("BackendTLSPolicy" | "BackendPolicy", "removed") => UPSTREAM_WITHOUT,
            ("BackendTLSPolicy" | "BackendPolicy", _) => UPSTREAM,
            (
                "HTTPRoute" | "GRPCRoute" | "TCPRoute" | "TLSRoute" | "UDPRoute" | "Service" | "EndpointSlice"
                | "Backend",
                "removed",
            ) => GONE,
            (_, "removed") => WITHOUT,
            _ => NOTHING,
        };
        found.push(json!({ "change": what, "kind": kind, "name": name, "connections": connections }));
    }
    changes.append(&mut found);
}

/// In the order of kinds, then by name.
type Key = (usize, String, String);

fn keyed(objects: &[Value]) -> BTreeMap<Key, &Value> {
    let key = |object: &Value| {
        let (kind, name) = (text(&object["kind"]), text(&object["name"]));
        (schema::kinds().position(|known| known == kind).unwrap_or(usize::MAX), kind, name)
    };
    objects.iter().map(|object| (key(object), object)).collect()
}

fn differ(old: &Value, new: &Value) -> bool {
    old["digest"] != new["digest"] && old["digest"] != HIDDEN && new["digest"] != HIDDEN
}

/// Gateways and ListenerSets whose sockets an object has to do with, as `namespace/name`.
fn owners(kind: &str, name: &str, both: &[Option<&&Value>], sides: &[&BTreeMap<Key, &Value>]) -> Vec<String> {
    let of = |object: &Value| -> Vec<String> { object["of"].as_array().into_iter().flatten().map(text).collect() };
    match kind {
        "Gateway" | "ListenerSet" => vec![name.to_owned()],
        "GatewayClass" => {
            let class = format!("GatewayClass/{name}");
            let gateways = sides.iter().flat_map(|side| side.iter());
            let in_it = gateways.filter(|((_, kind, _), object)| kind == "Gateway" && of(object).contains(&class));
            in_it.map(|((_, _, name), _)| name.clone()).collect()
        }
        _ => {
            let targets = both.iter().flatten().flat_map(|object| of(object));
            targets.filter_map(|target| Some(target.split_once('/')?.1.to_owned())).collect()
        }
    }
}

/// The sockets of listeners of these, as they are called among the changes.
fn sockets(owners: &[String], models: &(&Value, &Value)) -> Vec<String> {
    let is_theirs = |listener: &Value| {
        let name = listener.as_str().and_then(|name| name.rsplit_once('/'));
        name.is_some_and(|(owner, _)| owners.iter().any(|each| each == owner))
    };
    let all = [models.0, models.1].into_iter().filter_map(|model| model["sockets"].as_array()).flatten();
    let theirs = all.filter(|socket| {
        let listeners = socket["listeners"].as_array().into_iter().flatten();
        listeners.map(|listener| &listener["name"]).chain([&socket["listener"]]).any(is_theirs)
    });
    theirs.map(|socket| format!("{} {}", text(&socket["bind"]), text(&socket["protocol"]))).collect()
}

/// The first of these effects that one of the sockets has.
fn worst(sockets: &[String], effects: &[&'static str], changes: &[Value]) -> Option<&'static str> {
    let happens = |effect: &&&str| {
        changes.iter().any(|change| {
            let is_it = change["kind"] == "socket" && change["connections"] == **effect;
            is_it && sockets.iter().any(|socket| change["name"] == *socket)
        })
    };
    effects.iter().find(|effect| happens(effect)).copied()
}
