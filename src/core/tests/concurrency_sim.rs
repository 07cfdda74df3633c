//! A limit on what is under way that several cores share, simulated: every read and swap of a word is a step, and steps of
//! all cores follow each other in any order. Whatever the order, no key has two words or is over its limit, and when
//! everything has ended nothing is counted any more.
//!
//! `RINGWAY_SIM_SEED=0x2a cargo test -p ringway-core --test concurrency_sim` replays one seed.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod random;

use random::Random;
use ringway_core::concurrency::{Step, Take, Taken, WORDS, count, place};

struct World {
    line: [u64; WORDS],
    /// By key: what is under way, and in which words.
    held: Vec<Vec<usize>>,
    limit: u32,
}

/// A core that asks for one after the other.
enum Core {
    Free,
    Takes { key: usize, take: Take, step: Step },
}

#[derive(Default)]
struct Seen {
    places: usize,
    over: usize,
    full: usize,
    pauses: usize,
}

fn tag(key: usize) -> u64 {
    place((key as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), 1).1
}

impl World {
    fn act(&mut self, core: &mut Core, keys: usize, rng: &mut Random, seen: &mut Seen) {
        let Core::Takes { key, take, step } = core else {
            if rng.chance(3) {
                self.end_one(rng);
            } else {
                let key = rng.below(keys);
                let (take, step) = Take::begin(tag(key), self.limit);
                *core = Core::Takes { key, take, step };
            }
            return;
        };
        let said = match *step {
            Step::Load(at) => Ok(self.line[at]),
            Step::Swap { at, from, to } if self.line[at] == from => {
                self.line[at] = to;
                Ok(from)
            }
            Step::Swap { at, .. } => Err(self.line[at]),
            Step::Pause => {
                seen.pauses += 1;
                Ok(0)
            }
            Step::Done(taken) => {
                match taken {
                    Taken::Place(at) => {
                        seen.places += 1;
                        self.held[*key].push(at);
                    }
                    Taken::Over => seen.over += 1,
                    Taken::Full => seen.full += 1,
                }
                *core = Core::Free;
                return;
            }
        };
        *step = take.next(said);
    }

    /// Something that is under way ends, by one subtraction.
    fn end_one(&mut self, rng: &mut Random) {
        let busy: Vec<usize> = (0..self.held.len()).filter(|key| !self.held[*key].is_empty()).collect();
        if busy.is_empty() {
            return;
        }
        let held = &mut self.held[busy[rng.below(busy.len())]];
        let at = held.swap_remove(rng.below(held.len()));
        self.line[at] -= 1;
    }

    fn check(&self, context: &str) {
        for (key, held) in self.held.iter().enumerate() {
            let words = self.line[1..].iter().filter(|word| **word & !0xff_ffff == tag(key)).count();
            assert!(words <= 1, "{context}: key {key} has {words} words");
            assert!(held.len() <= self.limit as usize, "{context}: {} of key {key}", held.len());
            assert!(held.windows(2).all(|two| two[0] == two[1]), "{context}: key {key} is counted in {held:?}");
            // What a core has counted and does not know yet is there as well.
            let counted = held.first().map_or(0, |at| count(self.line[*at]));
            assert!(counted as usize >= held.len() && counted <= self.limit, "{context}: {counted} of key {key}");
        }
    }
}

fn run(seed: u64) -> Seen {
    let mut rng = Random(seed);
    let (cores, keys) = (1 + rng.below(6), 1 + rng.below(12));
    let limit = u32::try_from(1 + rng.below(4)).unwrap();
    let context = format!("seed {seed:#x}, {cores} cores, {keys} keys, limit {limit}");
    let mut world = World { line: [0; WORDS], held: vec![Vec::new(); keys], limit };
    let mut all: Vec<Core> = (0..cores).map(|_| Core::Free).collect();
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let core = rng.below(cores);
        world.act(&mut all[core], keys, &mut rng, &mut seen);
        world.check(&context);
    }
    // Everybody comes to an end: nobody waits for what does not come.
    for _ in 0..10_000 {
        let Some(busy) = all.iter().position(|core| matches!(core, Core::Takes { .. })) else { break };
        let core = (busy + rng.below(cores)) % cores;
        if matches!(all[core], Core::Takes { .. }) {
            world.act(&mut all[core], keys, &mut rng, &mut seen);
        }
    }
    assert!(all.iter().all(|core| matches!(core, Core::Free)), "{context}: somebody is still at it");
    world.check(&context);
    while world.held.iter().any(|held| !held.is_empty()) {
        world.end_one(&mut rng);
    }
    assert!(world.line.iter().all(|word| count(*word) == 0), "{context}: {:x?}", world.line);
    seen
}

#[test]
fn cores_in_any_order_keep_to_the_limit_and_leave_nothing_behind() {
    if let Ok(seed) = std::env::var("RINGWAY_SIM_SEED") {
        run(u64::from_str_radix(seed.trim_start_matches("0x"), 16).unwrap());
        return;
    }
    let mut all = Seen::default();
    for seed in 0..1500 {
        let seen = run(seed);
        all.places += seen.places;
        all.over += seen.over;
        all.full += seen.full;
        all.pauses += seen.pauses;
    }
    // The simulation has been where it matters.
    assert!(all.places > 50_000 && all.over > 5000 && all.full > 500 && all.pauses > 500);
}
