//! `ringway explain`: where a connection goes, and why. Each scheme is a function from the model to lines of text.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ringway_core::balance::{Maglev, Member, TableSize};
use ringway_core::dsr::{FlowKey, Hashing, SLOTS, Transport, hash, pick};
use ringway_core::model::{DsrService, Model};
use serde_json::Value;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `tcp://IP:PORT` or `udp://IP:PORT`.
    Stream(Transport, SocketAddr),
}

impl Subject {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("expected SCHEME://..., such as tcp://192.0.2.1:80")?;
        let transport = match scheme {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            other => return Err(format!("{other}:// is not explained yet: tcp:// and udp:// are")),
        };
        let address = rest.trim_end_matches('/').parse();
        let address = address.map_err(|error| format!("\"{rest}\" is not IP:PORT: {error}"))?;
        Ok(Self::Stream(transport, address))
    }
}

/// Where a stream goes. `status` is the `dsr` part of a running process's status, if one was asked.
pub fn stream(
    model: &Model,
    transport: Transport,
    address: SocketAddr,
    from: Option<SocketAddr>,
    status: Option<&Value>,
) -> Result<String, String> {
    let service = model.dsr.iter().find(|each| (each.vip, each.transport) == (address, transport));
    let Some(service) = service else {
        let socket = model.sockets.iter().find(|socket| {
            socket.bind.port() == address.port()
                && (socket.bind.ip() == address.ip() || socket.bind.ip().is_unspecified())
        });
        return match socket {
            Some(socket) => Ok(format!("{address} is proxied: a listener is bound to {}\n", socket.bind)),
            None => Err(format!("no listener serves {} {address}", transport.as_str())),
        };
    };
    let mut out = format!(
        "{} {address} is listener {}, forwarded by direct server return at interface {}\n",
        transport.as_str(),
        service.name,
        service.interface
    );
    let Some(client) = from else {
        writeln!(out, "give --from IP:PORT to see which server a flow goes to").expect("writing to a string");
        return Ok(out);
    };
    if client.is_ipv4() != address.is_ipv4() {
        return Err("--from is of another address family than the URL".to_owned());
    }
    if let Some(server) = status.and_then(|status| remembered(status, client, address, transport)) {
        writeln!(out, "the flow is in the flow table: it goes to {server}").expect("writing to a string");
        return Ok(out);
    }
    new_flow(&mut out, service, client, status);
    Ok(out)
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
