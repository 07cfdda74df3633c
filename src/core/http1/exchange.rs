//! One exchange: a request, its answer, and what may be done at each point of it.
//!
//! No bytes pass through here. The shell reports what happened and asks what follows: which framing the answer gets,
//! whether a failed attempt may be repeated, what becomes of the two connections. Everything that keeps an answer from
//! being mixed up, cut silently or sent twice is decided in this file.
//!
//! ```text
//!   new ── response_head(1xx)* ── response_head(final) ── response_complete ── finish
//!    └─ upstream_failed: Retry (back to new) | Answer (a local one) | CutDownstream (the head has gone out)
//! ```

use super::request::{Framing as RequestFraming, RequestHead};
use super::response::{Framing, ResponseHead};
use crate::http::{Method, Version};

/// Interim responses passed on or swallowed per exchange.
const MAX_INTERIM: u8 = 16;

/// The answer broke a rule; what came is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFault;

/// What is done with a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPlan {
    /// A 1xx response.
    Interim {
        /// Whether the client gets it.
        forward: bool,
    },
    /// The answer.
    Final {
        /// How its body is delimited towards the client.
        framing: Framing,
        /// The client's connection ends with it.
        close: bool,
        /// The client speaks HTTP/1.0 and has to be told that its connection stays.
        keep_alive_10: bool,
    },
    /// 101: both connections carry something else from here on.
    Tunnel,
}

impl HeadPlan {
    /// Whether the answer's body leaves in chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Self::Final { framing: Framing::Chunked, .. })
    }
}

/// What went wrong with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamFault {
    /// Refused, unreachable, or reset while connecting.
    ConnectRefused,
    /// Not connected in time.
    ConnectTimeout,
    /// The TLS handshake failed, or the endpoint is not who it should be.
    Tls,
    /// This side has no descriptor, port or memory for a connection.
    NoResources,
    /// Reset before or in the answer.
    Reset,
    /// Ended before or in the answer.
    Eof,
    /// The answer did not come or go on in time.
    Timeout,
    /// The answer's head is malformed or ambiguous.
    BadHead,
    /// The answer's body is malformed.
    BadBody,
    /// The request could not be written.
    WriteFailed,
    /// The endpoint says that it has not looked at the request (RFC 9113 section 8.7).
    Refused,
    /// It says so of all that its connection carries, which takes no more.
    GoneAway,
}

/// What is done about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePlan {
    /// The request is sent again: elsewhere, or on a fresh connection.
    Retry,
    /// The client gets this status.
    Answer {
        /// 502, 503 or 504.
        status: u16,
    },
    /// The answer has begun: the client's connection is cut, so that it sees that something is missing.
    CutDownstream,
}

/// Whether a request is sent again because its route wants that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It is.
    Yes,
    /// It cannot be, or has been often enough.
    No,
    /// The backend's retry budget is spent: the client gets 503 (GEP-3388).
    Overflow,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is at a message boundary and may carry another exchange.
    Reuse,
    /// It is closed.
    Close,
}

/// What becomes of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// The client's.
    pub downstream: After,
    /// The endpoint's.
    pub upstream: After,
}

/// The state of one exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    method: Method,
    version: Version,
    wants_upgrade: bool,
    has_body: bool,
    close_downstream: bool,
    close_upstream: bool,
    body_gone: bool,
    request_complete: bool,
    interim: u8,
    response: Response,
    attempts_failed: bool,
    /// How often the route wants a failed request sent again.
    retries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Awaited,
    /// The final head has been planned.
    Begun,
    Complete,
    Tunnel,
}

impl Exchange {
    /// For a request; `close`: the client's connection ends after it in any case.
    pub fn new(request: &RequestHead<'_>, close: bool) -> Self {
        Self {
            method: request.method,
            version: request.version,
            wants_upgrade: request.upgrade.is_some(),
            has_body: !matches!(request.body, RequestFraming::None | RequestFraming::Length(0)),
            close_downstream: close || !request.keep_alive,
            close_upstream: false,
            body_gone: false,
            request_complete: false,
            interim: 0,
            response: Response::Awaited,
            attempts_failed: false,
            retries: 0,
        }
    }

    /// The route wants a failed request sent again up to this often, whatever its method (HTTPRouteRetry.attempts).
    pub fn allow_retries(&mut self, retries: u32) {
        self.retries = retries;
    }

    /// An attempt has failed for which nothing else is left, or was answered by a status that counts as failed: whether
    /// the request is sent again because the route wants it. Not if it cannot be, or if something of an answer has been
    /// passed on.
    ///
    /// `affordable` is asked where nothing else is in the way of that.
    pub fn retry(&mut self, affordable: impl FnOnce() -> bool) -> Repeat {
        let wanted = self.retries > 0 && self.response == Response::Awaited && !self.body_gone && self.interim == 0;
        if !wanted {
            return Repeat::No;
        }
        if !affordable() {
            return Repeat::Overflow;
        }
        self.retries -= 1;
        self.attempts_failed = true;
        self.request_complete = false;
        Repeat::Yes
    }

    /// Body bytes have left for good: they could not be sent a second time.
    pub fn request_body_consumed(&mut self) {
        self.body_gone = true;
    }

    /// The whole request has been sent.
    pub fn request_complete(&mut self) {
        self.request_complete = true;
    }

    /// The client's connection ends after this exchange, whatever its messages say.
    pub fn end_downstream(&mut self) {
        self.close_downstream = true;
    }

    /// A response head has come.
    pub fn response_head(&mut self, head: &ResponseHead<'_>) -> Result<HeadPlan, ResponseFault> {
        if self.response != Response::Awaited {
            return Err(ResponseFault);
        }
        match head.status {
            101 if self.wants_upgrade => {
                self.response = Response::Tunnel;
                return Ok(HeadPlan::Tunnel);
            }
            // A switch of protocols that nobody asked for: what follows cannot be understood.
            101 => return Err(ResponseFault),
            100..=199 => {
                self.interim = self.interim.saturating_add(1);
                if self.interim > MAX_INTERIM {
                    return Err(ResponseFault);
                }
                return Ok(HeadPlan::Interim { forward: self.version != Version::Http10 });
            }
            _ => {}
        }
        self.response = Response::Begun;
        self.close_upstream |= !head.keep_alive || head.body == Framing::UntilClose;
        let framing = match (head.body, self.version) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
            // In HTTP/2 frames say where it ends, and no field does.
            (Framing::Chunked | Framing::UntilClose, Version::Http10 | Version::Http2) => Framing::UntilClose,
            (framing, _) => framing,
        };
        // A body that is still coming when the answer begins may never come whole. A stream of HTTP/2 ends by itself.
        self.close_downstream = self.version != Version::Http2
            && (self.close_downstream || framing == Framing::UntilClose || (self.has_body && !self.request_complete));
        Ok(HeadPlan::Final {
            framing,
            close: self.close_downstream,
            keep_alive_10: self.version == Version::Http10 && !self.close_downstream,
        })
    }

    /// The plan for an answer whose length is another on its way, and not known before its end.
    #[must_use]
    pub fn recoded(&self, plan: HeadPlan) -> HeadPlan {
        match plan {
            HeadPlan::Final { close, keep_alive_10, .. } if self.version != Version::Http10 => {
                let framing = if self.version == Version::Http2 { Framing::UntilClose } else { Framing::Chunked };
                HeadPlan::Final { framing, close, keep_alive_10 }
            }
            other => other,
        }
    }

    /// The answer's last byte has been sent on.
    pub fn response_complete(&mut self) {
        self.response = Response::Complete;
    }

    /// An attempt has failed. `reused`: on a connection that had carried an exchange before; `more`: there is something
    /// left to try.
    pub fn upstream_failed(&mut self, fault: UpstreamFault, reused: bool, more: bool) -> FailurePlan {
        use UpstreamFault as F;
        if self.response != Response::Awaited {
            return FailurePlan::CutDownstream;
        }
        let untouched = !self.body_gone && self.interim == 0;
        let retry = match fault {
            // Nothing has been sent.
            F::ConnectRefused | F::ConnectTimeout | F::Tls => more,
            F::NoResources => false,
            // A kept connection that the endpoint was closing: it has not looked at the request, unless it is one that
            // must not be repeated in case it has (RFC 9110 section 9.2.2).
            F::Reset | F::Eof | F::WriteFailed => reused && more && untouched && self.method.is_idempotent(),
            // It may be sent again, whatever it is.
            F::Refused | F::GoneAway => more && untouched,
            F::Timeout | F::BadHead | F::BadBody => false,
        };
        if retry {
            self.attempts_failed = true;
            self.request_complete = false;
            return FailurePlan::Retry;
        }
        let status = match fault {
            F::ConnectTimeout | F::Timeout => 504,
            F::NoResources => 503,
            F::ConnectRefused if self.attempts_failed => 503,
            _ => 502,
        };
        FailurePlan::Answer { status }
    }

    /// What becomes of the connections, after [`Exchange::response_complete`].
    pub fn finish(&self) -> Finish {
        let whole = self.response == Response::Complete && (self.request_complete || !self.has_body);
        let after = |close: bool| if whole && !close { After::Reuse } else { After::Close };
        Finish { downstream: after(self.close_downstream), upstream: after(self.close_upstream) }
    }
}
