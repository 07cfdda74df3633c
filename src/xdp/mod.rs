//! L4 direct server return by an XDP program: requests go through it, answers do not come back here.
//!
//! ```text
//! core::model -> sync (core::balance::maglev) -> maps <- program (emitted here, run by the kernel)
//! ```
//! The program is written out by [`program`] when it is needed: no compiler, no library and no file of another language
//! stands between this source and what the kernel verifies.

mod asm;
pub mod maps;
pub mod program;
