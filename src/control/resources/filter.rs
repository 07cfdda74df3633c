//! HTTPRoute filters.

use ringway_core::model::OriginPattern;

use crate::control::read::{Cx, FromNode, Int, List, choice, numbers, object};
use crate::control::source::{Span, Spanned};
use crate::control::yaml::Node;

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
        /// Asks another server whether a request may pass. Experimental channel.
        ExternalAuth = "ExternalAuth",
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
        cors / "cors": Cors = optional,
        /// For `ExternalAuth`.
        external_auth / "externalAuth": ExternalAuth = optional,
    }
    rules |this, cx| {
        let parts = [
            ("ExternalAuth", "externalAuth", this.external_auth.is_some()),
            ("CORS", "cors", this.cors.is_some()),
            ("RequestHeaderModifier", "requestHeaderModifier", this.request_header_modifier.is_some()),
            ("ResponseHeaderModifier", "responseHeaderModifier", this.response_header_modifier.is_some()),
            ("RequestMirror", "requestMirror", this.request_mirror.is_some()),
            ("RequestRedirect", "requestRedirect", this.request_redirect.is_some()),
            ("URLRewrite", "urlRewrite", this.url_rewrite.is_some()),
            ("ExtensionRef", "extensionRef", this.extension_ref.is_some()),
        ];
        check_parts(this.span, this.kind.value.as_str(), &parts, cx);
    }
}

/// A filter of a type has the field of that type, and only that: types, their fields, and whether they are given.
pub(super) fn check_parts(span: Span, kind: &str, parts: &[(&str, &str, bool)], cx: &Cx<'_>) {
    for (name, field, given) in parts {
        if *given && kind != *name {
            cx.error(span, format!("filter.{field} must be nil if the filter.type is not {name}"));
        }
        if !given && kind == *name {
            cx.error(span, format!("filter.{field} must be specified for {name} filter.type"));
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
        FilterType::ExternalAuth,
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

numbers! {
    /// A redirect's status.
    RedirectStatus { 301, 302, 303, 307, 308, }
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
        status / "statusCode": RedirectStatus = optional,
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

object! {
    /// Cross-origin resource sharing.
    Cors = "cors" {
        /// Who may share; none: nobody.
        allow_origins / "allowOrigins": List<CorsOrigin, 0, 64> = or(List::default()),
        /// With cookies and the like.
        allow_credentials / "allowCredentials": bool = or(false),
        /// Methods.
        allow_methods / "allowMethods": List<CorsMethod, 0, 9> = or(List::default()),
        /// Request fields.
        allow_headers / "allowHeaders": List<HeaderName, 0, 64> = or(List::default()),
        /// Response fields that scripts see.
        expose_headers / "exposeHeaders": List<HeaderName, 0, 64> = or(List::default()),
        /// Seconds for which the answer to a preflight holds.
        max_age / "maxAge": Int<1, 2_147_483_647> = or(Int(5)),
    }
    rules |this, cx| {
        if this.allow_origins.len() > 1 && this.allow_origins.iter().any(|origin| origin.0 == OriginPattern::Any) {
            cx.error(this.span, "AllowOrigins cannot contain '*' alongside other origins");
        }
        if this.allow_methods.len() > 1 && this.allow_methods.iter().any(|method| method.as_str() == "*") {
            cx.error(this.span, "AllowMethods cannot contain '*' alongside other methods");
        }
        if this.allow_headers.len() > 1 && this.allow_headers.iter().any(|header| &**header == "*") {
            cx.error(this.span, "AllowHeaders cannot contain '*' alongside other methods");
        }
    }
}

/// An origin or a pattern of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(pub OriginPattern);

impl FromNode for CorsOrigin {
    fn from_node(node: &Node, cx: &Cx<'_>) -> Option<Self> {
        let text = String::from_node(node, cx)?;
        let parsed = OriginPattern::parse(&text);
        if parsed.is_none() {
            let message =
                format!("\"{text}\" is not an origin such as https://www.example.com, https://*.example.com or *");
            cx.error(node.span, message);
        }
        parsed.map(Self)
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "examples": ["https://www.example.com", "https://*.example.com", "*"] })
    }
}

choice! {
    /// A method, or all of them.
    CorsMethod {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// CONNECT.
        Connect = "CONNECT",
        /// OPTIONS.
        Options = "OPTIONS",
        /// TRACE.
        Trace = "TRACE",
        /// PATCH.
        Patch = "PATCH",
        /// All.
        All = "*",
    }
}

choice! {
    /// How a server of authorizations is asked.
    ExternalAuthProtocol {
        /// By a request of HTTP.
        Http = "HTTP",
        /// By Envoy's ext_authz: not served, requests are answered 500.
        Grpc = "GRPC",
    }
}

object! {
    /// Asks another server whether a request may pass.
    ExternalAuth = "externalAuth" {
        /// How it is asked.
        protocol / "protocol": Spanned<ExternalAuthProtocol> = required,
        /// Whom.
        backend_ref / "backendRef": BackendObjectRef = required,
        /// For `GRPC`.
        grpc / "grpc": GrpcAuth = optional,
        /// For `HTTP`.
        http / "http": HttpAuth = optional,
        /// How much of the body goes along.
        forward_body / "forwardBody": ForwardBody = optional,
    }
    rules |this, cx| {
        if this.protocol.value == ExternalAuthProtocol::Http && this.grpc.is_some() {
            cx.error(this.span, "grpc must only be specified with protocol 'GRPC'");
        }
        if this.protocol.value == ExternalAuthProtocol::Grpc && this.http.is_some() {
            cx.error(this.span, "http must only be specified with protocol 'HTTP'");
        }
    }
}

object! {
    /// What is asked by gRPC.
    GrpcAuth = "grpc" {
        /// Fields of the request that go along; none: all.
        allowed_headers / "allowedHeaders": List<HeaderName, 0, 64> = or(List::default()),
    }
}

object! {
    /// What is asked by HTTP.
    HttpAuth = "http" {
        /// Stands in front of the request's path.
        path / "path": Spanned<FilterPath> = optional,
        /// Further fields of the request that go along.
        allowed_headers / "allowedHeaders": List<HeaderName, 0, 64> = or(List::default()),
        /// Fields of the answer that the backend gets, and never from the client; none: all that the answer has.
        allowed_response_headers / "allowedResponseHeaders": List<HeaderName, 0, 64> = or(List::default()),
    }
    rules |this, cx| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&byte);
        if let Some(path) = &this.path
            && !(path.value.bytes().all(good) && (path.value.is_empty() || path.value.starts_with('/')))
        {
            cx.error(path.span, "path must be an absolute path of valid characters");
        }
    }
}

object! {
    /// How much of a body goes along.
    ForwardBody = "forwardBody" {
        /// In bytes; a request with a longer body is answered 413; 0: none goes along.
        max_size / "maxSize": Int<0, 49152> = or(Int(0)),
    }
}
