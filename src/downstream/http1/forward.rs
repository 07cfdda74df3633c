//! One exchange with an endpoint: the request goes out, the answer comes back, both as they arrive.
//!
//! A request whose body has arrived with its head, which is nearly every one, is a straight line: one send upstream,
//! reads until the answer has passed. A longer body streams beside the answer, since an origin may answer early; then
//! two loops share the task, and each half of each stream has one of them.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::encode;
use ringway_core::http1::exchange::{self, Exchange, FailurePlan, HeadPlan, UpstreamFault};
use ringway_core::http1::request::Framing;
use ringway_core::http1::{FieldStorage, response};
use rustix::net::Shutdown;

use super::decide::Plan;
use super::io::{Filled, Watch, fill};
use super::piece::{self, TooLarge, next_piece};
use super::{After, Cx, local};
use crate::buffer::{Buf, Class};
use crate::metrics::{DownstreamError, UpstreamError};
use crate::relay::{self, Moved};
use crate::rt::{self, Reader, Signal, Stream, Tick, Writer};
use crate::sys;
use crate::upstream::{self, ConnectError, ConnectFailure, Connected};

/// Connections that one request is sent on: those that were kept may turn out to be dead.
const ATTEMPTS: usize = 3;

/// How the answer went.
enum Answered {
    /// It has passed whole; whether the connection it came on is at a message boundary.
    Whole { status: u16, clean: bool },
    /// Nothing of it has been sent on.
    Failed { fault: UpstreamFault },
    /// It broke after its head had been sent on.
    Broken { fault: UpstreamFault, status: u16 },
    /// The client did not take it.
    ClientGone { status: u16 },
    /// 101 has passed, and these bytes came behind it.
    Tunnel(Buf),
}

/// How the request's body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// The endpoint takes no more; what it answered tells.
    Refused,
    /// The wait for more was called off: the answer is complete.
    CalledOff,
    Client(ClientFault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientFault {
    Cut,
    Late,
    BadBody,
    TooLarge,
}

/// Forwards the request whose head stands at the front of `buf`'s window.
pub(super) async fn forward(cx: &Cx, down: &mut Stream, mut buf: Buf, mut plan: Plan) -> (After, Buf) {
    let Ok(first) = first_bytes(&mut buf, &mut plan) else {
        return local::client_fault(cx, down, buf, 400, DownstreamError::BadChunk, &plan).await;
    };
    let (start, end) = (buf.mark(), buf.mark_end());
    let streaming = !plan.body.is_done();
    let generation = std::rc::Rc::clone(&plan.counted.generation);
    let metrics = generation.metrics.backends[plan.backend.0 as usize].clone();
    let wanted = generation.shared.proxy_header(plan.backend);
    let header = wanted.map(|wanted| cx.client.header(wanted, cx.secure.as_deref(), || cx.core.random()));
    for attempt in 1.. {
        let by = match plan.backend_request {
            None => plan.by,
            Some(limit) => plan.by.min(rt::tick_after(limit)),
        };
        let more = attempt < ATTEMPTS.max(2) && rt::now() < plan.by;
        let connected =
            upstream::connect(generation.dial(plan.backend, plan.key, header.as_deref(), plan.reuse, by)).await;
        let Connected { mut lease, stream: mut up, reused } = match connected {
            Ok(connected) => connected,
            Err(failure) => {
                let status = unconnected(failure, &mut plan.exchange);
                // What was to be sent is the answered request, not the next one.
                buf.consume(first);
                return local::upstream_fault(cx, down, buf, status, &plan).await;
            }
        };
        up.wr.set_stall_timeout(cx.timeouts.get().body_idle);
        let (written, back) = up.wr.write_all(buf, first).await;
        buf = back;
        let (answered, sent) = if streaming && written.is_ok() {
            plan.exchange.request_body_consumed();
            let (answered, sent, back) = Box::pin(both(cx, down, &mut up, buf, &mut plan, by)).await;
            buf = back;
            (answered, sent)
        } else {
            // After a failed write the endpoint's answer, if it gave one, is still worth reading.
            plan.exchange.request_complete();
            let watch = Watch::Peer(&down.rd, down.fd());
            let answered = answer(cx, &mut up.rd, &mut down.wr, watch, &mut plan, by, &Progress::default()).await;
            let sent = if written.is_ok() { Sent::Whole } else { Sent::Refused };
            if written.is_err() {
                // It has left some of the request there.
                buf.set_window(start..end);
                buf.consume(first);
            }
            (answered, sent)
        };
        match answered {
            Answered::Whole { status, clean } => {
                if sent == Sent::Whole {
                    plan.exchange.request_complete();
                }
                plan.exchange.response_complete();
                let finish = plan.exchange.finish();
                if clean && sent == Sent::Whole && finish.upstream == exchange::After::Reuse {
                    lease.put(up, header.as_deref());
                }
                local::count(cx, &plan.counted, status);
                let after = match finish.downstream {
                    exchange::After::Reuse if sent == Sent::Whole => After::KeepAlive,
                    exchange::After::Close if sent == Sent::Whole => After::Close,
                    _ => After::Linger,
                };
                return (after, buf);
            }
            Answered::Tunnel(from_up) => {
                lease.answered();
                local::count(cx, &plan.counted, 101);
                let moved = Moved::default();
                let idle = cx.timeouts.get().stream_idle;
                drop(plan);
                let from_down = std::mem::replace(&mut buf, Buf::new(Class::Head));
                Box::pin(relay::relay(down, &mut up, Some(from_down), Some(from_up), idle, &moved)).await;
                cx.listener.moved(moved.up.get(), moved.down.get());
                return (After::Close, buf);
            }
            Answered::ClientGone { status } => {
                cx.core.metrics.downstream_error(DownstreamError::Aborted);
                local::count(cx, &plan.counted, status);
                return (After::Close, buf);
            }
            Answered::Broken { fault, status } => {
                if !matches!(sent, Sent::Client(_)) {
                    metrics.error(upstream_error(fault));
                }
                local::count(cx, &plan.counted, status);
                return cut(down, buf);
            }
            Answered::Failed { fault } => {
                if let Sent::Client(fault) = sent {
                    let (status, error) = match fault {
                        ClientFault::Cut => {
                            cx.core.metrics.downstream_error(DownstreamError::BodyCut);
                            local::count(cx, &plan.counted, 0);
                            return (After::Close, buf);
                        }
                        ClientFault::Late => (408, DownstreamError::BodyTimeout),
                        ClientFault::BadBody => (400, DownstreamError::BadChunk),
                        ClientFault::TooLarge => (413, DownstreamError::BodyTooLarge),
                    };
                    return local::client_fault(cx, down, buf, status, error, &plan).await;
                }
                metrics.error(upstream_error(fault));
                match plan.exchange.upstream_failed(fault, reused, more) {
                    FailurePlan::Retry => buf.set_window(start..end),
                    FailurePlan::Answer { status } => {
                        return local::upstream_fault(cx, down, buf, status, &plan).await;
                    }
                    FailurePlan::CutDownstream => return cut(down, buf),
                }
            }
        }
    }
    unreachable!("the last attempt returns")
}

/// How a request is answered for which there is no connection. Nothing of it has been sent.
fn unconnected(failure: ConnectFailure, exchange: &mut Exchange) -> u16 {
    let fault = match failure.error {
        ConnectError::NoEndpoint => return 503,
        ConnectError::Refused => UpstreamFault::ConnectRefused,
        ConnectError::Timeout => UpstreamFault::ConnectTimeout,
        ConnectError::NoResources => UpstreamFault::NoResources,
        ConnectError::TlsHandshake | ConnectError::TlsCertificate => UpstreamFault::Tls,
    };
    match exchange.upstream_failed(fault, false, failure.attempts > 1) {
        FailurePlan::Answer { status } => status,
        FailurePlan::Retry => match exchange.upstream_failed(fault, false, false) {
            FailurePlan::Answer { status } => status,
            FailurePlan::Retry | FailurePlan::CutDownstream => 503,
        },
        FailurePlan::CutDownstream => 503,
    }
}

/// Breaks the client's connection off, so that it cannot take what it has for a whole answer.
fn cut(down: &Stream, buf: Buf) -> (After, Buf) {
    down.reset();
    (After::Close, buf)
}

/// What the upload tells the answer, and the answer the upload.
#[derive(Default)]
struct Progress {
    /// The request's body has left whole.
    sent: Cell<bool>,
    /// The endpoint wants the body.
    wanted: Signal,
}

/// How much of the window leaves with the head: the body bytes that have arrived, unless they come in chunks or wait
/// for the endpoint to ask for them.
fn first_bytes(buf: &mut Buf, plan: &mut Plan) -> Result<usize, ringway_core::http1::body::BodyError> {
    let head = plan.head;
    if plan.chunked {
        // Chunks leave one by one, but what has arrived of them is judged before anything goes upstream.
        let mut arrived = buf.data()[head..].to_vec();
        BodyDecoder::request(Framing::Chunked).decode(&mut arrived)?;
    }
    if plan.chunked || plan.expect_continue {
        return Ok(head);
    }
    let decoded = plan.body.decode(&mut buf.data_mut()[head..])?;
    Ok(head + decoded.consumed)
}

/// The request's body and the answer side by side.
async fn both(
    cx: &Cx,
    down: &mut Stream,
    up: &mut Stream,
    buf: Buf,
    plan: &mut Plan,
    by: Tick,
) -> (Answered, Sent, Buf) {
    let call_off = Signal::default();
    let sending = Cell::new(true);
    let progress = Progress::default();
    if !plan.expect_continue {
        progress.wanted.raise();
    }
    let mut upload = Upload {
        body: std::mem::replace(&mut plan.body, BodyDecoder::none()),
        chunked: plan.chunked,
        limit: plan.body_limit,
        idle: cx.timeouts.get().body_idle,
    };
    let up_fd = up.fd();
    let send = async {
        let (sent, buf) = match wanted(&progress, &call_off).await {
            true => upload.send(&mut down.rd, &mut up.wr, buf, &call_off).await,
            false => (Sent::CalledOff, buf),
        };
        sending.set(false);
        progress.sent.set(sent == Sent::Whole);
        if matches!(sent, Sent::Client(_)) {
            // The endpoint must not take what it has for a whole request. This ends the wait for its answer as well.
            sys::reset(up_fd);
        }
        (sent, buf)
    };
    let receive = async {
        let answered = answer(cx, &mut up.rd, &mut down.wr, Watch::None, plan, by, &progress).await;
        if sending.get() {
            // What the endpoint has not read by now it does not want; a write that waits for it ends by this.
            call_off.raise();
            sys::reset(up_fd);
        }
        answered
    };
    let ((sent, buf), answered) = rt::join(pin!(send), pin!(receive)).await;
    // Whether it has come whole decides whether the client's connection can go on.
    plan.body = upload.body;
    (answered, sent, buf)
}

/// Whether the body is to be sent. An endpoint that neither asks for it nor answers gets it after a while, since it may
/// not know about expectations; one that answers without having asked must never take it for its next request.
async fn wanted(progress: &Progress, call_off: &Signal) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    if progress.wanted.is_raised() {
        return true;
    }
    let asked = rt::race(progress.wanted.wait(), rt::sleep(PATIENCE));
    rt::race(asked, call_off.wait()).await.is_ok()
}

/// The rest of a request's body on its way.
struct Upload {
    body: BodyDecoder,
    chunked: bool,
    limit: u64,
    idle: Duration,
}

impl Upload {
    async fn send(&mut self, from: &mut Reader, to: &mut Writer, mut buf: Buf, call_off: &Signal) -> (Sent, Buf) {
        let mut total = 0;
        loop {
            let Ok(piece) = next_piece(&mut buf, 0, &mut self.body, self.chunked) else {
                return (Sent::Client(ClientFault::BadBody), buf);
            };
            total += piece.payload as u64;
            if total > self.limit {
                return (Sent::Client(ClientFault::TooLarge), buf);
            }
            if piece.len > 0 {
                let (written, back) = to.write_all(buf, piece.len).await;
                buf = back;
                if written.is_err() {
                    let sent = if call_off.is_raised() { Sent::CalledOff } else { Sent::Refused };
                    return (sent, buf);
                }
            }
            buf.set_window(piece.rest);
            if piece.done {
                return (Sent::Whole, buf);
            }
            buf = ready_to_read(buf);
            let (filled, back) =
                fill(from, buf, rt::tick_after(self.idle), Shutdown::Read, Watch::Signal(call_off)).await;
            buf = back;
            match filled {
                Filled::Data => {}
                Filled::End | Filled::Broken => return (Sent::Client(ClientFault::Cut), buf),
                Filled::Late => return (Sent::Client(ClientFault::Late), buf),
                Filled::CalledOff => return (Sent::CalledOff, buf),
            }
        }
    }
}

/// A buffer with room for the next bytes of a body: a large one if there is nothing to keep.
fn ready_to_read(mut buf: Buf) -> Buf {
    if buf.is_empty() {
        if buf.class() == Class::Body {
            buf.clear();
            return buf;
        }
        return Buf::new(Class::Body);
    }
    // An unfinished chunk header or trailer; bounded by the decoder far below a block.
    buf.compact();
    buf
}

/// Reads the answer and passes it on.
async fn answer(
    cx: &Cx,
    up: &mut Reader,
    down: &mut Writer,
    watch: Watch<'_>,
    plan: &mut Plan,
    by: Tick,
    progress: &Progress,
) -> Answered {
    let mut buf = Buf::new(Class::Body);
    // Heads: any number of interim ones (bounded by the exchange), then the final one.
    let (mut body, head, chunked, status) = loop {
        let (filled, back) = fill(up, buf, by, Shutdown::Both, watch).await;
        buf = back;
        match filled {
            Filled::Data => {}
            Filled::End => return Answered::Failed { fault: UpstreamFault::Eof },
            Filled::Broken => return Answered::Failed { fault: UpstreamFault::Reset },
            Filled::Late => return Answered::Failed { fault: UpstreamFault::Timeout },
            Filled::CalledOff => return Answered::ClientGone { status: 0 },
        }
        match heads(cx, plan, down, buf, progress).await {
            Heads::More(back) => {
                buf = back;
                buf.compact();
                if buf.room() == 0 {
                    return Answered::Failed { fault: UpstreamFault::BadHead };
                }
            }
            Heads::Final { buf: back, head, body, chunked, status } => {
                buf = back;
                break (body, head, chunked, status);
            }
            Heads::Tunnel(buf) => return Answered::Tunnel(buf),
            Heads::Fault(fault) => return Answered::Failed { fault },
            Heads::ClientGone => return Answered::ClientGone { status: 0 },
        }
    };
    // Many origins send a head and its body in two writes. Measured with nginx as the origin (sendfile, 127 B bodies, 64
    // connections): 1.11 segments to the client per answer instead of 1.35. CPU per request was the same within the noise.
    if buf.len() == head && !body.is_done() && up.read_now(&mut buf).is_err() {
        return Answered::Failed { fault: UpstreamFault::Reset };
    }
    let idle = cx.timeouts.get().body_idle;
    let mut head = head;
    loop {
        let piece = match next_piece(&mut buf, head, &mut body, chunked) {
            Ok(piece) => piece,
            Err(_) if head > 0 => return Answered::Failed { fault: UpstreamFault::BadBody },
            Err(_) => return Answered::Broken { fault: UpstreamFault::BadBody, status },
        };
        head = 0;
        if piece.len > 0 {
            let (written, back) = down.write_all(buf, piece.len).await;
            buf = back;
            if written.is_err() {
                return Answered::ClientGone { status };
            }
        }
        buf.set_window(piece.rest);
        if piece.done {
            return Answered::Whole { status, clean: buf.is_empty() };
        }
        buf = ready_to_read(buf);
        let (filled, back) = fill(up, buf, by.min(rt::tick_after(idle)), Shutdown::Both, Watch::None).await;
        buf = back;
        let fault = match filled {
            Filled::Data => continue,
            Filled::End => match body.end_of_stream() {
                Ok(()) => {
                    if chunked {
                        let written = local::last_chunk(down).await;
                        if written.is_err() {
                            return Answered::ClientGone { status };
                        }
                    }
                    return Answered::Whole { status, clean: false };
                }
                Err(_) => UpstreamFault::Eof,
            },
            Filled::Broken | Filled::CalledOff => UpstreamFault::Reset,
            Filled::Late => UpstreamFault::Timeout,
        };
        return Answered::Broken { fault, status };
    }
}

/// What stands at the front of an answer.
enum Heads {
    More(Buf),
    /// The head to send stands at the front of the window.
    Final {
        buf: Buf,
        head: usize,
        body: BodyDecoder,
        chunked: bool,
        status: u16,
    },
    Tunnel(Buf),
    Fault(UpstreamFault),
    ClientGone,
}

/// Passes interim heads on and prepares the final one.
async fn heads(cx: &Cx, plan: &mut Plan, down: &mut Writer, mut buf: Buf, progress: &Progress) -> Heads {
    loop {
        if buf.is_empty() {
            return Heads::More(buf);
        }
        let (planned, new, body, status) = {
            let mut storage = FieldStorage::new();
            let head = match response::parse_response(buf.data(), &mut storage, plan.method, &cx.limits.get()) {
                Ok(Some(head)) => head,
                Ok(None) => return Heads::More(buf),
                Err(_) => return Heads::Fault(UpstreamFault::BadHead),
            };
            if progress.sent.get() {
                plan.exchange.request_complete();
            }
            if cx.core.is_draining() {
                plan.exchange.end_downstream();
            }
            if head.status == 100 {
                progress.wanted.raise();
            }
            let Ok(planned) = plan.exchange.response_head(&head) else { return Heads::Fault(UpstreamFault::BadHead) };
            let generation = &plan.counted.generation;
            let filters = generation.filters(plan.socket, plan.rule);
            let mut scratch = cx.core.scratch.borrow_mut();
            scratch.clear();
            encode::response(&head, filters, &planned, &cx.core.date(), &mut scratch);
            let (old, status) = (head.len, head.status);
            let body = BodyDecoder::response(head.body);
            if let Err(TooLarge) = piece::put_head(&mut buf, old, &scratch) {
                return Heads::Fault(UpstreamFault::BadHead);
            }
            (planned, scratch.len(), body, status)
        };
        match planned {
            HeadPlan::Final { .. } => {
                let chunked = planned.is_chunked();
                return Heads::Final { buf, head: new, body, chunked, status };
            }
            HeadPlan::Interim { forward: false } => buf.consume(new),
            HeadPlan::Interim { forward: true } | HeadPlan::Tunnel => {
                let (written, back) = down.write_all(buf, new).await;
                buf = back;
                if written.is_err() {
                    return Heads::ClientGone;
                }
                if matches!(planned, HeadPlan::Tunnel) {
                    return Heads::Tunnel(buf);
                }
            }
        }
    }
}

fn upstream_error(fault: UpstreamFault) -> UpstreamError {
    match fault {
        UpstreamFault::ConnectRefused => UpstreamError::ConnectRefused,
        UpstreamFault::ConnectTimeout => UpstreamError::ConnectTimeout,
        UpstreamFault::NoResources => UpstreamError::NoResources,
        UpstreamFault::Tls => UpstreamError::TlsHandshake,
        UpstreamFault::Reset => UpstreamError::Reset,
        UpstreamFault::Eof => UpstreamError::Eof,
        UpstreamFault::Timeout => UpstreamError::Timeout,
        UpstreamFault::WriteFailed => UpstreamError::Write,
        _ => UpstreamError::BadResponse,
    }
}
