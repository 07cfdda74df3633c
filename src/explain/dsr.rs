//! Flows that an XDP program forwards by direct server return.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ringway_core::balance::{Maglev, Member, TableSize};
use ringway_core::dsr::{FlowKey, Hashing, SLOTS, Transport, hash, pick};
use ringway_core::model::{DsrService, Model};
use serde_json::{Value, json};

use super::{Question, transport};

/// Where a flow goes; `None` when its address and port are no service of direct server return. `status` is the `dsr` part
/// of a running process's status, if one was asked.
pub(super) fn explain(model: &Model, question: &Question, status: Option<&Value>) -> Result<Option<Value>, String> {
    let (Some(ip), port) = question.destination() else { return Ok(None) };
    let (address, transport) = (SocketAddr::new(ip, port), transport(question.url.scheme));
    let service = model.dsr.iter().find(|each| (each.vip, each.transport) == (address, transport));
    let Some(service) = service else { return Ok(None) };
    let mut out = format!(
        "{} {address} is listener {}, forwarded by direct server return at interface {}\n",
        transport.as_str(),
        service.name,
        service.interface
    );
    match question.from.and_then(|from| Some(SocketAddr::new(from.ip, from.port?))) {
        None => {
            writeln!(out, "give --from IP:PORT to see which server a flow goes to").expect("writing to a string");
        }
        Some(client) if client.is_ipv4() != address.is_ipv4() => {
            return Err("--from is of another address family than the URL".to_owned());
        }
        Some(client) => match status.and_then(|status| remembered(status, client, address, transport)) {
            Some(server) => {
                writeln!(out, "the flow is in the flow table: it goes to {server}").expect("writing to a string");
            }
            None => new_flow(&mut out, service, client, status),
        },
    }
    let lines: Vec<&str> = out.lines().collect();
    Ok(Some(json!({ "url": question.url.to_string(), "listener": service.name, "explanation": lines })))
}

fn remembered(status: &Value, client: SocketAddr, vip: SocketAddr, transport: Transport) -> Option<String> {
    let flows = status["flowList"].as_array()?;
    let found = flows.iter().find(|flow| {
        flow["client"] == client.to_string() && flow["vip"] == vip.to_string() && flow["protocol"] == transport.as_str()
    });
    found?["server"].as_str().map(str::to_owned)
}

/// States of a service's servers in a status.
fn state(status: Option<&Value>, service: &DsrService, ip: std::net::IpAddr) -> Option<String> {
    let services = status?["services"].as_array()?;
    let same =
        |each: &&Value| each["address"] == service.vip.to_string() && each["protocol"] == service.transport.as_str();
    let servers = services.iter().find(same)?["servers"].as_array()?;
    let found = servers.iter().find(|each| each["address"] == ip.to_string())?;
    found["state"].as_str().map(str::to_owned)
}

fn new_flow(out: &mut String, service: &DsrService, client: SocketAddr, status: Option<&Value>) {
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string");
    let mut weights = Vec::new();
    for server in &service.servers {
        let state = state(status, service, server.ip);
        let good = state.as_deref().is_none_or(|state| state == "up");
        let state = state.unwrap_or_else(|| "not asked".to_owned());
        line(format!("  server {}  weight {}  {state}", server.ip, server.weight));
        weights.push((server.ip.to_string(), if good { server.weight } else { 0 }));
    }
    let key = FlowKey::new(client, service.vip, service.transport);
    let by = match service.hashing {
        Hashing::FiveTuple => "addresses, ports and protocol",
        Hashing::SourceIp => "the client's address",
    };
    let slot = pick(&key, service.hashing);
    line(format!("hash of {by}: {:#018x}, slot {slot} of {SLOTS}", hash(&key, service.hashing)));
    let members: Vec<Member<'_>> =
        weights.iter().map(|(key, weight)| Member { key: key.as_bytes(), weight: *weight }).collect();
    match Maglev::build(&members, TableSize::DEFAULT) {
        Some(table) => {
            let server = &weights[usize::from(table.slots()[slot])].0;
            line(format!("a new flow from {client} goes to {server}"));
        }
        None => line("no server takes new flows: frames are dropped".to_owned()),
    }
}
