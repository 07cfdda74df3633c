//! Any bytes at a connection of HTTP/2, of either role: it ends or goes on, and says the same however they come.
#![no_main]

#[path = "../harness/http2_connection.rs"]
mod harness;

use libfuzzer_sys::fuzz_target;
use ringway_core::http2::Role;

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let whole = harness::run(role, bytes, usize::MAX);
    assert_eq!(harness::run(role, bytes, 1 + usize::from(first >> 1)), whole);
});
