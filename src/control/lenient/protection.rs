//! What the new version of an object protects and its last good one does not.
//!
//! The last good version of a route is served beside newer policies, and in place of a version that may ask for more. It
//! must not be more open than that: what a rule of the new version keeps requests from, by a filter of its own or by a
//! policy that names the rule, is not served by a rule that does not.

use std::collections::{HashMap, HashSet};

use ringway_core::model::{HttpMatch, PathMatch};

use crate::control::graph::http_rule;
use crate::control::read::Cx;
use crate::control::resources::refs::PolicyTargetRef;
use crate::control::resources::text::SectionName;
use crate::control::resources::{Closed, Resources};
use crate::control::source::Sources;
use crate::control::yaml::{Key, Node, Value};

use super::closed::{CLOSING, EXTERNAL_AUTH, around, mentions, targets, with_rules};
use super::last_good::Remembering;
use super::{File, ObjectKey, only, scalar};

/// In the place of a text that is known only when it is replaced.
const VARIABLE: &str = "${";

/// Filters that keep nobody away.
const OPEN_FILTERS: [&str; 6] =
    ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS"];

/// What the files protect.
pub(super) struct Protection {
    /// What policies name a section of, with their kinds.
    sections: HashMap<ObjectKey, Vec<(String, PolicyTargetRef)>>,
    /// Of those sections the names that may stand in a file that cannot be read.
    perhaps: HashSet<String>,
    /// HTTPRouteFilters that do not answer in place of a backend: namespace and name.
    open: HashSet<(String, String)>,
}

/// What of a last good version is served.
#[derive(Default)]
pub(super) struct Lasting {
    /// It, where that is not all of it.
    pub(super) old: Option<Node>,
    /// Of newer versions, by their index: what is answered with an error.
    pub(super) new: Vec<(usize, Node)>,
    /// What policies close of it.
    pub(super) closed: Vec<Closed>,
}

/// What keeps requests from a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Guard {
    /// Another server is asked, in these words.
    ExternalAuth(String),
    /// An HTTPRouteFilter answers.
    Answer(String),
    /// Policies that name the rule.
    Policy(String),
}

/// A rule of a route.
struct Rule<'n> {
    node: &'n Node,
    /// `None`: they cannot be read.
    matches: Option<Vec<HttpMatch>>,
    guards: HashSet<Guard>,
    forwards: bool,
}

impl Protection {
    /// Of files, of whose HTTPRouteFilters these could be read.
    pub(super) fn of(files: &[File], sources: &Sources, environment: &Remembering<'_>, good: &Resources) -> Self {
        let mut sections: HashMap<ObjectKey, Vec<(String, PolicyTargetRef)>> = HashMap::new();
        for file in files {
            let cx = Cx::new(environment, file.directory.clone());
            for (met, object) in file.objects() {
                let Some(key) = met.key.as_ref().filter(|key| CLOSING.contains(&key.kind.as_str())) else { continue };
                let named = targets(object, &cx).into_iter().flatten().filter(|target| target.section_name.is_some());
                for target in named {
                    let of = ObjectKey {
                        kind: target.kind.0.clone(),
                        namespace: key.namespace.clone(),
                        name: target.name.0.clone(),
                    };
                    sections.entry(of).or_default().push((key.kind.clone(), target));
                }
            }
        }
        let answers_not = good.route_filters.iter().filter(|filter| filter.spec.direct_response.is_none());
        let open = answers_not.map(|filter| (filter.meta.namespace.clone(), filter.meta.name.clone())).collect();
        let unread: Vec<&str> = files.iter().filter(|file| file.broken).map(|file| sources.text(file.id)).collect();
        let may_name = |name: &&str| unread.iter().any(|text| text.contains(*name) || text.contains(VARIABLE));
        let named = sections.values().flatten().filter_map(|(_, target)| target.section_name.as_ref());
        let perhaps = named.map(|section| section.0.as_str()).filter(may_name).map(str::to_owned).collect();
        Self { sections, perhaps, open }
    }

    /// What of an object's last good version may be served, given its newer versions. `None`: that cannot be told.
    pub(super) fn lasting(
        &self,
        key: &ObjectKey,
        old: &Node,
        cx: &Cx<'_>,
        newer: &[(&Node, Cx<'_>)],
    ) -> Option<Lasting> {
        match key.kind.as_str() {
            "HTTPRoute" | "GRPCRoute" => self.route(key, old, cx, newer),
            _ => Some(Lasting { closed: self.sections_of(key, old, cx, newer), ..Lasting::default() }),
        }
    }

    fn names(&self, key: &ObjectKey) -> HashSet<&str> {
        let found = self.sections.get(key).into_iter().flatten();
        found.filter_map(|(_, target)| target.section_name.as_ref()).map(|section| section.0.as_str()).collect()
    }

    fn route(&self, key: &ObjectKey, old: &Node, cx: &Cx<'_>, newer: &[(&Node, Cx<'_>)]) -> Option<Lasting> {
        let sections = self.names(key);
        // Without rules it answers 500.
        let Some(had) = self.rules(key, old, cx, &sections, true) else { return Some(Lasting::default()) };
        let known = |name: &str| had.iter().any(|rule| scalar(rule.node, "name", cx).as_deref() == Some(name));
        let missing: Vec<&str> = sections.iter().filter(|name| !known(name)).copied().collect();
        if newer.is_empty() {
            // Its new version is in a file that cannot be read, and any rule may have become one of these.
            let shut = missing.iter().any(|name| self.perhaps.contains(*name));
            return Some(if shut { shut_whole(old, &had) } else { Lasting::default() });
        }
        let mut asked: Vec<Vec<Rule<'_>>> = Vec::new();
        for (node, cx) in newer {
            match self.rules(key, node, cx, &sections, false) {
                Some(mut rules) => {
                    for rule in &mut rules {
                        let unreadable = rule.node.get("name").is_some() && scalar(rule.node, "name", cx).is_none();
                        if unreadable {
                            rule.guards.extend(missing.iter().map(|name| Guard::Policy((*name).to_owned())));
                        }
                    }
                    asked.push(rules);
                }
                None if mentions(node, EXTERNAL_AUTH) => return None,
                None if missing.iter().any(|name| may_name(node, name)) => return Some(shut_whole(old, &had)),
                None => asked.push(Vec::new()),
            }
        }
        let guarded = || asked.iter().flatten().filter(|rule| !rule.guards.is_empty());
        if guarded().any(|rule| rule.matches.is_none()) {
            return None;
        }
        let mut new = Vec::new();
        for (index, (rules, (node, cx))) in asked.iter().zip(newer).enumerate() {
            let lacking: Vec<Node> = rules.iter().filter_map(|rule| rule.lacking(&had)).collect();
            if !lacking.is_empty() {
                new.push((index, around(node, lacking, cx)?));
            }
        }
        let all: Vec<&Rule<'_>> = asked.iter().flatten().collect();
        let closed: Vec<bool> = had.iter().map(|rule| rule.is_opened_by(&all)).collect();
        let old = closed.contains(&true).then(|| shut(old, &had, &closed));
        Some(Lasting { old, new, closed: Vec::new() })
    }

    /// The rules of a version with what guards them; where `all`, what guards each of their backends.
    fn rules<'n>(
        &self,
        key: &ObjectKey,
        route: &'n Node,
        cx: &Cx<'_>,
        sections: &HashSet<&str>,
        all: bool,
    ) -> Option<Vec<Rule<'n>>> {
        let Value::List(rules) = &route.get("spec")?.get("rules")?.value else { return None };
        let one = |node: &'n Node| {
            let mut guards = self.guards(key, node, cx);
            let backends = match node.get("backendRefs").map(|list| &list.value) {
                Some(Value::List(list)) => list.as_slice(),
                _ => &[],
            };
            let mut of_backends = backends.iter().map(|backend| self.guards(key, backend, cx));
            if all {
                let common = of_backends.next().unwrap_or_default();
                guards.extend(of_backends.fold(common, |common, next| &common & &next));
            } else {
                guards.extend(of_backends.flatten());
                // Wherever it stands it was meant.
                asks(node, cx, &mut guards);
                let asks = guards.iter().any(|guard| matches!(guard, Guard::ExternalAuth(_)));
                guards.extend((!asks && mentions(node, EXTERNAL_AUTH)).then(|| Guard::ExternalAuth(String::new())));
            }
            let name = scalar(node, "name", cx).filter(|name| sections.contains(name.as_str()));
            guards.extend(name.map(Guard::Policy));
            Rule { node, matches: matches(key, route, node, cx), guards, forwards: !backends.is_empty() }
        };
        Some(rules.iter().map(one).collect())
    }

    /// What the filters of a rule or of a backendRef keep requests from.
    fn guards(&self, key: &ObjectKey, of: &Node, cx: &Cx<'_>) -> HashSet<Guard> {
        let Some(Value::List(filters)) = of.get("filters").map(|list| &list.value) else { return HashSet::new() };
        let one = |filter: &Node| match scalar(filter, "type", cx).as_deref() {
            Some(kind) if OPEN_FILTERS.contains(&kind) && filter.get("externalAuth").is_none() => None,
            Some("ExtensionRef") => {
                let name = filter.get("extensionRef").and_then(|found| scalar(found, "name", cx)).unwrap_or_default();
                let is_open = self.open.contains(&(key.namespace.clone(), name.clone()));
                (!is_open).then_some(Guard::Answer(name))
            }
            // So is one whose type cannot be read.
            _ => Some(Guard::ExternalAuth(filter.get("externalAuth").map(|asks| words(asks, cx)).unwrap_or_default())),
        };
        filters.iter().filter_map(one).collect()
    }

    /// Policies that name a section which the last good version does not have close those that it has and the newer
    /// versions do not: one of them may be the same under another name.
    fn sections_of(&self, key: &ObjectKey, old: &Node, cx: &Cx<'_>, newer: &[(&Node, Cx<'_>)]) -> Vec<Closed> {
        let Some(named) = self.sections.get(key) else { return Vec::new() };
        let had = sections(old, cx);
        let has: Vec<Option<String>> = newer.iter().flat_map(|(node, cx)| sections(node, cx)).collect();
        let missing = |target: &PolicyTargetRef| {
            let section = target.section_name.as_ref().map(|section| section.0.as_str());
            // A new version in a file that cannot be read has it only if the file may name it.
            let may_be = !newer.is_empty() || section.is_some_and(|name| self.perhaps.contains(name));
            may_be && !had.iter().any(|name| name.as_deref() == section)
        };
        let mut closed = Vec::new();
        for (kind, target) in named.iter().filter(|(_, target)| missing(target)) {
            let gone = had.iter().filter(|name| name.is_none() || !has.contains(name));
            let targets: Vec<PolicyTargetRef> = gone
                .map(|name| PolicyTargetRef { section_name: name.clone().map(SectionName), ..target.clone() })
                .collect();
            closed.push(Closed { kind: kind.clone(), namespace: key.namespace.clone(), name: String::new(), targets });
        }
        closed.retain(|closed| !closed.targets.is_empty());
        closed
    }
}

/// Whether a scalar of a node is this name or may become it.
fn may_name(node: &Node, name: &str) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => text == name || text.contains(VARIABLE),
        Value::List(items) => items.iter().any(|item| may_name(item, name)),
        Value::Map(entries) => entries.iter().any(|(_, value)| may_name(value, name)),
    }
}

/// What filters ExternalAuth anywhere within a node ask.
fn asks(node: &Node, cx: &Cx<'_>, found: &mut HashSet<Guard>) {
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter().for_each(|item| asks(item, cx, found)),
        Value::Map(entries) => {
            for (key, value) in entries {
                if key.name == "externalAuth" {
                    found.insert(Guard::ExternalAuth(words(value, cx)));
                }
                asks(value, cx, found);
            }
        }
    }
}

/// What a node says, in whatever order and quotes it does.
fn words(node: &Node, cx: &Cx<'_>) -> String {
    match &node.value {
        Value::Scalar { text, .. } => {
            let replaced = cx.silent(|cx| cx.text(node));
            format!("{:?}", replaced.as_deref().unwrap_or(text))
        }
        Value::List(items) => format!("[{}]", items.iter().map(|item| words(item, cx) + ",").collect::<String>()),
        Value::Map(entries) => {
            let given = entries.iter().filter(|(_, value)| !value.is_null());
            let mut all: Vec<String> =
                given.map(|(key, value)| format!("{:?}:{},", key.name, words(value, cx))).collect();
            all.sort();
            format!("{{{}}}", all.concat())
        }
    }
}

/// A last good version some of whose rules answer with an error.
fn shut(old: &Node, rules: &[Rule<'_>], closed: &[bool]) -> Node {
    let rule = |(rule, closed): (&Rule<'_>, &bool)| {
        if *closed { only(rule.node, &["name", "matches"]) } else { rule.node.clone() }
    };
    with_rules(old.clone(), rules.iter().zip(closed).map(rule).collect())
}

fn shut_whole(old: &Node, rules: &[Rule<'_>]) -> Lasting {
    Lasting { old: Some(shut(old, rules, &vec![true; rules.len()])), ..Lasting::default() }
}

/// The names of listeners, ports and rules.
fn sections(object: &Node, cx: &Cx<'_>) -> Vec<Option<String>> {
    let spec = object.get("spec");
    let lists = ["listeners", "ports", "rules"].into_iter().filter_map(|list| spec?.get(list));
    let items = lists.flat_map(|list| if let Value::List(items) = &list.value { items.as_slice() } else { &[] });
    items.map(|item| scalar(item, "name", cx)).collect()
}

/// The matches of a rule, read by themselves.
fn matches(key: &ObjectKey, route: &Node, rule: &Node, cx: &Cx<'_>) -> Option<Vec<HttpMatch>> {
    let alone = around(route, vec![super::closed::conditions(rule)?], cx)?;
    let mut resources = Resources::default();
    cx.silent(|cx| resources.read(&alone, cx));
    let read = if key.kind == "GRPCRoute" { resources.grpc_routes.pop() } else { resources.http_routes.pop() };
    Some(http_rule::matches(read?.spec.rules?.first()?))
}

impl Rule<'_> {
    fn has(&self, wanted: &HttpMatch) -> bool {
        self.matches.iter().flatten().any(|known| known == wanted)
    }

    /// Of a newer version: its conditions as far as the last good one does not guard them as well.
    fn lacking(&self, had: &[Rule<'_>]) -> Option<Node> {
        if self.guards.is_empty() {
            return None;
        }
        let all = self.matches.as_ref()?;
        let is_had = |wanted: &HttpMatch| {
            let mut same = had.iter().filter(|rule| rule.has(wanted));
            same.next().is_some_and(|rule| !rule.forwards || rule.guards.is_superset(&self.guards))
        };
        let mut rule = only(self.node, &["matches"]);
        if all.iter().all(is_had) {
            return None;
        }
        if let Value::Map(entries) = &mut rule.value
            && let Some((Key { .. }, Node { value: Value::List(list), .. })) = entries.first_mut()
            && list.len() == all.len()
        {
            let mut wanted = all.iter().map(|found| !is_had(found));
            list.retain(|_| wanted.next() == Some(true));
        }
        Some(rule)
    }

    /// Of the last good version: whether it serves what the newer versions guard and it does not.
    fn is_opened_by(&self, newer: &[&Rule<'_>]) -> bool {
        let lacks = |rule: &Rule<'_>| !self.guards.is_superset(&rule.guards);
        if !self.forwards || !newer.iter().any(|rule| lacks(rule)) {
            return false;
        }
        self.matches.iter().flatten().any(|own| {
            let mut same = newer.iter().filter(|rule| rule.has(own)).peekable();
            if same.peek().is_some() {
                return same.any(|rule| lacks(rule));
            }
            newer.iter().any(|rule| lacks(rule) && rule.matches.iter().flatten().any(|guarded| may_cover(guarded, own)))
        })
    }
}

/// Whether requests of `other` would go to a rule of `wider` if it were not there, as far as paths tell.
fn may_cover(wider: &HttpMatch, other: &HttpMatch) -> bool {
    match (&wider.path, &other.path) {
        (PathMatch::Prefix(prefix), PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
            path.starts_with(prefix.trim_end_matches('/'))
        }
        (PathMatch::Exact(one), PathMatch::Exact(path) | PathMatch::Prefix(path)) => one == path,
        _ => true,
    }
}
