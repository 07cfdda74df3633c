//! HTTPRoute filters.

use crate::control::read::{Cx, Ignored, Int, List, choice, object};
use crate::control::source::Spanned;

use super::refs::BackendObjectRef;
use super::text::{FilterPath, HeaderName, HeaderValue, Port, PreciseHostname};

choice! {
    /// A filter's type.
    FilterType {
        /// Changes the request's header fields.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Changes the response's header fields.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Sends a copy of the request elsewhere.
        RequestMirror = "RequestMirror",
        /// Answers with a redirect.
        RequestRedirect = "RequestRedirect",
        /// Changes host and path on the way.
        UrlRewrite = "URLRewrite",
        /// Defined by an object of another group.
        ExtensionRef = "ExtensionRef",
        /// Cross-origin resource sharing.
        Cors = "CORS",
    }
}

object! {
    /// A filter.
    HttpFilter = "filter" {
        /// Which of the others is given.
        kind / "type": Spanned<FilterType> = required,
        /// For `RequestHeaderModifier`.
        request_header_modifier / "requestHeaderModifier": HeaderFilter = optional,
        /// For `ResponseHeaderModifier`.
        response_header_modifier / "responseHeaderModifier": HeaderFilter = optional,
        /// For `RequestMirror`.
        request_mirror / "requestMirror": Mirror = optional,
        /// For `RequestRedirect`.
        request_redirect / "requestRedirect": RequestRedirect = optional,
        /// For `URLRewrite`.
        url_rewrite / "urlRewrite": UrlRewrite = optional,
        /// For `ExtensionRef`.
        extension_ref / "extensionRef": ExtensionRef = optional,
        /// For `CORS`.
        cors / "cors": Ignored = optional,
    }
    rules |this, cx| {
        let parts = [
            (FilterType::Cors, "cors", this.cors.is_some()),
            (FilterType::RequestHeaderModifier, "requestHeaderModifier", this.request_header_modifier.is_some()),
            (FilterType::ResponseHeaderModifier, "responseHeaderModifier", this.response_header_modifier.is_some()),
            (FilterType::RequestMirror, "requestMirror", this.request_mirror.is_some()),
            (FilterType::RequestRedirect, "requestRedirect", this.request_redirect.is_some()),
            (FilterType::UrlRewrite, "urlRewrite", this.url_rewrite.is_some()),
            (FilterType::ExtensionRef, "extensionRef", this.extension_ref.is_some()),
        ];
        for (kind, field, given) in parts {
            let name = kind.as_str();
            if given && this.kind.value != kind {
                cx.error(this.span, format!("filter.{field} must be nil if the filter.type is not {name}"));
            }
            if !given && this.kind.value == kind {
                cx.error(this.span, format!("filter.{field} must be specified for {name} filter.type"));
            }
        }
    }
}

/// The rules on a list of filters as a whole.
pub fn check_filters(filters: &[HttpFilter], cx: &Cx<'_>) {
    let find = |kind| filters.iter().filter(move |filter| filter.kind.value == kind);
    if let (Some(_), Some(rewrite)) = (find(FilterType::RequestRedirect).next(), find(FilterType::UrlRewrite).next()) {
        let message =
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both";
        cx.error(rewrite.kind.span, message);
    }
    for kind in [
        FilterType::Cors,
        FilterType::RequestHeaderModifier,
        FilterType::ResponseHeaderModifier,
        FilterType::RequestRedirect,
        FilterType::UrlRewrite,
    ] {
        if let Some(second) = find(kind).nth(1) {
            cx.error(second.kind.span, format!("{} filter cannot be repeated", kind.as_str()));
        }
    }
}

object! {
    /// Changes to header fields.
    HeaderFilter = "header modifier" {
        /// Replaces.
        set / "set": List<HttpHeader, 0, 16> = or(List::default()),
        /// Appends.
        add / "add": List<HttpHeader, 0, 16> = or(List::default()),
        /// Removes.
        remove / "remove": List<Spanned<HeaderName>, 0, 16> = or(List::default()),
    }
    rules |this, cx| {
        for list in [&this.set, &this.add] {
            for (index, header) in list.iter().enumerate() {
                if list[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(&header.name)) {
                    cx.error(header.span, format!("Duplicate value: {{\"name\":\"{}\"}}", &*header.name));
                }
            }
        }
    }
}

object! {
    /// A header field.
    HttpHeader = "header" {
        /// Its name.
        name / "name": HeaderName = required,
        /// Its value.
        value / "value": HeaderValue = required,
    }
}

object! {
    /// A mirror.
    Mirror = "requestMirror" {
        /// Where copies go.
        backend_ref / "backendRef": BackendObjectRef = required,
        /// Of a hundred requests.
        percent / "percent": Int<0, 100> = optional,
        /// Or of any number.
        fraction / "fraction": Fraction = optional,
    }
    rules |this, cx| {
        if this.percent.is_some() && this.fraction.is_some() {
            cx.error(this.span, "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter");
        }
    }
}

object! {
    /// A share.
    Fraction = "fraction" {
        /// Above.
        numerator / "numerator": Int<0, 2_147_483_647> = required,
        /// Below.
        denominator / "denominator": Int<1, 2_147_483_647> = or(Int(100)),
    }
    rules |this, cx| {
        if this.numerator.0 > this.denominator.0 {
            cx.error(this.span, "numerator must be less than or equal to denominator");
        }
    }
}

object! {
    /// An object of another group.
    ExtensionRef = "extensionRef" {
        /// Its group.
        group / "group": super::text::Group = required,
        /// Its kind.
        kind / "kind": super::text::Kind = required,
        /// Its name.
        name / "name": super::text::ObjectName = required,
    }
}

choice! {
    /// A redirect's scheme.
    Scheme {
        /// `http`.
        Http = "http",
        /// `https`.
        Https = "https",
    }
}

object! {
    /// A redirect.
    RequestRedirect = "requestRedirect" {
        /// None keeps the request's.
        scheme / "scheme": Scheme = optional,
        /// None keeps the request's.
        hostname / "hostname": PreciseHostname = optional,
        /// None keeps the request's.
        path / "path": PathModifier = optional,
        /// None follows the scheme or the listener.
        port / "port": Port = optional,
        /// The status.
        status / "statusCode": Spanned<Int<0, 999>> = optional,
    }
    rules |this, cx| {
        if let Some(status) = &this.status
            && ![301, 302, 303, 307, 308].contains(&status.value.0)
        {
            let message =
                format!("unsupported value {}: supported values: 301, 302, 303, 307, 308", status.value.0);
            cx.error(status.span, message);
        }
    }
}

object! {
    /// A rewrite.
    UrlRewrite = "urlRewrite" {
        /// Replaces Host.
        hostname / "hostname": PreciseHostname = optional,
        /// Replaces the path.
        path / "path": PathModifier = optional,
    }
}

choice! {
    /// How a path is changed.
    PathModifierType {
        /// All of it.
        ReplaceFullPath = "ReplaceFullPath",
        /// The matched prefix.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

object! {
    /// A change of the path.
    PathModifier = "path modifier" {
        /// Which of the others is given.
        kind / "type": PathModifierType = required,
        /// For `ReplaceFullPath`.
        replace_full_path / "replaceFullPath": FilterPath = optional,
        /// For `ReplacePrefixMatch`.
        replace_prefix_match / "replacePrefixMatch": FilterPath = optional,
    }
    rules |this, cx| {
        let parts = [
            (PathModifierType::ReplaceFullPath, "replaceFullPath", &this.replace_full_path),
            (PathModifierType::ReplacePrefixMatch, "replacePrefixMatch", &this.replace_prefix_match),
        ];
        for (kind, field, given) in parts {
            let name = kind.as_str();
            match given {
                None if this.kind == kind => {
                    cx.error(this.span, format!("{field} must be specified when type is set to '{name}'"));
                }
                Some(_) if this.kind != kind => {
                    cx.error(this.span, format!("type must be '{name}' when {field} is set"));
                }
                // The API leaves these open; a path that the request line cannot carry is refused here.
                Some(path) if path.bytes().any(|b| b <= b' ' || b >= 0x7f || b == b'#') => {
                    cx.error(this.span, format!("{field} must not contain spaces, control characters, '#' or non-ASCII characters"));
                }
                Some(path) if !path.is_empty() && !path.starts_with('/') => {
                    cx.error(this.span, format!("{field} must be an absolute path and start with '/'"));
                }
                _ => {}
            }
        }
    }
}
