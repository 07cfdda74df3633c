//! Paths as ingress-nginx matches them, in the words of the Gateway API.

use super::ingress::{Ingress, Path, PathKind};
use super::yaml::Yaml;

/// What ingress-nginx does with the paths of one host.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: Option<String>,
    /// The Ingress that makes all of them regular expressions, and by which annotation.
    pub(super) regex: Option<(String, &'static str)>,
    /// All paths of all its Ingresses that are matched as a whole.
    pub(super) exact: Vec<String>,
}

impl Host {
    pub(super) fn of(name: Option<&str>, ingresses: &[&Ingress]) -> Self {
        let mut found = Self { name: name.map(str::to_owned), regex: None, exact: Vec::new() };
        for ingress in ingresses.iter().filter(|ingress| !ingress.is("canary")) {
            for path in ingress.rules.iter().filter(|rule| rule.host.as_deref() == name).flat_map(|rule| &rule.paths) {
                if path.kind == PathKind::Exact || path.kind == PathKind::Prefix && !path.path.ends_with('/') {
                    found.exact.push(path.path.clone());
                }
                let by = if ingress.is("use-regex") {
                    Some("use-regex")
                } else {
                    ingress.annotation("rewrite-target").filter(|target| *target != path.path).map(|_| "rewrite-target")
                };
                if let Some(by) = by {
                    found.regex.get_or_insert_with(|| (ingress.full_name(), by));
                }
            }
        }
        found
    }

    /// A path's condition, with the comments that belong to it. `Err`: why there is none.
    pub(super) fn condition(&self, ingress: &Ingress, path: &Path) -> Result<Condition, String> {
        if let Some((by, annotation)) = &self.regex {
            let own = ingress.is("use-regex") || ingress.annotation("rewrite-target").is_some();
            let mut notes = vec![format!(
                "SURPRISE 1: a regular expression of ingress-nginx ignores case and matches the path's beginning, hence (?i) and .* here. \
                 Was: {} {}",
                kind(path.kind),
                path.path
            )];
            if !own {
                notes.push(format!(
                    "SURPRISE 2: {annotation} of Ingress {by} makes every path of this host a regular expression, this one too"
                ));
            } else if !ingress.is("use-regex") {
                notes.push(
                    "SURPRISE 3: rewrite-target alone makes every path of the host a regular expression".to_owned(),
                );
            }
            let pattern = format!("(?i)(?:{}).*", path.path);
            if let Err(error) = regex::bytes::Regex::new(&pattern) {
                let message = error.to_string();
                let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                return Err(format!("{} cannot be matched here: {last} (RE2 syntax: no look-around)", path.path));
            }
            if pattern.chars().count() > 1024 {
                return Err("the path is longer than 1024 characters".to_owned());
            }
            return Ok(Condition { kind: "RegularExpression", value: Yaml::Verbatim(pattern), notes, redirect: None });
        }
        let valid = path.path.starts_with('/')
            && path.path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&b))
            && !["//", "/./", "/../"].iter().any(|part| path.path.contains(part))
            && !path.path.ends_with("/..")
            && !path.path.ends_with("/.");
        if !valid {
            return Err(format!("{} cannot be matched as a path: use a path in normal form", path.path));
        }
        let mut notes = Vec::new();
        let mut redirect = None;
        let bare = path.path.trim_end_matches('/');
        if path.path.len() > 1 && path.path.ends_with('/') && !self.exact.iter().any(|known| known == bare) {
            redirect = Some(bare.to_owned());
        }
        let (kind, value) = match path.kind {
            PathKind::Exact => ("Exact", path.path.as_str()),
            PathKind::Prefix => ("PathPrefix", path.path.as_str()),
            PathKind::ImplementationSpecific => {
                if path.path != "/" && !path.path.ends_with('/') {
                    notes.push(format!(
                        "ImplementationSpecific: ingress-nginx also matched what merely begins with these characters, such as {}x; \
                         PathPrefix matches whole elements",
                        path.path
                    ));
                }
                ("PathPrefix", path.path.as_str())
            }
        };
        Ok(Condition { kind, value: value.into(), notes, redirect })
    }
}

fn kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Exact => "Exact",
        PathKind::Prefix => "Prefix",
        PathKind::ImplementationSpecific => "ImplementationSpecific",
    }
}

/// A condition on the path.
#[derive(Debug)]
pub(super) struct Condition {
    kind: &'static str,
    value: Yaml,
    pub(super) notes: Vec<String>,
    /// The same path without its slash at the end, which ingress-nginx redirects.
    pub(super) redirect: Option<String>,
}

impl Condition {
    /// `matches[].path`.
    pub(super) fn yaml(&self) -> Yaml {
        Yaml::Map(vec![("type", self.kind.into()), ("value", self.value.clone())])
    }
}
