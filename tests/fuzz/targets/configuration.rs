//! Configuration in several files and generations: loading ends, by errors or by a model, and what has no error means the same everywhere.
#![no_main]

#[path = "../harness/configuration.rs"]
#[allow(dead_code, reason = "two targets share it")]
mod harness;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| harness::configuration(data));
