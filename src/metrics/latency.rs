//! Request latencies: per core and route, from the first byte of the head to the last byte of the answer.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use ringway_core::model::RouteId;

/// Longest latency recorded, in microseconds; what takes longer counts as this.
const MAX_MICROS: u64 = 3_600_000_000;

/// One core's histograms.
#[derive(Debug, Default)]
pub struct Latencies {
    by_route: Vec<Option<Box<Histogram<u32>>>>,
}

/// A copy of a core's histograms.
#[derive(Debug, Default)]
pub struct LatencySnapshot {
    /// By route, those that have served anything.
    pub by_route: Vec<(RouteId, Histogram<u32>)>,
}

/// Two significant digits: a value is at most 1 % off, and a histogram takes about 12 KiB.
fn histogram<T: hdrhistogram::Counter>() -> Histogram<T> {
    Histogram::new_with_bounds(1, MAX_MICROS, 2).expect("constant bounds that are in order")
}

impl Latencies {
    /// Records a request.
    pub fn record(&mut self, route: RouteId, micros: u64) {
        let index = route.0 as usize;
        if self.by_route.len() <= index {
            self.by_route.resize_with(index + 1, || None);
        }
        self.by_route[index].get_or_insert_with(|| Box::new(histogram())).saturating_record(micros.max(1));
    }

    /// Copies what there is.
    pub fn snapshot(&self) -> LatencySnapshot {
        let copy = |(index, histogram): (usize, &Option<Box<Histogram<u32>>>)| {
            let id = RouteId(u32::try_from(index).expect("route ids are 32 bits"));
            histogram.as_deref().map(|histogram| (id, histogram.clone()))
        };
        LatencySnapshot { by_route: self.by_route.iter().enumerate().filter_map(copy).collect() }
    }

    /// Carries the histograms of routes that stay over to their new ids; `before` says which they had.
    pub fn rebind(&mut self, before: &[Option<u32>]) {
        let mut old = std::mem::take(&mut self.by_route);
        let mut carry = |before: &Option<u32>| old.get_mut((*before)? as usize)?.take();
        self.by_route = before.iter().map(&mut carry).collect();
    }
}

/// All cores' copies, merged by route.
pub fn merge(snapshots: impl IntoIterator<Item = LatencySnapshot>) -> HashMap<RouteId, Histogram<u64>> {
    let mut merged: HashMap<RouteId, Histogram<u64>> = HashMap::new();
    for (route, recorded) in snapshots.into_iter().flat_map(|snapshot| snapshot.by_route) {
        let all = merged.entry(route).or_insert_with(histogram::<u64>);
        for step in recorded.iter_recorded() {
            all.saturating_record_n(step.value_iterated_to(), u64::from(step.count_at_value()));
        }
    }
    merged
}
