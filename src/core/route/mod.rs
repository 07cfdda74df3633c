//! Which rule serves a request.
//!
//! Precedence is the Gateway API's (HTTPRouteRule.matches): the listener with the most specific hostname first, and
//! only its routes; then, among all matches of those routes, the one with the most specific hostname, then an exact
//! path, a regular expression, the longest prefix, a method, the most header conditions, the most query conditions, the
//! oldest route, the first rule. The API leaves the place of regular expressions open; between exact and prefix, longer
//! patterns first, is where Envoy Gateway has it.
//!
//! Rules of GRPCRoutes are in tables of their own, since the API wants them apart from those of HTTPRoutes: calls of gRPC
//! under a hostname ask them first, everything else asks them last. There a service with a method comes before a
//! service, and that before a method alone (GRPCRouteRule.matches).
//!
//! The table walks from the specific to the general and stops at the first match, so that the cost of a request does
//! not depend on how many routes there are: a hash look-up per hostname label, a hash look-up for exact paths, and a
//! walk down a tree of path elements that ends where the configuration does, however long the request's path is.

mod hosts;
mod path;
mod query;
mod trace;
mod tree;

use std::sync::Arc;

use crate::grpc;
use crate::http::list;
use crate::model::{
    Action, Filters, HeaderMatch, HttpListener, HttpMatch, PathMatch, QueryMatch, ResponseRules, RouteId,
    RouteTimeouts, RuleExtras,
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
    listeners: HostMap<(usize, HostMap<Paths>)>,
    /// By listener: what is done to answers for which there is no rule.
    responses: Vec<Option<Arc<ResponseRules>>>,
}

/// What a rule does.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its route.
    pub route: RouteId,
    /// It is for calls of gRPC.
    pub grpc: bool,
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
struct Paths {
    requests: PathTable,
    /// Of GRPCRoutes, where there are any.
    calls: Option<Box<PathTable>>,
}

/// Rules by path.
#[derive(Debug, Default)]
struct PathTable {
    exact: HashMap<Vec<u8>, Vec<Candidate>>,
    regex: Patterns,
    prefixes: PathTree<Candidate>,
    /// Methods of gRPC, whatever their service.
    methods: Patterns,
}

type Patterns = Vec<(regex::bytes::Regex, Vec<Candidate>)>;

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
        let responses = listeners.iter().map(|listener| listener.responses.clone()).collect();
        let mut table = Self { rules: Vec::new(), listeners: HostMap::default(), responses };
        for (index, listener) in listeners.iter().enumerate() {
            let hosts = table.compile_listener(listener);
            table.listeners.entry(&listener.hostname, || (index, hosts));
        }
        table
    }

    /// What is done to answers of a listener for which there is no rule.
    pub fn responses(&self, listener: usize) -> Option<&ResponseRules> {
        self.responses[listener].as_deref()
    }

    fn compile_listener(&mut self, listener: &HttpListener) -> HostMap<Paths> {
        let mut hosts: HostMap<Paths> = HostMap::default();
        let mut order = 0;
        for route in &listener.routes {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                let id = RuleId(u32::try_from(self.rules.len()).expect("fewer rules than 2^32"));
                self.rules.push(CompiledRule {
                    route: route.id,
                    grpc: route.grpc,
                    rule_index,
                    filters: rule.filters.clone(),
                    action: rule.action.clone(),
                    timeouts: rule.timeouts,
                    extras: rule.extras.clone(),
                });
                for (match_index, condition) in rule.matches.iter().enumerate() {
                    order += 1;
                    for hostname in &route.hostnames {
                        let paths = hosts.entry(hostname, Paths::default);
                        let table = if route.grpc { paths.calls.get_or_insert_default() } else { &mut paths.requests };
                        table.insert(condition, id, match_index, order);
                    }
                }
            }
        }
        for paths in hosts.values_mut() {
            paths.requests.sort();
            paths.calls.as_deref_mut().map(PathTable::sort);
        }
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
        match hosts.find(request.host, |paths| paths.find(request, &self.rules)) {
            Some((rule, matched)) => Found::Rule { listener, rule, matched },
            None => Found::NoRule { listener },
        }
    }
}

/// What calls of gRPC are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// First.
    First,
    /// Where nothing else serves the request.
    Last,
    /// By a page that is about to make a call: only what answers such questions.
    Preflight {
        /// As [`Asks::First`].
        first: bool,
    },
}

impl Asks {
    fn of<L: FieldLookup>(request: &RequestKey<'_, L>) -> Self {
        match request.method {
            b"POST" => {
                let mut is_call = false;
                request.fields.values("content-type", &mut |value| is_call |= grpc::Call::of(value).is_some());
                if is_call { Self::First } else { Self::Last }
            }
            b"OPTIONS" => {
                let (mut is_preflight, mut first) = (false, false);
                request.fields.values("access-control-request-method", &mut |value| is_preflight |= value == b"POST");
                // Clients of gRPC-Web send it with every call.
                let marks = |name: &[u8]| name.eq_ignore_ascii_case(b"x-grpc-web");
                request.fields.values("access-control-request-headers", &mut |value| first |= list(value).any(marks));
                if is_preflight { Self::Preflight { first } } else { Self::Last }
            }
            _ => Self::Last,
        }
    }

    fn is_first(self) -> bool {
        matches!(self, Self::First | Self::Preflight { first: true })
    }
}

impl Paths {
    fn find<L: FieldLookup>(
        &self,
        request: &RequestKey<'_, L>,
        rules: &[CompiledRule],
    ) -> Option<(RuleId, Matched<'_>)> {
        let Some(calls) = &self.calls else { return self.requests.find(request) };
        let asks = Asks::of(request);
        let call = || match asks {
            Asks::First | Asks::Last => calls.find(request),
            Asks::Preflight { .. } => calls.find(&as_post(request)).filter(|(rule, _)| answers(rules, *rule)),
        };
        if asks.is_first() {
            call().or_else(|| self.requests.find(request))
        } else {
            self.requests.find(request).or_else(call)
        }
    }
}

/// The call that a page asks about.
fn as_post<'a, L>(request: &RequestKey<'a, L>) -> RequestKey<'a, L> {
    let RequestKey { host, path, query, fields, .. } = *request;
    RequestKey { host, path, query, method: b"POST", fields }
}

/// Whether a rule answers pages that ask whether they may.
fn answers(rules: &[CompiledRule], rule: RuleId) -> bool {
    rules[rule.index()].extras.as_ref().is_some_and(|extras| extras.cors.is_some())
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
            PathMatch::Regex(regex) => put_pattern(&mut self.regex, regex, candidate),
            PathMatch::Method(regex) => put_pattern(&mut self.methods, regex, candidate),
        }
    }

    fn sort(&mut self) {
        let by_rank = |candidates: &mut Vec<Candidate>| candidates.sort_by_key(Candidate::rank);
        self.exact.values_mut().for_each(by_rank);
        for patterns in [&mut self.regex, &mut self.methods] {
            patterns.iter_mut().for_each(|(_, candidates)| by_rank(candidates));
            patterns.sort_by_key(|(regex, candidates)| {
                let first = candidates.first().map_or(0, |candidate| candidate.order);
                (usize::MAX - regex.as_str().len(), first)
            });
        }
        self.prefixes.for_each(by_rank);
    }

    fn find<'t, L: FieldLookup>(&'t self, request: &RequestKey<'_, L>) -> Option<(RuleId, Matched<'t>)> {
        if !self.exact.is_empty()
            && let Some(candidates) = self.exact.get(request.path)
            && let Some(rule) = first_match(candidates, request)
        {
            return Some((rule, Matched::Exact));
        }
        if let Some(found) = first_pattern(&self.regex, request) {
            return Some(found);
        }
        let by_prefix = |prefix: &'t str, candidates: &[Candidate]| {
            first_match(candidates, request).map(|rule| (rule, Matched::Prefix(prefix)))
        };
        if self.methods.is_empty() {
            return self.prefixes.find(request.path, by_prefix);
        }
        let mut every = None;
        let named = self.prefixes.find(request.path, |prefix, candidates| {
            if prefix.is_empty() {
                every = Some(candidates);
                return None;
            }
            by_prefix(prefix, candidates)
        });
        let method = || first_pattern(&self.methods, request);
        named.or_else(method).or_else(|| by_prefix("", every?))
    }
}

fn put_pattern(patterns: &mut Patterns, regex: &regex::bytes::Regex, candidate: Candidate) {
    match patterns.iter_mut().find(|(known, _)| known.as_str() == regex.as_str()) {
        Some((_, candidates)) => candidates.push(candidate),
        None => patterns.push((regex.clone(), vec![candidate])),
    }
}

fn first_pattern<'t, L: FieldLookup>(
    patterns: &'t Patterns,
    request: &RequestKey<'_, L>,
) -> Option<(RuleId, Matched<'t>)> {
    let mut fitting = patterns.iter().filter(|(regex, _)| regex.is_match(request.path));
    let rule = fitting.find_map(|(_, candidates)| first_match(candidates, request))?;
    Some((rule, Matched::Regex))
}

#[cfg(test)]
mod tests;
