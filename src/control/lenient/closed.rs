//! What must not be left open by what is left out.

use crate::control::read::{Cx, FromNode as _};
use crate::control::resources::refs::{GATEWAY_GROUP, PolicyTargetRef, RINGWAY_GROUP};
use crate::control::resources::{Closed, Resources};
use crate::control::yaml::{Key, Node, Value};

use super::{ObjectKey, Served, only, scalar};

/// Kinds whose absence would leave something open, or have it answered from the wrong place.
pub(super) const CLOSING: [&str; 5] =
    ["AccessPolicy", "RateLimitPolicy", "BackendTLSPolicy", "ClientPolicy", "L4ForwardingPolicy"];
/// The filter that protects what is behind it.
pub(super) const EXTERNAL_AUTH: &str = "ExternalAuth";
/// Fields of a rule of HTTPRoute and GRPCRoute. A rule without `matches` that has others is not taken for one that matches all.
pub(super) const RULE_FIELDS: [&str; 7] =
    ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];

/// Whether a scalar within a node is this text.
pub(super) fn mentions(node: &Node, wanted: &str) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => text == wanted,
        Value::List(items) => items.iter().any(|item| mentions(item, wanted)),
        Value::Map(entries) => entries.iter().any(|(_, value)| mentions(value, wanted)),
    }
}

/// What is left out must not leave open what it would have closed. `None`: it cannot be told what that is.
pub(super) fn close(key: &ObjectKey, object: &Node, cx: &Cx<'_>, resources: &mut Resources) -> Option<Served> {
    match key.kind.as_str() {
        "HTTPRoute" | "GRPCRoute" => {
            // Requests that would have been its own must not fall to a route that is less specific.
            let reduced = reduced(object, cx);
            let rules =
                |route: &Node| match route.get("spec").and_then(|spec| spec.get("rules")).map(|rules| &rules.value) {
                    Some(Value::List(rules)) => rules.len(),
                    _ => 0,
                };
            // A rule that asks another server must not fall to one that does not.
            if mentions(object, EXTERNAL_AUTH) && reduced.as_ref().is_none_or(|reduced| rules(reduced) < rules(object))
            {
                return None;
            }
            let Some(reduced) = reduced else { return Some(Served::Nothing) };
            cx.silent(|cx| resources.read_beside(&reduced, cx));
            Some(Served::Closed)
        }
        "GatewayClass" | "Namespace" => {
            close_targets(key, Vec::new(), resources);
            Some(Served::Closed)
        }
        kind if CLOSING.contains(&kind) => {
            close_targets(key, targets(object, cx)?, resources);
            Some(Served::Closed)
        }
        _ => Some(Served::Nothing),
    }
}

/// What the new version of a policy would apply to and its last good one does not must not be left open either. `None`: it
/// cannot be told what that is.
pub(super) fn close_new(
    key: &ObjectKey,
    object: &Node,
    covered: &[PolicyTargetRef],
    cx: &Cx<'_>,
    resources: &mut Resources,
) -> Option<()> {
    if !CLOSING.contains(&key.kind.as_str()) {
        return Some(());
    }
    let same = |a: &PolicyTargetRef, b: &PolicyTargetRef| {
        (&a.kind, &a.name, &a.section_name) == (&b.kind, &b.name, &b.section_name)
    };
    let mut targets = targets(object, cx)?;
    targets.retain(|target| !covered.iter().any(|known| same(target, known)));
    close_targets(key, targets, resources);
    Some(())
}

pub(super) fn close_targets(key: &ObjectKey, targets: Vec<PolicyTargetRef>, resources: &mut Resources) {
    let (kind, namespace, name) = (key.kind.clone(), key.namespace.clone(), key.name.clone());
    resources.closed.push(Closed { kind, namespace, name, targets });
}

/// A policy's targets as far as they have to be known; `None`: one of them is not.
pub(super) fn targets(object: &Node, cx: &Cx<'_>) -> Option<Vec<PolicyTargetRef>> {
    let Value::List(list) = &object.get("spec")?.get("targetRefs")?.value else { return None };
    let one = |node: &Node| {
        let kind = scalar(node, "kind", cx)?;
        let group = match kind.as_str() {
            "Service" => "",
            "Backend" => RINGWAY_GROUP,
            _ => GATEWAY_GROUP,
        };
        let read = |fields: &[&str]| {
            let mut reduced = only(node, fields);
            if let Value::Map(entries) = &mut reduced.value {
                let value = Value::Scalar { text: group.to_owned(), plain: false };
                let key = Key { span: node.span, name: "group".to_owned() };
                entries.push((key, Node { span: node.span, value }));
            }
            cx.silent(|cx| PolicyTargetRef::from_node(&reduced, cx))
        };
        // Without its section it applies to more, which is the safe side.
        read(&["kind", "name", "sectionName"]).or_else(|| read(&["kind", "name"]))
    };
    if list.is_empty() { None } else { list.iter().map(one).collect() }
}

/// A route with its hostnames and conditions and nothing else, so that its requests are answered 500; rules whose
/// conditions cannot be read are left out. `None`: nothing of it can be read.
fn reduced(object: &Node, cx: &Cx<'_>) -> Option<Node> {
    let Value::List(rules) = &object.get("spec")?.get("rules")?.value else { return None };
    let readable = |rule: &Node| conditions(rule).filter(|rule| around(object, vec![rule.clone()], cx).is_some());
    let rules: Vec<Node> = rules.iter().filter_map(readable).collect();
    if rules.is_empty() { None } else { around(object, rules, cx) }
}

/// The conditions of a rule and nothing else. `None`: it has something that is not known, and no `matches`.
pub(super) fn conditions(rule: &Node) -> Option<Node> {
    let Value::Map(entries) = &rule.value else { return None };
    let known = |(key, _): &(Key, Node)| RULE_FIELDS.contains(&key.name.as_str());
    (rule.get("matches").is_some() || entries.iter().all(known)).then(|| only(rule, &["matches"]))
}

/// A route with these rules, and of its own nothing but hostnames and parents. `None`: it cannot be read.
pub(super) fn around(object: &Node, rules: Vec<Node>, cx: &Cx<'_>) -> Option<Node> {
    let Value::Map(entries) = &object.value else { return None };
    let some = |(key, node): &(Key, Node)| {
        let node = match key.name.as_str() {
            "apiVersion" | "kind" => node.clone(),
            "metadata" => only(node, &["name", "namespace", "creationTimestamp"]),
            "spec" => only(node, &["parentRefs", "hostnames"]),
            _ => return None,
        };
        Some((key.clone(), node))
    };
    let value = Value::Map(entries.iter().filter_map(some).collect());
    let whole = with_rules(Node { span: object.span, value }, rules);
    let reads = cx.silent(|cx| {
        let before = cx.errors();
        Resources::default().read(&whole, cx);
        cx.errors() == before
    });
    reads.then_some(whole)
}

/// A route with other rules.
pub(super) fn with_rules(mut object: Node, rules: Vec<Node>) -> Node {
    let begin = object.span.begin();
    if let Value::Map(entries) = &mut object.value
        && let Some((_, spec)) = entries.iter_mut().find(|(key, _)| key.name == "spec")
    {
        let span = spec.span;
        if let Value::Map(fields) = &mut spec.value {
            fields.retain(|(key, _)| key.name != "rules");
            let key = Key { span: begin, name: "rules".to_owned() };
            fields.push((key, Node { span, value: Value::List(rules) }));
        }
    }
    object
}
