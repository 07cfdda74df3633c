//! Every object of a configuration by its name, with a digest by which its versions are told apart.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value as Json, json};

use super::lenient::{InError, ObjectKey, Served};
use super::read::{Cx, Environment};
use super::resources::KINDS;
use super::yaml::{Node, Value};

/// What stands in the place of a digest that is not told.
pub const HIDDEN: &str = "hidden";

/// The objects of a configuration.
pub type Inventory = BTreeMap<ObjectKey, Seen>;

/// An object as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// SHA-256 of what it says; `None`: it is not served as any file has it.
    pub digest: Option<[u8; 32]>,
    /// `Kind/namespace/name` of what a policy is attached to, and of a Gateway's class.
    pub of: Vec<String>,
}

impl Seen {
    /// An object, with `${file:PATH}` as it was replaced. `None`: it is of no kind that is read.
    pub(super) fn new(
        key: &ObjectKey,
        api_version: &str,
        object: &Node,
        environment: &dyn Environment,
        (directory, texts): (&Path, &HashMap<PathBuf, String>),
    ) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        KINDS.iter().find(|(of, kind, _)| *of == group && *kind == key.kind)?;
        let environment = AsRead { inner: environment, texts };
        let cx = Cx::new(&environment, directory.to_owned());
        let mut digest = Context::new(&SHA256);
        if let Value::Map(entries) = &object.value {
            // What a cluster says of an object is not what the object says.
            for (name, node) in sorted(entries, &["apiVersion", "kind", "metadata", "status"]) {
                put(name.as_bytes(), b'k', &mut digest);
                add(node, &cx, &mut digest);
            }
        }
        if let Some(Value::Map(entries)) = object.get("metadata").map(|meta| &meta.value) {
            for (name, node) in entries.iter().filter(|(key, _)| matches!(&*key.name, "labels" | "creationTimestamp")) {
                put(name.name.as_bytes(), b'k', &mut digest);
                add(node, &cx, &mut digest);
            }
        }
        let digest = digest.finish().as_ref().try_into().ok();
        Some(Self { digest, of: of(key, object, &cx) })
    }
}

/// Only the files that have been read.
struct AsRead<'a> {
    inner: &'a dyn Environment,
    texts: &'a HashMap<PathBuf, String>,
}

impl Environment for AsRead<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        self.texts.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn bytes(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn sorted<'n>(entries: &'n [(super::yaml::Key, Node)], without: &[&str]) -> Vec<(&'n str, &'n Node)> {
    let mut all: Vec<(&str, &Node)> = entries
        .iter()
        .map(|(key, node)| (key.name.as_str(), node))
        .filter(|(name, _)| !without.contains(name))
        .collect();
    all.sort_by_key(|(name, _)| *name);
    all
}

fn put(bytes: &[u8], what: u8, digest: &mut Context) {
    digest.update(&[what]);
    digest.update(&(bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

fn add(node: &Node, cx: &Cx<'_>, digest: &mut Context) {
    match &node.value {
        Value::Scalar { text, .. } => {
            let replaced = cx.silent(|cx| cx.text(node));
            put(replaced.as_deref().unwrap_or(text).as_bytes(), b's', digest);
        }
        Value::List(items) => {
            put(&(items.len() as u64).to_be_bytes(), b'l', digest);
            items.iter().for_each(|item| add(item, cx, digest));
        }
        Value::Map(entries) => {
            put(&(entries.len() as u64).to_be_bytes(), b'm', digest);
            for (name, node) in sorted(entries, &[]) {
                put(name.as_bytes(), b'k', digest);
                add(node, cx, digest);
            }
        }
    }
}

fn of(key: &ObjectKey, object: &Node, cx: &Cx<'_>) -> Vec<String> {
    let Some(spec) = object.get("spec") else { return Vec::new() };
    let text = |node: &Node, field: &str| cx.silent(|cx| Some(cx.text(node.get(field)?)?.into_owned()));
    if key.kind == "Gateway" {
        return text(spec, "gatewayClassName").map(|class| format!("GatewayClass/{class}")).into_iter().collect();
    }
    let targets = match spec.get("targetRefs").map(|list| &list.value) {
        Some(Value::List(targets)) => targets.as_slice(),
        _ => &[],
    };
    let one = |target: &Node| Some(format!("{}/{}/{}", text(target, "kind")?, key.namespace, text(target, "name")?));
    targets.iter().filter_map(one).collect()
}

/// Objects that are not served as any file has them keep their places without a digest.
pub(super) fn mark(inventory: &mut Inventory, in_error: &[InError]) {
    for object in in_error {
        match object.served {
            Served::LastGood | Served::Nothing => {}
            Served::LastGoodInPart | Served::Closed => {
                inventory.entry(object.key.clone()).or_default().digest = None;
            }
        }
    }
}

/// As `/config` has it. Without `secrets`, digests of Secrets are not told: who may guess may compare.
pub fn to_json(inventory: &Inventory, secrets: bool) -> Json {
    let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let one = |(key, seen): (&ObjectKey, &Seen)| {
        let digest = match &seen.digest {
            Some(_) if !secrets && key.kind == "Secret" => json!(HIDDEN),
            digest => json!(digest.as_ref().map(hex)),
        };
        let mut object = json!({ "kind": key.kind, "name": key.full_name(), "digest": digest });
        if !seen.of.is_empty() {
            object["of"] = json!(seen.of);
        }
        object
    };
    inventory.iter().map(one).collect()
}
