//! HTTP/2 (RFC 9113): requests in the model that requests of HTTP/1.1 are parsed to, and what clients may not flood.
//!
//! Frames are the shell's. What is decided here is what a request of HTTP/2 may say, so that nothing in it can
//! split or smuggle a message of HTTP/1.1 when it is written as one.

pub mod flood;
pub mod hpack;
pub mod request;
