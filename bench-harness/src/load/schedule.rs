//! The open loop: requests start when they are due, and their latency counts from then.
//!
//! A closed loop asks the next question only after the answer: while the server stalls it asks nothing, and the stall
//! appears once instead of in every request that would have come (coordinated omission). Here the starts are fixed
//! beforehand. What is due while no connection is free waits, and the wait is part of its latency.
//!
//! Pure: time is an argument, in nanoseconds.

use std::collections::VecDeque;

/// Hands due requests to free connections.
#[derive(Debug)]
pub(crate) struct Schedule {
    begin: f64,
    interval: f64,
    /// How many have become due.
    due: u64,
    waiting: VecDeque<u64>,
    free: VecDeque<usize>,
}

impl Schedule {
    /// `rate` requests a second, the first at `begin`.
    pub(crate) fn new(rate: f64, begin: u64) -> Self {
        let interval = 1e9 / rate;
        Self { begin: begin as f64, interval, due: 0, waiting: VecDeque::new(), free: VecDeque::new() }
    }

    /// The intended start of a request. Counted from the beginning, so that no rounding adds up.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "nanoseconds of a run fit, and are positive"
    )]
    fn start(&self, index: u64) -> u64 {
        (self.begin + self.interval * index as f64) as u64
    }

    /// When the next request is due.
    pub(crate) fn next_due(&self) -> u64 {
        self.start(self.due)
    }

    /// Everything that has become due by `now` is given to free connections, the longest free first; the rest waits.
    pub(crate) fn advance(&mut self, now: u64, mut give: impl FnMut(usize, u64)) {
        while self.next_due() <= now {
            let intended = self.next_due();
            self.due += 1;
            match self.free.pop_front() {
                Some(connection) => give(connection, intended),
                None => self.waiting.push_back(intended),
            }
        }
    }

    /// A connection has its answer: the intended start of the request that has waited longest, or it stays free.
    pub(crate) fn release(&mut self, connection: usize) -> Option<u64> {
        let waited = self.waiting.pop_front();
        if waited.is_none() {
            self.free.push_back(connection);
        }
        waited
    }

    /// The intended start of the request that has waited longest, once nothing more is to become due.
    pub(crate) fn next_waiting(&mut self) -> Option<u64> {
        self.waiting.pop_front()
    }

    /// What was due and never started.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Latencies;

    const MS: u64 = 1_000_000;

    /// A server that answers each request after `service`, but nothing within the stalls: what would be answered in
    /// one is answered at its end.
    struct Server {
        service: u64,
        stalls: Vec<(u64, u64)>,
    }

    impl Server {
        fn answers(&self, started: u64) -> u64 {
            let done = started + self.service;
            self.stalls.iter().find(|stall| stall.0 < done && done < stall.1).map_or(done, |stall| stall.1)
        }
    }

    /// Runs the schedule against the server on `connections`, a tick at a time.
    fn simulate(server: &Server, rate: f64, connections: usize, until: u64, tick: u64) -> (Latencies, Latencies) {
        let mut schedule = Schedule::new(rate, 0);
        let (mut from_intended, mut from_sent) = (Latencies::default(), Latencies::default());
        let mut busy: Vec<(u64, usize, u64, u64)> = Vec::new();
        for connection in 0..connections {
            assert_eq!(schedule.release(connection), None);
        }
        let mut now = 0;
        while now <= until || !busy.is_empty() {
            busy.sort_unstable();
            while busy.first().is_some_and(|first| first.0 <= now) {
                let (done, connection, intended, sent) = busy.remove(0);
                from_intended.record(done - intended);
                from_sent.record(done - sent);
                if let Some(intended) = schedule.release(connection) {
                    busy.push((server.answers(done), connection, intended, done));
                    busy.sort_unstable();
                }
            }
            if now <= until {
                schedule.advance(now, |connection, intended| {
                    busy.push((server.answers(now), connection, intended, now));
                });
            }
            now += tick;
        }
        (from_intended, from_sent)
    }

    #[test]
    fn a_stall_counts_for_every_request_that_fell_into_it() {
        // 1,000 a second for 10 seconds, one connection, answers in 0.1 ms, and one stall of a whole second: a tenth of
        // the requests fall into it, and wait for half a second on average.
        let server = Server { service: MS / 10, stalls: vec![(4000 * MS, 5000 * MS)] };
        let (from_intended, from_sent) = simulate(&server, 1000.0, 1, 10_000 * MS, MS / 10);
        assert_eq!(from_intended.count(), 10_001);
        // Requests due at 4.000, 4.001, ... wait 1000, 999, ... ms and then for those before them, 0.1 ms each: the
        // queue of 1,000 drains by 0.9 ms per ms, so until about 5.11 s. The 90th percentile lies within that tail.
        assert!((from_intended.at(50.0) - 100.0).abs() < 5.0, "{}", from_intended.at(50.0));
        let p99 = from_intended.at(99.0) / 1e3;
        assert!((880.0..920.0).contains(&p99), "p99 is {p99} ms; 1 % of 10,000 are the 100 that waited longest");
        let p95 = from_intended.at(95.0) / 1e3;
        assert!((530.0..570.0).contains(&p95), "p95 is {p95} ms");
        assert!((from_intended.quantiles().max / 1e3 - 1000.0).abs() < 2.0);
        // Counted from the sending, the stall hit a single request: the mistake that this module exists to avoid.
        assert!(from_sent.at(99.9) < 110.0, "{}", from_sent.at(99.9));
    }

    #[test]
    fn free_connections_take_requests_while_others_are_stalled() {
        // With more connections than fall due in a stall nothing waits for a connection, and both counts agree.
        let server = Server { service: MS / 10, stalls: vec![(100 * MS, 150 * MS)] };
        let (from_intended, from_sent) = simulate(&server, 1000.0, 100, 1000 * MS, MS / 10);
        assert_eq!(from_intended.quantiles(), from_sent.quantiles());
        // 50 of 1,001 requests fell into the stall: those due at 100 to 149 ms.
        assert!(from_intended.at(94.9) < 110.0 && from_intended.at(95.5) > 1000.0);
    }

    #[test]
    fn an_overloaded_server_shows_a_growing_wait_not_a_lower_rate() {
        // Twice what one connection with 2 ms per answer can carry: the last of 1,000 waits for half of the run.
        let server = Server { service: 2 * MS, stalls: vec![] };
        let (from_intended, from_sent) = simulate(&server, 1000.0, 1, 999 * MS, MS);
        let unfinished = 1000 - from_intended.count();
        assert!(from_intended.quantiles().max / 1e3 > 480.0, "{:?} {unfinished}", from_intended.quantiles());
        assert!(from_sent.quantiles().max / 1e3 <= 3.0);
    }

    #[test]
    fn starts_do_not_drift() {
        let schedule = |due| Schedule { due, ..Schedule::new(30_000.0, 5) };
        assert_eq!(schedule(0).next_due(), 5);
        assert_eq!(schedule(30_000).next_due(), 1_000_000_005);
        assert_eq!(schedule(30_000 * 3600).next_due(), 3_600_000_000_005);
        let mut late = Schedule::new(1000.0, 0);
        let mut given = Vec::new();
        assert_eq!(late.release(7), None);
        late.advance(2 * MS, |connection, intended| given.push((connection, intended)));
        assert_eq!(given, [(7, 0)]);
        assert_eq!(late.release(7), Some(MS));
        late.advance(3 * MS, |_, _| panic!("no connection is free"));
        assert_eq!(late.next_waiting(), Some(2 * MS));
        assert_eq!(late.abandon().collect::<Vec<_>>(), [3 * MS]);
        assert_eq!(late.next_waiting(), None);
    }
}
