//! Look-ups by host, from precise names over wildcards to everything.

use super::HashMap;
use crate::model::HostPattern;

/// Values by host pattern, looked up from the specific to the general.
#[derive(Debug)]
pub struct HostMap<T> {
    exact: HashMap<String, T>,
    /// By suffix with its leading dot.
    wildcard: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default(), any: None }
    }
}

impl<T> HostMap<T> {
    /// The value of a pattern, made if there is none.
    pub fn entry(&mut self, pattern: &HostPattern, make: impl FnOnce() -> T) -> &mut T {
        match pattern {
            HostPattern::Any => self.any.get_or_insert_with(make),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_insert_with(make),
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_insert_with(make),
        }
    }

    /// The values whose pattern matches `host`, most specific first, until `f` returns something.
    pub fn find<'t, R>(&'t self, host: &str, mut f: impl FnMut(&'t T) -> Option<R>) -> Option<R> {
        if !self.exact.is_empty()
            && let Some(value) = self.exact.get(host)
            && let Some(found) = f(value)
        {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            // A suffix behind the first label, the first two, and so on: the longest first.
            for (at, _) in host.match_indices('.').filter(|(at, _)| *at > 0) {
                if let Some(value) = self.wildcard.get(&host[at..])
                    && let Some(found) = f(value)
                {
                    return Some(found);
                }
            }
        }
        self.any.as_ref().and_then(f)
    }

    /// All values with their patterns, the most specific first.
    pub fn by_precedence(&self) -> Vec<(HostPattern, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (HostPattern::Exact(name.clone()), value));
        let wildcard = self.wildcard.iter().map(|(suffix, value)| (HostPattern::Wildcard(suffix.clone()), value));
        let mut all: Vec<_> =
            exact.chain(wildcard).chain(self.any.as_ref().map(|value| (HostPattern::Any, value))).collect();
        all.sort_by_key(|(pattern, _)| {
            let (rank, name) = match pattern {
                HostPattern::Exact(name) => (0, name.clone()),
                HostPattern::Wildcard(suffix) => (1, suffix.clone()),
                HostPattern::Any => (2, String::new()),
            };
            (rank, usize::MAX - name.len(), name)
        });
        all
    }

    /// All values, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.wildcard.values_mut()).chain(&mut self.any)
    }
}
