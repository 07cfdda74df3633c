//! The endpoints of a backend, and what a running process knows of them.

use ringway_core::model::Backend;
use serde_json::{Value, json};

/// What a process knows of a backend, from its answer to `/backends`; null where it has none of that name.
pub(super) fn of(running: &Value, backend: &str) -> Value {
    let all = running["backends"].as_array().into_iter().flatten();
    all.into_iter().find(|each| each["name"] == backend).cloned().unwrap_or_default()
}

/// Every endpoint with its state. `picked` is the one that a hash chooses, `running` what a process knows of the backend.
///
/// Nothing is probed, so an endpoint is taken for healthy until a connection to it fails, and only for that request.
pub(super) fn explain(backend: &Backend, picked: Option<usize>, running: Option<&Value>) -> Value {
    let known = |address: &str| {
        let all = running?["endpoints"].as_array()?;
        all.iter().find(|each| each["address"] == address)
    };
    let mut shown: Vec<Value> = Vec::new();
    for (index, endpoint) in backend.endpoints.iter().enumerate() {
        let address = endpoint.address.to_string();
        let found = known(&address);
        let state = match (running, found) {
            (None, _) => "Unknown",
            (Some(_), None) => "New",
            (Some(_), Some(found)) => found["state"].as_str().unwrap_or("Unknown"),
        };
        shown.push(json!({
            "address": address,
            "weight": endpoint.weight,
            "chosen": picked.map(|picked| picked == index),
            "health": "Assumed",
            "state": if state == "Draining" { "New" } else { state },
            "inFlight": found.map(|found| found["inFlight"].clone()),
        }));
    }
    // What the process has besides: the files do not.
    let others = running.and_then(|running| running["endpoints"].as_array()).into_iter().flatten();
    for other in others {
        let in_files = backend.endpoints.iter().any(|endpoint| other["address"] == endpoint.address.to_string());
        let works = other["inFlight"].as_u64().is_some_and(|count| count > 0);
        if !in_files && (works || other["state"] == "Serving") {
            shown.push(json!({
                "address": other["address"],
                "weight": 0,
                "chosen": false,
                "health": "Assumed",
                "state": if other["state"] == "Draining" { "Draining" } else { "Removed" },
                "inFlight": other["inFlight"],
            }));
        }
    }
    Value::Array(shown)
}

/// For people: what there is to say of an endpoint besides its address.
pub(super) fn told(endpoint: &Value) -> String {
    let mut facts = vec![format!("weight {}", endpoint["weight"])];
    facts.extend(match endpoint["state"].as_str() {
        Some("New") => Some("not served by the process yet".to_owned()),
        Some("Draining") => Some("draining: gone, but not done".to_owned()),
        Some("Removed") => Some("served by the process, but not in the files".to_owned()),
        _ => None,
    });
    facts.push("assumed healthy".to_owned());
    facts.extend(endpoint["inFlight"].as_u64().map(|count| format!("{count} in flight")));
    facts.extend((endpoint["chosen"] == true).then(|| "chosen by the hash".to_owned()));
    facts.join(", ")
}
