//! A window with other bytes between its own, for one write: records that are encrypted where they stand.

use std::cell::RefCell;
use std::fmt;

use super::Buf;
use crate::rt::IoVecBuf;

/// Kept per thread.
const KEEP: usize = 16;

thread_local! {
    // The boxes are what is kept: they go in and out of operations.
    #[allow(clippy::vec_box, reason = "pointers to them are in the kernel's hands")]
    static FREE: RefCell<Vec<Box<Inner>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer in a write: the front of its window, with bytes of others in between, before and behind.
pub struct Laced(Option<Box<Inner>>);

#[derive(Default)]
struct Inner {
    buf: Option<Buf>,
    /// Bytes of the window that have a place.
    taken: usize,
    /// The other bytes, one behind the other.
    others: Vec<u8>,
    /// Where a piece of the window ends, and where the others end that go before it.
    cuts: Vec<(usize, usize)>,
    /// What the kernel is told; empty while it is being laid out.
    pieces: Vec<libc::iovec>,
    /// Pieces that have gone.
    gone: usize,
}

impl Laced {
    /// Around a buffer, of which nothing has a place yet.
    pub fn new(buf: Buf) -> Self {
        let kept = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let mut inner = kept.unwrap_or_default();
        inner.buf = Some(buf);
        Self(Some(inner))
    }

    fn inner(&self) -> &Inner {
        self.0.as_ref().expect("present until drop")
    }

    fn inner_mut(&mut self) -> &mut Inner {
        self.0.as_mut().expect("present until drop")
    }

    /// The buffer, for what is done to its bytes where they stand.
    pub fn buf_mut(&mut self) -> &mut Buf {
        assert!(self.inner().pieces.is_empty(), "it is laid out");
        self.inner_mut().buf.as_mut().expect("present until drop")
    }

    /// Puts bytes of others next.
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(self.inner().pieces.is_empty(), "it is laid out");
        self.inner_mut().others.extend_from_slice(bytes);
    }

    /// Puts the window's next `n` bytes next.
    pub fn pass(&mut self, n: usize) {
        let inner = self.inner_mut();
        assert!(inner.pieces.is_empty(), "it is laid out");
        inner.taken += n;
        assert!(inner.buf.as_ref().is_some_and(|buf| inner.taken <= buf.len()), "more than there is");
        inner.cuts.push((inner.taken, inner.others.len()));
    }

    /// Takes the first `n` bytes off; whether any are left to write. None is taken before the first write.
    pub fn advance(&mut self, mut n: usize) -> bool {
        let inner = self.inner_mut();
        if inner.pieces.is_empty() {
            inner.lay_out();
        }
        while let Some(piece) = inner.pieces.get_mut(inner.gone) {
            if n < piece.iov_len {
                piece.iov_len -= n;
                piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(n).cast();
                return true;
            }
            n -= piece.iov_len;
            inner.gone += 1;
        }
        assert!(n == 0, "more was written than there is");
        false
    }

    /// What a write would write.
    #[cfg(test)]
    pub(crate) fn written(&mut self) -> Vec<u8> {
        self.advance(0);
        let inner = self.inner();
        let all = [&inner.others[..], inner.buf.as_ref().expect("present until drop").data()];
        let mut out = Vec::new();
        for piece in &inner.pieces[inner.gone..] {
            let at = piece.iov_base.cast::<u8>().cast_const();
            let of = all.iter().find(|of| of.as_ptr_range().contains(&at)).expect("one of both");
            let from = at.addr() - of.as_ptr().addr();
            out.extend_from_slice(&of[from..from + piece.iov_len]);
        }
        out
    }

    /// The buffer back, without what has had a place.
    pub fn into_buf(mut self) -> Buf {
        let inner = self.inner_mut();
        let mut buf = inner.buf.take().expect("present until drop");
        buf.consume(inner.taken);
        buf
    }
}

impl Inner {
    fn lay_out(&mut self) {
        let Self { buf: Some(buf), others, cuts, pieces, .. } = self else { return };
        let window = buf.data();
        let mut put = |bytes: &[u8]| {
            if !bytes.is_empty() {
                pieces.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            }
        };
        let (mut at, mut other) = (0, 0);
        for &(end, others_end) in cuts.iter() {
            put(&others[other..others_end]);
            put(&window[at..end]);
            (at, other) = (end, others_end);
        }
        put(&others[other..]);
    }
}

impl Drop for Laced {
    fn drop(&mut self) {
        let Some(mut inner) = self.0.take() else { return };
        inner.buf = None;
        inner.taken = 0;
        inner.gone = 0;
        inner.others.clear();
        inner.cuts.clear();
        inner.pieces.clear();
        // It fails only while the thread's locals are being torn down.
        let _gone = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEEP {
                free.push(inner);
            }
        });
    }
}

impl fmt::Debug for Laced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Laced").field("buf", &self.inner().buf).finish_non_exhaustive()
    }
}

// SAFETY: the pieces are in a heap block that does not move when the `Laced` does, and point into the buffer's block and
// into `others`, which do not move either and which nothing changes once the pieces are there (`buf_mut`, `put` and `pass`
// refuse to); all of them live as long as it does.
unsafe impl IoVecBuf for Laced {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        let inner = self.inner();
        inner.pieces[inner.gone..].as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        let inner = self.inner();
        inner.pieces.len() - inner.gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    #[test]
    fn pieces_stand_where_they_were_put_and_go_in_any_steps() {
        for step in 1..14 {
            let mut buf = Buf::new(Class::Head);
            assert!(buf.push(b"abcdef"));
            let mut laced = Laced::new(buf);
            laced.put(b"12");
            laced.put(b"3");
            laced.pass(2);
            laced.put(b"4");
            laced.pass(3);
            laced.put(b"56");
            let whole = b"123ab4cde56";
            let (mut at, mut n) = (0, 0);
            while laced.advance(n) {
                at += n;
                assert_eq!(laced.written(), &whole[at..]);
                n = step.min(whole.len() - at);
            }
            assert_eq!(at + n, whole.len());
            assert_eq!(laced.into_buf().data(), b"f");
        }
    }

    #[test]
    #[should_panic(expected = "it is laid out")]
    fn nothing_moves_under_the_kernel() {
        let mut laced = Laced::new(Buf::new(Class::Head));
        laced.put(b"a");
        laced.advance(0);
        laced.put(b"b");
    }
}
