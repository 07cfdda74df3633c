//! Nanoseconds per route look-up with 10 and with 10,000 routes, in interleaved rounds.
//!
//!     cargo bench -p ringway-core --bench route
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark for people")]

use std::hint::black_box;
use std::time::Instant;

use ringway_core::model::{
    Action, Filters, HostPattern, HttpListener, HttpMatch, HttpRoute, HttpRule, PathMatch, RouteId, RouteTimeouts,
};
use ringway_core::route::{FieldLookup, Found, RequestKey, RouteTable};

struct NoFields;

impl FieldLookup for NoFields {
    fn values(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}
}

const ROUNDS: usize = 15;
const LOOKUPS: usize = 20_000;

/// Where the routes differ.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Hosts,
    Paths,
    Both,
}

fn host(shape: Shape, index: usize) -> String {
    match shape {
        Shape::Paths => "www.example.com".to_owned(),
        Shape::Hosts => format!("host-{index}.example.com"),
        Shape::Both => format!("host-{}.example.com", index / 100),
    }
}

fn path(shape: Shape, index: usize) -> String {
    match shape {
        Shape::Hosts => "/api/v1".to_owned(),
        Shape::Paths => format!("/api/service-{index}/v1"),
        Shape::Both => format!("/api/service-{}/v1", index % 100),
    }
}

fn table(shape: Shape, count: usize) -> RouteTable {
    let routes = (0..count)
        .map(|index| HttpRoute {
            grpc: false,
            id: RouteId(u32::try_from(index).unwrap()),
            hostnames: vec![HostPattern::Exact(host(shape, index))],
            rules: vec![HttpRule {
                matches: vec![HttpMatch { path: PathMatch::Prefix(path(shape, index)), ..HttpMatch::default() }],
                filters: Filters::default(),
                action: Action::Fail(500),
                timeouts: RouteTimeouts::default(),
                extras: None,
            }],
        })
        .collect();
    RouteTable::compile(&[HttpListener { name: "l".to_owned(), hostname: HostPattern::Any, routes, responses: None }])
}

/// Nanoseconds per look-up of every route in turn.
fn round(table: &RouteTable, requests: &[(String, String)]) -> f64 {
    let start = Instant::now();
    for index in 0..LOOKUPS {
        let (host, path) = &requests[index * 7919 % requests.len()];
        let key = RequestKey { host, path: path.as_bytes(), query: None, method: b"GET", fields: &NoFields };
        let found = table.find(black_box(&key));
        assert!(matches!(found, Found::Rule { .. }));
    }
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let count = LOOKUPS as f64;
    start.elapsed().as_secs_f64() * 1e9 / count
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    for shape in [Shape::Hosts, Shape::Paths, Shape::Both] {
        let sizes = [10, 10_000];
        let tables: Vec<_> = sizes
            .iter()
            .map(|size| {
                let requests: Vec<_> =
                    (0..*size).map(|index| (host(shape, index), path(shape, index) + "/item/5")).collect();
                (table(shape, *size), requests)
            })
            .collect();
        let mut figures = vec![Vec::new(); sizes.len()];
        for _ in 0..ROUNDS {
            for (index, (table, requests)) in tables.iter().enumerate() {
                figures[index].push(round(table, requests));
            }
        }
        let medians: Vec<f64> = figures.into_iter().map(median).collect();
        println!(
            "{shape:?}: 10 routes {:.0} ns, 10,000 routes {:.0} ns, ratio {:.2}",
            medians[0],
            medians[1],
            medians[1] / medians[0]
        );
    }
}
