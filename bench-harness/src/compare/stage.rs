//! The processes of one case: origin, contenders, and the load generator that visits them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Action, Case, Failure, Outcome, Place, Plan, Process, Result, process};
use crate::contender::{Certificate, Contender, Setting, Start, spare_descriptors};
use crate::failure::Context as _;
use crate::load::{self, Protocol};
use crate::machine;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Contenders may take long to start: Envoy and Caddy read much, and machines are slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// A contender on the stage.
#[derive(Debug)]
pub(super) struct Entry {
    contender: Contender,
    setting: Setting,
    target: SocketAddr,
    // The contender ends before its origin.
    process: Option<Process>,
    origin: Rc<Process>,
}

#[derive(Debug)]
pub(super) struct Stage<'a> {
    case: &'a Case,
    place: &'a Place,
    label: &'a str,
    directory: PathBuf,
    certificate: Option<Certificate>,
    entries: Vec<Entry>,
    origin: Rc<Process>,
}

/// A load run that goes on.
#[derive(Debug)]
struct Running {
    process: Process,
    out: PathBuf,
}

/// Ports that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_ports(count: usize, from: Option<u16>) -> Result<Vec<u16>> {
    let mut found = Vec::new();
    let start = from.unwrap_or_else(|| 16_000 + u16::try_from(std::process::id() * 37 % 14_000).unwrap_or(0));
    for port in start..32_000.max(start.saturating_add(1)) {
        if found.len() == count {
            break;
        }
        match TcpListener::bind((HERE, port)) {
            Ok(_listener) => found.push(port),
            Err(error) if from.is_some() => {
                return Err(Failure::new(format!("port {port} cannot be used: {error} (--port)")));
            }
            Err(_in_use) => {}
        }
    }
    if found.len() < count { Err(Failure::new("not enough free ports")) } else { Ok(found) }
}

impl<'a> Stage<'a> {
    /// Starts origin and contenders, and makes sure that each answers rightly.
    pub(super) fn set(case: &'a Case, contenders: &[Contender], place: &'a Place, label: &'a str) -> Result<Self> {
        let mut ports = free_ports(2 * contenders.len() + 1, place.port)?.into_iter();
        let mut port = || ports.next().ok_or_else(|| Failure::new("not enough free ports"));
        let directory = place.scratch.directory(&label.replace('/', "-"))?;
        let certificate = (case.tls != load::Tls::Off).then(|| certificate(&directory)).transpose()?;
        let origin_port = port()?;
        let origin = Rc::new(start_origin(case, place, &directory, origin_port)?);
        let mut stage = Self { case, place, label, directory, certificate, entries: Vec::new(), origin };
        for contender in contenders {
            // All idle at the same time, and an origin's descriptors are limited: each has one of its own.
            let (origin, origin_port) = if case.load.idle && !contender.is_direct() {
                let at = port()?;
                let directory = stage.directory.join(format!("{}-origin", contender.name));
                std::fs::create_dir_all(&directory).context(|| format!("cannot make {}", directory.display()))?;
                (Rc::new(start_origin(case, place, &directory, at)?), at)
            } else {
                (Rc::clone(&stage.origin), origin_port)
            };
            let listen = if contender.is_direct() { origin_port } else { port()? };
            let entry = stage.start(contender, listen, origin_port, origin)?;
            stage.entries.push(entry);
        }
        Ok(stage)
    }

    fn start(&self, contender: &Contender, port: u16, origin_port: u16, origin: Rc<Process>) -> Result<Entry> {
        let dir = self.directory.join(&contender.name);
        std::fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        let connections = self.case.load.connections * self.case.load.streams;
        let setting = Setting {
            name: contender.name.clone(),
            dir: dir.clone(),
            mode: self.case.mode(),
            listen_ip: HERE,
            listen_port: port,
            origin_ip: HERE,
            origin_port,
            workers: self.place.proxy_cores.len(),
            connections,
            spare_descriptors: spare_descriptors(machine::raise_descriptors(), connections),
            speaks: self.case.protocol,
            h2c_upstream: self.case.protocol == Protocol::Grpc
                || self.case.requires.iter().any(|feature| feature == "h2c-upstream"),
            proxy: self.case.proxy.clone(),
            tls: self.certificate.clone(),
        };
        let target = SocketAddr::new(HERE, port);
        let mut entry = Entry { contender: contender.clone(), setting, target, process: None, origin };
        let Some(start) = contender.prepare(&entry.setting)? else { return Ok(entry) };
        let mut process = Process::start(&contender.name, &start, &self.place.proxy_cores, &dir)?;
        let probe = self.plan(&entry, None, 1.0);
        process.wait_until(PATIENCE, || load::probe(&probe))?;
        entry.process = Some(process);
        Ok(entry)
    }

    /// The load that a contender gets.
    fn plan(&self, entry: &Entry, rate: Option<f64>, seconds: f64) -> Plan {
        let load = &self.case.load;
        let mut watch = vec![format!("origin={}", entry.origin.pid())];
        watch.extend(entry.process.as_ref().map(|process| format!("proxy={}", process.pid())));
        Plan {
            target: entry.target,
            protocol: self.case.protocol,
            connections: load.connections,
            connection_per_request: load.connection_per_request,
            pipeline: load.pipeline,
            streams: load.streams,
            body: load.body,
            path: load.path.clone(),
            vary: load.vary,
            host: "bench.example".to_owned(),
            header: load.headers.clone(),
            direction: load.direction,
            rate,
            warmup: self.case.warmup,
            seconds,
            count: None,
            idle: load.idle,
            timeout: load.timeout,
            source: load.sources.clone(),
            tls: if entry.contender.is_direct() { load::Tls::Off } else { self.case.tls },
            ca: self.certificate.as_ref().map(|certificate| certificate.ca.clone()),
            threads: self.place.load_cores.len().min(load.connections),
            cores: self.place.load_cores.clone(),
            watch,
            json: true,
            quiet: true,
        }
    }

    fn entry(&self, name: &str) -> Result<usize> {
        let found = self.entries.iter().position(|entry| entry.contender.name == name);
        found.ok_or_else(|| Failure::new(format!("{name} does not take part in {}", self.label)))
    }

    fn begin(&self, at: usize, plan: &Plan) -> Result<Running> {
        let name = format!("load-{at}");
        let start = own(plan.arguments())?;
        let process = Process::start(&name, &start, &self.place.load_cores, &self.directory)?;
        Ok(Running { process, out: self.directory.join(format!("{name}.out")) })
    }

    /// Waits for a load run, and lets the scenario's event happen meanwhile.
    fn finish(&mut self, at: usize, mut running: Running, seconds: f64) -> Result<(Outcome, u64)> {
        let began = Instant::now();
        let patience = Duration::from_secs_f64(seconds + self.case.warmup + 4.0 * self.case.load.timeout)
            + Duration::from_secs(60)
            + Duration::from_millis(self.case.load.connections as u64 * 4);
        let mut events = 0_u32;
        let status = loop {
            if let Some(status) = running.process.ended()? {
                break status;
            }
            let entry = &mut self.entries[at];
            let words = |entry: &Entry| entry.process.as_ref().map_or_else(String::new, Process::last_words);
            if let Some(status) = entry.process.as_mut().map(Process::ended).transpose()?.flatten() {
                let words = words(entry);
                return Err(Failure::new(format!("{} ended under load ({status}): {words}", entry.contender.name)));
            }
            if let (Some(event), Some(process)) = (&self.case.event, &entry.process)
                && began.elapsed().as_secs_f64() >= self.case.warmup + event.every * f64::from(events)
                && began.elapsed().as_secs_f64() < self.case.warmup + seconds
            {
                let Action::Reload = event.action;
                entry.contender.reload(&entry.setting, process.pid())?;
                events += 1;
            }
            if began.elapsed() > patience {
                return Err(Failure::new(format!("{}: the load run does not end", self.label)));
            }
            process::pause(Duration::from_millis(5))?;
        };
        let text = std::fs::read_to_string(&running.out).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(outcome) => Ok((outcome, u64::from(events))),
            Err(_no_result) => {
                let name = &self.entries[at].contender.name;
                let words = running.process.last_words();
                let words = words.strip_prefix("bench-harness: ").unwrap_or(&words);
                Err(Failure::new(format!("{}: the load on {name} failed ({status}): {words}", self.label)))
            }
        }
    }

    /// Measures one contender; `begun` is called with its process id once the warm-up is over.
    pub(super) fn measure(
        &mut self,
        name: &str,
        rate: Option<f64>,
        seconds: f64,
        begun: impl FnOnce(u32) -> Result<()>,
    ) -> Result<(Outcome, u64)> {
        let at = self.entry(name)?;
        let plan = self.plan(&self.entries[at], rate, seconds);
        let running = self.begin(at, &plan)?;
        let pid = self.entries[at].process.as_ref().map_or(0, Process::pid);
        process::pause(Duration::from_secs_f64(if self.case.event.is_some() {
            0.0
        } else {
            self.case.warmup.min(5.0)
        }))?;
        begun(pid)?;
        self.finish(at, running, seconds)
    }

    /// The same in a closed loop, to find out what rate can be reached.
    pub(super) fn closed(&mut self, name: &str, seconds: f64) -> Result<Outcome> {
        Ok(self.measure(name, None, seconds, |_pid| Ok(()))?.0)
    }

    /// One round: every contender in its turn.
    pub(super) fn in_turn(&mut self, rate: Option<f64>) -> Result<Vec<(String, Instant, Outcome, u64)>> {
        let names: Vec<String> = self.entries.iter().map(|entry| entry.contender.name.clone()).collect();
        let seconds = self.case.seconds;
        let one = |name: String| {
            let began = Instant::now();
            let (outcome, events) = self.measure(&name, rate, seconds, |_pid| Ok(()))?;
            Ok((name, began, outcome, events))
        };
        names.into_iter().map(one).collect()
    }

    /// One round in which all idle at the same time, each freshly started: memory is not a matter of the CPU, and
    /// what an allocator kept from an earlier round would count as growth or hide it.
    pub(super) fn all_at_once(&mut self) -> Result<Vec<(String, Instant, Outcome, u64)>> {
        let fresh: Vec<(Contender, u16, u16, Rc<Process>)> = self
            .entries
            .drain(..)
            .map(|entry| (entry.contender, entry.setting.listen_port, entry.setting.origin_port, entry.origin))
            .collect();
        for (contender, port, origin_port, origin) in fresh {
            let entry = self.start(&contender, port, origin_port, origin)?;
            self.entries.push(entry);
        }
        let began = Instant::now();
        let seconds = self.case.seconds;
        let mut all = Vec::new();
        for at in (0..self.entries.len()).filter(|&at| !self.entries[at].contender.is_direct()) {
            let plan = self.plan(&self.entries[at], None, seconds);
            all.push((at, self.begin(at, &plan)?));
        }
        let mut outcomes = Vec::new();
        for (at, running) in all {
            let (outcome, events) = self.finish(at, running, seconds)?;
            outcomes.push((self.entries[at].contender.name.clone(), began, outcome, events));
        }
        Ok(outcomes)
    }

    pub(super) fn proxies(&self) -> Vec<String> {
        let proxies = self.entries.iter().filter(|entry| !entry.contender.is_direct());
        proxies.map(|entry| entry.contender.name.clone()).collect()
    }

    /// Ends a contender that gave wrong answers.
    pub(super) fn dismiss(&mut self, name: &str) {
        self.entries.retain(|entry| entry.contender.name != name);
    }

    /// Where the origin and everybody else can be asked: name, process id, and URL or address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, u32, String)> {
        self.entries.iter().map(|entry| {
            let pid = entry.process.as_ref().unwrap_or(&self.origin).pid();
            let plan = self.plan(entry, None, 1.0);
            let path = plan.path.replace("{body}", &plan.body.to_string()).replace("{n}", "0");
            let scheme = if plan.tls == load::Tls::Off { "http" } else { "https" };
            let address = match plan.protocol {
                Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => format!("{scheme}://{}{path}", plan.target),
                _ => plan.target.to_string(),
            };
            (entry.contender.name.as_str(), pid, address)
        })
    }

    /// The load command of the first proxy, for people to repeat by hand.
    pub(super) fn example(&self, rate: Option<f64>) -> String {
        let entry = self.entries.iter().find(|entry| !entry.contender.is_direct());
        let plan = entry.map(|entry| {
            let mut plan = self.plan(entry, rate, self.case.seconds);
            (plan.json, plan.watch) = (false, Vec::new());
            plan
        });
        plan.map_or_else(String::new, |plan| format!("bench-harness {}", plan.arguments().join(" ")))
    }
}

/// This program with other arguments.
fn own(arguments: Vec<String>) -> Result<Start> {
    let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
    Ok(Start { program, arguments, environment: BTreeMap::new() })
}

fn start_origin(case: &Case, place: &Place, directory: &std::path::Path, port: u16) -> Result<Process> {
    let service = match case.protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => "--http",
        Protocol::TcpEcho | Protocol::TlsHello | Protocol::TcpBulk => "--tcp",
        Protocol::UdpEcho => "--udp",
    };
    let mut arguments = vec!["origin".to_owned(), service.to_owned(), format!("{HERE}:{port}")];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("threads", place.load_cores.len().to_string());
    option("delay", case.origin.delay_ms.to_string());
    option("block", case.load.body.clamp(1024, 1 << 20).to_string());
    if let Some(lie) = &case.origin.lie {
        option("lie", lie.clone());
    }
    if case.origin.chunked {
        arguments.push("--chunked".to_owned());
    }
    let start = own(arguments)?;
    let mut origin = Process::start("origin", &start, &place.load_cores, directory)?;
    let out = directory.join("origin.out");
    origin.wait_until(PATIENCE, || {
        let said = std::fs::read_to_string(&out).unwrap_or_default();
        if said.contains("ready") { Ok(()) } else { Err("it has not said that it is".to_owned()) }
    })?;
    Ok(origin)
}

/// A certificate authority and a certificate of it, for one run.
fn certificate(directory: &std::path::Path) -> Result<Certificate> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let what = || "cannot make a certificate".to_owned();
    let authority_key = KeyPair::generate().context(what)?;
    let mut authority = CertificateParams::new(Vec::new()).context(what)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "bench-harness");
    let authority_certificate = authority.self_signed(&authority_key).context(what)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().context(what)?;
    let leaf = CertificateParams::new(vec!["bench.example".to_owned()]).context(what)?;
    let leaf = leaf.signed_by(&key, &issuer).context(what)?;
    let made = Certificate {
        ca: directory.join("ca.pem"),
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
        bundle: directory.join("bundle.pem"),
    };
    let (certificate, key) = (leaf.pem(), key.serialize_pem());
    for (path, text) in [
        (&made.ca, authority_certificate.pem()),
        (&made.certificate, certificate.clone()),
        (&made.key, key.clone()),
        (&made.bundle, certificate + &key),
    ] {
        std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(made)
}
