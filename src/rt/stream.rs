//! Connected streams: two halves, each with its own deadline.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::deadline::{Deadline, Tick, tick_after};
use crate::buffer::{Buf, Drain, Fill};
use crate::sys;

thread_local! {
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// Streams of this thread that are open, both directions' peers and mailboxes included.
pub fn open_streams() -> usize {
    OPEN.get()
}

/// A connected stream socket, TCP or Unix: the operations are the same.
#[derive(Debug)]
pub struct Stream {
    /// What comes in.
    pub rd: Reader,
    /// What goes out.
    pub wr: Writer,
}

/// The incoming half.
#[derive(Debug)]
pub struct Reader {
    // The deadline is dropped before the socket is closed: it must not reach a descriptor that has been given out again.
    deadline: Deadline,
    half: OwnedReadHalf<TcpStream>,
}

/// The outgoing half.
#[derive(Debug)]
pub struct Writer {
    deadline: Deadline,
    half: OwnedWriteHalf<TcpStream>,
    fd: RawFd,
    stall: Option<Duration>,
}

impl Stream {
    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let fd = socket.as_raw_fd();
        // The runtime's TCP stream makes no call that only TCP has, so it carries Unix sockets as well.
        let stream = TcpStream::from_std(socket.into())?;
        let (rd, wr) = stream.into_split();
        OPEN.set(OPEN.get() + 1);
        Ok(Self {
            rd: Reader { deadline: Deadline::new(fd), half: rd },
            wr: Writer { deadline: Deadline::new(fd), half: wr, fd, stall: None },
        })
    }

    /// Its descriptor, for calls that do not outlive the stream.
    pub fn fd(&self) -> RawFd {
        self.wr.fd
    }

    /// Shuts it down; operations in flight complete with an end or an error.
    pub fn cut(&self, how: Shutdown) {
        sys::cut(self.fd(), how);
    }

    /// Breaks the connection off by a reset; operations in flight complete with an error.
    pub fn reset(&self) {
        sys::reset(self.fd());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        OPEN.set(OPEN.get().saturating_sub(1));
    }
}

impl Reader {
    /// The half's deadline.
    pub fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    /// Reads into the room behind the buffer's window, of which there must be some: 0 is the end of the stream.
    /// Never drop it in flight.
    pub async fn read(&mut self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        assert!(buf.room() > 0, "a read without room would look like the end of the stream");
        loop {
            let (read, Fill(back)) = self.half.read(Fill(buf)).await;
            match read {
                Err(error) if is_interrupt(&error) => buf = back,
                read => return (read, back),
            }
        }
    }

    /// As [`Reader::read`], but gives the buffer back with `None` when nothing has come until `quiet`, so that a
    /// connection that waits for long holds none. Never drop it in flight.
    pub async fn read_unless_quiet(&mut self, mut buf: Buf, quiet: Tick) -> (io::Result<Option<usize>>, Buf) {
        assert!(buf.room() > 0, "a read without room would look like the end of the stream");
        loop {
            let handle = self.deadline.arm_cancel(quiet);
            let (read, Fill(back)) = self.half.cancelable_read(Fill(buf), handle).await;
            self.deadline.disarm();
            match read {
                Ok(n) => return (Ok(Some(n)), back),
                Err(error) if is_interrupt(&error) => buf = back,
                Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => return (Ok(None), back),
                Err(error) => return (Err(error), back),
            }
        }
    }

    /// Waits until a read would not wait. Holds no buffer; may be dropped.
    pub async fn readable(&self) -> io::Result<()> {
        sys::peek(&self.half.0).readable(false).await
    }

    /// The same until `at`; `false` when that has passed.
    pub async fn readable_until(&mut self, at: Tick) -> io::Result<bool> {
        let stream = sys::peek(&self.half.0);
        match super::race(stream.readable(false), self.deadline.passed(at)).await {
            Ok(ready) => {
                self.deadline.disarm();
                ready.map(|()| true)
            }
            Err(()) => Ok(false),
        }
    }
}

impl Writer {
    /// The half's deadline.
    pub fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    /// How long one write may wait for its peer before the stream is shut down; none: for ever.
    pub fn set_stall_timeout(&mut self, stall: Duration) {
        self.stall = Some(stall);
    }

    /// Writes the first `len` bytes of the window and takes them off it; `TimedOut` when the peer took nothing for
    /// the stall timeout. Never drop it in flight.
    pub async fn write_all(&mut self, mut buf: Buf, len: usize) -> (io::Result<()>, Buf) {
        let mut left = len;
        while left > 0 {
            if let Some(stall) = self.stall {
                self.deadline.arm(tick_after(stall), Shutdown::Both);
            }
            let (written, back) = self.half.write(Drain::new(buf, left)).await;
            buf = back.into_buf();
            if self.stall.is_some() && self.deadline.disarm() {
                return (Err(io::ErrorKind::TimedOut.into()), buf);
            }
            match written {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(n) => {
                    left -= n;
                    buf.consume(n);
                }
                Err(error) if is_interrupt(&error) => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Ends the outgoing direction (FIN).
    pub fn finish(&mut self) {
        sys::cut(self.fd, Shutdown::Write);
    }

    /// The descriptor, for calls that do not outlive the stream.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

fn is_interrupt(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// Connects over TCP until `by`. The connect is our own non-blocking one, so that a deadline can end it.
pub async fn connect_tcp(address: SocketAddr, by: Tick) -> io::Result<Stream> {
    let mut stream = Stream::new(sys::connect_tcp(address)?)?;
    stream.wr.deadline.arm(by, Shutdown::Both);
    let ready = sys::peek(&stream.wr.half.0).writable(false).await;
    let late = stream.wr.deadline.disarm();
    if late {
        return Err(io::ErrorKind::TimedOut.into());
    }
    ready?;
    sys::take_error(stream.fd())?;
    Ok(stream)
}

/// Connects to a Unix stream socket.
pub fn connect_unix(path: &Path) -> io::Result<Stream> {
    Stream::new(sys::connect_unix(path)?)
}
