//! Whose turn it is.

mod weighted;

pub use weighted::WeightedRoundRobin;
