//! Streams of one connection (RFC 9113 section 5.1).

use std::collections::VecDeque;

use super::frame::Code;
use super::section::Fields;
use super::window::{ReceiveWindow, SendWindow};

/// A stream's place in a connection. It names nothing once the stream has been released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) id: u32,
}

impl Key {
    /// The stream's identifier.
    pub fn id(self) -> u32 {
        self.id
    }
}

/// Who ended a stream before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// This side.
    Local(Code),
    /// The peer.
    Remote(Code),
    /// The peer has said that it will not look at the stream (section 6.8).
    GoneAway,
    /// The connection has ended.
    Connection,
}

/// Bytes that wait for whoever reads them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start >= self.bytes.len() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }
}

/// Heads in the order in which they came: seldom more than one at a time, which needs no memory.
#[derive(Debug, Default)]
pub(super) struct Heads {
    first: Option<Box<Fields>>,
    #[allow(clippy::vec_box, reason = "as in `Spares`")]
    others: Vec<Box<Fields>>,
}

impl Heads {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes of all.
    pub(super) fn size(&self) -> usize {
        self.first.iter().chain(&self.others).map(|head| head.size()).sum()
    }

    pub(super) fn push(&mut self, head: Box<Fields>) {
        match self.first {
            None => self.first = Some(head),
            Some(_) => self.others.push(head),
        }
    }

    pub(super) fn take(&mut self) -> Option<Box<Fields>> {
        let next = if self.others.is_empty() { None } else { Some(self.others.remove(0)) };
        std::mem::replace(&mut self.first, next)
    }
}

/// Memory that streams have used and others will: heads, lines and queues.
#[derive(Debug, Default)]
pub struct Spares {
    #[allow(
        clippy::vec_box,
        reason = "they are handed from one to the other, and a stream holds one for a moment only"
    )]
    fields: Vec<Box<Fields>>,
    bytes: Vec<Vec<u8>>,
    /// Bytes of all that is kept.
    held: usize,
}

impl Spares {
    /// How many of a kind are kept: as many as a busy core has streams.
    const KEPT: usize = 2048;
    /// Bytes of the largest that is.
    const LARGEST: usize = 8 << 10;
    /// Bytes of all.
    const MOST: usize = 1 << 20;

    pub(super) fn take_fields(&mut self) -> Box<Fields> {
        let fields = self.fields.pop().unwrap_or_default();
        self.held -= fields.capacity();
        fields
    }

    /// Takes a head's memory back.
    pub fn put_fields(&mut self, fields: Box<Fields>) {
        if self.takes(self.fields.len(), fields.capacity()) {
            self.held += fields.capacity();
            self.fields.push(fields);
        }
    }

    fn take_bytes(&mut self) -> Vec<u8> {
        let bytes = self.bytes.pop().unwrap_or_default();
        self.held -= bytes.capacity();
        bytes
    }

    fn put_bytes(&mut self, mut bytes: Vec<u8>) {
        if self.takes(self.bytes.len(), bytes.capacity()) {
            self.held += bytes.capacity();
            bytes.clear();
            self.bytes.push(bytes);
        }
    }

    fn takes(&self, kept: usize, capacity: usize) -> bool {
        kept < Self::KEPT && (1..=Self::LARGEST).contains(&capacity) && self.held + capacity <= Self::MOST
    }
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream<B, W> {
    pub(super) id: u32,
    pub(super) reset: Option<Reset>,
    /// The peer's side: no more comes.
    pub(super) remote_ended: bool,
    /// This side: no more goes.
    pub(super) local_ended: bool,
    /// The head of the message that comes has come, or that of the final answer.
    pub(super) head_received: bool,
    /// The head of the message that goes has gone, or that of the final answer.
    pub(super) head_sent: bool,
    /// An answer to HEAD has no body, whatever it says.
    pub(super) bodiless: bool,
    /// Bytes of the body that are still to come, where that has been said.
    pub(super) expected: Option<u64>,
    pub(super) receive: ReceiveWindow,
    /// Bytes that it holds and that the connection has its credit back for.
    pub(super) lent: u32,
    pub(super) send: SendWindow,
    /// A request's head, until it is taken.
    pub(super) fields: Option<Box<Fields>>,
    /// An answer's heads that have not been taken.
    pub(super) heads: Heads,
    pub(super) data: Queue,
    pub(super) trailers: Vec<u8>,
    /// Nobody reads what comes.
    pub(super) unread: bool,
    /// What small frames among what waits have cost beyond their bytes.
    pub(super) dribs: u32,
    /// What could not be sent yet, from where, and whether it is the last.
    pub(super) parked: Option<Box<(B, usize, bool)>>,
    /// It stands in line to send.
    pub(super) in_line: bool,
    /// Something is to be told about it, and will be.
    pub(super) told: bool,
    /// Of those that hold it.
    pub(super) handles: u32,
    /// It counts among the open ones.
    pub(super) counted: bool,
    /// What its users keep with it.
    pub(super) attached: W,
}

impl<B, W> Stream<B, W> {
    pub(super) fn is_closed(&self) -> bool {
        self.reset.is_some() || (self.local_ended && self.remote_ended)
    }

    /// Nothing that it holds is of interest; credit for the connection.
    pub(super) fn give_up(&mut self) -> u32 {
        self.receive.give_up().saturating_sub(std::mem::take(&mut self.lent))
    }

    /// Whether anything may be sent on it.
    pub(super) fn sends(&self) -> bool {
        self.reset.is_none() && !self.local_ended
    }
}

/// Streams that the peer has ended: more on one of these is its error, and it is told so. On any others that are over it may
/// have sent what comes before it knew that, however many there have been since.
const REMEMBERED: usize = 64;

/// The streams of a connection.
#[derive(Debug)]
pub(super) struct Streams<B, W> {
    slots: Vec<Option<Stream<B, W>>>,
    free: Vec<u32>,
    /// Identifiers in order, and where their streams are: both sides open them in order.
    ids: Vec<(u32, u32)>,
    open: u32,
    ended: VecDeque<u32>,
}

impl<B, W: Default> Streams<B, W> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), ids: Vec::new(), open: 0, ended: VecDeque::new() }
    }

    /// Streams that are not closed.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Whether as many as `limit` that were reset have not been forgotten, besides those that may be open.
    pub(super) fn holds_reset(&self, limit: u32) -> bool {
        let limit = limit as usize;
        // Those that have ended in order are forgotten soon, and are no reason; they are told apart only where there are many.
        self.ids.len() >= 2 * limit
            && self.slots.iter().flatten().filter(|stream| stream.reset.is_some()).count() >= limit
    }

    pub(super) fn find(&self, id: u32) -> Option<u32> {
        let at = self.place(id).ok()?;
        Some(self.ids[at].1)
    }

    /// Where an identifier is among them, or would be.
    fn place(&self, id: u32) -> Result<usize, usize> {
        match self.ids.last() {
            Some((last, _)) if *last < id => Err(self.ids.len()),
            _ => self.ids.binary_search_by_key(&id, |(id, _)| *id),
        }
    }

    /// `body`: something may come behind the head.
    pub(super) fn insert(&mut self, id: u32, body: bool, (receive, send): (u32, u32), spares: &mut Spares) -> Key {
        let stream = Stream {
            id,
            reset: None,
            remote_ended: false,
            local_ended: false,
            head_received: false,
            head_sent: false,
            bodiless: false,
            expected: None,
            receive: ReceiveWindow::new(receive),
            lent: 0,
            send: SendWindow::new(send),
            fields: None,
            heads: Heads::default(),
            data: Queue { bytes: if body { spares.take_bytes() } else { Vec::new() }, start: 0 },
            trailers: Vec::new(),
            unread: false,
            dribs: 0,
            parked: None,
            in_line: false,
            told: false,
            handles: 0,
            counted: true,
            attached: W::default(),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(stream);
                slot
            }
            None => {
                if self.slots.capacity() == 0 {
                    // Most connections that are idle in between have one at a time.
                    self.slots.reserve_exact(1);
                }
                self.slots.push(Some(stream));
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let at = self.place(id).unwrap_or_else(|at| at);
        self.ids.insert(at, (id, slot));
        self.open += 1;
        Key { slot, id }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Stream<B, W>> {
        self.slots.get(key.slot as usize)?.as_ref().filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Stream<B, W>> {
        self.slots.get_mut(key.slot as usize)?.as_mut().filter(|stream| stream.id == key.id)
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Stream<B, W>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream<B, W>)> {
        self.slots.iter_mut().zip(0..).filter_map(|(stream, slot)| Some((slot, stream.as_mut()?)))
    }

    /// Takes a closed one out of the open ones.
    pub(super) fn uncount(&mut self, slot: u32) {
        if let Some(stream) = self.at(slot)
            && stream.is_closed()
            && std::mem::take(&mut stream.counted)
        {
            self.open -= 1;
        }
    }

    /// Forgets one; what was kept with it.
    pub(super) fn remove(&mut self, slot: u32, spares: &mut Spares) -> Option<W> {
        let place = self.slots.get_mut(slot as usize)?;
        // What is of use is taken out, since a stream is some cache lines to move.
        let stream = place.as_mut()?;
        let (id, counted, reset) = (stream.id, stream.counted, stream.reset);
        let attached = std::mem::take(&mut stream.attached);
        while let Some(head) = stream.heads.take() {
            spares.put_fields(head);
        }
        spares.put_bytes(std::mem::take(&mut stream.data.bytes));
        if let Some(fields) = stream.fields.take() {
            spares.put_fields(fields);
        }
        *place = None;
        self.open -= u32::from(counted);
        if let Ok(at) = self.place(id) {
            self.ids.remove(at);
        }
        if !matches!(reset, Some(Reset::Local(_))) {
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back(id);
        }
        self.free.push(slot);
        Some(attached)
    }

    /// Nothing has come for a while: a burst's room goes, where no stream is left of it.
    pub(super) fn rest(&mut self) {
        if self.ids.is_empty() && self.slots.len() > 4 {
            (self.slots, self.free, self.ids) = (Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// Whether one that is over is known to have been ended by the peer.
    pub(super) fn has_ended(&self, id: u32) -> bool {
        self.ended.iter().rev().any(|ended| *ended == id)
    }

    /// The peer has been told that one is over.
    pub(super) fn forget(&mut self, id: u32) {
        self.ended.retain(|ended| *ended != id);
    }
}
