//! Canaries: a share of another Ingress's requests, by headers, cookies or weight.

use super::{Work, header_match};
use crate::import::filters::{is_name, is_value};
use crate::import::ingress::{Backend, Ingress, Path};
use crate::import::paths::Host;
use crate::import::yaml::Yaml;

impl<'g> Work<'g> {
    /// Whether no path of another Ingress is this canary's.
    pub(super) fn unclaimed(&self, canary: &Ingress) -> bool {
        let main =
            self.ingresses.iter().filter(|ingress| !ingress.is("canary") && ingress.namespace == canary.namespace);
        let mut paths = main
            .flat_map(|ingress| &ingress.rules)
            .flat_map(|rule| rule.paths.iter().map(move |path| (&rule.host, &path.path)));
        !paths.any(|(host, path)| {
            canary.rules.iter().any(|rule| rule.host == *host && rule.paths.iter().any(|each| each.path == *path))
        })
    }

    pub(super) fn canary(&self, ingress: &Ingress, host: &Host, path: &Path) -> Option<(&'g Ingress, Backend)> {
        let canaries = self.ingresses.iter().filter(|each| each.is("canary") && each.namespace == ingress.namespace);
        let find = |canary: &&'g Ingress| {
            let rules = canary.rules.iter().filter(|rule| rule.host == host.name);
            let other = rules.flat_map(|rule| &rule.paths).find(|other| other.path == path.path)?;
            Some((*canary, other.backend.clone()))
        };
        canaries.into_iter().find_map(find)
    }
}

/// Header conditions of a canary in the order of precedence, and whether they lead to it.
pub(super) fn canary_headers(canary: &Ingress, problems: &mut Vec<String>) -> Vec<(Yaml, bool)> {
    let mut found = Vec::new();
    let header = canary.annotation("canary-by-header");
    if let Some(name) = header.filter(|name| !is_name(name)) {
        problems.push(format!("canary-by-header: {name:?} is not the name of a field"));
    }
    if let Some(header) = header.filter(|name| is_name(name)) {
        let exact = |value: &str| header_match(header, "Exact", value.into());
        if let Some(value) = canary.annotation("canary-by-header-value") {
            if is_value(value) {
                found.push((exact(value), true));
            } else {
                problems.push(format!("canary-by-header-value: {value:?} is not a value"));
            }
        } else if let Some(pattern) = canary.annotation("canary-by-header-pattern") {
            let pattern = format!(".*(?:{pattern}).*");
            if is_value(&pattern) && regex::bytes::Regex::new(&pattern).is_ok() {
                found.push((header_match(header, "RegularExpression", Yaml::Verbatim(pattern)), true));
            } else {
                problems.push(format!("canary-by-header-pattern: {pattern:?} cannot be matched here (RE2 syntax)"));
            }
        } else {
            found.push((exact("always"), true));
            found.push((exact("never"), false));
        }
    }
    if let Some(cookie) = canary.annotation("canary-by-cookie").filter(|name| is_name(name)) {
        let name = regex::escape(cookie);
        for (value, to_canary) in [("always", true), ("never", false)] {
            let pattern = Yaml::Verbatim(format!("(?:.*; ?)?{name}={value}(?:;.*)?"));
            found.push((header_match("Cookie", "RegularExpression", pattern), to_canary));
        }
    }
    found
}
