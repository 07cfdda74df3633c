//! Latency histograms: nanoseconds, three significant digits, up to a minute and a half.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency told apart; what is longer counts as this.
const LONGEST: u64 = 90_000_000_000;

/// The share of requests, in percent, at which a curve has a point: dense where the tail is.
const CURVE: &[f64] = &[
    0.0, 10.0, 25.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 96.0, 97.0, 98.0, 98.5, 99.0, 99.25, 99.5,
    99.7, 99.8, 99.9, 99.93, 99.95, 99.97, 99.98, 99.99, 99.995, 99.999, 99.9995, 99.9999,
];

/// Latencies of one or several rounds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// The same as pairs of a value in nanoseconds and how often it came, as it crosses between processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counts(Vec<(u64, u64)>);

/// The figures of a histogram, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are constants that the crate accepts"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds.max(1));
    }

    pub(crate) fn add(&mut self, counts: &Counts) {
        for &(value, times) in &counts.0 {
            self.0.saturating_record_n(value, times);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms here have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts(self.0.iter_recorded().map(|each| (each.value_iterated_to(), each.count_at_value())).collect())
    }

    /// The latency in microseconds that `percent` of the requests did not exceed.
    pub(crate) fn at(&self, percent: f64) -> f64 {
        self.0.value_at_quantile(percent / 100.0) as f64 / 1e3
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        if self.0.is_empty() {
            return Quantiles::default();
        }
        Quantiles { p50: self.at(50.0), p99: self.at(99.0), p999: self.at(99.9), max: self.0.max() as f64 / 1e3 }
    }

    /// Points of percent and microseconds, as far into the tail as ten requests or more lie beyond; then the largest.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let count = self.0.len() as f64;
        if count == 0.0 {
            return Vec::new();
        }
        let resolved = |percent: f64| percent <= 90.0 || count * (100.0 - percent) / 100.0 >= 10.0;
        let mut points: Vec<_> =
            CURVE.iter().filter(|&&percent| resolved(percent)).map(|&percent| (percent, self.at(percent))).collect();
        points.push((100.0, self.0.max() as f64 / 1e3));
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::default();
        // 1 to 10,000 microseconds, each once.
        for microseconds in 1..=10_000_u64 {
            latencies.record(microseconds * 1000);
        }
        let found = latencies.quantiles();
        for (found, exact) in [(found.p50, 5000.0), (found.p99, 9900.0), (found.p999, 9990.0), (found.max, 10_000.0)] {
            assert!((found - exact).abs() / exact < 0.001, "{found} instead of {exact}");
        }
    }

    #[test]
    fn counts_carry_everything_to_another_process() {
        let mut first = Latencies::default();
        for nanoseconds in [0, 1, 999, 1_000_000, 80_000_000_000, u64::MAX] {
            first.record(nanoseconds);
        }
        let text = serde_json::to_string(&first.counts()).unwrap();
        let mut second = Latencies::default();
        second.add(&serde_json::from_str(&text).unwrap());
        assert_eq!(first.count(), second.count());
        assert_eq!(first.quantiles(), second.quantiles());
    }

    #[test]
    fn a_curve_ends_where_too_few_requests_lie_beyond() {
        let mut latencies = Latencies::default();
        for nanoseconds in 0..1000_u64 {
            latencies.record(nanoseconds);
        }
        let points = latencies.curve();
        assert!(points.iter().any(|point| point.0 == 99.0));
        assert!(!points.iter().any(|point| point.0 == 99.9));
        assert_eq!(points.last().map(|point| point.0), Some(100.0));
        assert!(Latencies::default().curve().is_empty());
    }
}
