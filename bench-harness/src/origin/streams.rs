//! TCP and UDP services.

use monoio::buf::{IoBuf as _, IoBufMut as _};
use monoio::io::AsyncWriteRent as _;
use monoio::net::TcpStream;
use monoio::net::udp::UdpSocket;

use super::{MODE_ECHO, MODE_HELLO, MODE_SINK, MODE_SOURCE};
use crate::load::id_text;
use crate::rt::{self, Room};

/// One connection, as its first byte says.
pub(super) async fn tcp(mut stream: TcpStream, block: usize) {
    let _no_delay = stream.set_nodelay(true);
    let buffer = rt::room(8 << 10);
    let (read, buffer) = rt::read(&mut stream, buffer, 0).await;
    let Ok(read @ 1..) = read else { return };
    match buffer[0] {
        MODE_ECHO => echo(stream, buffer, 1..read).await,
        MODE_HELLO => echo(stream, buffer, 0..read).await,
        MODE_SINK => sink(stream, read as u64 - 1).await,
        MODE_SOURCE => source(stream, block).await,
        _ => {}
    }
}

async fn echo(mut stream: TcpStream, mut buffer: Room, first: std::ops::Range<usize>) {
    let mut len = first.len();
    buffer.copy_within(first, 0);
    loop {
        let (written, back) = rt::write_all(&mut stream, buffer, len).await;
        buffer = back;
        if written.is_err() {
            return;
        }
        // Whoever fills the buffer sends bulk.
        if len == buffer.len() && len < 256 << 10 {
            buffer = rt::room(256 << 10);
        }
        let (read, back) = rt::read(&mut stream, buffer, 0).await;
        buffer = back;
        match read {
            Ok(n @ 1..) => len = n,
            _ => break,
        }
    }
    let _gone = stream.shutdown().await;
}

async fn sink(mut stream: TcpStream, mut count: u64) {
    let mut buffer = rt::room(256 << 10);
    loop {
        let (read, back) = rt::read(&mut stream, buffer, 0).await;
        buffer = back;
        match read {
            Ok(0) => break,
            Ok(n) => count += n as u64,
            Err(_broken) => return,
        }
    }
    let _gone = rt::write_all(&mut stream, count.to_be_bytes().to_vec(), 8).await;
}

async fn source(mut stream: TcpStream, size: usize) {
    // Several blocks per write.
    let blocks = ((256 << 10) / size).max(1);
    let mut buffer = vec![b'x'; blocks * size];
    let mut number = 0;
    loop {
        for block in 0..blocks {
            buffer[block * size..block * size + 16].copy_from_slice(&id_text(number));
            number += 1;
        }
        let len = buffer.len();
        let (written, back) = rt::write_all(&mut stream, buffer, len).await;
        buffer = back;
        if written.is_err() {
            return;
        }
    }
}

pub(super) async fn udp_echo(socket: &UdpSocket) {
    let mut buffer = rt::room(65_536);
    loop {
        let (received, slice) = socket.recv_from(buffer.slice_mut(..)).await;
        buffer = slice.into_inner();
        if let Ok((length, from)) = received {
            let (_sent, slice) = socket.send_to(buffer.slice(..length), from).await;
            buffer = slice.into_inner();
        }
    }
}
