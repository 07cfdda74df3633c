//! What is under way of each key, over all cores and across reloads.
//!
//! `core::concurrency` says which words are read and swapped; here they are. A table is of fixed size, four words and more
//! for each key that it is made for, and a piece of it is there once one of its keys has come: a limit that nobody has met
//! costs next to nothing. A key that finds all words of its line under way for others is let pass uncounted, and that
//! is counted (`limit_full`): a table can be filled by whoever has as many addresses, and refusing would turn that into
//! an outage for everybody else, while a limit for each client says nothing to one who has thousands of them anyway.
//! Limits on all connections, on those of a listener and on descriptors hold in any case.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_core::concurrency::{self, Step, Take, Taken, WORDS};

/// Lines that are made at once: 4 KiB.
const PIECE: usize = 64;

/// How often a core looks again whether another has left the latch, before it lets that one have the processor.
const SPINS: u32 = 100;

/// Words for the keys of one hash, in a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

/// Counts of keys.
#[derive(Debug)]
pub struct Concurrency {
    keys: usize,
    seed: RandomState,
    lines: usize,
    pieces: Box<[OnceLock<Box<[Line]>>]>,
}

/// What came of asking for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is under way, and counted at this place until [`Concurrency::release`].
    Counted(u32),
    /// It may go on, and is not counted: there is no place for its key.
    Uncounted,
    /// There are as many as may be.
    Refused,
}

impl Concurrency {
    /// For as many keys at once.
    pub fn new(keys: usize) -> Self {
        let lines = concurrency::lines(keys);
        let pieces = std::iter::repeat_with(OnceLock::new).take(lines.div_ceil(PIECE)).collect();
        Self { keys, seed: RandomState::new(), lines, pieces }
    }

    /// How many keys it was made for.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// One more of a key, of which no more than `limit` may be under way.
    pub fn take(&self, key: &[u8], limit: u32) -> Admission {
        // Keys come from the network, so their hash is seeded.
        let (index, tag) = concurrency::place(self.seed.hash_one(key), self.lines);
        let line = self.line(index);
        let (mut take, mut step) = Take::begin(tag, limit);
        let mut spins = 0;
        loop {
            let said = match step {
                Step::Load(at) => Ok(line.0[at].load(Ordering::Acquire)),
                Step::Swap { at, from, to } => {
                    line.0[at].compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                }
                Step::Pause => {
                    spins += 1;
                    if spins % SPINS == 0 {
                        std::thread::yield_now();
                    } else {
                        std::hint::spin_loop();
                    }
                    Ok(0)
                }
                Step::Done(Taken::Place(at)) => {
                    return Admission::Counted(u32::try_from(index * WORDS + at).expect("bounds of the field"));
                }
                Step::Done(Taken::Full) => return Admission::Uncounted,
                Step::Done(Taken::Over) => return Admission::Refused,
            };
            step = take.next(said);
        }
    }

    /// What was counted at a place is over.
    pub fn release(&self, place: u32) {
        let place = place as usize;
        let before = self.line(place / WORDS).0[place % WORDS].fetch_sub(1, Ordering::Release);
        debug_assert!(concurrency::count(before) > 0, "nothing is given back twice");
    }

    fn line(&self, index: usize) -> &Line {
        let piece = self.pieces[index / PIECE]
            .get_or_init(|| std::iter::repeat_with(Line::default).take(PIECE.min(self.lines)).collect());
        &piece[index % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn threads_keep_to_a_limit_and_leave_nothing_behind() {
        // Few lines, so that keys push each other out.
        let table = Concurrency::new(4);
        let under_way: Vec<AtomicUsize> = (0..6).map(|_| AtomicUsize::new(0)).collect();
        let work = |thread: usize| {
            let (mut counted, mut refused) = (0, 0);
            for turn in 0..20_000 {
                let key = (turn * 7 + thread * 3 + turn / 5) % 6;
                match table.take(&[u8::try_from(key).unwrap()], 2) {
                    Admission::Counted(place) => {
                        let others = under_way[key].fetch_add(1, Ordering::SeqCst);
                        assert!(others < 2, "{others} of key {key} besides this one");
                        std::hint::black_box(&table);
                        under_way[key].fetch_sub(1, Ordering::SeqCst);
                        table.release(place);
                        counted += 1;
                    }
                    Admission::Refused => refused += 1,
                    Admission::Uncounted => {}
                }
            }
            (counted, refused)
        };
        let (work, mut all) = (&work, 0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || work(number))).collect();
            all = threads.into_iter().map(|thread| thread.join().unwrap().0).sum::<usize>();
        });
        assert!(all > 20_000, "{all}");
        let words = table.pieces.iter().filter_map(OnceLock::get).flatten().flat_map(|line| &line.0);
        assert!(words.into_iter().all(|word| concurrency::count(word.load(Ordering::SeqCst)) == 0));
    }

    #[test]
    fn a_table_is_made_where_something_is_counted() {
        let table = Concurrency::new(65_536);
        let made = || table.pieces.iter().filter(|piece| piece.get().is_some()).count();
        assert_eq!(made(), 0);
        let Admission::Counted(place) = table.take(b"one", 1) else { panic!("it is the first") };
        assert_eq!(table.take(b"one", 1), Admission::Refused);
        assert_eq!(made(), 1);
        table.release(place);
        assert_eq!(table.take(b"one", 1), Admission::Counted(place));
    }

    #[test]
    fn who_finds_no_place_is_not_counted() {
        let table = Concurrency::new(1);
        let places: Vec<_> = (0..7_u8).map(|key| table.take(&[key], 1)).collect();
        assert!(places.iter().all(|place| matches!(place, Admission::Counted(_))), "{places:?}");
        assert_eq!(table.take(&[7], 1), Admission::Uncounted);
        assert_eq!(table.take(&[3], 1), Admission::Refused);
    }
}
