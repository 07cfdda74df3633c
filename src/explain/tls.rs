//! TLS: the listener that the server name chooses, and what is inside.

use serde_json::{Value, json};

use super::{World, http, stream};
use crate::snapshot::{TlsKind, TlsSocket};

/// Puts down what the handshake chooses, and where it leads.
pub(super) fn explain(world: &World<'_>, tls: &TlsSocket, out: &mut Value) {
    let name = world.question.server_name();
    out["serverName"] = json!(name);
    let chosen = tls.listener(name.as_deref());
    let all = tls.listeners.iter().enumerate().map(|(index, listener)| {
        let does = match &listener.kind {
            TlsKind::Https { .. } => "HTTPS",
            TlsKind::Terminate { .. } => "TLS, ended here",
            TlsKind::Passthrough { .. } => "TLS, passed through",
        };
        let result = if chosen == Some(index) { "chosen" } else { "not chosen" };
        json!({ "name": listener.name, "does": does, "result": result })
    });
    out["handshake"] = all.collect();
    let Some(chosen) = chosen else {
        out["outcome"] = json!({ "refuse": "alert unrecognized_name", "reason": "no listener takes the server name" });
        return;
    };
    match &tls.listeners[chosen].kind {
        TlsKind::Https { tls: None, .. } | TlsKind::Terminate { tls: None, .. } => {
            out["outcome"] = json!({ "refuse": "alert", "reason": "the listener has no usable certificate" });
        }
        TlsKind::Https { listener, .. } => {
            let https = tls.listeners.iter().filter(|each| matches!(each.kind, TlsKind::Https { .. }));
            let names: Vec<String> = https.map(|each| each.name.clone()).collect();
            if world.question.url.scheme == super::Scheme::Https {
                http::explain(world, &tls.table, &names, Some(*listener), out);
            } else {
                out["outcome"] = json!({ "forward": true, "reason": "HTTP is expected inside: ask with https://" });
            }
        }
        TlsKind::Terminate { routes, .. } | TlsKind::Passthrough { routes } => {
            match routes.find(name.as_deref().unwrap_or(""), |index| Some(*index)) {
                Some(index) => stream::relayed(world, tls.streams[index].route, &tls.streams[index].split, out),
                None => {
                    let reason = "no TLSRoute of the listener takes the server name";
                    out["outcome"] = json!({ "refuse": "alert unrecognized_name", "reason": reason });
                }
            }
        }
    }
}
