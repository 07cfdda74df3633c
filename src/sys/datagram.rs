//! Datagrams in batches: `recvmmsg` and `sendmmsg`, which rustix does not have with control messages.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use ringway_core::model::ListenOptions;

use super::socket::{bind_transparent, prepare_bind, unspecified_fallback};
use super::{Listening, set_int};

/// Datagrams of one batch.
pub const BATCH: usize = 32;

/// The largest datagram.
pub const DATAGRAM: usize = 64 << 10;

/// Room for one IP_PKTINFO or IPV6_PKTINFO, and for the length of segments.
const CONTROL: usize = 64;

/// Most bytes of datagrams that leave as one message.
const SEGMENTS: usize = 60_000;

/// A bound UDP socket, one of several with SO_REUSEPORT. An unspecified address learns from each datagram where it was
/// sent to, so that the answer can come from there.
pub fn bind_udp(address: SocketAddr, how: Listening, options: &ListenOptions) -> io::Result<OwnedFd> {
    unspecified_fallback(address, |address| {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        prepare_bind(&fd, address, how, options)?;
        if address.ip().is_unspecified() {
            set_int(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            if address.is_ipv6() {
                set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            }
        }
        net::bind(&fd, &address)?;
        Ok(fd)
    })
}

/// A UDP socket that talks to one endpoint only: its kernel port keeps everybody else's datagrams out, and ICMP errors
/// come back as errors of its calls. It sends from a client's address where one is given.
pub fn connect_udp(address: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if let Some(source) = source {
        bind_transparent(&fd, source, address)?;
    }
    net::connect(&fd, &address)?;
    Ok(fd)
}

/// Where a datagram came from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The other side.
    pub peer: SocketAddr,
    /// Our address, where the socket is bound to all of them.
    pub local: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    path: Path,
    len: usize,
}

/// From one datagram's place to the next. Were it a power of two, all would begin in the same few sets of the caches, and
/// displace each other.
const STRIDE: usize = DATAGRAM + 192;

/// Headers of a batch, written for each call as far as it needs them. The pointers in them are of one call only.
struct Headers {
    messages: [libc::mmsghdr; BATCH],
    names: [libc::sockaddr_storage; BATCH],
    vectors: [libc::iovec; BATCH],
    controls: [Control; BATCH],
}

/// Room for a batch of datagrams of any length; pages that no datagram reaches are never touched.
pub struct Datagrams {
    bytes: Box<[u8]>,
    slots: Vec<Slot>,
    headers: Box<Headers>,
    /// The kernel refuses to cut messages into datagrams here.
    whole: bool,
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Default for Datagrams {
    fn default() -> Self {
        // SAFETY: all of these are plain data for which zeroes are a value.
        let headers = unsafe { Box::<Headers>::new_zeroed().assume_init() };
        // Zeroes of this size come from the kernel untouched.
        Self {
            bytes: vec![0; BATCH * STRIDE].into_boxed_slice(),
            slots: Vec::with_capacity(BATCH),
            headers,
            whole: false,
        }
    }
}

impl Datagrams {
    /// Datagrams in it.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether no more fit.
    pub fn is_full(&self) -> bool {
        self.slots.len() == BATCH
    }

    /// Throws them away.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// One of them.
    pub fn get(&self, index: usize) -> (Path, &[u8]) {
        let slot = self.slots[index];
        (slot.path, &self.bytes[index * STRIDE..][..slot.len])
    }

    /// Receives as many as there are and fit; 0 when there are none. `of` is the path of datagrams on a connected
    /// socket, whose sender is known.
    pub fn receive(&mut self, socket: RawFd, of: Option<Path>) -> io::Result<usize> {
        let first = self.slots.len();
        let count = BATCH - first;
        let Headers { messages, names, vectors, controls } = &mut *self.headers;
        for (index, room) in self.bytes[first * STRIDE..].chunks_exact_mut(STRIDE).enumerate() {
            vectors[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: DATAGRAM };
            let header = message(&mut messages[index], &mut vectors[index]);
            if of.is_none() {
                header.msg_name = (&raw mut names[index]).cast();
                header.msg_namelen = size_of_u32::<libc::sockaddr_storage>();
                header.msg_control = (&raw mut controls[index]).cast();
                header.msg_controllen = CONTROL;
            }
        }
        let vlen = u32::try_from(count).expect("at most BATCH");
        // SAFETY: each of the first `count` headers points to a name, a vector, a control buffer and `DATAGRAM` bytes
        // of its own, all of which outlive the call; the bytes belong to slots that are not in use.
        let received =
            unsafe { libc::recvmmsg(socket, messages.as_mut_ptr(), vlen, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        for (index, header) in messages[..received].iter().enumerate() {
            let path = of.or_else(|| path_of(&names[index], header));
            let len = header.msg_len as usize;
            match path {
                Some(path) => self.slots.push(Slot { path, len }),
                // Of another family than a UDP socket's: it cannot be. Its place is kept, with nothing in it.
                None => self.slots.push(Slot { path: Path { peer: ([0, 0, 0, 0], 0).into(), local: None }, len: 0 }),
            }
        }
        Ok(received)
    }

    /// Receives one from a connected socket; `false` when there is none. It is one call without the
    /// headers of [`Datagrams::receive`], for flows that have one each.
    pub fn receive_one(&mut self, socket: RawFd, of: Path) -> io::Result<bool> {
        let start = self.slots.len() * STRIDE;
        let room = &mut self.bytes[start..start + DATAGRAM];
        match net::recv(super::borrow(socket), room, net::RecvFlags::DONTWAIT) {
            Ok((len, _)) => {
                self.slots.push(Slot { path: of, len });
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends the datagrams of `range`, which is not empty: each to its peer or, on a connected socket, all to that. How
    /// many have left; an error is about the first that has not.
    ///
    /// Datagrams of one length between the same two ends leave as one message that the kernel cuts again
    /// (UDP_SEGMENT): it goes through the network layers once.
    pub fn send(&mut self, socket: RawFd, range: std::ops::Range<usize>, connected: bool) -> io::Result<usize> {
        if connected && range.len() == 1 {
            // One call without headers: most flows have one datagram at a time.
            let (_, data) = self.get(range.start);
            let flags = net::SendFlags::DONTWAIT;
            return Ok(net::send(super::borrow(socket), data, flags).map(|_whole| 1)?);
        }
        let cut = !self.whole;
        match self.send_messages(socket, range.clone(), connected, cut) {
            // Longer than what leaves in one piece, or a device that cannot sum up what is cut.
            Err(error) if cut && is_uncuttable(&error) => {
                self.whole = Errno::from_io_error(&error) == Some(Errno::IO);
                self.send_messages(socket, range, connected, false)
            }
            sent => sent,
        }
    }

    fn send_messages(
        &mut self,
        socket: RawFd,
        range: std::ops::Range<usize>,
        connected: bool,
        cut: bool,
    ) -> io::Result<usize> {
        let slots = &self.slots[range.clone()];
        let Headers { messages, names, vectors, controls } = &mut *self.headers;
        let (mut count, mut next) = (0, 0);
        while next < slots.len() {
            let slot = slots[next];
            let run = if cut { run_of(&slots[next..]) } else { 1 };
            for index in next..next + run {
                let start = (range.start + index) * STRIDE;
                let bytes = &self.bytes[start..start + slots[index].len];
                vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            }
            let header = message(&mut messages[count], &mut vectors[next]);
            header.msg_iov = vectors[next..next + run].as_mut_ptr();
            header.msg_iovlen = run;
            if !connected {
                header.msg_namelen = put_address(slot.path.peer, &mut names[count]);
                header.msg_name = (&raw mut names[count]).cast();
            }
            let source = slot.path.local.filter(|_| !connected);
            if source.is_some() || run > 1 {
                header.msg_control = (&raw mut controls[count]).cast();
                put_control(header, source, (run > 1).then_some(slot.len));
            }
            count += 1;
            next += run;
        }
        let vlen = u32::try_from(count).expect("at most BATCH");
        // SAFETY: each of the first `vlen` headers points to a name, to vectors of its own as many as it says, to a control
        // buffer and bytes, which outlive the call; the kernel only reads them.
        let sent = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), vlen, libc::MSG_DONTWAIT) };
        let sent = usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())?;
        Ok(messages[..sent].iter().map(|message| message.msg_hdr.msg_iovlen).sum())
    }
}

/// How many of the first datagrams can leave as one message: of the same two ends and one length, of which only the last
/// may be shorter.
fn run_of(slots: &[Slot]) -> usize {
    let first = slots[0];
    let most = SEGMENTS.checked_div(first.len).unwrap_or(1).max(1);
    let mut run = 1;
    while run < most
        && let Some(next) = slots.get(run)
        && next.path == first.path
        && (1..=first.len).contains(&next.len)
    {
        run += 1;
        if next.len < first.len {
            break;
        }
    }
    run
}

/// Whether a message cannot be cut into datagrams where it is to leave, while they may leave one by one.
fn is_uncuttable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::IO | Errno::MSGSIZE | Errno::OPNOTSUPP))
}

/// A message's header with one vector and neither name nor control buffer.
fn message<'m>(message: &'m mut libc::mmsghdr, vector: &mut libc::iovec) -> &'m mut libc::msghdr {
    let header = &mut message.msg_hdr;
    header.msg_name = std::ptr::null_mut();
    header.msg_namelen = 0;
    header.msg_iov = &raw mut *vector;
    header.msg_iovlen = 1;
    header.msg_control = std::ptr::null_mut();
    header.msg_controllen = 0;
    header.msg_flags = 0;
    header
}

/// A control buffer, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control(#[allow(dead_code, reason = "the kernel reads and writes it")] [u8; CONTROL]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= 8);

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a small type")
}

fn path_of(name: &libc::sockaddr_storage, header: &libc::mmsghdr) -> Option<Path> {
    let peer = match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a `sockaddr_in`, which is smaller than the storage and no stricter
            // aligned.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            SocketAddr::from((Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with `sockaddr_in6`.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            // A link-local peer is found by its interface.
            std::net::SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into()
        }
        _ => return None,
    };
    Some(Path { peer, local: destination(&header.msg_hdr) })
}

/// Where a datagram was sent to, if the socket was asked to say.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has filled `msg_control` up to `msg_controllen`, and the macros stay within that.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole header within the control buffer, whose data the kernel has laid
        // out as its level and type say. The buffer is aligned for headers, the data is read unaligned.
        let found = unsafe {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned();
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned();
                    Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
                }
                _ => None,
            }
        };
        if found.is_some() {
            return found;
        }
        // SAFETY: as for the first.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

fn put_address(address: SocketAddr, name: &mut libc::sockaddr_storage) -> u32 {
    let name = &raw mut *name;
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: the storage is larger than a `sockaddr_in` and aligned for it, and all of its bytes are set.
            let name = unsafe { &mut *name.cast::<libc::sockaddr_in>() };
            name.sin_family = u16::try_from(libc::AF_INET).expect("a small constant");
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            size_of_u32::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above, with `sockaddr_in6`.
            let name = unsafe { &mut *name.cast::<libc::sockaddr_in6>() };
            name.sin6_family = u16::try_from(libc::AF_INET6).expect("a small constant");
            name.sin6_port = address.port().to_be();
            name.sin6_flowinfo = 0;
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            size_of_u32::<libc::sockaddr_in6>()
        }
    }
}

/// Has a message leave from `local`, and be cut into datagrams of `segment` bytes. The header's control buffer has
/// `CONTROL` bytes.
fn put_control(header: &mut libc::msghdr, local: Option<IpAddr>, segment: Option<usize>) {
    let mut used = 0;
    if let Some(local) = local {
        header.msg_controllen = CONTROL;
        used = put_source(header, local);
    }
    if let Some(segment) = segment {
        header.msg_controllen = CONTROL;
        let len = size_of_u32::<u16>();
        // SAFETY: the control buffer is aligned and has room for what is in front (`used` bytes, a whole number of
        // aligned headers with their data) and one header with two bytes more (`CONTROL`); the data is written unaligned.
        unsafe {
            let message = header.msg_control.cast::<u8>().add(used).cast::<libc::cmsghdr>();
            (*message).cmsg_level = libc::IPPROTO_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(len) as usize;
            let segment = u16::try_from(segment).unwrap_or(u16::MAX);
            libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
            used += libc::CMSG_SPACE(len) as usize;
        }
    }
    header.msg_controllen = used;
}

const _: () = {
    // SAFETY: it only computes.
    let needed = unsafe { libc::CMSG_SPACE(20) + libc::CMSG_SPACE(2) };
    assert!(needed as usize <= CONTROL && size_of::<libc::in6_pktinfo>() == 20);
};

/// The bytes that it takes.
fn put_source(header: &mut libc::msghdr, local: IpAddr) -> usize {
    // SAFETY: the control buffer is aligned and large enough for a header and either structure (`CONTROL`), so the
    // first header exists and its data fits; it is written unaligned.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        let (level, kind, len) = match local {
            IpAddr::V4(ip) => {
                let mut info: libc::in_pktinfo = mem::zeroed();
                info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().write_unaligned(info);
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of_u32::<libc::in_pktinfo>())
            }
            IpAddr::V6(ip) => {
                let mut info: libc::in6_pktinfo = mem::zeroed();
                info.ipi6_addr.s6_addr = ip.octets();
                libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().write_unaligned(info);
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of_u32::<libc::in6_pktinfo>())
            }
        };
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(len) as usize;
        libc::CMSG_SPACE(len) as usize
    }
}

/// Whether an error of a connected UDP socket is an ICMP message's: nobody is there.
pub fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN)
    )
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn batches_keep_bytes_peers_and_destinations() {
        for any in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"] {
            let Ok(fd) = bind_udp(any.parse().unwrap(), Listening::Shared, &ListenOptions::default()) else { continue };
            let socket = UdpSocket::from(fd);
            let port = socket.local_addr().unwrap().port();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let here: SocketAddr = ([127, 0, 0, 1], port).into();
            let large = vec![7; 65_507];
            client.send_to(b"one", here).unwrap();
            client.send_to(b"", here).unwrap();
            client.send_to(&large, here).unwrap();
            let mut batch = Datagrams::default();
            while batch.len() < 3 {
                batch.receive(socket.as_raw_fd(), None).unwrap();
            }
            assert_eq!(batch.get(0).1, b"one");
            assert_eq!(batch.get(1).1, b"");
            assert!(batch.get(2).1 == large);
            let path = batch.get(0).0;
            assert_eq!(path.peer.ip().to_canonical(), client.local_addr().unwrap().ip());
            let local = (!any.starts_with("127")).then(|| "127.0.0.1".parse::<IpAddr>().unwrap());
            assert_eq!(path.local.map(|ip| ip.to_canonical()), local, "{any}");
            assert_eq!(batch.send(socket.as_raw_fd(), 0..3, false).unwrap(), 3, "{any}");
            let mut buffer = vec![0; DATAGRAM];
            let lengths: Vec<usize> = (0..3).map(|_| client.recv_from(&mut buffer).unwrap().0).collect();
            assert_eq!(lengths, [3, 0, 65_507]);
        }
    }
    #[test]
    fn what_leaves_as_one_message_arrives_as_the_same_datagrams() {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::from(
            bind_udp("127.0.0.1:0".parse().unwrap(), Listening::Shared, &ListenOptions::default()).unwrap(),
        );
        socket.set_nonblocking(false).unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        // Runs of one length end with a shorter one, a longer one, nothing at all, or at the most that one message takes.
        let lengths = [100, 100, 40, 100, 100, 200, 200, 0, 7, 7, 0, 0, 20_000, 20_000, 20_000, 20_000, 9];
        for (index, length) in lengths.iter().enumerate() {
            client.send(&vec![u8::try_from(index).unwrap(); *length]).unwrap();
        }
        let mut batch = Datagrams::default();
        while batch.len() < lengths.len() {
            batch.receive(socket.as_raw_fd(), None).unwrap();
        }
        for (fd, connected) in [(socket.as_raw_fd(), false), (client.as_raw_fd(), true)] {
            let mut start = 0;
            while start < lengths.len() {
                start += batch.send(fd, start..lengths.len(), connected).unwrap();
            }
            let to = if connected { &socket } else { &client };
            let mut buffer = vec![0; DATAGRAM];
            for (index, length) in lengths.iter().enumerate() {
                let received = to.recv(&mut buffer).unwrap();
                assert_eq!(received, *length, "datagram {index}");
                assert!(buffer[..received].iter().all(|byte| usize::from(*byte) == index));
            }
        }
    }

    #[test]
    fn datagrams_of_one_message_have_the_same_ends_and_length() {
        let slot = |peer: u16, len| Slot { path: Path { peer: ([127, 0, 0, 1], peer).into(), local: None }, len };
        assert_eq!(run_of(&[slot(1, 5)]), 1);
        assert_eq!(run_of(&[slot(1, 5), slot(1, 5), slot(2, 5)]), 2);
        assert_eq!(run_of(&[slot(1, 5), slot(1, 4), slot(1, 4)]), 2);
        assert_eq!(run_of(&[slot(1, 5), slot(1, 6)]), 1);
        assert_eq!(run_of(&[slot(1, 5), slot(1, 0)]), 1);
        assert_eq!(run_of(&[slot(1, 0), slot(1, 0)]), 1);
        assert_eq!(run_of(&[slot(1, 40_000), slot(1, 20_000), slot(1, 1)]), 1);
        assert_eq!(run_of(&[slot(1, 20_000); 8]), 3);
    }
}
