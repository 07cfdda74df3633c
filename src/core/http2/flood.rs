//! Frames that cost their receiver and carry nothing: how many of them a client may send.
//!
//! The guard is told of every frame, and of what it is no more than its kind and length; what only the connection can
//! see, it is told by that. Everything has an allowance that time wins back, and work: requests, answers that came to
//! their end, and data. So what works never meets it, however long its connection lives, and what floods does within
//! moments.

/// What a client does too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Requests taken back (CVE-2023-44487).
    Reset,
    /// PING (CVE-2019-9512).
    Ping,
    /// SETTINGS (CVE-2019-9515).
    Settings,
    /// PRIORITY, GOAWAY and frames of unknown types (CVE-2019-9513).
    Idle,
    /// WINDOW_UPDATE for answers that so leave byte by byte (CVE-2019-9511, CVE-2019-9517).
    Window,
    /// DATA without any (CVE-2019-9518).
    Empty,
    /// Small frames on streams that are over, though this side may have ended them before the client knew.
    Late,
    /// What this side has to reset a stream for (CVE-2025-8671).
    Provoked,
    /// Requests beyond those that may be open at a time, which a client knows but may have sent before it knew.
    Refused,
}

/// How many kinds there are.
const KINDS: usize = 9;

/// Credit frames that a request or a piece of an answer is worth.
const CREDITS: u32 = 4;

/// Bytes of DATA below which a frame costs more than it carries, whichever way it goes.
pub(super) const DRIB: usize = 256;

/// Frames of one kind that may come at once.
const BURST: u32 = 1000;

/// The same of empty DATA.
const EMPTY: u32 = 100;

/// The same of late frames. They cost next to nothing, and a client may have that many on their way.
const LATE: u32 = 20_000;

/// Won back with every step of time.
const PER_STEP: u32 = 10;

/// The same of late frames.
const LATE_PER_STEP: u32 = 500;

/// Messages that pay for one that comes to nothing.
const COMPLETED: u32 = 4;

/// Watches the frames of one client, and those that are sent to it.
#[derive(Debug)]
pub struct Guard {
    step: u64,
    left: [u32; KINDS],
    /// Resets that may be provoked at once.
    provoked: u32,
    /// Messages that have been sent and have not paid for anything.
    completed: u32,
}

impl Guard {
    /// At the connection's beginning; `provoked`: streams that its client may make this side reset at once.
    pub fn new(provoked: u32) -> Self {
        let mut guard = Self { step: 0, left: [0; KINDS], provoked, completed: 0 };
        ALL.iter().for_each(|flood| guard.left[*flood as usize] = guard.most(*flood));
        guard
    }

    /// Takes note of the time: `step` counts it in twentieths of a second.
    pub fn pass(&mut self, step: u64) {
        if step > self.step {
            let steps = u32::try_from(step - self.step).unwrap_or(u32::MAX);
            self.step = step;
            for flood in ALL {
                let won = if flood == Flood::Late { LATE_PER_STEP } else { PER_STEP };
                self.win(flood, steps.saturating_mul(won));
            }
        }
    }

    /// Takes note of DATA that is sent; `whole`: no more of it waits for credit.
    pub fn sent(&mut self, length: usize, whole: bool) {
        if length >= DRIB || whole {
            self.win(Flood::Window, CREDITS);
            // A client that measures its path does so with what comes on it.
            self.win(Flood::Ping, 1);
        }
    }

    /// Takes note of a message that is sent to its end. A few of them pay for one that comes to nothing, so that a busy
    /// client is not ended for the share of its requests that it gives up.
    pub fn completed(&mut self) {
        self.completed += 1;
        if self.completed == COMPLETED {
            self.completed = 0;
            self.win(Flood::Reset, 1);
            self.win(Flood::Provoked, 1);
        }
    }

    /// Takes note of a frame that has come.
    pub fn frame(&mut self, kind: u8, length: usize) -> Result<(), Flood> {
        let flood = match kind {
            // DATA that carries something.
            0 if length > 0 => {
                for flood in [Flood::Ping, Flood::Settings, Flood::Idle, Flood::Window, Flood::Empty] {
                    self.win(flood, 2);
                }
                // A byte is no work that pays for a stream that is opened and reset.
                if length >= DRIB {
                    self.win(Flood::Reset, 2);
                }
                return Ok(());
            }
            1 => {
                self.win(Flood::Window, CREDITS);
                self.win(Flood::Ping, 2);
                self.win(Flood::Idle, 2);
                self.win(Flood::Empty, EMPTY);
                return Ok(());
            }
            3 => Flood::Reset,
            4 => Flood::Settings,
            6 => Flood::Ping,
            8 => Flood::Window,
            // Empty DATA, PUSH_PROMISE and CONTINUATION.
            0 | 5 | 9 => return Ok(()),
            _ => Flood::Idle,
        };
        self.take(flood, 1)
    }

    /// Takes of an allowance.
    pub fn take(&mut self, flood: Flood, cost: u32) -> Result<(), Flood> {
        let left = &mut self.left[flood as usize];
        *left = left.checked_sub(cost).ok_or(flood)?;
        Ok(())
    }

    fn win(&mut self, flood: Flood, frames: u32) {
        let most = self.most(flood);
        let left = &mut self.left[flood as usize];
        *left = left.saturating_add(frames).min(most);
    }

    fn most(&self, flood: Flood) -> u32 {
        match flood {
            Flood::Reset | Flood::Ping | Flood::Settings | Flood::Idle | Flood::Window | Flood::Refused => BURST,
            Flood::Empty => EMPTY,
            Flood::Late => LATE,
            Flood::Provoked => self.provoked,
        }
    }
}

const ALL: [Flood; KINDS] = [
    Flood::Reset,
    Flood::Ping,
    Flood::Settings,
    Flood::Idle,
    Flood::Window,
    Flood::Empty,
    Flood::Late,
    Flood::Provoked,
    Flood::Refused,
];

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
            (7, 8, Flood::Idle),
            (77, 0, Flood::Idle),
            (8, 4, Flood::Window),
        ] {
            let mut guard = Guard::new(256);
            assert_eq!((0..BURST).try_for_each(|_| guard.frame(kind, length)), Ok(()), "{kind}");
            assert_eq!(guard.frame(kind, length), Err(flood));
        }
    }

    #[test]
    fn work_and_time_win_the_allowance_back() {
        let mut guard = Guard::new(256);
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
        let mut guard = Guard::new(256);
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
        let refused = (0..BURST).try_for_each(|_| guard.take(Flood::Refused, 1));
        assert_eq!((refused, guard.take(Flood::Refused, 1)), (Ok(()), Err(Flood::Refused)));
        let late = (0..LATE).try_for_each(|_| guard.take(Flood::Late, 1));
        assert_eq!((late, guard.take(Flood::Late, 1)), (Ok(()), Err(Flood::Late)));
    }

    /// Hours of what clients do that mean no harm, at the rates at which they do it.
    #[test]
    fn what_works_never_meets_it() {
        let mut guard = Guard::new(256);
        let mut innocent = |steps: u64, what: &mut dyn FnMut(&mut Guard) -> Result<(), Flood>| {
            for step in 0..steps {
                guard.pass(guard.step + 1);
                assert_eq!(what(&mut guard), Ok(()), "step {step}");
            }
        };
        const HOURS: u64 = 4 * 3600 * 20;
        // Two thousand requests a second, each with a hint of its priority; one in five is taken back, as those are whose
        // time is over, and one in ten is malformed.
        innocent(HOURS, &mut |guard| {
            for request in 0..100 {
                guard.frame(1, 30)?;
                guard.frame(16, 20)?;
                match request % 10 {
                    1 | 5 => guard.frame(3, 4)?,
                    9 => guard.take(Flood::Provoked, 1)?,
                    _ => guard.completed(),
                }
            }
            Ok(())
        });
        // Events of a few bytes, each of them acknowledged twice, and the path measured with each.
        innocent(HOURS, &mut |guard| {
            (0..100).try_for_each(|_| {
                guard.sent(20, true);
                guard.frame(8, 4)?;
                guard.frame(8, 4)?;
                guard.frame(6, 8)
            })
        });
        // One stream, with an empty frame in between now and then, and others that are over whose client does not know.
        innocent(HOURS, &mut |guard| {
            guard.take(Flood::Empty, 8)?;
            (0..400).try_for_each(|_| guard.take(Flood::Late, 1))
        });
    }
}
