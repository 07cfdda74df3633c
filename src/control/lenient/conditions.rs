//! What a status says of objects in error.

use serde_json::{Value as Json, json};

use crate::control::graph::CONTROLLER;

use super::{InError, Served};

/// Says in a status what is in error: an object that is left out is not accepted, one whose last good version is served
/// has the condition `ringway.dev/Stale`.
pub(in crate::control) fn mark(status: &mut Json, in_error: &[InError]) {
    let Some(items) = status["items"].as_array_mut() else { return };
    for object in in_error {
        let key = &object.key;
        let message = format!("{}: {}", object.error, object.served.told());
        let (kind, state) = match object.served {
            Served::LastGood | Served::LastGoodInPart => ("ringway.dev/Stale", "True"),
            Served::Closed | Served::Nothing => ("Accepted", "False"),
        };
        let condition =
            json!({ "type": kind, "status": state, "reason": "Invalid", "message": message, "observedGeneration": 1 });
        let is_it = |item: &&mut Json| {
            item["kind"] == key.kind.as_str()
                && item["metadata"]["name"] == key.name.as_str()
                && item["metadata"]["namespace"].as_str().unwrap_or_default() == key.namespace
        };
        let mut listed = false;
        // Of an object that is there twice both versions may be listed.
        for item in items.iter_mut().filter(is_it) {
            listed = true;
            let own = &mut item["status"];
            let list = ["parents", "ancestors"].into_iter().find(|name| own[*name].is_array());
            match list {
                Some(name) => {
                    for each in own[name].as_array_mut().into_iter().flatten() {
                        put(&mut each["conditions"], &condition);
                    }
                }
                None => put(&mut own["conditions"], &condition),
            }
        }
        if listed {
            continue;
        }
        let mut meta = json!({ "name": key.name });
        if !key.namespace.is_empty() {
            meta["namespace"] = json!(key.namespace);
        }
        items.push(json!({
            "apiVersion": object.api_version,
            "kind": key.kind,
            "metadata": meta,
            "status": { "conditions": [condition], "controllerName": CONTROLLER },
        }));
    }
}

/// Adds a condition, or puts it in the place of that of its type.
fn put(conditions: &mut Json, condition: &Json) {
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => *known = condition.clone(),
        None => list.push(condition.clone()),
    }
}
