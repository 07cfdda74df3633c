//! HTTP/2 connections: what `ringway_core::http2` says about them, on our streams.
//!
//! `transport` has a connection's bytes: it gives what has been read to the core's state machine, which writes frames
//! into the block that leaves next. What the rest sees is a [`Server`] that yields [`Request`]s, and a [`Client`] with
//! [`Slot`]s for them. Heads come as fields and go as lines, and bodies are bytes with credit: a peer is given credit for what has gone on to the
//! other side, and only that, so a side that does not read stops the one that sends.
//!
//! A stream is a handle of its connection. Whoever has one reads what has come into its own buffer, and writes straight
//! into the connection's block; a task per connection moves the blocks. Nothing is allocated for a frame, and for a
//! request nothing that is not kept for the next.

mod client;
mod message;
mod server;
mod transport;

pub use client::{Client, ClientSettings, Failure, Incoming, Received, Sending, Slot};
pub use message::{Body, Gone, Head, Outgoing, Request, Reset, Respond, Section};
pub use ringway_core::http2::TRAILER_LIMIT;
pub use server::{End, Server, Settings};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = ringway_core::http2::frame::PREFACE;
