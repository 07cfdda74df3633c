//! From the tree to typed values, collecting every error on the way.
//!
//! [`FromNode`] is what a serde `Deserialize` would be if it went on after an error: `None` means that at least one
//! error has been reported for this value. The `object!` macro writes it for the kinds, field by field.

mod environment;
mod object;

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::PathBuf;

use super::source::{Diagnostic, Severity, Span, Spanned};
use super::yaml::{Node, Value};

pub use environment::{Environment, FileSeen, ProcessEnvironment, Recording};
pub use object::{Object, suggestion};
pub(crate) use object::{choice, numbers, object};

/// What reading needs besides the tree: the environment, and where errors go.
pub struct Cx<'a> {
    environment: &'a dyn Environment,
    /// Directory of the file being read, for relative paths.
    pub directory: PathBuf,
    diagnostics: RefCell<Vec<Diagnostic>>,
}

impl std::fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl<'a> Cx<'a> {
    /// For one file.
    pub fn new(environment: &'a dyn Environment, directory: PathBuf) -> Self {
        Self { environment, directory, diagnostics: RefCell::default() }
    }

    /// Reports an error.
    pub fn error(&self, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::error(span, message));
    }

    /// Reports a warning.
    pub fn warning(&self, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::warning(span, message));
    }

    /// Reports.
    pub fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// How many errors have been reported.
    pub fn errors(&self) -> usize {
        self.diagnostics.borrow().iter().filter(|each| each.severity == Severity::Error).count()
    }

    /// Reads something without a report.
    pub fn silent<T>(&self, read: impl FnOnce(&Self) -> T) -> T {
        let before = self.diagnostics.borrow().len();
        let found = read(self);
        self.diagnostics.borrow_mut().truncate(before);
        found
    }

    /// Everything reported.
    pub fn finish(self) -> Vec<Diagnostic> {
        self.diagnostics.into_inner()
    }

    /// A scalar with `${VAR}`, `${VAR:-default}`, `${file:PATH}` and `$$` replaced.
    pub fn text<'n>(&self, node: &'n Node) -> Option<Cow<'n, str>> {
        match &node.value {
            Value::Scalar { text, .. } => match self.substitute(text) {
                Ok(text) => Some(text),
                Err(message) => {
                    self.error(node.span, message);
                    None
                }
            },
            _ => {
                self.error(node.span, format!("expected a scalar, found {}", kind_of(node)));
                None
            }
        }
    }

    fn substitute<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, String> {
        if !text.contains('$') {
            return Ok(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            if let Some(after) = tail.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inside) = tail.strip_prefix('{') {
                let end = inside.find('}').ok_or("`${` without its `}`; a dollar sign is written `$$`")?;
                out.push_str(&self.lookup(&inside[..end])?);
                rest = &inside[end + 1..];
            } else {
                out.push('$');
                rest = tail;
            }
        }
        out.push_str(rest);
        Ok(Cow::Owned(out))
    }

    fn lookup(&self, inside: &str) -> Result<String, String> {
        if let Some(path) = inside.strip_prefix("file:") {
            let path = self.directory.join(path);
            let read = self.environment.file(&path);
            return read
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("cannot read {}: {error}", path.display()));
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let valid = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(format!("`${{{inside}}}` is not `${{NAME}}`, `${{NAME:-default}}` or `${{file:PATH}}`"));
        }
        match (self.environment.variable(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                Err(format!("environment variable `{name}` is not set; `${{{name}:-default}}` gives a default"))
            }
        }
    }
}

/// What a node is, for messages.
pub fn kind_of(node: &Node) -> &'static str {
    match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar { plain: false, .. } => "a string",
        Value::Scalar { text, .. } => plain_kind(text),
    }
}

fn plain_kind(text: &str) -> &'static str {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => "null",
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "a boolean",
        _ if integer(text).is_some() => "an integer",
        _ if is_float(text) => "a number",
        _ => "a string",
    }
}

fn integer(text: &str) -> Option<i64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => match text.strip_prefix("0o") {
            Some(octal) => (octal, 8),
            None => (text, 10),
        },
    };
    let first = digits.bytes().next()?;
    if !(first.is_ascii_hexdigit() || (radix == 10 && (first == b'-' || first == b'+'))) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok()
}

fn is_float(text: &str) -> bool {
    matches!(text, ".inf" | "-.inf" | ".nan" | ".NaN")
        || (text.bytes().any(|b| b.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && text.parse::<f64>().is_ok())
}

/// A value that can be read from a node. `None`: errors were reported.
pub trait FromNode: Sized {
    /// Reads it.
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self>;

    /// JSON Schema of what is read. It stands beside the reading, so that the two change together.
    fn schema() -> serde_json::Value {
        serde_json::json!({ "$comment": UNDESCRIBED })
    }
}

/// Stands in the schema of a type that has none.
pub const UNDESCRIBED: &str = "not described";

/// A scalar that is no string may be a variable too.
pub(crate) fn or_variable(schema: serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "anyOf": [schema, { "type": "string", "pattern": "\\$\\{" }] })
}

/// A field's schema: its type's, with what is said of the field.
pub fn described(mut schema: serde_json::Value, doc: &str) -> serde_json::Value {
    if let Some(fields) = schema.as_object_mut()
        && !doc.is_empty()
    {
        fields.insert("description".to_owned(), doc.into());
    }
    schema
}

/// What doc comments say, as the compiler shows them: `doc = " text"`, a line each.
pub fn doc_text(attributes: &[&str]) -> String {
    let line = |attribute: &&str| {
        let text = attribute.strip_prefix("doc =")?;
        let (from, to) = (text.find('"')? + 1, text.rfind('"')?);
        Some(text.get(from..to)?.trim().replace("\\\"", "\""))
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ")
}

impl FromNode for String {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = cx.text(node)?;
        if let Value::Scalar { plain: true, .. } = &node.value {
            let kind = plain_kind(&text);
            if kind != "a string" {
                let mut error = Diagnostic::error(node.span, format!("expected a string, found {kind}"));
                if kind != "null" {
                    error = error.help(format!("put it in quotes: \"{text}\""));
                }
                cx.report(error);
                return None;
            }
        }
        Some(text.into_owned())
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string" })
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = cx.text(node)?;
        match (&node.value, &*text) {
            (Value::Scalar { plain: true, .. }, "true" | "True" | "TRUE") => Some(true),
            (Value::Scalar { plain: true, .. }, "false" | "False" | "FALSE") => Some(false),
            _ => {
                cx.error(node.span, format!("expected true or false, found {}", kind_of(node)));
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_variable(serde_json::json!({ "type": "boolean" }))
    }
}

impl FromNode for i64 {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = cx.text(node)?;
        match &node.value {
            Value::Scalar { plain: true, .. } if integer(&text).is_some() => integer(&text),
            Value::Scalar { plain: true, .. } => {
                cx.error(node.span, format!("expected an integer, found {}", plain_kind(&text)));
                None
            }
            _ => {
                let mut error = Diagnostic::error(node.span, format!("expected an integer, found {}", kind_of(node)));
                if integer(&text).is_some() {
                    error = error.help("remove the quotes");
                }
                cx.report(error);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_variable(serde_json::json!({ "type": "integer" }))
    }
}

/// An integer within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Int<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> FromNode for Int<MIN, MAX> {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let value = i64::from_node(node, cx)?;
        if !(MIN..=MAX).contains(&value) {
            cx.error(node.span, format!("{value} is out of range: expected {MIN} to {MAX}"));
            return None;
        }
        Some(Self(value))
    }

    fn schema() -> serde_json::Value {
        or_variable(serde_json::json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    /// Items that cannot be read are left out: their errors refuse the load, and what is said about the others is
    /// worth knowing in the same run.
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let Value::List(list) = &node.value else {
            cx.error(node.span, format!("expected a list, found {}", kind_of(node)));
            return None;
        };
        Some(list.iter().filter_map(|item| T::from_node(item, cx)).collect())
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "array", "items": T::schema() })
    }
}

/// A list of at least `MIN` and at most `MAX` items.
#[derive(Debug, Clone, PartialEq)]
pub struct List<T, const MIN: usize, const MAX: usize>(pub Vec<T>);

impl<T, const MIN: usize, const MAX: usize> Default for List<T, MIN, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: FromNode, const MIN: usize, const MAX: usize> FromNode for List<T, MIN, MAX> {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let list = Vec::from_node(node, cx)?;
        let given = if let Value::List(items) = &node.value { items.len() } else { 0 };
        if given < MIN {
            cx.error(node.span, format!("expected at least {MIN} items, found {given}"));
        }
        if given > MAX {
            cx.error(node.span, format!("too many: must have at most {MAX} items, found {given}"));
        }
        Some(Self(list))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "array", "items": T::schema(), "minItems": MIN, "maxItems": MAX })
    }
}

impl<T, const MIN: usize, const MAX: usize> std::ops::Deref for List<T, MIN, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: FromNode> FromNode for Spanned<T> {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        Some(Self { span: node.span, value: T::from_node(node, cx)? })
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }
}

impl<T: FromNode> FromNode for Box<T> {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        T::from_node(node, cx).map(Self::new)
    }

    fn schema() -> serde_json::Value {
        T::schema()
    }
}

/// A map from strings, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<T>(pub Vec<(String, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<T: FromNode> FromNode for Table<T> {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            cx.error(node.span, format!("expected a mapping, found {}", kind_of(node)));
            return None;
        };
        let read: Vec<Option<(String, T)>> =
            map.iter().map(|(key, value)| Some((key.name.clone(), T::from_node(value, cx)?))).collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// A string that is taken as it is written: nothing in it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verbatim(pub String);

impl FromNode for Verbatim {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } => Some(Self(text.clone())),
            _ => {
                cx.error(node.span, format!("expected a string, found {}", kind_of(node)));
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string" })
    }
}

/// Any value, which nothing is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored;

impl FromNode for Ignored {
    fn from_node(_: &Node, _: &Cx<'_>) -> Option<Self> {
        Some(Self)
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({})
    }
}
