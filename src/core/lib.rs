//! Ringway's protocol logic.
//!
//! Everything here is pure: no sockets, no clock, no threads, no logs, no metrics. Time, randomness and limits are
//! arguments; what happened is returned as values. That is what lets one piece of code serve production, the seeded
//! simulator and the fuzz targets alike. The shells (`worker`, `downstream`, `upstream`, `relay` of the `ringway`
//! crate) own the bytes and the waiting.
//!
//! Three habits hold throughout:
//!
//! * A parser is a function of a slice with three outcomes: done, needs more, wrong. Every prefix of a real capture
//!   is a test.
//! * A state machine is driven, it does not drive: events go in by methods, decisions come out as return values.
//! * Configuration types cannot express an invalid state; whatever builds them has parsed, not validated.
#![forbid(unsafe_code)]

pub mod access;
pub mod balance;
pub mod concurrency;
pub mod deadline;
pub mod dsr;
pub mod flow;
pub mod grpc;
pub mod health;
pub mod http;
pub mod http1;
pub mod http2;
pub mod model;
pub mod proxy_protocol;
pub mod rate;
pub mod retry;
pub mod route;
pub mod session;
pub mod tls;
