//! Ringway: an edge proxy and load balancer, one process, one thread per core.
//!
//! ```text
//! data     worker -> downstream (tcp | http1) -> core::route -> core::balance -> upstream -> relay
//! control  control::provider -> yaml -> resources -> graph -> translate -> core::model -> snapshot -> worker
//!                                                     +----> status
//! xdp      core::model -> xdp::engine -> maps <- the program that the kernel runs (direct server return)
//! admin    metrics (per core, read only) -> metrics::prometheus -> admin
//! ```
//!
//! Threads: the control thread (`server`) loads configuration and answers admin requests; every worker runs one event
//! loop with its own listening sockets, pools, buffers and counters. A worker shares nothing that it writes. What it
//! serves arrives as one message and is swapped in one step.
//!
//! The words are the Gateway API's and Envoy's: a *listener* belongs to a Gateway, several share a *socket*; a
//! *backend* is what a backendRef resolves to, an *endpoint* one place to connect to; *downstream* is the client's
//! side, *upstream* the endpoints'.
//!
//! What must not be: `ringway-core` performs no I/O and reads no clock; only `rt` names the runtime; only `sys` and
//! `buffer` have unsafe code; the data path does not know `control`. `tests/arch.rs` holds these.
#![deny(unsafe_code)]

pub mod admin;
pub mod auth;
#[allow(unsafe_code, reason = "memory that the kernel writes to; the invariants are in the module")]
pub mod buffer;
pub mod cli;
pub mod compress;
pub mod control;
pub mod diff;
pub mod doctor;
pub mod downstream;
pub mod explain;
pub mod http2;
pub mod import;
pub mod metrics;
pub mod relay;
pub mod rt;
pub mod server;
pub mod session;
pub mod snapshot;
#[allow(unsafe_code, reason = "descriptors behind numbers; the invariants are in the module")]
pub mod sys;
pub mod term;
pub mod tls;
pub mod upstream;
pub mod worker;
pub mod xdp;
