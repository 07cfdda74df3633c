//! Which rule serves a request.
//!
//! Precedence is the Gateway API's (HTTPRouteRule.matches): the listener with the most specific hostname first, and
//! only its routes; then, among all matches of those routes, the one with the most specific hostname, then an exact
//! path, a regular expression, the longest prefix, a method, the most header conditions, the most query conditions, the
//! oldest route, the first rule. The API leaves the place of regular expressions open; between exact and prefix, longer
//! patterns first, is where Envoy Gateway has it.
//!
//! The table walks from the specific to the general and stops at the first match, so that the cost of a request does
//! not depend on how many routes there are: a hash look-up per hostname label, a hash look-up for exact paths, and a
//! walk down a tree of path elements that ends where the configuration does, however long the request's path is.

mod hosts;
mod path;
mod query;
mod trace;
mod tree;

use crate::model::{
    Action, Filters, HeaderMatch, HttpListener, HttpMatch, PathMatch, QueryMatch, RouteId, RouteTimeouts, RuleExtras,
};
use tree::PathTree;

pub use hosts::HostMap;
pub use path::replace_path;
pub use query::first as first_query_param;
pub use trace::{CandidateSeen, Fate, ListenerSeen, Lost, PathCondition, Trace};

/// Keys come from the configuration, and what the network asks for is only looked up, so that nobody can fill a bucket;
/// a hash seeded per process is enough. A look-up in a table of 10,000 routes takes 1,152 instructions with it,
/// 1,930 with the standard one.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A rule's index in [`RouteTable::rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(u32);

impl RuleId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The routes of one HTTP socket.
#[derive(Debug)]
pub struct RouteTable {
    rules: Vec<CompiledRule>,
    listeners: HostMap<(usize, HostMap<PathTable>)>,
}

/// What a rule does.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its route.
    pub route: RouteId,
    /// Its place in the route.
    pub rule_index: usize,
    /// What is changed on the way.
    pub filters: Filters,
    /// What is done.
    pub action: Action,
    /// Deadlines.
    pub timeouts: RouteTimeouts,
    /// What most rules do not have.
    pub extras: Option<Box<RuleExtras>>,
}

/// What a request is matched by.
#[derive(Debug)]
pub struct RequestKey<'a, L> {
    /// In lower case, without a port.
    pub host: &'a str,
    /// Normalised.
    pub path: &'a [u8],
    /// Behind the `?`.
    pub query: Option<&'a [u8]>,
    /// As on the wire.
    pub method: &'a [u8],
    /// Its header fields.
    pub fields: &'a L,
}

/// Header fields by name.
pub trait FieldLookup {
    /// Calls `f` with the value of every field of this name, which is given in lower case, in order.
    fn values(&self, name: &str, f: &mut dyn FnMut(&[u8]));
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'t> {
    /// A rule.
    Rule {
        /// The listener, by its index when the table was compiled.
        listener: usize,
        /// The rule.
        rule: RuleId,
        /// Which kind of path condition held.
        matched: Matched<'t>,
    },
    /// The listener has no rule for it.
    NoRule {
        /// The listener, by its index when the table was compiled.
        listener: usize,
    },
    /// No listener takes this host.
    NoListener,
}

/// Which kind of path condition held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched<'t> {
    /// The whole path.
    Exact,
    /// A regular expression.
    Regex,
    /// This prefix, as configured but without a trailing slash.
    Prefix(&'t str),
}

/// The rules of one host pattern of one listener.
#[derive(Debug, Default)]
struct PathTable {
    exact: HashMap<Vec<u8>, Vec<Candidate>>,
    regex: Vec<(regex::bytes::Regex, Vec<Candidate>)>,
    prefixes: PathTree<Candidate>,
}

/// One match of one rule, without its path.
#[derive(Debug, Clone)]
struct Candidate {
    rule: RuleId,
    /// Place among the matches of the rule.
    match_index: usize,
    method: Option<Vec<u8>>,
    headers: Vec<HeaderMatch>,
    query: Vec<QueryMatch>,
    /// Place among all matches of the listener: older routes, earlier rules, earlier matches first.
    order: usize,
}

impl Candidate {
    /// Sorts the more specific first.
    fn rank(&self) -> (bool, usize, usize, usize) {
        (self.method.is_none(), usize::MAX - self.headers.len(), usize::MAX - self.query.len(), self.order)
    }

    fn matches<L: FieldLookup>(&self, request: &RequestKey<'_, L>) -> bool {
        self.fails(request).is_none()
    }
}

/// Lines of one name count as one value, joined by commas (RFC 9110 section 5.3).
fn header_matches<L: FieldLookup>(wanted: &HeaderMatch, fields: &L) -> bool {
    let mut lines = 0;
    let mut single = false;
    fields.values(&wanted.name, &mut |value| {
        lines += 1;
        single = wanted.value.matches(value);
    });
    if lines < 2 {
        return single;
    }
    let mut joined = Vec::new();
    fields.values(&wanted.name, &mut |value| {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(value);
    });
    wanted.value.matches(&joined)
}

fn first_match<L: FieldLookup>(candidates: &[Candidate], request: &RequestKey<'_, L>) -> Option<RuleId> {
    candidates.iter().find(|candidate| candidate.matches(request)).map(|candidate| candidate.rule)
}

impl RouteTable {
    /// Compiles the listeners of one socket.
    pub fn compile(listeners: &[HttpListener]) -> Self {
        let mut table = Self { rules: Vec::new(), listeners: HostMap::default() };
        for (index, listener) in listeners.iter().enumerate() {
            let hosts = table.compile_listener(listener);
            table.listeners.entry(&listener.hostname, || (index, hosts));
        }
        table
    }

    fn compile_listener(&mut self, listener: &HttpListener) -> HostMap<PathTable> {
        let mut hosts: HostMap<PathTable> = HostMap::default();
        let mut order = 0;
        for route in &listener.routes {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                let id = RuleId(u32::try_from(self.rules.len()).expect("fewer rules than 2^32"));
                self.rules.push(CompiledRule {
                    route: route.id,
                    rule_index,
                    filters: rule.filters.clone(),
                    action: rule.action.clone(),
                    timeouts: rule.timeouts,
                    extras: rule.extras.clone(),
                });
                for (match_index, condition) in rule.matches.iter().enumerate() {
                    order += 1;
                    for hostname in &route.hostnames {
                        hosts.entry(hostname, PathTable::default).insert(condition, id, match_index, order);
                    }
                }
            }
        }
        hosts.values_mut().for_each(PathTable::sort);
        hosts
    }

    /// All rules; [`RuleId`] is an index here.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The rule that serves a request.
    pub fn find<L: FieldLookup>(&self, request: &RequestKey<'_, L>) -> Found<'_> {
        let Some((listener, hosts)) = self.listeners.find(request.host, |(index, hosts)| Some((*index, hosts))) else {
            return Found::NoListener;
        };
        match hosts.find(request.host, |paths| paths.find(request)) {
            Some((rule, matched)) => Found::Rule { listener, rule, matched },
            None => Found::NoRule { listener },
        }
    }
}

impl PathTable {
    fn insert(&mut self, condition: &HttpMatch, rule: RuleId, match_index: usize, order: usize) {
        let candidate = Candidate {
            rule,
            match_index,
            method: condition.method.as_ref().map(|method| method.as_bytes().to_vec()),
            headers: condition.headers.clone(),
            query: condition.query.clone(),
            order,
        };
        match &condition.path {
            PathMatch::Exact(path) => self.exact.entry(path.as_bytes().to_vec()).or_default().push(candidate),
            PathMatch::Prefix(prefix) => self.prefixes.entry(prefix).push(candidate),
            PathMatch::Regex(regex) => {
                match self.regex.iter_mut().find(|(known, _)| known.as_str() == regex.as_str()) {
                    Some((_, candidates)) => candidates.push(candidate),
                    None => self.regex.push((regex.clone(), vec![candidate])),
                }
            }
        }
    }

    fn sort(&mut self) {
        let by_rank = |candidates: &mut Vec<Candidate>| candidates.sort_by_key(Candidate::rank);
        self.exact.values_mut().for_each(by_rank);
        self.regex.iter_mut().for_each(|(_, candidates)| by_rank(candidates));
        self.regex.sort_by_key(|(regex, candidates)| {
            let first = candidates.first().map_or(0, |candidate| candidate.order);
            (usize::MAX - regex.as_str().len(), first)
        });
        self.prefixes.for_each(by_rank);
    }

    fn find<L: FieldLookup>(&self, request: &RequestKey<'_, L>) -> Option<(RuleId, Matched<'_>)> {
        if !self.exact.is_empty()
            && let Some(candidates) = self.exact.get(request.path)
            && let Some(rule) = first_match(candidates, request)
        {
            return Some((rule, Matched::Exact));
        }
        for (regex, candidates) in &self.regex {
            if regex.is_match(request.path)
                && let Some(rule) = first_match(candidates, request)
            {
                return Some((rule, Matched::Regex));
            }
        }
        self.prefixes.find(request.path, |prefix, candidates| {
            first_match(candidates, request).map(|rule| (rule, Matched::Prefix(prefix)))
        })
    }
}

#[cfg(test)]
mod tests;
