//! Sessions: what a request brings, and where that leads.

use std::time::{SystemTime, UNIX_EPOCH};

use ringway_core::model::{Session, SessionCarrier, Target, WeightedTarget};
use ringway_core::route::FieldLookup;
use ringway_core::session::{self, Found};
use serde_json::{Value, json};

use super::World;
use crate::session::SessionKeys;

/// What becomes of the request's session.
pub(super) fn explain(
    world: &World<'_>,
    session: &Session,
    split: &[WeightedTarget],
    fields: &(impl FieldLookup + ?Sized),
) -> Value {
    let by = match &session.carrier {
        SessionCarrier::Cookie(cookie) => format!("cookie {} with the path {}", cookie.name, cookie.path),
        SessionCarrier::Header(name) => format!("field {name}"),
    };
    let keys = match &world.question.session_keys {
        Some(path) => SessionKeys::read(path).map(|(_, keys)| keys),
        None => SessionKeys::of_machine().ok_or_else(|| "this machine has no key: --session-keys FILE".to_owned()),
    };
    let keys = match keys {
        Ok(keys) => keys,
        Err(error) => return json!({ "by": by, "result": format!("tokens cannot be read: {error}") }),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let anew = "an endpoint is chosen, and the answer gives a token for it";
    let (endpoint, result) = match session::find(session, fields, keys.all(), now) {
        Found::Nothing => (None, format!("no token: {anew}")),
        Found::Foreign => (None, format!("a token that these keys have not made for this rule: {anew}")),
        Found::Over => (None, format!("a token whose session is over: {anew}")),
        Found::Good { token, .. } => match place(world, split, token.endpoint) {
            Some(endpoint) => {
                let result = format!("a good token: goes to {endpoint}, whatever the weights");
                (Some(endpoint), result)
            }
            None => (None, format!("a good token for an endpoint that is gone: {anew}")),
        },
    };
    json!({ "by": by, "endpoint": endpoint, "result": result })
}

/// The endpoint that tokens call by this.
fn place(world: &World<'_>, split: &[WeightedTarget], identity: u64) -> Option<String> {
    split.iter().find_map(|share| {
        let Target::Backend(id) = share.target else { return None };
        let backend = &world.snapshot.backends[id.0 as usize];
        let mut addresses = backend.endpoints.iter().map(|endpoint| endpoint.address.to_string());
        let found = addresses.find(|address| session::identity(&backend.name, address) == identity)?;
        Some(format!("{found} of {}", backend.name))
    })
}
