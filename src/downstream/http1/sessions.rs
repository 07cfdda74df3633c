//! Requests that go where their client went before, and answers that tell a client where it has been.

use ringway_core::http1::request::RequestHead;
use ringway_core::model::{Session, Target, WeightedTarget};
use ringway_core::session::{self, Found, Token};

use super::Cx;
use super::decide::Plan;
use crate::metrics::SessionResult;
use crate::upstream::Lease;
use crate::worker::{Core, Generation};

/// What a request of a rule with sessions has brought.
#[derive(Debug)]
pub(super) struct Asked {
    /// A token that is good.
    token: Option<Token>,
    /// Its client is to be given another one in any case.
    anew: bool,
    /// Its endpoint, by its place in the backend.
    pub(super) endpoint: Option<u32>,
    /// What it is counted as, unless it stays where it was; `None`: it has been counted.
    result: Option<SessionResult>,
    /// Bytes of the answer's lines that are not of the session.
    lines: usize,
}

impl Asked {
    /// The request goes to the share of the split where its endpoint is, or to another one.
    pub(super) fn at(self, is_there: bool) -> Self {
        Self { endpoint: self.endpoint.filter(|_| is_there), ..self }
    }

    /// Its line comes behind these bytes of the answer's.
    pub(super) fn behind(self, lines: usize) -> Self {
        Self { lines, ..self }
    }
}

/// Looks where a request has been before. With it, the share of the split that this is: sessions win over weights.
pub(super) fn ask(
    core: &Core,
    generation: &Generation,
    session: &Session,
    split: &[WeightedTarget],
    head: &RequestHead<'_>,
) -> (Asked, Option<usize>) {
    let keys = core.session_keys.borrow();
    let (token, anew, result) = match session::find(session, head, keys.all(), core.seconds()) {
        Found::Nothing => (None, false, SessionResult::Begun),
        Found::Over => (None, false, SessionResult::Expired),
        Found::Foreign => (None, false, SessionResult::Rejected),
        Found::Good { token, anew } => (Some(token), anew, SessionResult::Moved),
    };
    let mut asked = Asked { token, anew, endpoint: None, result: Some(result), lines: 0 };
    let Some(token) = token else { return (asked, None) };
    for (share, target) in split.iter().enumerate() {
        let Target::Backend(id) = target.target else { continue };
        if let Some(index) = generation.backend(id).named(token.endpoint) {
            asked.endpoint = u32::try_from(index).ok();
            return (asked, Some(share));
        }
    }
    (asked, None)
}

/// There is a connection to an endpoint: its answer gets a token for it, unless the client has it already.
pub(super) fn connected(cx: &Cx, plan: &mut Plan, lease: &Lease) {
    let Some(extra) = &mut plan.extra else { return };
    let Some(asked) = &mut extra.session else { return };
    let generation = &plan.counted.generation;
    let rule = generation.rule(plan.socket, plan.rule);
    let Some(session) = rule.and_then(|rule| rule.extras.as_ref()?.session.as_deref()) else { return };
    extra.added.truncate(asked.lines);
    let now = cx.core.seconds();
    let known = asked.token.filter(|token| token.endpoint == lease.identity);
    if let Some(result) = asked.result.take() {
        let result = if known.is_some() { SessionResult::Kept } else { result };
        generation.metrics.routes[plan.counted.route.0 as usize].sessions[result as usize].inc();
    }
    let token = match known {
        Some(_) if !asked.anew => return,
        Some(token) => token.seen(now),
        None => Token::new(lease.identity, now),
    };
    let keys = cx.core.session_keys.borrow();
    if let Some(key) = keys.first() {
        session::give(session, &token, key, now, &mut extra.added);
    }
}

/// No endpoint has answered: what is said instead gives no token for one.
pub(super) fn unanswered(plan: &mut Plan) {
    if let Some(extra) = &mut plan.extra
        && let Some(asked) = &extra.session
    {
        extra.added.truncate(asked.lines);
    }
}
