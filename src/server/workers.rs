//! The worker threads, from the outside.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use crate::metrics::LatencySnapshot;
use crate::rt::{self, Driver};
use crate::session::SessionKeys;
use crate::tls::TicketRing;
use crate::worker::{self, Message, Settings};

use super::Event;
use super::generation::Generations;

/// How long a scrape waits for the workers' histograms.
const LATENCIES_TIMEOUT: Duration = Duration::from_secs(1);

/// What will be started.
pub(super) struct Plan {
    settings: Vec<Settings>,
    /// By worker; none where the machine does not say which it has.
    cores: Vec<Option<core_affinity::CoreId>>,
}

/// What runs.
pub(super) struct Workers {
    senders: Vec<rt::Sender<Message>>,
}

impl Plan {
    /// The workers' cores, whether or not they are pinned to them.
    pub(super) fn cores(&self) -> impl Iterator<Item = Option<usize>> {
        self.cores.iter().map(|core| core.map(|core| core.id))
    }

    /// Starts the threads.
    pub(super) fn start(self, generations: &Generations, events: &Sender<Event>) -> io::Result<Workers> {
        let mut senders = Vec::new();
        let remains = worker::collect()?;
        for settings in self.settings {
            let (sender, inbox) = rt::mailbox()?;
            let metrics = generations.registry().unbound(settings.id);
            let events = events.clone();
            let id = settings.id;
            let remains = remains.clone();
            let run = move || {
                let seed = seed();
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    worker::run(settings, seed, metrics, inbox, remains)
                }));
                let result = match ended {
                    Ok(Ok(drained)) => Ok(drained.cut),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("it panicked".to_owned()),
                };
                // The control thread may be ending already.
                let _told = events.send(Event::WorkerEnded(id, result));
            };
            std::thread::Builder::new().name(format!("worker-{id}")).spawn(run)?;
            senders.push(sender);
        }
        Ok(Workers { senders })
    }
}

/// A seed that differs between workers and runs: the hasher's keys are random.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

impl Workers {
    /// As many as asked for, or one per core that this process may use; pinned in turn.
    pub(super) fn plan(count: Option<usize>, pin: bool, driver: Driver, descriptors: u64) -> Plan {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let count = count.unwrap_or(cores.len()).max(1);
        // The rest is for files, pipes and the admin server.
        let streams = usize::try_from(descriptors / 10 * 9).unwrap_or(usize::MAX) / count;
        let cores: Vec<_> = (0..count).map(|id| cores.get(id % cores.len().max(1)).copied()).collect();
        let settings = cores
            .iter()
            .enumerate()
            .map(|(id, core)| Settings { id, driver, pin: core.filter(|_| pin), max_streams: streams.max(8) })
            .collect();
        Plan { settings, cores }
    }

    pub(super) fn count(&self) -> usize {
        self.senders.len()
    }

    pub(super) fn send(&self, worker: usize, message: Message) {
        self.senders[worker].send(message);
    }

    pub(super) fn ticket_keys(&self, ring: &Arc<TicketRing>) {
        for sender in &self.senders {
            sender.send(Message::TicketKeys(Arc::clone(ring)));
        }
    }

    pub(super) fn session_keys(&self, keys: &Arc<SessionKeys>) {
        for sender in &self.senders {
            sender.send(Message::SessionKeys(Arc::clone(keys)));
        }
    }

    pub(super) fn drain(&self, limit: Duration) {
        for sender in &self.senders {
            sender.send(Message::Drain(limit));
        }
    }

    /// Copies of every worker's latencies; one that is busy for too long is left out.
    pub(super) fn latencies(&self) -> Vec<LatencySnapshot> {
        let (reply, answers) = mpsc::channel();
        for sender in &self.senders {
            sender.send(Message::Latencies(reply.clone()));
        }
        drop(reply);
        let mut found = Vec::new();
        while found.len() < self.senders.len() {
            match answers.recv_timeout(LATENCIES_TIMEOUT) {
                Ok(snapshot) => found.push(snapshot),
                Err(_) => break,
            }
        }
        found
    }
}
