//! Ingresses with annotations: a translation ends, and what it writes can be loaded.
#![no_main]

#[path = "../harness/configuration.rs"]
#[allow(dead_code, reason = "two targets share it")]
mod harness;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| harness::import(data));
