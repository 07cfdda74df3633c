//! What comes on a connection: frames, and those of control. Field blocks are the business of `blocks`, DATA that of
//! `bodies`.

use super::connection::{Connection, Continuing, Fault, Going, HEARD, Opening, Outbound, THERE};
use super::flood::Flood;
use super::frame::{
    self, ACK, CONTINUATION, Code, DATA, END_HEADERS, END_STREAM, FrameHeader, GOAWAY, HEADER, HEADERS, MAX_PAYLOAD,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::settings::Role;
use super::stream::{Key, Reset, Spares};

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
        let continued = self.continuing.map(|continuing| continuing.opening.stream);
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
                let opening = Opening { stream: id, end: header.has(END_STREAM), on_itself };
                if header.has(END_HEADERS) {
                    return self.field_block(opening, fragment, spares, out);
                }
                self.block.extend_from_slice(fragment);
                self.continuing = Some(Continuing { opening, frames: 0 });
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

    /// Whether a stream has not been opened.
    pub(super) fn is_idle(&self, id: u32) -> bool {
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
    pub(super) fn stream_error(&mut self, id: u32, code: Code, out: &mut impl Outbound) -> Result<(), Fault> {
        self.guard.take(Flood::Provoked, 1)?;
        self.control(RST_STREAM, 0, id, code.0.to_be_bytes(), out);
        match self.streams.find(id) {
            Some(slot) => self.give_up(Key { slot, id }, Reset::Local(code), out),
            None => self.streams.forget(id),
        }
        Ok(())
    }
}

/// Takes up to `most` bytes off the front.
pub(super) fn take<'b>(rest: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, left) = rest.split_at(most.min(rest.len()));
    *rest = left;
    taken
}
