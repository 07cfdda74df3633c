//! DATA that comes.

use super::connection::{Arriving, CALM, Connection, Fault, Outbound};
use super::flood::{DRIB, Flood};
use super::frame::{Code, END_STREAM, FrameHeader, PADDED};
use super::receive::take;
use super::settings::Role;
use super::stream::{Key, Reset};
use super::window::Overflow;

/// What small frames of a client that wait may cost beyond their bytes. A block of messages of a dozen bytes, a frame each,
/// costs less; one of single bytes costs more. An endpoint's are not counted: its connection is many clients'.
const DRIBS: u32 = 3 << 19;

impl<B: AsRef<[u8]>, W: Default> Connection<B, W> {
    /// A DATA frame begins.
    pub(super) fn data_begins(&mut self, header: FrameHeader, out: &mut impl Outbound) -> Result<(), Fault> {
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
            None if self.role == Role::Server && (self.skipped.contains(&id) || self.streams.has_ended(id)) => {
                Code::STREAM_CLOSED
            }
            None => return self.ignores(bytes),
            Some(slot) => match self.streams.at(slot) {
                Some(stream) => match stream.reset {
                    Some(Reset::Remote(_)) if self.role == Role::Server => Code::STREAM_CLOSED,
                    Some(_) => return self.ignores(bytes),
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

    /// Nobody does, and its peer need not have known that. Larger frames are no dearer than any.
    fn ignores(&mut self, bytes: u32) -> Result<Option<Key>, Fault> {
        self.late(u32::from((bytes as usize) < DRIB))?;
        Ok(None)
    }

    pub(super) fn data_goes_on(
        &mut self,
        mut arriving: Arriving,
        rest: &mut &[u8],
        out: &mut impl Outbound,
    ) -> Result<(), Fault> {
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
            let unreleased = stream.give_up();
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
            self.guard.take(Flood::Empty, 1)?;
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
