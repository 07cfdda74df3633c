//! One exchange with an endpoint: the request goes out, the answer comes back, both as they arrive. The client's side
//! of it is a [`Requester`], whatever version of HTTP that speaks.
//!
//! A request whose body has arrived with its head, which is nearly every one, is a straight line: one send upstream,
//! reads until the answer has passed. A longer body streams beside the answer, since an origin may answer early; then
//! two loops share the task, and each half of each stream has one of them.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use ringway_core::grpc::{self, Call, web};
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::exchange::{self, Exchange, FailurePlan, Repeat, UpstreamFault};
use ringway_core::model::{BackendId, Retry};

use super::answer::translated;
use super::client::{Parts, Requester, Upload};
use super::decide::Plan;
use super::extra::{self, Copying};
use super::io::Watch;
use super::origin::{Begin, Http2Origin, Origin};
use super::request_body::{ClientFault, RequestBody, Sent};
use super::{Cx, local, sessions};
use crate::buffer::Buf;
use crate::metrics::{DownstreamError, UpstreamError, WorkerMetrics};
use crate::rt::{self, Signal, Stream, Tick};
use crate::sys::{self, PeerState};
use crate::upstream::{self, ConnectError, ConnectFailure, Connected, Lease, Link, Marks};
use crate::worker::Generation;

/// Connections that one request is sent on: those that were kept may turn out to be dead.
const ATTEMPTS: usize = 3;

/// Connections that may turn out to take no more requests (GOAWAY), besides those.
const MOVES: usize = 16;

/// How the answer went.
pub(super) enum Answered {
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
    /// Its status counts as a failure, and the request is sent again.
    Unwanted,
    /// Something else is said in place of an answer with this status.
    Replaced(u16),
}

/// How an exchange ended. What has not been answered is to be, by whoever speaks the client's version of HTTP.
pub(super) enum Outcome {
    /// The answer has passed whole, and so has the request if `sent`.
    Whole { downstream: exchange::After, sent: bool },
    /// 101 has passed; these bytes came behind it.
    Tunnel { up: Upgraded, from_up: Buf, lease: Lease },
    /// Nothing has been answered, because of the endpoint: the client gets this status.
    Upstream { status: u16 },
    /// Nothing has been answered, because of the request's body: the client gets this status.
    Body { status: u16, error: DownstreamError },
    /// The answer is cut: the client must not take what it has for a whole one.
    Cut,
    /// The client has gone.
    Gone,
}

/// What carries another protocol now.
pub(super) enum Upgraded {
    /// A connection of its own.
    Stream(Stream),
    /// A stream of HTTP/2.
    Http2(Box<Http2Origin>),
}

/// Forwards the request whose head stands at the front of `buf`'s window. What was answered has been counted.
pub(super) async fn forward<C: Requester>(cx: &Cx, client: &mut C, mut buf: Buf, plan: &mut Plan) -> (Outcome, Buf) {
    let Ok(first) = client.first(&mut buf, plan) else {
        return (Outcome::Body { status: 400, error: DownstreamError::BadChunk }, buf);
    };
    let (start, end) = (buf.mark(), buf.mark_end());
    let generation = std::rc::Rc::clone(&plan.counted.generation);
    let metrics = &generation.metrics.backends[plan.backend.0 as usize];
    let wanted = generation.shared.proxy_header(plan.backend);
    let header = wanted.map(|wanted| cx.client.header(wanted, cx.secure.as_deref(), || cx.core.random()));
    if let Some(budget) = &generation.metrics.budgets[plan.backend.0 as usize] {
        budget.sent(Instant::now());
    }
    let mut attempt = 1;
    let mut moves = 0;
    loop {
        let by = match plan.backend_request {
            None => plan.by,
            Some(limit) => plan.by.min(rt::tick_after(limit)),
        };
        let more = attempt < ATTEMPTS.max(2) && rt::now() < plan.by;
        let who = marks(cx, &generation, plan.backend, header.as_deref());
        let mut dial = generation.dial(plan.backend, plan.key, who, plan.reuse, plan.upgrade, by);
        dial.gone = client.parts().gone;
        dial.wanted = plan.extra.as_ref().and_then(|extra| extra.session.as_ref()?.endpoint);
        let Connected { mut lease, link, reused } = match upstream::connect(dial).await {
            Ok(connected) => connected,
            Err(ConnectFailure { error: ConnectError::GivenUp, .. }) => {
                cx.core.metrics.downstream_error(DownstreamError::Aborted);
                local::count(cx, &plan.counted, 0);
                local::count_call(plan, grpc::CANCELLED);
                return (Outcome::Gone, buf);
            }
            Err(failure) => {
                sessions::unanswered(plan);
                let tried = failure.error != ConnectError::NoEndpoint;
                let mut status = unconnected(failure, &mut plan.exchange);
                if tried {
                    match again(cx, plan).await {
                        Repeat::Yes => {
                            attempt += 1;
                            continue;
                        }
                        Repeat::Overflow => status = 503,
                        Repeat::No => {}
                    }
                }
                // What was to be sent is the answered request, not the next one.
                buf.consume(first);
                return (Outcome::Upstream { status }, buf);
            }
        };
        sessions::connected(cx, plan, &lease);
        let stall = cx.timeouts().body_idle;
        let (mut stream, mut multiplexed) = (None, None);
        let (answered, sent, back) = match link {
            Link::Stream(up) => {
                let up = stream.insert(up);
                up.wr.set_stall_timeout(stall);
                once(cx, client, up, buf, first, plan, by).await
            }
            Link::Http2(slot) => {
                let up = multiplexed.insert(Box::new(Http2Origin::new(slot, stall, plan.upgrade)));
                C::held(once(cx, client, &mut **up, buf, first, plan, by)).await
            }
        };
        buf = back;
        match answered {
            Answered::Whole { status, clean } => {
                if sent == Sent::Whole {
                    plan.exchange.request_complete();
                }
                plan.exchange.response_complete();
                let finish = plan.exchange.finish();
                if clean
                    && sent == Sent::Whole
                    && finish.upstream == exchange::After::Reuse
                    && let Some(up) = stream
                {
                    lease.keep(up, marks(cx, &generation, plan.backend, header.as_deref()));
                }
                local::count(cx, &plan.counted, status);
                local::count_call(plan, grpc::UNKNOWN);
                return (Outcome::Whole { downstream: finish.downstream, sent: sent == Sent::Whole }, buf);
            }
            Answered::Unwanted => {
                drop((lease, stream, multiplexed));
                if !pause(cx, plan).await {
                    return (Outcome::Upstream { status: 504 }, buf);
                }
                buf.set_window(start..end);
            }
            Answered::Replaced(status) => {
                if sent == Sent::Whole {
                    plan.exchange.request_complete();
                }
                return (Outcome::Upstream { status }, buf);
            }
            Answered::Tunnel(from_up) => {
                lease.answered();
                local::count(cx, &plan.counted, 101);
                let up = match (stream, multiplexed) {
                    (Some(stream), _) => Upgraded::Stream(stream),
                    (None, Some(up)) => Upgraded::Http2(up),
                    (None, None) => unreachable!("the answer came on one of them"),
                };
                return (Outcome::Tunnel { up, from_up, lease }, buf);
            }
            Answered::ClientGone { status } => {
                cx.core.metrics.downstream_error(DownstreamError::Aborted);
                local::count(cx, &plan.counted, status);
                local::count_call(plan, grpc::CANCELLED);
                return (Outcome::Gone, buf);
            }
            Answered::Broken { fault, status } => {
                if !matches!(sent, Sent::Client(_)) {
                    metrics.error(upstream_error(fault));
                }
                local::count(cx, &plan.counted, status);
                local::count_call(plan, grpc::INTERNAL);
                return (Outcome::Cut, buf);
            }
            Answered::Failed { fault } => {
                if let Sent::Client(fault) = sent {
                    let (status, error) = match fault {
                        ClientFault::Cut => {
                            cx.core.metrics.downstream_error(DownstreamError::BodyCut);
                            local::count(cx, &plan.counted, 0);
                            return (Outcome::Gone, buf);
                        }
                        ClientFault::Late => (408, DownstreamError::BodyTimeout),
                        ClientFault::BadBody => (400, DownstreamError::BadChunk),
                        ClientFault::TooLarge => (413, DownstreamError::BodyTooLarge),
                    };
                    return (Outcome::Body { status, error }, buf);
                }
                metrics.error(upstream_error(fault));
                sessions::unanswered(plan);
                // A connection that ends as it should costs nothing: the next one is as good as the first.
                let moved = fault == UpstreamFault::GoneAway && moves < MOVES && rt::now() < plan.by;
                match plan.exchange.upstream_failed(fault, reused, more || moved) {
                    FailurePlan::Retry if moved => {
                        moves += 1;
                        buf.set_window(start..end);
                        continue;
                    }
                    FailurePlan::Retry => buf.set_window(start..end),
                    FailurePlan::Answer { status } => match again(cx, plan).await {
                        Repeat::Yes => buf.set_window(start..end),
                        Repeat::No => return (Outcome::Upstream { status }, buf),
                        Repeat::Overflow => return (Outcome::Upstream { status: 503 }, buf),
                    },
                    FailurePlan::CutDownstream => return (Outcome::Cut, buf),
                }
            }
        }
        attempt += 1;
    }
}

/// What makes a connection to a backend this client's, where the backend wants that.
fn marks<'m>(cx: &'m Cx, generation: &Generation, backend: BackendId, header: Option<&'m [u8]>) -> Marks<'m> {
    Marks { header, source: generation.shared.is_transparent(backend).then_some(&cx.client.source) }
}

/// Sends the request once, the window's first `first` bytes at once, and reads its answer. The window is what the head
/// stood in front of, if the request can be sent again.
async fn once<C: Requester, O: Origin>(
    cx: &Cx,
    client: &mut C,
    up: &mut O,
    buf: Buf,
    first: usize,
    plan: &mut Plan,
    by: Tick,
) -> (Answered, Sent, Buf) {
    let streaming = !plan.body.is_done();
    let (start, end) = (buf.mark(), buf.mark_end());
    let mut copying = plan.extra.as_mut().and_then(|extra| extra.copying.take());
    if let Some(copying) = &mut copying {
        copying.begin(&buf.data()[..first], plan.head, plan.chunked);
    }
    let (written, mut buf) = up.begin(buf, plan.head, first, !streaming).await;
    if let Err(Begin::Refused(fault)) = written {
        buf.set_window(start..end);
        buf.consume(first);
        return (Answered::Failed { fault }, Sent::Refused, buf);
    }
    if streaming && written.is_ok() {
        plan.exchange.request_body_consumed();
        return Box::pin(both(cx, client, up, buf, plan, by, copying)).await;
    }
    if let Some(copying) = copying.filter(|_| !streaming) {
        copying.send(cx, &plan.counted.generation, plan.method);
    }
    // After a failed write the endpoint's answer, if it gave one, is still worth reading.
    plan.exchange.request_complete();
    let Parts { upload, download, gone } = client.parts();
    let (watch, later) = match gone {
        None => (upload.watch(), upload.watch()),
        Some(gone) => (Watch::Signal(gone), Watch::Signal(gone)),
    };
    let answered = translated::<O, _>(cx, up.source(), download, (watch, later), plan, by, &Progress::default()).await;
    let sent = if written.is_ok() { Sent::Whole } else { Sent::Refused };
    if written.is_err() {
        // It has left some of the request there.
        buf.set_window(start..end);
        buf.consume(first);
    }
    (answered, sent, buf)
}

/// How the route wants failed requests sent again, if it does.
pub(super) fn retry(plan: &Plan) -> Option<&Retry> {
    plan.counted.generation.rule(plan.socket, plan.rule)?.extras.as_ref()?.retry.as_ref()
}

/// Whether something else is said in place of an answer with this status.
pub(super) fn has_page(plan: &Plan, status: u16) -> bool {
    // A call of gRPC has its status in trailers, and no pages.
    let rule = plan.counted.generation.rule(plan.socket, plan.rule).filter(|_| plan.reply.call.is_none());
    rule.and_then(|rule| rule.extras.as_ref()?.responses.as_ref()?.page(status)).is_some()
}

/// Whether a status counts as a failure.
pub(super) fn is_unwanted(plan: &Plan, status: u16) -> bool {
    status >= 400 && retry(plan).is_some_and(|retry| retry.codes.contains(&status))
}

/// Whether a request that has failed is sent again because its route wants it; that is due now.
async fn again(cx: &Cx, plan: &mut Plan) -> Repeat {
    match repeat(plan) {
        Repeat::Yes if !pause(cx, plan).await => Repeat::No,
        judged => judged,
    }
}

/// The same, before its pause.
pub(super) fn repeat(plan: &mut Plan) -> Repeat {
    if plan.extra.is_none() || rt::now() >= plan.by {
        return Repeat::No;
    }
    let Plan { exchange, counted, backend, .. } = plan;
    exchange.retry(|| {
        let WorkerMetrics { backends, budgets, .. } = &counted.generation.metrics;
        let (metrics, budget) = (&backends[backend.0 as usize], &budgets[backend.0 as usize]);
        let affordable = budget.as_ref().is_none_or(|budget| budget.try_retry(Instant::now()));
        if affordable {
            metrics.retries.inc();
        } else {
            metrics.error(UpstreamError::RetryOverflow);
        }
        affordable
    })
}

/// Waits before a request is sent again; false when its time is over.
async fn pause(cx: &Cx, plan: &mut Plan) -> bool {
    let Some(extra) = &mut plan.extra else { return false };
    extra.retried += 1;
    let retried = extra.retried;
    let wait = retry(plan).map(|retry| extra::backoff(retry, retried, cx.core.random())).unwrap_or_default();
    if rt::tick_after(wait) < plan.by {
        rt::sleep(wait).await;
        return true;
    }
    let mut deadline = rt::Deadline::new(cx.client.fd);
    deadline.passed(plan.by).await;
    false
}

/// How a request is answered for which there is no connection. Nothing of it has been sent.
fn unconnected(failure: ConnectFailure, exchange: &mut Exchange) -> u16 {
    let fault = match failure.error {
        ConnectError::NoEndpoint | ConnectError::Overflow | ConnectError::PendingTimeout | ConnectError::GivenUp => {
            return 503;
        }
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

/// What the upload tells the answer, and the answer the upload.
#[derive(Default)]
pub(super) struct Progress {
    /// The request's body has left whole.
    pub(super) sent: Cell<bool>,
    /// The endpoint wants the body.
    pub(super) wanted: Signal,
}

/// The request's body and the answer side by side.
async fn both<C: Requester, O: Origin>(
    cx: &Cx,
    client: &mut C,
    up: &mut O,
    buf: Buf,
    plan: &mut Plan,
    by: Tick,
    copying: Option<Box<Copying>>,
) -> (Answered, Sent, Buf) {
    let call_off = Signal::default();
    let sending = Cell::new(true);
    // The answer is complete; the client has gone before that.
    let (answered, left) = (Signal::default(), Cell::new(false));
    let progress = Progress::default();
    if !plan.expect_continue {
        progress.wanted.raise();
    }
    let mut body = RequestBody {
        decoder: std::mem::replace(&mut plan.body, BodyDecoder::none()),
        chunked: plan.chunked && !O::FRAMES,
        frames: O::FRAMES,
        base64: plan.web.filter(|web| O::FRAMES && web.call == Call::WebText).map(|_| web::Base64::default()),
        trailers: Vec::new(),
        idle: cx.timeouts().body_idle,
        by: received_by(cx, plan.counted.started),
        copying,
    };
    let limit = plan.body_limit;
    let (source, sink, cut) = up.parts();
    let Parts { upload, download, gone } = client.parts();
    let send = async {
        let (sent, buf) = match wanted(&progress, &call_off).await {
            true => body.send(upload, sink, buf, limit, &call_off).await,
            false => (Sent::CalledOff, buf),
        };
        sending.set(false);
        progress.sent.set(sent == Sent::Whole);
        if matches!(sent, Sent::Client(_)) {
            // The endpoint must not take what it has for a whole request. This ends the wait for its answer as well.
            cut();
        }
        if sent == Sent::Whole && gone.is_none() && rt::race(broken(upload.watch()), answered.wait()).await.is_ok() {
            left.set(true);
            cut();
        }
        (sent, buf)
    };
    let receive = async {
        let watch = gone.map_or(Watch::None, Watch::Signal);
        let what = translated::<O, _>(cx, source, download, (watch, watch), plan, by, &progress).await;
        if sending.get() {
            // What the endpoint has not read by now it does not want; a write that waits for it ends by this.
            call_off.raise();
            cut();
        }
        answered.raise();
        what
    };
    let ((sent, buf), mut what) = rt::join(pin!(send), pin!(receive)).await;
    if left.get() {
        what = match what {
            Answered::Failed { .. } => Answered::ClientGone { status: 0 },
            Answered::Broken { status, .. } => Answered::ClientGone { status },
            other => other,
        };
    }
    // Whether it has come whole decides whether the client's connection can go on.
    plan.body = body.decoder;
    if let Some(copying) = body.copying.filter(|_| sent == Sent::Whole) {
        copying.send(cx, &plan.counted.generation, plan.method);
    }
    (what, sent, buf)
}

/// Until when a request has to have come that was begun at `started`.
pub(super) fn received_by(cx: &Cx, started: Instant) -> Tick {
    let limit = cx.timeouts().request;
    limit.map_or(Tick::MAX, |limit| rt::tick_after(limit.saturating_sub(started.elapsed())))
}

/// Waits until the client that is watched has broken off; for ever where it sends something else, or cannot be watched.
async fn broken(watch: Watch<'_>) {
    if let Watch::Peer(peer, fd) = watch {
        let _ready = peer.readable().await;
        if sys::peer_state(fd) == PeerState::Broken {
            return;
        }
    }
    std::future::pending().await
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
        UpstreamFault::Refused | UpstreamFault::GoneAway => UpstreamError::Refused,
        _ => UpstreamError::BadResponse,
    }
}
