//! What of one generation is in the next: found out once, on the control thread, so that no worker has to look for it.

use std::collections::HashMap;

use super::Snapshot;

/// Where the routes and backends of a snapshot were in the one before.
#[derive(Debug, Default)]
pub struct Carried {
    /// The generation before.
    pub from: u64,
    /// By `RouteId`: its number there.
    pub routes: Vec<Option<u32>>,
    /// By `BackendId`.
    pub backends: Vec<Before>,
}

/// What a backend was.
#[derive(Debug, PartialEq, Eq)]
pub enum Before {
    /// The same in everything, under this number.
    Same(u32),
    /// Those of its name, which had other endpoints or settings.
    Named(Box<[u32]>),
}

impl Carried {
    /// From `old` to `new`.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let known = numbers(old.routes.iter().map(String::as_str));
        let routes = new.routes.iter().map(|name| known.get(name.as_str())?.first().copied()).collect();
        let known = numbers(old.backends.iter().map(|backend| backend.name.as_str()));
        let before = |backend: &ringway_core::model::Backend| {
            let named = known.get(backend.name.as_str()).map_or(&[][..], Vec::as_slice);
            match named.iter().find(|number| old.backends[**number as usize] == *backend) {
                Some(same) => Before::Same(*same),
                None => Before::Named(named.into()),
            }
        };
        Self { from: old.generation, routes, backends: new.backends.iter().map(before).collect() }
    }
}

/// By name: the places of those that have it.
fn numbers<'n>(names: impl Iterator<Item = &'n str>) -> HashMap<&'n str, Vec<u32>> {
    let mut found: HashMap<&str, Vec<u32>> = HashMap::with_capacity(names.size_hint().0);
    for (number, name) in (0..).zip(names) {
        found.entry(name).or_default().push(number);
    }
    found
}

#[cfg(test)]
mod tests {
    use ringway_core::model::{Backend, BackendSettings};

    use super::*;

    fn snapshot(generation: u64, backends: &[(&str, u32)], routes: &[&str]) -> Snapshot {
        let backend = |(name, attempts): &(&str, u32)| Backend {
            name: (*name).to_owned(),
            policy: None,
            endpoints: Vec::new(),
            settings: BackendSettings { connect_attempts: *attempts, ..BackendSettings::default() },
        };
        Snapshot {
            generation,
            backends: backends.iter().map(backend).collect(),
            routes: routes.iter().map(|name| (*name).to_owned()).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn what_stays_what_changes_and_what_is_new() {
        let old = snapshot(7, &[("a", 1), ("b", 1), ("b", 2)], &["r", "s"]);
        let new = snapshot(8, &[("new", 1), ("b", 2), ("b", 3), ("a", 1)], &["s", "t", "r"]);
        let carried = Carried::between(&old, &new);
        assert_eq!(carried.from, 7);
        assert_eq!(carried.routes, [Some(1), None, Some(0)]);
        let named = |numbers: &[u32]| Before::Named(numbers.into());
        assert_eq!(carried.backends, [named(&[]), Before::Same(2), named(&[1, 2]), Before::Same(0)]);
    }
}
