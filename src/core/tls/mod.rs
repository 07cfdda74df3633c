//! What TLS shows before it is encrypted, and records of established connections but for their cipher.

mod client_hello;
pub mod established;
mod ja4;
pub mod record;

pub use client_hello::{ClientHello, HelloError, HelloReader, MAX_HELLO, ServerName};
