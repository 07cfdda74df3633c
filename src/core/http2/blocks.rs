//! Field blocks that come: heads and trailers.

use super::connection::{CALM, Connection, Continuing, Event, Fault, Going, Opening, Outbound};
use super::flood::Flood;
use super::frame::{Code, END_HEADERS, FrameHeader, MAX_PAYLOAD, RST_STREAM};
use super::section::{IgnoredSection, RequestSection, ResponseSection, TrailerSection, Verdict};
use super::settings::Role;
use super::stream::{Key, Reset, Spares};

/// CONTINUATION frames of a field block (CVE-2024-27316).
const CONTINUATIONS: u32 = 16;

/// Bytes of heads that may wait on a stream: interim answers have no end of their own.
const HEADS: usize = 128 << 10;

impl<B: AsRef<[u8]>, W: Default> Connection<B, W> {
    pub(super) fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let Some(continuing) = &mut self.continuing else { return Err(Code::PROTOCOL_ERROR.into()) };
        continuing.frames += 1;
        let Continuing { opening, frames } = *continuing;
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
        self.field_block(opening, &block, spares, out)
    }

    /// A field block has come whole. It is decoded whatever becomes of it, since the next may refer to it.
    pub(super) fn field_block(
        &mut self,
        opening: Opening,
        block: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        let Opening { stream: id, end, on_itself } = opening;
        let Some(slot) = self.streams.find(id) else {
            return match self.role {
                Role::Server => self.opens(opening, block, spares, out),
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
            None => return self.trailers(key, opening, block, out),
            Some(Reset::Remote(_)) if self.role == Role::Server => {
                self.ignored(block)?;
                return Err(Code::STREAM_CLOSED.into());
            }
            Some(_) => {
                self.ignored(block)?;
                return self.late(cost(block));
            }
        }
        if stream.heads.size() > HEADS {
            return Err(CALM);
        }
        let mut section = ResponseSection::new(spares.take_fields(), self.limits.header_list as usize);
        let decoded = self.decoder.decode(block, |name, value| section.field(name, value));
        decoded.map_err(|_error| Code::COMPRESSION_ERROR)?;
        let (fields, verdict, length) = section.end();
        let status = fields.status();
        match verdict {
            Verdict::Abuse => return Err(CALM),
            Verdict::Malformed | Verdict::TooLarge => {
                spares.put_fields(fields);
                return self.stream_error(id, Code::PROTOCOL_ERROR, out);
            }
            Verdict::Good => stream.heads.push(fields),
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
        Opening { end, on_itself, .. }: Opening,
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
        Opening { stream: id, end, on_itself }: Opening,
        block: &[u8],
        spares: &mut Spares,
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
        if id.is_multiple_of(2) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if id <= self.highest {
            self.ignored(block)?;
            return match id {
                _ if self.skipped.contains(&id) => Err(Code::PROTOCOL_ERROR.into()),
                _ if self.streams.has_ended(id) => Err(Code::STREAM_CLOSED.into()),
                _ => self.late(cost(block)),
            };
        }
        if id - self.highest > 2 {
            self.skipped = self.highest + 1..id;
        }
        self.highest = id;
        if matches!(self.going, Going::Last(_)) {
            self.ignored(block)?;
            return self.late(cost(block));
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
                self.guard.take(Flood::Refused, 1)?;
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
        let key = self.streams.insert(id, !end, (self.limits.stream_window(), self.peer.window), spares);
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
        self.guard.take(Flood::Provoked, 1)?;
        self.encoded.clear();
        self.encoder.begin(&mut self.encoded);
        self.encoder.status(431, &mut self.encoded);
        self.write_block(id, true, out);
        if !end {
            self.control(RST_STREAM, 0, id, Code::NO_ERROR.0.to_be_bytes(), out);
        }
        Ok(())
    }
}

/// What decoding a block for nothing costs, in small frames.
fn cost(block: &[u8]) -> u32 {
    1 + u32::try_from(block.len() / 64).unwrap_or(u32::MAX)
}
