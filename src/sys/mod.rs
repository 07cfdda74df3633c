//! System calls that the runtime does not make for us: one of the two rooms with `unsafe`.
//!
//! Most of it is rustix, which is safe; what is not safe is turning a number back into a descriptor, and that is done
//! here and nowhere else.

pub mod bpf;
<<<<<<< HEAD
=======
pub mod netlink;
mod socket;

pub use socket::{
    Listening, PeerState, accept, bind_probe, connect_tcp, connect_unix, cut, listen, peer_state, prepare_accepted,
    receive_now, reset, send_now, take_error,
};

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

/// The descriptor behind a number.
///
/// The callers hold the socket that owns `fd` while they hold the result: timers forget a descriptor before it is
/// closed (`rt::deadline`), and everything else is a call on an open stream. A stale number would reach another of our
/// own sockets, never memory.
fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd >= 0, "not a descriptor");
    // SAFETY: `fd` is not -1, and it is open for the length of the call (above).
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A shared look at a stream whose two halves are in use on this thread.
///
/// The runtime's halves share the stream through an `UnsafeCell` and hand out no shared reference; asking a stream
/// whether it is readable needs only one.
pub(crate) fn peek<T>(shared: &Rc<UnsafeCell<T>>) -> &T {
    // SAFETY: an `Rc` stays on its thread, and a half dereferences its exclusive reference only while it submits an
    // operation (to clone the descriptor's handle), never across a suspension point. No call made through the shared
    // reference reaches back into a half.
    unsafe { &*shared.get() }
}

/// The limit on open descriptors, raised to the hard limit; what it is afterwards.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current.unwrap_or(u64::MAX))
}
>>>>>>> 6597bb7 (DSR: netlink, active checks with a simulation, the model's services; flows hash as L7 traffic does)
