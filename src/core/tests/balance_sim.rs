//! Balancing policies in a simulated cluster: several cores send requests to several servers, each a queue. How even
//! the work is, how a slow server is treated, and what a change of the servers moves, by seed.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "made-up numbers")]

use std::collections::VecDeque;

use ringway_core::balance::hash;
use ringway_core::balance::{
    Load, Maglev, Member, PeakEwma, Random, TableSize, WeightedRoundRobin, least_request, peak_ewma, slow_start,
};

const SERVERS: usize = 10;
const CORES: usize = 4;
const MILLIS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Policy {
    RoundRobin,
    Random,
    /// Least request over all cores' counts, or over the core's own.
    LeastRequest {
        own_counts_only: bool,
    },
    PeakEwma,
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash::finish(self.0)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

struct Core {
    turn: WeightedRoundRobin,
    own: [u32; SERVERS],
    latency: [PeakEwma; SERVERS],
}

struct Outcome {
    served: [u64; SERVERS],
    /// Time in the server, sorted, in microseconds.
    latencies: Vec<u64>,
}

impl Outcome {
    fn quantile(&self, q: f64) -> u64 {
        self.latencies[((self.latencies.len() - 1) as f64 * q) as usize]
    }

    fn mean(&self) -> u64 {
        self.latencies.iter().sum::<u64>() / self.latencies.len() as u64
    }
}

/// Servers work one request after the other, 1 ms each on average, `slow` times longer on the first one. `load` is the
/// part of their capacity (were all of them fast) that is asked for.
fn run(policy: Policy, seed: u64, load: f64, slow: f64) -> Outcome {
    let mut rng = Rng(seed);
    let weights = [1; SERVERS];
    let random = Random::new(&weights);
    let mut cores: Vec<Core> = (0..CORES)
        .map(|_| Core {
            turn: WeightedRoundRobin::new(&weights, (rng.next() >> 32) as u32),
            own: [0; SERVERS],
            latency: [PeakEwma::default(); SERVERS],
        })
        .collect();
    let mut free_at = [0.0_f64; SERVERS];
    // In the order in which they end, per server: (end, start, core).
    let mut queues: Vec<VecDeque<(f64, f64, usize)>> = vec![VecDeque::new(); SERVERS];
    let mut outcome = Outcome { served: [0; SERVERS], latencies: Vec::new() };
    let mut now = 0.0;
    while now < MILLIS as f64 * 1e3 {
        now += -rng.unit().max(1e-12).ln() * 1e3 / (SERVERS as f64 * load);
        for (server, queue) in queues.iter_mut().enumerate() {
            while queue.front().is_some_and(|first| first.0 <= now) {
                let (end, start, core) = queue.pop_front().unwrap();
                cores[core].own[server] -= 1;
                cores[core].latency[server].observe((end - start) as u32, (end / 1e3) as u64);
                outcome.latencies.push((end - start) as u64);
            }
        }
        let id = (rng.next() >> 62) as usize;
        let at = rng.next();
        let core = &mut cores[id];
        let turn = core.turn.next().unwrap();
        let of_all = |server: usize| Load { in_flight: queues[server].len() as u32, weight: 1 };
        let server = match policy {
            Policy::RoundRobin => turn,
            Policy::Random => random.pick(at).unwrap(),
            Policy::LeastRequest { own_counts_only: false } => least_request::pick(SERVERS, turn, at, of_all),
            Policy::LeastRequest { own_counts_only: true } => {
                least_request::pick(SERVERS, turn, at, |server| Load { in_flight: core.own[server], weight: 1 })
            }
            Policy::PeakEwma => {
                let millis = (now / 1e3) as u64;
                peak_ewma::pick(SERVERS, turn, at, |server| core.latency[server].cost(of_all(server), millis))
            }
        };
        let work = -rng.unit().max(1e-12).ln() * 1e3 * if server == 0 { slow } else { 1.0 };
        free_at[server] = free_at[server].max(now) + work;
        queues[server].push_back((free_at[server], now, id));
        core.own[server] += 1;
        outcome.served[server] += 1;
    }
    outcome.latencies.sort_unstable();
    outcome
}

const ALL: [Policy; 5] = [
    Policy::RoundRobin,
    Policy::Random,
    Policy::LeastRequest { own_counts_only: false },
    Policy::LeastRequest { own_counts_only: true },
    Policy::PeakEwma,
];

fn seeds() -> impl Iterator<Item = u64> {
    let first = std::env::var("RINGWAY_SEED").map_or(1, |seed| seed.parse().unwrap());
    (first..).take(5)
}

#[test]
fn equal_servers_under_load_wait_least_with_two_choices_over_all_counts() {
    for seed in seeds() {
        let outcomes: Vec<Outcome> = ALL.iter().map(|policy| run(*policy, seed, 0.8, 1.0)).collect();
        for (policy, outcome) in ALL.iter().zip(&outcomes) {
            let (mean, tail) = (outcome.mean(), outcome.quantile(0.99));
            eprintln!("seed {seed}, equal servers: {policy:?}: mean {mean} us, p99 {tail} us");
        }
        let [turns, random, all, own, peak] = &outcomes[..] else { unreachable!() };
        assert!(all.mean() * 10 < turns.mean() * 8 && all.mean() * 10 < random.mean() * 6, "seed {seed}");
        assert!(all.mean() * 10 < own.mean() * 9, "seed {seed}: counts of one core do as well");
        assert!(all.quantile(0.99) < turns.quantile(0.99), "seed {seed}");
        assert!(peak.mean() < random.mean(), "seed {seed}");
    }
}

#[test]
fn a_slow_server_gets_less() {
    for seed in seeds() {
        let outcomes: Vec<Outcome> = ALL.iter().map(|policy| run(*policy, seed, 0.6, 10.0)).collect();
        for (policy, outcome) in ALL.iter().zip(&outcomes) {
            let share = outcome.served[0] as f64 / outcome.served.iter().sum::<u64>() as f64;
            let (mean, tail) = (outcome.mean(), outcome.quantile(0.99));
            eprintln!("seed {seed}, one slow: {policy:?}: its share {share:.3}, mean {mean} us, p99 {tail} us");
        }
        let share = |outcome: &Outcome| outcome.served[0] as f64 / outcome.served.iter().sum::<u64>() as f64;
        let [turns, _, all, _, peak] = &outcomes[..] else { unreachable!() };
        assert!(share(turns) > 0.099, "seed {seed}");
        assert!(share(all) < 0.05, "seed {seed}");
        assert!(share(peak) < 0.02, "seed {seed}");
        assert!(peak.quantile(0.99) < all.quantile(0.99), "seed {seed}");
    }
}

#[test]
fn idle_servers_are_served_in_turn() {
    let mut turn = WeightedRoundRobin::new(&[3, 1, 1], 0);
    let mut rng = Rng(7);
    let mut counts = [0; 3];
    for _ in 0..500 {
        let next = turn.next().unwrap();
        let weights = [3, 1, 1];
        counts[least_request::pick(3, next, rng.next(), |server| Load { in_flight: 0, weight: weights[server] })] += 1;
    }
    // One of three times the weight has room for three in flight before it is as loaded as the others.
    assert!(counts[0] >= 300, "{counts:?}");
}

#[test]
fn a_new_server_is_warmed_up() {
    const WINDOW: u64 = 30_000;
    for seed in seeds() {
        let mut rng = Rng(seed);
        let mut turn = WeightedRoundRobin::new(&[1, 1, 1, 1], 0);
        let mut by_second = [0_u32; 40];
        for request in 0..400_000_u64 {
            let millis = request / 10;
            let picked = loop {
                let next = turn.next().unwrap();
                let share = if next == 3 { slow_start::share(millis, WINDOW) } else { slow_start::WHOLE };
                if slow_start::takes_turn(share, rng.next()) {
                    break next;
                }
            };
            if picked == 3 {
                by_second[(millis / 1000) as usize] += 1;
            }
        }
        // A quarter of 10,000 requests a second is its share.
        eprintln!("seed {seed}: {by_second:?}");
        assert!((200..400).contains(&by_second[0]), "seed {seed}: {by_second:?}");
        assert!((1200..1600).contains(&by_second[14]), "seed {seed}: {by_second:?}");
        assert!(by_second[31..].iter().all(|count| (2490..=2510).contains(count)), "seed {seed}: {by_second:?}");
    }
}

/// Ten thousand clients; servers come and go. A client moves when its server went, or to a server that came.
#[test]
fn clients_move_no_more_than_they_have_to() {
    let names: Vec<String> = (0..21).map(|n| format!("10.1.0.{n}:80")).collect();
    let table = |up: &dyn Fn(usize) -> bool| {
        let members: Vec<Member<'_>> = names
            .iter()
            .enumerate()
            .map(|(n, name)| Member { key: name.as_bytes(), weight: u32::from(up(n)) })
            .collect();
        Maglev::build(&members, TableSize::DEFAULT).unwrap()
    };
    let clients: Vec<u64> = (0..10_000_u32).map(|n| hash::source_ip(std::net::Ipv4Addr::from(n).into())).collect();
    let twenty = table(&|n| n < 20);
    let mut counts = [0; 20];
    for client in &clients {
        counts[twenty.get(*client)] += 1;
    }
    assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}");
    let nineteen = table(&|n| n < 19);
    let twenty_one = table(&|n| n < 21);
    let needless = |after: &Maglev, moved_for_good_reason: &dyn Fn(usize, usize) -> bool| {
        clients
            .iter()
            .filter(|client| {
                let (before, after) = (twenty.get(**client), after.get(**client));
                before != after && !moved_for_good_reason(before, after)
            })
            .count()
    };
    let left = needless(&nineteen, &|before, _| before == 19);
    let came = needless(&twenty_one, &|_, after| after == 20);
    eprintln!("of 10,000 clients of 20 servers, {left} move without need when one goes, {came} when one comes");
    assert!(left < 300 && came < 300);
}
