//! A connection of HTTP/2, of either role, without its socket.
//!
//! Its methods are of four kinds, as far as they matter to whoever drives it:
//!
//! * [`Connection::receive`] takes what has come, and [`Connection::closed`] that nothing more will.
//! * [`Connection::next_event`] says what has happened: a request, or something about a stream, which is then looked at.
//! * Streams are read ([`Connection::take_request`], [`Connection::incoming`], [`Connection::consume`]), and given credit
//!   for what has gone on ([`Connection::release`]). A stream's window is what it may have waiting here.
//! * Streams are written. Frames go into an [`Outbound`], the caller's block, as long as that has room. Heads, which
//!   are encoded at that moment, and control frames go to a backlog where it has not, and data has to wait: it is
//!   parked, one piece for each stream, and [`Connection::pump`] writes it in turns, a frame each, when there is room and
//!   credit.
//!
//! While its peer does not read the answers to what it sends (PING, SETTINGS, resets), nothing more of it is received.

use std::collections::VecDeque;
use std::ops::Range;

use super::flood::{Flood, Guard};
use super::frame::{self, Code, DEFAULT_WINDOW, HEADER};
use super::hpack::{Decoder, Encoder};
use super::section::Fields;
use super::settings::{self, Limits, Peer, Role};
use super::stream::{Key, Queue, Reset, Spares, Streams};
use super::window::{ReceiveWindow, SendWindow};

/// Where frames are written: a block of the caller's.
pub trait Outbound {
    /// Bytes that fit.
    fn room(&self) -> usize;
    /// Appends bytes, no more than fit.
    fn put(&mut self, bytes: &[u8]);
}

/// The stream or its connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides are done.
    Done,
    /// This side has ended it.
    Aborted(Code),
    /// The peer has broken the protocol.
    Protocol(Code),
    /// The peer has cost too much.
    Flood(Flood),
    /// The peer has closed it; `true`: with streams open.
    Closed(bool),
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request has come; [`Connection::take_request`] has it.
    Request(Key),
    /// Something has come on a stream, it has ended, or what was parked has been written.
    Stream(Key),
}

/// What breaks a connection.
pub(super) type Fault = End;

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::Protocol(code)
    }
}

impl From<Flood> for Fault {
    fn from(flood: Flood) -> Self {
        Self::Flood(flood)
    }
}

/// Too much of what has no name of its own.
pub(super) const CALM: Fault = End::Protocol(Code::ENHANCE_YOUR_CALM);

/// Where a graceful end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    No,
    /// The peer has been told, and asked whether it has heard it.
    Told,
    /// It has, and knows the last stream: others are not looked at.
    Last(u32),
}

/// What a PING says that asks whether a GOAWAY has been heard.
pub(super) const HEARD: [u8; 8] = *b"goodbye?";

/// What a PING says that asks whether anybody is there.
pub(super) const THERE: [u8; 8] = *b"anybody?";

/// Bytes of answers to what the peer sends that may wait before nothing more of it is received.
pub(super) const REPLIES: usize = 16 << 10;

/// Bytes of answers' heads that may wait before nothing more of a client is received: an answer without a body ends its
/// stream, so that the limit of streams does not hold them.
pub(super) const BACKLOG: usize = 256 << 10;

/// What is known of a field block before its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) stream: u32,
    /// Nothing comes behind it.
    pub(super) end: bool,
    /// It says that its stream depends on itself.
    pub(super) on_itself: bool,
}

/// A field block of which more comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Continuing {
    pub(super) opening: Opening,
    pub(super) frames: u32,
}

/// A DATA frame of which more comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// Where it goes; nowhere, where nobody wants it.
    pub(super) key: Option<Key>,
    /// Bytes of it that are still to come, without padding as soon as that is known.
    pub(super) payload: usize,
    pub(super) padding: usize,
    /// How long the padding is, comes first.
    pub(super) padded: bool,
    /// It is the last.
    pub(super) end: bool,
    /// Its length without padding.
    pub(super) length: usize,
}

/// A connection. `B` is what is parked, and `W` what the caller keeps with a stream.
#[derive(Debug)]
pub struct Connection<B, W> {
    pub(super) role: Role,
    pub(super) limits: Limits,
    pub(super) streams: Streams<B, W>,
    pub(super) events: VecDeque<Event>,
    pub(super) end: Option<End>,
    // What comes.
    pub(super) decoder: Decoder,
    /// Bytes of the preface that have come.
    pub(super) preface: usize,
    /// The peer's first SETTINGS have come.
    pub(super) settled: bool,
    /// A frame that has not come whole.
    pub(super) partial: Vec<u8>,
    pub(super) arriving: Option<Arriving>,
    pub(super) block: Vec<u8>,
    pub(super) continuing: Option<Continuing>,
    pub(super) receive_window: ReceiveWindow,
    /// The highest stream of the peer's.
    pub(super) highest: u32,
    /// Identifiers below it that were passed over, the last of them.
    pub(super) skipped: Range<u32>,
    pub(super) guard: Guard,
    pub(super) dribs: u32,
    pub(super) pong: bool,
    // What goes.
    pub(super) encoder: Encoder,
    pub(super) peer: Peer,
    pub(super) send_window: SendWindow,
    pub(super) encoded: Vec<u8>,
    pub(super) backlog: Queue,
    /// Bytes of it that answer the peer.
    pub(super) replies: usize,
    /// Streams with something parked that have a window.
    pub(super) line: VecDeque<Key>,
    /// The next stream of this side's.
    pub(super) next: u32,
    pub(super) going: Going,
    /// The last stream that the peer looks at.
    pub(super) last: Option<u32>,
    /// Nobody wants more of it.
    pub(super) leaving: bool,
}

/// What the tables of HPACK may hold, in bytes (section 6.5.2 of RFC 9113).
const TABLE: usize = 4096;

impl<B: AsRef<[u8]>, W: Default> Connection<B, W> {
    /// A connection on which nothing has been sent.
    pub fn new(role: Role, limits: Limits, out: &mut impl Outbound) -> Self {
        let mut connection = Self {
            role,
            limits,
            streams: Streams::new(),
            events: VecDeque::new(),
            end: None,
            decoder: Decoder::new(TABLE),
            preface: if role == Role::Server { 0 } else { frame::PREFACE.len() },
            settled: false,
            partial: Vec::new(),
            arriving: None,
            block: Vec::new(),
            continuing: None,
            receive_window: ReceiveWindow::new(limits.window.max(DEFAULT_WINDOW)),
            highest: 0,
            skipped: 0..0,
            guard: Guard::new(limits.provoked_resets),
            dribs: 0,
            pong: false,
            encoder: Encoder::new(),
            peer: Peer::default(),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            encoded: Vec::new(),
            backlog: Queue::default(),
            replies: 0,
            line: VecDeque::new(),
            next: 1,
            going: Going::No,
            last: None,
            leaving: false,
        };
        let mut first = Vec::with_capacity(128);
        if role == Role::Client {
            first.extend_from_slice(frame::PREFACE);
        }
        settings::write(role, &limits, &mut first);
        connection.put(&first, out);
        let more = limits.window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            connection.control(frame::WINDOW_UPDATE, 0, 0, more.to_be_bytes(), out);
        }
        connection
    }

    /// What has happened, the oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Stream(key)) = event
            && let Some(stream) = self.streams.get_mut(key)
        {
            stream.told = false;
        }
        event
    }

    /// How it has ended, if it has. What there is to be written then says so to the peer.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether nothing waits for room but data.
    pub fn is_flushed(&self) -> bool {
        self.backlog.data().is_empty()
    }

    /// Whether there is something for whoever drives it: events, frames that wait, or its end.
    pub fn is_restless(&self) -> bool {
        !self.events.is_empty() || !self.is_flushed() || !self.line.is_empty() || self.end.is_some()
    }

    /// Whether nothing is received before there is more room.
    pub fn is_stuffed(&self) -> bool {
        self.replies > REPLIES || (self.role == Role::Server && self.backlog.data().len() > BACKLOG)
    }

    /// Whether the peer has sent its preface.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Streams that are not closed.
    pub fn open_streams(&self) -> u32 {
        self.streams.open()
    }

    /// Streams at a time that the peer takes, once it has said so.
    pub fn peer_streams(&self) -> Option<u32> {
        self.peer.streams
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 section 3).
    pub fn takes_connect(&self) -> bool {
        self.peer.connect
    }

    /// Whether no request can be sent any more.
    pub fn takes_no_more(&self) -> bool {
        self.end.is_some() || self.last.is_some() || self.leaving || self.next > frame::MAX_WINDOW
    }

    /// Whether the peer has answered a [`Connection::ping`] since this was asked last.
    pub fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.pong)
    }

    /// Nothing has come for a while: memory that only the next burst would need is given up.
    pub fn rest(&mut self) {
        self.streams.rest();
    }

    /// What the caller keeps with a stream that has not been released.
    pub fn attached(&mut self, key: Key) -> Option<&mut W> {
        Some(&mut self.streams.get_mut(key)?.attached)
    }

    /// A request's head, and whether nothing comes behind it; the caller holds the stream then. `None` where it has been
    /// taken back already.
    pub fn take_request(&mut self, key: Key, spares: &mut Spares) -> Option<(Box<Fields>, bool)> {
        let stream = self.streams.get_mut(key)?;
        let fields = stream.fields.take()?;
        if stream.reset.is_some() {
            spares.put_fields(fields);
            self.dribs -= stream.dribs;
            self.streams.remove(key.slot, spares);
            return None;
        }
        stream.handles = 1;
        let nothing = stream.remote_ended && stream.data.data().is_empty();
        Some((fields, nothing && stream.trailers.is_empty()))
    }

    /// One more holds a stream.
    pub fn hold(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.handles += 1;
        }
    }

    /// One less does. What nobody holds is reset, unless it has ended, and forgotten; what was kept with it is given back.
    pub fn let_go(&mut self, key: Key, spares: &mut Spares, out: &mut impl Outbound) -> Option<W> {
        let stream = self.streams.get_mut(key)?;
        stream.handles -= 1;
        if stream.handles > 0 {
            return None;
        }
        // The answer is whole: the rest of the request is of no interest (section 8.1).
        let answered = self.role == Role::Server && stream.local_ended;
        self.reset(key, if answered { Code::NO_ERROR } else { Code::CANCEL }, out);
        let gone = match self.streams.get_mut(key) {
            Some(stream) => (stream.give_up(), std::mem::take(&mut stream.dribs)),
            None => (0, 0),
        };
        self.credit(gone.0, out);
        self.dribs -= gone.1;
        let attached = self.streams.remove(key.slot, spares);
        self.settle();
        attached
    }

    /// Resets a stream, unless it is over.
    pub fn reset(&mut self, key: Key, code: Code, out: &mut impl Outbound) {
        if self.streams.get_mut(key).is_none_or(|stream| stream.is_closed()) {
            return;
        }
        // What is wrong with a request is its peer's doing, whoever finds it.
        if code == Code::PROTOCOL_ERROR
            && let Err(flood) = self.guard.take(Flood::Provoked, 1)
        {
            return self.fail(End::Flood(flood), out);
        }
        self.control(frame::RST_STREAM, 0, key.id, code.0.to_be_bytes(), out);
        self.give_up(key, Reset::Local(code), out);
    }

    /// Counts what comes on a stream that is over, of which the peer need not have known.
    pub(super) fn late(&mut self, cost: u32) -> Result<(), Fault> {
        // An endpoint has nothing to say but on streams that it was asked on.
        if self.role == Role::Server {
            self.guard.take(Flood::Late, cost)?;
        }
        Ok(())
    }

    /// Nothing more comes or goes on a stream. What has come before its peer has reset it can be read.
    pub(super) fn give_up(&mut self, key: Key, reset: Reset, out: &mut impl Outbound) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.reset = Some(reset);
        stream.parked = None;
        let mut dribs = 0;
        if matches!(reset, Reset::Local(_)) {
            stream.data.clear();
            stream.trailers = Vec::new();
            dribs = std::mem::take(&mut stream.dribs);
        }
        let unreleased = stream.give_up();
        self.dribs -= dribs;
        self.credit(unreleased, out);
        self.streams.uncount(key.slot);
        self.tell(key);
        self.settle();
    }

    /// Lets whoever looks after a stream know that something has happened.
    pub(super) fn tell(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.fields.is_none()
            && !std::mem::replace(&mut stream.told, true)
        {
            self.events.push_back(Event::Stream(key));
        }
    }

    /// Says that a message has come whole, or gone.
    pub(super) fn ended(&mut self, key: Key) {
        self.streams.uncount(key.slot);
        self.settle();
    }

    /// Ends a connection that is to end, with its last stream.
    pub(super) fn settle(&mut self) {
        let ending = self.leaving || self.last.is_some() || matches!(self.going, Going::Last(_));
        if ending && self.streams.open() == 0 {
            self.end.get_or_insert(End::Done);
        }
    }

    /// Ends the connection: the peer is told why, and all streams are over.
    pub(super) fn fail(&mut self, fault: Fault, out: &mut impl Outbound) {
        if self.end.is_some() {
            return;
        }
        let code = match fault {
            End::Aborted(code) | End::Protocol(code) => code,
            End::Flood(_) => Code::ENHANCE_YOUR_CALM,
            End::Done | End::Closed(_) => Code::NO_ERROR,
        };
        self.go_away_from(self.highest, code, out);
        self.end = Some(fault);
        self.abandon(out);
    }

    fn abandon(&mut self, out: &mut impl Outbound) {
        let open: Vec<Key> = self
            .streams
            .iter_mut()
            .filter(|(_, stream)| !stream.is_closed())
            .map(|(slot, stream)| Key { slot, id: stream.id })
            .collect();
        for key in open {
            self.give_up(key, Reset::Connection, out);
        }
        self.line = VecDeque::new();
        (self.partial, self.block) = (Vec::new(), Vec::new());
    }

    /// Nothing more comes.
    pub fn closed(&mut self, out: &mut impl Outbound) {
        if self.end.is_none() {
            self.end = Some(End::Closed(self.streams.open() > 0));
            self.abandon(out);
        }
    }

    /// Ends the connection whatever its streams do.
    pub fn abort(&mut self, code: Code, out: &mut impl Outbound) {
        self.fail(End::Aborted(code), out);
    }

    /// Tells the peer to open no more streams, and, once it has heard that, which was the last one (section 6.8). The
    /// connection ends with the last stream.
    pub fn go_away(&mut self, out: &mut impl Outbound) {
        if self.end.is_none() && self.going == Going::No {
            self.going = Going::Told;
            self.go_away_from(frame::MAX_WINDOW, Code::NO_ERROR, out);
            self.control(frame::PING, 0, 0, HEARD, out);
        }
    }

    pub(super) fn go_away_from(&mut self, last: u32, code: Code, out: &mut impl Outbound) {
        // It never says a higher one than before.
        let last = if let Going::Last(said) = self.going { last.min(said) } else { last };
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&code.0.to_be_bytes());
        self.control(frame::GOAWAY, 0, 0, payload, out);
    }

    /// Nobody has more requests for it: it ends with the last stream.
    pub fn leave(&mut self, out: &mut impl Outbound) {
        if self.end.is_none() && !std::mem::replace(&mut self.leaving, true) {
            self.go_away_from(self.highest, Code::NO_ERROR, out);
            self.settle();
        }
    }

    /// Asks the peer whether it is there.
    pub fn ping(&mut self, out: &mut impl Outbound) {
        self.control(frame::PING, 0, 0, THERE, out);
    }

    /// Gives credit for bytes of the connection.
    pub(super) fn credit(&mut self, bytes: u32, out: &mut impl Outbound) {
        if bytes > 0
            && let Some(credit) = self.receive_window.release_shared(bytes)
            && self.end.is_none()
        {
            self.control(frame::WINDOW_UPDATE, 0, 0, credit.to_be_bytes(), out);
        }
    }

    /// Writes a control frame.
    pub(super) fn control<const N: usize>(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: [u8; N],
        out: &mut impl Outbound,
    ) {
        if self.end.is_some() {
            return;
        }
        let mut bytes = [0; HEADER + 8];
        bytes[..HEADER].copy_from_slice(&frame::FrameHeader { length: N, kind, flags, stream }.bytes());
        bytes[HEADER..HEADER + N].copy_from_slice(&payload);
        self.put(&bytes[..HEADER + N], out);
        if !self.is_flushed() {
            self.replies += HEADER + N;
        }
    }

    /// Writes bytes now, or behind those that wait.
    pub(super) fn put(&mut self, bytes: &[u8], out: &mut impl Outbound) {
        if self.is_flushed() && bytes.len() <= out.room() {
            out.put(bytes);
        } else {
            self.backlog.push(bytes);
        }
    }
}
