//! Paths rewritten.

use super::Matched;
use crate::model::PathModifier;

/// Appends `path` as `modifier` wants it (Gateway API HTTPPathModifier). A replacement of the prefix takes what the
/// rule matched; with another kind of match, which the API does not allow, the whole path counts as the prefix.
pub fn replace_path(path: &[u8], matched: Matched<'_>, modifier: &PathModifier, out: &mut Vec<u8>) {
    match modifier {
        PathModifier::ReplaceFull(full) => {
            if !full.starts_with('/') {
                out.push(b'/');
            }
            out.extend_from_slice(full.as_bytes());
        }
        PathModifier::ReplacePrefix(replacement) => {
            let prefix = match matched {
                Matched::Prefix(prefix) => prefix.len(),
                Matched::Exact | Matched::Regex => path.len(),
            };
            // Begins with a slash, or is empty: prefixes match whole elements.
            let rest = path.get(prefix..).unwrap_or_default();
            let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
            let before = out.len();
            if !replacement.is_empty() && !replacement.starts_with('/') {
                out.push(b'/');
            }
            out.extend_from_slice(replacement.as_bytes());
            out.extend_from_slice(rest);
            if out.len() == before {
                out.push(b'/');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the API's HTTPPathModifier.replacePrefixMatch.
    #[test]
    fn prefix_replacement_table() {
        let rows = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ];
        for (path, prefix, replacement, expected) in rows {
            let mut out = Vec::new();
            let matched = Matched::Prefix(prefix.strip_suffix('/').unwrap_or(prefix));
            replace_path(path.as_bytes(), matched, &PathModifier::ReplacePrefix(replacement.to_owned()), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{path} {prefix} {replacement}");
        }
    }
}
