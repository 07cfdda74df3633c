//! Random choice by weight.

use super::draw;

/// Weights, ready to be drawn from.
#[derive(Debug, Clone)]
pub struct Random {
    /// Sums of the weights up to and with each index; empty when all weights are equal.
    sums: Box<[u64]>,
    count: usize,
}

impl Random {
    /// Over `weights`; one of zero is never drawn.
    pub fn new(weights: &[u32]) -> Self {
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]) && weights.first().is_some_and(|first| *first > 0);
        let mut sum = 0;
        let sums = weights.iter().map(|weight| {
            sum += u64::from(*weight);
            sum
        });
        Self { sums: if even { Box::default() } else { sums.collect() }, count: weights.len() }
    }

    /// Draws an index by a random number; `None` when every weight is zero.
    #[inline]
    pub fn pick(&self, random: u64) -> Option<usize> {
        if self.sums.is_empty() {
            return (self.count > 0).then(|| draw(random, self.count));
        }
        let whole = *self.sums.last()?;
        let at = u64::try_from((u128::from(random) * u128::from(whole)) >> 64).expect("below a sum of 64 bits");
        (whole > 0).then(|| self.sums.partition_point(|sum| *sum <= at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::hash;

    fn counts(weights: &[u32], draws: u64) -> Vec<u64> {
        let random = Random::new(weights);
        let mut counts = vec![0; weights.len()];
        for n in 0..draws {
            counts[random.pick(hash::bytes(&n.to_le_bytes())).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [&[1, 1, 1, 1][..], &[1, 0, 2, 7], &[1_000_000, 1_000_000, 500_000]] {
            let whole: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (count, weight) in counts(weights, 100_000).into_iter().zip(weights) {
                let expected = 100_000 * u64::from(*weight) / whole;
                assert!(count.abs_diff(expected) <= 700, "{count} of {expected}");
                assert!(*weight > 0 || count == 0);
            }
        }
    }

    #[test]
    fn nobody() {
        assert_eq!(Random::new(&[]).pick(1), None);
        assert_eq!(Random::new(&[0, 0]).pick(u64::MAX), None);
    }
}
