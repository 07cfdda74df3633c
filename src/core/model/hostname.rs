//! Hostnames as listeners and routes write them.

use std::fmt;

/// A hostname pattern: Gateway API `Hostname`, or its absence.
///
/// Names are lower case. A wildcard matches one or more labels in front of its suffix, never the suffix alone
/// (`*.example.com` matches `a.example.com` and `a.b.example.com`, not `example.com`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// No hostname given: every host, and requests that have none.
    Any,
    /// The suffix with its leading dot: `.example.com` for `*.example.com`.
    Wildcard(String),
    /// A precise name.
    Exact(String),
}

/// Why a string is not a hostname pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPatternError;

impl fmt::Display for HostPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a DNS name in lower case such as `www.example.com` or `*.example.com`")
    }
}

impl std::error::Error for HostPatternError {}

impl HostPattern {
    /// Parses a Gateway API hostname: an RFC 1123 subdomain of at most 253 characters, optionally behind `*.`.
    /// IP addresses are not hostnames (the API forbids them).
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.is_empty() || text.len() > 253 || !name.split('.').all(label_ok) {
            return Err(HostPatternError);
        }
        if !wildcard && name.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(HostPatternError);
        }
        Ok(if wildcard { Self::Wildcard(format!(".{name}")) } else { Self::Exact(name.to_owned()) })
    }

    /// Whether `host` (lower case, no port) matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    /// The pattern that matches what both match, or `None` where nothing matches both.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, x) | (x, Self::Any) => Some(x.clone()),
            (Self::Exact(a), Self::Exact(b)) => (a == b).then(|| self.clone()),
            (Self::Exact(name), w @ Self::Wildcard(_)) | (w @ Self::Wildcard(_), Self::Exact(name)) => {
                w.matches(name).then(|| Self::Exact(name.clone()))
            }
            (Self::Wildcard(a), Self::Wildcard(b)) => {
                if a.ends_with(b.as_str()) {
                    Some(self.clone())
                } else if b.ends_with(a.as_str()) {
                    Some(other.clone())
                } else {
                    None
                }
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn refuses_what_the_api_refuses() {
        for bad in ["", "*", "*.", "a..b", "A.com", "-a.com", "a-.com", "10.0.0.1", "a.*.com", "*a.com", "a.com."] {
            assert_eq!(HostPattern::parse(bad), Err(HostPatternError), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_matches_labels_in_front_only() {
        let wildcard = pattern("*.example.com");
        assert!(wildcard.matches("a.example.com"));
        assert!(wildcard.matches("a.b.example.com"));
        assert!(!wildcard.matches("example.com"));
        assert!(!wildcard.matches(".example.com"));
        assert!(!wildcard.matches("aexample.com"));
    }

    #[test]
    fn intersections() {
        let cases = [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "*.example.org", None),
        ];
        for (a, b, both) in cases {
            assert_eq!(pattern(a).intersect(&pattern(b)), both.map(pattern), "{a} {b}");
            assert_eq!(pattern(b).intersect(&pattern(a)), both.map(pattern), "{b} {a}");
        }
        assert_eq!(HostPattern::Any.intersect(&pattern("a.com")), Some(pattern("a.com")));
    }
}
