//! What most requests do not have: filters beyond those that rewrite heads. A rule says by one pointer whether it has any
//! of it (`CompiledRule::extras`), and so does a request (`Plan::extra`).

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use ringway_core::access::ClientKey;
use ringway_core::http::coding::{self, Coding};
use ringway_core::http::{Method, Version, cors};
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::request::{Framing, RequestHead};
use ringway_core::http1::response::ResponseHead;
use ringway_core::model::{BackendId, Compression, Filters, Mirror, RateKey, Retry, RuleExtras};

use super::Cx;
use super::aside::{self, COPY_LIMIT};
use super::sessions::Asked;
use crate::metrics::{DownstreamError, UpstreamError};
use crate::worker::{AtLimit, Core, Counting, Generation, Held};

/// What is special about a request that is forwarded.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Its share of the split, where that has filters of its own.
    share: Option<usize>,
    /// Copies of it, which go once it has left.
    pub(super) copying: Option<Box<Copying>>,
    /// Lines that its answer gets.
    pub(super) added: Vec<u8>,
    /// Its answer shares what the endpoint says about that by what the filter says.
    shared: bool,
    /// What it has brought of its session, at rules that have some.
    pub(super) session: Option<Asked>,
    /// How often it has been sent again.
    pub(super) retried: u32,
    /// The content coding that its client likes best of those that its rule has, and at which level.
    pub(super) coding: Option<(Coding, u32)>,
    /// Counts it among those that are under way.
    pub(super) held: Vec<Held>,
}

impl Extra {
    /// Of a request for which `share` was chosen.
    pub(super) fn new(core: &Core, extras: &RuleExtras, share: usize, head: &RequestHead<'_>, added: Vec<u8>) -> Self {
        let own = extras.shares.get(share).and_then(Option::as_ref);
        let cors = own.and_then(|own| own.cors.as_ref()).or(extras.cors.as_ref());
        // Who switches protocols does not send a request that could be copied.
        let mirrors = extras.mirrors.iter().chain(own.iter().flat_map(|own| &own.mirrors));
        let chosen = mirrors.filter(|mirror| head.upgrade.is_none() && is_chosen(mirror, core.random()));
        let backends: Vec<BackendId> = chosen.map(|mirror| mirror.backend).collect();
        Self {
            share: own.is_some().then_some(share),
            copying: (!backends.is_empty()).then(|| Box::new(Copying { backends, ..Copying::default() })),
            added,
            shared: cors.is_some(),
            session: None,
            retried: 0,
            held: Vec::new(),
            coding: extras.responses.as_ref().and_then(|rules| coding(rules.compression.as_ref()?, head)),
        }
    }

    /// The filters of its share, or else `common`.
    pub(super) fn filters<'g>(&self, extras: Option<&'g RuleExtras>, common: &'g Filters) -> &'g Filters {
        let own = self.share.and_then(|share| extras?.shares.get(share)?.as_ref());
        own.map_or(common, |own| &own.filters)
    }

    /// Of an answer in whose place something else is said: what its status is nothing without (RFC 9110 sections
    /// 10.2.1, 10.2.3 and 11.6.1).
    pub(super) fn keep(&mut self, head: &ResponseHead<'_>) {
        let kept = ["www-authenticate", "allow", "retry-after"];
        for (name, value) in head.fields.iter() {
            if let Some(name) = kept.iter().find(|kept| name.eq_ignore_ascii_case(kept.as_bytes())) {
                self.added.extend_from_slice(name.as_bytes());
                self.added.extend_from_slice(b": ");
                self.added.extend_from_slice(value);
                self.added.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Fields of the endpoint's answer that are not passed on.
    pub(super) fn replaced(&self) -> &'static [&'static str] {
        if self.shared { &cors::REPLACED } else { &[] }
    }
}

/// A request that is copied as it leaves.
#[derive(Debug, Default)]
pub(super) struct Copying {
    backends: Vec<BackendId>,
    copy: Copied,
    /// The chunks that have left, for as long as their payload is not known.
    chunks: Vec<u8>,
    too_long: bool,
}

/// A request's copy.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// As it is written in HTTP/1.1.
    pub(super) head: Vec<u8>,
    /// The body.
    pub(super) payload: Vec<u8>,
    /// The head says that the body comes in chunks.
    pub(super) chunked: bool,
}

impl Copying {
    /// This has left, of which `head` bytes are the head.
    pub(super) fn begin(&mut self, bytes: &[u8], head: usize, chunked: bool) {
        self.copy.head.extend_from_slice(&bytes[..head]);
        self.copy.chunked = chunked;
        self.piece(&bytes[head..], false);
    }

    /// More of the body has left.
    pub(super) fn piece(&mut self, bytes: &[u8], in_chunks: bool) {
        let so_far = self.copy.head.len() + self.copy.payload.len() + self.chunks.len();
        if so_far + bytes.len() > COPY_LIMIT {
            self.too_long = true;
            self.copy.payload = Vec::new();
            self.chunks = Vec::new();
        }
        if !self.too_long {
            let place = if in_chunks { &mut self.chunks } else { &mut self.copy.payload };
            place.extend_from_slice(bytes);
        }
    }

    /// All of it has left.
    pub(super) fn send(mut self, cx: &Cx, generation: &Rc<Generation>, method: Method) {
        let mut decoder = BodyDecoder::request(Framing::Chunked);
        let mut rest = &mut self.chunks[..];
        while !rest.is_empty() && !decoder.is_done() {
            let Ok(decoded) = decoder.decode(rest) else { break };
            self.copy.payload.extend_from_slice(&rest[decoded.data]);
            rest = &mut rest[decoded.consumed..];
        }
        if self.too_long {
            for backend in &self.backends {
                generation.metrics.backends[backend.0 as usize].error(UpstreamError::MirrorDropped);
            }
        } else {
            aside::mirror(cx, generation, &self.backends, method, &Rc::new(self.copy));
        }
    }
}

/// What an answer is compressed by, if it may be. In HTTP/1.0 there is no way to send what has no length but to close.
fn coding(rules: &Compression, head: &RequestHead<'_>) -> Option<(Coding, u32)> {
    if head.version == Version::Http10 {
        return None;
    }
    let mut offered = [Coding::Gzip; 3];
    let count = rules.codings.len().min(offered.len());
    for (place, (coding, _)) in offered.iter_mut().zip(&rules.codings) {
        *place = *coding;
    }
    let chosen = coding::choose(head.named("accept-encoding"), &offered[..count])?;
    rules.codings.iter().copied().find(|(coding, _)| *coding == chosen)
}

fn is_chosen(mirror: &Mirror, random: u64) -> bool {
    let (numerator, denominator) = mirror.fraction;
    numerator >= denominator || random % u64::from(denominator) < u64::from(numerator)
}

/// How long to wait before a request is sent again for the `count`th time: twice as long each time, up to ten times what
/// is asked for, and up to half of it longer, so that many do not come back at once.
pub(super) fn backoff(retry: &Retry, count: u32, random: u64) -> std::time::Duration {
    let base = retry.backoff;
    let wait = base.saturating_mul(1 << count.saturating_sub(1).min(4)).min(base.saturating_mul(10));
    let half = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
    wait + std::time::Duration::from_micros(if half == 0 { 0 } else { random % half })
}

/// Judges a request by its rule's limits: after how many seconds another would pass, if this one may not.
pub(super) fn over_limit(
    worker: usize,
    generation: &Generation,
    limits: &[usize],
    head: &RequestHead<'_>,
    client: IpAddr,
    at: Instant,
) -> Option<u64> {
    let mut wait = None;
    for index in limits {
        let table = &generation.shared.rates[*index];
        if table.limit.exempt.get(client) == Some(true) {
            continue;
        }
        let judged = with_key(&table.limit.key, head, client, |key| table.judge(worker, key, at));
        if let Some(Err(nanos)) = judged {
            wait = wait.max(Some(nanos.div_ceil(1_000_000_000)));
        }
    }
    wait
}

/// Counts a request among those that are under way, by its rule's limits. Nothing is counted of one that is over a limit.
pub(super) fn hold(
    core: &Core,
    generation: &Generation,
    limits: &[usize],
    head: &RequestHead<'_>,
    client: IpAddr,
) -> Result<Vec<Held>, AtLimit> {
    let mut all = Vec::with_capacity(limits.len());
    for index in limits {
        let limit = &generation.shared.concurrency[*index].limit;
        if limit.exempt.get(client) == Some(true) {
            continue;
        }
        match with_key(&limit.key, head, client, |key| generation.hold_request(*index, key)).transpose()? {
            None | Some(Counting::Unlimited) => {}
            Some(Counting::Counted(held)) => all.push(held),
            Some(Counting::Full) => core.metrics.downstream_error(DownstreamError::LimitFull),
        }
    }
    Ok(all)
}

/// Does something with what a limit counts a request by, if it counts it.
fn with_key<T>(key: &RateKey, head: &RequestHead<'_>, client: IpAddr, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
    match key {
        RateKey::Route => Some(then(b"")),
        RateKey::ClientIp => Some(then(ClientKey::of(client).as_bytes())),
        RateKey::Header(name) => {
            let is_it = |field: &&[u8]| field.eq_ignore_ascii_case(name.as_bytes());
            head.fields().find(|(field, _)| is_it(field)).map(|(_, value)| then(value))
        }
    }
}

/// Puts lines at the end of the head that stands at the front of an answer.
pub(super) fn add_lines(answer: &mut Vec<u8>, lines: &[u8]) {
    if let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n").filter(|_| !lines.is_empty()) {
        answer.splice(end + 2..end + 2, lines.iter().copied());
    }
}
