//! Accepting: bounded bursts, so that established connections are served in between, and pauses when descriptors or
//! the connection limit run out.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::Core;
use crate::downstream;
use crate::metrics::AcceptError;
use crate::rt::{self, Listener, Signal};
use crate::snapshot::SocketId;
use crate::{buffer, relay, sys};

/// Connections taken per wake-up.
const BURST: usize = 64;

/// How long accepting pauses when there is no room.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client waits in the queue of a full worker before it is turned away.
const PATIENCE: u32 = 20;

/// Accepts until told to stop, then takes what is waiting: the kernel would reset it.
pub(super) async fn run(core: Rc<Core>, socket: SocketId, listener: Listener, stop: Rc<Signal>) {
    let mut paused = 0;
    while let Err(ready) = rt::race(stop.wait(), listener.ready()).await {
        if let Err(error) = ready {
            tracing::error!(%error, worker = core.settings.id, "cannot wait for connections");
            rt::sleep(PAUSE).await;
            continue;
        }
        match burst(&core, socket, &listener, paused > PATIENCE) {
            Burst::Done => paused = 0,
            Burst::Full => {
                paused += 1;
                rt::sleep(PAUSE).await;
            }
        }
    }
    let waiting = || sys::waiting(listener.fd()).unwrap_or(0);
    for _ in 0..BURST * BURST {
        match listener.accept() {
            Ok(Some((fd, peer))) => start(&core, socket, fd, peer),
            Ok(None) if waiting() > 0 => {}
            Ok(None) | Err(_) => break,
        }
    }
    // What is left goes to another socket of the port, where there is one and the kernel does that, or is reset.
    let has_another = core.generation().socket(socket).is_some_and(|found| found.shared.id != socket);
    if has_another && migrates() {
        return;
    }
    for _ in 0..waiting() {
        core.metrics.accept_error(AcceptError::Lost);
    }
}

/// Whether the kernel hands what waits at a socket that is closed to another one of the port.
fn migrates() -> bool {
    std::fs::read("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|text| text.starts_with(b"1"))
}

enum Burst {
    Done,
    Full,
}

fn burst(core: &Rc<Core>, socket: SocketId, listener: &Listener, turn_away: bool) -> Burst {
    for _ in 0..BURST {
        let full = rt::open_streams() >= core.settings.max_streams;
        if full && !turn_away {
            core.metrics.accept_error(AcceptError::ConnectionLimit);
            make_room(core);
            return Burst::Full;
        }
        match listener.accept() {
            Ok(Some((fd, _))) if full => {
                sys::reset(std::os::fd::AsRawFd::as_raw_fd(&fd));
                core.metrics.accept_error(AcceptError::TurnedAway);
            }
            Ok(Some((fd, peer))) => start(core, socket, fd, peer),
            Ok(None) => return Burst::Done,
            Err(error) => match Errno::from_io_error(&error) {
                // The peer gave up while it waited.
                Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {
                    core.metrics.accept_error(AcceptError::Aborted);
                }
                Some(Errno::MFILE | Errno::NFILE) => {
                    core.metrics.accept_error(AcceptError::Descriptors);
                    make_room(core);
                    return Burst::Full;
                }
                _ => {
                    core.metrics.accept_error(AcceptError::Other);
                    return Burst::Full;
                }
            },
        }
    }
    Burst::Done
}

/// Gives up what is kept for later only.
fn make_room(core: &Core) {
    for backend in core.generation().backends() {
        for endpoint in backend.endpoints() {
            endpoint.clear();
        }
    }
    buffer::trim(16);
    relay::close_free_pipes();
}

fn start(core: &Rc<Core>, socket: SocketId, fd: OwnedFd, peer: SocketAddr) {
    downstream::start(core, socket, fd, peer);
}
