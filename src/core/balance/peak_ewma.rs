//! Peak EWMA: latency times load, with bad news believed at once and good news slowly.
//!
//! After Finagle's balancer of that name: an endpoint's latency is an exponentially weighted moving average that jumps
//! to a sample above it and decays towards samples below it, so that an endpoint that turns slow is avoided from its
//! first slow answer on, and tried again as the memory fades. What is compared is that latency times the number of
//! requests in flight.

use super::least_request::{Load, another};

/// How long a latency is remembered: after this much time, 37 % of it counts, in milliseconds.
const DECAY_MILLIS: f64 = 10_000.0;

/// The cost of an endpoint that is busy and has never answered, in microseconds: a second.
const UNKNOWN: f64 = 1_000_000.0;

/// What is known of an endpoint's latency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PeakEwma {
    micros: f64,
    /// When it was last right, in milliseconds.
    at: u64,
}

impl PeakEwma {
    /// Takes a sample in, seen at `now` (in milliseconds of any clock that does not go back).
    pub fn observe(&mut self, micros: u32, now: u64) {
        let sample = f64::from(micros).max(1.0);
        self.micros = if sample > self.micros {
            sample
        } else {
            let keep = fade(now.saturating_sub(self.at));
            self.micros * keep + sample * (1.0 - keep)
        };
        self.at = now;
    }

    /// What the next request would cost there.
    pub fn cost(&self, load: Load, now: u64) -> f64 {
        let queue = f64::from(load.in_flight) + 1.0;
        #[allow(clippy::cast_precision_loss, reason = "weights are far below 2^52")]
        let weight = load.weight as f64;
        let latency = match self.micros * fade(now.saturating_sub(self.at)) {
            known if self.micros > 0.0 => known,
            // Never seen: free while idle, so that it is tried.
            _ if load.in_flight == 0 => 0.0,
            _ => UNKNOWN,
        };
        latency * queue / weight
    }
}

fn fade(millis: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a span of time, not an identity")]
    let millis = millis as f64;
    (-millis / DECAY_MILLIS).exp()
}

/// Picks among `count` endpoints: the one whose `turn` it is, or a random other one that costs less.
pub fn pick(count: usize, turn: usize, random: u64, cost: impl Fn(usize) -> f64) -> usize {
    let other = another(count, turn, random);
    if cost(other) < cost(turn) { other } else { turn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Load {
        Load { in_flight: 0, weight: 1 }
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let mut seen = PeakEwma::default();
        seen.observe(1_000, 0);
        seen.observe(100_000, 10);
        assert!((seen.cost(idle(), 10) - 100_000.0).abs() < 1.0);
        // Fast answers right after it change little; ten seconds of them do.
        seen.observe(1_000, 20);
        assert!(seen.cost(idle(), 20) > 95_000.0);
        for second in 1..=60 {
            seen.observe(1_000, 20 + second * 1_000);
        }
        assert!(seen.cost(idle(), 60_020) < 1_500.0);
    }

    #[test]
    fn nothing_heard_for_long_is_forgotten() {
        let mut seen = PeakEwma::default();
        seen.observe(1_000_000, 0);
        assert!(seen.cost(idle(), 100_000) < 100.0);
    }

    #[test]
    fn the_unknown_is_tried_once() {
        let seen = PeakEwma::default();
        assert!(seen.cost(idle(), 5) < f64::EPSILON);
        assert!(seen.cost(Load { in_flight: 1, weight: 1 }, 5) >= UNKNOWN);
    }

    #[test]
    fn load_and_weight_count() {
        let mut seen = PeakEwma::default();
        seen.observe(1_000, 0);
        let cost = |in_flight, weight| seen.cost(Load { in_flight, weight }, 0);
        assert!((cost(3, 1) / cost(0, 1) - 4.0).abs() < 1e-9);
        assert!((cost(0, 1) / cost(0, 2) - 2.0).abs() < 1e-9);
        assert_eq!(pick(2, 0, 0, |index| [2.0, 1.0][index]), 1);
        assert_eq!(pick(2, 0, 0, |index| [1.0, 1.0][index]), 0);
    }
}
