//! HTTP/2 connections: the only module that knows which codec speaks it.
//!
//! The codec is the `h2` crate. It brings the traits of an I/O library, not a runtime: `transport` moves its bytes by
//! our streams. What the rest sees is a [`Server`] that yields [`Request`]s, whose heads are lines and whose bodies are
//! bytes with credit: a peer is given credit for what has gone on to the other side, and only that, so a side that does
//! not read stops the one that sends.
//!
//! Frames, HPACK, windows and stream states are the codec's; what a request may say is judged by
//! `ringway_core::http2`, and a codec of our own would replace this module alone.

mod client;
mod message;
mod server;
mod transport;

pub use client::{Client, ClientSettings, Failure, Incoming, Received, Sending, Slot};
pub use message::{Body, Gone, Head, Outgoing, Request, Reset, Respond, TRAILER_LIMIT};
pub use server::{End, Server, Settings};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 64 << 10;
