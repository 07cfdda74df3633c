//! A bare relay for TCP: readiness by epoll, bytes by `splice` through a pipe of 1 MiB per direction, and nothing else.
//!
//! It has no limits, deadlines, counters or error handling, and makes a pipe for every connection: what a proxy's bulk
//! transfers are to be no dearer than.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::failure::{Context as _, Result};

/// Size of a pipe, and the most that is moved at once.
const PIPE: usize = 1 << 20;

/// Where to listen and where to connect to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Where clients connect.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where their bytes go.
    #[arg(long, value_name = "ADDRESS")]
    target: SocketAddr,
}

struct Direction {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    ended: bool,
}

/// Two sockets and what flows from the first to the second, and back.
struct Pair {
    sockets: [OwnedFd; 2],
    flows: [Direction; 2],
}

/// Relays for ever.
pub(crate) fn command(options: &Options) -> Result<()> {
    relay(options).context(|| format!("relaying from {} to {}", options.listen, options.target))
}

fn relay(options: &Options) -> std::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = |address: &SocketAddr| if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let listener = net::socket_with(family(&options.listen), SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    net::bind(&listener, &options.listen)?;
    net::listen(&listener, 4096)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut pairs: HashMap<u64, Pair> = HashMap::new();
    let mut next = 0;
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            waited => waited?,
        };
        for event in &events {
            let name = event.data.u64();
            if name == 0 {
                while let Ok(down) = net::accept_with(&listener, flags) {
                    let up = net::socket_with(family(&options.target), SocketType::STREAM, flags, None)?;
                    if !matches!(net::connect(&up, &options.target), Ok(()) | Err(Errno::INPROGRESS)) {
                        continue;
                    }
                    next += 1;
                    let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
                    for (side, socket) in [&down, &up].into_iter().enumerate() {
                        sockopt::set_tcp_nodelay(socket, true)?;
                        let name = epoll::EventData::new_u64(next * 2 + side as u64);
                        epoll::add(&set, socket, name, both | epoll::EventFlags::ET)?;
                    }
                    pairs.insert(next, Pair { sockets: [down, up], flows: [Direction::new()?, Direction::new()?] });
                }
                continue;
            }
            let Some(pair) = pairs.get_mut(&(name / 2)) else { continue };
            let alive = (0..2).all(|side| {
                let (from, to) = (pair.sockets[side].as_fd(), pair.sockets[1 - side].as_fd());
                pair.flows[side].advance(from, to).is_ok()
            });
            if !alive || pair.flows.iter().all(|flow| flow.ended && flow.held == 0) {
                pairs.remove(&(name / 2));
            }
        }
    }
}

impl Direction {
    fn new() -> std::io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, PIPE)?;
        Ok(Self { read, write, held: 0, ended: false })
    }

    /// Moves bytes until the reader is dry or the writer full; an error ends both.
    fn advance(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            let mut dry = self.ended;
            if !self.ended {
                match splice(from, None, &self.write, None, PIPE, flags) {
                    Ok(0) => {
                        self.ended = true;
                        dry = true;
                    }
                    Ok(moved) => self.held += moved,
                    // A socket that is not connected yet has nothing to read either.
                    Err(Errno::AGAIN | Errno::NOTCONN) => dry = true,
                    Err(errno) => return Err(errno),
                }
            }
            while self.held > 0 {
                match splice(&self.read, None, to, None, self.held, flags) {
                    Ok(moved) => self.held -= moved,
                    Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            if dry {
                if self.ended {
                    let _already_gone = net::shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
        }
    }
}
