//! What picking an endpoint costs, by policy, and how long tables take to fill.
//!
//!     cargo bench -p ringway-core --bench balance
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark for people")]

use std::hint::black_box;
use std::time::Instant;

use ringway_core::balance::{Maglev, Member, TableSize};

const ROUNDS: usize = 15;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
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
