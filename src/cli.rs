//! The command line, as it is given; defaults that need to look at the machine are `server`'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::admin::Address;
use crate::explain::{Peer, Question, Url};
use crate::xdp::engine::DEFAULT_DIRECTORY;

/// An edge proxy and load balancer, configured by the Kubernetes Gateway API.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve. Without configuration: a demo on 127.0.0.1, HTTP on 8080 and TCP on 8081.
    Run(RunArgs),
    /// Report every error and warning in the configuration; exit 0, or 64 if there are errors.
    Check(CheckArgs),
    /// Show what the running process serves, and the conditions of its objects.
    Status(StatusArgs),
    /// Make the running process read its configuration again.
    Reload(AdminArgs),
    /// Make the running process finish what it is doing and end.
    Drain(AdminArgs),
    /// Look at this machine: kernel, io_uring, limits, ports; `doctor dsr`: what direct server return needs.
    Doctor(DoctorArgs),
    /// Direct server return: what is forwarded, the flows, an end to it.
    #[command(subcommand)]
    Dsr(DsrCommand),
    /// Say where a request or connection goes, and why, by the code that serves it.
    Explain(ExplainArgs),
    /// Say what files would change about what the running process serves, and what that does to connections.
    Diff(DiffArgs),
    /// JSON Schema of the configuration, for editors.
    Schema(SchemaArgs),
    /// Translate what another proxy is configured by.
    #[command(subcommand)]
    Import(ImportCommand),
}

/// `ringway diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Where configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The form of what is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `ringway schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Only this kind, such as HTTPRoute.
    pub kind: Option<String>,
    /// Print the reference of every field instead, as a page.
    #[arg(long, conflicts_with = "kind")]
    pub reference: bool,
}

/// `ringway import`.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Ingress objects with the annotations of ingress-nginx to Gateway API objects, on standard output.
    IngressNginx(ImportArgs),
}

/// `ringway import ingress-nginx`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files and directories with Ingresses, and with the Services and ConfigMaps that they refer to.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The name of the Gateway.
    #[arg(long, value_name = "NAME", default_value = "edge")]
    pub gateway: String,
    /// Only Ingresses of this class, and those without one.
    #[arg(long, value_name = "CLASS", default_value = "nginx")]
    pub ingress_class: String,
    /// Leave rules open whose protection cannot be translated. Without it they answer 403.
    #[arg(long)]
    pub open: bool,
}

/// Where configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A file, or a directory of *.yaml, *.yml and *.json; may be repeated. Default: /etc/ringway, if it exists.
    #[arg(long, value_name = "PATH")]
    pub config: Vec<PathBuf>,
}

/// `ringway run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Refuse a configuration that has errors or warnings as a whole. Without it an object in error keeps its last good
    /// version, or is left out, and the others are served.
    #[arg(long)]
    pub strict: bool,
    /// Worker threads. Default: one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Do not pin workers to cores.
    #[arg(long)]
    pub no_pin: bool,
    /// Have what arrives on a core served by that core's worker (SO_INCOMING_CPU). For machines whose network cards spread
    /// their interrupts over the workers' cores: where they do not, a few workers get everything.
    #[arg(long)]
    pub steer: bool,
    /// What workers wait on.
    #[arg(long, value_enum, default_value_t = DriverChoice::Auto)]
    pub driver: DriverChoice,
    /// `unix:PATH`, or `IP:PORT` (read-only); may be repeated. Default: unix:/run/ringway/admin.sock, or
    /// ringway.sock in $XDG_RUNTIME_DIR.
    #[arg(long, value_name = "ADDR")]
    pub admin: Vec<Address>,
    /// Keys of TLS session tickets, one per line, 48 bytes in base64; the first encrypts. Machines that share the file
    /// resume each other's sessions. Default: random keys, rotated every 8 hours.
    #[arg(long, value_name = "FILE")]
    pub tls_ticket_keys: Option<PathBuf>,
    /// Keys of session tokens (sessionPersistence), one per line, 32 bytes or more in base64; the first makes tokens, all
    /// are taken. Machines that share the file keep each other's sessions. Default: a key derived from /etc/machine-id,
    /// which holds across restarts.
    #[arg(long, value_name = "FILE")]
    pub session_keys: Option<PathBuf>,
    /// Write the secrets of every TLS connection to this file (NSS key log format). FOR DEBUGGING ONLY: whoever reads
    /// it can decrypt all traffic.
    #[arg(long, value_name = "FILE")]
    pub tls_key_log: Option<PathBuf>,
    /// Where direct server return pins what goes on forwarding without this process; in a bpffs.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_DIRECTORY)]
    pub bpf_dir: PathBuf,
    /// When told to stop, end direct server return too, once the drain is over. Without this it goes on forwarding for
    /// the next process to take over; `ringway dsr detach` ends it at any time.
    #[arg(long)]
    pub dsr_detach_on_stop: bool,
    /// The form of the log, which goes to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    /// The least severe level that is logged.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

/// `ringway doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Only this.
    #[arg(value_enum)]
    pub topic: Option<DoctorTopic>,
    /// With `dsr`: look at this machine as a server behind the virtual address IP:PORT.
    #[arg(long, value_name = "VIP:PORT")]
    pub server: Option<SocketAddr>,
    /// With `dsr`: where things are pinned.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_DIRECTORY)]
    pub bpf_dir: PathBuf,
    /// Where configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What `ringway doctor` can look at alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorTopic {
    /// Direct server return.
    Dsr,
}

/// `ringway dsr`.
#[derive(Debug, Subcommand)]
pub enum DsrCommand {
    /// Services, servers, flows, and what became of frames.
    Status(StatusArgs),
    /// The flows that are remembered.
    Flows(StatusArgs),
    /// End forwarding: remove programs, what is pinned and the guard rule, whether or not a process runs.
    Detach(DetachArgs),
}

/// `ringway dsr detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Where things are pinned, if no process answers.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_DIRECTORY)]
    pub bpf_dir: PathBuf,
}

/// `ringway explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Where configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask the process at this address too: flows that are remembered, what endpoints work on.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The request's method.
    #[arg(short = 'X', long = "method", value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// A field of the request; may be repeated. `Host: NAME` replaces the URL's.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// The name in the TLS handshake. Default: the URL's host.
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// The client.
    #[arg(long, value_name = "IP[:PORT]")]
    pub from: Option<Peer>,
    /// Keys of session tokens, as `ringway run` has them. Default: the key of this machine.
    #[arg(long, value_name = "FILE")]
    pub session_keys: Option<PathBuf>,
    /// What it connects to. Default: the URL's host, if it is an address, and its port.
    #[arg(long, value_name = "IP[:PORT]")]
    pub to: Option<Peer>,
    /// The form of what is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// http://, https://, tcp://, tls:// or udp://, a host, a port if it is not the scheme's, a path.
    pub url: Url,
}

impl ExplainArgs {
    /// What is asked.
    pub fn question(self) -> Question {
        Question {
            url: self.url,
            method: self.method,
            headers: self.header,
            server_name: self.sni,
            from: self.from,
            to: self.to,
            session_keys: self.session_keys,
        }
    }
}

/// `ringway check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Warnings are errors.
    #[arg(long)]
    pub strict: bool,
    /// Print the conditions of every object.
    #[arg(long)]
    pub status: bool,
    /// Print what would be served, every default filled in.
    #[arg(long)]
    pub effective: bool,
    /// The form of what is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `ringway status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The form of what is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// `unix:PATH` or `IP:PORT` of the running process's admin server.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<Address>,
}

/// What workers wait on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverChoice {
    /// io_uring where it can be had, else epoll.
    Auto,
    /// io_uring, or fail.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the levels have the names that everyone knows")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}
