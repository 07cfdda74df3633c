//! Every candidate for a request in the order in which they are asked, and what each of them failed by.
//!
//! It walks the very tables that requests are served from and asks the very conditions, so that it cannot disagree with
//! [`RouteTable::find`]: the first candidate that fails by nothing is what `find` returns (`tests.rs` holds the two
//! together). It allocates and visits everything, which serving never does.

use super::{
    Asks, Candidate, CompiledRule, FieldLookup, HostMap, PathTable, Paths, Patterns, RequestKey, RouteTable, RuleId,
    answers, as_post, header_matches, query,
};
use crate::model::{HeaderMatch, HostPattern, QueryMatch};

/// What became of a request in a table.
#[derive(Debug)]
pub struct Trace<'t> {
    /// The listeners of the socket, the most specific hostname first.
    pub listeners: Vec<ListenerSeen>,
    /// All matches of all rules of the chosen listener, in the order of precedence.
    pub candidates: Vec<CandidateSeen<'t>>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSeen {
    /// By its index when the table was compiled.
    pub index: usize,
    /// What it takes.
    pub hostname: HostPattern,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its routes were asked.
    Chosen,
    /// It takes the host, but a more specific one does too.
    LessSpecific,
    /// It does not take the host.
    OtherHost,
}

/// One match of a rule under one hostname of its route.
#[derive(Debug)]
pub struct CandidateSeen<'t> {
    /// Its rule.
    pub rule: RuleId,
    /// Its place among the matches of the rule.
    pub match_index: usize,
    /// The hostname of its route.
    pub hostname: HostPattern,
    /// On the path.
    pub path: PathCondition<'t>,
    /// On the method.
    pub method: Option<&'t [u8]>,
    /// On header fields.
    pub headers: &'t [HeaderMatch],
    /// On query parameters.
    pub query: &'t [QueryMatch],
    /// Why it does not serve the request; none: it does.
    pub lost: Option<Lost<'t>>,
}

/// A condition on the path, as it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathCondition<'t> {
    /// The whole path.
    Exact(&'t [u8]),
    /// A pattern.
    Regex(&'t str),
    /// A prefix, without a trailing slash.
    Prefix(&'t str),
}

/// What a candidate failed by: the first of its conditions, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lost<'t> {
    /// Its route's hostname does not take the host.
    Host,
    /// The path.
    Path,
    /// The method.
    Method,
    /// A header field.
    Header(&'t HeaderMatch),
    /// A query parameter.
    Query(&'t QueryMatch),
    /// Nothing, but one that comes before it fits too.
    Outranked,
}

impl Candidate {
    /// The first condition besides host and path that does not hold.
    #[inline]
    pub(super) fn fails<L: FieldLookup>(&self, request: &RequestKey<'_, L>) -> Option<Lost<'_>> {
        if self.method.as_deref().is_some_and(|method| method != request.method) {
            return Some(Lost::Method);
        }
        if let Some(wanted) = self.headers.iter().find(|wanted| !header_matches(wanted, request.fields)) {
            return Some(Lost::Header(wanted));
        }
        self.query.iter().find(|wanted| !query::matches(wanted, request.query)).map(Lost::Query)
    }
}

impl RouteTable {
    /// Everything that is considered for a request.
    pub fn trace<L: FieldLookup>(&self, request: &RequestKey<'_, L>) -> Trace<'_> {
        let chosen = self.listeners.find(request.host, |listener| Some(listener.0));
        let taking = visited(&self.listeners, request.host);
        let fate = |index: usize, listener: &(usize, HostMap<Paths>)| match chosen {
            Some(chosen) if chosen == index => Fate::Chosen,
            _ if is_among(&taking, listener) => Fate::LessSpecific,
            _ => Fate::OtherHost,
        };
        let listeners = self.listeners.by_precedence().into_iter().map(|(hostname, listener)| ListenerSeen {
            index: listener.0,
            hostname,
            fate: fate(listener.0, listener),
        });
        let mut candidates = Vec::new();
        if let Some(hosts) = self.listeners.find(request.host, |(_, hosts)| Some(hosts)) {
            let taking = visited(hosts, request.host);
            for (hostname, paths) in hosts.by_precedence() {
                let takes_host = is_among(&taking, paths);
                paths.trace(request, &self.rules, &hostname, takes_host, &mut candidates);
            }
        }
        let mut winners = candidates.iter_mut().filter(|candidate| candidate.lost.is_none());
        let _winner = winners.next();
        winners.for_each(|candidate| candidate.lost = Some(Lost::Outranked));
        Trace { listeners: listeners.collect(), candidates }
    }
}

/// The values that a look-up comes by when nothing is taken.
fn visited<'t, T>(map: &'t HostMap<T>, host: &str) -> Vec<&'t T> {
    let mut seen = Vec::new();
    map.find(host, |value| {
        seen.push(value);
        None::<()>
    });
    seen
}

fn is_among<T>(seen: &[&T], value: &T) -> bool {
    seen.iter().any(|each| std::ptr::eq(*each, value))
}

impl Paths {
    fn trace<'t, L: FieldLookup>(
        &'t self,
        request: &RequestKey<'_, L>,
        rules: &[CompiledRule],
        hostname: &HostPattern,
        takes_host: bool,
        out: &mut Vec<CandidateSeen<'t>>,
    ) {
        let asks = Asks::of(request);
        let calls = |out: &mut Vec<CandidateSeen<'t>>| {
            let Some(calls) = &self.calls else { return };
            if !matches!(asks, Asks::Preflight { .. }) {
                return calls.trace(request, hostname, takes_host, out);
            }
            let from = out.len();
            calls.trace(&as_post(request), hostname, takes_host, out);
            // The first that fits is asked, and no other.
            let mut fitting = out[from..].iter_mut().filter(|seen| seen.lost.is_none());
            let is_answered = fitting.next().is_some_and(|first| {
                let answered = answers(rules, first.rule);
                if !answered {
                    first.lost = Some(Lost::Method);
                }
                answered
            });
            fitting.for_each(|seen| seen.lost = Some(if is_answered { Lost::Outranked } else { Lost::Method }));
        };
        if asks.is_first() {
            calls(out);
        }
        self.requests.trace(request, hostname, takes_host, out);
        if !asks.is_first() {
            calls(out);
        }
    }
}

impl PathTable {
    fn trace<'t, L: FieldLookup>(
        &'t self,
        request: &RequestKey<'_, L>,
        hostname: &HostPattern,
        takes_host: bool,
        out: &mut Vec<CandidateSeen<'t>>,
    ) {
        let mut put = |path, fits: bool, candidates: &'t [Candidate]| {
            for candidate in candidates {
                let lost = match (takes_host, fits) {
                    (false, _) => Some(Lost::Host),
                    (true, false) => Some(Lost::Path),
                    (true, true) => candidate.fails(request),
                };
                let Candidate { rule, match_index, method, headers, query, order: _ } = candidate;
                out.push(CandidateSeen {
                    rule: *rule,
                    match_index: *match_index,
                    hostname: hostname.clone(),
                    path,
                    method: method.as_deref(),
                    headers,
                    query,
                    lost,
                });
            }
        };
        let mut exact: Vec<_> = self.exact.iter().collect();
        // What fits comes first: it is looked up, not searched for.
        exact.sort_by_key(|(path, _)| (path.as_slice() != request.path, path.as_slice()));
        for (path, candidates) in exact {
            put(PathCondition::Exact(path), path == request.path, candidates);
        }
        let put_patterns = |patterns: &'t Patterns, put: &mut dyn FnMut(PathCondition<'t>, bool, &'t [Candidate])| {
            for (regex, candidates) in patterns {
                put(PathCondition::Regex(regex.as_str()), regex.is_match(request.path), candidates);
            }
        };
        put_patterns(&self.regex, &mut put);
        let mut fitting = Vec::new();
        self.prefixes.find(request.path, |_, candidates| {
            fitting.push(candidates);
            None::<()>
        });
        let is_fitting = |candidates: &[Candidate]| fitting.iter().any(|each| std::ptr::eq(*each, candidates));
        let mut prefixes: Vec<_> = self.prefixes.all().collect();
        prefixes.sort_by_key(|(prefix, _)| (usize::MAX - prefix.len(), *prefix));
        let (named, every): (Vec<_>, Vec<_>) = prefixes.into_iter().partition(|(prefix, _)| !prefix.is_empty());
        for (prefix, candidates) in named {
            put(PathCondition::Prefix(prefix), is_fitting(candidates), candidates);
        }
        put_patterns(&self.methods, &mut put);
        for (prefix, candidates) in every {
            put(PathCondition::Prefix(prefix), is_fitting(candidates), candidates);
        }
    }
}
