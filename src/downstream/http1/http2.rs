//! HTTP/2 connections of clients: one task for the connection and one for each request ([`streams`]).
//!
//! A request goes the way of one in HTTP/1.1: decided about by the same code (when it comes, before its task begins) and
//! forwarded by the same exchange. What is
//! HTTP/2's own is here: a request's body comes as frames with credit, an answer leaves as frames, and a connection ends
//! by saying so.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringway_core::http1::body::{BodyDecoder, BodyError, CRLF, LAST_CHUNK, chunk_header};
use ringway_core::http1::encode::{self, Reply};
use ringway_core::http1::request::RequestError;
use ringway_core::http2::flood::Flood;
use ringway_core::model::ClientHttp2;

use super::authorize::{self, Findings};
use super::client::{Download, Parts, Pulled, Requester, Upload};
use super::decide::{self, Answer, Decision, Plan};
use super::forward::{self, Outcome, Upgraded};
use super::frames::{self, discard, passed};
use super::io::{Filled, Stall, Watch, gone, pour};
use super::origin::{Origin, Sink, Source};
use super::piece::Piece;
use super::request_body::{ClientFault, RequestBody, ready_to_read};
use super::streams::{self, Streams};
use super::{Cx, local, tunnel};
use crate::buffer::{Buf, Class};
use crate::http2::{Body, End, Gone, Head, Outgoing, Reset, Respond, Server, Settings, TRAILER_LIMIT};
use crate::metrics::DownstreamError;
use crate::rt::{self, Deadline, Signal, Stream, Tick};
use crate::worker::Held;

/// How long a client that has been told that its connection ends may take to say that it has heard it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection, of which `first` has been read already, to its end.
pub(super) async fn serve(cx: Rc<Cx>, stream: Stream, first: Option<Buf>) {
    let mut timer = Deadline::new(stream.fd());
    let header_list = u32::try_from(cx.limits().head_bytes).unwrap_or(u32::MAX);
    let generation = cx.core.generation();
    let wanted = generation.socket(cx.socket).map_or_else(ClientHttp2::default, |found| found.shared.client.http2);
    drop(generation);
    let ClientHttp2 { streams, stream_window, connection_window } = wanted;
    let mut server = Server::new(stream, first, Settings { streams, header_list, stream_window, connection_window });
    let streams = Rc::new(Streams::default());
    let mut phase = Phase::Opening(rt::tick_after(cx.timeouts().header));
    let mut known = false;
    poll_fn(|task| {
        if !std::mem::replace(&mut known, true) {
            cx.guard.wake_by(task.waker());
        }
        loop {
            match server.poll_next(task) {
                Poll::Ready(Some(request)) => {
                    cx.requests.set(cx.requests.get().saturating_add(1));
                    streams::start(&cx, &streams, request);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {
                    if !phase.advance(&cx, &mut server, &streams, &mut timer, task) {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await;
    let error = match server.end() {
        Some(End::Protocol) => DownstreamError::H2Protocol,
        Some(End::Calm | End::Flood(Flood::Empty | Flood::Late | Flood::Provoked | Flood::Refused)) => {
            DownstreamError::H2Flood
        }
        Some(End::Flood(Flood::Reset)) => DownstreamError::H2ResetFlood,
        Some(End::Flood(Flood::Ping)) => DownstreamError::H2PingFlood,
        Some(End::Flood(Flood::Settings)) => DownstreamError::H2SettingsFlood,
        Some(End::Flood(Flood::Idle)) => DownstreamError::H2FrameFlood,
        Some(End::Flood(Flood::Window)) => DownstreamError::H2WindowFlood,
        Some(End::Clean | End::Broken) | None => return,
    };
    cx.core.metrics.downstream_error(error);
}

/// Where a connection is in its life; what it waits for, and until when.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// For its preface.
    Opening(Tick),
    /// For requests: there is none since then.
    Idle(Tick),
    /// Requests are on their way.
    Busy,
    /// For the requests on their way: the client knows that there will be no more.
    Leaving,
    /// For the client to close.
    Left(Tick),
    Over,
}

impl Phase {
    /// Moves on; whether the connection has to be polled again.
    fn advance(
        &mut self,
        cx: &Cx,
        server: &mut Server,
        streams: &Streams,
        timer: &mut Deadline,
        task: &mut Context<'_>,
    ) -> bool {
        *streams.driver.borrow_mut() = Some(task.waker().clone());
        if streams.stalled.get() && !matches!(self, Self::Over) {
            server.calm_down();
            *self = Self::Over;
            return true;
        }
        let busy = streams.open.get() > 0;
        let ending = || cx.takes_no_more() || cx.core.generation().socket(cx.socket).is_none();
        let idle = || {
            let by = rt::tick_after(cx.timeouts().idle);
            cx.ends().map_or(by, |end| end.min(by))
        };
        let mut again = false;
        loop {
            let next = match *self {
                Self::Opening(_) if server.is_open() => Self::Idle(idle()),
                Self::Opening(_) if ending() => {
                    server.close();
                    again = true;
                    Self::Over
                }
                Self::Idle(_) | Self::Busy if ending() => {
                    server.go_away();
                    again = true;
                    Self::Leaving
                }
                Self::Idle(_) if busy => Self::Busy,
                Self::Busy if !busy => Self::Idle(idle()),
                Self::Leaving if !busy => Self::Left(rt::tick_after(FAREWELL)),
                Self::Left(_) if busy => Self::Leaving,
                Self::Opening(by) if passed(timer, by, task) => {
                    cx.core.metrics.downstream_error(DownstreamError::HeaderTimeout);
                    server.close();
                    again = true;
                    Self::Over
                }
                Self::Idle(by) if passed(timer, by, task) => {
                    if !cx.takes_no_more() {
                        cx.core.metrics.downstream_error(DownstreamError::IdleTimeout);
                    }
                    server.go_away();
                    again = true;
                    Self::Leaving
                }
                Self::Left(by) if passed(timer, by, task) => {
                    server.close();
                    again = true;
                    Self::Over
                }
                Self::Opening(_) | Self::Idle(_) | Self::Busy | Self::Leaving | Self::Left(_) | Self::Over => {
                    return again;
                }
            };
            *self = next;
        }
    }
}

/// What has been decided about a request.
pub(super) struct Judged {
    decided: Result<Decision, RequestError>,
    /// The head of one that is forwarded stands there.
    buf: Option<Buf>,
    /// What is known besides the request, and what counts it among those that are under way.
    findings: Findings,
    /// The client waits to be told to go on.
    waits: bool,
    /// Where something has to be found out, and it is decided anew then.
    head: Option<Head>,
}

impl Judged {
    /// Decides about a request as it comes. Its connection does that for all that have come together, one after the other:
    /// the code that decides, and that which forwards, are each about what a core's instruction cache holds.
    pub(super) fn new(cx: &Cx, mut head: Head, body: &Body) -> Box<Self> {
        let waits = head.fields().iter().any(|(name, _)| name == b"expect");
        if let Some(length) = body.whole().filter(|_| !waits && head.pseudo().protocol.is_none()) {
            head.body_is(length);
        }
        let mut judged =
            Self { decided: Ok(Decision::More), buf: None, findings: Findings::default(), waits, head: None };
        judged.decide(cx, head);
        Box::new(judged)
    }

    fn decide(&mut self, cx: &Cx, head: Head) {
        (self.decided, self.buf) = match decide::decide_stream(cx, &head, &self.findings) {
            Ok((decision, buf)) => (Ok(decision), Some(buf)),
            Err(error) => (Err(error), None),
        };
        // Something has to be found out first.
        self.head = matches!(self.decided, Ok(Decision::Check(_) | Decision::Ask(_))).then_some(head);
    }
}

/// Answers a request.
pub(super) async fn answer(
    cx: &Cx,
    streams: &Streams,
    mut judged: Box<Judged>,
    mut body: Body,
    respond: &Respond,
    gone: &Signal,
) {
    if judged.head.is_some() && !Box::pin(find_out(cx, &mut judged, &mut body, respond, gone)).await {
        return;
    }
    match &mut judged.decided {
        Err(error) => {
            let error = *error;
            refuse(cx, respond, error).await;
        }
        Ok(Decision::More | Decision::Check(_) | Decision::Ask(_)) => {}
        Ok(Decision::Answer(Answer { bytes, status, counted, .. })) => {
            judged.buf = None;
            if (!judged.waits || judged.findings.continued) && !discard(cx, &mut body).await {
                // The rest of the request was malformed, or is not coming: the stream is over.
                return cx.core.metrics.downstream_error(DownstreamError::BodyCut);
            }
            if send(respond, bytes).await.is_err() {
                cx.core.metrics.downstream_error(DownstreamError::Aborted);
            }
            if let Some(counted) = counted {
                local::count(cx, counted, *status);
            }
        }
        Ok(Decision::Forward(_)) => forward(cx, streams, body, respond, gone, judged).await,
    }
}

/// Finds out what it takes to decide; `false` where the request is over before that.
async fn find_out(cx: &Cx, judged: &mut Judged, body: &mut Body, respond: &Respond, gone: &Signal) -> bool {
    while let Some(mut head) = judged.head.take() {
        match std::mem::replace(&mut judged.decided, Ok(Decision::More)) {
            Ok(Decision::Check(claim)) => match rt::race(cx.core.passwords.check(claim), gone.wait()).await {
                Ok(verdict) => judged.findings.password = Some(verdict),
                Err(()) => {
                    cx.core.metrics.downstream_error(DownstreamError::Aborted);
                    return false;
                }
            },
            Ok(Decision::Ask(ask)) => {
                judged.buf = None;
                let gather = async |limit, by, expects| frames::gather(cx, body, respond, limit, by, expects).await;
                if !Box::pin(authorize::ask_stream(cx, ask, gone, &mut judged.findings, gather)).await {
                    respond.reset(Reset::Cancel);
                    return false;
                }
                if let Some(length) = body.whole() {
                    head.body_is(length);
                }
            }
            decided => {
                judged.decided = decided;
                break;
            }
        }
        judged.decide(cx, head);
    }
    true
}

/// Malformed requests are errors of their stream (RFC 9113 section 8.1.1); others can be told what is wrong.
async fn refuse(cx: &Cx, respond: &Respond, error: RequestError) {
    match error {
        // Nothing that was said can be relied on.
        RequestError::Malformed | RequestError::Host | RequestError::Framing => respond.reset(Reset::Protocol),
        other => {
            let mut bytes = Vec::with_capacity(128);
            encode::error(other.status(), Reply::CLOSE, &cx.core.date(), &mut bytes);
            // If the client is gone, there is nobody to tell.
            let _told = send(respond, &bytes).await;
        }
    }
}

/// Sends an answer that was written as one of HTTP/1.1.
async fn send(respond: &Respond, bytes: &[u8]) -> Result<(), Gone> {
    let body = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let (head, mut body) = bytes.split_at(body);
    respond.head(head, body.is_empty())?;
    while !body.is_empty() {
        let mut buf = Buf::new(Class::Head);
        let (now, later) = body.split_at(body.len().min(buf.room()));
        let fits = buf.push(now);
        debug_assert!(fits, "no more than there is room for");
        body = later;
        respond.data(buf, 0..now.len(), later.is_empty()).await?;
    }
    Ok(())
}

async fn forward(cx: &Cx, streams: &Streams, body: Body, respond: &Respond, gone: &Signal, mut judged: Box<Judged>) {
    let (Ok(Decision::Forward(plan)), Some(buf)) = (&mut judged.decided, judged.buf.take()) else { return };
    let mut stream = H2 {
        upload: H2Body { body, declared: None, timer: Deadline::new(cx.client.fd), given: 0 },
        download: H2Answer { respond, stall: Stall::new(cx.timeouts().body_idle) },
        gone,
    };
    let (outcome, buf) = forward::forward(cx, &mut stream, buf, plan).await;
    drop(buf);
    if stream.download.stall.passed {
        cx.core.metrics.downstream_error(DownstreamError::H2Stalled);
        streams.stall();
    }
    let (status, error) = match outcome {
        Outcome::Whole { .. } => return,
        Outcome::Tunnel { up, from_up, lease } => {
            let held = plan.held();
            drop(judged);
            Box::pin(upgraded(cx, &mut stream, up, from_up, held)).await;
            return drop(lease);
        }
        Outcome::Cut => return respond.reset(Reset::Internal),
        Outcome::Gone => return respond.reset(Reset::Cancel),
        Outcome::Upstream { status } => (status, None),
        Outcome::Body { status, error } => (status, Some(error)),
    };
    if let Some(error) = error {
        cx.core.metrics.downstream_error(error);
        if error == DownstreamError::BodyTimeout {
            streams.stall();
        }
    }
    local::count(cx, &plan.counted, status);
    let bytes = local::stand_in(cx, status, plan.reply, plan);
    if send(respond, &bytes).await.is_err() {
        cx.core.metrics.downstream_error(DownstreamError::Aborted);
    }
}

/// Moves the bytes of another protocol between a stream and an endpoint.
async fn upgraded(cx: &Cx, stream: &mut H2<'_>, up: Upgraded, from_up: Buf, _held: Vec<Held>) {
    let idle = cx.timeouts().stream_idle;
    let respond = stream.download.respond.clone();
    let H2 { upload, download, .. } = stream;
    download.stall = Stall::new(idle);
    let down = (upload, download, move || respond.reset(Reset::Cancel));
    let none = Buf::new(Class::Head);
    match up {
        Upgraded::Stream(mut up) => {
            up.wr.set_stall_timeout(idle);
            tunnel::tunnel(down, Origin::parts(&mut up), none, from_up, idle).await;
        }
        Upgraded::Http2(mut up) => tunnel::tunnel(down, up.parts(), none, from_up, idle).await,
    }
}

/// A request's stream.
struct H2<'g> {
    upload: H2Body,
    download: H2Answer<'g>,
    gone: &'g Signal,
}

struct H2Body {
    body: Body,
    /// Bytes that are still to come, where the head has said how many.
    declared: Option<u64>,
    timer: Deadline,
    /// Bytes given to a tunnel that the client has no credit for yet.
    given: usize,
}

struct H2Answer<'g> {
    respond: &'g Respond,
    /// How long the client may give no credit.
    stall: Stall,
}

impl<'g> Requester for H2<'g> {
    type Upload = H2Body;
    type Download = H2Answer<'g>;

    /// What has come whole leaves with the head, and can be sent again.
    fn first(&mut self, buf: &mut Buf, plan: &mut Plan) -> Result<usize, BodyError> {
        self.upload.declared = plan.length;
        let body = &mut self.upload.body;
        let limit = plan.body_limit.min(buf.room() as u64);
        let whole = body.whole().filter(|length| plan.length == Some(*length as u64) && *length as u64 <= limit);
        let Some(length) = whole.filter(|_| !plan.chunked && !plan.expect_continue && !plan.body.is_done()) else {
            return Ok(plan.head);
        };
        body.read(buf);
        body.release(length);
        plan.body = BodyDecoder::none();
        Ok(plan.head + length)
    }

    fn parts(&mut self) -> Parts<'_, H2Body, H2Answer<'g>> {
        Parts { upload: &mut self.upload, download: &mut self.download, gone: Some(self.gone) }
    }

    /// In place: the task that holds it serves many requests.
    fn held<F: Future>(rest: F) -> impl Future<Output = F::Output> {
        rest
    }
}

impl Source for H2Body {
    const FRAMES: bool = true;

    /// Bytes for a tunnel. What was given before has gone on by now: the client is given credit for it.
    async fn fill(&mut self, buf: Buf, by: Tick, _watch: Watch<'_>) -> (Filled, Buf) {
        self.body.release(std::mem::take(&mut self.given));
        // Whoever waits holds no buffer.
        let class = buf.class();
        drop(buf);
        let Self { body, timer, given, .. } = self;
        let ready = rt::race(poll_fn(|task| body.poll_ready(task)), timer.passed(by)).await;
        timer.disarm();
        let mut buf = Buf::new(class);
        let filled = match ready {
            Ok(Ok(true)) => {
                *given = body.read(&mut buf);
                Filled::Data
            }
            Ok(Ok(false)) => Filled::End,
            Ok(Err(Gone)) => Filled::Broken,
            Err(()) => Filled::Late,
        };
        (filled, buf)
    }

    fn read_now(&mut self, _buf: &mut Buf) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn take_end(&mut self) -> Option<Vec<u8>> {
        None
    }
}

impl Sink for H2Answer<'_> {
    async fn send(&mut self, buf: Buf, piece: Piece, _trailers: &[u8]) -> (io::Result<()>, Buf) {
        pour(self.respond, &mut self.stall, buf, 0..piece.len, &piece.rest, false).await
    }

    async fn finish(&mut self) {
        // Where the stream is over, there is nobody to tell.
        let _told = self.respond.end();
    }
}

impl H2Body {
    /// Waits for bytes and takes what has come with them, except for `spare` bytes of the room.
    async fn gather(&mut self, buf: &mut Buf, spare: usize, by: Tick, call_off: &Signal) -> Gathered {
        let Self { body, timer, .. } = self;
        let mut waits = false;
        let gathered = poll_fn(|task| {
            loop {
                let room = buf.room().saturating_sub(spare);
                if room == 0 {
                    return Poll::Ready(Gathered::Bytes { end: false });
                }
                match body.poll_read(task, buf, room) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0)) => return Poll::Ready(Gathered::Bytes { end: true }),
                    Poll::Ready(Err(Gone)) => return Poll::Ready(Gathered::Fault(ClientFault::Cut)),
                    Poll::Pending if !buf.is_empty() => return Poll::Ready(Gathered::Bytes { end: false }),
                    Poll::Pending => {
                        waits = true;
                        if pin!(call_off.wait()).poll(task).is_ready() {
                            return Poll::Ready(Gathered::CalledOff);
                        }
                        if passed(timer, by, task) {
                            return Poll::Ready(Gathered::Fault(ClientFault::Late));
                        }
                        return Poll::Pending;
                    }
                }
            }
        })
        .await;
        if waits {
            self.timer.disarm();
        }
        gathered
    }

    /// The trailer section, as lines.
    async fn trailers(&mut self) -> Result<Vec<u8>, ClientFault> {
        self.body.trailer_lines().await.map_err(|Gone| ClientFault::Cut)
    }
}

enum Gathered {
    Bytes { end: bool },
    CalledOff,
    Fault(ClientFault),
}

impl Upload for H2Body {
    fn watch(&self) -> Watch<'_> {
        Watch::None
    }

    async fn pull(&mut self, body: &mut RequestBody, buf: Buf, call_off: &Signal) -> (Pulled, Buf) {
        let mut buf = ready_to_read(buf);
        // Behind the last chunk come the trailers.
        let spare = if body.chunked { TRAILER_LIMIT } else { 0 };
        let by = rt::tick_after(body.idle).min(body.by);
        let end = match self.gather(&mut buf, spare, by, call_off).await {
            Gathered::Bytes { end } => end,
            Gathered::CalledOff => return (Pulled::CalledOff, buf),
            Gathered::Fault(fault) => return (Pulled::Fault(fault), buf),
        };
        let payload = buf.len();
        if let Some(left) = &mut self.declared {
            // The codec holds a body to its length; what goes on to a pooled connection is counted all the same.
            match left.checked_sub(payload as u64) {
                Some(now) if now == 0 || !end => *left = now,
                _ => return (Pulled::Fault(ClientFault::BadBody), buf),
            }
        }
        if body.frames && end {
            match self.trailers().await {
                Ok(trailers) => body.trailers = body.decoder.pass(trailers),
                Err(fault) => return (Pulled::Fault(fault), buf),
            }
        }
        if body.chunked {
            let trailers = match end {
                true => self.trailers().await,
                false => Ok(Vec::new()),
            };
            match trailers {
                Ok(trailers) => buf = chunk(buf, end.then_some(&body.decoder.pass(trailers))),
                Err(fault) => return (Pulled::Fault(fault), buf),
            }
        }
        if end {
            body.decoder = BodyDecoder::none();
        }
        let window = buf.mark_end()..buf.mark_end();
        (Pulled::Piece(Piece { len: buf.len(), rest: window, done: end, payload }), buf)
    }

    fn consumed(&mut self, payload: usize) {
        self.body.release(payload);
    }
}

/// The window as a chunk, and behind it the end if there are trailers, even empty ones.
fn chunk(mut buf: Buf, trailers: Option<&Vec<u8>>) -> Buf {
    if !buf.is_empty() {
        let mut header = [0; 18];
        let header = chunk_header(buf.len(), &mut header);
        let (start, end) = (buf.mark(), buf.mark_end());
        let at = start - header.len();
        let block = buf.block_mut();
        block[at..start].copy_from_slice(header);
        block[end..end + CRLF.len()].copy_from_slice(CRLF);
        buf.set_window(at..end + CRLF.len());
    }
    if let Some(trailers) = trailers {
        // `TAIL` bytes are always left, and those that were spared.
        let (start, mut at) = (buf.mark(), buf.mark_end());
        for part in [LAST_CHUNK, trailers, CRLF] {
            buf.block_mut()[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        buf.set_window(start..at);
    }
    buf
}

impl Download for H2Answer<'_> {
    async fn interim(&mut self, mut buf: Buf, head: usize) -> (io::Result<()>, Buf) {
        let lines = &buf.data()[..head];
        let switched = lines.starts_with(b"HTTP/1.1 101");
        let sent = gone(if switched { self.respond.upgraded(lines) } else { self.respond.interim(lines) });
        buf.consume(head);
        (sent, buf)
    }

    async fn piece(&mut self, mut buf: Buf, head: usize, piece: Piece, body: &BodyDecoder) -> (io::Result<()>, Buf) {
        let Piece { rest, done, payload, .. } = piece;
        let trailers = done && !body.trailers().is_empty();
        let end = done && !trailers;
        if head > 0
            && let Err(error) = gone(self.respond.head(&buf.data()[..head], end && payload == 0))
        {
            return (Err(error), buf);
        }
        if payload > 0 {
            let payload = head..head + payload;
            let (sent, left) = pour(self.respond, &mut self.stall, buf, payload, &rest, end).await;
            if sent.is_err() || !trailers {
                return (sent, left);
            }
            buf = left;
        } else {
            if end && head == 0 {
                return (gone(self.respond.end()), buf);
            }
            buf.set_window(rest);
        }
        let sent = if trailers { gone(self.respond.trailers(body.trailers())) } else { Ok(()) };
        (sent, buf)
    }

    async fn end(&mut self, _chunked: bool) -> io::Result<()> {
        gone(self.respond.end())
    }
}
