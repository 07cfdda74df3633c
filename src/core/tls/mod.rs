//! What TLS shows before it is encrypted.

mod client_hello;
mod ja4;

pub use client_hello::{ClientHello, HelloError, HelloReader, MAX_HELLO, ServerName};
