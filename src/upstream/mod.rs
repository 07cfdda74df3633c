//! Connections to endpoints.

mod connect;
mod pool;

pub use connect::{ConnectError, Connection, connect};
pub use pool::{Endpoint, Pooled};
