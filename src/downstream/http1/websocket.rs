//! WebSocket between the versions of HTTP: an upgrade in HTTP/1.1 (RFC 6455 section 4) and an extended CONNECT in HTTP/2
//! (RFC 8441 section 5), which has no key and no proof that it was understood.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a key is joined with before it is hashed (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Gives a head without a key one. It ends with its empty line.
pub(super) fn add_key(head: &mut Vec<u8>, high: u64, low: u64) {
    if field(head, b"sec-websocket-key").is_some() {
        return;
    }
    let key = STANDARD.encode((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
    head.truncate(head.len() - 2);
    for part in [&b"sec-websocket-key: "[..], key.as_bytes(), b"\r\n\r\n"] {
        head.extend_from_slice(part);
    }
}

/// The key of a head that asks for WebSocket; empty where it has none.
pub(super) fn key(head: &[u8]) -> Option<&[u8]> {
    let asks = field(head, b"upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    asks.then(|| field(head, b"sec-websocket-key").unwrap_or_default())
}

/// What proves that a key was understood.
pub(super) fn accept(key: &[u8]) -> String {
    let both = [key, GUID].concat();
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &both))
}

/// The head that HTTP/1.1 has for a success of extended CONNECT.
pub(super) fn switched(head: &[u8], accept: &str) -> Vec<u8> {
    let fields = memchr::memmem::find(head, b"\r\n").map_or(head.len(), |end| end + 2);
    let mut switched = Vec::with_capacity(head.len() + 128);
    for part in [
        &b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: "[..],
        accept.as_bytes(),
        b"\r\n",
    ] {
        switched.extend_from_slice(part);
    }
    for line in lines(&head[fields..]) {
        // There is no body whose length could be said.
        if !named(line, b"content-length") {
            switched.extend_from_slice(line);
            switched.extend_from_slice(b"\r\n");
        }
    }
    switched.extend_from_slice(b"\r\n");
    switched
}

fn field<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let line = lines(head).find(|line| named(line, name))?;
    Some(ringway_core::http::trim(&line[name.len() + 1..]))
}

fn named(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) && line.get(name.len()) == Some(&b':')
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 1.3.
    #[test]
    fn a_key_is_proved() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn heads_change_sides() {
        let mut head = b"GET /chat HTTP/1.1\r\nHost: a\r\nconnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n".to_vec();
        assert_eq!(key(&head), Some(&b""[..]));
        add_key(&mut head, 0, 1);
        assert_eq!(key(&head), Some(&b"AAAAAAAAAAAAAAAAAAAAAQ=="[..]));
        let once = head.clone();
        add_key(&mut head, 2, 3);
        assert_eq!(head, once);
        assert_eq!(key(b"GET / HTTP/1.1\r\nupgrade: other\r\n\r\n"), None);
        let told = switched(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nsec-websocket-protocol: x\r\n\r\n", "proof");
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("HTTP/1.1 101 ") && told.ends_with("sec-websocket-protocol: x\r\n\r\n"), "{told}");
        assert!(told.contains("sec-websocket-accept: proof\r\n") && !told.contains("content-length"), "{told}");
    }
}
