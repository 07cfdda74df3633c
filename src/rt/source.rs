//! Descriptors that are only waited for: timers, datagram sockets, sets of sockets.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use monoio::net::TcpStream;

/// A non-blocking descriptor whose calls are our own, and of which the event loop says when it is readable.
#[derive(Debug)]
pub struct Source {
    // The runtime's stream asks for readiness as it would for any descriptor, and makes no other call on it here.
    inner: TcpStream,
}

impl Source {
    /// Takes it over.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { inner: TcpStream::from_std(fd.into())? })
    }

    /// Waits until it is readable. May be dropped.
    pub async fn readable(&self) -> io::Result<()> {
        self.inner.readable(false).await
    }

    /// Its descriptor, for calls that do not outlive it.
    pub fn fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}
