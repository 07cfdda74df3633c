//! Smooth weighted round robin.
//!
//! Weights 5, 1, 1 give `a a b a c a a`, not `a a a a a b c`: a backend's share is spread over the round. The order of
//! one round depends on the weights alone, so it is worked out once and then walked, one step per pick.

/// Longest round that is worked out ahead.
const MAX_ROUND: u64 = 4096;

/// A round robin over indices with weights.
#[derive(Debug, Clone)]
pub struct WeightedRoundRobin {
    order: Order,
}

#[derive(Debug, Clone)]
enum Order {
    /// All weights are zero, or there are none.
    Nobody,
    /// A whole round, and the position in it.
    Round(Box<[u32]>, u32),
    /// Weights whose round is too long: one step of the algorithm per pick.
    Steps(Box<[Step]>, i64),
}

#[derive(Debug, Clone, Copy)]
struct Step {
    weight: i64,
    current: i64,
}

impl WeightedRoundRobin {
    /// Over `weights`, beginning at a place of the round that `start` decides. A weight of zero is never picked.
    pub fn new(weights: &[u32], start: u32) -> Self {
        let divisor = weights.iter().fold(0, |a, &b| gcd(a, b));
        if divisor == 0 {
            return Self { order: Order::Nobody };
        }
        let total: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
        let mut steps: Box<[Step]> =
            weights.iter().map(|&weight| Step { weight: i64::from(weight / divisor), current: 0 }).collect();
        let whole = i64::try_from(total).unwrap_or(i64::MAX);
        if total <= MAX_ROUND {
            let round: Box<[u32]> = (0..total).map(|_| step(&mut steps, whole)).collect();
            let place = start % u32::try_from(total).expect("at most MAX_ROUND");
            return Self { order: Order::Round(round, place) };
        }
        for _ in 0..u64::from(start) % MAX_ROUND {
            step(&mut steps, whole);
        }
        Self { order: Order::Steps(steps, whole) }
    }

    /// The next index; `None` when every weight is zero.
    #[allow(clippy::should_implement_trait, reason = "it is no iterator: it never ends")]
    pub fn next(&mut self) -> Option<usize> {
        match &mut self.order {
            Order::Nobody => None,
            Order::Round(round, place) => {
                let index = round[*place as usize];
                *place += 1;
                if *place as usize == round.len() {
                    *place = 0;
                }
                Some(index as usize)
            }
            Order::Steps(steps, whole) => Some(step(steps, *whole) as usize),
        }
    }
}

/// Everybody gains its weight; who has most is picked and pays the whole.
fn step(steps: &mut [Step], whole: i64) -> u32 {
    let mut best = 0;
    for index in 0..steps.len() {
        steps[index].current += steps[index].weight;
        if steps[index].current > steps[best].current {
            best = index;
        }
    }
    steps[best].current -= whole;
    u32::try_from(best).expect("fewer than 2^32 weights")
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], start: u32, count: usize) -> Vec<usize> {
        let mut turn = WeightedRoundRobin::new(weights, start);
        (0..count).map(|_| turn.next().unwrap()).collect()
    }

    #[test]
    fn shares_are_exact_and_spread() {
        assert_eq!(picks(&[5, 1, 1], 0, 7), [0, 0, 1, 0, 2, 0, 0]);
        for weights in [&[1, 1, 1][..], &[90, 10], &[3, 0, 7], &[1_000_000, 1], &[999_983, 17, 1_000_000]] {
            let total = weights.iter().sum::<u32>() as usize;
            for start in [0, 1, 12_345] {
                let mut counts = vec![0; weights.len()];
                for index in picks(weights, start, total) {
                    counts[index] += 1;
                }
                assert_eq!(counts, weights, "start {start}");
            }
        }
    }

    #[test]
    fn zero_weights_take_nothing() {
        assert_eq!(WeightedRoundRobin::new(&[0, 0], 3).next(), None);
        assert_eq!(WeightedRoundRobin::new(&[], 3).next(), None);
        assert!(!picks(&[0, 1], 0, 10).contains(&0));
    }

    #[test]
    fn starts_differ() {
        assert_ne!(picks(&[1, 1, 1], 0, 1), picks(&[1, 1, 1], 1, 1));
    }
}
