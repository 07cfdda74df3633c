//! Files as they were read, places in them, and what is said about those places.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A file's index in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(u32);

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

impl Span {
    /// The same bytes, of which `range` is meant.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether the other is within it.
    pub fn contains(self, other: Self) -> bool {
        self.file == other.file && self.start <= other.start && other.end <= self.end.max(self.start)
    }

    /// Its beginning.
    pub fn begin(self) -> Self {
        Self { end: self.start, ..self }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// Where.
    pub span: Span,
    /// What.
    pub value: T,
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but not all of it does what it says.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something to say about a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where; none when it concerns no place in a file.
    pub span: Option<Span>,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: Some(span), message: message.into(), help: None }
    }

    /// Something worth knowing, at a place.
    pub fn note(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, span: Some(span), message: message.into(), help: None }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, span: Some(span), message: message.into(), help: None }
    }

    /// The same with a piece of advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All files of a load.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    name: String,
    text: String,
    /// Where its lines begin.
    lines: Vec<usize>,
}

impl Sources {
    /// Adds a file.
    pub fn add(&mut self, name: String, text: String) -> FileId {
        let behind = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(behind).collect();
        self.files.push(File { name, text, lines });
        FileId(u32::try_from(self.files.len() - 1).expect("fewer files than 2^32"))
    }

    /// A file's text.
    pub fn text(&self, file: FileId) -> &str {
        &self.files[file.0 as usize].text
    }

    /// A file's name as it was given.
    pub fn name(&self, file: FileId) -> &str {
        &self.files[file.0 as usize].name
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// `file:line:column`, both counted from 1, columns in characters.
    pub fn place(&self, span: Span) -> String {
        let file = &self.files[span.file.0 as usize];
        let at = floor(&file.text, span.start as usize);
        let line = file.line(at);
        let column = file.text[file.lines[line]..at].chars().count() + 1;
        format!("{}:{}:{column}", file.name, line + 1)
    }

    /// A diagnostic in one line: `file:line:column: error: message`.
    pub fn line(&self, diagnostic: &Diagnostic) -> String {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        match diagnostic.span {
            Some(span) => format!("{}: {severity}: {}", self.place(span), diagnostic.message),
            None => format!("{severity}: {}", diagnostic.message),
        }
    }

    /// A diagnostic for people: the line, the source with a caret, and the advice.
    pub fn render(&self, diagnostic: &Diagnostic, color: bool) -> String {
        let mut out = self.line(diagnostic);
        let Some(span) = diagnostic.span else {
            if let Some(help) = &diagnostic.help {
                write!(out, "\n  = help: {help}").expect("writing to a string");
            }
            return out;
        };
        // Only the line itself is looked at, so that many diagnostics about a large file cost no more than they say.
        let file = &self.files[span.file.0 as usize];
        let at = floor(&file.text, span.start as usize);
        let line = file.line(at);
        let (text, start) = (&file.text[file.lines[line]..], at - file.lines[line]);
        // A caret under one line says more than a bracket around a block.
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let text = &text[..line_end];
        let one = text[start..].chars().next().map_or(0, char::len_utf8);
        let end = floor(&file.text, span.end as usize)
            .saturating_sub(file.lines[line])
            .clamp(start, line_end)
            .max(start + one);
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let annotation = AnnotationKind::Primary.span(start..end);
        let mut group =
            Group::with_level(level).element(Snippet::source(text).line_start(line + 1).annotation(annotation));
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        out.push('\n');
        out.push_str(&renderer.render(&[group]));
        out
    }
}

impl File {
    /// The line, counted from 0, that has this byte.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at) - 1
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
