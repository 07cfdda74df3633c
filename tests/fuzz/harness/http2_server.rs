//! A server's end of a connection of HTTP/2, fed with bytes that somebody else has thought of: what the fuzz target
//! `http2_server` and the integration test `http2_storm` share.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::task::Poll;

use ringway::buffer::{Buf, Class};
use ringway::http2::{End, Outgoing, PREFACE, Request, Reset, Server, Settings};
use ringway::rt::{self, Driver, Stream};

/// Bytes that fit the sockets' buffers, so that nobody has to read beside.
const MOST: usize = 32 << 10;

/// Bytes that are sent at a time.
const PIECE: usize = 300;

/// Turns that the other end gets for them.
const TURNS: usize = 8;

/// Serves what a client sends after its preface, to the connection's end: how it ended, how many requests there were,
/// and what the client was told. The path of a request says what is done about it.
pub fn serve(driver: Driver, sent: &[u8]) -> (Option<End>, usize, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    theirs.write_all(PREFACE).expect("room for the preface");
    ours.set_nonblocking(true).expect("non-blocking");
    let client = theirs.try_clone().expect("a second handle");
    let sent = sent[..sent.len().min(MOST)].to_vec();
    let (end, requests) = rt::run(driver, async move {
        let stream = Stream::new(ours.into()).expect("a stream");
        rt::spawn(send(client, sent));
        let mut server = Server::new(
            stream,
            None,
            Settings { streams: 16, header_list: 8 << 10, stream_window: 65_535, connection_window: 1 << 16 },
        );
        let mut requests = 0;
        poll_fn(|task| {
            loop {
                match server.poll_next(task) {
                    Poll::Ready(Some(request)) => {
                        requests += 1;
                        rt::spawn(answer(request));
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        (server.end(), requests)
    })
    .expect("an event loop");
    let mut told = Vec::new();
    // A client that sends on when it has been told to stop is reset.
    let _read = theirs.read_to_end(&mut told);
    (end, requests, told)
}

/// Sends in pieces, so that what comes behind an error does not hide what came before it.
async fn send(mut client: UnixStream, sent: Vec<u8>) {
    for piece in sent.chunks(PIECE) {
        if client.write_all(piece).is_err() {
            return;
        }
        for _ in 0..TURNS {
            turn().await;
        }
    }
    // It may be closed already.
    let _closed = client.shutdown(std::net::Shutdown::Write);
}

/// Lets everybody else go first.
async fn turn() {
    let mut waited = false;
    poll_fn(|task| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn answer(request: Request) {
    let Request { head, mut body, respond } = request;
    let what = head.pseudo().path.get(1).copied().unwrap_or_default();
    drop(head);
    let begun = match what {
        b'r' => return respond.reset(Reset::Internal),
        b'i' => respond
            .interim(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            .and_then(|()| respond.head(b"HTTP/1.1 200 OK\r\n\r\n", true)),
        b'e' => respond.head(b"HTTP/1.1 413 Too Large\r\nx: y\r\n\r\n", true),
        _ => respond.head(b"HTTP/1.1 200 OK\r\n\r\n", false),
    };
    if begun.is_err() || matches!(what, b'i' | b'e') {
        return;
    }
    // What comes goes back.
    loop {
        let mut buf = Buf::new(Class::Head);
        let room = buf.room();
        let Ok(read @ 1..) = poll_fn(|task| body.poll_read(task, &mut buf, room)).await else { break };
        if respond.copy(buf.data(), false).await.is_err() {
            return;
        }
        body.release(read);
    }
    let ended = match body.trailer_lines().await {
        Ok(lines) if !lines.is_empty() => respond.trailers(&lines),
        Ok(_) => respond.end(),
        Err(gone) => Err(gone),
    };
    if ended.is_err() {
        respond.reset(Reset::Cancel);
    }
}
