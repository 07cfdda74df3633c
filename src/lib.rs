//! Ringway: an edge proxy and load balancer.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "memory that the kernel writes to; the invariants are in the module")]
pub mod buffer;
pub mod control;
pub mod downstream;
pub mod metrics;
pub mod relay;
pub mod rt;
pub mod snapshot;
#[allow(unsafe_code, reason = "descriptors behind numbers; the invariants are in the module")]
pub mod sys;
pub mod upstream;
pub mod worker;
