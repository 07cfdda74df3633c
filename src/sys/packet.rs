//! Packet sockets: whole frames, beside the network stack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A socket that sends and receives frames at one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// One instruction of a classic socket filter (`struct sock_filter`).
pub type Filter = (u16, u8, u8, u32);

impl PacketSocket {
    /// Opens one that sees the frames that `filter` lets through.
    pub fn open(ifindex: u32, filter: &[Filter]) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: makes a descriptor. Protocol 0 receives nothing until it is bound to one, below, behind the filter.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut code: Vec<libc::sock_filter> =
            filter.iter().map(|(code, jt, jf, k)| libc::sock_filter { code: *code, jt: *jt, jf: *jf, k: *k }).collect();
        let program =
            libc::sock_fprog { len: u16::try_from(code.len()).expect("a short filter"), filter: code.as_mut_ptr() };
        let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("small");
        // SAFETY: the program and its instructions live through the call, which copies them.
        let set = unsafe {
            let at = std::ptr::from_ref(&program).cast();
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, size)
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain numbers, of which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).expect("small").to_be();
        address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("small");
        // SAFETY: an address of the family and size that are said.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), size) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { fd }) }
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.fd, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame; `None`: there is none at the moment.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => Ok(Some(&buffer[..length.min(buffer.len())])),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
