//! Whose turn it is: one policy per file, of numbers only.
//!
//! A policy is asked for an index among a backend's endpoints. What it needs to know of them (in flight, latency, age)
//! and random numbers are arguments; whether an endpoint may be used at all is its caller's affair.

pub mod hash;
pub mod key;
pub mod least_request;
mod maglev;
pub mod peak_ewma;
mod random;
pub mod slow_start;
mod weighted;

pub use least_request::Load;
pub use maglev::{Maglev, Member, TableSize};
pub use peak_ewma::PeakEwma;
pub use random::Random;
pub use weighted::WeightedRoundRobin;

/// A number below `count` (not 0) out of a random one, by its upper bits.
#[inline]
pub(crate) fn draw(random: u64, count: usize) -> usize {
    usize::try_from((u128::from(random) * count as u128) >> 64).expect("below a usize")
}
