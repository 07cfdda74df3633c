//! A rate limit that several cores share, simulated: each core sees what the others have let pass only after a while, as
//! stores do, and the two numbers of a share at different times. What passes is held against the limit over every stretch
//! of time, by seed.
//!
//! `RINGWAY_SIM_SEED=0x2a cargo test -p ringway-core --test rate_sim` replays one seed.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod random;

use random::Random;
use ringway_core::rate::{Gcra, Share};

const SECOND: u64 = 1_000_000_000;

/// What a core has said, and when.
struct Core(Vec<(u64, Share)>);

impl Core {
    fn own(&self) -> Share {
        self.0.last().unwrap().1
    }

    /// What another core sees of it: all that is older than `delay`, and of what is newer all but the last few, at most
    /// `unseen`. The base is read after the count, so it may be newer.
    fn seen(&self, now: u64, how: &Sight, rng: &mut Random) -> Share {
        let newer = self.0.iter().rev().take_while(|(at, _)| at + how.delay > now).count();
        let counted = rng.below(newer.min(how.unseen).min(self.0.len() - 1) + 1);
        let based = rng.below(counted + 1);
        let version = |back: usize| self.0[self.0.len() - 1 - back].1;
        Share { passed: version(counted).passed, base: version(based).base }
    }
}

struct Sight {
    /// Nanoseconds until a store is seen for certain.
    delay: u64,
    /// Of each other core, how many requests may not be seen before that.
    unseen: usize,
}

struct Limit {
    requests: u64,
    burst: u64,
}

impl Limit {
    fn interval(&self) -> u64 {
        SECOND / self.requests
    }
}

/// Lets requests come: `next` gives the pause before each and the core that gets it. When those came that passed.
fn run(
    limit: &Limit,
    cores: usize,
    sight: &Sight,
    seconds: u64,
    rng: &mut Random,
    next: &mut dyn FnMut(&mut Random) -> (u64, usize),
) -> Vec<u64> {
    let gcra = Gcra::new(limit.requests, SECOND, limit.burst);
    let mut all: Vec<Core> = (0..cores).map(|_| Core(vec![(0, Share::NONE)])).collect();
    let (mut now, mut passed) = (SECOND, Vec::new());
    loop {
        let (pause, at) = next(rng);
        now += pause;
        if now > seconds * SECOND {
            return passed;
        }
        let others: Vec<Share> =
            (0..cores).filter(|core| *core != at).map(|core| all[core].seen(now, sight, rng)).collect();
        if let Ok(share) = gcra.judge(all[at].own(), others.into_iter(), now) {
            all[at].0.push((now, share));
            passed.push(now);
        }
    }
}

/// The most by which any stretch of time holds more than burst and pace allow.
fn over(limit: &Limit, passed: &[u64]) -> i128 {
    let interval = i128::from(limit.interval());
    let mut first = i128::MAX;
    let mut most = i128::MIN;
    for (count, at) in (0_i128..).zip(passed) {
        // How far the pace is behind what has passed, against where it was least so.
        let ahead = count * interval - i128::from(*at);
        first = first.min(ahead);
        most = most.max((ahead - first + interval - 1) / interval);
    }
    most + 1 - i128::from(limit.burst)
}

fn below(rng: &mut Random, bound: u64) -> u64 {
    rng.below(bound as usize) as u64
}

/// Storms, trickles and silences over random cores.
fn weather(cores: usize, interval: u64) -> impl FnMut(&mut Random) -> (u64, usize) {
    let (mut left, mut pause, mut spread) = (0, 0, 1);
    move |rng| {
        if left == 0 {
            left = 1 + rng.below(200);
            pause = [1, 50, interval / 20, interval / 2, interval, 3 * interval][rng.below(6)];
            spread = 1 + rng.below(cores);
            if rng.below(4) == 0 {
                return (below(rng, 50 * interval), 0);
            }
        }
        left -= 1;
        (below(rng, 2 * pause + 1), rng.below(spread))
    }
}

const LIMITS: [Limit; 5] = [
    Limit { requests: 1, burst: 1 },
    Limit { requests: 10, burst: 20 },
    Limit { requests: 100, burst: 1 },
    Limit { requests: 1000, burst: 50 },
    Limit { requests: 7, burst: 3 },
];

#[test]
fn never_more_than_the_limit_and_what_is_unseen() {
    let seed = std::env::var("RINGWAY_SIM_SEED").ok();
    let given = seed.map(|seed| u64::from_str_radix(seed.trim_start_matches("0x"), 16).unwrap());
    for seed in given.map_or(0..400, |seed| seed..seed + 1) {
        let mut rng = Random(seed);
        let cores = 1 + rng.below(8);
        let limit = &LIMITS[rng.below(LIMITS.len())];
        let unseen = rng.below(4);
        let delay = [0, 100, 10_000, limit.interval() / 3, 20 * limit.interval()][rng.below(5)];
        let sight = Sight { delay, unseen };
        let seconds = 2 + 300 / limit.requests;
        let passed = run(limit, cores, &sight, seconds, &mut rng, &mut weather(cores, limit.interval()));
        let over = over(limit, &passed);
        let bound = ((cores - 1) * unseen) as i128;
        assert!(over <= bound, "seed {seed:#x}: {over} over the limit on {cores} cores, {unseen} unseen");
    }
}

#[test]
fn the_whole_rate_wherever_requests_arrive() {
    for (seed, limit) in (1..).zip(&LIMITS) {
        let seconds = 2 + 1000 / limit.requests;
        let due = (seconds - 1) * limit.requests + limit.burst - 1;
        for cores in [1, 2, 5] {
            let ask = |spread: usize| {
                let mut rng = Random(seed);
                let sight = Sight { delay: 100, unseen: 1 };
                let pause = limit.interval() / 50;
                run(limit, cores, &sight, seconds, &mut rng, &mut |rng| (pause, rng.below(spread))).len() as u64
            };
            // On one core of several, and over all of them: neither a share of the rate nor a multiple of it.
            for passed in [ask(1), ask(cores)] {
                assert!(passed + due / 20 + 1 >= due && passed <= due + 1, "{passed} of {due} on {cores} cores");
            }
            assert_eq!(ask(1), ask(cores));
        }
    }
}

#[test]
fn requests_that_were_not_seen_count_later() {
    // Two cores take a whole burst without seeing each other: then nothing passes until both are paid for.
    let gcra = Gcra::new(1, SECOND, 10);
    let burst = |mut share: Share| {
        while let Ok(next) = gcra.judge(share, std::iter::once(Share::NONE), SECOND) {
            share = next;
        }
        share
    };
    let (one, other) = (burst(Share::NONE), burst(Share::NONE));
    assert_eq!((one.passed, other.passed), (10, 10));
    assert_eq!(gcra.judge(one, std::iter::once(other), SECOND), Err(11 * SECOND));
    assert!(gcra.judge(one, std::iter::once(other), 12 * SECOND).is_ok());
}
