//! What a load run found, as it crosses to whoever started it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::{Counts, Latencies};
use crate::proc::{CoreUse, Cpu, Memory};

/// What went wrong with one request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Handshake,
    /// The connection ended or was reset before the answer was complete.
    Broken,
    /// A kept connection was closed under a request before any byte of its answer; the request was sent again on a new
    /// connection, as browsers do, and its latency includes both.
    Retried,
    /// No answer in time.
    Timeout,
    /// A status other than 200, or one of gRPC other than 0.
    Status,
    /// Not the protocol, or a body of another size than asked for.
    Malformed,
    /// A complete answer, but to another request: its id is not the one sent, or bytes are not those sent.
    Mismatch,
}

impl Fault {
    /// Whether the answer was a wrong one, which makes every figure of the run worthless.
    pub(crate) fn is_lie(self) -> bool {
        matches!(self, Self::Malformed | Self::Mismatch)
    }
}

/// A watched process between the beginning and the end of the figures.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) cpu: Cpu,
    pub(crate) before: Memory,
    pub(crate) after: Memory,
}

/// A load run's result.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Seconds between the beginning and the end of the figures.
    pub(crate) seconds: f64,
    /// Requests (messages, datagrams) answered within them.
    pub(crate) requests: u64,
    /// Bytes of payload within them, both ways.
    pub(crate) bytes: u64,
    /// Open loop: requests that were due within them.
    pub(crate) due: u64,
    /// Open loop: requests due but unanswered when the run had ended. Their latency counts up to there.
    pub(crate) unfinished: u64,
    /// Nanoseconds from the start (open loop: from the intended start) to the complete answer.
    pub(crate) latency: Counts,
    /// Faults of the whole run, warm-up included.
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// The first fault, for people.
    pub(crate) first_fault: Option<String>,
    /// TLS handshakes: all, and those that resumed a session.
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    /// Watched processes by name.
    pub(crate) watched: BTreeMap<String, Watched>,
    /// CPU of the load generator itself.
    pub(crate) load: Cpu,
    pub(crate) cores: Vec<CoreUse>,
}

impl Outcome {
    pub(crate) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    pub(crate) fn lies(&self) -> u64 {
        self.faults.iter().filter(|(fault, _)| fault.is_lie()).map(|(_, times)| times).sum()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        let mut all = Latencies::default();
        all.add(&self.latency);
        all
    }

    /// `connect 3, mismatch 1`.
    pub(crate) fn describe_faults(&self) -> String {
        let name = |fault: &Fault| serde_json::to_string(fault).unwrap_or_default().replace('"', "");
        self.faults.iter().map(|(fault, times)| format!("{} {times}", name(fault))).collect::<Vec<_>>().join(", ")
    }

    /// For people.
    pub(crate) fn print(&self, out: &mut impl std::io::Write, bulk: bool) -> std::io::Result<()> {
        let per_second = self.requests as f64 / self.seconds;
        if bulk {
            writeln!(
                out,
                "{:.3} GiB/s over {:.2} s",
                self.bytes as f64 / self.seconds / (1 << 30) as f64,
                self.seconds
            )?;
        } else {
            writeln!(out, "{} requests in {:.2} s: {per_second:.0} per second", self.requests, self.seconds)?;
            let all = self.latencies();
            let found = all.quantiles();
            writeln!(
                out,
                "latency µs: p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
                found.p50, found.p99, found.p999, found.max
            )?;
        }
        if self.due > 0 {
            writeln!(out, "open loop: {} due, {} unfinished at the end", self.due, self.unfinished)?;
        }
        if self.handshakes > 0 {
            writeln!(out, "TLS: {} handshakes, {} resumed", self.handshakes, self.resumed)?;
        }
        for (name, watched) in &self.watched {
            let each = if bulk {
                format!("{:.3} s/GiB", watched.cpu.total / (self.bytes.max(1) as f64 / (1 << 30) as f64))
            } else {
                format!("{:.2} µs/request", watched.cpu.total * 1e6 / self.requests.max(1) as f64)
            };
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                out,
                "{name}: {:.2} s CPU, {each}, anonymous {:.1} -> {:.1} MiB",
                watched.cpu.total,
                mib(watched.before.anonymous),
                mib(watched.after.anonymous)
            )?;
        }
        for core in &self.cores {
            writeln!(out, "core {}: {:.0} % busy, {:.0} % stolen", core.core, core.busy * 100.0, core.steal * 100.0)?;
        }
        if !self.faults.is_empty() {
            writeln!(out, "faults: {}", self.describe_faults())?;
            writeln!(out, "first: {}", self.first_fault.as_deref().unwrap_or("unknown"))?;
        }
        Ok(())
    }
}
