//! References into other namespaces: ReferenceGrants.

use crate::control::resources::Resources;
use crate::control::resources::refs::GATEWAY_GROUP;

/// A reference out of an object of the Gateway API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference<'a> {
    /// Who refers.
    pub(super) from_kind: &'a str,
    pub(super) from_namespace: &'a str,
    /// To what.
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Reference<'_> {
    /// Whether it may be followed: within its namespace, or by a grant of the target's.
    pub(super) fn is_permitted(&self, resources: &Resources) -> bool {
        self.from_namespace == self.namespace
            || resources.grants.iter().filter(|grant| grant.meta.namespace == self.namespace).any(|grant| {
                grant.spec.from.iter().any(|from| {
                    &*from.group == GATEWAY_GROUP
                        && &*from.kind == self.from_kind
                        && &*from.namespace == self.from_namespace
                }) && grant.spec.to.iter().any(|to| {
                    &*to.group == self.group
                        && &*to.kind == self.kind
                        && to.name.as_ref().is_none_or(|name| **name == *self.name)
                })
            })
    }

    /// That it may not.
    pub(super) fn refusal(&self) -> String {
        format!(
            "{} {}/{} is not permitted: no ReferenceGrant in namespace {} allows it from {}s of namespace {}",
            self.kind, self.namespace, self.name, self.namespace, self.from_kind, self.from_namespace
        )
    }
}
