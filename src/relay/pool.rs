//! Pipes of a core: a few are kept, more are made up to a bound, and what cannot be had is not asked for again at once.
//!
//! A pipe takes memory of the kernel while bytes are in it (as much as is in it) and a table of its pages all the time
//! (10 KiB for 1 MiB). Making one costs about 18 us of a short connection, hence the pool; a pipe in which bytes are
//! left is closed, since they belong to one connection.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use crate::rt::{self, Tick};
use crate::sys::{Pipe, PipeError};

/// Size asked for. Measured on bulk streams, CPU per byte against 1 MiB: 256 KiB 1.1, 64 KiB 1.4 to 1.5
/// (`perf/README.md`, L4).
const SIZE: usize = 1 << 20;

/// Smallest size that is worth it.
const LEAST: usize = 256 << 10;

/// Pipes of one core in use at the same time: 128 MiB if all of them are full.
const MOST: usize = 128;

/// Free pipes kept per core. Housekeeping closes them when bulk transfers have ended.
const KEEP: usize = 32;

/// How long nobody asks after pipes could not be had.
const PAUSE: Tick = 20;

thread_local! {
    static POOL: Pool = Pool::default();
}

#[derive(Debug, Default)]
struct Pool {
    free: RefCell<Vec<Pipe>>,
    in_use: Cell<usize>,
    /// Most in use since the last trim.
    peak: Cell<usize>,
    not_before: Cell<Tick>,
    refused: Cell<u64>,
    spliced: Cell<u64>,
    told: Cell<bool>,
}

/// A pipe in use.
#[derive(Debug)]
pub(super) struct Lease {
    pipe: Option<Pipe>,
}

/// Pipes of this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeStats {
    /// In use.
    pub in_use: usize,
    /// Kept for the next.
    pub free: usize,
    /// How often none could be had: the flow went on by copying.
    pub refused: u64,
    /// Bytes that have passed through them.
    pub spliced: u64,
}

/// Figures of this thread's pipes.
pub fn pipes() -> PipeStats {
    POOL.with(|pool| PipeStats {
        in_use: pool.in_use.get(),
        free: pool.free.borrow().len(),
        refused: pool.refused.get(),
        spliced: pool.spliced.get(),
    })
}

/// Counts bytes that have passed through a pipe.
pub(super) fn count_spliced(bytes: usize) {
    POOL.with(|pool| pool.spliced.set(pool.spliced.get() + bytes as u64));
}

/// Closes free pipes beyond what was in use lately.
pub fn trim_pipes() {
    POOL.with(|pool| {
        let mut free = pool.free.borrow_mut();
        free.truncate(pool.peak.get().saturating_sub(pool.in_use.get()));
        pool.peak.set(pool.in_use.get().max(pool.peak.get() / 2));
    });
}

/// Closes all free pipes: descriptors have run out.
pub fn close_free_pipes() {
    POOL.with(|pool| pool.free.borrow_mut().clear());
}

impl Lease {
    /// A free pipe, or a new one; none when limits are reached.
    pub(super) fn take() -> Option<Self> {
        POOL.with(|pool| {
            let pipe = pool.free.borrow_mut().pop().or_else(|| pool.make())?;
            pool.in_use.set(pool.in_use.get() + 1);
            pool.peak.set(pool.peak.get().max(pool.in_use.get()));
            Some(Self { pipe: Some(pipe) })
        })
    }
}

impl Pool {
    fn make(&self) -> Option<Pipe> {
        if rt::now() < self.not_before.get() {
            return None;
        }
        let error = if self.in_use.get() >= MOST {
            None
        } else {
            match Pipe::new(SIZE, LEAST) {
                Ok(pipe) => return Some(pipe),
                Err(error) => Some(error),
            }
        };
        self.refused.set(self.refused.get() + 1);
        self.not_before.set(rt::now() + PAUSE);
        if error == Some(PipeError::Pages) && !self.told.replace(true) {
            tracing::warn!(
                "no pages left for pipes: bulk transfers are copied; raise fs.pipe-user-pages-soft (`ringway doctor`)"
            );
        }
        None
    }
}

impl Deref for Lease {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("present until drop")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("present until drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        // Fails only while the thread's locals are being torn down; the pipe is closed then.
        let _gone = POOL.try_with(|pool| {
            pool.in_use.set(pool.in_use.get().saturating_sub(1));
            let mut free = pool.free.borrow_mut();
            if pipe.held() == 0 && free.len() < KEEP {
                free.push(pipe);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pipe_with_bytes_in_it_never_comes_back() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let first = Lease::take().unwrap();
        drop(first);
        assert_eq!(pipes(), PipeStats { in_use: 0, free: 1, refused: 0, spliced: 0 });
        let mut used = Lease::take().unwrap();
        a.write_all(b"left over").unwrap();
        assert_eq!(used.fill(b.as_raw_fd(), 100).unwrap(), 9);
        assert_eq!(pipes(), PipeStats { in_use: 1, free: 0, refused: 0, spliced: 0 });
        drop(used);
        assert_eq!(pipes(), PipeStats { in_use: 0, free: 0, refused: 0, spliced: 0 });
    }

    #[test]
    fn pipes_are_bounded_and_trimmed() {
        let all: Vec<Lease> = std::iter::from_fn(Lease::take).take(MOST + 1).collect();
        // An unprivileged user gets 64 MiB of pipes from the kernel, and fewer here when others run.
        assert!(all.len() <= MOST && !all.is_empty());
        assert!(pipes().refused > 0);
        drop(all);
        assert_eq!(pipes().in_use, 0);
        assert!(pipes().free <= KEEP);
        for _ in 0..20 {
            trim_pipes();
        }
        assert_eq!(pipes().free, 0);
    }
}
