//! UDP echo: one datagram in flight per socket, or a burst of several.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use monoio::net::udp::UdpSocket;

use super::http1::id_text;
use super::worker::Worker;
use super::{Fault, connect_error};
use crate::sys;

fn open(worker: &Worker, index: usize) -> std::io::Result<UdpSocket> {
    let any = if worker.plan.target.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(worker.source(index).unwrap_or(any), 0))?;
    socket.connect(worker.plan.target)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// One socket's work until the run ends.
pub(super) async fn echo(worker: &Worker, index: usize) {
    let size = worker.plan.body;
    let (mut out, mut back) = (vec![b'x'; size], vec![0; size + 1]);
    let mut socket: Option<UdpSocket> = None;
    // Ids on their way, with when their datagrams were due.
    let mut burst: Vec<([u8; 16], u64)> = Vec::new();
    while let Some(intended) = worker.next(index).await {
        burst.clear();
        burst.push((id_text(worker.id()), intended));
        while burst.len() < worker.plan.pipeline {
            let Some(intended) = worker.next(index).await else { break };
            burst.push((id_text(worker.id()), intended));
        }
        let exchange = async {
            // A flow per datagram is what a connection per request is to TCP.
            let socket = match socket.take().filter(|_| !worker.plan.connection_per_request) {
                Some(socket) => socket,
                None => {
                    open(worker, index).map_err(|error| (Fault::Connect, connect_error(worker.plan.target, &error)))?
                }
            };
            let first = burst[0].0;
            for (id, _) in &burst {
                out[..16].copy_from_slice(id);
                rustix::net::send(sys::descriptor(&socket), &out, rustix::net::SendFlags::empty()).map_err(failed)?;
            }
            let mut more = false;
            while !burst.is_empty() {
                let length = receive(worker, &socket, &mut back, more).await?;
                more = true;
                let whole = length == size && back[16..size] == out[16..];
                match burst.iter().position(|(id, _)| whole && back[..16] == *id) {
                    Some(at) => {
                        let (_, intended) = burst.swap_remove(at);
                        worker.answered(intended, 2 * size);
                    }
                    // The echo of one that was given up comes late; its id is smaller. Anything else is wrong.
                    None if whole && back[..16] < first[..] => {}
                    None => return Err((Fault::Mismatch, "another datagram came back than was sent".to_owned())),
                }
            }
            Ok(socket)
        };
        let result = exchange.await;
        match result {
            Ok(kept) => socket = Some(kept),
            Err((fault, what)) => {
                worker.fault(fault, || what);
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

fn failed(error: rustix::io::Errno) -> (Fault, String) {
    (Fault::Broken, format!("the socket reports: {error}"))
}

/// The next datagram's length. `more` is there already where it came with the one before, and is not waited for.
async fn receive(
    worker: &Worker,
    socket: &UdpSocket,
    back: &mut [u8],
    mut more: bool,
) -> Result<usize, (Fault, String)> {
    let timeout = Duration::from_secs_f64(worker.plan.timeout);
    loop {
        if !std::mem::replace(&mut more, false) {
            // Readiness holds no buffer and may be dropped.
            match monoio::time::timeout(timeout, socket.readable(false)).await {
                Err(_elapsed) => return Err((Fault::Timeout, "a datagram did not come back in time".to_owned())),
                Ok(ready) => ready.map_err(|error| (Fault::Broken, error.to_string()))?,
            }
        }
        match rustix::net::recv(sys::descriptor(socket), &mut *back, rustix::net::RecvFlags::DONTWAIT) {
            Ok((length, _)) => return Ok(length),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}
