//! Pipes that bytes are spliced through, from one socket to another without passing through user space.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::borrow;

/// Why there is no pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeError {
    /// `fs.pipe-user-pages-soft` (or `-hard`) is reached: an unprivileged user gets no more pages for pipes.
    Pages,
    /// No descriptors or memory left.
    Resources,
}

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    size: usize,
}

impl Pipe {
    /// A pipe of at least `least` bytes, of `wanted` where that can be had.
    pub fn new(wanted: usize, least: usize) -> Result<Self, PipeError> {
        let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
            return Err(PipeError::Resources);
        };
        // EPERM: over `fs.pipe-max-size`, or the user's pages have run out. A smaller one may still be had.
        let mut size = wanted;
        loop {
            match fcntl_setpipe_size(&write, size) {
                Ok(size) => return Ok(Self { read, write, held: 0, size }),
                Err(Errno::PERM | Errno::BUSY) if size / 2 >= least => size /= 2,
                Err(Errno::PERM | Errno::BUSY) => return Err(PipeError::Pages),
                Err(_) => return Err(PipeError::Resources),
            }
        }
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes it can hold at most, in full pages.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Moves up to `len` bytes from a socket into it: 0 is the end of the stream, `WouldBlock` that nothing has come
    /// or that nothing fits.
    pub fn fill(&mut self, socket: RawFd, len: usize) -> io::Result<usize> {
        let moved = splice(borrow(socket), None, &self.write, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what is in it into a socket, as far as that takes it; `WouldBlock` when it takes nothing.
    pub fn drain(&mut self, socket: RawFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(&self.read, None, borrow(socket), None, self.held, flags)?;
        self.held -= moved;
        Ok(moved)
    }
}

/// Whether an error of [`Pipe::fill`] or [`Pipe::drain`] means that this kind of socket cannot be spliced.
pub fn splice_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM))
}
