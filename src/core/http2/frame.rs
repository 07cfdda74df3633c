//! Frames: their headers, and what stands in those that have a fixed form (RFC 9113 sections 4 and 6).

/// Length of a frame's header (section 4.1).
pub const HEADER: usize = 9;

/// What a frame's payload may be long, as long as nobody has said otherwise: nobody does here (section 4.2).
pub const MAX_PAYLOAD: usize = 16_384;

/// What a client sends first (section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest window (section 6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The window that a stream and a connection begin with (section 6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// DATA
pub const DATA: u8 = 0;
/// HEADERS
pub const HEADERS: u8 = 1;
/// PRIORITY
pub const PRIORITY: u8 = 2;
/// RST_STREAM
pub const RST_STREAM: u8 = 3;
/// SETTINGS
pub const SETTINGS: u8 = 4;
/// PUSH_PROMISE
pub const PUSH_PROMISE: u8 = 5;
/// PING
pub const PING: u8 = 6;
/// GOAWAY
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION
pub const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// ACK of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// PADDED of DATA and HEADERS.
pub const PADDED: u8 = 0x8;
/// PRIORITY of HEADERS.
pub const WITH_PRIORITY: u8 = 0x20;

/// Why a stream is reset or a connection ends (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// NO_ERROR
    pub const NO_ERROR: Self = Self(0);
    /// PROTOCOL_ERROR
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// INTERNAL_ERROR
    pub const INTERNAL_ERROR: Self = Self(2);
    /// FLOW_CONTROL_ERROR
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// STREAM_CLOSED
    pub const STREAM_CLOSED: Self = Self(5);
    /// FRAME_SIZE_ERROR
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// REFUSED_STREAM
    pub const REFUSED_STREAM: Self = Self(7);
    /// CANCEL
    pub const CANCEL: Self = Self(8);
    /// COMPRESSION_ERROR
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// ENHANCE_YOUR_CALM
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload.
    pub length: usize,
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// From its bytes.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes;
        Self {
            length: usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low),
            kind,
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes(stream) & MAX_WINDOW,
        }
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; HEADER] {
        let [.., high, middle, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }

    /// Whether it has a flag.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A HEADERS frame's fragment of a field block, and whether the stream depends on itself (section 6.2).
pub(super) fn fragment(header: FrameHeader, mut payload: &[u8]) -> Result<(&[u8], bool), Code> {
    let mut padding = 0;
    if header.has(PADDED) {
        let (first, rest) = payload.split_first().ok_or(Code::FRAME_SIZE_ERROR)?;
        (padding, payload) = (usize::from(*first), rest);
    }
    let mut on_itself = false;
    if header.has(WITH_PRIORITY) {
        let (priority, rest) = payload.split_first_chunk::<5>().ok_or(Code::FRAME_SIZE_ERROR)?;
        on_itself = dependency(priority) == header.stream;
        payload = rest;
    }
    let length = payload.len().checked_sub(padding).ok_or(Code::PROTOCOL_ERROR)?;
    Ok((&payload[..length], on_itself))
}

/// What a stream depends on (section 5.3.2).
pub(super) fn dependency(&[a, b, c, d, _weight]: &[u8; 5]) -> u32 {
    u32::from_be_bytes([a, b, c, d]) & MAX_WINDOW
}

/// A number that is all of a frame.
pub(super) fn number(payload: &[u8]) -> Result<u32, Code> {
    Ok(u32::from_be_bytes(payload.try_into().map_err(|_other_size| Code::FRAME_SIZE_ERROR)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        let header = FrameHeader { length: 0x01_02_03, kind: 9, flags: 0x25, stream: 0x7fff_fffe };
        assert_eq!(header.bytes(), [1, 2, 3, 9, 0x25, 0x7f, 0xff, 0xff, 0xfe]);
        assert_eq!(FrameHeader::parse(&header.bytes()), header);
        // The reserved bit.
        assert_eq!(FrameHeader::parse(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).stream, MAX_WINDOW);
    }

    #[test]
    fn fragments_without_padding_and_priority() {
        let header = |flags| FrameHeader { length: 0, kind: HEADERS, flags, stream: 3 };
        assert_eq!(fragment(header(0), b"abc"), Ok((&b"abc"[..], false)));
        assert_eq!(fragment(header(PADDED), b"\x02abcde"), Ok((&b"abc"[..], false)));
        assert_eq!(fragment(header(WITH_PRIORITY), b"\x80\0\0\x01\x10abc"), Ok((&b"abc"[..], false)));
        assert_eq!(fragment(header(WITH_PRIORITY), b"\0\0\0\x03\x10"), Ok((&b""[..], true)));
        let both = fragment(header(PADDED | WITH_PRIORITY), b"\x01\0\0\0\0\0a-");
        assert_eq!(both, Ok((&b"a"[..], false)));
        assert_eq!(fragment(header(PADDED), b"\x06abcde"), Err(Code::PROTOCOL_ERROR));
        assert_eq!(fragment(header(PADDED), b""), Err(Code::FRAME_SIZE_ERROR));
        assert_eq!(fragment(header(WITH_PRIORITY), b"abcd"), Err(Code::FRAME_SIZE_ERROR));
    }
}
