//! The interface of streams, whatever frames come: a connection always ends, and nothing panics.
#![no_main]

#[path = "../harness/http2_server.rs"]
mod harness;

use libfuzzer_sys::fuzz_target;
use ringway::rt::Driver;

fuzz_target!(|data: &[u8]| {
    let (end, _, _) = harness::serve(Driver::Epoll, data);
    assert!(end.is_some(), "it has ended without saying how");
});
