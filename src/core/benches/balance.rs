//! What picking an endpoint costs, by policy, and how long tables take to fill.
//!
//!     cargo bench -p ringway-core --bench balance
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark for people")]

use std::hint::black_box;
use std::time::Instant;

use ringway_core::balance::{
    Load, Maglev, Member, PeakEwma, Random, TableSize, WeightedRoundRobin, hash, least_request, peak_ewma,
};

const ROUNDS: usize = 15;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

const PICKS: u64 = 200_000;

/// Nanoseconds per pick.
fn picks(name: &str, mut pick: impl FnMut(u64) -> usize) {
    let all = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        for n in 0..PICKS {
            black_box(pick(hash::finish(n)));
        }
        started.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(PICKS).unwrap())
    });
    println!("{name}: {:.1} ns", median(all.collect()));
}

/// Over ten endpoints; what a random number costs is in each figure.
fn policies() {
    let weights = [1; 10];
    let in_flight: Vec<u32> = (0..10).map(|n| n * 7 % 5).collect();
    let load = |index: usize| Load { in_flight: in_flight[index], weight: 1 };
    let mut latency = [PeakEwma::default(); 10];
    for (n, seen) in (0_u32..).zip(&mut latency) {
        seen.observe(1000 + n, 0);
    }
    let members: Vec<String> = (0..10).map(|n| format!("10.0.0.{n}:80")).collect();
    let members: Vec<Member<'_>> = members.iter().map(|key| Member { key: key.as_bytes(), weight: 1 }).collect();
    let table = Maglev::build(&members, TableSize::DEFAULT).unwrap();
    let random = Random::new(&weights);
    let turn = || WeightedRoundRobin::new(&weights, 0);
    picks("a random number alone", |n| usize::try_from(n & 7).unwrap());
    let mut turns = turn();
    picks("round robin", |_| turns.next().unwrap());
    picks("random", |n| random.pick(n).unwrap());
    let mut turns = turn();
    picks("least request", |n| least_request::pick(10, turns.next().unwrap(), n, load));
    let mut turns = turn();
    let cost = |index: usize| latency[index].cost(load(index), 50);
    picks("peak ewma", |n| peak_ewma::pick(10, turns.next().unwrap(), n, cost));
    picks("maglev", |n| table.get(n));
    let source = "192.0.2.1:1000".parse().unwrap();
    let destination = "198.51.100.1:443".parse().unwrap();
    picks("a five-tuple's hash", |_| usize::try_from(hash::five_tuple(black_box(source), destination, 6) & 7).unwrap());
}

fn main() {
    policies();
    let keys: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}:8080")).collect();
    for (name, weight) in [("even weights", 1), ("weights 1 to 10", 10)] {
        let members: Vec<Member<'_>> =
            keys.iter().zip(0_u32..).map(|(key, n)| Member { key: key.as_bytes(), weight: n % weight + 1 }).collect();
        let all = (0..ROUNDS).map(|_| {
            let started = Instant::now();
            for _ in 0..10 {
                black_box(Maglev::build(black_box(&members), TableSize::DEFAULT).unwrap());
            }
            started.elapsed().as_secs_f64() * 1e3 / 10.0
        });
        println!("maglev: a table of 16,381 slots over 100 members, {name}: {:.2} ms", median(all.collect()));
    }
}
