//! Direct server return, as the control thread sees it: applied before a generation is, reported beside it.

use std::path::PathBuf;

use ringway_core::dsr::VipKey;
use ringway_core::dsr::abi::Counter;
use ringway_core::model::Model;
use serde_json::{Value, json};

use crate::admin::Reply;
use crate::metrics::{DsrSamples, DsrServiceSample};
use crate::sys::bpf::XdpMode;
use crate::xdp::engine::{ServerState, detach_all};
use crate::xdp::{Dsr, Status};

/// The thread, once there was something for it to do.
#[derive(Debug)]
pub(super) struct Forwarding {
    directory: PathBuf,
    thread: Option<Dsr>,
}

impl Forwarding {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, thread: None }
    }

    /// Makes a model's services so. A process that never had any leaves alone what another may have pinned.
    pub(super) fn apply(&mut self, model: &Model) -> Result<(), String> {
        if model.dsr.is_empty() && self.thread.is_none() {
            return Ok(());
        }
        if self.thread.is_none() {
            self.thread = Some(Dsr::start(&self.directory)?);
        }
        self.thread.as_ref().map_or(Ok(()), |thread| thread.apply(&model.dsr))
    }

    /// Whether there was something to do.
    pub(super) fn is_running(&self) -> bool {
        self.thread.is_some()
    }

    fn status(&self) -> Option<Result<Status, String>> {
        Some(self.thread.as_ref()?.status())
    }

    /// For `/metrics`.
    pub(super) fn samples(&self) -> Option<DsrSamples> {
        let status = self.status()?.ok()?;
        let mut servers: Vec<(String, u64, u64)> = Vec::new();
        for server in status.services.iter().flat_map(|each| &each.servers) {
            let name = server.ip.to_string();
            if servers.iter().all(|known| known.0 != name) {
                servers.push((name, server.stats.packets, server.stats.bytes));
            }
        }
        let services = status.services.iter().map(|each| DsrServiceSample {
            listener: each.service.name.clone(),
            vip: each.service.vip.to_string(),
            protocol: each.service.transport.as_str(),
            packets: each.stats.packets,
            bytes: each.stats.bytes,
            flows: each.stats.flows,
            capped: each.stats.capped,
            servers: each
                .servers
                .iter()
                .map(|server| (server.ip.to_string(), server.state == ServerState::Up))
                .collect(),
        });
        Some(DsrSamples {
            frames: Counter::ALL.iter().map(|each| each.as_str()).zip(status.counters).collect(),
            services: services.collect(),
            servers,
            flows: (status.flows as u64, status.max_flows.into()),
            tables_built: status.tables_built,
            guarded: status.guard_error.is_none(),
        })
    }

    /// For `/status`; null: no direct server return.
    pub(super) fn json(&self) -> Value {
        match self.status() {
            None => Value::Null,
            Some(Err(error)) => json!({ "error": error }),
            Some(Ok(status)) => to_json(&status),
        }
    }

    /// `GET /dsr/flows`.
    pub(super) fn flows(&self) -> Reply {
        let Some(thread) = &self.thread else { return Reply::text(404, "no direct server return here\n") };
        match thread.flows() {
            Ok(flows) => {
                let flows: Vec<Value> = flows
                    .iter()
                    .map(|flow| {
                        json!({
                            "client": flow.client.to_string(),
                            "vip": flow.vip.to_string(),
                            "protocol": flow.transport.as_str(),
                            "server": flow.server.map(|ip| ip.to_string()),
                            "idleSeconds": flow.idle.as_secs(),
                        })
                    })
                    .collect();
                Reply::json(200, &json!({ "flows": flows }))
            }
            Err(error) => Reply::text(503, error + "\n"),
        }
    }

    /// Takes away what forwards, if this process has set it up.
    pub(super) fn end(&self) -> Result<(), String> {
        let Some(thread) = &self.thread else { return Ok(()) };
        thread.detach()?;
        tracing::info!("direct server return was detached");
        Ok(())
    }

    /// `POST /dsr/detach`.
    pub(super) fn detach(&self) -> Reply {
        let done = match &self.thread {
            Some(thread) => thread.detach(),
            None => detach_all(&self.directory).map_err(|error| error.to_string()),
        };
        match done {
            Ok(()) => {
                tracing::warn!("direct server return was detached: nothing is forwarded until the next reload");
                Reply::text(200, "detached: nothing is forwarded until the next reload\n")
            }
            Err(error) => Reply::text(500, error + "\n"),
        }
    }
}

fn to_json(status: &Status) -> Value {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let services: Vec<Value> = status
        .services
        .iter()
        .map(|each| {
            let key = VipKey::new(each.service.vip, each.service.transport);
            let servers: Vec<Value> = each
                .servers
                .iter()
                .map(|server| {
                    json!({
                        "address": server.ip.to_string(),
                        "weight": server.weight,
                        "state": server.state.as_str(),
                        "mac": server.mac.map(mac),
                        "frames": server.stats.packets,
                        "bytes": server.stats.bytes,
                        "lastFailure": status.failures.get(&(key, server.ip)),
                    })
                })
                .collect();
            json!({
                "listener": each.service.name,
                "address": each.service.vip.to_string(),
                "protocol": each.service.transport.as_str(),
                "interface": each.service.interface,
                "frames": each.stats.packets,
                "bytes": each.stats.bytes,
                "newFlows": each.stats.flows,
                "cappedFlows": each.stats.capped,
                "noServerIsHealthy": each.panic,
                "servers": servers,
            })
        })
        .collect();
    let interfaces: Vec<Value> = status
        .interfaces
        .iter()
        .map(|(name, mode)| {
            let mode = match mode {
                Some(XdpMode::Native) => "native",
                Some(XdpMode::Generic) => "generic",
                None => "unknown",
            };
            json!({ "name": name, "mode": mode })
        })
        .collect();
    let frames = Counter::ALL.iter().zip(status.counters).map(|(name, count)| (name.as_str().to_owned(), json!(count)));
    json!({
        "services": services,
        "interfaces": interfaces,
        "flows": status.flows,
        "maxFlows": status.max_flows,
        "tables": status.tables,
        "tablesBuilt": status.tables_built,
        "guardError": status.guard_error,
        "frames": Value::Object(frames.collect()),
    })
}
