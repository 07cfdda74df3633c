//! What `ethtool` shows of an interface.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Whether an interface merges received packets into ones larger than its MTU (LRO), which XDP programs in a driver
/// cannot read.
pub fn large_receive_offload(interface: &str) -> io::Result<bool> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const GET_FLAGS: u32 = 0x25;
    const LRO: u32 = 1 << 15;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut value = Value { command: GET_FLAGS, data: 0 };
    // SAFETY: plain numbers and a pointer, of which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the request and the value that it points to live through the call, and the command writes no more than
    // the value.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data & LRO != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_merges_nothing() {
        assert!(!large_receive_offload("lo").unwrap());
        assert!(large_receive_offload("there-is-none").is_err());
        assert!(large_receive_offload("a name that is too long").is_err());
    }
}
