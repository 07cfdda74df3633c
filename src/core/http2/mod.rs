//! HTTP/2 (RFC 9113), but for the sockets.
//!
//! A [`Connection`] is driven by whoever has its bytes: those that come go in, frames go out into a block, and what
//! happens in between are requests, answers and bodies on streams. Heads go as lines of HTTP/1.1, and come as [`Fields`]:
//! those of requests are judged in [`request`], and those of answers as they are decoded, so that nothing in them can split
//! or smuggle a message of HTTP/1.1 when it is written as one.
//!
//! The layers: [`frame`] knows bytes, `hpack` field blocks (RFC 7541), `section` what a message's fields may be, `window`
//! credit, `stream` what is known of one stream, and `connection`, with `receive` (of which `blocks` and `bodies` are
//! parts) and `send`, the rules between them. [`flood`] says what a client may not do too much of.

mod blocks;
mod bodies;
mod connection;
pub mod flood;
pub mod frame;
pub mod hpack;
mod lines;
mod receive;
pub mod request;
mod section;
mod send;
mod settings;
mod stream;
mod window;

pub use connection::{Connection, End, Event, Gone, Outbound};
pub(crate) use section::Tagged;
pub use section::{Fields, PseudoField, TRAILER_LIMIT};
pub use send::{Incoming, Refusal};
pub use settings::{Limits, Role};
pub use stream::{Key, Reset, Spares};
