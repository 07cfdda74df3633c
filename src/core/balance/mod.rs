//! Whose turn it is.

pub mod hash;
mod maglev;
mod weighted;

pub use maglev::{Maglev, Member, TableSize};
pub use weighted::WeightedRoundRobin;
