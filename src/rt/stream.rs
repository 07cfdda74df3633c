//! Connected streams: two halves, each with its own deadline, plain or encrypted.
//!
//! Whoever reads and writes does not see which: an encrypted stream shares a [`Session`] between its halves, and the
//! same methods go through it. A plain stream pays one look at an `Option` for that.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::UnixStream;
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::deadline::{Deadline, Tick, now, tick_after};
use super::task::race_pinned;
use crate::buffer::{Buf, Drain, Fill, Laced};
use crate::metrics::ListenerMetrics;
use crate::sys;
use crate::tls::Session;

mod tls;

pub use tls::HandshakeError;

/// How long a peer may take for the last record of a stream without a stall timeout.
const FINISH: Duration = Duration::from_secs(5);

thread_local! {
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// Streams of this thread that are open, both directions' peers and mailboxes included.
pub fn open_streams() -> usize {
    OPEN.get()
}

/// Counts as an open stream for as long as it is held: what takes a descriptor and is none.
#[derive(Debug)]
pub struct StreamCount(());

impl StreamCount {
    /// One more.
    pub fn take() -> Self {
        OPEN.set(OPEN.get() + 1);
        Self(())
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        OPEN.set(OPEN.get().saturating_sub(1));
    }
}

const HALF: &str = "a stream has its halves until it is dropped";

/// A connected stream socket, TCP or Unix: the operations are the same.
#[derive(Debug)]
pub struct Stream {
    /// What comes in.
    pub rd: Reader,
    /// What goes out.
    pub wr: Writer,
}

/// Whether a half has an operation with the runtime, which holds the socket until it comes back; it may not even have
/// been submitted.
#[derive(Debug, Default)]
struct Flight(Cell<Flown>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Flown {
    #[default]
    Over,
    Under,
    /// A wait for readiness was dropped. When the runtime has taken it back nobody is told, not even that a later
    /// operation is back before it.
    Abandoned,
}

impl Flight {
    fn begin(&self) {
        self.0.set(if self.0.get() == Flown::Over { Flown::Under } else { Flown::Abandoned });
    }

    fn end(&self) {
        if self.0.get() == Flown::Under {
            self.0.set(Flown::Over);
        }
    }

    fn is_over(&self) -> bool {
        self.0.get() == Flown::Over
    }
}

/// The incoming half.
#[derive(Debug)]
pub struct Reader {
    // The deadline is dropped before the socket is closed: it must not reach a descriptor that has been given out again.
    deadline: Deadline,
    /// There until the stream is dropped.
    half: Option<OwnedReadHalf<UnixStream>>,
    flight: Flight,
    /// The set of idle streams knows the descriptor.
    pub(super) watched: Cell<bool>,
    tls: Option<Rc<RefCell<Session>>>,
    meter: Option<Arc<ListenerMetrics>>,
}

/// The outgoing half.
#[derive(Debug)]
pub struct Writer {
    deadline: Deadline,
    /// There until the stream is dropped.
    half: Option<OwnedWriteHalf<UnixStream>>,
    flight: Flight,
    /// The direction has been ended, or the socket is closed next, which ends it.
    finished: bool,
    /// Ticks that one write may wait.
    stall: Option<NonZeroU32>,
    tls: Option<Rc<RefCell<Session>>>,
    meter: Option<Arc<ListenerMetrics>>,
    open: Option<StreamCount>,
}

impl Stream {
    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let fd = socket.as_raw_fd();
        // The runtime's Unix stream makes no call that only Unix sockets have, so it carries TCP as well; its TCP stream
        // does too, but holds 72 bytes for addresses that nobody asks it for.
        let stream = UnixStream::from_std(socket.into())?;
        let (rd, wr) = stream.into_split();
        let mut wr = Writer::new(fd, Some(wr));
        wr.open = Some(StreamCount::take());
        Ok(Self { rd: Reader::new(fd, Some(rd)), wr })
    }

    /// Its halves, for two tasks. The socket is closed when both are gone.
    pub fn split(mut self) -> (Reader, Writer) {
        let fd = self.fd();
        let rd = std::mem::replace(&mut self.rd, Reader::new(fd, None));
        (rd, std::mem::replace(&mut self.wr, Writer::new(fd, None)))
    }

    /// Its descriptor, for calls that do not outlive the stream.
    pub fn fd(&self) -> RawFd {
        self.wr.fd()
    }

    /// Shuts it down; operations in flight complete with an end or an error.
    pub fn cut(&self, how: Shutdown) {
        sys::cut(self.fd(), how);
    }

    /// Breaks the connection off by a reset; operations in flight complete with an error.
    pub fn reset(&self) {
        sys::reset(self.fd());
    }

    /// Counts a client's bytes from here on, without what TLS adds to them. `ahead` were read before.
    pub fn count_for(&mut self, listener: &Arc<ListenerMetrics>, ahead: usize) {
        listener.received(ahead);
        self.rd.meter = Some(Arc::clone(listener));
        self.wr.meter = Some(Arc::clone(listener));
    }
}

impl Drop for Stream {
    /// Closes the socket by a plain call. The runtime would shut it down once more, close it on the ring, and cancel the
    /// closing, whose result nobody waits for. Only a socket that an operation may still hold is left to the runtime, which
    /// closes it behind that operation: a plain call could give its number to another connection first.
    fn drop(&mut self) {
        if !self.rd.flight.is_over() || !self.wr.flight.is_over() {
            return;
        }
        // A deadline must not reach a descriptor that has been given out again.
        self.rd.deadline = Deadline::new(self.rd.fd());
        self.wr.deadline = Deadline::new(self.wr.fd());
        let Some(rd) = self.rd.half.take() else { return };
        self.wr.say_goodbye();
        if let Some(wr) = self.wr.half.take()
            && let Ok(stream) = rd.reunite(wr)
        {
            if !self.wr.finished {
                sys::cut(self.wr.fd(), Shutdown::Write);
            }
            sys::close(stream);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.half.is_some() {
            self.say_goodbye();
        }
    }
}

impl Reader {
    fn new(fd: RawFd, half: Option<OwnedReadHalf<UnixStream>>) -> Self {
        let (flight, watched) = (Flight::default(), Cell::new(false));
        Self { deadline: Deadline::new(fd), half, flight, watched, tls: None, meter: None }
    }

    /// The descriptor, for calls that do not outlive the stream.
    pub fn fd(&self) -> RawFd {
        self.deadline.fd()
    }

    /// The half's deadline.
    pub fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    /// Gives back what waits for the next read: the stream will be quiet for a while.
    pub fn rest(&mut self) {
        self.deadline = Deadline::new(self.deadline.fd());
    }

    /// The descriptor whose bytes are the stream's, so that they may be spliced; none when they are encrypted.
    pub fn splice_fd(&self) -> Option<RawFd> {
        self.tls.is_none().then_some(self.deadline.fd())
    }

    /// Reads into the room behind the buffer's window, of which there must be some: 0 is the end of the stream.
    /// Never drop it in flight.
    pub async fn read(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
        let (read, buf) = if self.tls.is_some() {
            let (read, buf) = self.read_tls(buf, None).await;
            (read.map(Option::unwrap_or_default), buf)
        } else {
            self.read_raw(buf).await
        };
        if let Ok(n) = read {
            self.count(n);
        }
        (read, buf)
    }

    /// Counts bytes that have come, where somebody wants to know. Reads do; what takes bytes past this half says so.
    pub fn count(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.received(bytes);
        }
    }

    /// What has arrived by now, without waiting; `None` when nothing has, and always on an encrypted stream, whose
    /// records take what has arrived together anyway. An error is told once: the next read would see an end.
    pub fn read_now(&mut self, buf: &mut Buf) -> io::Result<Option<usize>> {
        if self.tls.is_some() {
            return Ok(None);
        }
        let read = sys::receive_now(self.deadline.fd(), buf.room_mut())?;
        buf.filled(read.unwrap_or(0));
        self.count(read.unwrap_or(0));
        Ok(read)
    }

    async fn read_raw(&mut self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        assert!(buf.room() > 0, "a read without room would look like the end of the stream");
        loop {
            self.flight.begin();
            let (read, Fill(back)) = self.half.as_mut().expect(HALF).read(Fill(buf)).await;
            self.flight.end();
            match read {
                Err(error) if is_interrupt(&error) => buf = back,
                read => return (read, back),
            }
        }
    }

    /// As [`Reader::read`], but gives the buffer back with `None` when nothing has come until `quiet`, so that a
    /// connection that waits for long holds none. Never drop it in flight.
    pub async fn read_unless_quiet(&mut self, buf: Buf, quiet: Tick) -> (io::Result<Option<usize>>, Buf) {
        let (read, buf) = if self.tls.is_some() {
            self.read_tls(buf, Some(quiet)).await
        } else {
            self.read_raw_unless_quiet(buf, quiet).await
        };
        if let Ok(Some(n)) = read {
            self.count(n);
        }
        (read, buf)
    }

    async fn read_raw_unless_quiet(&mut self, mut buf: Buf, quiet: Tick) -> (io::Result<Option<usize>>, Buf) {
        assert!(buf.room() > 0, "a read without room would look like the end of the stream");
        loop {
            let handle = self.deadline.arm_cancel(quiet);
            self.flight.begin();
            let (read, Fill(back)) = self.half.as_mut().expect(HALF).cancelable_read(Fill(buf), handle).await;
            self.flight.end();
            self.deadline.disarm();
            match read {
                Ok(n) => return (Ok(Some(n)), back),
                Err(error) if is_interrupt(&error) => buf = back,
                Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => return (Ok(None), back),
                Err(error) => return (Err(error), back),
            }
        }
    }

    /// Whether bytes have been read that the session has not given yet.
    pub(super) fn has_bytes(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.borrow().has_bytes())
    }

    /// Waits until a read would not wait. Holds no buffer; may be dropped.
    pub async fn readable(&self) -> io::Result<()> {
        if self.has_bytes() {
            return Ok(());
        }
        self.flight.begin();
        let ready = sys::peek(&self.half.as_ref().expect(HALF).0).readable(false).await;
        self.flight.end();
        ready
    }

    /// The same until `at`; `false` when that has passed.
    pub async fn readable_until(&mut self, at: Tick) -> io::Result<bool> {
        if self.has_bytes() {
            return Ok(true);
        }
        self.flight.begin();
        let stream = sys::peek(&self.half.as_ref().expect(HALF).0);
        let ended = {
            let (ready, late) = (pin!(stream.readable(false)), pin!(self.deadline.passed(at)));
            race_pinned(ready, late).await
        };
        match ended {
            Ok(ready) => {
                self.flight.end();
                self.deadline.disarm();
                ready.map(|()| true)
            }
            Err(()) => Ok(false),
        }
    }
}

impl Writer {
    fn new(fd: RawFd, half: Option<OwnedWriteHalf<UnixStream>>) -> Self {
        Self {
            deadline: Deadline::new(fd),
            half,
            flight: Flight::default(),
            finished: false,
            stall: None,
            tls: None,
            meter: None,
            open: None,
        }
    }

    /// The half's deadline.
    pub fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    /// Gives back what waits for the next write: the stream will be quiet for a while.
    pub fn rest(&mut self) {
        self.deadline = Deadline::new(self.deadline.fd());
    }

    /// How long one write may wait for its peer before the stream is shut down; none: for ever.
    pub fn set_stall_timeout(&mut self, stall: Duration) {
        self.stall = Some(ticks(stall));
    }

    /// The descriptor whose bytes are the stream's, so that they may be spliced; none when they are encrypted.
    pub fn splice_fd(&self) -> Option<RawFd> {
        self.tls.is_none().then_some(self.deadline.fd())
    }

    /// Writes the first `len` bytes of the window and takes them off it; `TimedOut` when the peer took nothing for
    /// the stall timeout. Never drop it in flight.
    pub async fn write_all(&mut self, buf: Buf, len: usize) -> (io::Result<()>, Buf) {
        let before = buf.len();
        let (written, buf) = match self.tls.clone() {
            None => self.write_raw(buf, len).await,
            Some(session) => self.write_tls(&session, buf, len).await,
        };
        self.count(before - buf.len());
        (written, buf)
    }

    /// As [`Writer::write_all`], for bytes that nobody wants back, which are other ones afterwards: an encrypted stream
    /// encrypts large pieces where they stand. In the buffer's window they are no more.
    pub async fn write_away(&mut self, buf: Buf, len: usize) -> (io::Result<()>, Buf) {
        if !self.in_place(&buf, len) {
            return self.write_all(buf, len).await;
        }
        let (written, buf) = self.write_in_place(buf, len).await;
        self.count(len);
        (written, buf)
    }

    /// Counts bytes that have gone, where somebody wants to know. Writes do; what sends bytes past this half says so.
    pub fn count(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.sent(bytes);
        }
    }

    async fn write_raw(&mut self, buf: Buf, len: usize) -> (io::Result<()>, Buf) {
        self.write_raw_within(buf, len, self.stall).await
    }

    async fn write_raw_within(&mut self, mut buf: Buf, len: usize, stall: Option<NonZeroU32>) -> (io::Result<()>, Buf) {
        let mut left = len;
        while left > 0 {
            if let Some(stall) = stall {
                self.deadline.arm(now() + Tick::from(stall.get()), Shutdown::Both);
            }
            self.flight.begin();
            let (written, back) = self.half.as_mut().expect(HALF).write(Drain::new(buf, left)).await;
            self.flight.end();
            buf = back.into_buf();
            if stall.is_some() && self.deadline.disarm() {
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

    async fn write_laced(&mut self, mut laced: Laced, stall: Option<NonZeroU32>) -> (io::Result<()>, Laced) {
        let mut n = 0;
        while laced.advance(n) {
            if let Some(stall) = stall {
                self.deadline.arm(now() + Tick::from(stall.get()), Shutdown::Both);
            }
            self.flight.begin();
            let (written, back) = self.half.as_mut().expect(HALF).writev(laced).await;
            self.flight.end();
            laced = back;
            if stall.is_some() && self.deadline.disarm() {
                return (Err(io::ErrorKind::TimedOut.into()), laced);
            }
            n = match written {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), laced),
                Ok(n) => n,
                Err(error) if is_interrupt(&error) => 0,
                Err(error) => return (Err(error), laced),
            };
        }
        (Ok(()), laced)
    }

    /// Waits until a write would not wait, or until `at`; `false` when that has passed. Holds no buffer; may be
    /// dropped.
    pub async fn writable_until(&mut self, at: Tick) -> io::Result<bool> {
        self.flight.begin();
        let stream = sys::peek(&self.half.as_ref().expect(HALF).0);
        let ended = {
            let (ready, late) = (pin!(stream.writable(false)), pin!(self.deadline.passed(at)));
            race_pinned(ready, late).await
        };
        match ended {
            Ok(ready) => {
                self.flight.end();
                self.deadline.disarm();
                ready.map(|()| true)
            }
            Err(()) => Ok(false),
        }
    }

    /// Until when a write that starts now may wait for its peer.
    pub fn stalled_at(&self) -> Tick {
        self.stall.map_or(Tick::MAX, |stall| now() + Tick::from(stall.get()))
    }

    /// Ends the outgoing direction: close_notify where it is encrypted, then FIN.
    pub async fn finish(&mut self) {
        if let Some(session) = self.tls.clone() {
            session.borrow_mut().close();
            // A peer that does not take it is cut by the shutdown all the same.
            let _sent = self.flush(&session, Some(self.stall.unwrap_or_else(|| ticks(FINISH)))).await;
        }
        sys::cut(self.deadline.fd(), Shutdown::Write);
        self.finished = true;
    }

    /// Ends the outgoing direction of a stream that nothing more is read from and that is dropped next: as
    /// [`Writer::finish`], but closing the socket is what sends FIN.
    pub async fn finish_by_close(&mut self) {
        if self.tls.is_some() {
            return self.finish().await;
        }
        self.finished = true;
    }

    /// The descriptor, for calls that do not outlive the stream.
    pub fn fd(&self) -> RawFd {
        self.deadline.fd()
    }
}

/// Ticks in which `duration` has passed for certain.
fn ticks(duration: Duration) -> NonZeroU32 {
    let ticks = tick_after(duration).saturating_sub(now());
    NonZeroU32::new(u32::try_from(ticks).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
}

fn is_interrupt(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// Takes over a socket that is connecting, and returns when it has connected, until `by`. The connect is our own
/// non-blocking one ([`sys::connect_tcp`]), so that a deadline can end it.
///
/// `first` is what is to be sent first, if that is known: sending waits for the connection by itself, so that nothing
/// else has to. What could not be sent at once comes back; after an error that is all of it, for another endpoint.
pub async fn connect_tcp(socket: OwnedFd, by: Tick, first: Option<Buf>) -> (io::Result<Stream>, Option<Buf>) {
    let mut stream = match Stream::new(socket) {
        Ok(stream) => stream,
        Err(error) => return (Err(error), first),
    };
    let wr = &mut stream.wr;
    let len = first.as_ref().map_or(0, Buf::len);
    wr.deadline.arm(by, Shutdown::Both);
    wr.flight.begin();
    let (connected, first) = match first {
        Some(first) => {
            let (sent, drain) = wr.half.as_mut().expect(HALF).write(Drain::new(first, len)).await;
            let mut first = drain.into_buf();
            first.consume(*sent.as_ref().unwrap_or(&0));
            (sent.map(drop), (!first.is_empty()).then_some(first))
        }
        None => {
            let ready = sys::peek(&wr.half.as_ref().expect(HALF).0).writable(false).await;
            (ready.and_then(|()| sys::take_error(wr.fd())), None)
        }
    };
    wr.flight.end();
    let connected = match connected {
        // What has been sent is not sent again, so that a deadline that passes behind it ends the stream, not the attempt.
        Ok(()) if len > 0 => {
            wr.deadline.disarm();
            Ok(())
        }
        _ if wr.deadline.disarm() => Err(io::ErrorKind::TimedOut.into()),
        connected => connected,
    };
    (connected.map(|()| stream), first)
}

/// Connects to a Unix stream socket.
pub fn connect_unix(path: &Path) -> io::Result<Stream> {
    Stream::new(sys::connect_unix(path)?)
}
