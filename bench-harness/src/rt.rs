//! The event loop under load and origin: monoio on a ring of its own, or epoll where a ring cannot be had.
//!
//! The same rules as the proxy's: a read or write in flight is never dropped; readiness is asked for strictly.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::sys;

/// Submission queue entries.
const ENTRIES: u32 = 2048;

/// Runs `main` on this thread's own event loop.
pub(crate) fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    match RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(ENTRIES).enable_timer().build() {
        Ok(mut runtime) => Ok(runtime.block_on(main)),
        Err(_no_ring) => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(main)),
    }
}

/// Connects, from a given source address if there is one.
pub(crate) async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        sys::bind_without_port(socket.as_fd())?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from_std(OwnedFd::from(socket).into())?;
    stream.writable(false).await?;
    match socket2::SockRef::from(&sys::descriptor(&stream)).take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// What is read into. A boxed slice, whose length is its room: the runtime cuts a vector to what was read.
pub(crate) type Room = Box<[u8]>;

/// Room for so many bytes.
pub(crate) fn room(size: usize) -> Room {
    vec![0; size].into_boxed_slice()
}

/// Reads behind `at`; 0 is the end of the stream.
pub(crate) async fn read(stream: &mut impl AsyncReadRent, buffer: Room, at: usize) -> (io::Result<usize>, Room) {
    debug_assert!(at < buffer.len(), "a read without room would look like the end of the stream");
    let (answer, slice) = stream.read(buffer.slice_mut(at..)).await;
    (answer, slice.into_inner())
}

/// Writes `buffer[..len]`.
pub(crate) async fn write_all<T: IoBuf>(
    stream: &mut impl AsyncWriteRent,
    mut buffer: T,
    len: usize,
) -> (io::Result<()>, T) {
    let mut from = 0;
    while from < len {
        let (answer, slice) = stream.write(buffer.slice(from..len)).await;
        buffer = slice.into_inner();
        match answer {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(n) => from += n,
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}
