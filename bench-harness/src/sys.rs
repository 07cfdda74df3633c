//! The little that no crate wraps; all unsafe code of the harness is here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// CPU time, user and system, of all threads of a process: those that live, those that have ended, and the kernel's
/// io_uring workers that act for it (they belong to its thread group). Exact at the moment of the call, unlike
/// `/proc/PID/stat`, which counts in ticks.
pub(crate) fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_too_large| io::ErrorKind::InvalidInput)?;
    let mut clock = 0;
    // SAFETY: the clock id is written to a variable that lives through the call.
    let answer = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if answer != 0 {
        return Err(io::Error::from_raw_os_error(answer));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a variable that lives through the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Leaves the choice of the local port to `connect`, which may then reuse it for another destination: without it a
/// source address has 28,000 ports for all destinations together.
pub(crate) fn bind_without_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives through the call, and its size is passed.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptor of one of the runtime's sockets, which lend theirs as numbers only.
pub(crate) fn descriptor<T: AsRawFd>(of: &T) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps it open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}
