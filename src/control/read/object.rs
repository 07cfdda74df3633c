//! Mappings, field by field, and the macros that declare what is read from them.

use crate::control::source::{Diagnostic, Span};
use crate::control::yaml::{Key, Node, Value};

use super::{Cx, FromNode, kind_of};

/// A mapping being read field by field.
#[derive(Debug)]
pub struct Object<'n, 'c> {
    node: &'n Node,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    cx: &'c Cx<'c>,
}

impl<'n, 'c> Object<'n, 'c> {
    /// Starts on a node, which must be a mapping.
    pub fn open(node: &'n Node, cx: &'c Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { node, entries, known: Vec::new(), cx }),
            _ => {
                cx.error(node.span, format!("expected a mapping, found {}", kind_of(node)));
                None
            }
        }
    }

    /// A field that may be absent or null. The outer `None`: errors were reported.
    #[allow(
        clippy::option_option,
        reason = "the outer option is whether it could be read, the inner whether it is there"
    )]
    pub fn optional<T: FromNode>(&mut self, name: &'static str) -> Option<Option<T>> {
        self.known.push(name);
        match self.entries.iter().find(|(key, _)| key.name == name) {
            Some((_, node)) if !node.is_null() => T::from_node(node, self.cx).map(Some),
            _ => Some(None),
        }
    }

    /// A field that must be there.
    pub fn required<T: FromNode>(&mut self, name: &'static str) -> Option<T> {
        let found = self.optional(name)?;
        if found.is_none() {
            let end = Span { end: self.node.span.start, ..self.node.span };
            let at = self.entries.first().map_or(end, |(key, _)| key.span);
            self.cx.error(at, format!("`{name}` is missing"));
        }
        found
    }

    /// Done: whatever was not asked for is unknown.
    pub fn finish(self, kind: &str) -> bool {
        let mut good = true;
        for (key, _) in self.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            good = false;
            let mut error = Diagnostic::error(key.span, format!("unknown field `{}` in {kind}", key.name));
            error.help = Some(match suggestion(&key.name, &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known fields: {}", self.known.join(", ")),
            });
            self.cx.report(error);
        }
        good
    }
}

/// The known name that was probably meant.
pub fn suggestion<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = name.to_lowercase();
    let holds = |candidate: &&&str| folded.len() >= 4 && candidate.to_lowercase().contains(&folded);
    if let Some(longer) = known.iter().find(holds) {
        return Some(longer);
    }
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Declares a structure that is read from a mapping. After its name stands what messages call it. Fields are
/// `required`, `optional` (an `Option`), or `or` a default; `rules` are checked when all fields could be read.
macro_rules! object {
    (@type required $ty:ty) => { $ty };
    (@type optional $ty:ty) => { Option<$ty> };
    (@type or $ty:ty) => { $ty };
    (@read $object:ident, $key:expr, required) => { $object.required($key) };
    (@read $object:ident, $key:expr, optional) => { $object.optional($key) };
    (@read $object:ident, $key:expr, or $default:expr) => { $object.optional($key).map(|found| found.unwrap_or_else(|| $default)) };
    (
        $(#[$meta:meta])*
        $name:ident = $label:literal {
            $( $(#[$fmeta:meta])* $field:ident / $key:literal : $ty:ty = $mode:ident $(($default:expr))? , )*
        }
        $( rules |$this:ident, $cx:ident| $rules:block )?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            /// Where it stands.
            pub span: $crate::control::source::Span,
            $( $(#[$fmeta])* pub $field: $crate::control::read::object!(@type $mode $ty), )*
        }

        impl $crate::control::read::FromNode for $name {
            fn from_node(node: &$crate::control::yaml::Node, cx: &$crate::control::read::Cx<'_>) -> Option<Self> {
                let mut object = $crate::control::read::Object::open(node, cx)?;
                $( let $field = $crate::control::read::object!(@read object, $key, $mode $($default)?); )*
                let known = object.finish($label);
                let read = Self { span: node.span, $( $field: $field?, )* };
                $( { let $this = &read; let $cx = cx; $rules } )?
                known.then_some(read)
            }

            fn schema() -> serde_json::Value {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<&str> = Vec::new();
                $(
                    let doc = $crate::control::read::doc_text(&[$( stringify!($fmeta) ),*]);
                    let schema = <$ty as $crate::control::read::FromNode>::schema();
                    properties.insert($key.to_owned(), $crate::control::read::described(schema, &doc));
                    if stringify!($mode) == "required" {
                        required.push($key);
                    }
                )*
                serde_json::json!({
                    "type": "object",
                    "description": $crate::control::read::doc_text(&[$( stringify!($meta) ),*]),
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    };
}
pub(crate) use object;

/// Declares an enumeration of strings.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $text:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$vmeta])* $variant, )* }

        impl $name {
            /// As written in resources.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }

        impl $crate::control::read::FromNode for $name {
            fn from_node(node: &$crate::control::yaml::Node, cx: &$crate::control::read::Cx<'_>) -> Option<Self> {
                let text = String::from_node(node, cx)?;
                match text.as_str() {
                    $( $text => Some(Self::$variant), )*
                    other => {
                        let known = [$( $text ),*];
                        let quoted = known.map(|each| format!("\"{each}\"")).join(", ");
                        let message = format!("unsupported value \"{other}\": supported values: {quoted}");
                        let mut error = $crate::control::source::Diagnostic::error(node.span, message);
                        if let Some(meant) = $crate::control::read::suggestion(other, &known) {
                            error = error.help(format!("did you mean `{meant}`?"));
                        }
                        cx.report(error);
                        None
                    }
                }
            }

            fn schema() -> serde_json::Value {
                let values = [$( $text ),*];
                let descriptions = [$( $crate::control::read::doc_text(&[$( stringify!($vmeta) ),*]) ),*];
                serde_json::json!({ "type": "string", "enum": values, "enumDescriptions": descriptions })
            }
        }
    };
}
pub(crate) use choice;

/// Declares an integer that is one of a few.
macro_rules! numbers {
    ( $(#[$meta:meta])* $name:ident { $( $number:literal, )* } ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub u16);

        impl $crate::control::read::FromNode for $name {
            fn from_node(node: &$crate::control::yaml::Node, cx: &$crate::control::read::Cx<'_>) -> Option<Self> {
                match i64::from_node(node, cx)? {
                    $( $number => Some(Self($number)), )*
                    other => {
                        let known = [$( stringify!($number) ),*].join(", ");
                        cx.error(node.span, format!("unsupported value {other}: supported values: {known}"));
                        None
                    }
                }
            }

            fn schema() -> serde_json::Value {
                let values = serde_json::json!({ "type": "integer", "enum": [$( $number ),*] });
                $crate::control::read::or_variable(values)
            }
        }
    };
}
pub(crate) use numbers;
