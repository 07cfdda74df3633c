//! TCP connections and UDP datagrams that are proxied.

use ringway_core::balance::key;
use ringway_core::model::{L4Listener, RouteId, WeightedTarget};
use serde_json::{Value, json};

use super::{Scheme, World, backends, certain_failure};

/// Puts down where a listener's connections or datagrams go.
pub(super) fn explain(world: &World<'_>, listener: &L4Listener, out: &mut Value) {
    out["listeners"] = json!([{ "name": listener.name, "hostname": "*", "result": "chosen" }]);
    match &listener.route {
        Some((route, split)) => relayed(world, *route, split, out),
        None => out["outcome"] = refused(world, "no route is attached"),
    }
}

/// What becomes of a stream that is not served.
pub(super) fn refused(world: &World<'_>, reason: &str) -> Value {
    let how = if world.question.url.scheme == Scheme::Udp { "dropped" } else { "reset" };
    json!({ "refuse": how, "reason": reason })
}

/// Puts down where the streams of a route go.
pub(super) fn relayed(world: &World<'_>, route: RouteId, split: &[WeightedTarget], out: &mut Value) {
    let protocol = if world.question.url.scheme == Scheme::Udp { key::UDP } else { key::TCP };
    let flow = world.flow(protocol);
    out["rule"] = json!(format!("{} rules[0]", world.snapshot.routes[route.0 as usize]));
    out["backends"] = backends(world, split, |wanted| key::of_flow(wanted, flow.as_ref()?));
    out["outcome"] = match certain_failure(world, split) {
        Some(failure) => refused(world, failure.why()),
        None => json!({ "forward": true }),
    };
}
