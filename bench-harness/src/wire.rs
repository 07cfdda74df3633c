//! What the HTTP/2 codec of load and origin reads and writes: TCP, or TLS over it as a client.
//!
//! The codec polls; the ring wants buffers that stay where they are. Two pumps own the halves of the connection, so no
//! operation is ever dropped, and what the codec writes while one send is in flight leaves in the next.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use monoio::io::{AsyncWriteRent as _, OwnedReadHalf, OwnedWriteHalf, Splitable as _};
use monoio::net::TcpStream;
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rt::{self, Room};

/// The most that waits to be written.
const MOST: usize = 256 << 10;

#[derive(Debug, Default)]
struct Shared {
    /// Bytes as they came from TCP, from `from` on.
    incoming: RefCell<Vec<u8>>,
    from: Cell<usize>,
    outgoing: RefCell<Vec<u8>>,
    tls: Option<RefCell<ClientConnection>>,
    ended: Cell<bool>,
    broken: Cell<Option<io::ErrorKind>>,
    closing: Cell<bool>,
    /// The codec, where it waits for bytes or for room.
    codec: RefCell<Option<Waker>>,
    /// The pumps, where they wait for the codec.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn wait<T>(waker: &RefCell<Option<Waker>>, context: &Context<'_>) -> Poll<T> {
    *waker.borrow_mut() = Some(context.waker().clone());
    Poll::Pending
}

/// The codec's end. Dropping it closes the connection once everything has been written.
#[derive(Debug)]
pub(crate) struct Wire(Rc<Shared>);

impl Wire {
    /// Around a connection of which `first` has been read already. `room` bytes are read at once. The future has to
    /// be awaited: it ends when the connection is closed in both directions.
    pub(crate) fn new(
        tcp: TcpStream,
        tls: Option<ClientConnection>,
        first: Vec<u8>,
        room: usize,
    ) -> (Self, impl Future<Output = ()> + 'static) {
        let shared = Rc::new(Shared { incoming: RefCell::new(first), tls: tls.map(RefCell::new), ..Shared::default() });
        let (read, write) = tcp.into_split();
        let writing = Rc::clone(&shared);
        let reading = Rc::clone(&shared);
        let pumps = async move {
            let reader = monoio::spawn(pump_in(read, reading, room));
            pump_out(write, writing).await;
            reader.await;
        };
        (Self(shared), pumps)
    }
}

async fn pump_in(mut tcp: OwnedReadHalf<TcpStream>, shared: Rc<Shared>, size: usize) {
    let mut room: Room = rt::room(size);
    loop {
        let (read, back) = rt::read(&mut tcp, room, 0).await;
        room = back;
        match read {
            Ok(n @ 1..) => {
                // What the codec has closed under is read to its end.
                if !shared.closing.get() {
                    shared.incoming.borrow_mut().extend_from_slice(&room[..n]);
                    wake(&shared.codec);
                }
            }
            Ok(0) => break,
            Err(error) => {
                shared.broken.set(Some(error.kind()));
                break;
            }
        }
        poll_fn(|context| {
            if shared.closing.get() || shared.incoming.borrow().len() - shared.from.get() < MOST {
                return Poll::Ready(());
            }
            wait(&shared.reader, context)
        })
        .await;
    }
    shared.ended.set(true);
    wake(&shared.codec);
    wake(&shared.writer);
}

async fn pump_out(mut tcp: OwnedWriteHalf<TcpStream>, shared: Rc<Shared>) {
    let mut spare = Vec::new();
    loop {
        let more = poll_fn(|context| {
            if let Some(tls) = &shared.tls {
                let (mut tls, mut outgoing) = (tls.borrow_mut(), shared.outgoing.borrow_mut());
                while tls.wants_write() && tls.write_tls(&mut *outgoing).is_ok() {}
            }
            if !shared.outgoing.borrow().is_empty() {
                return Poll::Ready(true);
            }
            if shared.closing.get() || shared.broken.get().is_some() {
                return Poll::Ready(false);
            }
            wait(&shared.writer, context)
        })
        .await;
        if !more {
            break;
        }
        std::mem::swap(&mut spare, &mut *shared.outgoing.borrow_mut());
        let len = spare.len();
        wake(&shared.codec);
        let (written, back) = rt::write_all(&mut tcp, spare, len).await;
        spare = back;
        spare.clear();
        if let Err(error) = written {
            shared.broken.set(Some(error.kind()));
            wake(&shared.codec);
            break;
        }
    }
    // The peer closes in turn, which ends the read that is in flight.
    let _gone = tcp.shutdown().await;
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.closing.set(true);
        wake(&self.0.writer);
        wake(&self.0.reader);
    }
}

impl Shared {
    /// Takes what has come, as the codec is to see it; nothing where more has to come first.
    fn take(&self, into: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut incoming = self.incoming.borrow_mut();
        let took = match &self.tls {
            None => {
                let from = self.from.get();
                let part = into.remaining().min(incoming.len() - from);
                into.put_slice(&incoming[from..from + part]);
                self.from.set(from + part);
                part > 0
            }
            Some(tls) => {
                let mut tls = tls.borrow_mut();
                loop {
                    match tls.reader().read(into.initialize_unfilled()) {
                        Ok(n) => {
                            into.advance(n);
                            break true;
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                    if self.from.get() == incoming.len() {
                        break false;
                    }
                    let taken = tls.read_tls(&mut &incoming[self.from.get()..])?;
                    self.from.set(if taken == 0 { incoming.len() } else { self.from.get() + taken });
                    tls.process_new_packets().map_err(io::Error::other)?;
                    if tls.wants_write() {
                        wake(&self.writer);
                    }
                }
            }
        };
        if self.from.get() == incoming.len() {
            incoming.clear();
            self.from.set(0);
            wake(&self.reader);
        }
        Ok(took)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.0;
        match shared.take(into) {
            Ok(true) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
            Ok(false) => match shared.broken.get() {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None if shared.ended.get() => Poll::Ready(Ok(())),
                None => wait(&shared.codec, context),
            },
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &self.0;
        if let Some(kind) = shared.broken.get() {
            return Poll::Ready(Err(kind.into()));
        }
        if shared.outgoing.borrow().len() >= MOST {
            return wait(&shared.codec, context);
        }
        match &shared.tls {
            None => shared.outgoing.borrow_mut().extend_from_slice(bytes),
            Some(tls) => {
                let (mut tls, mut outgoing) = (tls.borrow_mut(), shared.outgoing.borrow_mut());
                tls.writer().write_all(bytes)?;
                while bytes.len() >= 1024 && tls.wants_write() {
                    tls.write_tls(&mut *outgoing)?;
                }
            }
        }
        wake(&shared.writer);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.broken.get().map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
