//! Retry budgets (GEP-3388): how much of what a backend gets may be requests that are sent again.
//!
//! Requests are counted in tenths of an interval, one number each, so that a core's counts can be atomics that it alone
//! writes and others read. Nothing is ever reset: a number says which tenth it is of, and is worth nothing once that
//! has passed.

use crate::model::RetryBudget;

/// Tenths.
pub const SLOTS: usize = 10;

/// Counts of the last interval. Times are milliseconds since any moment that all who share the counts agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    slot: u64,
}

/// A tenth of an interval, counted from the beginning of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(u32);

impl Window {
    /// Over `interval` milliseconds, 10 at least.
    pub fn new(interval: u64) -> Self {
        Self { slot: (interval / SLOTS as u64).max(1) }
    }

    /// The tenth in which `now` is. They are told apart for four billion tenths.
    #[allow(clippy::cast_possible_truncation, reason = "turns are compared modulo 2^32")]
    pub fn turn(self, now: u64) -> Turn {
        Turn((now / self.slot) as u32)
    }
}

impl Turn {
    /// Which number counts for it.
    pub fn slot(self) -> usize {
        self.0 as usize % SLOTS
    }

    /// That number, which was `number`, with one more.
    #[must_use]
    pub fn counted(self, number: u64) -> u64 {
        let count = if number >> 32 == u64::from(self.0) { number & u64::from(u32::MAX) } else { 0 };
        u64::from(self.0) << 32 | (count + 1).min(u64::from(u32::MAX))
    }

    /// What a number is worth in the interval that ends with this tenth.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of the number")]
    pub fn worth(self, number: u64) -> u64 {
        let age = self.0.wrapping_sub((number >> 32) as u32);
        // Another core may be ahead by the time that it took to ask.
        let recent = (age as usize) < SLOTS || age == u32::MAX;
        if recent { number & u64::from(u32::MAX) } else { 0 }
    }
}

impl RetryBudget {
    /// Whether another request may be sent again, when `retries` of the `requests` of the last interval, which include
    /// them, were that, and `recent` in that of the least rate.
    pub fn allows(&self, requests: u64, retries: u64, recent: u64) -> bool {
        recent < u64::from(self.min_count) || (retries + 1) * 100 <= (requests + 1) * u64::from(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::balance::hash;

    const CORES: usize = 3;

    /// As the shell has it: numbers per core.
    #[derive(Default)]
    struct Counts([[u64; SLOTS]; CORES]);

    impl Counts {
        fn add(&mut self, core: usize, turn: Turn) {
            let number = &mut self.0[core][turn.slot()];
            *number = turn.counted(*number);
        }

        fn sum(&self, turn: Turn) -> u64 {
            self.0.iter().flatten().map(|number| turn.worth(*number)).sum()
        }
    }

    #[test]
    fn what_is_older_than_the_interval_is_worth_nothing() {
        let window = Window::new(1000);
        let mut counts = Counts::default();
        for _ in 0..5 {
            counts.add(0, window.turn(10_050));
        }
        counts.add(1, window.turn(10_950));
        for (now, expected) in
            [(10_099, 5), (10_950, 6), (10_999, 6), (11_000, 1), (11_899, 1), (11_900, 0), (99_999, 0)]
        {
            assert_eq!(counts.sum(window.turn(now)), expected, "{now}");
        }
        // The place of the first is taken over, not added to.
        counts.add(0, window.turn(12_050));
        assert_eq!(counts.sum(window.turn(12_050)), 1);
    }

    #[test]
    fn turns_go_round() {
        let last = Turn(u32::MAX);
        let next = Turn(0);
        let number = last.counted(last.counted(0));
        assert_eq!((next.worth(number), Turn(8).worth(number), Turn(9).worth(number)), (2, 2, 0));
        // A core that is behind sees what one ahead has counted.
        assert_eq!(last.worth(next.counted(0)), 1);
        assert_eq!(Turn(5).counted(5 << 32 | u64::from(u32::MAX)), 5 << 32 | u64::from(u32::MAX));
    }

    #[test]
    fn the_share_includes_what_is_sent_again() {
        let budget = RetryBudget { min_count: 1, ..RetryBudget::default() };
        assert!(budget.allows(0, 0, 0));
        assert!(!budget.allows(1, 0, 1));
        // 200 of 1000 (GEP-3388's own example).
        assert!(budget.allows(999, 199, 1));
        assert!(!budget.allows(999, 200, 1));
        assert!(RetryBudget { percent: 100, ..budget }.allows(10, 10, 99));
        assert!(!RetryBudget { percent: 0, ..budget }.allows(1_000_000, 0, 1));
    }

    /// Against a list of everything that has happened, by seed: the same judgement each time, and no more than the
    /// budget over any whole interval.
    #[test]
    fn simulated_retries_keep_to_the_budget() {
        for seed in 0..40_u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                hash::finish(state) % below
            };
            let budget = RetryBudget {
                percent: u32::try_from(random(101)).unwrap(),
                interval: Duration::from_millis(1000 + random(9000)),
                min_count: u32::try_from(1 + random(20)).unwrap(),
                min_interval: Duration::from_millis(100 + random(2000)),
            };
            let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
            let window = Window::new(millis(budget.interval));
            let floor = Window::new(millis(budget.min_interval));
            let (mut requests, mut retries, mut recent) = (Counts::default(), Counts::default(), Counts::default());
            let (mut sent, mut again): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            let mut now = random(1 << 40);
            let pace = 1 + random(60);
            for _ in 0..4000 {
                now += random(pace);
                let core = usize::try_from(random(CORES as u64)).unwrap();
                let (turn, floor_turn) = (window.turn(now), floor.turn(now));
                if random(3) > 0 {
                    requests.add(core, turn);
                    sent.push(now);
                    continue;
                }
                let since = |all: &[u64], window: Window| {
                    let oldest = (now / window.slot).saturating_sub(SLOTS as u64 - 1) * window.slot;
                    all.iter().rev().take_while(|at| **at >= oldest).count() as u64
                };
                let (in_all, of_them, lately) = (since(&sent, window), since(&again, window), since(&again, floor));
                let counted = (requests.sum(turn), retries.sum(turn), recent.sum(floor_turn));
                assert_eq!(counted, (in_all, of_them, lately), "seed {seed} at {now}");
                if budget.allows(counted.0, counted.1, counted.2) {
                    requests.add(core, turn);
                    retries.add(core, turn);
                    recent.add(core, floor_turn);
                    sent.push(now);
                    again.push(now);
                    let share = (of_them + 1) * 100 <= (in_all + 1) * u64::from(budget.percent);
                    assert!(share || lately < u64::from(budget.min_count), "seed {seed} at {now}");
                } else {
                    assert!(lately >= u64::from(budget.min_count), "seed {seed} at {now}: less than the least rate");
                }
            }
            assert!(!again.is_empty(), "seed {seed}");
        }
    }
}
