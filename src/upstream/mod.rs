//! Backends, their endpoints, and connections to them.

mod backend;
mod budget;
mod connect;
mod limits;
mod multiplexed;
mod pool;

pub use backend::{Balanced, Lease, Tried};
pub use budget::{Budget, CoreBudget};
pub use connect::{ConnectError, ConnectFailure, Connected, Dial, Link, Reuse, connect};
pub use limits::{Gate, Kind, Limiter, Permit};
pub use multiplexed::{Multiplexed, MultiplexedSlot};
pub use pool::{Endpoint, Marks, Pooled};
