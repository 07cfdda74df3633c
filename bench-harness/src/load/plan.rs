//! What a load run does. Every field is an option of the `load` command, so that a run of `compare` can be repeated by
//! hand with the command that it prints.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// What is spoken to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// HTTP/1.1: GET requests that carry an id, answers that must carry it back.
    Http1,
    /// HTTP/2, by ALPN over TLS and by prior knowledge without: requests and answers as those of HTTP/1.1.
    Http2,
    /// Unary calls of gRPC: a message each way that carries the id, and a status in the trailers.
    Grpc,
    /// Bytes of TCP that must come back as they were sent.
    TcpEcho,
    /// TLS ClientHellos that must come back as they were sent: what a proxy passes on by server name.
    TlsHello,
    /// As many bytes of TCP as fit.
    TcpBulk,
    /// Datagrams that must come back as they were sent.
    UdpEcho,
}

impl Protocol {
    /// Whether its messages are frames of HTTP/2.
    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// Which way `tcp-bulk` sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// From the origin to the client.
    #[default]
    Down,
    /// From the client to the origin.
    Up,
    /// Both at once.
    Both,
}

/// TLS of the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tls {
    /// None.
    #[default]
    Off,
    /// Every connection makes a full handshake.
    Full,
    /// Every connection but a first few resumes a session.
    Resumed,
}

/// A load run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Plan {
    /// Where the load goes.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) target: SocketAddr,
    /// What is spoken.
    #[arg(long, value_enum, default_value_t = Protocol::Http1)]
    pub(crate) protocol: Protocol,
    /// Connections (or UDP sockets) at a time.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) connections: usize,
    /// Requests at a time on each connection of HTTP/2.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) streams: usize,
    /// A new connection for every request.
    #[arg(long)]
    pub(crate) connection_per_request: bool,
    /// Requests, or datagrams, that one connection sends before it waits for their answers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) pipeline: usize,
    /// Bytes of an answer's body, of an echoed message, or of a block of bulk.
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    pub(crate) body: usize,
    /// Path of requests: `{body}` becomes the size, `{n}` runs through 0..=VARY-1 in no order.
    #[arg(long, default_value = "/{body}", value_name = "PATH")]
    pub(crate) path: String,
    /// How many values `{n}` has.
    #[arg(long, default_value_t = 1, value_name = "VARY")]
    pub(crate) vary: u64,
    /// The Host field, and the name asked for by TLS.
    #[arg(long, default_value = "bench.example", value_name = "NAME")]
    pub(crate) host: String,
    /// A further header field of requests; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
    /// Which way `tcp-bulk` sends.
    #[arg(long, value_enum, default_value_t = Direction::Down)]
    pub(crate) direction: Direction,
    /// Open loop: requests per second, started on time whether or not earlier ones were answered; latency counts from
    /// the intended start. Without it, a closed loop: every connection sends as soon as it has its answer.
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Seconds before figures are taken.
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    pub(crate) warmup: f64,
    /// Seconds in which figures are taken.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub(crate) seconds: f64,
    /// Ends after so many requests instead, without a warm-up.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Opens the connections, sends one request on each, leaves them idle for the given time, and proves at the end
    /// that all are still open. The memory of watched processes is read before and after.
    #[arg(long)]
    pub(crate) idle: bool,
    /// How long an answer may take at the end of the run before it counts as lost; for UDP, always.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub(crate) timeout: f64,
    /// Source addresses, used in turn: each has its own 28,000 ports per destination.
    #[arg(long, value_delimiter = ',', value_name = "IP,...")]
    pub(crate) source: Vec<IpAddr>,
    /// TLS to the target.
    #[arg(long, value_enum, default_value_t = Tls::Off)]
    pub(crate) tls: Tls,
    /// PEM file of the certificate authority that TLS trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Threads, each with its own share of the connections.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// Cores that the threads are pinned to, in turn.
    #[arg(long, value_delimiter = ',', value_name = "CORE,...")]
    pub(crate) cores: Vec<usize>,
    /// Processes whose CPU time and memory are read when figures begin and end; may be repeated.
    #[arg(long, value_name = "NAME=PID")]
    pub(crate) watch: Vec<String>,
    /// Prints the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Shows no progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Plan {
    /// Refuses combinations that have no meaning.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Failure::new(why.to_owned()));
        let http1 = self.protocol == Protocol::Http1;
        let http = http1 || self.protocol.is_http2();
        let sane = |seconds: f64| seconds.is_finite() && (0.0..=86_400.0).contains(&seconds);
        if self.connections == 0 || self.threads == 0 || self.pipeline == 0 || self.streams == 0 || self.vary == 0 {
            return refuse("--connections, --threads, --pipeline, --streams and --vary are at least 1");
        }
        if self.threads > self.connections {
            return refuse("more --threads than --connections: some would have nothing to do");
        }
        if !sane(self.warmup) || !sane(self.timeout) || !sane(self.seconds) || self.seconds < 0.01 {
            return refuse("--seconds is at least 0.01, and --warmup, --seconds and --timeout are at most a day");
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0 || rate > 1e8) {
            return refuse("--rate is more than 0 and at most 100,000,000 per second");
        }
        let bursts = http1 || self.protocol == Protocol::UdpEcho;
        if self.pipeline > 1 && (!bursts || self.connection_per_request || self.rate.is_some() || self.idle) {
            return refuse("--pipeline goes with http1 and udp-echo in a closed loop over kept connections only");
        }
        if self.streams > 1 && (http1 || !http || self.idle) {
            return refuse("--streams goes with http2 and grpc, over connections that are not idle");
        }
        if self.connection_per_request && self.protocol.is_http2() {
            return refuse("--connection-per-request has no meaning for http2 and grpc, whose connections are kept");
        }
        if self.rate.is_some() && (self.protocol == Protocol::TcpBulk || self.idle) {
            return refuse("--rate has no meaning for bulk and idle connections");
        }
        let idles = http || self.protocol == Protocol::TcpEcho;
        if self.idle && (!idles || self.connection_per_request || self.count.is_some()) {
            return refuse("--idle goes with http1, http2, grpc and tcp-echo over kept connections");
        }
        if self.tls != Tls::Off && !http {
            return refuse("--tls goes with http1, http2 and grpc only");
        }
        if self.tls != Tls::Off && self.ca.is_none() {
            return refuse("--tls needs --ca: certificates are always verified");
        }
        if self.count.is_some() && self.protocol == Protocol::TcpBulk {
            return refuse("--count has no meaning for bulk");
        }
        match self.protocol {
            Protocol::UdpEcho if !(16..=65_000).contains(&self.body) => refuse("--body of udp-echo is 16 to 65,000"),
            Protocol::Grpc if self.body > 4 << 20 => refuse("--body of grpc is at most 4 MiB, as that of its servers"),
            Protocol::TcpEcho if self.body < 16 => refuse("--body of tcp-echo is at least 16: it carries an id"),
            Protocol::TcpBulk if self.body < 1024 => refuse("--body of tcp-bulk is a block of at least 1,024 bytes"),
            _ if self.body > 1 << 30 => refuse("--body is at most 1 GiB"),
            _ => Ok(()),
        }
    }

    /// How long after the end of a run an idle connection asks once more: 5,000 do in a second, which no proxy and no
    /// origin finds hard.
    pub(crate) fn last_turn(&self, connection: usize) -> Duration {
        Duration::from_micros(200).saturating_mul(u32::try_from(connection).unwrap_or(u32::MAX))
    }

    /// Descriptors that it needs.
    pub(crate) fn descriptors(&self) -> u64 {
        self.connections as u64 + 64 + 8 * self.threads as u64
    }

    /// The options of the `load` command that make this run.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = vec!["load".to_owned()];
        let mut option = |name: &str, value: String| all.extend([format!("--{name}"), value]);
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map_or_else(String::new, |value| value.get_name().to_owned())
        };
        option("target", self.target.to_string());
        option("protocol", name(&|| self.protocol.to_possible_value()));
        option("connections", self.connections.to_string());
        option("pipeline", self.pipeline.to_string());
        option("streams", self.streams.to_string());
        option("body", self.body.to_string());
        option("path", self.path.clone());
        option("vary", self.vary.to_string());
        option("host", self.host.clone());
        for header in &self.header {
            option("header", header.clone());
        }
        option("direction", name(&|| self.direction.to_possible_value()));
        if let Some(rate) = self.rate {
            option("rate", rate.to_string());
        }
        option("warmup", self.warmup.to_string());
        option("seconds", self.seconds.to_string());
        if let Some(count) = self.count {
            option("count", count.to_string());
        }
        option("timeout", self.timeout.to_string());
        if !self.source.is_empty() {
            option("source", join(&self.source));
        }
        option("tls", name(&|| self.tls.to_possible_value()));
        if let Some(ca) = &self.ca {
            option("ca", ca.display().to_string());
        }
        option("threads", self.threads.to_string());
        if !self.cores.is_empty() {
            option("cores", join(&self.cores));
        }
        for watch in &self.watch {
            option("watch", watch.clone());
        }
        let switches = [
            ("--connection-per-request", self.connection_per_request),
            ("--idle", self.idle),
            ("--json", self.json),
            ("--quiet", self.quiet),
        ];
        all.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()));
        all
    }
}

fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan(arguments: &[&str]) -> Plan {
        let all = ["load", "--target", "127.0.0.1:1"].iter().chain(arguments);
        Command::try_parse_from(all).unwrap().plan
    }

    #[test]
    fn a_plan_says_how_to_repeat_it() {
        let all = "--protocol tcp-bulk --connections 3 --body 2048 --direction both --seconds 0.25 --warmup 0 --quiet \
                   --source 127.0.0.2,127.0.0.3 --cores 1,2 --threads 2 --watch a=1 --watch b=2 --timeout 1.5 --json";
        let first = plan(&all.split_whitespace().collect::<Vec<_>>());
        let second = Command::try_parse_from(first.arguments()).unwrap().plan;
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }

    #[test]
    fn combinations_without_meaning_are_refused() {
        for arguments in [
            &["--connections", "0"][..],
            &["--threads", "65"],
            &["--rate", "0"],
            &["--rate", "NaN"],
            &["--seconds", "0"],
            &["--pipeline", "4", "--rate", "5"],
            &["--pipeline", "4", "--protocol", "tcp-echo"],
            &["--idle", "--rate", "5"],
            &["--idle", "--protocol", "tcp-bulk"],
            &["--idle", "--protocol", "udp-echo"],
            &["--protocol", "udp-echo", "--body", "8"],
            &["--protocol", "tcp-bulk", "--count", "5"],
            &["--tls", "full"],
            &["--streams", "2"],
            &["--streams", "2", "--protocol", "http2", "--idle"],
            &["--protocol", "http2", "--connection-per-request"],
            &["--tls", "full", "--ca", "x", "--protocol", "tcp-echo"],
        ] {
            assert!(plan(arguments).check().is_err(), "{arguments:?}");
        }
        plan(&[]).check().unwrap();
        plan(&["--idle", "--protocol", "tcp-echo"]).check().unwrap();
    }
}
