//! A backend's retry budget over all cores: each has counts of its own, which it alone writes and the others read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringway_core::model::RetryBudget;
use ringway_core::retry::{SLOTS, Turn, Window};

/// What all cores have sent to a backend, and sent again; kept across reloads that leave its settings as they are.
#[derive(Debug)]
pub struct Budget {
    settings: RetryBudget,
    began: Instant,
    /// Of `settings.interval`.
    window: Window,
    /// Of `settings.min_interval`.
    floor: Window,
    cores: Box<[Counts]>,
}

/// One core's counts.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    /// Sent, and sent again.
    requests: [AtomicU64; SLOTS],
    retries: [AtomicU64; SLOTS],
    /// In the interval of the least rate.
    recent: [AtomicU64; SLOTS],
}

fn add(counts: &[AtomicU64; SLOTS], turn: Turn) {
    // Not a read-modify-write: there is one writer.
    let number = &counts[turn.slot()];
    number.store(turn.counted(number.load(Ordering::Relaxed)), Ordering::Relaxed);
}

impl Budget {
    /// For this many cores.
    pub fn new(settings: RetryBudget, cores: usize) -> Self {
        let window =
            |interval: std::time::Duration| Window::new(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
        Self {
            settings,
            began: Instant::now(),
            window: window(settings.interval),
            floor: window(settings.min_interval),
            cores: (0..cores).map(|_| Counts::default()).collect(),
        }
    }

    /// What it was made for.
    pub fn settings(&self) -> &RetryBudget {
        &self.settings
    }

    fn sum(&self, of: impl Fn(&Counts) -> &[AtomicU64; SLOTS], turn: Turn) -> u64 {
        self.cores.iter().flat_map(of).map(|number| turn.worth(number.load(Ordering::Relaxed))).sum()
    }
}

/// A backend's retry budget as one core sees it.
#[derive(Debug, Clone)]
pub struct CoreBudget {
    /// All cores'.
    pub shared: Arc<Budget>,
    /// This one.
    pub core: usize,
}

impl CoreBudget {
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.shared.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// A request is sent for the first time.
    pub fn sent(&self, at: Instant) {
        let turn = self.shared.window.turn(self.millis(at));
        add(&self.shared.cores[self.core].requests, turn);
    }

    /// Whether a request may be sent again, which is counted. Cores that ask at the same moment do not see each other, so
    /// there may be as many too many as there are cores.
    pub fn try_retry(&self, at: Instant) -> bool {
        let Budget { settings, window, floor, cores, .. } = &*self.shared;
        let (turn, recent) = (window.turn(self.millis(at)), floor.turn(self.millis(at)));
        let requests = self.shared.sum(|core| &core.requests, turn);
        let retries = self.shared.sum(|core| &core.retries, turn);
        let recent_retries = self.shared.sum(|core| &core.recent, recent);
        let allowed = settings.allows(requests, retries, recent_retries);
        if allowed {
            let own = &cores[self.core];
            add(&own.requests, turn);
            add(&own.retries, turn);
            add(&own.recent, recent);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_share_a_budget() {
        let settings = RetryBudget { min_count: 2, ..RetryBudget::default() };
        let shared = Arc::new(Budget::new(settings, 2));
        let [one, two] = [0, 1].map(|core| CoreBudget { shared: Arc::clone(&shared), core });
        let at = Instant::now();
        // The least rate is for both together.
        assert!(one.try_retry(at) && two.try_retry(at));
        assert!(!one.try_retry(at) && !two.try_retry(at));
        (0..48).for_each(|_| one.sent(at));
        // 10 of 50, of which two have been used.
        let passed = (0..100).filter(|index| if index % 2 == 0 { &one } else { &two }.try_retry(at)).count();
        assert_eq!(passed, 10);
    }
}
