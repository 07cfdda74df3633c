//! System calls that the runtime does not make for us: one of the two rooms with `unsafe`.
//!
//! Most of it is rustix, which is safe; what is not safe is turning a number back into a descriptor, and that is done
//! here and nowhere else.

pub mod bpf;
