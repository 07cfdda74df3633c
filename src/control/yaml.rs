//! YAML and JSON text to a tree in which every key and value knows its place.
//!
//! Typed deserialisers stop at their first error, so the text is parsed once into this tree and the resources are read
//! from it, each collecting all of its errors. The events come from the parser under serde-saphyr: its serde layer
//! resolves scalars on its own, but `${VAR}` must be substituted before a plain scalar gets its type, and regular
//! expressions and ConfigMap data must not be substituted at all. So scalars stay as written until they are read.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span as Range};

use super::source::{Diagnostic, FileId, Span};

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 64;
/// Nodes of one file.
const MAX_NODES: usize = 4_000_000;
/// Nodes of one file that are copied, for anchors and for the aliases that name them.
const MAX_COPIES: usize = 500_000;
/// Larger mappings look their keys up by hash.
const SMALL_MAP: usize = 32;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A scalar as written, escapes resolved.
    Scalar {
        /// Its text.
        text: String,
        /// Not quoted: it may be a number, a boolean or null.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// Its name.
    pub name: String,
}

impl Node {
    /// Whether it is the null value.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// The documents of a text that are not empty.
#[derive(Debug)]
pub struct Documents {
    /// Their roots.
    pub nodes: Vec<Node>,
    /// Every document could be read; what is wrong with one, it is wrong with some value of it.
    pub complete: bool,
}

/// Reads a text. Syntax errors and duplicate keys go to `errors`; documents behind a syntax error are still read.
pub fn parse(file: FileId, text: &str, errors: &mut Vec<Diagnostic>) -> Documents {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), file, text, nodes: 0, copies: 0, anchors: HashMap::new(), errors };
    let mut found = Documents { nodes: Vec::new(), complete: true };
    loop {
        match reader.document() {
            Ok(Some(node)) if node.is_null() => {}
            Ok(Some(node)) => found.nodes.push(node),
            Ok(None) => return found,
            Err(stop) => {
                found.complete = false;
                let more = matches!(stop, Stop::Syntax) && matches!(reader.parser.proceed_next_document(), Ok(true));
                if !more {
                    return found;
                }
            }
        }
    }
}

enum Stop {
    Syntax,
    Limit,
}

struct Reader<'t, 'e> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    file: FileId,
    text: &'t str,
    nodes: usize,
    copies: usize,
    anchors: HashMap<usize, Node>,
    errors: &'e mut Vec<Diagnostic>,
}

impl<'t> Reader<'t, '_> {
    fn span(&self, range: &Range) -> Span {
        let byte = |marker: &granit_parser::Marker| {
            u32::try_from(marker.byte_offset().unwrap_or_else(|| marker.index()).min(self.text.len()))
                .unwrap_or(u32::MAX)
        };
        Span { file: self.file, start: byte(&range.start), end: byte(&range.end) }
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Range)>, Stop> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => {
                    let at = *error.marker();
                    let span = self.span(&Range::empty(at));
                    let mut found = Diagnostic::error(span, format!("not YAML: {}", error.info()));
                    let before = &self.text[..(span.start as usize).min(self.text.len())];
                    if before.rsplit('\n').next().is_some_and(|line| line.contains("${")) {
                        found = found.help("inside of { } and [ ] a ${...} has to stand in quotes");
                    }
                    self.errors.push(found);
                    return Err(Stop::Syntax);
                }
            }
        }
    }

    /// The next document's root.
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        loop {
            let Some((event, range)) = self.next()? else { return Ok(None) };
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                event => {
                    let root = self.node(event, &range, 0)?;
                    self.anchors.clear();
                    return Ok(Some(root));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, range: &Range, depth: usize) -> Result<Node, Stop> {
        let span = self.span(range);
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let what = if depth > MAX_DEPTH { "nested too deeply" } else { "too many values in one file" };
            self.errors.push(Diagnostic::error(span, what));
            return Err(Stop::Limit);
        }
        let (value, anchor, end) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }, anchor, span.end)
            }
            Event::SequenceStart(_, anchor, _) => {
                let (list, end) = self.list(depth)?;
                (Value::List(list), anchor, end)
            }
            Event::MappingStart(_, anchor, _) => {
                let (map, end) = self.map(depth)?;
                (Value::Map(map), anchor, end)
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    self.errors.push(Diagnostic::error(span, "an alias inside of the value it stands for"));
                    return Err(Stop::Limit);
                };
                self.copies += count(target);
                if self.copies <= MAX_COPIES {
                    return Ok(target.clone());
                }
                return Err(self.too_many_copies(span));
            }
            _ => {
                self.errors.push(Diagnostic::error(span, "expected a value"));
                return Err(Stop::Limit);
            }
        };
        let node = Node { span: Span { end: end.max(span.end), ..span }, value };
        if anchor != 0 {
            self.copies += count(&node);
            if self.copies > MAX_COPIES {
                return Err(self.too_many_copies(span));
            }
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn too_many_copies(&mut self, span: Span) -> Stop {
        let message = format!("anchors and aliases stand for more than {MAX_COPIES} values");
        self.errors.push(Diagnostic::error(span, message));
        Stop::Limit
    }

    fn list(&mut self, depth: usize) -> Result<(Vec<Node>, u32), Stop> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, range)) => {
                    let end = list.last().map_or(0, |node: &Node| node.span.end);
                    return Ok((list, end.max(self.closing(&range))));
                }
                Some((event, range)) => list.push(self.node(event, &range, depth + 1)?),
                None => return Err(Stop::Limit),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<(Vec<(Key, Node)>, u32), Stop> {
        let mut map: Vec<(Key, Node)> = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
        loop {
            let key = match self.next()? {
                Some((Event::MappingEnd, range)) => {
                    let end = map.last().map_or(0, |(_, node)| node.span.end);
                    return Ok((map, end.max(self.closing(&range))));
                }
                Some((event, range)) => self.node(event, &range, depth + 1)?,
                None => return Err(Stop::Limit),
            };
            let Some((event, range)) = self.next()? else { return Err(Stop::Limit) };
            let value = self.node(event, &range, depth + 1)?;
            let Value::Scalar { text: name, .. } = key.value else {
                self.errors.push(Diagnostic::error(key.span, "a mapping's key must be a string"));
                continue;
            };
            if map.len() == SMALL_MAP {
                names.extend(map.iter().map(|(known, _)| known.name.clone()));
            }
            let known = match map.len() < SMALL_MAP {
                true => map.iter().any(|(known, _)| known.name == name),
                false => !names.insert(name.clone()),
            };
            if known {
                self.errors.push(Diagnostic::error(key.span, format!("`{name}` is given twice in this mapping")));
                continue;
            }
            map.push((Key { span: key.span, name }, value));
        }
    }

    /// The end of a closing bracket; block collections have none.
    fn closing(&self, range: &Range) -> u32 {
        let span = self.span(range);
        if span.end > span.start { span.end } else { 0 }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(list) => list.iter().map(count).sum(),
        Value::Map(map) => map.iter().map(|(_, node)| count(node)).sum(),
    }
}
