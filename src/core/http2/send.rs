//! What goes on a connection, and how streams are read.

use super::connection::{Connection, Gone, Outbound};
use super::frame::{
    self, CONTINUATION, Code, DATA, END_HEADERS, END_STREAM, FrameHeader, HEADER, HEADERS, MAX_PAYLOAD,
};
use super::lines::{self, Asked, Unspeakable, Writer};
use super::section::Fields;
use super::stream::{Key, Reset, Spares};

/// Streams at a time on a connection whose peer has not said how many it takes.
const UNSAID: u32 = 100;

/// Bytes of a frame that is not written into the end of a block while there is more of them.
const SCRAP: usize = 1024;

/// What comes next on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing yet.
    Nothing,
    /// An answer's head.
    Head,
    /// Bytes of a body.
    Data,
    /// The end; trailers may come with it.
    End,
    /// It has been ended before its end.
    Reset(Reset),
}

/// Why a request has not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The connection takes no more.
    Ending,
    /// It takes no more now.
    Full,
    /// It cannot be said to this peer.
    Unspeakable,
}

impl From<Unspeakable> for Refusal {
    fn from(_: Unspeakable) -> Self {
        Self::Unspeakable
    }
}

impl From<Unspeakable> for Gone {
    fn from(_: Unspeakable) -> Self {
        Self
    }
}

impl<B: AsRef<[u8]>, W: Default> Connection<B, W> {
    /// What comes next on a stream.
    pub fn incoming(&self, key: Key) -> Incoming {
        match self.streams.get(key) {
            // What this side has reset is of no interest to it.
            Some(stream) if matches!(stream.reset, Some(Reset::Local(_))) => {
                stream.reset.map_or(Incoming::Nothing, Incoming::Reset)
            }
            Some(stream) if !stream.heads.is_empty() => Incoming::Head,
            Some(stream) if !stream.data.data().is_empty() => Incoming::Data,
            Some(stream) if stream.remote_ended => Incoming::End,
            Some(stream) => stream.reset.map_or(Incoming::Nothing, Incoming::Reset),
            None => Incoming::Reset(Reset::Connection),
        }
    }

    /// Whether nothing more will come on a stream.
    pub fn is_end(&self, key: Key) -> bool {
        self.incoming(key) == Incoming::End && self.streams.get(key).is_some_and(|stream| stream.trailers.is_empty())
    }

    /// Whether all of a message has come.
    pub fn has_ended(&self, key: Key) -> bool {
        self.streams
            .get(key)
            .is_some_and(|stream| stream.remote_ended && !matches!(stream.reset, Some(Reset::Local(_))))
    }

    /// How long a body is that has come whole, without trailers.
    pub fn whole(&self, key: Key) -> Option<usize> {
        let stream = self.streams.get(key)?;
        // What this side has reset has lost what had come of it.
        let whole = stream.remote_ended && !matches!(stream.reset, Some(Reset::Local(_)));
        (whole && stream.trailers.is_empty()).then_some(stream.data.data().len())
    }

    /// The head of an answer that has come; the first, where there are several.
    pub fn take_head(&mut self, key: Key) -> Option<Box<Fields>> {
        self.streams.get_mut(key)?.heads.take()
    }

    /// Bytes of a body that have come.
    pub fn data(&self, key: Key) -> &[u8] {
        self.streams.get(key).map_or(&[], |stream| stream.data.data())
    }

    /// Bytes of a body have been taken. There is no credit for them before they are released.
    pub fn consume(&mut self, key: Key, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.data.consume(bytes);
            if stream.data.data().is_empty() {
                self.dribs -= std::mem::take(&mut stream.dribs);
            }
        }
    }

    /// The trailers, as lines.
    pub fn take_trailers(&mut self, key: Key) -> Vec<u8> {
        self.streams.get_mut(key).map(|stream| std::mem::take(&mut stream.trailers)).unwrap_or_default()
    }

    /// Gives credit for bytes that have gone on.
    pub fn release(&mut self, key: Key, bytes: usize, out: &mut impl Outbound) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(stream.receive.unreleased());
        let (credit, over) = (stream.receive.release(bytes), stream.remote_ended || stream.reset.is_some());
        let lent = bytes.min(stream.lent);
        stream.lent -= lent;
        if let Some(credit) = credit.filter(|_| !over) {
            self.control(frame::WINDOW_UPDATE, 0, key.id, credit.to_be_bytes(), out);
        }
        self.credit(bytes - lent, out);
    }

    /// What has come on a stream stays here until there is more of it: other streams do not wait for that. It holds as much
    /// as its own window.
    pub fn lend(&mut self, key: Key, out: &mut impl Outbound) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let held = stream.receive.unreleased();
        let more = held - std::mem::replace(&mut stream.lent, held);
        self.credit(more, out);
    }

    /// Nobody reads what comes on a stream any more: it takes credit of its stream's, and none of the others'.
    pub fn ignore(&mut self, key: Key, out: &mut impl Outbound) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.unread = true;
        stream.data.clear();
        self.dribs -= std::mem::take(&mut stream.dribs);
        let unreleased = stream.give_up();
        self.credit(unreleased, out);
    }

    /// How a stream has been ended before its end, if it has.
    pub fn reset_by(&self, key: Key) -> Option<Reset> {
        match self.streams.get(key) {
            Some(stream) => stream.reset,
            None => Some(Reset::Connection),
        }
    }

    /// Sends a request, whose head is one of HTTP/1.1; `end`: nothing comes behind it. The caller holds its stream.
    pub fn request(
        &mut self,
        head: &[u8],
        scheme: &[u8],
        end: bool,
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<Key, Refusal> {
        if self.takes_no_more() {
            return Err(Refusal::Ending);
        }
        if self.streams.open() >= self.peer.streams.unwrap_or(UNSAID) {
            return Err(Refusal::Full);
        }
        let asked = Asked::read(head)?;
        if asked.connect && !self.peer.connect {
            return Err(Refusal::Unspeakable);
        }
        let id = self.next;
        self.next += 2;
        let key = self.streams.insert(id, true, (self.limits.stream_window(), self.peer.window), spares);
        let end = end && !asked.connect;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.handles = 1;
            stream.head_sent = true;
            stream.bodiless = asked.is_head();
            stream.local_ended = end;
        }
        let said = self.writer().request(&asked, scheme);
        self.write_block(id, end, out);
        if said.is_err() {
            let _nobody_waits = self.let_go(key, spares, out);
            return Err(Refusal::Unspeakable);
        }
        Ok(key)
    }

    /// Sends an interim answer; `head` is one of HTTP/1.1.
    pub fn interim(&mut self, key: Key, head: &[u8], out: &mut impl Outbound) -> Result<(), Gone> {
        let status = lines::status(head)?;
        if !(100..200).contains(&status) || status == 101 || self.awaits_head(key).is_none() {
            return Err(Gone);
        }
        let said = self.writer().response(status, head);
        self.write_block(key.id, false, out);
        self.said(key, said, out)
    }

    /// Sends an answer's head, one of HTTP/1.1; `end`: there is nothing behind it.
    pub fn respond(&mut self, key: Key, head: &[u8], end: bool, out: &mut impl Outbound) -> Result<(), Gone> {
        let status = lines::status(head)?;
        if status < 200 {
            return Err(Gone);
        }
        self.awaits_head(key).ok_or(Gone)?.head_sent = true;
        let said = self.writer().response(status, head);
        self.write_block(key.id, end, out);
        self.said(key, said, out)?;
        if end {
            self.end_local(key);
        }
        Ok(())
    }

    /// Accepts an extended CONNECT; `head` is the 101 that HTTP/1.1 would send (RFC 8441 section 5.1).
    pub fn accept(&mut self, key: Key, head: &[u8], out: &mut impl Outbound) -> Result<(), Gone> {
        self.awaits_head(key).ok_or(Gone)?.head_sent = true;
        let said = self.writer().accepted(head);
        self.write_block(key.id, false, out);
        self.said(key, said, out)
    }

    /// Sends bytes of a body as far as there are credit and room, and nobody stands in line; how many. `end`: they are
    /// the last. Those that are left may be parked.
    pub fn send(&mut self, key: Key, bytes: &[u8], end: bool, out: &mut impl Outbound) -> Result<usize, Gone> {
        let stream = self.streams.get(key).filter(|stream| stream.sends() && stream.head_sent).ok_or(Gone)?;
        if bytes.is_empty() {
            return if end { self.finish(key, out).map(|()| 0) } else { Ok(0) };
        }
        if stream.parked.is_some() || !self.line.is_empty() || !self.is_flushed() {
            return Ok(0);
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match self.write_data(key, &bytes[sent..], end, out) {
                0 => break,
                written => sent += written,
            }
        }
        if end && sent == bytes.len() {
            self.end_local(key);
        }
        Ok(sent)
    }

    /// Leaves bytes behind `from` to be sent when there are credit and room; [`super::Event::Stream`] says when they have been.
    /// There are some, and nothing is parked on the stream.
    pub fn park(&mut self, key: Key, bytes: B, from: usize, end: bool) {
        debug_assert!(from < bytes.as_ref().len(), "nothing is parked for no bytes");
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.sends()) else { return };
        debug_assert!(stream.parked.is_none(), "one at a time");
        stream.parked = Some(Box::new((bytes, from, end)));
        if stream.send.left() > 0 && !std::mem::replace(&mut stream.in_line, true) {
            self.line.push_back(key);
        }
    }

    /// Whether bytes are still parked on a stream.
    pub fn is_parked(&self, key: Key) -> Result<bool, Gone> {
        let stream = self.streams.get(key).filter(|stream| stream.reset.is_none()).ok_or(Gone)?;
        Ok(stream.parked.is_some())
    }

    /// Ends a body.
    pub fn finish(&mut self, key: Key, out: &mut impl Outbound) -> Result<(), Gone> {
        self.sends(key)?;
        self.put(&FrameHeader { length: 0, kind: DATA, flags: END_STREAM, stream: key.id }.bytes(), out);
        self.guard.sent(0, true);
        self.end_local(key);
        Ok(())
    }

    /// Ends a body with trailers, lines as in HTTP/1.1.
    pub fn send_trailers(&mut self, key: Key, lines: &[u8], out: &mut impl Outbound) -> Result<(), Gone> {
        self.sends(key)?;
        let said = self.writer().trailers(lines);
        self.write_block(key.id, true, out);
        self.said(key, said, out)?;
        self.end_local(key);
        Ok(())
    }

    /// Writes what has waited for room or credit.
    pub fn pump(&mut self, out: &mut impl Outbound) {
        if !self.is_flushed() {
            let now = self.backlog.data().len().min(out.room());
            out.put(&self.backlog.data()[..now]);
            self.backlog.consume(now);
            if !self.is_flushed() {
                return;
            }
            (self.backlog, self.replies) = (Default::default(), 0);
        }
        while let Some(&key) = self.line.front() {
            let parked = self.streams.get_mut(key).and_then(|stream| stream.parked.take());
            let Some(mut parked) = parked else {
                self.step_out(key);
                continue;
            };
            let (bytes, from, end) = &mut *parked;
            let (whole, end) = (bytes.as_ref().len(), *end);
            *from += self.write_data(key, &bytes.as_ref()[*from..], end, out);
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if *from < whole {
                stream.parked = Some(parked);
                if stream.send.left() == 0 {
                    self.step_out(key);
                } else if self.is_blocked(out) {
                    // It has had its turn, or keeps its place.
                    return;
                } else {
                    self.line.rotate_left(1);
                }
                continue;
            }
            drop(parked);
            self.step_out(key);
            if end {
                self.end_local(key);
            }
            self.tell(key);
        }
        if self.line.is_empty() && self.line.capacity() > 8 {
            self.line = Default::default();
        }
    }

    /// Whether no stream could send.
    fn is_blocked(&self, out: &impl Outbound) -> bool {
        self.send_window.left() == 0 || out.room() < HEADER + SCRAP
    }

    /// The first in line leaves it.
    fn step_out(&mut self, key: Key) {
        self.line.pop_front();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.in_line = false;
        }
    }

    /// Writes one frame of data as far as there are credit and room; how much of the bytes that is.
    fn write_data(&mut self, key: Key, bytes: &[u8], end: bool, out: &mut impl Outbound) -> usize {
        let Some(stream) = self.streams.get_mut(key) else { return 0 };
        let credit = stream.send.left().min(self.send_window.left()).min(MAX_PAYLOAD).min(bytes.len());
        let length = credit.min(out.room().saturating_sub(HEADER));
        if length == 0 || (length < credit && length < SCRAP) {
            return 0;
        }
        stream.send.take(length);
        self.send_window.take(length);
        let end = end && length == bytes.len();
        let flags = if end { END_STREAM } else { 0 };
        out.put(&FrameHeader { length, kind: DATA, flags, stream: key.id }.bytes());
        out.put(&bytes[..length]);
        self.guard.sent(length, length == bytes.len());
        length
    }

    /// The stream that a head may be sent on.
    fn awaits_head(&mut self, key: Key) -> Option<&mut super::stream::Stream<B, W>> {
        self.streams.get_mut(key).filter(|stream| stream.sends() && !stream.head_sent)
    }

    fn sends(&self, key: Key) -> Result<(), Gone> {
        let sends =
            |stream: &&super::stream::Stream<B, W>| stream.sends() && stream.head_sent && stream.parked.is_none();
        self.streams.get(key).filter(sends).map(|_| ()).ok_or(Gone)
    }

    fn writer(&mut self) -> Writer<'_> {
        self.encoded.clear();
        Writer { encoder: &mut self.encoder, block: &mut self.encoded }
    }

    /// Resets a stream of whose head something could not be said.
    fn said(&mut self, key: Key, said: Result<(), Unspeakable>, out: &mut impl Outbound) -> Result<(), Gone> {
        if said.is_err() {
            self.reset(key, Code::INTERNAL_ERROR, out);
        }
        Ok(said?)
    }

    fn end_local(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.local_ended = true;
            self.guard.completed();
            self.ended(key);
        }
    }

    /// Writes the field block that has been encoded.
    pub(super) fn write_block(&mut self, id: u32, end: bool, out: &mut impl Outbound) {
        let mut block = std::mem::take(&mut self.encoded);
        let mut kind = HEADERS;
        let mut flags = if end { END_STREAM } else { 0 };
        let mut rest = block.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            if later.is_empty() {
                flags |= END_HEADERS;
            }
            self.put(&FrameHeader { length: now.len(), kind, flags, stream: id }.bytes(), out);
            self.put(now, out);
            if later.is_empty() {
                break;
            }
            (kind, flags, rest) = (CONTINUATION, 0, later);
        }
        // Room for what is usual is kept.
        if block.capacity() <= 1024 {
            block.clear();
            self.encoded = block;
        }
    }
}
