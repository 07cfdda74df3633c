//! Least request: power of two choices over requests or connections in flight.
//!
//! One candidate is whose turn it is by weighted round robin, the other is drawn; the one with fewer in flight for its
//! weight is picked. While loads are equal this is round robin, exactly; when they are not, it avoids the busy one of
//! any two, which keeps the longest queue near the mean at the cost of two looks (Mitzenmacher, 2001). The counts have
//! to be those of all cores: cores that know only their own send everything to one endpoint together.

use super::draw;

/// What a candidate has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests or connections that it has been given and not finished.
    pub in_flight: u32,
    /// Its share relative to the others'; not 0.
    pub weight: u64,
}

impl Load {
    /// Whether it would have less to do for its weight than `other` if the next one came to it.
    #[inline]
    pub fn is_less_than(self, other: Self) -> bool {
        (u64::from(self.in_flight) + 1) * other.weight < (u64::from(other.in_flight) + 1) * self.weight
    }
}

/// Picks among `count` endpoints: the one whose `turn` it is, or a random other one that has less to do.
#[inline]
pub fn pick(count: usize, turn: usize, random: u64, load: impl Fn(usize) -> Load) -> usize {
    let other = another(count, turn, random);
    if load(other).is_less_than(load(turn)) { other } else { turn }
}

/// Any but `this`, if there is another.
#[inline]
pub(super) fn another(count: usize, this: usize, random: u64) -> usize {
    if count < 2 {
        return this;
    }
    let other = this + 1 + draw(random, count - 1);
    if other < count { other } else { other - count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let loads = [3, 1, 2];
        let load = |index: usize| Load { in_flight: loads[index], weight: 1 };
        for turn in 0..3 {
            for other in 0..3 {
                // The second candidate is decided by the upper bits.
                let random = (0..64).map(|n: u64| n << 58).find(|n| another(3, turn, *n) == other);
                let Some(random) = random else {
                    assert_eq!(turn, other);
                    continue;
                };
                let expected = if loads[other] < loads[turn] { other } else { turn };
                assert_eq!(pick(3, turn, random, load), expected);
            }
        }
    }

    #[test]
    fn equal_loads_keep_the_turn() {
        let load = |_| Load { in_flight: 7, weight: 1 };
        assert!((0..100).all(|n: u64| pick(5, 2, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), load) == 2));
        assert_eq!(pick(1, 0, u64::MAX, load), 0);
    }

    #[test]
    fn weights_count() {
        let light = Load { in_flight: 0, weight: 1 };
        let heavy = |in_flight| Load { in_flight, weight: 10 };
        assert!(!light.is_less_than(heavy(9)) && !heavy(9).is_less_than(light));
        assert!(light.is_less_than(heavy(10)) && heavy(8).is_less_than(light));
        let most = Load { in_flight: u32::MAX, weight: 1_000_000 << 10 };
        assert!(!most.is_less_than(most));
    }
}
