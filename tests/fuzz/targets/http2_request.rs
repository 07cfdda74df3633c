//! A request of HTTP/2 that is taken can be written as one of HTTP/1.1, and its fields are lines there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_core::http2::Fields;
use ringway_core::http2::request::{FieldStorage, Pseudo, request};
use ringway_core::model::ClientLimits;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|byte| *byte == 0xff);
    let mut next = || parts.next().unwrap_or_default();
    let (method, authority, path) = (next(), next(), next());
    let rest: Vec<&[u8]> = parts.collect();
    let fields: Fields = rest.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let protocol = data.first().is_some_and(|byte| byte & 1 == 1).then_some(&b"websocket"[..]);
    let pseudo =
        Pseudo { method, authority: Some(authority), path, protocol, end_stream: data.len() % 2 == 0, whole: None };
    let mut storage = FieldStorage::default();
    let limits = ClientLimits::default();
    let Ok(head) = request(pseudo, &fields, &mut storage, &limits) else { return };
    let control = |bytes: &[u8]| bytes.iter().any(|byte| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f);
    assert!(!control(head.method_token) && !control(head.authority) && !control(&head.path));
    assert!(!head.query.is_some_and(control));
    for (name, value) in head.fields() {
        assert!(!name.contains(&b':') && !name.contains(&b' ') && !control(name) && !control(value));
    }
});
