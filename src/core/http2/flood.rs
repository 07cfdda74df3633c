//! Frames that cost their receiver and carry nothing: how many of them a client may send.
//!
//! The guard reads the frame headers that pass by, and nothing else of them. Every kind has an allowance that requests
//! and data win back, and time, so that what works never meets it and what floods does within moments. Floods within
//! one kind of frame that the codec has to see anyway (CONTINUATION, empty DATA, heads over their limit, resets that a
//! client provokes) are its business.

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

/// Bytes of DATA below which an answer leaves in dribs.
const DRIB: usize = 256;

/// Frames of one kind that may come at once.
const BURST: u32 = 1000;

/// Won back with every step of time.
const PER_STEP: u32 = 10;

/// Length of a frame header (RFC 9113 section 4.1).
const HEADER: usize = 9;

/// Length of the connection preface (section 3.4).
const PREFACE: usize = 24;

/// Watches the bytes of one client, and what is sent to it.
#[derive(Debug)]
pub struct Guard {
    received: Frames,
    sent: Frames,
    step: u64,
    left: [u32; KINDS],
}

/// Finds frame headers among bytes.
#[derive(Debug)]
struct Frames {
    header: [u8; HEADER],
    got: usize,
    /// Bytes until the next frame header.
    skip: usize,
}

impl Frames {
    fn behind(bytes: usize) -> Self {
        Self { header: [0; HEADER], got: 0, skip: bytes }
    }

    /// Takes bytes off the front, up to the end of the next frame header, if that has come.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                *bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER - self.got).min(bytes.len());
            self.header[self.got..self.got + taken].copy_from_slice(&bytes[..taken]);
            self.got += taken;
            *bytes = &bytes[taken..];
            if self.got == HEADER {
                self.got = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                return Some(Frame { kind, flags, length: self.skip });
            }
        }
        None
    }
}

/// What a frame's header says.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    length: usize,
}

impl Guard {
    /// At the connection's first byte, which is the preface's.
    pub fn new() -> Self {
        Self { received: Frames::behind(PREFACE), sent: Frames::behind(0), step: 0, left: [BURST; KINDS] }
    }

    /// Takes note of bytes; `step` counts time in twentieths of a second.
    pub fn see(&mut self, mut bytes: &[u8], step: u64) -> Result<(), Flood> {
        if step > self.step {
            let won = u32::try_from(step - self.step).unwrap_or(BURST).saturating_mul(PER_STEP);
            self.step = step;
            self.win(won);
        }
        while let Some(frame) = self.received.next(&mut bytes) {
            self.frame(frame)?;
        }
        Ok(())
    }

    /// Takes note of bytes that are sent.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(Frame { kind, flags, length }) = self.sent.next(&mut bytes) {
            // DATA that is worth a credit, or the last of an answer.
            if kind == 0 && (length >= DRIB || flags & 1 != 0) {
                self.credit();
            }
        }
    }

    fn frame(&mut self, Frame { kind, length, .. }: Frame) -> Result<(), Flood> {
        let flood = match kind {
            // DATA that carries something.
            0 if length > 0 => {
                self.win(2);
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

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [.., high, middle, low] = payload.to_be_bytes();
        let mut bytes = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, 0xff);
        bytes
    }

    fn preface() -> Guard {
        let mut guard = Guard::new();
        guard.see(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).unwrap();
        guard
    }

    #[test]
    fn floods_are_seen_however_their_bytes_come() {
        for (kind, payload, flood) in [
            (3, 4, Flood::Reset),
            (4, 0, Flood::Settings),
            (6, 8, Flood::Ping),
            (2, 5, Flood::Idle),
            (77, 0, Flood::Idle),
            (8, 4, Flood::Window),
        ] {
            for piece in [1, 7, 9, 10_000] {
                let mut guard = preface();
                let bytes: Vec<u8> = (0..=BURST).flat_map(|_| frame(kind, payload)).collect();
                let seen = bytes.chunks(piece).try_for_each(|piece| guard.see(piece, 0));
                assert_eq!(seen, Err(flood), "{kind} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn work_and_time_win_the_allowance_back() {
        let mut guard = preface();
        for _ in 0..100_000 {
            guard.see(&frame(6, 8), 0).unwrap();
            guard.see(&frame(0, 1), 0).unwrap();
        }
        for step in 1..100_000 {
            guard.see(&frame(3, 4).repeat(10), step).unwrap();
        }
    }

    #[test]
    fn credit_is_free_for_what_leaves_in_pieces() {
        let mut guard = preface();
        let credits = |count| frame(8, 4).repeat(count);
        for _ in 0..10_000 {
            guard.see(&credits(4), 0).unwrap();
            guard.sent(&frame(0, 16_384));
            guard.see(&frame(1, 20), 0).unwrap();
            guard.see(&credits(4), 0).unwrap();
        }
        let dribbled = (0..2000).try_for_each(|_| {
            guard.sent(&frame(0, 1));
            guard.see(&credits(1), 0)
        });
        assert_eq!(dribbled, Err(Flood::Window));
    }
}
