//! Strings with a shape: names, hostnames, header names, durations. Patterns and lengths are the CRDs'.

use std::sync::LazyLock;
use std::time::Duration as StdDuration;

use regex::Regex;
use ringway_core::model::HostPattern;

use crate::control::read::{Cx, FromNode, Int};
use crate::control::source::Diagnostic;
use crate::control::yaml::Node;

macro_rules! text {
    ($( $(#[$meta:meta])* $name:ident $min:literal ..= $max:literal $(, $pattern:literal $(, $hint:literal)?)? ; )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub String);

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromNode for $name {
            fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
                let text = String::from_node(node, cx)?;
                length(node, cx, &text, $min, $max)?;
                $(
                    static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a constant"));
                    if !PATTERN.is_match(&text) {
                        let mut error = Diagnostic::error(node.span, format!("\"{text}\" should match '{}'", $pattern));
                        $( error = error.help($hint); )?
                        let _hint = &mut error;
                        cx.report(error);
                        return None;
                    }
                )?
                Some(Self(text))
            }

            fn schema() -> serde_json::Value {
                let patterns: &[&str] = &[$( $pattern )?];
                shaped($min, $max, patterns.first().copied())
            }
        }
    )* };
}

/// Schema of a string with a shape, or with a variable in it.
fn shaped(min: usize, max: usize, pattern: Option<&str>) -> serde_json::Value {
    let mut schema = serde_json::json!({ "type": "string", "minLength": min, "maxLength": max });
    if let Some(pattern) = pattern {
        schema["pattern"] = format!(r"(?:{pattern})|\$\{{").into();
    }
    schema
}

fn length(node: &Node, cx: &Cx<'_>, text: &str, min: usize, max: usize) -> Option<()> {
    let chars = text.chars().count();
    if chars < min {
        cx.error(node.span, format!("should be at least {min} chars long"));
        return None;
    }
    if chars > max {
        cx.error(node.span, format!("too long: may not be more than {max} characters, found {chars}"));
        return None;
    }
    Some(())
}

text! {
    /// A Kubernetes object's name.
    ObjectName 1..=253;
    /// A namespace.
    Namespace 1..=63, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// The name of a listener, rule or port.
    SectionName 1..=253, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "lower case letters, digits, `-` and `.`";
    /// A kind.
    Kind 1..=63, r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
    /// An API group; empty is core.
    Group 0..=253, r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// The name of a header field or query parameter.
    HeaderName 1..=256, r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
    /// The value of a header field in a filter.
    HeaderValue 1..=4096, r"^[^\x00-\x08\x0a-\x1f\x7f]*$", "control characters cannot stand in a header field";
    /// A congestion control of the kernel (TCP_CA_NAME_MAX is 16 with the end of the string).
    CongestionControl 1..=15, r"^[a-z0-9][a-z0-9_-]*$", "`sysctl net.ipv4.tcp_available_congestion_control` lists them";
    /// A path in a filter.
    FilterPath 0..=1024;
    /// A hostname without a wildcard.
    PreciseHostname 1..=253, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    /// A protocol's name.
    ProtocolName 1..=255, r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$";
    /// A controller's name.
    ControllerName 1..=253, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$", "such as example.com/gateway-controller";
}

/// A port.
pub type Port = Int<1, 65535>;

impl Port {
    /// As the system's type.
    pub fn get(self) -> u16 {
        u16::try_from(self.0).expect("the type holds 1 to 65535")
    }
}

/// A hostname, `*.` in front allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(pub HostPattern);

impl FromNode for Hostname {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        length(node, cx, &text, 1, 253)?;
        match HostPattern::parse(&text) {
            Ok(pattern) => Some(Self(pattern)),
            Err(error) => {
                let mut found = Diagnostic::error(node.span, format!("\"{text}\" is not a hostname: {error}"));
                if text != text.to_lowercase() && HostPattern::parse(&text.to_lowercase()).is_ok() {
                    found = found.help(format!("did you mean `{}`?", text.to_lowercase()));
                }
                cx.report(found);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        shaped(1, 253, Some(r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))
    }
}

/// A Gateway API duration (GEP-2257): up to four of `5h`, `5m`, `5s`, `5ms` in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub StdDuration);

impl Duration {
    /// `0s` means none.
    pub fn limit(self) -> Option<StdDuration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl FromNode for Duration {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        let parsed = duration(&text);
        if parsed.is_none() {
            let message = format!("\"{text}\" should match '^([0-9]{{1,5}}(h|m|s|ms)){{1,4}}$'");
            cx.report(Diagnostic::error(node.span, message).help("a duration such as 500ms, 5s or 1m30s"));
        }
        parsed.map(Self)
    }

    fn schema() -> serde_json::Value {
        shaped(2, 32, Some("^([0-9]{1,5}(h|m|s|ms)){1,4}$"))
    }
}

fn duration(text: &str) -> Option<StdDuration> {
    let mut rest = text;
    let mut total = StdDuration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (millis, unit) = if rest.starts_with("ms") {
            (1, 2)
        } else {
            match rest.bytes().next()? {
                b'h' => (3_600_000, 1),
                b'm' => (60_000, 1),
                b's' => (1000, 1),
                _ => return None,
            }
        };
        rest = &rest[unit..];
        total += StdDuration::from_millis(number * millis);
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1h1m1s1ms", 3_661_001), ("0s", 0)] {
            assert_eq!(duration(text), Some(StdDuration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "1.5s", "123456s", "1h1m1s1ms1ms", "-1s", "1d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
