//! Windows of flow control (RFC 9113 section 5.2), in both directions.

use super::frame::MAX_WINDOW;

/// What the peer may send, and what it has been given back for what it has sent.
///
/// INVARIANT: `left + unreleased + released == size`, but for credit that has not been asked for any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    size: u32,
    left: u32,
    unreleased: u32,
    released: u32,
}

/// More has come than there was credit for, or credit than a window can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

impl ReceiveWindow {
    /// An open one.
    pub(super) fn new(size: u32) -> Self {
        Self { size, left: size, unreleased: 0, released: 0 }
    }

    /// Bytes have come.
    pub(super) fn take(&mut self, bytes: u32) -> Result<(), Overflow> {
        self.left = self.left.checked_sub(bytes).ok_or(Overflow)?;
        self.unreleased += bytes;
        Ok(())
    }

    /// Bytes have gone on; credit to be given now, which is when it has become half of the window.
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        let bytes = bytes.min(self.unreleased);
        self.unreleased -= bytes;
        self.released += bytes;
        if self.released == 0 || self.released < self.size / 2 {
            return None;
        }
        self.left += self.released;
        Some(std::mem::take(&mut self.released))
    }

    /// The same for a window that streams share: what some hold back does not count, so that the others go on.
    pub(super) fn release_shared(&mut self, bytes: u32) -> Option<u32> {
        let held = self.unreleased.saturating_sub(bytes);
        let size = self.size;
        self.size = size.saturating_sub(held);
        let credit = self.release(bytes);
        self.size = size;
        credit
    }

    /// Bytes that have come and have not gone on.
    pub(super) fn unreleased(&self) -> u32 {
        self.unreleased
    }

    /// What the peer may send.
    #[cfg(test)]
    fn left(&self) -> u32 {
        self.left
    }

    /// Forgets what has not gone on; how much that is.
    pub(super) fn give_up(&mut self) -> u32 {
        std::mem::take(&mut self.unreleased)
    }
}

/// What may be sent. It may be below zero (section 6.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    /// An open one.
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    /// What may be sent now.
    pub(super) fn left(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Bytes are sent, no more than may be.
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.left(), "sent beyond the window");
        self.0 -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// The peer gives credit.
    pub(super) fn give(&mut self, bytes: u32) -> Result<(), Overflow> {
        self.change(i64::from(bytes))
    }

    /// The peer has changed what windows begin with.
    pub(super) fn change(&mut self, by: i64) -> Result<(), Overflow> {
        let left = self.0 + by;
        if left > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        self.0 = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_back_does_not_count() {
        let mut window = ReceiveWindow::new(1000);
        window.take(1000).unwrap();
        assert_eq!(window.release(100), None);
        assert_eq!(window.release_shared(10), Some(110), "half of what is not held back");
        assert_eq!((window.left(), window.unreleased()), (110, 890));
        let mut window = ReceiveWindow::new(1000);
        window.take(100).unwrap();
        assert_eq!(window.release_shared(100), None, "with nothing held back it is half of the window");
    }

    #[test]
    fn credit_is_given_by_halves() {
        let mut window = ReceiveWindow::new(100);
        window.take(60).unwrap();
        assert_eq!(window.release(49), None);
        assert_eq!(window.take(41), Err(Overflow));
        assert_eq!(window.release(1), Some(50));
        assert_eq!((window.left(), window.unreleased()), (90, 10));
        // No more than has come.
        assert_eq!(window.release(1000), None);
        window.take(90).unwrap();
        assert_eq!(window.give_up(), 90);
        assert_eq!(window.release(90), None);
    }

    #[test]
    fn send_windows_may_be_in_debt() {
        let mut window = SendWindow::new(10);
        window.take(8);
        window.change(-10).unwrap();
        assert_eq!(window.left(), 0);
        window.give(9).unwrap();
        assert_eq!(window.left(), 1);
        assert_eq!(window.give(MAX_WINDOW), Err(Overflow));
        window.give(MAX_WINDOW - 1).unwrap();
    }
}
