//! SETTINGS (RFC 9113 section 6.5).

use super::frame::{self, Code, DEFAULT_WINDOW, FrameHeader, MAX_PAYLOAD, MAX_WINDOW};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It sends requests.
    Client,
    /// It answers them.
    Server,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// SETTINGS_MAX_CONCURRENT_STREAMS, for a server.
    pub streams: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE, in bytes.
    pub header_list: u32,
    /// SETTINGS_INITIAL_WINDOW_SIZE, in bytes: what one stream may have waiting. At least the protocol's default, which
    /// is what a peer goes by that has not seen it.
    pub stream_window: u32,
    /// The connection's window, in bytes.
    pub window: u32,
    /// Streams that the peer may make this side reset at once before the connection ends, by data beyond a window, say, or
    /// a malformed request (CVE-2025-8671). Time and messages that are sent to their end win them back.
    pub provoked_resets: u32,
}

impl Limits {
    /// What windows of streams begin with.
    pub(super) fn stream_window(&self) -> u32 {
        self.stream_window.clamp(DEFAULT_WINDOW, MAX_WINDOW)
    }
}

/// What the peer has said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// What windows of streams begin with.
    pub(super) window: u32,
    /// Streams at a time, once it has said so.
    pub(super) streams: Option<u32>,
    /// It takes extended CONNECT (RFC 8441 section 3).
    pub(super) connect: bool,
    /// What the table of its decoder may hold.
    pub(super) table: Option<u32>,
    /// The least that it has said in one frame, which has to be kept to as well (RFC 7541 section 4.2).
    pub(super) table_least: Option<u32>,
}

impl Default for Peer {
    fn default() -> Self {
        Self { window: DEFAULT_WINDOW, streams: None, connect: false, table: None, table_least: None }
    }
}

impl Peer {
    /// Takes a frame's payload.
    pub(super) fn read(&mut self, payload: &[u8], role: Role) -> Result<(), Code> {
        let (settings, []) = payload.as_chunks::<6>() else { return Err(Code::FRAME_SIZE_ERROR) };
        for &[high, low, a, b, c, d] in settings {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([high, low]) {
                HEADER_TABLE_SIZE => {
                    self.table = Some(value);
                    self.table_least = Some(self.table_least.map_or(value, |least| least.min(value)));
                }
                // A server has nothing to enable (section 6.5.2).
                ENABLE_PUSH if value > u32::from(role == Role::Server) => return Err(Code::PROTOCOL_ERROR),
                MAX_CONCURRENT_STREAMS => self.streams = Some(value),
                INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(Code::FLOW_CONTROL_ERROR),
                INITIAL_WINDOW_SIZE => self.window = value,
                // Larger frames than all take are not sent.
                MAX_FRAME_SIZE if !(MAX_PAYLOAD..1 << 24).contains(&(value as usize)) => {
                    return Err(Code::PROTOCOL_ERROR);
                }
                ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Code::PROTOCOL_ERROR),
                ENABLE_CONNECT_PROTOCOL => self.connect = value == 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// This side's frame.
pub(super) fn write(role: Role, limits: &Limits, out: &mut Vec<u8>) {
    let settings: &[(u16, u32)] = match role {
        Role::Client => &[
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, limits.stream_window()),
            (MAX_HEADER_LIST_SIZE, limits.header_list),
        ],
        Role::Server => &[
            (MAX_CONCURRENT_STREAMS, limits.streams),
            (INITIAL_WINDOW_SIZE, limits.stream_window()),
            (MAX_HEADER_LIST_SIZE, limits.header_list),
            (ENABLE_CONNECT_PROTOCOL, 1),
        ],
    };
    // What is the default anyway is not said.
    let said = settings.iter().filter(|setting| **setting != (INITIAL_WINDOW_SIZE, DEFAULT_WINDOW));
    let header = FrameHeader { length: 6 * said.clone().count(), kind: frame::SETTINGS, flags: 0, stream: 0 };
    out.extend_from_slice(&header.bytes());
    for (name, value) in said {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Role, settings: &[(u16, u32)]) -> Result<Peer, Code> {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut peer = Peer::default();
        peer.read(&payload, role).map(|()| peer)
    }

    #[test]
    fn values_have_bounds() {
        let peer =
            read(Role::Client, &[(1, 0), (3, 7), (4, 1), (4, MAX_WINDOW), (5, 16_384), (8, 1), (99, 5)]).unwrap();
        assert_eq!((peer.table, peer.streams, peer.window, peer.connect), (Some(0), Some(7), MAX_WINDOW, true));
        let twice = read(Role::Client, &[(1, 4096), (1, 0), (1, 100)]).unwrap();
        assert_eq!((twice.table_least, twice.table), (Some(0), Some(100)));
        for (role, name, value, code) in [
            (Role::Server, 2, 2, Code::PROTOCOL_ERROR),
            (Role::Client, 2, 1, Code::PROTOCOL_ERROR),
            (Role::Server, 4, 1 << 31, Code::FLOW_CONTROL_ERROR),
            (Role::Server, 5, 16_383, Code::PROTOCOL_ERROR),
            (Role::Server, 5, 1 << 24, Code::PROTOCOL_ERROR),
            (Role::Client, 8, 2, Code::PROTOCOL_ERROR),
        ] {
            assert_eq!(read(role, &[(name, value)]).err(), Some(code), "{name}: {value}");
        }
        assert!(read(Role::Server, &[(2, 1)]).is_ok());
        assert_eq!(Peer::default().read(&[0; 7], Role::Server), Err(Code::FRAME_SIZE_ERROR));
    }
}
