//! Listening sockets: readiness from the ring, `accept4` from us.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys;

/// A listening socket of this event loop.
#[derive(Debug)]
pub struct Listener {
    socket: monoio::net::TcpListener,
}

impl Listener {
    /// Takes over a bound, listening, non-blocking socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: monoio::net::TcpListener::from_std(socket.into())? })
    }

    /// Waits until a connection may be waiting. May be dropped.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable(false).await
    }

    /// Its descriptor, for calls that do not outlive it.
    pub fn fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }

    /// The next waiting connection, or `None`.
    pub fn accept(&self) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
        sys::accept(self.socket.as_raw_fd())
    }
}
