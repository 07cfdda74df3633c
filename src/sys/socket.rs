//! Sockets: how they are bound, accepted, connected, cut and looked at.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use ringway_core::model::{Keepalive, ListenOptions};

use super::{borrow, set_bytes, set_int};

/// Unacknowledged data and unanswered probes end a connection after this long.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a socket is to be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// Alone: fails when anything else listens there, our own processes included.
    Alone,
    /// One of several with SO_REUSEPORT.
    Shared,
}

/// Binds `address` alone and lets go of it again. Two processes of one user that both use SO_REUSEPORT share a port
/// silently; this is what notices.
pub fn bind_probe(address: SocketAddr, options: &ListenOptions) -> io::Result<()> {
    listen(address, Listening::Alone, options).map(drop)
}

/// A bound, listening, non-blocking socket. An unspecified IPv6 address takes IPv4 too; where the kernel has no IPv6,
/// the unspecified address falls back to IPv4.
///
/// What every connection needs is set on the socket that it is accepted from and inherited, so that accepting is one
/// call.
pub fn listen(address: SocketAddr, how: Listening, options: &ListenOptions) -> io::Result<OwnedFd> {
    unspecified_fallback(address, |address| listen_exactly(address, how, options))
}

/// Binds by `bind`, and where the kernel has no IPv6, the unspecified address of IPv4 in place of that of IPv6.
pub(super) fn unspecified_fallback(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    match bind(address) {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            bind(SocketAddr::from(([0, 0, 0, 0], address.port())))
        }
        other => other,
    }
}

fn listen_exactly(address: SocketAddr, how: Listening, options: &ListenOptions) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    prepare_bind(&fd, address, how, options)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    set_user_timeout(fd.as_fd())?;
    set_keepalive(fd.as_fd(), options.keepalive)?;
    if let Some(seconds) = options.defer_accept {
        set_int(&fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32::try_from(seconds).unwrap_or(i32::MAX))?;
    }
    if let Err(error) = set_congestion(&fd, options.congestion.as_deref(), address)
        && let Some(name) = &options.congestion
    {
        let text = format!(
            "congestionControl \"{name}\": {error}; net.ipv4.tcp_available_congestion_control and tcp_allowed_congestion_control list what there is"
        );
        return Err(io::Error::new(error.kind(), text));
    }
    net::bind(&fd, &address)?;
    if let Some(count) = options.fast_open {
        set_int(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, i32::try_from(count).unwrap_or(i32::MAX))?;
    }
    net::listen(&fd, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(fd)
}

/// What bound sockets of both transports have in common.
pub(super) fn prepare_bind(
    fd: &OwnedFd,
    address: SocketAddr,
    how: Listening,
    options: &ListenOptions,
) -> io::Result<()> {
    if how == Listening::Shared {
        sockopt::set_socket_reuseport(fd, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(fd, options.ipv6_only || !address.ip().is_unspecified())?;
    }
    if let Some(device) = &options.device {
        set_bytes(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())?;
    }
    Ok(())
}

/// Has the kernel prefer a socket, of several with SO_REUSEPORT, for what arrives on `core`.
pub fn steer(fd: &OwnedFd, core: usize) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, libc::SO_INCOMING_CPU, i32::try_from(core).unwrap_or(i32::MAX))
}

/// The next waiting connection, non-blocking and closed on exec, or `None` when there is none.
///
/// The runtime's own accept loses a descriptor when its future is dropped after completion, and sets no CLOEXEC.
pub fn accept(listener: RawFd) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    match net::acceptfrom_with(borrow(listener), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok((fd, Some(peer))) => match SocketAddr::try_from(peer) {
            Ok(peer) => Ok(Some((fd, unmap(peer)))),
            Err(errno) => Err(errno.into()),
        },
        Ok((_, None)) => Err(Errno::CONNABORTED.into()),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// An IPv4 peer of a dual-stack socket as what it is.
fn unmap(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Asks for a congestion control: what is wanted, and on an address of the loopback device one that never waits.
///
/// Between two sockets of one machine nothing is congested. Where the system's default paces (BBR), and no queue of the
/// device does it (`fq`; the loopback device has none), every large write waits for a timer of its own: half of the CPU
/// of bulk over loopback (`perf/README.md`, L4). It has to be known before the connection is established, since pacing
/// stays. Reno is in every kernel and open to everybody; where it is refused all the same, the default does.
fn set_congestion(fd: &OwnedFd, wanted: Option<&str>, address: SocketAddr) -> io::Result<()> {
    let Some(name) = wanted.or_else(|| address.ip().to_canonical().is_loopback().then_some("reno")) else {
        return Ok(());
    };
    set_bytes(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
}

fn set_user_timeout(fd: BorrowedFd<'_>) -> io::Result<()> {
    let millis = u32::try_from(USER_TIMEOUT.as_millis()).expect("a small constant");
    Ok(sockopt::set_tcp_user_timeout(fd, millis)?)
}

fn set_keepalive(fd: BorrowedFd<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    let Some(Keepalive { idle, interval, probes }) = keepalive else { return Ok(()) };
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, Duration::from_secs(idle.into()))?;
    sockopt::set_tcp_keepintvl(fd, Duration::from_secs(interval.into()))?;
    Ok(sockopt::set_tcp_keepcnt(fd, probes)?)
}

/// Has a socket leave from a client's address, which is not this machine's (IP_TRANSPARENT; CAP_NET_ADMIN or
/// CAP_NET_RAW). The port is chosen with the destination, so that as many connections as ports go to each endpoint.
pub(super) fn bind_transparent(fd: &OwnedFd, source: IpAddr, address: SocketAddr) -> io::Result<()> {
    if source.is_ipv4() != address.is_ipv4() {
        return Err(Errno::ADDRNOTAVAIL.into());
    }
    match source {
        IpAddr::V4(_) => set_int(fd, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?,
        IpAddr::V6(_) => set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?,
    }
    set_int(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    Ok(net::bind(fd, &SocketAddr::new(source, 0))?)
}

/// Starts a TCP connection, from a client's address where one is given; it is established once the socket is writable
/// and [`take_error`] finds nothing. A congestion control that the kernel has not, or that is not allowed, leaves the
/// system's default, so that no connection fails for it.
pub fn connect_tcp(address: SocketAddr, source: Option<IpAddr>, wanted: Option<&str>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    let _default_remains = set_congestion(&fd, wanted, address);
    if let Some(source) = source {
        bind_transparent(&fd, source, address)?;
    }
    match net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

/// Has a connection break by itself when its peer is gone: by unacknowledged data, and by probes where those are wanted.
/// It is five calls, so what ends within a moment does without.
pub fn look_after(fd: RawFd, keepalive: Option<Keepalive>) -> io::Result<()> {
    set_user_timeout(borrow(fd))?;
    set_keepalive(borrow(fd), keepalive)
}

/// Connects to a Unix stream socket; a full backlog is an error at once (`WouldBlock`).
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

/// The socket's own address, as its peer sees it; unspecified when it has none any more.
pub fn local_address(fd: RawFd) -> SocketAddr {
    let found = net::getsockname(borrow(fd)).ok().and_then(|address| SocketAddr::try_from(address).ok());
    found.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), unmap)
}

/// The socket's pending error, taken.
pub fn take_error(fd: RawFd) -> io::Result<()> {
    match sockopt::socket_error(borrow(fd)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) | Err(errno) => Err(errno.into()),
    }
}

/// Shuts a socket down so that operations in flight on it complete by themselves. An error means that the peer has
/// done it already.
pub fn cut(fd: RawFd, how: Shutdown) {
    let _already_gone = net::shutdown(borrow(fd), how);
}

/// Breaks a connection off at once: a TCP peer sees a reset (RST), operations in flight complete with an error.
///
/// Linger and close would do it as well, but not while operations hold the socket open, and a shutdown before it would
/// send a FIN, which the peer could take for an orderly end.
pub fn reset(fd: RawFd) {
    if net::connect_unspec(borrow(fd)).is_err() {
        cut(fd, Shutdown::Both);
    }
}

/// What a look at a quiet connection shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing to read.
    Quiet,
    /// Bytes to read.
    Data,
    /// The peer has finished sending.
    Ended,
    /// The connection is broken.
    Broken,
}

/// Looks at a connection without reading from it.
pub fn peer_state(fd: RawFd) -> PeerState {
    let mut byte = [0_u8; 1];
    match net::recv(borrow(fd).as_fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => PeerState::Ended,
        Ok(_) => PeerState::Data,
        Err(Errno::AGAIN | Errno::INTR) => PeerState::Quiet,
        Err(_) => PeerState::Broken,
    }
}

/// Sends as much of `bytes` as the socket takes at once, and says how much that was. For last words: on a broken
/// connection it is nothing, and its reader will find out.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> usize {
    net::send(borrow(fd), bytes, net::SendFlags::DONTWAIT | net::SendFlags::NOSIGNAL).unwrap_or(0)
}

/// Receives what is there: `None` when there is nothing, 0 at the end of the stream.
pub fn receive_now(fd: RawFd, into: &mut [u8]) -> io::Result<Option<usize>> {
    match net::recv(borrow(fd), into, RecvFlags::DONTWAIT) {
        Ok((_, n)) => Ok(Some(n)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
