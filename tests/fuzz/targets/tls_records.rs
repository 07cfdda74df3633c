//! Any records at an established TLS connection, of either side and version: they come to the same however they are cut.
#![no_main]

#[path = "../harness/tls_records.rs"]
mod harness;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [first, piece, script @ ..] = data else { return };
    let whole = harness::run(*first, script, usize::MAX);
    assert_eq!(harness::run(*first, script, 1 + usize::from(*piece)), whole);
});
