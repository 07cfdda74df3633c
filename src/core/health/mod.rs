//! Whether something that cannot be asked directly can be used: active checks.

mod active;

pub use active::{ActiveCheck, Changed, Checker, Probe, ProbeError};
