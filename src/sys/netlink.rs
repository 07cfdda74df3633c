//! Netlink: interfaces, neighbours and routes of the network namespace that the socket was opened in, and what their
//! drivers can.
//!
//! The kernel is trusted, but not to be of any one version: messages are read within their bounds, unknown attributes
//! are skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::bpf::XdpMode;

/// `NETLINK_ROUTE` is protocol 0.
const ROUTE: Option<Protocol> = None;
const GENERIC: Option<Protocol> = Some(rustix::net::netlink::GENERIC);

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;

const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

const GROUP_LINK: u32 = 1;
const GROUP_NEIGHBOUR: u32 = 4;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; none for those that have none.
    pub mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: u32,
    /// What made it, for virtual ones: `veth`, `bond`.
    pub kind: Option<String>,
    /// Whether it is up and has a carrier.
    pub running: bool,
    /// Where an XDP program runs, if there is one.
    pub xdp: Option<XdpMode>,
}

/// What is known about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC address, while frames can be sent to it.
    pub mac: Option<[u8; 6]>,
    /// It was asked for and did not answer.
    pub failed: bool,
    /// Somebody has set it by hand.
    pub permanent: bool,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or different.
    Interface(Interface),
    /// An interface has gone.
    InterfaceGone(u32),
    /// A neighbour is new or different.
    Neighbour(Neighbour),
    /// Changes were lost: everything has to be read again.
    Lost,
}

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Out of which interface.
    pub ifindex: u32,
    /// Through a router.
    pub gateway: bool,
    /// It is this machine's own address.
    pub local: bool,
    /// The address that packets to it come from.
    pub source: Option<IpAddr>,
}

/// A socket.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

/// A message's kind and content.
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Netlink {
    /// For requests.
    pub fn open() -> io::Result<Self> {
        Self::with_groups(ROUTE, 0)
    }

    /// For changes of interfaces and neighbours; it does not block.
    pub fn watch() -> io::Result<Self> {
        let socket = Self::with_groups(ROUTE, GROUP_LINK | GROUP_NEIGHBOUR)?;
        rustix::io::ioctl_fionbio(&socket.fd, true)?;
        Ok(socket)
    }

    fn with_groups(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0 })
    }

    fn receive(&self) -> Result<Vec<(u32, Message)>, Errno> {
        let mut buffer = vec![0_u8; 1 << 16];
        let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
        if length > buffer.len() {
            return Err(Errno::NOBUFS);
        }
        Ok(messages(&buffer[..length]))
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(16 + body.len()).expect("a short request");
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((flags | REQUEST).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        send(&self.fd, &message, SendFlags::empty())?;
        let mut found = Vec::new();
        loop {
            for (sequence, message) in self.receive()? {
                if sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    DONE => return Ok(found),
                    ERROR => {
                        let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(found) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => found.push(message),
                }
            }
            if flags & (DUMP | ACK) == 0 && !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// All interfaces.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let found = self.request(GETLINK, DUMP, &[0; 16])?;
        Ok(found.iter().filter(|each| each.kind == NEWLINK).filter_map(|each| interface(&each.body)).collect())
    }

    /// All addresses of this machine, with the interface that each is at and the length of its prefix.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr, u8)>> {
        let found = self.request(GETADDR, DUMP, &[0; 8])?;
        let read = |message: &Message| {
            let header = message.body.first_chunk::<8>()?;
            let ifindex = u32::from_ne_bytes(header[4..8].try_into().ok()?);
            let all: Vec<(u16, &[u8])> = attributes(&message.body[8..]).collect();
            // IFA_LOCAL, else IFA_ADDRESS.
            let ip = [2, 1].into_iter().find_map(|kind| all.iter().find(|found| found.0 == kind))?;
            Some((ifindex, to_ip(ip.1)?, header[1]))
        };
        Ok(found.iter().filter(|each| each.kind == NEWADDR).filter_map(read).collect())
    }

    /// All neighbours that are known.
    pub fn neighbours(&mut self) -> io::Result<Vec<Neighbour>> {
        let found = self.request(GETNEIGH, DUMP, &[0; 12])?;
        Ok(found.iter().filter(|each| each.kind == NEWNEIGH).filter_map(|each| neighbour(&each.body)).collect())
    }

    /// Asks the kernel to find a neighbour's MAC address and to keep it fresh, whether or not it sends anything there
    /// itself (`NTF_EXT_MANAGED`, Linux 5.16).
    pub fn manage_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<()> {
        const EXT_MANAGED: u32 = 1;
        let mut body = vec![family(ip), 0, 0, 0];
        body.extend(ifindex.to_ne_bytes());
        body.extend([0; 4]);
        attribute(&mut body, 1, &octets(ip));
        attribute(&mut body, 15, &EXT_MANAGED.to_ne_bytes());
        self.request(NEWNEIGH, ACK | CREATE | 0x100, &body).map(drop)
    }

    /// How an address is reached.
    pub fn route(&mut self, ip: IpAddr) -> io::Result<Route> {
        let mut body = vec![family(ip), if ip.is_ipv4() { 32 } else { 128 }, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        attribute(&mut body, 1, &octets(ip));
        let found = self.request(GETROUTE, 0, &body)?;
        let found = found.iter().find(|each| each.kind == NEWROUTE && each.body.len() >= 12);
        let found = found.ok_or_else(|| io::Error::other("no route in the answer"))?;
        const LOCAL: u8 = 2;
        let mut route = Route { ifindex: 0, gateway: false, local: found.body[7] == LOCAL, source: None };
        for (kind, value) in attributes(&found.body[12..]) {
            match kind {
                4 => route.ifindex = value.first_chunk().map_or(0, |index| u32::from_ne_bytes(*index)),
                5 | 18 => route.gateway = true,
                7 => route.source = to_ip(value),
                _ => {}
            }
        }
        Ok(route)
    }

    /// Whether an interface's driver runs XDP programs itself and sends what they return (the `netdev` family, Linux
    /// 6.3). An error of kind `NotFound`: the kernel does not say.
    pub fn native_xdp(ifindex: u32) -> io::Result<bool> {
        const CONTROL: u16 = 0x10;
        const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
        const GET_DEVICE: [u8; 4] = [1, 1, 0, 0];
        const BASIC: u64 = 1;
        let mut socket = Self::with_groups(GENERIC, 0)?;
        let mut body = GET_FAMILY.to_vec();
        attribute(&mut body, 2, b"netdev\0");
        let found = socket.request(CONTROL, 0, &body)?;
        let family = first_attribute(&found, 1).and_then(|id| Some(u16::from_ne_bytes(*id.first_chunk()?)));
        let mut body = GET_DEVICE.to_vec();
        attribute(&mut body, 1, &ifindex.to_ne_bytes());
        let found = socket.request(family.ok_or(io::ErrorKind::NotFound)?, 0, &body)?;
        let features = first_attribute(&found, 3).and_then(|bits| Some(u64::from_ne_bytes(*bits.first_chunk()?)));
        Ok(features.ok_or(io::ErrorKind::NotFound)? & BASIC != 0)
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut found = Vec::new();
        loop {
            let messages = match self.receive() {
                Ok(messages) => messages,
                Err(Errno::AGAIN) => return Ok(found),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => {
                    found.push(Change::Lost);
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            found.extend(messages.into_iter().filter_map(|(_, message)| change(&message)));
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn change(message: &Message) -> Option<Change> {
    match message.kind {
        NEWLINK => interface(&message.body).map(Change::Interface),
        DELLINK => interface(&message.body).map(|gone| Change::InterfaceGone(gone.index)),
        NEWNEIGH => neighbour(&message.body).map(Change::Neighbour),
        DELNEIGH => neighbour(&message.body).map(|gone| Change::Neighbour(Neighbour { mac: None, ..gone })),
        _ => None,
    }
}

fn messages(mut buffer: &[u8]) -> Vec<(u32, Message)> {
    let mut found = Vec::new();
    while let Some(header) = buffer.first_chunk::<16>() {
        let length = u32::from_ne_bytes(header[..4].try_into().expect("4 bytes")) as usize;
        let Some(message) = buffer.get(16..length) else { break };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().expect("4 bytes"));
        found.push((sequence, Message { kind, body: message.to_owned() }));
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute of a generic netlink answer.
fn first_attribute(found: &[Message], wanted: u16) -> Option<&[u8]> {
    let body = found.first()?.body.get(4..)?;
    attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(4 + value.len()).expect("a short attribute").to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn family(ip: IpAddr) -> u8 {
    const INET: u8 = 2;
    const INET6: u8 = 10;
    if ip.is_ipv4() { INET } else { INET6 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn to_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn interface(body: &[u8]) -> Option<Interface> {
    // IFF_LOWER_UP, IFF_UP.
    const RUNNING: u32 = 0x1_0000 | 1;
    let header = body.first_chunk::<16>()?;
    let flags = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    let mut found = Interface {
        index: u32::from_ne_bytes(header[4..8].try_into().ok()?),
        name: String::new(),
        mac: None,
        mtu: 0,
        kind: None,
        running: flags & RUNNING == RUNNING,
        xdp: None,
    };
    for (kind, value) in attributes(&body[16..]) {
        match kind {
            1 => found.mac = value.try_into().ok(),
            3 => found.name = text(value),
            4 => found.mtu = u32::from_ne_bytes(value.try_into().ok()?),
            43 => {
                found.xdp = match attributes(value).find(|inner| inner.0 == 2).map(|inner| inner.1) {
                    Some([1 | 3]) => Some(XdpMode::Native),
                    Some([2]) => Some(XdpMode::Generic),
                    _ => None,
                }
            }
            18 => found.kind = attributes(value).find(|inner| inner.0 == 1).map(|inner| text(inner.1)),
            _ => {}
        }
    }
    Some(found)
}

fn neighbour(body: &[u8]) -> Option<Neighbour> {
    // Reachable, stale, delay, probe, without ARP, permanent.
    const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
    const FAILED: u16 = 0x20;
    const PERMANENT: u16 = 0x80;
    let header = body.first_chunk::<12>()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let (mut ip, mut mac) = (None, None);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            1 => ip = to_ip(value),
            2 => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: u32::from_ne_bytes(header[4..8].try_into().ok()?),
        ip: ip?,
        mac: mac.filter(|_| state & USABLE != 0),
        failed: state & FAILED != 0,
        permanent: state & PERMANENT != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let mut netlink = Netlink::open().unwrap();
        let all = netlink.interfaces().unwrap();
        let lo = all.iter().find(|each| each.name == "lo").unwrap();
        assert_eq!(lo.index, 1);
        assert!(netlink.addresses().unwrap().contains(&(1, Ipv4Addr::LOCALHOST.into(), 8)));
        let route = netlink.route(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert!(route.local);
        netlink.neighbours().unwrap();
        match Netlink::native_xdp(lo.index) {
            Ok(native) => assert!(!native, "loopback has no driver"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
    }

    #[test]
    fn cut_messages_are_left_out() {
        let mut body = vec![0; 12];
        body[8] = 2;
        attribute(&mut body, 1, &[10, 0, 0, 1]);
        attribute(&mut body, 2, &[2, 0, 0, 0, 0, 1]);
        assert!(neighbour(&body).unwrap().mac.is_some());
        for length in 0..body.len() {
            let _read_within_bounds = neighbour(&body[..length]);
            let _read_within_bounds = interface(&body[..length]);
            let _read_within_bounds = messages(&body[..length]);
        }
    }
}
