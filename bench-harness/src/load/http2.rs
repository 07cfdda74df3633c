//! HTTP/2 and gRPC as a client, by the `h2` crate: requests and answers with ids, as those of HTTP/1.1.
//!
//! Each stream of a connection asks one question at a time, so that connections times streams are in flight.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::Fault;
use super::http1::{Body, ID, Outcome, id_text, spread};
use super::plan::Protocol;
use super::tls::Stream;
use super::worker::Worker;
use crate::wire::Wire;

/// Windows of browsers: a stream is not stopped by the client.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;

const ID_FIELD: HeaderName = HeaderName::from_static("x-bench-id");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A flag and a length in front of a message of gRPC.
const PREFIX: usize = 5;

/// What all requests of a connection have in common.
#[derive(Debug)]
struct Requests {
    template: Request<()>,
    /// What comes before and behind `{n}`, if the path has one.
    varied: Option<(String, String)>,
    grpc: bool,
}

fn refused(error: &impl std::fmt::Display) -> (Fault, String) {
    (Fault::Malformed, format!("no such request can be made: {error}"))
}

impl Requests {
    fn new(worker: &Worker) -> Outcome<Self> {
        let plan = &worker.plan;
        let grpc = plan.protocol == Protocol::Grpc;
        let scheme = if worker.tls.is_some() { "https" } else { "http" };
        let path = plan.path.replace("{body}", &plan.body.to_string());
        let whole = format!("{scheme}://{}{path}", plan.host);
        let varied = whole.split_once("{n}").filter(|_| plan.vary > 1);
        let varied = varied.map(|(before, after)| (before.to_owned(), after.to_owned()));
        let mut template = Request::builder()
            .version(http::Version::HTTP_2)
            .method(if grpc { Method::POST } else { Method::GET })
            .uri(whole.replace("{n}", "0"));
        if grpc {
            template = template.header("content-type", "application/grpc").header("te", "trailers");
        }
        for header in &plan.header {
            let (name, value) = header.split_once(':').unwrap_or((header, ""));
            template = template.header(name.trim(), value.trim());
        }
        let template = template.body(()).map_err(|error| refused(&error))?;
        Ok(Self { template, varied, grpc })
    }

    fn make(&self, worker: &Worker, number: u64, id: &[u8; ID]) -> Outcome<Request<()>> {
        let mut request = self.template.clone();
        if let Some((before, after)) = &self.varied {
            let uri = format!("{before}{}{after}", spread(number, worker.plan.vary));
            *request.uri_mut() = Uri::try_from(uri).map_err(|error| refused(&error))?;
        }
        let id = HeaderValue::from_bytes(id).map_err(|error| refused(&error))?;
        request.headers_mut().insert(ID_FIELD, id);
        Ok(request)
    }
}

/// The message of a call: as long as the answer, and with the id where answers have it.
fn message(id: &[u8; ID], size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(PREFIX + size);
    message.put_u8(0);
    message.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    message.extend_from_slice(&id[..size.min(ID)]);
    message.put_bytes(b'x', size.saturating_sub(2 * ID));
    if size > ID {
        message.extend_from_slice(&id[ID - (size - ID).min(ID)..]);
    }
    message.freeze()
}

/// An error of a stream: whether the peer has said that it did not look at the request.
fn broken(error: &h2::Error) -> (Fault, String) {
    let untouched = error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR));
    let fault = match () {
        () if untouched => Fault::Retried,
        // What the codec on this side refuses, a body of another length than it was said to have among it.
        () if error.is_library() => Fault::Malformed,
        () => Fault::Broken,
    };
    (fault, format!("the stream broke: {error}"))
}

fn malformed(why: &str) -> (Fault, String) {
    (Fault::Malformed, format!("a malformed answer: {why}"))
}

/// A connection, or the lack of one.
struct Line {
    index: usize,
    requests: Requests,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Moves the bytes of the connection that was opened last.
    pumps: RefCell<Option<monoio::task::JoinHandle<()>>>,
    /// Held while one of the streams opens it for all.
    opening: std::cell::Cell<bool>,
}

impl Line {
    /// The connection; opened, where there is none.
    async fn sender(&self, worker: &Worker) -> Outcome<SendRequest<Bytes>> {
        while self.opening.get() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(sender) = &*self.sender.borrow() {
            return Ok(sender.clone());
        }
        self.opening.set(true);
        let opened = self.open(worker).await;
        self.opening.set(false);
        let sender = opened?;
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    /// Sends a request and reads its answer.
    async fn exchange(&self, worker: &Worker, intended: u64) -> Outcome<()> {
        let number = worker.id();
        let id = id_text(number);
        let size = worker.plan.body;
        let request = self.requests.make(worker, number, &id)?;
        let mut sender = self.sender(worker).await?;
        poll_fn(|context| sender.poll_ready(context)).await.map_err(|error| broken(&error))?;
        let grpc = self.requests.grpc;
        let (answer, mut sending) = sender.send_request(request, !grpc).map_err(|error| broken(&error))?;
        if grpc {
            sending.send_data(message(&id, size), true).map_err(|error| broken(&error))?;
        }
        let (head, mut incoming) = answer.await.map_err(|error| broken(&error))?.into_parts();
        if head.status != 200 {
            return Err((Fault::Status, format!("status {}", head.status.as_u16())));
        }
        let got = head.headers.get(ID_FIELD).map(HeaderValue::as_bytes);
        if grpc
            && got.is_none()
            && let Some(status) = head.headers.get(GRPC_STATUS)
        {
            return Err((Fault::Status, format!("gRPC status {status:?} without an answer")));
        }
        let got = got.ok_or_else(|| malformed("no id"))?;
        if got != id {
            let (sent, got) = (String::from_utf8_lossy(&id), String::from_utf8_lossy(got));
            return Err((Fault::Mismatch, format!("the answer to another request (sent {sent}, its head has {got})")));
        }
        let mut body = Body { id: &id, expected: size, seen: 0, right: true };
        let mut prefix = Vec::new();
        while let Some(data) = incoming.data().await {
            let mut data = data.map_err(|error| broken(&error))?;
            incoming.flow_control().release_capacity(data.len()).map_err(|error| broken(&error))?;
            if grpc && prefix.len() < PREFIX {
                prefix.extend_from_slice(&data.split_to(data.len().min(PREFIX - prefix.len())));
            }
            if body.seen + data.len() > size {
                return Err(malformed("a longer body than asked for"));
            }
            body.pass(&data);
        }
        if body.seen != size {
            return Err(malformed(&format!("a body of {} bytes where {size} were asked for", body.seen)));
        }
        if grpc {
            if prefix != message(&id, size)[..PREFIX] {
                return Err(malformed("another length in front of the message than it has"));
            }
            let trailers = incoming.trailers().await.map_err(|error| broken(&error))?;
            let trailers = trailers.ok_or_else(|| malformed("a call without trailers"))?;
            match trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes) {
                Some(b"0") => {}
                Some(status) => {
                    return Err((Fault::Status, format!("gRPC status {}", String::from_utf8_lossy(status))));
                }
                None => return Err(malformed("trailers without grpc-status")),
            }
        }
        if !body.right {
            return Err((Fault::Mismatch, "the id in the body is not the one sent".to_owned()));
        }
        worker.answered(intended, size);
        Ok(())
    }

    /// The same, again on a new connection where the peer has not looked at it.
    async fn ask(&self, worker: &Worker, intended: u64) -> Outcome<()> {
        let Err((fault, what)) = self.exchange(worker, intended).await else { return Ok(()) };
        if matches!(fault, Fault::Broken | Fault::Retried) {
            self.sender.borrow_mut().take();
        }
        if fault != Fault::Retried {
            return Err((fault, what));
        }
        worker.fault(fault, || what);
        self.exchange(worker, intended).await
    }
}

impl Line {
    async fn open(&self, worker: &Worker) -> Outcome<SendRequest<Bytes>> {
        let (tcp, tls, first) = match Stream::open(worker, self.index).await? {
            Stream::Plain(tcp) => (tcp, None, Vec::new()),
            Stream::Tls(tls) => {
                let (tcp, session, first) = tls.into_parts();
                if session.alpn_protocol() != Some(b"h2") {
                    return Err((Fault::Handshake, "HTTP/2 was not chosen by ALPN".to_owned()));
                }
                (tcp, Some(session), first)
            }
        };
        // Idle connections are many.
        let room = if worker.plan.idle { 1 << 10 } else { 64 << 10 };
        let (wire, pumps) = Wire::new(tcp, tls, first, room);
        *self.pumps.borrow_mut() = Some(monoio::spawn(pumps));
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(8 << 20)
            .handshake(wire)
            .await
            .map_err(|error| (Fault::Broken, format!("HTTP/2 preface: {error}")))?;
        // Its error reaches the streams.
        monoio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// Closes the connection, so that no operation is in flight when the thread ends.
    async fn close(&self) {
        self.sender.borrow_mut().take();
        let pumps = self.pumps.borrow_mut().take();
        if let Some(pumps) = pumps {
            let _peer_does_not_close = monoio::time::timeout(Duration::from_millis(500), pumps).await;
        }
    }
}

/// One connection's work until the run ends.
pub(super) async fn connection(worker: &Rc<Worker>, index: usize) {
    let requests = match Requests::new(worker) {
        Ok(requests) => requests,
        Err((fault, what)) => return worker.fault(fault, || what),
    };
    let line = Rc::new(Line {
        index,
        requests,
        sender: RefCell::default(),
        pumps: RefCell::default(),
        opening: std::cell::Cell::default(),
    });
    if worker.plan.idle {
        idle(worker, index, &line).await;
        return line.close().await;
    }
    let streams = worker.plan.streams;
    let tasks: Vec<_> = (index * streams..(index + 1) * streams)
        .map(|slot| {
            let (worker, line) = (Rc::clone(worker), Rc::clone(&line));
            monoio::spawn(async move {
                while let Some(intended) = worker.next(slot).await {
                    if let Err((fault, what)) = line.ask(&worker, intended).await {
                        worker.fault(fault, || what);
                        monoio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    line.close().await;
}

/// As of HTTP/1.1: opens, asks once, stays idle until the run ends, and asks once more on the same connection.
async fn idle(worker: &Worker, index: usize, line: &Line) {
    if !worker.turn(index).await {
        return;
    }
    let first = line.exchange(worker, worker.shared.now()).await;
    worker.opened();
    if let Err((fault, what)) = first {
        return worker.fault(fault, || what);
    }
    super::http1::last_turn(worker, index).await;
    if line.exchange(worker, worker.shared.now()).await.is_err() {
        worker.fault(Fault::Broken, || "an idle connection did not live until the end".to_owned());
    }
}
