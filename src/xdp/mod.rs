//! L4 direct server return by an XDP program: requests go through it, answers do not come back here.
//!
//! ```text
//! core::model -> engine (tables by core::balance::Maglev, neighbours by netlink) -> maps <- program
//! ```
//! The program is written out by [`program`] when it is needed: no compiler, no library and no file of another language
//! stands between this source and what the kernel verifies.

mod asm;
pub mod engine;
mod guard;
pub mod maps;
mod prober;
pub mod program;
mod tables;
mod task;

pub use task::{Destination, Dsr, Status};
