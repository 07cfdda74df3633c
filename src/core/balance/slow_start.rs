//! Slow start: an endpoint that has just come takes a growing part of its share.
//!
//! Its share grows in a straight line over the window, from a tenth on (Envoy's `min_weight_percent` and an aggression
//! of 1). A turn that it is not ready for goes to the next.

/// A whole share, in the units of [`share`].
pub const WHOLE: u32 = 1024;

/// The part of its share that an endpoint of this age takes; both in one unit of time.
#[inline]
pub fn share(age: u64, window: u64) -> u32 {
    if age >= window {
        return WHOLE;
    }
    let part = u128::from(age) * u128::from(WHOLE) / u128::from(window);
    u32::try_from(part).expect("less than the whole").max(WHOLE / 10)
}

/// Whether an endpoint with this part of its share takes its turn, by a random number.
#[inline]
pub fn takes_turn(share: u32, random: u64) -> bool {
    share >= WHOLE || super::draw(random, WHOLE as usize) < share as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_a_tenth_to_the_whole() {
        assert_eq!(share(0, 30), WHOLE / 10);
        assert_eq!(share(15, 30), WHOLE / 2);
        assert_eq!([share(30, 30), share(31, 30), share(0, 0), share(u64::MAX, 1)], [WHOLE; 4]);
        assert!((0..1000).map(|age| share(age, 1000)).is_sorted());
        assert_eq!(share(u64::MAX - 1, u64::MAX), WHOLE - 1);
    }

    #[test]
    fn turns_are_taken_by_share() {
        let taken = |share| (0..WHOLE.into()).filter(|n: &u64| takes_turn(share, n << 54)).count();
        assert_eq!([taken(WHOLE), taken(WHOLE / 2), taken(102)], [1024, 512, 102]);
    }
}
