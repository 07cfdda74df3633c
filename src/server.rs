//! The composition root: what runs on the control thread, from start to end.
//!
//! It loads, binds, starts one thread per worker, and then waits for whatever comes: signals, changed files, admin
//! requests, names to be looked up again. Workers get each generation in one message and answer when they serve it.

mod dsr;
mod generation;
mod sessions;
mod tickets;
mod watch;
mod workers;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ringway_core::http::Date;
use ringway_core::model::{Model, Protocol, TlsServes};
use serde_json::json;

use crate::admin::{self, Address, Ask, Reply};
use crate::cli::DriverChoice;
use crate::control::lenient::{InError, LastGood, Served};
use crate::control::provider::{Input, Provider, SystemResolver};
use crate::control::read::{FileSeen, ProcessEnvironment};
use crate::control::source::Severity;
use crate::control::{self, Accepted, Loaded, effective, inventory};
use crate::metrics;
use crate::rt::{self, Driver};
use crate::sys;

use dsr::Forwarding;
use generation::{ApplyError, Generations};
use sessions::Sessions;
use tickets::Tickets;
use workers::Workers;

/// How long exchanges in flight may take once a drain has begun.
const DRAIN: Duration = Duration::from_secs(30);
/// How often hostnames are looked up again.
const RESOLVE: Duration = Duration::from_secs(30);
/// Where configuration is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/ringway";

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// Files and directories as given.
    pub config: Vec<PathBuf>,
    /// Errors and warnings refuse a configuration as a whole.
    pub strict: bool,
    /// Worker threads; none: one per core.
    pub workers: Option<usize>,
    /// Pin workers to cores.
    pub pin: bool,
    /// Have what arrives on a core served by its worker.
    pub steer: bool,
    /// What workers wait on.
    pub driver: DriverChoice,
    /// Admin addresses; none: the default.
    pub admin: Vec<Address>,
    /// Where direct server return pins what outlives the process.
    pub bpf_directory: PathBuf,
    /// End direct server return after a drain.
    pub dsr_detach_on_stop: bool,
    /// Keys of session tickets; none: random ones.
    pub tls_ticket_keys: Option<PathBuf>,
    /// Keys of session tokens; none: the machine's.
    pub session_keys: Option<PathBuf>,
    /// Where secrets of TLS connections are written; none: nowhere.
    pub tls_key_log: Option<PathBuf>,
}

/// Why the process ends other than by a drain.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has errors, which have been printed.
    #[error("the configuration has {0} errors")]
    Config(usize),
    /// Something at work.
    #[error("{0}")]
    Failed(String),
}

/// What wakes the control thread.
#[derive(Debug)]
enum Event {
    Signal(i32),
    FilesChanged,
    Ask(Ask, Sender<Reply>),
    WorkerEnded(usize, Result<usize, String>),
}

/// Where configuration is, given what the command line says.
pub fn provider(config: &[PathBuf]) -> Provider {
    if config.is_empty() {
        let default = PathBuf::from(DEFAULT_CONFIG);
        if default.exists() { Provider::Files(vec![default]) } else { Provider::Demo }
    } else {
        Provider::Files(config.to_vec())
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |error| RunError::Failed(format!("{what}: {error}"))
}

/// Serves until drained.
pub fn run(options: Options) -> Result<(), RunError> {
    let (events, inbox) = mpsc::channel();
    watch::signals(events.clone()).map_err(failed("cannot handle signals"))?;
    if let Some(path) = &options.tls_key_log {
        crate::tls::keylog::enable(path).map_err(failed("cannot write the TLS key log"))?;
        tracing::warn!(
            file = %path.display(),
            "SECRETS OF EVERY TLS CONNECTION ARE WRITTEN TO A FILE: whoever reads it can decrypt all traffic"
        );
    }
    let tickets = Tickets::new(options.tls_ticket_keys).map_err(RunError::Failed)?;
    let sessions = Sessions::new(options.session_keys).map_err(RunError::Failed)?;
    let provider = provider(&options.config);
    let mut resolver = SystemResolver::default();
    let inputs = provider.read();
    let digest = digest(&inputs);
    let loaded = load(inputs, options.strict, &LastGood::default(), &mut resolver);
    report(&loaded, true);
    let errors = loaded.errors();
    let Loaded { resolves, files, accepted, in_error, last_good, .. } = loaded;
    // Where nothing is left there is nothing to be lenient for.
    let serves = |accepted: &Accepted| !accepted.model.sockets.is_empty() || !accepted.model.dsr.is_empty();
    let Some(accepted) = accepted.filter(|accepted| errors == 0 || serves(accepted)) else {
        return Err(RunError::Config(errors));
    };
    if errors > 0 {
        tracing::error!(
            errors,
            objects = in_error.len(),
            "THE CONFIGURATION HAS ERRORS: it is served without what is in error"
        );
    }
    if provider == Provider::Demo {
        tracing::info!(
            "no configuration given: serving the embedded demo, HTTP on 127.0.0.1:8080 and TCP on 127.0.0.1:8081"
        );
    }
    let descriptors = sys::raise_descriptor_limit().map_err(failed("cannot read the descriptor limit"))?;
    let driver = choose_driver(options.driver)?;
    let workers = Workers::plan(options.workers, options.pin, driver, descriptors);
    let mut generations = Generations::new(workers.cores().map(|core| core.filter(|_| options.steer)).collect());
    let prepared = generations.prepare(accepted).map_err(|error| RunError::Failed(error.to_string()))?;
    let workers = workers.start(&generations, &events).map_err(failed("cannot start workers"))?;
    workers.ticket_keys(&tickets.ring());
    workers.session_keys(sessions.keys());
    let mut forwarding = Forwarding::new(options.bpf_directory);
    forwarding.apply(prepared.model()).map_err(|error| RunError::Failed(format!("direct server return: {error}")))?;
    generations.apply(prepared, &workers).map_err(|error| RunError::Failed(error.to_string()))?;
    let admin = start_admin(&options.admin, &events)?;
    let mut watcher = watch::files(provider.paths(), events);
    if let Some(watcher) = &mut watcher {
        watcher.follow(files.iter().map(|file| &file.path).chain(tickets.file()).chain(sessions.file()));
    }
    let mut server = Server {
        provider,
        strict: options.strict,
        resolver,
        resolves,
        digest,
        files,
        tickets,
        sessions,
        driver,
        generations,
        forwarding,
        workers,
        draining: false,
        config_errors: errors,
        in_error,
        last_good,
        started: Instant::now(),
        inbox,
        _admin: admin,
        watcher,
    };
    server.announce();
    server.announce_sessions();
    // A reload computes for a second where there are ten thousand routes. On a core that it shares with a worker, requests
    // waited for the scheduler's turns then: p99 5.0 ms at equal priority and 0.8 at this one.
    sys::step_back();
    server.serve()?;
    if options.dsr_detach_on_stop {
        server.forwarding.end().map_err(|error| RunError::Failed(format!("direct server return: {error}")))?;
    }
    Ok(())
}

struct Server {
    provider: Provider,
    strict: bool,
    resolver: SystemResolver,
    resolves: bool,
    digest: u64,
    files: Vec<FileSeen>,
    tickets: Tickets,
    sessions: Sessions,
    driver: Driver,
    generations: Generations,
    forwarding: Forwarding,
    workers: Workers,
    draining: bool,
    config_errors: usize,
    /// Objects of the newest configuration that are not served as they are there.
    in_error: Vec<InError>,
    last_good: LastGood,
    started: Instant,
    inbox: Receiver<Event>,
    // Kept for as long as the process serves.
    _admin: Vec<admin::Server>,
    watcher: Option<watch::Files>,
}

/// Why a configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody asked.
    Asked,
    /// A file may have changed.
    Changed,
    /// Names are looked up again.
    Resolve,
}

impl Server {
    /// Says how long sessions hold, where there are some.
    fn announce_sessions(&mut self) {
        if self.generations.current().has_sessions() {
            self.sessions.warn();
        }
    }

    fn announce(&self) {
        for socket in &self.generations.current().sockets {
            let protocol = socket.kind.protocol();
            tracing::info!(address = %socket.bind, protocol, "listening");
        }
        if self.generations.current().sockets.is_empty() && !self.forwarding.is_running() {
            tracing::warn!("the configuration has no listener that is served");
        }
        let workers = self.workers.count();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), driver = self.driver.as_str(), workers, "ready");
    }

    fn serve(&mut self) -> Result<(), RunError> {
        let mut next_resolve = Instant::now() + RESOLVE;
        let mut ended = 0;
        let mut cut = 0;
        loop {
            let due = self.tickets.due().map_or(next_resolve, |due| due.min(next_resolve));
            let wait = due.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(wait) {
                Ok(Event::Signal(signal_hook::consts::SIGHUP)) => {
                    // What went wrong is in the log.
                    let _logged = self.reload(Why::Asked);
                }
                Ok(Event::Signal(signal)) => self.drain(&format!("signal {signal}")),
                Ok(Event::FilesChanged) => {
                    self.refresh_tickets();
                    if let Some(keys) = self.sessions.refresh() {
                        self.workers.session_keys(keys);
                    }
                    let _logged = self.reload(Why::Changed);
                }
                Ok(Event::Ask(ask, reply)) => {
                    // Whoever asked may have gone.
                    let _told = reply.send(self.answer(ask));
                }
                Ok(Event::WorkerEnded(id, Ok(connections))) if self.draining => {
                    tracing::debug!(worker = id, "worker drained");
                    cut += connections;
                    ended += 1;
                    if ended == self.workers.count() {
                        if cut > 0 {
                            tracing::warn!(connections = cut, "drain reached its deadline: connections were cut");
                        }
                        tracing::info!("drained");
                        return Ok(());
                    }
                }
                Ok(Event::WorkerEnded(id, result)) => {
                    let why = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
                    return Err(RunError::Failed(format!("worker {id} failed: {why}")));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.refresh_tickets();
                    if Instant::now() < next_resolve {
                        continue;
                    }
                    next_resolve = Instant::now() + RESOLVE;
                    if self.resolves {
                        let _logged = self.reload(Why::Resolve);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(RunError::Failed("nobody is left to listen to".into()));
                }
            }
        }
    }

    fn refresh_tickets(&mut self) {
        if let Some(ring) = self.tickets.refresh() {
            self.workers.ticket_keys(&ring);
        }
    }

    fn drain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.draining, true) {
            tracing::info!(why, seconds = DRAIN.as_secs(), "draining");
        }
        self.workers.drain(DRAIN);
    }

    /// Reads the configuration again. What cannot be served leaves the generation that is.
    fn reload(&mut self, why: Why) -> Result<String, String> {
        if self.draining {
            return Err("the process is draining".to_owned());
        }
        let inputs = self.provider.read();
        let digest = digest(&inputs);
        let same = digest == self.digest && !self.files.iter().any(FileSeen::has_changed);
        if why == Why::Changed && same {
            return Ok("unchanged".to_owned());
        }
        let quiet = why == Why::Resolve && same;
        self.digest = digest;
        let loaded = load(inputs, self.strict, &self.last_good, &mut self.resolver);
        if !quiet {
            report(&loaded, false);
        }
        self.resolves = loaded.resolves;
        self.files.clone_from(&loaded.files);
        if let Some(watcher) = &mut self.watcher {
            watcher.follow(self.files.iter().map(|file| &file.path));
        }
        let errors = loaded.errors();
        let lines: Vec<String> = loaded
            .diagnostics
            .iter()
            .filter(|each| each.severity == Severity::Error)
            .map(|each| loaded.sources.line(each))
            .collect();
        let Some(accepted) = loaded.accepted else {
            self.config_errors = errors;
            if !quiet {
                let generation = self.generations.number();
                tracing::error!(errors, generation, "configuration refused: the last good generation is still served");
            }
            return Err(lines.join("\n"));
        };
        let objects = loaded.in_error.len();
        if (why != Why::Asked || errors > 0) && self.generations.serves(&accepted) {
            self.config_errors = errors;
            self.in_error = loaded.in_error;
            self.last_good = loaded.last_good;
            self.generations.set_objects(accepted.status, accepted.objects);
            if errors == 0 {
                return Ok("unchanged".to_owned());
            }
            if !quiet {
                let generation = self.generations.number();
                tracing::error!(errors, objects, generation, "configuration in error: what is served is unchanged");
            }
            return Err(lines.join("\n"));
        }
        let applied = match self.generations.prepare(accepted) {
            Ok(prepared) => match self.forwarding.apply(prepared.model()) {
                Ok(()) => self.generations.apply(prepared, &self.workers),
                Err(error) => Err(ApplyError::Dsr(error)),
            },
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => {
                self.config_errors = errors;
                self.in_error = loaded.in_error;
                self.last_good = loaded.last_good;
                let generation = self.generations.number();
                if errors > 0 {
                    tracing::error!(errors, objects, generation, "configuration applied without what is in error");
                    let lines = lines.join("\n");
                    return Err(format!("{lines}\ngeneration {generation} is served without what is in error"));
                }
                tracing::info!(generation, "configuration applied");
                self.announce_sessions();
                Ok(format!("generation {generation} is served"))
            }
            Err(error) => {
                self.config_errors = 1;
                let generation = self.generations.number();
                tracing::error!(%error, generation, "configuration not applied: the last good generation is still served");
                Err(error.to_string())
            }
        }
    }

    fn answer(&mut self, ask: Ask) -> Reply {
        match ask {
            Ask::Ready if self.draining => Reply::text(503, "draining\n"),
            Ask::Ready => Reply::text(200, "ready\n"),
            Ask::Metrics => self.metrics(),
            Ask::Status => Reply::json(200, &self.status()),
            Ask::Config { secrets } => {
                let mut config = effective::effective(self.generations.model());
                config["objects"] = inventory::to_json(self.generations.objects(), secrets);
                Reply::json(200, &config)
            }
            Ask::Backends => Reply::json(200, &self.generations.registry().endpoints(self.generations.model())),
            Ask::DsrFlows => self.forwarding.flows(),
            Ask::DsrDetach => self.forwarding.detach(),
            Ask::Reload => match self.reload(Why::Asked) {
                Ok(done) => Reply::text(200, done + "\n"),
                Err(errors) => Reply::text(409, errors + "\n"),
            },
            Ask::Drain => {
                self.drain("asked by the admin socket");
                Reply::text(200, format!("draining, for at most {} s\n", DRAIN.as_secs()))
            }
        }
    }

    fn count(&self, of: impl Fn(Served) -> bool) -> u64 {
        self.in_error.iter().filter(|object| of(object.served)).count() as u64
    }

    fn metrics(&self) -> Reply {
        let latencies = metrics::merge(self.workers.latencies());
        let info = metrics::Info {
            version: env!("CARGO_PKG_VERSION"),
            driver: self.driver.as_str(),
            generation: self.generations.number(),
            config_errors: self.config_errors as u64,
            stale: self.count(Served::is_last_good),
            left_out: self.count(|served| !served.is_last_good()),
            routes: &self.generations.current().routes,
            certificates: &certificates(self.generations.model()),
        };
        let mut body = metrics::render(self.generations.registry(), &latencies, &info);
        if let Some(samples) = self.forwarding.samples() {
            body.push_str(&metrics::render_dsr(&samples));
        }
        Reply { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
    }

    fn status(&self) -> serde_json::Value {
        let sockets: Vec<_> = self
            .generations
            .current()
            .sockets
            .iter()
            .map(|socket| json!({ "address": socket.bind.to_string(), "protocol": socket.kind.protocol() }))
            .collect();
        let mut status = self.generations.status().clone();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        status["ringway"] = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "driver": self.driver.as_str(),
            "workers": self.workers.count(),
            "uptimeSeconds": self.started.elapsed().as_secs(),
            "generation": self.generations.number(),
            "time": Date::rfc3339(now.as_secs()),
            "configErrors": self.config_errors,
            "inError": self.in_error.iter().map(|object| {
                json!({
                    "kind": object.key.kind,
                    "namespace": object.key.namespace,
                    "name": object.key.name,
                    "error": object.error,
                    "served": object.served.as_str(),
                })
            }).collect::<Vec<_>>(),
            "draining": self.draining,
            "sockets": sockets,
            "dsr": self.forwarding.json(),
            "certificates": certificates(self.generations.model())
                .into_iter()
                .map(|(name, not_after)| {
                    json!({ "name": name, "notAfter": Date::rfc3339(u64::try_from(not_after).unwrap_or(0)) })
                })
                .collect::<Vec<_>>(),
        });
        status
    }
}

/// The certificates being served, each once, and when they cease to be valid.
fn certificates(model: &Model) -> Vec<(String, i64)> {
    let listeners = model.sockets.iter().filter_map(|socket| match &socket.protocol {
        Protocol::Tls(listeners) => Some(listeners),
        _ => None,
    });
    let settings = listeners.flatten().filter_map(|listener| match &listener.serves {
        TlsServes::Https { tls, .. } | TlsServes::Terminate { tls, .. } => Some(tls),
        TlsServes::Passthrough { .. } => None,
    });
    let all = settings.flat_map(|tls| &tls.certificates);
    let found: BTreeMap<String, i64> = all.map(|each| (each.name.clone(), each.facts.not_after)).collect();
    found.into_iter().collect()
}

/// Says what is wrong with a configuration: for people at the start, as log lines later.
fn report(loaded: &Loaded, for_people: bool) {
    if for_people {
        crate::term::print_diagnostics(loaded);
        return;
    }
    for each in &loaded.diagnostics {
        let line = loaded.sources.line(each);
        let help = each.help.as_deref();
        match each.severity {
            Severity::Error => tracing::error!(diagnostic = %line, help, "configuration"),
            Severity::Warning => tracing::warn!(diagnostic = %line, help, "configuration"),
            Severity::Note => tracing::info!(diagnostic = %line, help, "configuration"),
        }
    }
}

/// Loads for serving. What is in error stops all of it where that is asked for, and otherwise itself.
fn load(inputs: Vec<Input>, strict: bool, last: &LastGood, resolver: &mut SystemResolver) -> Loaded {
    if strict {
        control::load(inputs, true, &ProcessEnvironment, resolver)
    } else {
        control::load_leniently(inputs, last, &ProcessEnvironment, resolver)
    }
}

fn digest(inputs: &[Input]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for input in inputs {
        input.name.hash(&mut hasher);
        input.text.as_ref().ok().hash(&mut hasher);
    }
    hasher.finish()
}

fn choose_driver(choice: DriverChoice) -> Result<Driver, RunError> {
    match choice {
        DriverChoice::Epoll => Ok(Driver::Epoll),
        DriverChoice::IoUring => match rt::probe_ring() {
            Ok(()) => Ok(Driver::IoUring),
            Err(error) => {
                Err(RunError::Failed(format!("io_uring cannot be had here: {error}; `ringway doctor` says more")))
            }
        },
        DriverChoice::Auto => match rt::probe_ring() {
            Ok(()) => Ok(Driver::IoUring),
            Err(error) => {
                tracing::warn!(%error, "IO_URING CANNOT BE HAD HERE: serving by epoll, which is slower; `ringway doctor` says why");
                Ok(Driver::Epoll)
            }
        },
    }
}

fn start_admin(addresses: &[Address], events: &Sender<Event>) -> Result<Vec<admin::Server>, RunError> {
    let serve = |address: &Address| {
        let events = events.clone();
        admin::serve(address, move |ask, reply| {
            // The control thread has gone: whoever waits for the reply is told by its end.
            let _sent = events.send(Event::Ask(ask, reply));
        })
    };
    if addresses.is_empty() {
        let mut errors = Vec::new();
        for address in admin::default_addresses() {
            match serve(&address) {
                Ok(server) => {
                    tracing::info!(address = %server.address, "admin");
                    return Ok(vec![server]);
                }
                Err(error) => errors.push(format!("{address}: {error}")),
            }
        }
        tracing::warn!(
            tried = errors.join("; "),
            "no admin socket: status, reload and drain cannot reach this process"
        );
        return Ok(Vec::new());
    }
    let mut servers = Vec::new();
    for address in addresses {
        match serve(address) {
            Ok(server) => {
                tracing::info!(address = %server.address, "admin");
                servers.push(server);
            }
            Err(error) => return Err(RunError::Failed(format!("cannot serve admin at {address}: {error}"))),
        }
    }
    Ok(servers)
}

impl From<ApplyError> for RunError {
    fn from(error: ApplyError) -> Self {
        Self::Failed(error.to_string())
    }
}
