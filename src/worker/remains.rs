//! What is left of generations that nobody uses any more.
//!
//! Ten thousand routes take milliseconds to free, and the last one to hold a generation can be any request. So its
//! parts are not freed where it ends: what any thread may free goes to one that does nothing else, and what only this core
//! may is freed piece by piece, between other turns of its loop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::generation::Splits;
use crate::metrics::WorkerMetrics;
use crate::rt;
use crate::snapshot::Snapshot;
use crate::upstream::Balanced;

/// Parts of a generation that any thread may free.
#[derive(Debug)]
pub struct Remains {
    /// The shared part, of which this may be the last.
    pub(super) _shared: Arc<Snapshot>,
    /// Holds on counters.
    pub(super) _metrics: WorkerMetrics,
    /// State of splits.
    pub(super) _splits: Splits,
}

/// Starts the thread that frees what is sent to it, for as long as somebody may send something.
pub fn collect() -> std::io::Result<Sender<Remains>> {
    let (sender, remains) = mpsc::channel::<Remains>();
    std::thread::Builder::new().name("remains".to_owned()).spawn(move || remains.into_iter().for_each(drop))?;
    Ok(sender)
}

/// Items that are looked at in one turn of the loop: some 100 us.
const PIECE: usize = 256;

/// A long piece of work, cut into turns of the loop.
#[derive(Debug, Default)]
pub(super) struct Pieces(Cell<usize>);

impl Pieces {
    /// One more item: after so many, others have their turn first.
    pub(super) async fn next(&self) {
        let count = self.0.get() + 1;
        self.0.set(count % PIECE);
        if count == PIECE {
            rt::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A core's place for what has ended.
#[derive(Debug, Clone)]
pub(super) struct Graves {
    elsewhere: Sender<Remains>,
    backends: Rc<RefCell<Vec<Rc<Balanced>>>>,
}

impl Graves {
    pub(super) fn new(elsewhere: Sender<Remains>) -> Self {
        Self { elsewhere, backends: Rc::default() }
    }

    /// Takes the parts of a generation.
    pub(super) fn take(&self, remains: Remains, backends: Vec<Rc<Balanced>>) {
        // At the end of the process nobody may be there any more: then it is freed here.
        drop(self.elsewhere.send(remains));
        if backends.len() <= PIECE {
            return;
        }
        let mut waiting = self.backends.borrow_mut();
        if waiting.is_empty() {
            *waiting = backends;
        } else {
            waiting.extend(backends);
        }
    }

    /// Frees what waits, a piece in each turn.
    pub(super) async fn free(&self) {
        loop {
            let piece = {
                let mut waiting = self.backends.borrow_mut();
                let from = waiting.len().saturating_sub(PIECE);
                waiting.split_off(from)
            };
            if piece.is_empty() {
                self.backends.take();
                return;
            }
            drop(piece);
            rt::sleep(Duration::from_millis(1)).await;
        }
    }
}
