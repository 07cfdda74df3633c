//! Backends, their endpoints, and connections to them.

mod backend;
mod connect;
mod pool;

pub use backend::{Balanced, Lease, Tried};
pub use connect::{ConnectError, ConnectFailure, Connected, Dial, Reuse, connect};
pub use pool::{Endpoint, Pooled};
