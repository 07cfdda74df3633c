//! TLS (RFC 8446, RFC 5246) by rustls and aws-lc-rs.
//!
//! A leaf: nothing here knows sockets, the event loop or the configuration's files. [`Session`] is a connection without
//! its socket; `rt::Stream` owns one when it is encrypted.

mod session;

pub use session::{Session, Taken, Version};
