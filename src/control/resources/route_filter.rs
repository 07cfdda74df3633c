//! `ringway.dev/v1alpha1 HTTPRouteFilter`: filters that the Gateway API has no field for, referred to by an HTTPRoute's
//! `ExtensionRef`. Field names follow Envoy Gateway's HTTPRouteFilter.

use crate::control::read::{Cx, FromNode, Int, Verbatim, choice, object};
use crate::control::source::Spanned;
use crate::control::yaml::Node;

use ringway_core::model::{RegexRewrite, Substitution};

use super::filter::Cors;
use super::text::HeaderValue;
use super::tls::LocalObjectRef;

object! {
    /// `HTTPRouteFilter.spec`.
    RouteFilterSpec = "HTTPRouteFilter spec" {
        /// Changes the path on the way.
        url_rewrite / "urlRewrite": FilterRewrite = optional,
        /// Answers in place of a backend.
        direct_response / "directResponse": DirectResponse = optional,
        /// Which pages may share what is answered, as a filter `CORS` says it; for GRPCRoutes, which have no such filter.
        cors / "cors": Cors = optional,
    }
    rules |this, cx| {
        if this.url_rewrite.is_none() && this.direct_response.is_none() && this.cors.is_none() {
            cx.error(this.span, "one of urlRewrite, directResponse and cors must be specified");
        }
    }
}

object! {
    /// A rewrite.
    FilterRewrite = "urlRewrite" {
        /// Of the path.
        path / "path": RegexPath = required,
    }
}

choice! {
    /// How a path is changed.
    RegexPathType {
        /// Every match of a regular expression.
        ReplaceRegexMatch = "ReplaceRegexMatch",
    }
}

object! {
    /// A change of the path.
    RegexPath = "path" {
        /// How.
        kind / "type": RegexPathType = required,
        /// For `ReplaceRegexMatch`.
        regex / "replaceRegexMatch": ReplaceRegex = required,
    }
}

/// A pattern, and what stands in place of its matches.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaceRegex(pub RegexRewrite);

impl FromNode for ReplaceRegex {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let mut object = crate::control::read::Object::open(node, cx)?;
        let pattern: Option<Spanned<Verbatim>> = object.required("pattern");
        let substitution: Option<Spanned<Verbatim>> = object.required("substitution");
        let known = object.finish("replaceRegexMatch");
        let (pattern, substitution) = (pattern?, substitution?);
        let regex = match regex::bytes::RegexBuilder::new(&pattern.value.0).size_limit(1 << 20).build() {
            Ok(regex) => regex,
            Err(error) => {
                let message = error.to_string();
                let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                cx.error(pattern.span, format!("not a regular expression: {last}"));
                return None;
            }
        };
        let text = &substitution.value.0;
        if text.len() > 1024 || text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || matches!(byte, b'#' | b'?')) {
            let message = "up to 1024 characters without spaces, control characters, '#', '?' or non-ASCII characters";
            cx.error(substitution.span, format!("the substitution must be {message}"));
            return None;
        }
        match Substitution::parse(text, regex.captures_len()) {
            Ok(parts) => known.then_some(Self(RegexRewrite { pattern: regex, substitution: parts })),
            Err(error) => {
                cx.error(substitution.span, error);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {
                "pattern": { "type": "string", "description": "A regular expression of RE2's syntax; every match is replaced." },
                "substitution": { "type": "string", "maxLength": 1024, "description": "What stands in place of it; groups are $1 or ${1}." },
            },
            "required": ["pattern", "substitution"],
            "additionalProperties": false,
        })
    }
}

object! {
    /// An answer in place of a backend.
    DirectResponse = "directResponse" {
        /// Its status.
        status / "statusCode": Int<200, 599> = or(Int(200)),
        /// What the body is.
        content_type / "contentType": HeaderValue = optional,
        /// The body.
        body / "body": ResponseBody = optional,
    }
}

choice! {
    /// Where a body is.
    ResponseBodyType {
        /// Here.
        Inline = "Inline",
        /// In a ConfigMap.
        ValueRef = "ValueRef",
    }
}

object! {
    /// A body.
    ResponseBody = "body" {
        /// Where it is.
        kind / "type": ResponseBodyType = or(ResponseBodyType::Inline),
        /// Here.
        inline / "inline": Spanned<Verbatim> = optional,
        /// A ConfigMap of this namespace: its key `response.body`, or its only one.
        value_ref / "valueRef": Spanned<LocalObjectRef> = optional,
    }
    rules |this, cx| {
        let is_inline = this.kind == ResponseBodyType::Inline;
        if is_inline != this.inline.is_some() || is_inline == this.value_ref.is_some() {
            cx.error(this.span, "type Inline goes with inline, and type ValueRef with valueRef");
        }
        if let Some(inline) = &this.inline
            && inline.value.0.len() > MAX_BODY
        {
            cx.error(inline.span, format!("too long: at most {MAX_BODY} bytes"));
        }
    }
}

/// Bytes of a body that is answered from memory.
pub const MAX_BODY: usize = 64 << 10;
