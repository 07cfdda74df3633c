//! An answer on its way from an endpoint to a client: heads as they come, then pieces of the body.

use ringway_core::grpc::{self, web};
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::encode::{self, Added};
use ringway_core::http1::exchange::{HeadPlan, Repeat, UpstreamFault};
use ringway_core::http1::response::ResponseHead;
use ringway_core::http1::{FieldStorage, response};
use ringway_core::model::RuleExtras;

use super::Cx;
use super::client::Download;
use super::coded::{self, Coded};
use super::decide::Plan;
use super::forward::{Answered, Progress, has_page, is_unwanted, repeat};
use super::grpc_web::Translated;
use super::io::{Filled, Watch};
use super::origin::{Origin, Source};
use super::piece::{self, TooLarge, next_piece};
use super::request_body::ready_to_read;
use crate::buffer::{Buf, Class};
use crate::compress::Encoder;
use crate::relay::{self, BODY_FROM, Passed, Patience};
use crate::rt::{self, Tick};
use crate::sys::{self, PeerState};

/// Reads the answer and passes it on, as [`answer`] does, to a client of gRPC-Web in its terms.
pub(super) async fn translated<O: Origin, D: Download>(
    cx: &Cx,
    up: &mut O::Source,
    down: &mut D,
    watches: (Watch<'_>, Watch<'_>),
    plan: &mut Plan,
    by: Tick,
    progress: &Progress,
) -> Answered {
    let Some(web) = plan.web.filter(|_| O::FRAMES) else {
        return answer(cx, up, down, watches, plan, by, progress).await;
    };
    let mut up = Translated::new(up, web::Answer::new(web.answer));
    let answered = Box::pin(answer(cx, &mut up, down, watches, plan, by, progress)).await;
    plan.grpc_status = plan.grpc_status.or_else(|| up.status());
    answered
}

/// Reads the answer and passes it on. The client is watched by the first until the answer begins, and by the second from
/// there on.
async fn answer<S: Source, D: Download>(
    cx: &Cx,
    up: &mut S,
    down: &mut D,
    (watch, later): (Watch<'_>, Watch<'_>),
    plan: &mut Plan,
    by: Tick,
    progress: &Progress,
) -> Answered {
    let mut buf = Buf::new(Class::Body);
    up.leave_heads();
    // Heads: any number of interim ones (bounded by the exchange), then the final one.
    let (mut body, head, chunked, status) = loop {
        let (filled, back) = up.fill(buf, by, watch).await;
        buf = back;
        match filled {
            Filled::Data => {}
            Filled::End => return Answered::Failed { fault: UpstreamFault::Eof },
            Filled::Broken => return Answered::Failed { fault: UpstreamFault::Reset },
            Filled::Refused => return Answered::Failed { fault: UpstreamFault::Refused },
            Filled::GoneAway => return Answered::Failed { fault: UpstreamFault::GoneAway },
            Filled::Late => return Answered::Failed { fault: UpstreamFault::Timeout },
            Filled::CalledOff => return Answered::ClientGone { status: 0 },
        }
        match heads(cx, plan, up, down, buf, progress).await {
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
            Heads::Coded(coded) => {
                // A call of gRPC is never coded here, so its trailers need no look.
                return Box::pin(coded::answer(cx, up, down, later, by, *coded)).await;
            }
            Heads::Tunnel(buf) => return Answered::Tunnel(buf),
            Heads::Fault(fault) => return Answered::Failed { fault },
            Heads::Unwanted => return Answered::Unwanted,
            Heads::Replaced(status) => return Answered::Replaced(status),
            Heads::ClientGone => return Answered::ClientGone { status: 0 },
        }
    };
    // Many origins send a head and its body in two writes. Measured with nginx as the origin (sendfile, 127 B bodies, 64
    // connections): 1.11 segments to the client per answer instead of 1.35. CPU per request was the same within the noise.
    if buf.len() == head && !body.is_done() && up.read_now(&mut buf).is_err() {
        return Answered::Failed { fault: UpstreamFault::Reset };
    }
    let idle = cx.timeouts().body_idle;
    let mut head = head;
    loop {
        if S::FRAMES
            && let Some(trailers) = up.take_end()
        {
            body.end_of_frames(trailers);
        }
        let piece = match next_piece(&mut buf, head, &mut body, chunked) {
            Ok(piece) => piece,
            Err(_) if head > 0 => return Answered::Failed { fault: UpstreamFault::BadBody },
            Err(_) => return Answered::Broken { fault: UpstreamFault::BadBody, status },
        };
        let new = std::mem::take(&mut head);
        let done = piece.done;
        if piece.len > 0 || done {
            let (written, back) = down.piece(buf, new, piece, &body).await;
            buf = back;
            if written.is_err() {
                return Answered::ClientGone { status };
            }
        } else {
            buf.set_window(piece.rest);
        }
        if done {
            if plan.counts_calls() {
                plan.grpc_status = plan.grpc_status.or_else(|| grpc::status_in_lines(body.trailers()));
            }
            return Answered::Whole { status, clean: buf.is_empty() };
        }
        if let Some(left) = body.remaining().filter(|left| *left >= BODY_FROM && !chunked && buf.is_empty())
            && let Some(down) = down.plain()
            && let Some(up) = up.plain()
        {
            drop(buf);
            let (bytes, passed) = Box::pin(relay::body(up, down, left, Patience { by, idle, call_off: None })).await;
            body.skip(bytes);
            let fault = match passed {
                // Nobody has looked at what may stand behind it.
                Passed::Whole => {
                    let clean = sys::peer_state(up.fd()) == PeerState::Quiet;
                    return Answered::Whole { status, clean };
                }
                // A piece of it, and then it is tried again.
                Passed::Copy => None,
                Passed::CalledOff | Passed::WriteFailed => return Answered::ClientGone { status },
                Passed::Ended => Some(UpstreamFault::Eof),
                Passed::ReadFailed => Some(UpstreamFault::Reset),
                Passed::Late => Some(UpstreamFault::Timeout),
            };
            if let Some(fault) = fault {
                return Answered::Broken { fault, status };
            }
            buf = Buf::new(Class::Body);
        }
        buf = ready_to_read(buf);
        let (filled, back) = up.fill(buf, by.min(rt::tick_after(idle)), later).await;
        buf = back;
        let fault = match filled {
            Filled::Data => continue,
            Filled::End => match body.end_of_stream() {
                Ok(()) => {
                    if down.end(chunked).await.is_err() {
                        return Answered::ClientGone { status };
                    }
                    return Answered::Whole { status, clean: false };
                }
                Err(_) => UpstreamFault::Eof,
            },
            Filled::CalledOff => return Answered::ClientGone { status },
            Filled::Broken | Filled::Refused | Filled::GoneAway => UpstreamFault::Reset,
            Filled::Late if plan.counts_calls() && rt::now() >= plan.by && up.give_up(grpc::LATE) => {
                // The end that was just made.
                let (_filled, back) = up.fill(buf, by, later).await;
                buf = back;
                continue;
            }
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
    /// Its body is given a content coding.
    Coded(Box<Coded>),
    Tunnel(Buf),
    Fault(UpstreamFault),
    /// The request is sent again in place of it.
    Unwanted,
    /// Something else is said in place of an answer with this status.
    Replaced(u16),
    ClientGone,
}

/// Passes interim heads on and prepares the final one.
async fn heads<S: Source, D: Download>(
    cx: &Cx,
    plan: &mut Plan,
    up: &mut S,
    down: &mut D,
    mut buf: Buf,
    progress: &Progress,
) -> Heads {
    loop {
        let (planned, new, body, status, encoder) = {
            let (decoded, mut storage);
            decoded = up.take_head();
            let head = match &decoded {
                Some(fields) => response::decoded(fields, plan.method, &cx.limits()).map(Some),
                None if buf.is_empty() => return Heads::More(buf),
                None => {
                    storage = FieldStorage::new();
                    response::parse_response(buf.data(), &mut storage, plan.method, &cx.limits())
                }
            };
            let head = match head {
                Ok(Some(head)) => head,
                Ok(None) => return Heads::More(buf),
                Err(_) => return Heads::Fault(UpstreamFault::BadHead),
            };
            if progress.sent.get() {
                plan.exchange.request_complete();
            }
            if cx.takes_no_more() {
                plan.exchange.end_downstream();
            }
            if plan.connect && head.status / 100 == 2 {
                // Passed on, it would say that the upgrade has happened.
                return Heads::Fault(UpstreamFault::BadHead);
            }
            if head.status == 100 {
                progress.wanted.raise();
            }
            if plan.extra.is_some() && is_unwanted(plan, head.status) {
                match repeat(plan) {
                    Repeat::Yes => return Heads::Unwanted,
                    Repeat::Overflow => return Heads::Replaced(503),
                    Repeat::No => {}
                }
            }
            if plan.extra.is_some() && head.status >= 400 && has_page(plan, head.status) {
                if let Some(extra) = &mut plan.extra {
                    extra.keep(&head);
                }
                return Heads::Replaced(head.status);
            }
            let Ok(mut planned) = plan.exchange.response_head(&head) else {
                return Heads::Fault(UpstreamFault::BadHead);
            };
            let generation = &plan.counted.generation;
            let mut filters = generation.filters(plan.socket, plan.rule);
            let mut added = Added::default();
            let mut encoder = None;
            if let Some(extra) = &plan.extra {
                let rule = generation.rule(plan.socket, plan.rule);
                let extras = rule.and_then(|rule| rule.extras.as_deref());
                filters = extra.filters(extras, filters);
                let hsts = extras.and_then(|extras| extras.responses.as_ref()?.hsts.as_ref());
                let secures = cx.secure.is_some() && hsts.is_some();
                added = Added { lines: &extra.added, replaced: extra.replaced(), secures, ..added };
                if plan.reply.call.is_none() && matches!(planned, HeadPlan::Final { .. }) {
                    added.varies = extras.is_some_and(|extras| compresses(extras, &head));
                }
                if added.varies
                    && let Some((coding, level)) = extra.coding
                {
                    encoder = cx.core.encoders.take(coding, level);
                    added.coding = encoder.as_ref().map(Encoder::coding);
                    if encoder.is_some() {
                        planned = plan.exchange.recoded(planned);
                    }
                }
            }
            let mut scratch = cx.core.scratch.borrow_mut();
            scratch.clear();
            encode::response(&head, filters, added, &planned, &cx.core.date(), &mut scratch);
            let (old, status) = (head.len, head.status);
            if plan.counts_calls() {
                let said = head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"));
                plan.grpc_status = said.map(|(_, value)| grpc::status(value));
            }
            let body = if S::FRAMES { BodyDecoder::frames(head.body) } else { BodyDecoder::response(head.body) };
            if let Err(TooLarge) = piece::put_head(&mut buf, old, &scratch) {
                return Heads::Fault(UpstreamFault::BadHead);
            }
            (planned, scratch.len(), body, status, encoder)
        };
        match planned {
            HeadPlan::Final { .. } => {
                let chunked = planned.is_chunked();
                return match encoder {
                    None => Heads::Final { buf, head: new, body, chunked, status },
                    Some(encoder) => Heads::Coded(Box::new(Coded { buf, head: new, body, status, chunked, encoder })),
                };
            }
            HeadPlan::Interim { forward: false } => buf.consume(new),
            HeadPlan::Interim { forward: true } | HeadPlan::Tunnel => {
                let (written, back) = down.interim(buf, new).await;
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

/// Whether an answer under a rule may be compressed.
fn compresses(extras: &RuleExtras, head: &ResponseHead<'_>) -> bool {
    let rules = extras.responses.as_deref().and_then(|rules| rules.compression.as_ref());
    rules.is_some_and(|rules| rules.suits(head))
}
