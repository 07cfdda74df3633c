//! System calls that the runtime does not make for us: one of the two rooms with `unsafe`.
//!
//! Most of it is rustix, which is safe; what is not safe is turning a number back into a descriptor, and that is done
//! here and nowhere else.

pub mod bpf;
mod datagram;
pub mod ethtool;
pub mod netlink;
pub mod packet;
mod pipe;
mod socket;

pub use datagram::{BATCH, DATAGRAM, Datagrams, Path, bind_udp, connect_udp, is_unreachable};
pub use pipe::{Pipe, PipeError, splice_refused};
pub use socket::{
    Listening, PeerState, accept, bind_probe, connect_tcp, connect_unix, cut, listen, local_address, look_after,
    peer_state, receive_now, reset, send_now, steer, take_error,
};

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

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

/// Closes a socket at once. Nothing that the runtime was asked for may be under way on it.
pub(crate) fn close(stream: impl IntoRawFd) {
    // SAFETY: the descriptor was the stream's alone, which has given it up.
    drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
}

fn set_int(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

fn set_bytes(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = u32::try_from(value.len()).expect("options are short");
    // SAFETY: the pointer is to `len` bytes that outlive the call, which only reads them; the kernel copies them, so
    // they need no alignment.
    let set = unsafe { libc::setsockopt(std::os::fd::AsRawFd::as_raw_fd(fd), level, name, value.as_ptr().cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Connections that wait to be accepted at a listening socket.
pub fn waiting(listener: RawFd) -> io::Result<u32> {
    // SAFETY: it is plain data for which zeroes are a value.
    let mut info = unsafe { std::mem::zeroed::<libc::tcp_info>() };
    let mut len = u32::try_from(size_of::<libc::tcp_info>()).expect("a small type");
    // SAFETY: both pointers are to values that outlive the call, and `len` is the size of the first.
    let got =
        unsafe { libc::getsockopt(listener, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len) };
    // Of a listening socket, this field is the length of its queue.
    if got == 0 { Ok(info.tcpi_unacked) } else { Err(io::Error::last_os_error()) }
}

/// Has an epoll set report `fd` as `name` when there is something to read from it.
pub fn watch(set: RawFd, fd: &OwnedFd, name: u64) -> io::Result<()> {
    use rustix::event::epoll;
    Ok(epoll::add(borrow(set), fd, epoll::EventData::new_u64(name), epoll::EventFlags::IN)?)
}

/// A new epoll set.
pub fn watch_set() -> io::Result<OwnedFd> {
    use rustix::event::epoll;
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}

/// Has an epoll set report `fd` as `name` once, when there is something to read from it, its peer has ended, or it is
/// broken; `known` when the set has it from an earlier time.
pub fn watch_once(set: RawFd, fd: RawFd, name: u64, known: bool) -> io::Result<()> {
    use rustix::event::epoll::{self, EventFlags};
    let (set, fd, data) = (borrow(set), borrow(fd), epoll::EventData::new_u64(name));
    let flags = EventFlags::IN | EventFlags::ONESHOT;
    let entered = if known { epoll::modify(set, fd, data, flags) } else { epoll::add(set, fd, data, flags) };
    Ok(entered?)
}

/// Has it report `fd` no more, but keep it: unless it breaks, which may still be told, by a name of no meaning. Taking it
/// out and in again would cost twice as much as two changes.
pub fn unwatch(set: RawFd, fd: RawFd) -> io::Result<()> {
    use rustix::event::epoll::{self, EventFlags};
    Ok(epoll::modify(borrow(set), borrow(fd), epoll::EventData::new_u64(u64::MAX), EventFlags::ONESHOT)?)
}

/// The names that an epoll set reports now, as many as there is room for in `names`.
pub fn ready(set: RawFd, names: &mut Vec<u64>) -> io::Result<()> {
    use rustix::event::{Timespec, epoll};
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; BATCH];
    let count = epoll::wait(borrow(set), &mut events, Some(&NOW))?;
    names.clear();
    names.extend(events[..count].iter().map(|event| event.data.u64()));
    Ok(())
}

/// A one-shot timer that becomes readable when it goes off.
pub fn timer() -> io::Result<OwnedFd> {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
    Ok(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)
}

/// Sets the timer to go off after `wait`.
pub fn arm_timer(timer: RawFd, wait: Duration) -> io::Result<()> {
    use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
    let value = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
    timerfd_settime(borrow(timer), TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

/// Takes note that the timer has gone off.
pub fn reset_timer(timer: RawFd) {
    // Nothing to read means that it was armed again in the meantime.
    let _expirations = rustix::io::read(borrow(timer), &mut [0_u8; 8]);
}

/// Lets the other threads of this process go first from here on: the calling thread, and those that it starts, are nicer by
/// ten. Where that is not permitted, nothing changes.
pub fn step_back() {
    use rustix::process::{getpriority_process, setpriority_process};
    // Linux takes this for the thread.
    let _as_before = getpriority_process(None).and_then(|nice| setpriority_process(None, nice + 10));
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

/// Gives memory that this thread has freed back to the kernel, about a second after it was freed.
///
/// The allocator does that by itself only as long as it is asked for memory: what a burst of connections needed stayed for
/// as long as they were idle then, 50 to 250 bytes for each of 8,000.
pub fn give_memory_back() {
    // Its library is linked where this crate is.
    use mimalloc as _;
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: this is its signature in mimalloc.h; it may be called at any time, and looks at this thread's heap only.
    unsafe { mi_collect(false) }
}

/// Keeps memory in small pages.
///
/// The allocator asks for huge pages, of which a process with a small heap touches a little each: an idle one held
/// 11.0 MB instead of 1.6 MB, one with 8,000 idle connections 1,835 bytes for each instead of 1,510. An error leaves
/// things as they are: older kernels do not know the call.
pub fn keep_pages_small() {
    let _large = rustix::thread::disable_transparent_huge_pages(true);
}
