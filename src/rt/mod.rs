//! The runtime seam: the only module that names monoio.
//!
//! One thread runs one event loop on its own io_uring ring, or on epoll where a ring cannot be had; everything above
//! sees streams, listeners, deadlines and tasks, and cannot tell which. Rules that hold here because monoio 0.2.4
//! needs them:
//!
//! * A read or write in flight is never dropped: its buffer would stay with the kernel and its bytes be lost. What has
//!   to end early is ended from outside, by shutting the socket down or by cancelling the operation and awaiting its
//!   answer ([`Reader::read_unless_quiet`]). Waiting for readiness holds no buffer and may be dropped.
//! * Readiness is always asked for strictly: on epoll the relaxed form answers from a cache that only its own reads
//!   clear, so that a loop around our own `accept4` would never wait.
//! * `accept` is readiness plus our own `accept4`; the runtime's accept leaks descriptors when dropped.
//! * No task wakes itself to yield: such a task would run before all others again.
//! * Nothing crosses threads but through a [`mailbox()`], whose wake-up is a byte on a socket pair that the loop reads.

mod deadline;
mod idle;
mod listener;
mod mailbox;
mod pace;
mod source;
mod stream;
mod task;

use std::future::Future;
use std::io;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

pub(crate) use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};

pub use deadline::{Deadline, Tick, millis, now, tick_after};
pub use idle::{Readable, readable, readable_by};
pub use listener::Listener;
pub use mailbox::{Inbox, Receiver, Sender, mailbox};
pub use pace::pace;
pub use source::Source;
pub use stream::{HandshakeError, Reader, Stream, StreamCount, Writer, connect_tcp, connect_unix, open_streams};
pub use task::{Signal, catch_unwind, caught, join, race, sleep, spawn};

/// Submission queue entries of a worker's ring. 3,000 to 6,000 simultaneous completions were all answered with 1,024.
pub const RING_ENTRIES: u32 = 1024;

/// Which system interface an event loop waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with SINGLE_ISSUER and DEFER_TASKRUN.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Whether a worker's ring can be had here, and if not, why. Run in a thread of its own: the ring belongs to it.
pub fn probe_ring() -> io::Result<()> {
    std::thread::spawn(|| run(Driver::IoUring, async {})).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Runs `main` on this thread's own event loop until it is done. The ring is built here, in the thread that uses it.
pub fn run<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    let main = async {
        spawn(deadline::ticker());
        main.await
    };
    match driver {
        Driver::IoUring => {
            let mut ring = io_uring::IoUring::builder();
            ring.setup_single_issuer().setup_defer_taskrun();
            let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(RING_ENTRIES);
            Ok(builder.enable_timer().build()?.block_on(main))
        }
        Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(main)),
    }
}
