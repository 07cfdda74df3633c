//! Policies and what they are attached to (GEP-713).
//!
//! A policy names its targets in its own namespace. Of two policies of a kind with the same target the older one has
//! it, and the other is `Conflicted` there. A policy counts as a whole: for each place the one with the most specific
//! target is used, and what it leaves out has the defaults, not the values of a policy further up.
//!
//! A kind takes part by implementing [`Policy`], and by having its list in [`Resources`], its field in
//! [`Graph`](super::Graph) and its line in `control::status`.

use std::collections::{HashMap, HashSet};

use crate::control::read::suggestion;
use crate::control::resources::policy::{BACKEND, GATEWAY, Policy, SERVICE};
use crate::control::resources::refs::PolicyTargetRef;
use crate::control::resources::text::SectionName;
use crate::control::resources::{Resource, Resources};

use super::{GatewayState, Problem, Report, RouteState, by_age};

/// Something that a policy is attached to; indices are the graph's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A Gateway.
    Gateway(usize),
    /// A listener of a Gateway.
    Listener(usize, usize),
    /// A route, by its index in [`super::Graph::routes`].
    Route(usize),
    /// A rule of a route.
    Rule(usize, usize),
    /// A Service or Backend.
    Backend(BackendObject),
    /// A Service's port, by its name.
    Port(BackendObject, String),
}

/// A Service or a `ringway.dev` Backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendObject {
    /// `Service` or `Backend`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A policy with what became of its targetRefs.
#[derive(Debug)]
pub struct PolicyState<'r, S> {
    /// As configured.
    pub object: &'r Resource<S>,
    /// By targetRef.
    pub outcomes: Vec<Outcome>,
}

/// What became of a targetRef.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The policy is in force there.
    Attached,
    /// It is not.
    Refused(Problem),
    /// The target is another controller's: nothing is said about it.
    Foreign,
}

/// All policies of a kind.
#[derive(Debug)]
pub struct Policies<'r, S> {
    /// Oldest first.
    pub all: Vec<PolicyState<'r, S>>,
    by_target: HashMap<Target, usize>,
    /// Those that lost their target to another.
    losers: HashMap<Target, Vec<usize>>,
    /// Targets of policies that could not be read.
    closed: HashSet<Target>,
}

impl<'r, S> Policies<'r, S> {
    /// The policy of the first of `targets` that has one: they are given from the most specific on.
    pub fn first<'t>(&self, targets: impl IntoIterator<Item = &'t Target>) -> Option<&'r Resource<S>> {
        targets.into_iter().find_map(|target| self.by_target.get(target)).map(|index| self.all[*index].object)
    }

    /// Whether the first of `targets` that has a policy has one that could not be read.
    pub fn is_closed<'t>(&self, targets: impl IntoIterator<Item = &'t Target>) -> bool {
        if self.closed.is_empty() {
            return false;
        }
        let has_one = |target: &&Target| self.closed.contains(*target) || self.by_target.contains_key(*target);
        targets.into_iter().find(has_one).is_some_and(|target| self.closed.contains(target))
    }

    /// The policy of a listener: its own, or its Gateway's.
    pub fn of_listener(&self, gateway: usize, listener: usize) -> Option<&'r Resource<S>> {
        self.first([&Target::Listener(gateway, listener), &Target::Gateway(gateway)])
    }

    /// Whether `object` names `target`, be it in force there or not.
    pub fn names(&self, object: &Resource<S>, target: &Target) -> bool {
        let mut all = self.by_target.get(target).into_iter().chain(self.losers.get(target).into_iter().flatten());
        all.any(|index| std::ptr::eq(self.all[*index].object, object))
    }

    /// Whether there is none that is attached to anything.
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty() && self.closed.is_empty()
    }
}

/// What targets are looked for in.
pub(super) struct Targets<'g, 'r> {
    pub(super) resources: &'r Resources,
    pub(super) gateways: &'g [GatewayState<'r>],
    pub(super) routes: &'g [RouteState],
}

/// Why a target was not found: somebody else's, or nobody's.
enum Missing {
    Foreign,
    Nowhere(Problem, Option<String>),
}

impl<'r> Targets<'_, 'r> {
    /// Attaches all policies of a kind.
    pub(super) fn attach<S: Policy>(&self, objects: &'r [Resource<S>], report: &mut Report) -> Policies<'r, S> {
        let (by_target, losers) = (HashMap::new(), HashMap::new());
        let mut found = Policies { all: Vec::new(), by_target, losers, closed: HashSet::new() };
        for closed in self.resources.closed.iter().filter(|closed| closed.kind == S::KIND) {
            // What is not there needs no protection.
            found
                .closed
                .extend(closed.targets.iter().filter_map(|wanted| self.find::<S>(&closed.namespace, wanted).ok()));
        }
        for index in by_age(objects) {
            let object = &objects[index];
            let name = format!("{} {}", S::KIND, object.meta.full_name());
            let place = found.all.len();
            let mut outcomes = Vec::new();
            for wanted in object.spec.target_refs() {
                let (outcome, help) = match self.find::<S>(&object.meta.namespace, wanted) {
                    Ok(target) => {
                        let owner = *found.by_target.entry(target.clone()).or_insert(place);
                        // One policy may name a target twice.
                        if owner == place {
                            (Outcome::Attached, None)
                        } else {
                            found.losers.entry(target).or_default().push(place);
                            (conflict(&found.all[owner]), None)
                        }
                    }
                    Err(Missing::Foreign) => (Outcome::Foreign, None),
                    Err(Missing::Nowhere(problem, help)) => (Outcome::Refused(problem), help),
                };
                if let Outcome::Refused(problem) = &outcome {
                    report.warning_with_help(
                        wanted.span,
                        format!("{name} is not used here: {}", problem.message),
                        help,
                    );
                }
                outcomes.push(outcome);
            }
            found.all.push(PolicyState { object, outcomes });
        }
        found
    }

    fn find<S: Policy>(&self, namespace: &str, wanted: &PolicyTargetRef) -> Result<Target, Missing> {
        let (group, kind) = (&*wanted.group, &*wanted.kind);
        if !S::TARGETS.contains(&(group, kind)) {
            let known: Vec<&str> = S::TARGETS.iter().map(|target| target.1).collect();
            let message = format!("a {kind} of group \"{group}\" cannot be its target, only {}", known.join(", "));
            return Err(Missing::Nowhere(Problem::new("Invalid", message), None));
        }
        match (group, kind) {
            GATEWAY => self.gateway(namespace, wanted),
            SERVICE => self.service(namespace, wanted),
            BACKEND => self.backend(namespace, wanted),
            _ => self.route(namespace, wanted),
        }
    }

    fn gateway(&self, namespace: &str, wanted: &PolicyTargetRef) -> Result<Target, Missing> {
        let is_it = |object: &Resource<_>| object.meta.name == wanted.name.0 && object.meta.namespace == namespace;
        let Some(gateway) = self.gateways.iter().position(|gateway| is_it(gateway.object)) else {
            if self.resources.gateways.iter().any(is_it) {
                return Err(Missing::Foreign);
            }
            let known = self.gateways.iter().map(|gateway| &gateway.object.meta);
            return Err(nowhere(namespace, wanted, known));
        };
        let Some(section) = &wanted.section_name else { return Ok(Target::Gateway(gateway)) };
        let names: Vec<&str> =
            self.gateways[gateway].own_listeners().map(|listener| &*listener.spec.name.value.0).collect();
        let listener = position(&names, section).ok_or_else(|| no_section(wanted, "listener", section, &names))?;
        Ok(Target::Listener(gateway, listener))
    }

    fn route(&self, namespace: &str, wanted: &PolicyTargetRef) -> Result<Target, Missing> {
        let kind = &*wanted.kind;
        let of_kind = || {
            let all = self.routes.iter().enumerate().filter(|(_, route)| route.kind == kind);
            all.map(|(index, route)| (index, route.meta(self.resources)))
        };
        let found = of_kind().find(|(_, meta)| meta.name == wanted.name.0 && meta.namespace == namespace);
        let Some((route, _)) = found else {
            return Err(nowhere(namespace, wanted, of_kind().map(|(_, meta)| meta)));
        };
        let Some(section) = &wanted.section_name else { return Ok(Target::Route(route)) };
        let names = self.routes[route].rule_names(self.resources);
        let rule = position(&names, section).ok_or_else(|| no_section(wanted, "rule", section, &names))?;
        Ok(Target::Rule(route, rule))
    }

    fn service(&self, namespace: &str, wanted: &PolicyTargetRef) -> Result<Target, Missing> {
        let all = &self.resources.services;
        let found = all.iter().find(|each| each.meta.name == wanted.name.0 && each.meta.namespace == namespace);
        let Some(found) = found else { return Err(nowhere(namespace, wanted, all.iter().map(|each| &each.meta))) };
        let object = BackendObject { kind: "Service", namespace: namespace.to_owned(), name: found.meta.name.clone() };
        let Some(section) = &wanted.section_name else { return Ok(Target::Backend(object)) };
        let names: Vec<&str> = found.spec.ports.iter().map(|port| port.name.as_str()).collect();
        position(&names, section).ok_or_else(|| no_section(wanted, "port", section, &names))?;
        Ok(Target::Port(object, section.0.clone()))
    }

    fn backend(&self, namespace: &str, wanted: &PolicyTargetRef) -> Result<Target, Missing> {
        let all = &self.resources.backends;
        let found = all.iter().find(|each| each.meta.name == wanted.name.0 && each.meta.namespace == namespace);
        let Some(found) = found else { return Err(nowhere(namespace, wanted, all.iter().map(|each| &each.meta))) };
        if let Some(section) = &wanted.section_name {
            return Err(no_section(wanted, "section", section, &[]));
        }
        let object = BackendObject { kind: "Backend", namespace: namespace.to_owned(), name: found.meta.name.clone() };
        Ok(Target::Backend(object))
    }
}

fn conflict<S: Policy>(owner: &PolicyState<'_, S>) -> Outcome {
    let message = format!("the older {} {} has the same target", S::KIND, owner.object.meta.full_name());
    Outcome::Refused(Problem::new("Conflicted", message))
}

fn position(names: &[&str], section: &SectionName) -> Option<usize> {
    names.iter().position(|name| *name == section.0)
}

fn nowhere<'m>(
    namespace: &str,
    wanted: &PolicyTargetRef,
    known: impl Iterator<Item = &'m crate::control::resources::meta::Meta>,
) -> Missing {
    let known: Vec<&str> = known.filter(|meta| meta.namespace == namespace).map(|meta| meta.name.as_str()).collect();
    let help = suggestion(&wanted.name, &known).map(|meant| format!("did you mean `{meant}`?"));
    let message = format!("there is no {} {namespace}/{} to attach to", wanted.kind, wanted.name);
    Missing::Nowhere(Problem::new("TargetNotFound", message), help)
}

fn no_section(wanted: &PolicyTargetRef, what: &str, section: &SectionName, names: &[&str]) -> Missing {
    let help = suggestion(section, names).map(|meant| format!("did you mean `{meant}`?"));
    let message = format!("{} {} has no {what} {}", wanted.kind, wanted.name, section.0);
    Missing::Nowhere(Problem::new("TargetNotFound", message), help)
}
