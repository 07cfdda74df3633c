//! What comes on a connection.

use super::connection::{Arriving, CALM, Connection, Continuing, Event, Fault, Going, HEARD, Outbound, THERE};
use super::flood::DRIB;
use super::frame::{
    self, ACK, CONTINUATION, Code, DATA, END_HEADERS, END_STREAM, FrameHeader, GOAWAY, HEADER, HEADERS, MAX_PAYLOAD,
    PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::section::{IgnoredSection, RequestSection, ResponseSection, TrailerSection, Verdict};
use super::settings::Role;
use super::stream::{Key, Reset, Spares};
use super::window::Overflow;

/// CONTINUATION frames of a field block (CVE-2024-27316).
const CONTINUATIONS: u32 = 16;

/// Empty DATA frames between two requests (CVE-2019-9518).
const EMPTY: u32 = 100;

/// What small frames of a client that wait may cost beyond their bytes. A block of messages of a dozen bytes, a frame each,
/// costs less; one of single bytes costs more. An endpoint's are not counted: its connection is many clients'.
const DRIBS: u32 = 3 << 19;

/// Bytes of heads that may wait on a stream: interim answers have no end of their own.
const HEADS: usize = 128 << 10;

impl<B: AsRef<[u8]>, W: Default> Connection<B, W> {
    /// Takes bytes that have come; how many, which is all of them unless the connection is stuffed. `step` counts time
    /// in twentieths of a second.
    pub fn receive(&mut self, bytes: &[u8], step: u64, spares: &mut Spares, out: &mut impl Outbound) -> usize {
        let mut rest = bytes;
        self.guard.pass(step);
        while !rest.is_empty() && !self.is_stuffed() {
            if self.end.is_some() {
                return bytes.len();
            }
            if let Err(fault) = self.next(&mut rest, spares, out) {
                self.fail(fault, out);
            }
        }
        bytes.len() - rest.len()
    }

    /// Takes the next frame, or as much of it as there is.
    fn next(&mut self, rest: &mut &[u8], spares: &mut Spares, out: &mut impl Outbound) -> Result<(), Fault> {
        if self.preface < PREFACE.len() {
            let taken = take(rest, PREFACE.len() - self.preface);
            if !PREFACE[self.preface..].starts_with(taken) {
                return Err(Code::PROTOCOL_ERROR.into());
            }
            self.preface += taken.len();
            return Ok(());
        }
        if let Some(arriving) = self.arriving.take() {
            return self.data_goes_on(arriving, rest, out);
        }
        let bytes = *rest;
        if self.partial.is_empty() {
            // Most frames come whole, and are read where they are.
            let Some(header) = bytes.first_chunk() else {
                self.partial.extend_from_slice(take(rest, HEADER));
                return Ok(());
            };
            let header = FrameHeader::parse(header);
            self.admit(header)?;
            if header.kind == DATA {
                *rest = &bytes[HEADER..];
                return self.data_begins(header, out);
            }
            if let Some(payload) = bytes[HEADER..].get(..header.length) {
                *rest = &bytes[HEADER + header.length..];
                return self.frame(header, payload, spares, out);
            }
            self.partial.extend_from_slice(take(rest, HEADER + header.length));
            return Ok(());
        }
        let missing = HEADER.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(take(rest, missing));
        let Some(header) = self.partial.first_chunk() else { return Ok(()) };
        let header = FrameHeader::parse(header);
        if missing > 0 {
            self.admit(header)?;
            if header.kind == DATA {
                self.partial.clear();
                return self.data_begins(header, out);
            }
        }
        self.partial.extend_from_slice(take(rest, HEADER + header.length - self.partial.len()));
        if self.partial.len() < HEADER + header.length {
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        let seen = self.frame(header, &whole[HEADER..], spares, out);
        // Room for small ones is kept.
        if whole.capacity() <= 512 {
            whole.clear();
            self.partial = whole;
        }
        seen
    }

    /// Whether a frame may come now, by its header.
    fn admit(&mut self, header: FrameHeader) -> Result<(), Fault> {
        let FrameHeader { length, kind, stream, .. } = header;
        if length > MAX_PAYLOAD {
            return Err(Code::FRAME_SIZE_ERROR.into());
        }
        let continued = self.continuing.map(|continuing| continuing.stream);
        if continued.is_some() != (kind == CONTINUATION) || continued.is_some_and(|id| id != stream) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        // SETTINGS come first (section 3.4).
        if !self.settled && (kind != SETTINGS || header.has(ACK)) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if self.role == Role::Server {
            self.guard.frame(kind, length)?;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let id = header.stream;
        let of_stream = matches!(header.kind, HEADERS | PRIORITY | RST_STREAM | PUSH_PROMISE | CONTINUATION);
        let of_connection = matches!(header.kind, SETTINGS | PING | GOAWAY);
        if of_stream && id == 0 || of_connection && id != 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        match header.kind {
            HEADERS => {
                let (fragment, on_itself) = frame::fragment(header, payload)?;
                let end = header.has(END_STREAM);
                if header.has(END_HEADERS) {
                    return self.field_block(id, end, on_itself, fragment, spares, out);
                }
                self.block.extend_from_slice(fragment);
                self.continuing = Some(Continuing { stream: id, end, on_itself, frames: 0 });
                Ok(())
            }
            CONTINUATION => self.continuation(header, payload, spares, out),
            PRIORITY => {
                let priority = payload.try_into().map_err(|_other_size| Code::FRAME_SIZE_ERROR)?;
                // It has no other meaning any more (section 5.3).
                if frame::dependency(priority) == id { Err(Code::PROTOCOL_ERROR.into()) } else { Ok(()) }
            }
            RST_STREAM => {
                let code = Code(frame::number(payload)?);
                if self.is_idle(id) {
                    return Err(Code::PROTOCOL_ERROR.into());
                }
                if let Some(slot) = self.streams.find(id)
                    && self.streams.at(slot).is_some_and(|stream| !stream.is_closed())
                {
                    self.give_up(Key { slot, id }, Reset::Remote(code), out);
                }
                Ok(())
            }
            SETTINGS => self.settings(header, payload, out),
            PUSH_PROMISE => Err(Code::PROTOCOL_ERROR.into()),
            PING => {
                let told: [u8; 8] = payload.try_into().map_err(|_other_size| Code::FRAME_SIZE_ERROR)?;
                if !header.has(ACK) {
                    self.control(PING, ACK, 0, told, out);
                } else if told == THERE {
                    self.pong = true;
                } else if told == HEARD && self.going == Going::Told {
                    self.going = Going::Last(self.highest);
                    self.go_away_from(self.highest, Code::NO_ERROR, out);
                    self.settle();
                }
                Ok(())
            }
            GOAWAY => {
                let last = frame::number(payload.get(..8).ok_or(Code::FRAME_SIZE_ERROR)?.split_at(4).0)?;
                self.goes_away(last & frame::MAX_WINDOW, out)
            }
            WINDOW_UPDATE => self.window_update(id, frame::number(payload)? & frame::MAX_WINDOW, out),
            // Of an unknown type (section 4.1).
            _ => Ok(()),
        }
    }

    fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let Some(continuing) = &mut self.continuing else { return Err(Code::PROTOCOL_ERROR.into()) };
        continuing.frames += 1;
        let Continuing { stream, end, on_itself, frames } = *continuing;
        let most = self.limits.header_list as usize + MAX_PAYLOAD;
        if frames > CONTINUATIONS || self.block.len() + payload.len() > most {
            return Err(CALM);
        }
        self.block.extend_from_slice(payload);
        if !header.has(END_HEADERS) {
            return Ok(());
        }
        self.continuing = None;
        let block = std::mem::take(&mut self.block);
        self.field_block(stream, end, on_itself, &block, spares, out)
    }

    /// Whether a stream has not been opened.
    fn is_idle(&self, id: u32) -> bool {
        let of_client = id % 2 == 1;
        match self.role {
            Role::Server => !of_client || id > self.highest,
            Role::Client => !of_client || id >= self.next,
        }
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8], out: &mut impl Outbound) -> Result<(), Fault> {
        if header.has(ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Code::FRAME_SIZE_ERROR.into()) };
        }
        let before = self.peer.window;
        (self.peer.table, self.peer.table_least) = (None, None);
        self.peer.read(payload, self.role)?;
        self.settled = true;
        for table in [self.peer.table_least, self.peer.table].into_iter().flatten() {
            self.encoder.set_limit(table);
        }
        let by = i64::from(self.peer.window) - i64::from(before);
        if by != 0 {
            for (slot, stream) in self.streams.iter_mut() {
                stream.send.change(by).map_err(|_overflow| Code::FLOW_CONTROL_ERROR)?;
                if stream.parked.is_some() && stream.send.left() > 0 && !std::mem::replace(&mut stream.in_line, true) {
                    self.line.push_back(Key { slot, id: stream.id });
                }
            }
        }
        self.control(SETTINGS, ACK, 0, [], out);
        Ok(())
    }

    fn goes_away(&mut self, last: u32, out: &mut impl Outbound) -> Result<(), Fault> {
        // It may say a lower one later, and no higher one.
        if self.last.is_some_and(|before| last > before) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        self.last = Some(last);
        if self.role == Role::Client {
            let unseen: Vec<Key> = self
                .streams
                .iter_mut()
                .filter(|(_, stream)| stream.id > last && !stream.is_closed())
                .map(|(slot, stream)| Key { slot, id: stream.id })
                .collect();
            for key in unseen {
                self.give_up(key, Reset::GoneAway, out);
            }
        }
        self.settle();
        Ok(())
    }

    fn window_update(&mut self, id: u32, credit: u32, out: &mut impl Outbound) -> Result<(), Fault> {
        if id == 0 {
            if credit == 0 {
                return Err(Code::PROTOCOL_ERROR.into());
            }
            return self.send_window.give(credit).map_err(|_overflow| Code::FLOW_CONTROL_ERROR.into());
        }
        if self.is_idle(id) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let Some(slot) = self.streams.find(id) else { return Ok(()) };
        let Some(stream) = self.streams.at(slot).filter(|stream| !stream.is_closed()) else { return Ok(()) };
        if credit == 0 {
            return self.stream_error(id, Code::PROTOCOL_ERROR, out);
        }
        if stream.send.give(credit).is_err() {
            return self.stream_error(id, Code::FLOW_CONTROL_ERROR, out);
        }
        if stream.parked.is_some() && stream.send.left() > 0 && !std::mem::replace(&mut stream.in_line, true) {
            self.line.push_back(Key { slot, id });
        }
        Ok(())
    }

    /// Resets a stream because of what its peer has sent on it.
    fn stream_error(&mut self, id: u32, code: Code, out: &mut impl Outbound) -> Result<(), Fault> {
        self.provoke()?;
        self.control(RST_STREAM, 0, id, code.0.to_be_bytes(), out);
        match self.streams.find(id) {
            Some(slot) => self.give_up(Key { slot, id }, Reset::Local(code), out),
            None => self.streams.remember(id, true),
        }
        Ok(())
    }

    /// A field block has come whole. It is decoded whatever becomes of it, since the next may refer to it.
    fn field_block(
        &mut self,
        id: u32,
        end: bool,
        on_itself: bool,
        block: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let Some(slot) = self.streams.find(id) else {
            return match self.role {
                Role::Server => self.opens(id, end, on_itself, block, spares, out),
                // It pushes nothing, and may not know yet that a stream is over.
                Role::Client if self.is_idle(id) => Err(Code::PROTOCOL_ERROR.into()),
                Role::Client => self.ignored(block),
            };
        };
        let key = Key { slot, id };
        let Some(stream) = self.streams.at(slot) else { return self.ignored(block) };
        match stream.reset {
            None if stream.remote_ended => {
                let closed = stream.is_closed();
                self.ignored(block)?;
                return match closed {
                    true if self.role == Role::Server => Err(Code::STREAM_CLOSED.into()),
                    _ => self.stream_error(id, Code::STREAM_CLOSED, out),
                };
            }
            None if !stream.head_received => {}
            None => return self.trailers(key, end, on_itself, block, out),
            Some(Reset::Remote(_)) if self.role == Role::Server => {
                self.ignored(block)?;
                return Err(Code::STREAM_CLOSED.into());
            }
            Some(_) => return self.ignored(block),
        }
        if stream.head.data().len() > HEADS {
            return Err(CALM);
        }
        let mut section = ResponseSection::new(stream.head.tail(), self.limits.header_list as usize);
        if self.decoder.decode(block, |name, value| section.field(name, value)).is_err() {
            section.give_up();
            return Err(Code::COMPRESSION_ERROR.into());
        }
        let (verdict, status, length) = section.end();
        match verdict {
            Verdict::Abuse => return Err(CALM),
            Verdict::Malformed | Verdict::TooLarge => return self.stream_error(id, Code::PROTOCOL_ERROR, out),
            Verdict::Good => {}
        }
        if status >= 200 {
            stream.head_received = true;
            let bodiless = stream.bodiless || matches!(status, 204 | 304);
            stream.expected = if bodiless { Some(0) } else { length };
        }
        let broken_off = end && (status < 200 || stream.expected.is_some_and(|expected| expected > 0));
        if broken_off || on_itself {
            return self.stream_error(id, Code::PROTOCOL_ERROR, out);
        }
        stream.remote_ended = end;
        self.ended(key);
        self.tell(key);
        Ok(())
    }

    fn ignored(&mut self, block: &[u8]) -> Result<(), Fault> {
        let mut section = IgnoredSection::new(self.limits.header_list as usize);
        let decoded = self.decoder.decode(block, |name, value| section.field(name, value));
        decoded.map_err(|_error| Code::COMPRESSION_ERROR)?;
        if section.end() == Verdict::Abuse { Err(CALM) } else { Ok(()) }
    }

    fn trailers(
        &mut self,
        key: Key,
        end: bool,
        on_itself: bool,
        block: &[u8],
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(key) else { return self.ignored(block) };
        let mut section = TrailerSection::new(&mut stream.trailers, self.limits.header_list as usize);
        let decoded = self.decoder.decode(block, |name, value| section.field(name, value));
        decoded.map_err(|_error| Code::COMPRESSION_ERROR)?;
        let verdict = section.end();
        let whole = stream.expected.is_none_or(|expected| expected == 0);
        match verdict {
            Verdict::Abuse => Err(CALM),
            // They are the last (section 8.1).
            Verdict::Good if end && whole && !on_itself => {
                stream.remote_ended = true;
                self.ended(key);
                self.tell(key);
                Ok(())
            }
            _ => self.stream_error(key.id, Code::PROTOCOL_ERROR, out),
        }
    }

    /// A stream that is not open has a head: it is new, or over.
    fn opens(
        &mut self,
        id: u32,
        end: bool,
        on_itself: bool,
        block: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        if id.is_multiple_of(2) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if id <= self.highest {
            self.ignored(block)?;
            return match self.streams.was_reset(id) {
                Some(true) => Ok(()),
                Some(false) => Err(Code::STREAM_CLOSED.into()),
                None => Err(Code::PROTOCOL_ERROR.into()),
            };
        }
        self.highest = id;
        self.empty = 0;
        if matches!(self.going, Going::Last(_)) {
            self.streams.remember(id, true);
            return self.ignored(block);
        }
        let mut section = RequestSection::new(spares.take_fields(), self.limits.header_list as usize);
        let decoded = self.decoder.decode(block, |name, value| section.field(name, value));
        decoded.map_err(|_error| Code::COMPRESSION_ERROR)?;
        let (fields, verdict, length) = section.end();
        match verdict {
            Verdict::Abuse => return Err(CALM),
            // Those that were reset are held until their requests have been given up.
            Verdict::Good
                if self.streams.open() >= self.limits.streams || self.streams.holds_reset(self.limits.streams) =>
            {
                spares.put_fields(fields);
                self.streams.remember(id, true);
                self.control(RST_STREAM, 0, id, Code::REFUSED_STREAM.0.to_be_bytes(), out);
                return Ok(());
            }
            Verdict::Good if !on_itself => {}
            Verdict::TooLarge => {
                spares.put_fields(fields);
                return self.too_large(id, end, out);
            }
            Verdict::Good | Verdict::Malformed => {
                spares.put_fields(fields);
                return self.stream_error(id, Code::PROTOCOL_ERROR, out);
            }
        }
        let key = self.streams.insert(id, self.limits.stream_window(), self.peer.window, spares);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.fields = Some(fields);
            stream.head_received = true;
            // One that has ended is judged as a whole.
            stream.expected = length.filter(|_| !end);
            stream.remote_ended = end;
        }
        self.events.push_back(Event::Request(key));
        Ok(())
    }

    /// Refuses a request for its head's size.
    fn too_large(&mut self, id: u32, end: bool, out: &mut impl Outbound) -> Result<(), Fault> {
        self.provoke()?;
        self.encoded.clear();
        self.encoder.begin(&mut self.encoded);
        self.encoder.status(431, &mut self.encoded);
        self.write_block(id, true, out);
        if !end {
            self.control(RST_STREAM, 0, id, Code::NO_ERROR.0.to_be_bytes(), out);
        }
        self.streams.remember(id, true);
        Ok(())
    }

    /// A DATA frame begins.
    fn data_begins(&mut self, header: FrameHeader, out: &mut impl Outbound) -> Result<(), Fault> {
        let FrameHeader { length, stream: id, .. } = header;
        if id == 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let padded = header.has(PADDED);
        if padded && length == 0 {
            return Err(Code::FRAME_SIZE_ERROR.into());
        }
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        self.receive_window.take(bytes).map_err(|_overflow| Code::FLOW_CONTROL_ERROR)?;
        let key = self.taker(id, bytes, out)?;
        if key.is_none() {
            self.credit(bytes, out);
        }
        let end = header.has(END_STREAM);
        let arriving = Arriving { key, payload: length, padding: 0, padded, end, length };
        if length == 0 {
            return self.data_ends(arriving, out);
        }
        self.arriving = Some(arriving);
        Ok(())
    }

    /// Who wants the data of a stream.
    fn taker(&mut self, id: u32, bytes: u32, out: &mut impl Outbound) -> Result<Option<Key>, Fault> {
        let error = match self.streams.find(id) {
            None if self.is_idle(id) => return Err(Code::PROTOCOL_ERROR.into()),
            None if self.role == Role::Client || self.streams.was_reset(id) == Some(true) => return Ok(None),
            None => Code::STREAM_CLOSED,
            Some(slot) => match self.streams.at(slot) {
                Some(stream) => match stream.reset {
                    Some(Reset::Remote(_)) if self.role == Role::Server => Code::STREAM_CLOSED,
                    Some(_) => return Ok(None),
                    None if stream.remote_ended => Code::STREAM_CLOSED,
                    None if !stream.head_received => Code::PROTOCOL_ERROR,
                    None => match stream.receive.take(bytes) {
                        Ok(()) => return Ok(Some(Key { slot, id })),
                        Err(Overflow) => Code::FLOW_CONTROL_ERROR,
                    },
                },
                None => return Ok(None),
            },
        };
        self.stream_error(id, error, out)?;
        Ok(None)
    }

    fn data_goes_on(&mut self, mut arriving: Arriving, rest: &mut &[u8], out: &mut impl Outbound) -> Result<(), Fault> {
        if arriving.padded {
            let padding = take(rest, 1).first().map_or(0, |byte| usize::from(*byte));
            arriving.padded = false;
            arriving.payload = arriving.payload.checked_sub(1 + padding).ok_or(Code::PROTOCOL_ERROR)?;
            arriving.padding = padding;
            arriving.length = arriving.payload;
            if let Some(key) = arriving.key {
                self.release(key, 1 + padding, out);
            }
        }
        let bytes = take(rest, arriving.payload);
        arriving.payload -= bytes.len();
        if let Some(key) = arriving.key.filter(|_| !bytes.is_empty()) {
            self.arrived(key, bytes, out)?;
        }
        arriving.padding -= take(rest, arriving.padding).len();
        if arriving.payload == 0 && arriving.padding == 0 {
            return self.data_ends(arriving, out);
        }
        self.arriving = Some(arriving);
        Ok(())
    }

    /// Bytes of a stream have come.
    fn arrived(&mut self, key: Key, bytes: &[u8], out: &mut impl Outbound) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.reset.is_none()) else { return Ok(()) };
        if let Some(expected) = &mut stream.expected {
            match expected.checked_sub(bytes.len() as u64) {
                Some(left) => *expected = left,
                None => return self.stream_error(key.id, Code::PROTOCOL_ERROR, out),
            }
        }
        if stream.unread {
            let unreleased = stream.receive.give_up();
            self.credit(unreleased, out);
        } else {
            stream.data.push(bytes);
            self.tell(key);
        }
        Ok(())
    }

    fn data_ends(&mut self, arriving: Arriving, out: &mut impl Outbound) -> Result<(), Fault> {
        let Arriving { key, end, length, .. } = arriving;
        if !end && length == 0 && self.role == Role::Server {
            self.empty += 1;
            if self.empty > EMPTY {
                return Err(CALM);
            }
        }
        let Some(key) = key else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.reset.is_none()) else { return Ok(()) };
        if end {
            if stream.expected.is_some_and(|expected| expected > 0) {
                return self.stream_error(key.id, Code::PROTOCOL_ERROR, out);
            }
            stream.remote_ended = true;
            self.ended(key);
            self.tell(key);
        } else if (1..DRIB).contains(&length) && !stream.unread && self.role == Role::Server {
            let cost = u32::try_from(DRIB - length).unwrap_or(0);
            stream.dribs += cost;
            self.dribs += cost;
            if self.dribs > DRIBS {
                return Err(CALM);
            }
        }
        Ok(())
    }
}

/// Takes up to `most` bytes off the front.
fn take<'b>(rest: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, left) = rest.split_at(most.min(rest.len()));
    *rest = left;
    taken
}
