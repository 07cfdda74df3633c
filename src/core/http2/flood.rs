//! Frames that cost their receiver and carry nothing: how many of them a client may send.
//!
//! The guard is told of every frame, and of what it is no more than its kind and length. Every kind has an allowance
//! that requests and data win back, and time, so that what works never meets it and what floods does within moments.
//! Floods within one kind of frame (CONTINUATION, empty DATA, heads over their limit, resets that a client provokes) are
//! the connection's business.

/// What a client does too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Requests taken back (CVE-2023-44487).
    Reset,
    /// PING (CVE-2019-9512).
    Ping,
    /// SETTINGS (CVE-2019-9515).
    Settings,
    /// PRIORITY and frames of unknown types (CVE-2019-9513).
    Idle,
    /// WINDOW_UPDATE for answers that so leave byte by byte (CVE-2019-9511, CVE-2019-9517).
    Window,
}

/// How many kinds there are.
const KINDS: usize = 5;

/// Credit frames that a request or a piece of an answer is worth.
const CREDITS: u32 = 4;

/// Bytes of DATA below which a frame costs more than it carries, whichever way it goes.
pub(super) const DRIB: usize = 256;

/// Frames of one kind that may come at once.
const BURST: u32 = 1000;

/// Won back with every step of time.
const PER_STEP: u32 = 10;

/// Watches the frames of one client, and those that are sent to it.
#[derive(Debug)]
pub struct Guard {
    step: u64,
    left: [u32; KINDS],
}

impl Guard {
    /// At the connection's beginning.
    pub fn new() -> Self {
        Self { step: 0, left: [BURST; KINDS] }
    }

    /// Takes note of the time: `step` counts it in twentieths of a second.
    pub fn pass(&mut self, step: u64) {
        if step > self.step {
            let won = u32::try_from(step - self.step).unwrap_or(BURST).saturating_mul(PER_STEP);
            self.step = step;
            self.win(won);
        }
    }

    /// Takes note of DATA that is sent.
    pub fn sent(&mut self, length: usize, end: bool) {
        // What is worth a credit, or the last of an answer.
        if length >= DRIB || end {
            self.credit();
        }
    }

    /// Takes note of a frame that has come.
    pub fn frame(&mut self, kind: u8, length: usize) -> Result<(), Flood> {
        let flood = match kind {
            // DATA that carries something.
            0 if length > 0 => {
                // A byte is no work that pays for a stream that is opened and reset.
                let resets = self.left[Flood::Reset as usize];
                self.win(2);
                if length < DRIB {
                    self.left[Flood::Reset as usize] = resets;
                }
                return Ok(());
            }
            1 => {
                self.credit();
                return Ok(());
            }
            3 => Flood::Reset,
            4 => Flood::Settings,
            6 => Flood::Ping,
            8 => Flood::Window,
            // Empty DATA, PUSH_PROMISE, GOAWAY and CONTINUATION.
            0 | 5 | 7 | 9 => return Ok(()),
            _ => Flood::Idle,
        };
        let left = &mut self.left[flood as usize];
        *left = left.checked_sub(1).ok_or(flood)?;
        Ok(())
    }

    fn credit(&mut self) {
        let left = &mut self.left[Flood::Window as usize];
        *left = (*left + CREDITS).min(BURST);
    }

    fn win(&mut self, frames: u32) {
        for left in &mut self.left {
            *left = left.saturating_add(frames).min(BURST);
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_seen() {
        for (kind, length, flood) in [
            (3, 4, Flood::Reset),
            (4, 0, Flood::Settings),
            (6, 8, Flood::Ping),
            (2, 5, Flood::Idle),
            (77, 0, Flood::Idle),
            (8, 4, Flood::Window),
        ] {
            let mut guard = Guard::new();
            assert_eq!((0..BURST).try_for_each(|_| guard.frame(kind, length)), Ok(()), "{kind}");
            assert_eq!(guard.frame(kind, length), Err(flood));
        }
    }

    #[test]
    fn work_and_time_win_the_allowance_back() {
        let mut guard = Guard::new();
        for _ in 0..100_000 {
            guard.frame(6, 8).unwrap();
            guard.frame(0, 1).unwrap();
        }
        let reset = (0..10_000).try_for_each(|_| {
            guard.frame(0, 1)?;
            guard.frame(3, 4)
        });
        assert_eq!(reset, Err(Flood::Reset));
        for step in 1..100_000 {
            guard.pass(step);
            (0..10).try_for_each(|_| guard.frame(3, 4)).unwrap();
        }
    }

    #[test]
    fn credit_is_free_for_what_leaves_in_pieces() {
        let mut guard = Guard::new();
        for _ in 0..10_000 {
            (0..4).try_for_each(|_| guard.frame(8, 4)).unwrap();
            guard.sent(16_384, false);
            guard.frame(1, 20).unwrap();
            (0..4).try_for_each(|_| guard.frame(8, 4)).unwrap();
        }
        let dribbled = (0..2000).try_for_each(|_| {
            guard.sent(1, false);
            guard.frame(8, 4)
        });
        assert_eq!(dribbled, Err(Flood::Window));
    }
}
