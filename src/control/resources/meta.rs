//! What every object has.

use crate::control::read::{Cx, FromNode, Ignored, Int, Object, Table};
use crate::control::source::{Span, Spanned};
use crate::control::yaml::Node;

use super::text::{Namespace, ObjectName};

/// `metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// Where the name stands.
    pub span: Span,
    /// The object's name.
    pub name: String,
    /// Its namespace; `default` when not given. Empty for kinds that have none.
    pub namespace: String,
    /// `creationTimestamp`, compared as text: RFC 3339 in UTC sorts.
    pub created: Option<String>,
    /// For `observedGeneration`.
    pub generation: i64,
    /// Labels.
    pub labels: Table<String>,
}

impl Meta {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// Oldest first, then by namespace and name (the API's order of precedence); objects without a time come last.
    pub fn age_key(&self) -> (bool, &str, &str, &str) {
        (self.created.is_none(), self.created.as_deref().unwrap_or(""), &self.namespace, &self.name)
    }
}

impl FromNode for Meta {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = Object::open(node, cx)?;
        let name: Option<Spanned<ObjectName>> = object.required("name");
        let namespace: Option<Option<Namespace>> = object.optional("namespace");
        let created: Option<Option<String>> = object.optional("creationTimestamp");
        let generation: Option<Option<Int<0, { i64::MAX }>>> = object.optional("generation");
        let labels: Option<Option<Table<String>>> = object.optional("labels");
        // What a cluster adds to exported objects, and what concerns other programs.
        for other in [
            "annotations",
            "managedFields",
            "uid",
            "resourceVersion",
            "selfLink",
            "ownerReferences",
            "finalizers",
            "generateName",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            let _ignored: Option<Option<Ignored>> = object.optional(other);
        }
        let known = object.finish("metadata");
        let name = name?;
        let read = Self {
            span: name.span,
            name: name.value.0,
            namespace: namespace?.map_or_else(|| "default".to_owned(), |found| found.0),
            created: created?,
            generation: generation?.map_or(1, |found| found.0),
            labels: labels?.unwrap_or_default(),
        };
        known.then_some(read)
    }
}
