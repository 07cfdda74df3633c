//! YAML with comments, as a person would write it.

use std::fmt::Write as _;

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    /// A string in which Ringway would replace `${...}` and `$$`: written so that it does not.
    Text(String),
    /// A string that Ringway takes as it is: a regular expression or what replaces its matches.
    Verbatim(String),
    Int(i64),
    Bool(bool),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
    /// Comments stand above it.
    Noted(Vec<String>, Box<Self>),
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Yaml {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl Yaml {
    /// The same with comments above it.
    pub(super) fn noted(self, notes: Vec<String>) -> Self {
        if notes.is_empty() { self } else { Self::Noted(notes, Box::new(self)) }
    }

    fn parts(&self) -> (&[String], &Self) {
        match self {
            Self::Noted(notes, value) => (notes, value.parts().1),
            value => (&[], value),
        }
    }

    /// As a document.
    pub(super) fn document(&self) -> String {
        let mut out = String::from("---\n");
        let (notes, value) = self.parts();
        comments(notes, 0, &mut out);
        value.block(0, &mut out);
        out
    }

    fn block(&self, indent: usize, out: &mut String) {
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    let (notes, value) = value.parts();
                    comments(notes, indent, out);
                    write!(out, "{:indent$}{key}:", "").expect("writing to a string");
                    value.behind_key(indent, out);
                }
            }
            Self::List(items) => {
                for item in items {
                    let (notes, item) = item.parts();
                    comments(notes, indent, out);
                    let mut text = String::new();
                    match item.scalar() {
                        Some(scalar) => text = format!("{:width$}{scalar}\n", "", width = indent + 2),
                        None => item.block(indent + 2, &mut text),
                    }
                    text.replace_range(indent..=indent, "-");
                    out.push_str(&text);
                }
            }
            scalar => {
                let text = scalar.scalar().unwrap_or_default();
                writeln!(out, "{:indent$}{text}", "").expect("writing to a string");
            }
        }
    }

    fn behind_key(&self, indent: usize, out: &mut String) {
        match self.scalar() {
            Some(text) => writeln!(out, " {text}").expect("writing to a string"),
            None => {
                out.push('\n');
                let deeper = if matches!(self, Self::List(_)) { indent } else { indent + 2 };
                self.block(deeper, out);
            }
        }
    }

    /// What fits behind a key: scalars, and collections with nothing in them or nothing but short scalars.
    fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(quoted(&unreplaced(text))),
            Self::Verbatim(text) => Some(quoted(text)),
            Self::Int(number) => Some(number.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            Self::List(items) if items.is_empty() => Some("[]".to_owned()),
            Self::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
            Self::Map(entries) => {
                let flat = entries.iter().all(|(_, value)| {
                    matches!(value, Self::Text(_) | Self::Verbatim(_) | Self::Int(_) | Self::Bool(_))
                });
                let texts: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| Some(format!("{key}: {}", value.scalar()?)))
                    .collect::<Option<_>>()
                    .filter(|_| flat)?;
                Some(format!("{{{}}}", texts.join(", "))).filter(|text| text.len() <= 90)
            }
            Self::List(items) => {
                let flat = items.iter().all(|item| matches!(item, Self::Text(_) | Self::Int(_)));
                let texts: Vec<String> = items.iter().map(Self::scalar).collect::<Option<_>>().filter(|_| flat)?;
                Some(format!("[{}]", texts.join(", "))).filter(|text| text.len() <= 90)
            }
            Self::Noted(..) => None,
        }
    }
}

fn comments(notes: &[String], indent: usize, out: &mut String) {
    for note in notes {
        for line in wrapped(note, 116usize.saturating_sub(indent)) {
            writeln!(out, "{:indent$}# {line}", "").expect("writing to a string");
        }
    }
}

/// Lines of at most `width` characters, broken between words; control characters cannot end a comment.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let last = lines.last_mut().expect("there is always one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines
}

/// The text that is this one after Ringway has replaced `$$` and `${...}` in it.
fn unreplaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let meant = c == '$' && text[at + 1..].starts_with(['$', '{']);
        out.push_str(if meant { "$$" } else { "" });
        out.extend(Some(c).filter(|_| !meant));
    }
    out
}

/// In quotes, unless nobody could take it for anything but this string.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let value = Yaml::Map(vec![
            ("plain", "web".into()),
            ("quoted", "a: b".into()),
            ("dollar", "${x} $$ $1 $${y}".into()),
            ("pattern", Yaml::Verbatim("${1}".to_owned())),
            (
                "list",
                Yaml::List(vec![Yaml::Map(vec![("a", 1.into()), ("b", "on".into())]).noted(vec!["why".to_owned()])]),
            ),
            ("deep", Yaml::Map(vec![("x", Yaml::List(Vec::new())), ("y", Yaml::Map(vec![("z", Yaml::Bool(true))]))])),
        ])
        .noted(vec!["two\nlines".to_owned()]);
        let expected = "---\n# two lines\nplain: web\nquoted: \"a: b\"\ndollar: \"$${x} $$$ $1 $$$${y}\"\npattern: \"${1}\"\nlist:\n# why\n- {a: 1, b: \"on\"}\ndeep:\n  x: []\n  y: {z: true}\n";
        assert_eq!(value.document(), expected);
    }
}
