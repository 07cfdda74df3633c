//! Direct server return: the program against the reference, and whole networks in namespaces of their own.
//!
//! These tests need root. Without it each says that it is left out and how many have been; as root with `CI=true`
//! there is no leaving out.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod forwarding;
mod frames;
mod more;
mod net;
mod network;
mod program;
mod proxying;
mod routing;
mod support;
