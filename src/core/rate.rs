//! Rate limits by the generic cell rate algorithm: exact, without timers, and in shares that cores count for themselves.
//!
//! A key's state is when its next request is due. Here that is put together from what cores have let pass: every core
//! has a [`Share`] that only it writes, and a decision takes its own and those of the others as they can be read. Shares
//! are numbers that only grow, so in whatever order they are seen, nothing is counted twice and nothing is lost for
//! good: what one core has let pass and another has not seen yet is in that one's next decision.
//!
//! # The error
//!
//! Where every share is seen as it is, decisions are those of one counter: a client on one core has its whole rate, and
//! one that is spread over all of them the same and no more. Cores that decide about one key at the same time may not see
//! each other. With `n` cores each of which has at most `m` requests of a key passed and unseen, no more than
//! `(n - 1) * m` requests pass over the limit, in any time, however long: they are seen later and then count. `m` is what a core
//! lets pass until a store of its own can be loaded elsewhere, some 100 ns; in practice 1.

/// A limit. Times are nanoseconds on any clock that does not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Between two requests at the limit's pace.
    interval: u64,
    /// How far ahead of that pace requests may be.
    tolerance: u64,
}

/// What one core says of a key. It writes `base` before `passed`, and who reads it reads them the other way round: a
/// request must not be seen without what it was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Requests that it has let pass.
    pub passed: u64,
    /// When the first request was due, if every one since had followed at the limit's pace: moved on whenever the key has
    /// been idle. The latest of all cores counts.
    pub base: i64,
}

impl Share {
    /// Of a core that has not seen the key.
    pub const NONE: Self = Self { passed: 0, base: i64::MIN };

    fn with(self, other: Self) -> Self {
        Self { passed: self.passed.saturating_add(other.passed), base: self.base.max(other.base) }
    }
}

impl Gcra {
    /// `requests` in `nanos`, and `burst` at once; all are 1 at least.
    pub fn new(requests: u64, nanos: u64, burst: u64) -> Self {
        let interval = (nanos / requests.max(1)).max(1);
        Self { interval, tolerance: interval.saturating_mul(burst.max(1) - 1) }
    }

    /// Judges a request at `now` by the core's `own` share of its key and what it sees of the `others`': its share from here on,
    /// or how long until a request would pass.
    pub fn judge(&self, own: Share, others: impl Iterator<Item = Share>, now: u64) -> Result<Share, u64> {
        let all = others.fold(own, Share::with);
        let ahead = self.ahead(all, now);
        if ahead > i128::from(self.tolerance) {
            let wait = ahead - i128::from(self.tolerance);
            return Err(u64::try_from(wait).unwrap_or(u64::MAX));
        }
        // What others have moved on is said by this core too: who sees one of its requests sees what it was judged by.
        let base = if ahead < 0 { saturated(i128::from(all.base) - ahead) } else { all.base };
        Ok(Share { passed: own.passed.saturating_add(1), base })
    }

    /// How far ahead of the limit's pace a key with these shares is, in nanoseconds; 0 when it could be forgotten.
    pub fn debt(&self, shares: impl Iterator<Item = Share>, now: u64) -> u64 {
        let ahead = self.ahead(shares.fold(Share::NONE, Share::with), now).max(0);
        u64::try_from(ahead).unwrap_or(u64::MAX)
    }

    fn ahead(&self, all: Share, now: u64) -> i128 {
        let used = i128::from(self.interval).saturating_mul(i128::from(all.passed));
        used.saturating_add(i128::from(all.base)) - i128::from(now)
    }
}

fn saturated(time: i128) -> i64 {
    i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Over any time, what passes is the burst and the pace, whatever the order of arrivals.
    #[test]
    fn what_passes_is_the_burst_and_the_pace() {
        for (requests, burst) in [(1, 1), (10, 1), (10, 5), (100, 100), (7, 3)] {
            let limit = Gcra::new(requests, SECOND, burst);
            let (mut share, mut passed) = (Share::NONE, 0);
            for step in 0..100_000_u64 {
                // Ten seconds, asked all the time.
                if let Ok(next) = limit.judge(share, iter::empty(), step * SECOND / 10_000) {
                    share = next;
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
        let judge = |share, now| limit.judge(share, iter::empty(), now);
        let share = judge(Share::NONE, 10 * SECOND).unwrap();
        assert_eq!(judge(share, 10 * SECOND), Err(SECOND / 2));
        assert_eq!(judge(share, 10 * SECOND + SECOND / 4), Err(SECOND / 4));
        assert!(judge(share, 10 * SECOND + SECOND / 2).is_ok());
        assert!(judge(Share::NONE, 0).is_ok());
        assert_eq!(limit.debt(iter::once(share), 10 * SECOND + SECOND / 4), SECOND / 4);
        assert_eq!(limit.debt([Share::NONE, share].into_iter(), 11 * SECOND), 0);
    }

    #[test]
    fn a_limit_without_end_does_not_overflow() {
        let limit = Gcra::new(1, u64::MAX, u64::MAX);
        let share = Share { passed: u64::MAX, base: i64::MAX };
        assert_eq!(limit.judge(share, iter::once(share), 0), Err(u64::MAX));
        assert!(limit.judge(Share::NONE, iter::once(Share::NONE), u64::MAX).is_ok());
    }
}
