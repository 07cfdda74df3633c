//! Connections to endpoints.

mod connect;
mod pool;

pub use connect::{Connection, ConnectError, connect};
pub use pool::{Endpoint, Pooled};
