//! Answers that are made here, and the counting of all.

use std::io;

use ringway_core::http::Date;
use ringway_core::http1::body::{BodyDecoder, CRLF, LAST_CHUNK};
use ringway_core::http1::encode::{self, Reply};
use ringway_core::model::{DirectResponse, HeaderModifier};
use rustix::net::Shutdown;

use super::decide::{Answer, Counted, Plan};
use super::io::{Filled, Watch, fill};
use super::{After, Cx, extra};
use crate::buffer::{Buf, Class};
use crate::metrics::DownstreamError;
use crate::rt::{self, Stream, Writer};

/// Bodies up to this length are read past to keep a connection that was answered here.
const DISCARD_LIMIT: usize = 256 << 10;

/// Counts a finished request: its route's class and latency. 0 is for no answer.
pub(super) fn count(cx: &Cx, counted: &Counted, status: u16) {
    let class = usize::from(status / 100).min(5);
    counted.generation.metrics.routes[counted.route.0 as usize].by_class[class].inc();
    // After a reload the histograms are under the new generation's ids; the last request of an old one is not placed.
    if std::ptr::eq(&*counted.generation, &*cx.core.generation()) {
        let micros = u64::try_from(counted.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        cx.core.latencies.borrow_mut().record(counted.route, micros);
    }
}

/// Counts a finished call of gRPC; `status` is the answer's where it has none of gRPC's.
pub(super) fn count_call(plan: &Plan, status: u8) {
    if plan.counts_calls() {
        let routes = &plan.counted.generation.metrics.routes;
        routes[plan.counted.route.0 as usize].grpc[usize::from(plan.grpc_status.unwrap_or(status))].inc();
    }
}

/// Sends bytes of our own, whatever their number.
async fn send(to: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut buf = Buf::new(if rest.len() <= Class::Head.capacity() { Class::Head } else { Class::Body });
        let (now, later) = rest.split_at(rest.len().min(buf.room()));
        let fits = buf.push(now);
        debug_assert!(fits, "no more than there is room for");
        let (sent, _buf) = to.write_all(buf, now.len()).await;
        sent?;
        rest = later;
    }
    Ok(())
}

/// Sends an answer that was decided about, and reads past the request's body if the connection is to be kept.
pub(super) async fn answer(cx: &Cx, stream: &mut Stream, mut buf: Buf, answer: Answer) -> (After, Buf) {
    let Answer { bytes, status, counted, mut body, close, held: _held } = answer;
    let sent = send(&mut stream.wr, &bytes).await;
    if let Some(counted) = &counted {
        count(cx, counted, status);
    }
    if sent.is_err() {
        cx.core.metrics.downstream_error(DownstreamError::Aborted);
        return (After::Close, buf);
    }
    if close {
        return (After::Linger, buf);
    }
    let kept = discard(cx, stream, &mut buf, &mut body).await;
    (if kept { After::KeepAlive } else { After::Linger }, buf)
}

/// Reads past a body; false when it is too long, malformed, cut or late.
async fn discard(cx: &Cx, stream: &mut Stream, buf: &mut Buf, body: &mut BodyDecoder) -> bool {
    let mut read = 0;
    while !body.is_done() {
        let Ok(decoded) = body.decode(buf.data_mut()) else {
            cx.core.metrics.downstream_error(DownstreamError::BadChunk);
            return false;
        };
        buf.consume(decoded.consumed);
        read += decoded.consumed;
        if decoded.done {
            break;
        }
        if read > DISCARD_LIMIT {
            return false;
        }
        buf.compact();
        let taken = std::mem::replace(buf, Buf::new(Class::Head));
        let by = rt::tick_after(cx.timeouts().body_idle);
        let (filled, back) = fill(&mut stream.rd, taken, by, Shutdown::Read, Watch::None).await;
        *buf = back;
        if filled != Filled::Data {
            cx.core.metrics.downstream_error(DownstreamError::BodyCut);
            return false;
        }
    }
    true
}

/// Answers in place of an endpoint that did not.
pub(super) async fn upstream_fault(cx: &Cx, down: &mut Stream, buf: Buf, status: u16, plan: &Plan) -> (After, Buf) {
    count(cx, &plan.counted, status);
    // A body that is still on its way is in no state to be read past.
    let whole = plan.body.is_done();
    let reply =
        Reply { close: plan.reply.close || !whole, keep_alive_10: plan.reply.keep_alive_10 && whole, ..plan.reply };
    let bytes = stand_in(cx, status, reply, plan);
    if send(&mut down.wr, &bytes).await.is_err() {
        return (After::Close, buf);
    }
    (if reply.close { After::Linger } else { After::KeepAlive }, buf)
}

/// Tells a client what is wrong with the body it sends.
pub(super) async fn client_fault(
    cx: &Cx,
    down: &mut Stream,
    buf: Buf,
    status: u16,
    reason: DownstreamError,
    plan: &Plan,
) -> (After, Buf) {
    cx.core.metrics.downstream_error(reason);
    count(cx, &plan.counted, status);
    let bytes = stand_in(cx, status, Reply { close: true, keep_alive_10: false, ..plan.reply }, plan);
    let sent = send(&mut down.wr, &bytes).await;
    (if sent.is_ok() { After::Linger } else { After::Close }, buf)
}

/// What is said in place of an endpoint's answer: an error of ours, or what a ResponsePolicy has for it.
pub(super) fn stand_in(cx: &Cx, status: u16, reply: Reply, plan: &Plan) -> Vec<u8> {
    let reply = Reply { late: reply.call.is_some() && status == 504 && rt::now() >= plan.by, ..reply };
    count_call(plan, reply.grpc_status(status));
    let Some(extra) = &plan.extra else { return error(cx, status, reply) };
    let rule = plan.counted.generation.rule(plan.socket, plan.rule);
    let rules = rule.and_then(|rule| rule.extras.as_ref()?.responses.as_deref());
    let mut bytes = match rules.filter(|_| reply.call.is_none()).and_then(|rules| rules.page(status)) {
        Some(found) => {
            let mut bytes = Vec::with_capacity(256 + found.body.len());
            let status = if found.status == 0 { status } else { found.status };
            page(found, status, reply, &cx.core.date(), &mut bytes);
            bytes
        }
        None => error(cx, status, reply),
    };
    extra::add_lines(&mut bytes, &extra.added);
    bytes
}

/// What a ResponsePolicy has in place of another answer.
pub(super) fn page(found: &DirectResponse, status: u16, reply: Reply, now: &Date, out: &mut Vec<u8>) {
    encode::content(status, &found.content_type, &found.body, &HeaderModifier::default(), reply, now, out);
}

fn error(cx: &Cx, status: u16, reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    encode::error(status, reply, &cx.core.date(), &mut bytes);
    bytes
}

/// Ends a body that leaves in chunks and was delimited by the end of the connection it came on.
pub(super) async fn last_chunk(down: &mut Writer) -> io::Result<()> {
    send(down, &[LAST_CHUNK, CRLF].concat()).await
}
