//! Active health checks of one target: when to probe, and what the outcomes mean.
//!
//! ```text
//!              `fall` failures in a row
//!   healthy  ------------------------------>  unhealthy
//!            <------------------------------
//!              `rise` successes in a row
//! ```
//! The shell asks [`Checker::poll`] for a probe when [`Checker::deadline`] has come, makes it, and reports by
//! [`Checker::succeeded`] or [`Checker::failed`]. One probe is under way at a time; one that is not reported in time
//! has failed. After the first failure the next probe comes sooner, so that a death is noticed after about
//! `interval + fall * fast_interval`, and a recovery likewise; jitter keeps the probes of many targets apart.
//!
//! A target that fails again soon after a recovery is flapping: every such fall doubles the successes that the next
//! recovery takes, up to [`MAX_DAMPING`] times `rise`. One that stays healthy for [`CALM`] intervals is trusted again.

use std::time::Duration;

/// A recovery that lasts this many intervals was none of a flapping target.
pub const CALM: u32 = 10;
/// Of a flapping target at most this many times as many successes are asked.
pub const MAX_DAMPING: u32 = 16;

/// What is asked of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// That it accepts a connection.
    Tcp,
    /// That it answers an HTTP/1.1 request with an expected status.
    Http {
        /// The request's target.
        path: String,
        /// The request's Host.
        host: String,
        /// Statuses that are taken as success, both ends included.
        statuses: Vec<(u16, u16)>,
    },
}

/// How a target is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCheck {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked; none: the one that traffic goes to.
    pub port: Option<u16>,
    /// Between two probes of a target that does not change.
    pub interval: Duration,
    /// Between two probes when the last one contradicted the state.
    pub fast_interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Successes in a row that make a target healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(3),
            fast_interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// Nothing came in time.
    Timeout,
    /// The connection was refused or reset.
    Refused,
    /// An HTTP status that is not expected.
    Status(u16),
    /// The answer was not HTTP.
    Malformed,
    /// It could not be asked.
    Local(String),
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Refused => f.write_str("connection refused"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Malformed => f.write_str("not an HTTP answer"),
            Self::Local(why) => write!(f, "could not be asked: {why}"),
        }
    }
}

/// The state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It can be used again.
    Healthy,
    /// It cannot.
    Unhealthy,
}

/// What a target is doing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for its next probe.
    Waiting { until: Duration },
    /// Is being probed.
    Probing { until: Duration },
}

/// The state of one target. Times are durations since any fixed moment.
#[derive(Debug, Clone)]
pub struct Checker {
    check: ActiveCheck,
    healthy: bool,
    /// Outcomes in a row that contradict the state.
    against: u32,
    /// How many times `rise` the next recovery takes.
    damping: u32,
    /// When it has recovered last.
    recovered: Option<Duration>,
    phase: Phase,
    last_error: Option<ProbeError>,
    random: u64,
}

impl Checker {
    /// A target that is taken as healthy until it fails: at a start or reload nothing is cut off on suspicion. Its
    /// first probe comes within an interval, at a moment that depends on `seed`.
    pub fn new(check: ActiveCheck, now: Duration, seed: u64) -> Self {
        let mut checker = Self {
            check,
            healthy: true,
            against: 0,
            damping: 1,
            recovered: None,
            phase: Phase::Waiting { until: now },
            last_error: None,
            random: seed,
        };
        let first = checker.check.fast_interval.mul_f64(checker.fraction());
        checker.phase = Phase::Waiting { until: now + first };
        checker
    }

    /// Between 0 and 1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        f64::from(u32::try_from(mixed >> 32).expect("32 bits")) / f64::from(u32::MAX)
    }

    /// Whether it can be used.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Why the last probe failed, if it did.
    pub fn last_error(&self) -> Option<&ProbeError> {
        self.last_error.as_ref()
    }

    /// How it is checked.
    pub fn check(&self) -> &ActiveCheck {
        &self.check
    }

    /// When [`Checker::poll`] has something to do.
    pub fn deadline(&self) -> Duration {
        match self.phase {
            Phase::Waiting { until } | Phase::Probing { until } => until,
        }
    }

    /// Whether a probe is to be made now. One that is overdue has failed, which may change the state.
    pub fn poll(&mut self, now: Duration) -> (bool, Option<Changed>) {
        match self.phase {
            Phase::Waiting { until } if now >= until => {
                self.phase = Phase::Probing { until: now + self.check.timeout };
                (true, None)
            }
            Phase::Probing { until } if now >= until => (false, self.failed(now, ProbeError::Timeout)),
            _ => (false, None),
        }
    }

    /// The probe under way has succeeded.
    pub fn succeeded(&mut self, now: Duration) -> Option<Changed> {
        self.last_error = None;
        self.outcome(now, true)
    }

    /// The probe under way has failed.
    pub fn failed(&mut self, now: Duration, error: ProbeError) -> Option<Changed> {
        self.last_error = Some(error);
        self.outcome(now, false)
    }

    /// The probe under way could not be made, for a reason that says nothing about the target's health.
    pub fn skip(&mut self, now: Duration) {
        self.phase = Phase::Waiting { until: now + self.check.fast_interval };
    }

    /// Successes in a row that make it healthy.
    fn rise(&self) -> u32 {
        self.check.rise.saturating_mul(self.damping)
    }

    /// What its state has become, with what that says about its next recovery.
    fn turned(&mut self, now: Duration) -> Changed {
        if self.healthy {
            self.recovered = Some(now);
            return Changed::Healthy;
        }
        let flaps = self.recovered.is_some_and(|since| now.saturating_sub(since) < self.check.interval * CALM);
        self.damping = if flaps { (self.damping * 2).min(MAX_DAMPING) } else { 1 };
        Changed::Unhealthy
    }

    fn outcome(&mut self, now: Duration, success: bool) -> Option<Changed> {
        let Phase::Probing { .. } = self.phase else { return None };
        let mut changed = None;
        if success == self.healthy {
            self.against = 0;
        } else {
            self.against += 1;
            if self.against >= if self.healthy { self.check.fall } else { self.rise() } {
                self.healthy = success;
                self.against = 0;
                changed = Some(self.turned(now));
            }
        }
        let pause = if self.against > 0 { self.check.fast_interval } else { self.check.interval };
        // A tenth less to a tenth more.
        let pause = pause.mul_f64(0.9 + 0.2 * self.fraction());
        self.phase = Phase::Waiting { until: now + pause };
        changed
    }

    /// Another way to check the same target, whose state stays.
    pub fn set_check(&mut self, check: ActiveCheck) {
        self.check = check;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs a checker against a target that is up or down at given times; the times at which its state changed.
    fn simulate(check: &ActiveCheck, seed: u64, end: Duration, up: impl Fn(Duration) -> bool) -> Vec<(Duration, bool)> {
        let mut checker = Checker::new(check.clone(), Duration::ZERO, seed);
        let mut changes = Vec::new();
        let mut now = Duration::ZERO;
        let mut probes = 0;
        while now < end {
            now = checker.deadline();
            let (probe, changed) = checker.poll(now);
            let changed = if probe {
                probes += 1;
                // A dead target does not answer at all.
                if up(now) { checker.succeeded(now + 5 * MS) } else { None }
            } else {
                changed
            };
            if let Some(changed) = changed {
                changes.push((now, changed == Changed::Healthy));
                assert_eq!(checker.is_healthy(), changed == Changed::Healthy);
            }
            assert!(checker.deadline() > now, "it goes on");
            assert!(checker.deadline() <= now + check.interval.max(check.timeout).mul_f64(1.2));
        }
        assert!(probes > 0);
        changes
    }

    #[test]
    fn a_target_that_stays_up_stays_healthy() {
        for seed in 0..50 {
            assert_eq!(simulate(&ActiveCheck::default(), seed, Duration::from_secs(600), |_| true), []);
        }
    }

    #[test]
    fn a_death_is_noticed_in_time_and_a_recovery_too() {
        let check = ActiveCheck::default();
        let (death, recovery) = (Duration::from_secs(100), Duration::from_secs(200));
        for seed in 0..200 {
            let changes = simulate(&check, seed, Duration::from_secs(300), |now| now < death || now >= recovery);
            let [(down, false), (up, true)] = changes[..] else { panic!("seed {seed}: {changes:?}") };
            let bound = check.interval.mul_f64(1.1) + (check.fast_interval.mul_f64(1.1) + check.timeout) * check.fall;
            assert!(down > death && down <= death + bound, "seed {seed}: {down:?}");
            assert!(up > recovery && up <= recovery + bound, "seed {seed}: {up:?}");
        }
    }

    #[test]
    fn a_single_failure_changes_nothing() {
        let check = ActiveCheck::default();
        for seed in 0..50 {
            let mut checker = Checker::new(check.clone(), Duration::ZERO, seed);
            let mut now = Duration::ZERO;
            for probe in 0..100 {
                now = now.max(checker.deadline());
                assert_eq!(checker.poll(now), (true, None));
                let changed =
                    if probe % 3 == 0 { checker.failed(now, ProbeError::Refused) } else { checker.succeeded(now) };
                assert_eq!(changed, None);
            }
        }
    }

    /// Outcomes at random, at random times, also such as come when nobody asked: the state changes only after as many
    /// outcomes in a row as are configured.
    #[test]
    fn states_change_only_by_rows_of_outcomes() {
        for seed in 0..200_u64 {
            let check =
                ActiveCheck { rise: 1 + (seed % 4) as u32, fall: 1 + (seed / 4 % 4) as u32, ..Default::default() };
            let mut checker = Checker::new(check.clone(), Duration::ZERO, seed);
            let mut now = Duration::ZERO;
            let mut random = seed;
            let (mut healthy, mut row) = (true, 0);
            for _ in 0..500 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now += Duration::from_millis(random >> 54);
                let (probe, timed_out) = checker.poll(now);
                let before = healthy;
                let outcome = if probe {
                    let success = random >> 40 & 3 > 0;
                    let changed =
                        if success { checker.succeeded(now) } else { checker.failed(now, ProbeError::Refused) };
                    Some((success, changed))
                } else {
                    assert_eq!(timed_out, None, "every probe was answered at once");
                    // Nobody asked.
                    assert_eq!(checker.succeeded(now), None);
                    None
                };
                if let Some((success, changed)) = outcome {
                    row = if success == healthy { 0 } else { row + 1 };
                    let (least, most) =
                        if healthy { (check.fall, check.fall) } else { (check.rise, check.rise * MAX_DAMPING) };
                    assert!(row <= most && (changed.is_none() || row >= least), "seed {seed}: {row} in a row");
                    if changed.is_some() || row == most {
                        (healthy, row) = (success, 0);
                    }
                    assert_eq!(changed.is_some(), before != healthy, "seed {seed}");
                }
                assert_eq!(checker.is_healthy(), healthy, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_flapping_target_is_left_alone_for_longer_and_trusted_again_when_calm() {
        let check = ActiveCheck::default();
        let flapping = Duration::from_secs(1200);
        for seed in 0..50 {
            // Up for eight seconds, down for eight, for twenty minutes; then up.
            let up = |now: Duration| now >= flapping || (now.as_secs() / 8).is_multiple_of(2);
            let changes = simulate(&check, seed, flapping + Duration::from_secs(600), up);
            let (during, after): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.0 < flapping);
            // Undamped there would be two changes in each of 75 rounds.
            assert!(during.len() <= 12, "seed {seed}: {during:?}");
            let [(back, true)] = after[..] else { panic!("seed {seed}: {after:?}") };
            let bound =
                check.interval.mul_f64(1.1) + (check.fast_interval + 5 * MS).mul_f64(1.1) * check.rise * MAX_DAMPING;
            assert!(back <= flapping + bound, "seed {seed}: {back:?}");
        }
        // A death long after a recovery is one like any other.
        let mut checker = Checker::new(check, Duration::ZERO, 1);
        let mut now = Duration::ZERO;
        let mut run = |checker: &mut Checker, success: bool, count: u32| {
            for _ in 0..count {
                now = now.max(checker.deadline());
                checker.poll(now);
                if success {
                    checker.succeeded(now)
                } else {
                    checker.failed(now, ProbeError::Refused)
                };
            }
        };
        run(&mut checker, false, 3);
        run(&mut checker, true, 2);
        run(&mut checker, false, 3);
        run(&mut checker, true, 3);
        assert!(!checker.is_healthy(), "it flaps: twice as many");
        run(&mut checker, true, 1 + CALM * 2);
        run(&mut checker, false, 3);
        assert!(!checker.is_healthy());
        run(&mut checker, true, 2);
        assert!(checker.is_healthy());
    }
}
