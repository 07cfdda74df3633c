//! Paths rewritten.

use super::Matched;
use crate::model::{PathModifier, Substitution};

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
        PathModifier::ReplaceRegex(rewrite) => {
            let start = out.len();
            let mut at = 0;
            for captures in rewrite.pattern.captures_iter(path) {
                let Some(whole) = captures.get(0) else { break };
                out.extend_from_slice(&path[at..whole.start()]);
                for part in &rewrite.substitution {
                    match part {
                        Substitution::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Substitution::Group(group) => {
                            out.extend_from_slice(captures.get(*group).map_or(&b""[..], |found| found.as_bytes()));
                        }
                    }
                }
                at = whole.end();
            }
            out.extend_from_slice(&path[at..]);
            if out.get(start) != Some(&b'/') {
                out.insert(start, b'/');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RegexRewrite;

    #[test]
    fn regular_expressions() {
        let rows = [
            ("/api/v1/users", "^/api/(v[0-9]+)/(.*)$", "/$2/\\1", "/users/v1"),
            ("/a/b/c", "/", "/x", "/xa/xb/xc"),
            ("/a", "^/a$", "", "/"),
            ("/a", "^/(a)|(b)", "$2z", "/z"),
            ("/a", "nothing", "x", "/a"),
        ];
        for (path, pattern, substitution, expected) in rows {
            let pattern = regex::bytes::Regex::new(pattern).unwrap();
            let substitution = Substitution::parse(substitution, pattern.captures_len()).unwrap();
            let modifier = PathModifier::ReplaceRegex(RegexRewrite { pattern, substitution });
            let mut out = b"GET ".to_vec();
            replace_path(path.as_bytes(), Matched::Exact, &modifier, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("GET {expected}"), "{path}");
        }
    }

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
