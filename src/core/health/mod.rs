//! Whether something can be used, found out by asking it: when to ask ([`Checker`]), and a question that needs no socket
//! ([`Conversation`]).

mod active;
mod conversation;

pub use active::{ActiveCheck, CALM, Changed, Checker, MAX_DAMPING, Probe, ProbeError};
pub use conversation::{Conversation, Next, Outgoing, judge_answer};
