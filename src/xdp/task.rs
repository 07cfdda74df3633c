//! The thread that owns the engine and the prober: it waits for requests, for changes of the network, for answers to
//! probes, and for times to come.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_core::dsr::abi::Counter;
use ringway_core::dsr::{Transport, VipKey};
use ringway_core::model::DsrService;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::sys::bpf::XdpMode;

use super::engine::{Engine, EngineError, FlowView, ServiceView};
use super::prober::{Prober, Verdict};

/// For an answer of the thread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Something that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);

/// What is happening.
#[derive(Debug, Clone)]
pub struct Status {
    /// The services.
    pub services: Vec<ServiceView>,
    /// Why checks of a service's server fail.
    pub failures: HashMap<(VipKey, IpAddr), String>,
    /// By [`Counter`].
    pub counters: [u64; Counter::ALL.len()],
    /// Interfaces with a program.
    pub interfaces: Vec<(String, Option<XdpMode>)>,
    /// Why there is no guard rule.
    pub guard_error: Option<String>,
    /// Tables filled since the start.
    pub tables_built: u64,
    /// Tables in use.
    pub tables: usize,
    /// Flows remembered.
    pub flows: usize,
    /// Flows that there is room for.
    pub max_flows: u32,
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The server; none: there is none.
    pub server: Option<IpAddr>,
    /// Because it is remembered.
    pub remembered: bool,
}

enum Request {
    Apply(Vec<DsrService>, Sender<Result<(), String>>),
    Status(Sender<Result<Status, String>>),
    Flows(Sender<Result<Vec<FlowView>, String>>),
    Explain(SocketAddr, SocketAddr, Transport, Sender<Result<Option<Destination>, String>>),
    Detach(Sender<Result<(), String>>),
    Stop,
}

/// The thread, from outside. Dropping it ends the thread; what it has set up goes on forwarding.
#[derive(Debug)]
pub struct Dsr {
    requests: Sender<Request>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Dsr {
    /// Takes over what is pinned in the directory, or starts with nothing.
    pub fn start(directory: &Path) -> Result<Self, String> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| errno.to_string())?;
        let wake = Arc::new(wake);
        let (requests, inbox) = mpsc::channel();
        let (opened, open) = mpsc::channel();
        let (directory, woken) = (directory.to_owned(), Arc::clone(&wake));
        let run = move || match Engine::open(&directory) {
            Ok(engine) => {
                // Whoever started the thread waits for this.
                let _told = opened.send(Ok(engine.adopted()));
                Task { directory, engine: Some(engine), prober: Prober::default(), inbox, woken }.run();
            }
            Err(error) => {
                let _told = opened.send(Err(error.to_string()));
            }
        };
        let thread =
            std::thread::Builder::new().name("dsr".to_owned()).spawn(run).map_err(|error| error.to_string())?;
        match open.recv() {
            Ok(Ok(adopted)) => {
                if adopted {
                    tracing::info!("direct server return: taking over what is pinned");
                }
                Ok(Self { requests, wake, thread: Some(thread) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err("the thread for direct server return ended".to_owned()),
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T, String>>) -> Request) -> Result<T, String> {
        let (reply, answer) = mpsc::channel();
        // A thread that has ended drops the other end of the reply.
        let _ended = self.requests.send(request(reply));
        self.wake();
        answer.recv_timeout(ANSWER_TIMEOUT).unwrap_or_else(|error| Err(format!("no answer: {error}")))
    }

    fn wake(&self) {
        // Full: it is awake already.
        let _full = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Makes these the services.
    pub fn apply(&self, services: &[DsrService]) -> Result<(), String> {
        self.ask(|reply| Request::Apply(services.to_vec(), reply))
    }

    /// What is happening.
    pub fn status(&self) -> Result<Status, String> {
        self.ask(Request::Status)
    }

    /// Flows that are remembered.
    pub fn flows(&self) -> Result<Vec<FlowView>, String> {
        self.ask(Request::Flows)
    }

    /// Where a flow goes; none: there is no such service.
    pub fn explain(
        &self,
        client: SocketAddr,
        vip: SocketAddr,
        transport: Transport,
    ) -> Result<Option<Destination>, String> {
        self.ask(|reply| Request::Explain(client, vip, transport, reply))
    }

    /// Ends forwarding: programs, pins and the guard rule go. The next [`Dsr::apply`] starts anew.
    pub fn detach(&self) -> Result<(), String> {
        self.ask(Request::Detach)
    }
}

impl Drop for Dsr {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.requests.send(Request::Stop);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Task {
    directory: PathBuf,
    /// None: it was told to detach.
    engine: Option<Engine>,
    prober: Prober,
    inbox: Receiver<Request>,
    woken: Arc<OwnedFd>,
}

impl Task {
    fn run(mut self) {
        let mut retry: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let deadlines = [self.engine.as_ref().map(Engine::deadline), self.prober.deadline(), retry];
            let deadline = deadlines.into_iter().flatten().min();
            // The retry replaces a deadline that has passed without success.
            let deadline = retry.or(deadline);
            if let Err(error) = self.wait(deadline.map(|at| at.saturating_duration_since(now))) {
                tracing::error!(%error, "direct server return: cannot wait");
                std::thread::park_timeout(RETRY);
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(Request::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Ok(request) => self.answer(request),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            retry = None;
            if let Err(error) = self.tick() {
                tracing::error!(%error, "direct server return");
                retry = Some(Instant::now() + RETRY);
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        let watch = self.engine.as_ref().map(Engine::watch_fd);
        fds.extend(watch.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let probes = self.prober.fds();
        fds.extend(probes.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).expect("not centuries"));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut count = [0; 8];
        // Empty: nobody has woken us.
        let _empty = rustix::io::read(self.woken.as_fd(), &mut count);
        Ok(())
    }

    fn tick(&mut self) -> Result<(), EngineError> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let now = Instant::now();
        engine.tick(now)?;
        for Verdict { service, ip, healthy, why } in self.prober.tick(engine, now) {
            match why {
                Some(why) => tracing::warn!(server = %ip, why, "server is unhealthy"),
                None => tracing::info!(server = %ip, "server is healthy again"),
            }
            engine.set_health(service, ip, healthy, now)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) {
        let gone = || "direct server return was detached; `ringway reload` starts it again".to_owned();
        let text = |error: EngineError| error.to_string();
        // Whoever asked may have gone.
        match request {
            Request::Apply(services, reply) => {
                let _told = reply.send(self.apply(&services));
            }
            Request::Status(reply) => {
                let found = self.engine.as_ref().ok_or_else(gone).and_then(|engine| self.status(engine).map_err(text));
                let _told = reply.send(found);
            }
            Request::Flows(reply) => {
                let _told =
                    reply.send(self.engine.as_ref().ok_or_else(gone).and_then(|each| each.flows().map_err(text)));
            }
            Request::Explain(client, vip, transport, reply) => {
                let engine = self.engine.as_ref().ok_or_else(gone);
                let found = engine.and_then(|engine| engine.explain(client, vip, transport).map_err(text));
                let _told = reply.send(found.map(|found| {
                    found.map(|found| Destination {
                        server: found.map(|(ip, _)| ip),
                        remembered: found.is_some_and(|(_, remembered)| remembered),
                    })
                }));
            }
            Request::Detach(reply) => {
                self.prober = Prober::default();
                let done = match self.engine.take() {
                    Some(engine) => engine.detach(),
                    None => super::engine::detach_all(&self.directory),
                };
                let _told = reply.send(done.map_err(text));
            }
            Request::Stop => {}
        }
    }

    fn apply(&mut self, services: &[DsrService]) -> Result<(), String> {
        let engine = match &mut self.engine {
            Some(engine) => engine,
            None => self.engine.insert(Engine::open(&self.directory).map_err(|error| error.to_string())?),
        };
        let now = Instant::now();
        engine.apply(services, now).map_err(|error| error.to_string())?;
        self.prober.set(services, now);
        Ok(())
    }

    fn status(&self, engine: &Engine) -> Result<Status, EngineError> {
        let (tables_built, tables) = engine.tables();
        let (flows, max_flows) = engine.flow_count()?;
        Ok(Status {
            services: engine.services()?,
            failures: self.prober.failures(),
            counters: engine.counters()?,
            interfaces: engine.attached().map(|(name, mode)| (name.to_owned(), mode)).collect(),
            guard_error: engine.guard_error().map(str::to_owned),
            tables_built,
            tables,
            flows,
            max_flows,
        })
    }
}
