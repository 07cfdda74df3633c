//! What rounds say, and what they do not.
//!
//! A round measures every contender once, one after the other, so a slow minute of the machine is in all of them. Two
//! contenders are therefore compared round by round: one ratio per round. How far the median of these ratios can be
//! trusted follows from their order alone, without any assumption about how noise is distributed: each ratio lies
//! below the true median with probability 1/2, so the true median lies between the k-th smallest and the k-th largest
//! of n with the probability that of n coins neither fewer than k nor more than n - k show heads. The narrowest such
//! interval that is right 95 times in 100 is used. With fewer than six rounds there is none: a verdict needs six.
//!
//! Results of different runs have no rounds in common; there each side has an interval of its own, and a verdict needs
//! that they do not touch, which is the stricter test.

use serde::{Deserialize, Serialize};

/// How often an interval has to hold the true median.
const CONFIDENCE: f64 = 0.95;

/// The middle of sorted or unsorted values; none of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sort(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn sort(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Median, smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sort(values);
        Some(Self { median: median(&sorted)?, min: *sorted.first()?, max: *sorted.last()? })
    }
}

/// Where the true median lies, 95 times in 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The probability that of `n` coins fewer than `k` show heads.
fn fewer_heads(n: usize, k: usize) -> f64 {
    let mut ways = 1.0;
    let mut sum = 0.0;
    for heads in 0..k {
        sum += ways;
        ways = ways * (n - heads) as f64 / (heads + 1) as f64;
    }
    sum / 2.0_f64.powi(i32::try_from(n).unwrap_or(i32::MAX))
}

impl Interval {
    /// The interval of the median of these values; none with fewer than six.
    pub(crate) fn of_median(values: &[f64]) -> Option<Self> {
        let sorted = sort(values);
        let n = sorted.len();
        // k counts from 1: the k-th smallest and the k-th largest.
        let k = (1..=n / 2).take_while(|&k| 1.0 - 2.0 * fewer_heads(n, k) >= CONFIDENCE).last()?;
        Some(Self { low: sorted[k - 1], high: sorted[n - k] })
    }

    /// Whether all of it lies on one side of the other.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        self.high < other.low || other.high < self.low
    }
}

/// Whether more of a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Less,
    More,
}

/// What a ratio means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Better,
    Worse,
    /// The rounds do not tell the two apart.
    Unresolved,
}

fn judge(below: bool, above: bool, goal: Goal) -> Verdict {
    match (below, above, goal) {
        (true, _, Goal::Less) | (_, true, Goal::More) => Verdict::Better,
        (true, _, Goal::More) | (_, true, Goal::Less) => Verdict::Worse,
        (false, false, _) => Verdict::Unresolved,
    }
}

/// A contender's figure as a multiple of another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// The median of the rounds' ratios, the smallest and the largest.
    pub(crate) spread: Spread,
    /// The interval of the median; none with fewer than six rounds.
    pub(crate) interval: Option<Interval>,
    pub(crate) verdict: Verdict,
    pub(crate) rounds: usize,
    /// The number of rounds from which on the verdict stood as it is, if it is one.
    pub(crate) resolved_after: Option<usize>,
}

fn verdict(ratios: &[f64], goal: Goal) -> Verdict {
    let Some(interval) = Interval::of_median(ratios) else { return Verdict::Unresolved };
    judge(interval.high < 1.0, interval.low > 1.0, goal)
}

impl Ratio {
    /// Compares figures of the same rounds.
    pub(crate) fn paired(ours: &[f64], theirs: &[f64], goal: Goal) -> Option<Self> {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).filter(|ratio| ratio.is_finite()).collect();
        let final_verdict = verdict(&ratios, goal);
        let resolved_after = (final_verdict != Verdict::Unresolved).then(|| {
            let stands = |count: &usize| verdict(&ratios[..*count], goal) == final_verdict;
            (1..=ratios.len()).rev().take_while(stands).last().unwrap_or(ratios.len())
        });
        Some(Self {
            spread: Spread::of(&ratios)?,
            interval: Interval::of_median(&ratios),
            verdict: final_verdict,
            rounds: ratios.len(),
            resolved_after,
        })
    }
}

/// A figure after a change, beside the same before it, of different runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) before: Spread,
    pub(crate) after: Spread,
    /// After divided by before, of the medians.
    pub(crate) ratio: f64,
    pub(crate) verdict: Verdict,
}

impl Change {
    pub(crate) fn of(before: &[f64], after: &[f64], goal: Goal) -> Option<Self> {
        let (was, is) = (Spread::of(before)?, Spread::of(after)?);
        let intervals = Interval::of_median(before).zip(Interval::of_median(after));
        let apart = intervals.filter(|(before, after)| after.is_apart_from(before));
        let verdict = apart.map_or(Verdict::Unresolved, |(before, after)| {
            judge(after.high < before.low, after.low > before.high, goal)
        });
        Some(Self { before: was, after: is, ratio: is.median / was.median, verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    }

    /// The ranks that tables of the sign test give for 95 %.
    #[test]
    fn the_interval_has_the_ranks_of_the_sign_test() {
        for (n, rank) in [(6, 1), (7, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18)] {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            let expected = Interval { low: f64::from(rank), high: f64::from(n + 1 - rank) };
            assert_eq!(Interval::of_median(&values), Some(expected), "{n} values");
        }
        for n in 0..6 {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            assert_eq!(Interval::of_median(&values), None, "{n} values cannot be that sure");
        }
    }

    /// The promise itself, on noise of a skewed distribution whose true median is known.
    #[test]
    fn the_interval_holds_the_true_median_as_often_as_it_says() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for rounds in [6, 7, 9, 15] {
            let trials = 4000;
            let mut held = 0;
            for _ in 0..trials {
                // Exponential with median 1.
                let values: Vec<f64> = (0..rounds).map(|_| -(1.0 - uniform()).log2()).collect();
                let found = Interval::of_median(&values).unwrap();
                held += u32::from(found.low <= 1.0 && 1.0 <= found.high);
            }
            let share = f64::from(held) / f64::from(trials);
            assert!(share >= 0.94, "{rounds} rounds: {share}");
        }
    }

    #[test]
    fn a_verdict_needs_rounds_that_agree() {
        let ours = [8.0, 8.1, 7.9, 8.2, 8.0, 8.1, 7.8];
        let theirs = [10.0, 10.2, 9.9, 10.1, 10.0, 10.1, 10.0];
        let ratio = Ratio::paired(&ours, &theirs, Goal::Less).unwrap();
        assert_eq!((ratio.verdict, ratio.resolved_after), (Verdict::Better, Some(6)));
        assert_eq!(Ratio::paired(&theirs, &ours, Goal::Less).unwrap().verdict, Verdict::Worse);
        assert_eq!(Ratio::paired(&ours, &theirs, Goal::More).unwrap().verdict, Verdict::Worse);
        // One round of seven in which it was the other way round.
        let mut doubtful = ours;
        doubtful[3] = 10.2;
        let ratio = Ratio::paired(&doubtful, &theirs, Goal::Less).unwrap();
        assert_eq!((ratio.verdict, ratio.resolved_after), (Verdict::Unresolved, None));
        // Five rounds are not enough, however far apart.
        assert_eq!(Ratio::paired(&ours[..5], &theirs[..5], Goal::Less).unwrap().verdict, Verdict::Unresolved);
        assert!(Ratio::paired(&[], &[], Goal::Less).is_none());
    }

    #[test]
    fn noise_that_is_common_to_a_round_does_not_hide_a_difference() {
        let theirs = [10.0, 20.0, 11.0, 30.0, 10.0, 15.0];
        let ours: Vec<f64> = theirs.iter().map(|value| value * 0.9).collect();
        assert_eq!(Ratio::paired(&ours, &theirs, Goal::Less).unwrap().verdict, Verdict::Better);
        // As results of different runs the same figures say nothing.
        assert_eq!(Change::of(&theirs, &ours, Goal::Less).unwrap().verdict, Verdict::Unresolved);
    }

    #[test]
    fn results_of_two_runs_need_intervals_that_do_not_touch() {
        let before = [10.0, 10.1, 9.9, 10.2, 10.0, 9.8];
        let after: Vec<f64> = before.iter().map(|value| value * 0.95).collect();
        let change = Change::of(&before, &after, Goal::Less).unwrap();
        assert_eq!(change.verdict, Verdict::Better);
        assert!((change.ratio - 0.95).abs() < 1e-9);
        assert_eq!(Change::of(&after, &before, Goal::Less).unwrap().verdict, Verdict::Worse);
        let touching: Vec<f64> = before.iter().map(|value| value * 0.97).collect();
        assert_eq!(Change::of(&before, &touching, Goal::Less).unwrap().verdict, Verdict::Unresolved);
        assert!(!Interval { low: 1.0, high: 2.0 }.is_apart_from(&Interval { low: 2.0, high: 3.0 }));
    }
}
