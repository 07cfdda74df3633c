//! UDP echo: one datagram in flight per socket.

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

pub(super) async fn echo(worker: &Worker, index: usize) {
    let size = worker.plan.body;
    let timeout = Duration::from_secs_f64(worker.plan.timeout);
    let (mut out, mut back) = (vec![b'x'; size], vec![0; size + 1]);
    let mut socket: Option<UdpSocket> = None;
    while let Some(intended) = worker.next(index).await {
        let exchange = async {
            // A flow per datagram is what a connection per request is to TCP.
            let socket = match socket.take().filter(|_| !worker.plan.connection_per_request) {
                Some(socket) => socket,
                None => {
                    open(worker, index).map_err(|error| (Fault::Connect, connect_error(worker.plan.target, &error)))?
                }
            };
            out[..16].copy_from_slice(&id_text(worker.id()));
            let failed = |error: rustix::io::Errno| (Fault::Broken, format!("the socket reports: {error}"));
            rustix::net::send(sys::descriptor(&socket), &out, rustix::net::SendFlags::empty()).map_err(failed)?;
            loop {
                // Readiness holds no buffer and may be dropped.
                match monoio::time::timeout(timeout, socket.readable(false)).await {
                    Err(_elapsed) => return Err((Fault::Timeout, "a datagram did not come back in time".to_owned())),
                    Ok(ready) => ready.map_err(|error| (Fault::Broken, error.to_string()))?,
                }
                let length =
                    match rustix::net::recv(sys::descriptor(&socket), &mut back[..], rustix::net::RecvFlags::empty()) {
                        Ok((length, _)) => length,
                        Err(rustix::io::Errno::AGAIN) => continue,
                        Err(error) => return Err(failed(error)),
                    };
                if back[..length] == out[..] {
                    worker.answered(intended, 2 * size);
                    return Ok(socket);
                }
                // The echo of one that was given up comes late; its id is smaller. Anything else is wrong.
                if length != size || back[16..size] != out[16..] || back[..16] >= out[..16] {
                    return Err((Fault::Mismatch, "another datagram came back than was sent".to_owned()));
                }
            }
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
