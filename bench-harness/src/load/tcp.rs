//! Raw TCP: echo, and bulk each way. The first byte on a connection tells the origin which.

use std::time::Duration;

use monoio::buf::{IoBuf as _, IoBufMut as _};
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _};
use monoio::io::{OwnedReadHalf, OwnedWriteHalf, Splitable as _};
use monoio::net::TcpStream;

use super::http1::{self, ID, id_text};
use super::worker::Worker;
use super::{Direction, Fault, Protocol, connect_error, tls};
use crate::origin::{MODE_ECHO, MODE_SINK, MODE_SOURCE};
use crate::rt::{self, Room};

type Outcome<T> = Result<T, (Fault, String)>;

async fn open(worker: &Worker, index: usize) -> Outcome<TcpStream> {
    let target = worker.plan.target;
    rt::connect(target, worker.source(index)).await.map_err(|error| (Fault::Connect, connect_error(target, &error)))
}

fn broken(error: &std::io::Error) -> (Fault, String) {
    (Fault::Broken, format!("the connection broke: {error}"))
}

/// Where a ClientHello holds its random: behind the record's header, the message's, and the version.
const RANDOM: usize = 5 + 4 + 2;

/// What is sent and must come back: bytes, or a ClientHello with an id in its random.
#[derive(Debug)]
struct Message {
    hello: Option<Vec<u8>>,
    size: usize,
    out: Vec<u8>,
    back: Room,
}

impl Message {
    fn new(worker: &Worker) -> Result<Self, String> {
        let hello = match worker.plan.protocol {
            Protocol::TlsHello => Some(tls::hello(&worker.plan.host).map_err(|error| error.to_string())?),
            _ => None,
        };
        let size = hello.as_ref().map_or(worker.plan.body, Vec::len);
        Ok(Self { hello, size, out: Vec::new(), back: Room::default() })
    }

    /// Sends it and compares what comes back. On a new connection the origin is told first what to do.
    async fn exchange(&mut self, worker: &Worker, stream: &mut TcpStream, fresh: bool, intended: u64) -> Outcome<()> {
        let size = self.size;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if fresh && self.hello.is_none() {
            out.push(MODE_ECHO);
        }
        let payload = out.len();
        match &self.hello {
            None => {
                out.extend(id_text(worker.id()));
                out.resize(payload + size, b'x');
            }
            Some(hello) => {
                out.extend(hello);
                out[RANDOM..RANDOM + ID].copy_from_slice(&id_text(worker.id()));
            }
        }
        let len = out.len();
        let (written, out) = rt::write_all(stream, out, len).await;
        written.map_err(|error| broken(&error))?;
        if self.back.len() != size {
            self.back = rt::room(size);
        }
        let mut at = 0;
        while at < size {
            let (read, back) = rt::read(stream, std::mem::take(&mut self.back), at).await;
            self.back = back;
            match read {
                Ok(0) => return Err((Fault::Broken, "closed before the echo was complete".to_owned())),
                Ok(n) => at += n,
                Err(error) => return Err(broken(&error)),
            }
        }
        if self.back[..] != out[payload..] {
            return Err((Fault::Mismatch, "other bytes came back than were sent".to_owned()));
        }
        self.out = out;
        worker.answered(intended, 2 * size);
        Ok(())
    }
}

/// Messages that must come back as they were sent, one at a time.
pub(super) async fn echo(worker: &Worker, index: usize) {
    let mut message = match Message::new(worker) {
        Ok(message) => message,
        Err(why) => return worker.fault(Fault::Broken, || why),
    };
    if worker.plan.idle {
        return idle(worker, index, &mut message).await;
    }
    let mut kept: Option<TcpStream> = None;
    while let Some(intended) = worker.next(index).await {
        let exchange = async {
            let fresh = kept.is_none();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => open(worker, index).await?,
            };
            message.exchange(worker, &mut stream, fresh, intended).await?;
            if worker.plan.connection_per_request {
                finish(stream).await;
                return Ok(None);
            }
            Ok(Some(stream))
        };
        let result = exchange.await;
        match result {
            Ok(stream) => kept = stream,
            Err((fault, what)) => {
                worker.fault(fault, || what);
                monoio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// As of HTTP/1.1: opens, sends a message, stays idle until the run ends, and sends one more on the same connection.
async fn idle(worker: &Worker, index: usize, message: &mut Message) {
    if !worker.turn(index).await {
        return;
    }
    let first = async {
        let mut stream = open(worker, index).await?;
        message.exchange(worker, &mut stream, true, worker.shared.now()).await?;
        Ok(stream)
    };
    let first = first.await;
    worker.opened();
    let mut stream = match first {
        Ok(stream) => stream,
        Err((fault, what)) => return worker.fault(fault, || what),
    };
    http1::last_turn(worker, index).await;
    if message.exchange(worker, &mut stream, false, worker.shared.now()).await.is_err() {
        worker.fault(Fault::Broken, || "an idle connection did not live until the end".to_owned());
    }
}

/// Ends our direction and waits for the end of the other.
async fn finish(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = rt::room(64);
    loop {
        let (read, buffer) = rt::read(&mut stream, rest, 0).await;
        rest = buffer;
        if !matches!(read, Ok(1..)) {
            return;
        }
    }
}

/// As many bytes as fit, on one connection for the whole run.
pub(super) async fn bulk(worker: &Worker, index: usize) {
    let mode = match worker.plan.direction {
        Direction::Down => MODE_SOURCE,
        Direction::Up => MODE_SINK,
        Direction::Both => MODE_ECHO,
    };
    let moved = async {
        let mut stream = open(worker, index).await?;
        let (written, _) = rt::write_all(&mut stream, vec![mode], 1).await;
        written.map_err(|error| broken(&error))?;
        let (reading, writing) = stream.into_split();
        match worker.plan.direction {
            // The writing half is kept: dropping it would end the origin's direction too early for some proxies.
            Direction::Down => {
                let received = receive(worker, reading, u64::MAX).await;
                drop(writing);
                received.map(|_count| ())
            }
            Direction::Up => upload(worker, reading, writing).await,
            Direction::Both => {
                let sending = async { send(worker, writing).await.map(|(count, half)| drop((count, half))) };
                let receiving = async { receive(worker, reading, u64::MAX).await.map(|_count| ()) };
                let (sent, received) = monoio::join!(sending, receiving);
                sent.and(received)
            }
        }
    };
    if let Err((fault, what)) = moved.await {
        worker.fault(fault, || what);
    }
}

/// Blocks of a given size, each beginning with its number, until the run ends.
async fn send(worker: &Worker, mut half: OwnedWriteHalf<TcpStream>) -> Outcome<(u64, OwnedWriteHalf<TcpStream>)> {
    let size = worker.plan.body;
    let mut block = vec![b'x'; size];
    let mut number = 0;
    while !worker.stopping() {
        block[..ID].copy_from_slice(&id_text(number));
        number += 1;
        let mut from = 0;
        while from < size {
            let (written, slice) = half.write(block.slice(from..)).await;
            block = slice.into_inner();
            let written = written.map_err(|error| broken(&error))?;
            from += written;
            worker.moved(written);
        }
    }
    half.shutdown().await.map_err(|error| broken(&error))?;
    Ok((number * size as u64, half))
}

/// Reads blocks whose numbers must follow each other, until the run ends or the stream does.
async fn receive(worker: &Worker, mut half: OwnedReadHalf<TcpStream>, limit: u64) -> Outcome<u64> {
    let size = worker.plan.body as u64;
    let mut buffer = rt::room(256 << 10);
    let mut at = 0_u64;
    while at < limit {
        let (read, slice) = half.read(buffer.slice_mut(..)).await;
        buffer = slice.into_inner();
        let read = read.map_err(|error| broken(&error))?;
        if read == 0 {
            return if worker.stopping() { Ok(at) } else { Err((Fault::Broken, "bulk ended early".to_owned())) };
        }
        if !check_blocks(&buffer[..read], at, size) {
            return Err((Fault::Mismatch, "a block of bulk has another number than it should".to_owned()));
        }
        at += read as u64;
        worker.moved(read);
        if worker.stopping() && worker.plan.direction == Direction::Down {
            break;
        }
    }
    Ok(at)
}

/// Whether the numbers of blocks within a piece of the stream are right.
fn check_blocks(piece: &[u8], at: u64, size: u64) -> bool {
    let end = at + piece.len() as u64;
    (at / size..=end / size).all(|number| {
        let text = id_text(number);
        let (begin, stop) = ((number * size).max(at), (number * size + ID as u64).min(end));
        begin >= stop || {
            let within = |from: u64| usize::try_from(from).unwrap_or(usize::MAX);
            piece[within(begin - at)..within(stop - at)]
                == text[within(begin - number * size)..within(stop - number * size)]
        }
    })
}

/// Sends, ends, and compares the origin's count with what was sent.
async fn upload(
    worker: &Worker,
    mut reading: OwnedReadHalf<TcpStream>,
    writing: OwnedWriteHalf<TcpStream>,
) -> Outcome<()> {
    let (sent, half) = send(worker, writing).await?;
    let mut count = rt::room(8);
    let mut at = 0;
    while at < 8 {
        let (read, slice) = reading.read(count.slice_mut(at..)).await;
        count = slice.into_inner();
        match read {
            Ok(0) => return Err((Fault::Broken, "no count came back for an upload".to_owned())),
            Ok(n) => at += n,
            Err(error) => return Err(broken(&error)),
        }
    }
    drop(half);
    let received = u64::from_be_bytes(count[..].try_into().unwrap_or_default());
    if received == sent {
        return Ok(());
    }
    Err((Fault::Mismatch, format!("{sent} bytes were sent and {received} arrived")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_checked_however_the_stream_is_cut() {
        let size = 40_u64;
        let stream: Vec<u8> = (0..5).flat_map(|number| [&id_text(number)[..], &[b'x'; 24]].concat()).collect();
        for from in 0..stream.len() {
            for to in from + 1..=stream.len() {
                assert!(check_blocks(&stream[from..to], from as u64, size), "{from}..{to}");
            }
        }
        let mut wrong = stream.clone();
        wrong[40 + 15] ^= 1;
        assert!(!check_blocks(&wrong, 0, size));
        assert!(!check_blocks(&wrong[55..56], 55, size));
        assert!(check_blocks(&wrong[56..], 56, size));
        assert!(!check_blocks(&stream[40..], 0, size), "a lost block is noticed");
    }
}
