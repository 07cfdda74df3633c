//! References between objects.

use crate::control::read::{Cx, Int, List, choice, object};
use crate::control::source::Spanned;

use super::filter::HttpFilter;
use super::text::{Group, Kind, Namespace, ObjectName, Port, SectionName};

/// The Gateway API's group.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Our own group.
pub const RINGWAY_GROUP: &str = "ringway.dev";

object! {
    /// `parentRefs`: where a route attaches.
    ParentRef = "parentRef" {
        /// The parent's group.
        group / "group": Group = or(Group(GATEWAY_GROUP.to_owned())),
        /// The parent's kind.
        kind / "kind": Kind = or(Kind("Gateway".to_owned())),
        /// The parent's namespace; none: the route's.
        namespace / "namespace": Namespace = optional,
        /// The parent's name.
        name / "name": ObjectName = required,
        /// One listener of it.
        section_name / "sectionName": SectionName = optional,
        /// Its listeners on one port.
        port / "port": Port = optional,
    }
}

/// The rules on `parentRefs` as a whole.
pub fn check_parents(parents: &[ParentRef], cx: &Cx<'_>) {
    let same = |a: &ParentRef, b: &ParentRef| {
        a.group == b.group && a.kind == b.kind && a.name == b.name && a.namespace == b.namespace
    };
    let pairs = || {
        parents.iter().enumerate().flat_map(|(index, later)| {
            parents[..index].iter().filter(move |earlier| same(earlier, later)).map(move |earlier| (earlier, later))
        })
    };
    if let Some((_, later)) = pairs().find(|(a, b)| a.section_name.is_some() != b.section_name.is_some()) {
        let message = "sectionName must be specified when parentRefs includes 2 or more references to the same parent";
        cx.error(later.span, message);
    }
    // Without a section, ports may tell two references apart.
    let twice = |(a, b): &(&ParentRef, &ParentRef)| {
        a.section_name == b.section_name && (a.section_name.is_some() || a.port == b.port)
    };
    if let Some((_, later)) = pairs().find(twice) {
        let message = "sectionName must be unique when parentRefs includes 2 or more references to the same parent";
        cx.error(later.span, message);
    }
}

/// A share of a split.
pub type Weight = Int<0, 1_000_000>;

object! {
    /// A weighted target of an HTTP rule.
    HttpBackendRef = "backendRef" {
        /// The target's group.
        group / "group": Group = or(Group(String::new())),
        /// The target's kind.
        kind / "kind": Kind = or(Kind("Service".to_owned())),
        /// The target's namespace; none: the route's.
        namespace / "namespace": Namespace = optional,
        /// The target's name.
        name / "name": ObjectName = required,
        /// The Service's port.
        port / "port": Port = optional,
        /// Its share.
        weight / "weight": Weight = or(Int(1)),
        /// Filters for this target only.
        filters / "filters": List<HttpFilter, 0, 16> = or(List::default()),
    }
    rules |this, cx| {
        must_have_port(&this.group, &this.kind, this.port, this.span, cx);
        super::filter::check_filters(&this.filters, cx);
    }
}

object! {
    /// A weighted target of a TCP or other stream rule.
    BackendRef = "backendRef" {
        /// The target's group.
        group / "group": Group = or(Group(String::new())),
        /// The target's kind.
        kind / "kind": Kind = or(Kind("Service".to_owned())),
        /// The target's namespace; none: the route's.
        namespace / "namespace": Namespace = optional,
        /// The target's name.
        name / "name": ObjectName = required,
        /// The Service's port.
        port / "port": Port = optional,
        /// Its share.
        weight / "weight": Weight = or(Int(1)),
    }
    rules |this, cx| {
        must_have_port(&this.group, &this.kind, this.port, this.span, cx);
    }
}

object! {
    /// A target without a weight: a mirror's.
    BackendObjectRef = "backendRef" {
        /// The target's group.
        group / "group": Group = or(Group(String::new())),
        /// The target's kind.
        kind / "kind": Kind = or(Kind("Service".to_owned())),
        /// The target's namespace; none: the route's.
        namespace / "namespace": Namespace = optional,
        /// The target's name.
        name / "name": ObjectName = required,
        /// The Service's port.
        port / "port": Port = optional,
    }
    rules |this, cx| {
        must_have_port(&this.group, &this.kind, this.port, this.span, cx);
    }
}

pub(super) fn must_have_port(
    group: &Group,
    kind: &Kind,
    port: Option<Port>,
    span: crate::control::source::Span,
    cx: &Cx<'_>,
) {
    if group.is_empty() && kind.0 == "Service" && port.is_none() {
        cx.error(span, "Must have port for Service reference");
    }
}

object! {
    /// A Secret or a `ringway.dev Certificate`.
    CertificateRef = "certificateRef" {
        /// The target's group.
        group / "group": Group = or(Group(String::new())),
        /// The target's kind.
        kind / "kind": Kind = or(Kind("Secret".to_owned())),
        /// The target's namespace; none: the Gateway's.
        namespace / "namespace": Namespace = optional,
        /// The target's name.
        name / "name": ObjectName = required,
    }
}

object! {
    /// What a policy applies to, in its own namespace.
    PolicyTargetRef = "targetRef" {
        /// The target's group.
        group / "group": Group = required,
        /// The target's kind.
        kind / "kind": Kind = required,
        /// The target's name.
        name / "name": ObjectName = required,
        /// One listener of it.
        section_name / "sectionName": SectionName = optional,
    }
}

choice! {
    /// `allowedRoutes.namespaces.from`.
    FromNamespaces {
        /// Every namespace.
        All = "All",
        /// Those with certain labels.
        Selector = "Selector",
        /// The Gateway's own.
        Same = "Same",
        /// None.
        None = "None",
    }
}

choice! {
    /// An operator of a label selector.
    SelectorOperator {
        /// The label has one of the values.
        In = "In",
        /// It has none of them, or is not there.
        NotIn = "NotIn",
        /// The label is there.
        Exists = "Exists",
        /// It is not.
        DoesNotExist = "DoesNotExist",
    }
}

object! {
    /// One expression of a label selector.
    SelectorExpression = "matchExpressions" {
        /// The label.
        key / "key": String = required,
        /// How it is compared.
        operator / "operator": Spanned<SelectorOperator> = required,
        /// With what.
        values / "values": Vec<String> = or(Vec::new()),
    }
}

object! {
    /// A label selector; empty selects everything.
    LabelSelector = "selector" {
        /// Labels that must be equal.
        match_labels / "matchLabels": crate::control::read::Table<String> = or(crate::control::read::Table::default()),
        /// Further conditions.
        match_expressions / "matchExpressions": Vec<SelectorExpression> = or(Vec::new()),
    }
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &crate::control::read::Table<String>) -> bool {
        self.match_labels.0.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| {
                let found = labels.get(&expression.key);
                let listed = found.is_some_and(|value| expression.values.contains(value));
                match expression.operator.value {
                    SelectorOperator::In => listed,
                    SelectorOperator::NotIn => !listed,
                    SelectorOperator::Exists => found.is_some(),
                    SelectorOperator::DoesNotExist => found.is_none(),
                }
            })
    }
}
