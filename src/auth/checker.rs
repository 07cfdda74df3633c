//! The thread that computes hashes, and how a core waits for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver as Queue, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use super::{Claim, Known};
use crate::rt::{self, Sender, Signal, mailbox};

/// Passwords that wait to be checked, of all cores. At 50 ms each, the last one waits for three seconds.
const QUEUE_LIMIT: usize = 64;

/// A password on its way.
#[derive(Debug)]
struct Job {
    claim: Claim,
    ticket: u64,
    answers: Sender<Checked>,
    /// Gone when nobody waits for it any more.
    wanted: Weak<()>,
}

/// What has been found of one.
#[derive(Debug)]
pub struct Checked {
    ticket: u64,
    right: bool,
}

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What a request is told of its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Right,
    /// It is not, or there is nobody of the name.
    Wrong,
    /// It could not be looked at: too many wait.
    Busy,
}

/// A core's way to the thread.
#[derive(Debug)]
pub struct Checker {
    answers: RefCell<Option<Sender<Checked>>>,
    waiting: Rc<RefCell<HashMap<u64, Rc<Wait>>>>,
    next: Cell<u64>,
    known: Known,
}

#[derive(Debug, Default)]
struct Wait {
    ended: Signal,
    right: Cell<bool>,
}

impl Default for Checker {
    fn default() -> Self {
        Self { answers: RefCell::default(), waiting: Rc::default(), next: Cell::new(0), known: Known::new() }
    }
}

impl Checker {
    /// What the core knows already.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Checks a password; what is right is known from here on.
    pub async fn check(&self, claim: Claim) -> Verdict {
        let tag = claim.tag;
        let Ok(right) = self.ask(claim).await else { return Verdict::Busy };
        match tag.filter(|_| right) {
            Some(tag) => {
                self.known.learn(tag, Instant::now());
                Verdict::Right
            }
            None => Verdict::Wrong,
        }
    }

    async fn ask(&self, claim: Claim) -> Result<bool, Busy> {
        let answers = self.answers().map_err(|_no_descriptor| Busy)?;
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        let wait = Rc::new(Wait::default());
        self.waiting.borrow_mut().insert(ticket, Rc::clone(&wait));
        let place = Place { of: &self.waiting, ticket, wanted: Arc::default() };
        match thread().try_send(Job { claim, ticket, answers, wanted: Arc::downgrade(&place.wanted) }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(Busy),
        }
        wait.ended.wait().await;
        Ok(wait.right.get())
    }

    /// Where answers go; the task that takes them is started with the first question.
    fn answers(&self) -> io::Result<Sender<Checked>> {
        if let Some(known) = &*self.answers.borrow() {
            return Ok(known.clone());
        }
        let (sender, receiver) = mailbox()?;
        let mut inbox = receiver.open()?;
        let waiting = Rc::clone(&self.waiting);
        rt::spawn(async move {
            while let Ok(Checked { ticket, right }) = inbox.next().await {
                if let Some(wait) = waiting.borrow_mut().remove(&ticket) {
                    wait.right.set(right);
                    wait.ended.raise();
                }
            }
        });
        *self.answers.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}

/// One that no longer waits leaves nothing behind.
struct Place<'w> {
    of: &'w RefCell<HashMap<u64, Rc<Wait>>>,
    ticket: u64,
    wanted: Arc<()>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.borrow_mut().remove(&self.ticket);
    }
}

/// The queue of the one thread of this process, which is started with the first question.
fn thread() -> &'static SyncSender<Job> {
    static THREAD: OnceLock<SyncSender<Job>> = OnceLock::new();
    THREAD.get_or_init(|| {
        let (sender, queue) = sync_channel(QUEUE_LIMIT);
        let started = std::thread::Builder::new().name("passwords".to_owned()).spawn(move || run(&queue));
        if let Err(error) = started {
            // The queue is gone with it: everybody is told that it is busy.
            tracing::error!(%error, "cannot start the thread that checks passwords");
        }
        sender
    })
}

fn run(queue: &Queue<Job>) {
    while let Ok(Job { claim, ticket, answers, wanted }) = queue.recv() {
        if wanted.strong_count() == 0 {
            continue;
        }
        let right = claim.is_right();
        drop(claim);
        answers.send(Checked { ticket, right });
    }
}
