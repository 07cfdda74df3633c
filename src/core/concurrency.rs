//! How much of a key is under way at a time: counted exactly over all cores, and given back exactly.
//!
//! A rate forgives: what one core has not seen of another yet counts a moment later (`rate`). A number of things under
//! way does not, since whatever was let in too many stays for as long as it likes. So a key has one word that all cores
//! change by compare-and-swap. Who configures no such limit has no such word, and who does pays for one cache line that
//! cores share only while they serve the same client.
//!
//! # A line
//!
//! A key's hash chooses a line of eight words, which is a cache line where it lies. The first word is a latch. Each of the
//! others holds the tag of a key, which is the rest of its hash, and how much of it is under way. The tag stays when the
//! count is 0, so a client that comes again needs one swap and no latch.
//!
//! * A word with a count above 0 is nobody else's: a count is never forgotten, and who holds a place gives it back by one
//!   subtraction, without looking for it.
//! * A word with the count 0 may be taken over by another key, by one swap of the whole word.
//! * A tag that is not in the line is put there only by who holds the latch and has looked through the line since, so no
//!   key has two words, which is what makes a limit exact.
//!
//! Where all seven are under way for others, a key has no place ([`Taken::Full`]). What becomes of it is for the caller to
//! say.
//!
//! [`Take`] is these steps without the memory they are done in: it says which word is to be read or swapped, and is told
//! what came of it. That is how the simulation can have cores step on each other's toes in every order.

/// Words of a line, the latch included.
pub const WORDS: usize = 8;

/// The most that can be counted of a key.
pub const MOST: u32 = (1 << COUNT_BITS) - 1;

const COUNT_BITS: u32 = 24;

/// The latch.
const LATCH: usize = 0;

/// Lines for as many keys at once: with half of a line's places to a key, fewer than one of a thousand finds none.
pub fn lines(keys: usize) -> usize {
    keys.saturating_mul(4).div_ceil(WORDS - 1).max(1)
}

/// A line for a hash, and the tag that the key has there.
pub fn place(hash: u64, lines: usize) -> (usize, u64) {
    // The line by the upper half, the tag by the 40 lower bits: 8 of them are in both.
    let line = (u128::from(hash >> 32) * lines as u128) >> 32;
    // An empty word is no key's.
    (usize::try_from(line).expect("less than lines"), (hash | 1) << COUNT_BITS)
}

/// How much a word says is under way.
pub fn count(word: u64) -> u32 {
    u32::try_from(word & u64::from(MOST)).expect("24 bits")
}

fn tag(word: u64) -> u64 {
    word & !u64::from(MOST)
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One more is under way, counted by this word of the line: when it is over, 1 is subtracted from it.
    Place(usize),
    /// As much is under way as may be.
    Over,
    /// All words are under way for other keys.
    Full,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read a word, and say what it is.
    Load(usize),
    /// Put `to` in a word if it is `from`, and say what it was: an error if it was something else.
    Swap {
        /// Which.
        at: usize,
        /// What it must be.
        from: u64,
        /// What it becomes.
        to: u64,
    },
    /// Another core has the latch: go on in a moment, with nothing to say.
    Pause,
    /// Nothing: this is what came of it.
    Done(Taken),
}

/// One more of a key, if that may be.
#[derive(Debug)]
pub struct Take {
    tag: u64,
    limit: u32,
    latched: bool,
    /// A word that could be taken over, and what it was.
    free: Option<(usize, u64)>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Looks at a word.
    Look(usize),
    /// Counts one more in a word that is the key's.
    Count(usize),
    /// Takes the latch.
    Latch,
    /// Waits for it.
    Wait,
    /// Takes a word over.
    Claim(usize),
    /// Gives the latch back.
    Unlatch(Taken),
}

impl Take {
    /// One more of the key with this tag, of which no more than `limit` may be under way (1 to [`MOST`]); the first step.
    pub fn begin(tag: u64, limit: u32) -> (Self, Step) {
        let mut take =
            Self { tag, limit: limit.clamp(1, MOST), latched: false, free: None, state: State::Look(LATCH + 1) };
        let first = take.look();
        (take, first)
    }

    /// Goes on: `said` is what came of the last step.
    pub fn next(&mut self, said: Result<u64, u64>) -> Step {
        let (Ok(word) | Err(word)) = said;
        match self.state {
            State::Look(at) if tag(word) == self.tag => self.count(at, word),
            State::Look(at) => {
                if count(word) == 0 && self.free.is_none() {
                    self.free = Some((at, word));
                }
                if at + 1 < WORDS {
                    self.state = State::Look(at + 1);
                    return Step::Load(at + 1);
                }
                match self.free.filter(|_| self.latched) {
                    Some((at, word)) => {
                        self.state = State::Claim(at);
                        Step::Swap { at, from: word, to: self.tag | 1 }
                    }
                    None if self.latched => self.over(Taken::Full),
                    None => {
                        self.state = State::Latch;
                        Step::Swap { at: LATCH, from: 0, to: 1 }
                    }
                }
            }
            State::Latch if said.is_ok() => {
                self.latched = true;
                self.look()
            }
            State::Latch => {
                self.state = State::Wait;
                Step::Pause
            }
            // The one that had it may have put this very key there.
            State::Wait => self.look(),
            State::Claim(at) | State::Count(at) if said.is_ok() => self.over(Taken::Place(at)),
            State::Count(at) if tag(word) == self.tag => self.count(at, word),
            // The word is another key's by now.
            State::Claim(_) | State::Count(_) => self.look(),
            State::Unlatch(taken) => Step::Done(taken),
        }
    }

    fn look(&mut self) -> Step {
        self.free = None;
        self.state = State::Look(LATCH + 1);
        Step::Load(LATCH + 1)
    }

    fn count(&mut self, at: usize, word: u64) -> Step {
        if count(word) >= self.limit {
            return self.over(Taken::Over);
        }
        self.state = State::Count(at);
        Step::Swap { at, from: word, to: word + 1 }
    }

    fn over(&mut self, taken: Taken) -> Step {
        if !std::mem::take(&mut self.latched) {
            return Step::Done(taken);
        }
        self.state = State::Unlatch(taken);
        Step::Swap { at: LATCH, from: 1, to: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does all the steps in a row.
    fn take(line: &mut [u64; WORDS], tag: u64, limit: u32) -> (Taken, usize) {
        let (mut take, mut step) = Take::begin(tag, limit);
        for steps in 0.. {
            let said = match step {
                Step::Load(at) => Ok(line[at]),
                Step::Swap { at, from, to } if line[at] == from => Ok(std::mem::replace(&mut line[at], to)),
                Step::Swap { at, .. } => Err(line[at]),
                Step::Pause => panic!("there is nobody else"),
                Step::Done(taken) => return (taken, steps),
            };
            step = take.next(said);
        }
        unreachable!("it ends")
    }

    fn key(number: u64) -> u64 {
        place(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1).1
    }

    #[test]
    fn a_key_has_its_limit_and_gives_back_what_it_has() {
        let mut line = [0; WORDS];
        for _ in 0..3 {
            assert_eq!(take(&mut line, key(1), 3).0, Taken::Place(1));
        }
        assert_eq!(take(&mut line, key(1), 3).0, Taken::Over);
        // Another limit of the same key, as after a reload.
        assert_eq!(take(&mut line, key(1), 4).0, Taken::Place(1));
        line[1] -= 2;
        assert_eq!(take(&mut line, key(1), 3).0, Taken::Place(1));
        assert_eq!(take(&mut line, key(1), 3).0, Taken::Over);
        assert_eq!(count(line[1]), 3);
    }

    #[test]
    fn a_key_that_comes_again_needs_no_latch() {
        let mut line = [0; WORDS];
        assert_eq!(take(&mut line, key(1), 1).0, Taken::Place(1));
        line[1] -= 1;
        // A look and a swap.
        assert_eq!(take(&mut line, key(1), 1), (Taken::Place(1), 2));
    }

    #[test]
    fn a_line_is_full_of_keys_that_are_under_way_only() {
        let mut line = [0; WORDS];
        let places = (0..7).map(|number| take(&mut line, key(number), 9).0);
        assert_eq!(places.collect::<Vec<_>>(), (1..8).map(Taken::Place).collect::<Vec<_>>());
        assert_eq!(take(&mut line, key(7), 9).0, Taken::Full);
        assert_eq!(take(&mut line, key(3), 9).0, Taken::Place(4));
        line[4] -= 1;
        assert_eq!(take(&mut line, key(7), 9).0, Taken::Full);
        line[4] -= 1;
        assert_eq!(take(&mut line, key(7), 9).0, Taken::Place(4));
        assert_eq!(line[0], 0);
    }

    #[test]
    fn keys_are_spread_over_lines_that_have_room() {
        let mut used = vec![0_u32; lines(10_000)];
        for number in 1..=10_000_u64 {
            // SplitMix64, which stands for the hash.
            let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let (line, _) = place(z ^ (z >> 31), lines(10_000));
            used[line] += 1;
        }
        let without: u32 = used.iter().map(|used| used.saturating_sub(7)).sum();
        assert!(without < 10, "{without}");
        assert_eq!(place(u64::MAX, 1 << 26).0, (1 << 26) - 1);
        assert_eq!((lines(0), lines(1), lines(7)), (1, 1, 4));
    }
}
