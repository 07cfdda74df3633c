//! Rate limits by the generic cell rate algorithm: one number per key, exact, without timers.

/// A limit. Times are nanoseconds on any clock that does not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Between two requests at the limit's pace.
    interval: u64,
    /// How far ahead of that pace requests may be.
    tolerance: u64,
}

impl Gcra {
    /// `requests` in `nanos`, and `burst` at once; all are 1 at least.
    pub fn new(requests: u64, nanos: u64, burst: u64) -> Self {
        let interval = (nanos / requests.max(1)).max(1);
        Self { interval, tolerance: interval.saturating_mul(burst.max(1) - 1) }
    }

    /// Judges a request at `now`, when the key's number is `due` (0 for a new key): its number from here on, or how long
    /// until a request would pass.
    pub fn judge(&self, due: u64, now: u64) -> Result<u64, u64> {
        let due = due.max(now);
        let ahead = due - now;
        if ahead > self.tolerance { Err(ahead - self.tolerance) } else { Ok(due.saturating_add(self.interval)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Over any time, what passes is the burst and the pace, whatever the order of arrivals.
    #[test]
    fn what_passes_is_the_burst_and_the_pace() {
        for (requests, burst) in [(1, 1), (10, 1), (10, 5), (100, 100), (7, 3)] {
            let limit = Gcra::new(requests, SECOND, burst);
            let (mut due, mut passed) = (0, 0);
            for step in 0..100_000_u64 {
                // Ten seconds, asked all the time.
                if let Ok(next) = limit.judge(due, step * SECOND / 10_000) {
                    due = next;
                    passed += 1;
                }
            }
            let expected = requests * 10 + burst - 1;
            assert!(u64::abs_diff(passed, expected) <= 1, "{requests} {burst}: {passed}");
        }
    }

    #[test]
    fn waits_are_exact() {
        let limit = Gcra::new(2, SECOND, 1);
        let due = limit.judge(0, 10 * SECOND).unwrap();
        assert_eq!(limit.judge(due, 10 * SECOND), Err(SECOND / 2));
        assert_eq!(limit.judge(due, 10 * SECOND + SECOND / 4), Err(SECOND / 4));
        assert!(limit.judge(due, 10 * SECOND + SECOND / 2).is_ok());
        assert!(limit.judge(0, 0).is_ok());
    }
}
