//! `sessionPersistence` of HTTPRoute and GRPCRoute rules and of BackendPolicy (Gateway API GEP-1619, experimental channel):
//! the fields of v1.6, and those that the versions before it had in their place.

use crate::control::read::{choice, object};
use crate::control::source::Spanned;

use super::text::{Duration, HeaderName, PreciseHostname};

choice! {
    /// By what a client's endpoint is known again.
    SessionPersistenceType {
        /// A cookie.
        Cookie = "Cookie",
        /// A header field.
        Header = "Header",
    }
}

choice! {
    /// How long a cookie is kept.
    CookieLifetime {
        /// Until the client's session ends.
        Session = "Session",
        /// For `absoluteTimeout`.
        Permanent = "Permanent",
    }
}

object! {
    /// Clients go where they went.
    SessionPersistence = "sessionPersistence" {
        /// The end of a session, however busy it is; at least 1s.
        absolute_timeout / "absoluteTimeout": Duration = optional,
        /// The end of a session that is idle; at least 1s. Before v1.6.
        idle_timeout / "idleTimeout": Duration = optional,
        /// By what a client's endpoint is known again.
        kind / "type": SessionPersistenceType = or(SessionPersistenceType::Cookie),
        /// For `Cookie`.
        cookie / "cookie": SessionCookie = optional,
        /// For `Header`.
        header / "header": SessionHeader = optional,
        /// The cookie's or field's name. Before v1.6, which has `cookie.name` and `header.name`.
        session_name / "sessionName": HeaderName = optional,
        /// For `Cookie`. Before v1.6, which has `cookie`.
        cookie_config / "cookieConfig": CookieConfig = optional,
    }
    rules |this, cx| {
        let is_cookie = this.kind == SessionPersistenceType::Cookie;
        let older = this.session_name.is_some() || this.cookie_config.is_some() || this.idle_timeout.is_some();
        if this.is_permanent() && this.absolute_timeout.is_none() {
            cx.error(this.span, "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent");
        }
        if !is_cookie && this.cookie.is_some() {
            cx.error(this.span, "cookie must be nil if type is not Cookie");
        }
        if is_cookie && this.cookie.is_none() && !older {
            cx.error(this.span, "cookie must be specified for Cookie type");
        }
        if is_cookie && this.header.is_some() {
            cx.error(this.span, "header must be nil if type is not Header");
        }
        if !is_cookie && this.header.is_none() && this.session_name.is_none() {
            cx.error(this.span, "header must be specified for Header type");
        }
        if let Some(config) = &this.cookie_config
            && (!is_cookie || this.cookie.is_some())
        {
            cx.error(config.span, "cookieConfig is the older form of cookie: it needs type Cookie, and none beside it");
        }
        let named = this.header.is_some() || this.cookie.as_ref().is_some_and(|cookie| cookie.name.is_some());
        if named && this.session_name.is_some() {
            cx.error(this.span, "sessionName is the older form of cookie.name and header.name: only one may be given");
        }
    }
}

impl SessionPersistence {
    /// Whether the cookie outlives the client's session.
    pub fn is_permanent(&self) -> bool {
        let lifetime = match (&self.cookie, &self.cookie_config) {
            (Some(cookie), _) => cookie.lifetime,
            (None, Some(config)) => config.lifetime,
            (None, None) => CookieLifetime::Session,
        };
        lifetime == CookieLifetime::Permanent
    }

    /// The cookie's or field's name, where one is given.
    pub fn name(&self) -> Option<&str> {
        let cookie = self.cookie.as_ref().and_then(|cookie| cookie.name.as_ref());
        let header = self.header.as_ref().map(|header| &header.name);
        cookie.or(header).or(self.session_name.as_ref()).map(|name| name.0.as_str())
    }
}

object! {
    /// A cookie.
    SessionCookie = "cookie" {
        /// Its name; none: one of the rule's own.
        name / "name": HeaderName = optional,
        /// Where it is sent.
        path / "path": Spanned<String> = optional,
        /// How long it is kept.
        lifetime / "lifetimeType": CookieLifetime = or(CookieLifetime::Session),
    }
    rules |this, cx| {
        if let Some(path) = &this.path
            && (path.value.len() > 1024 || path.value.bytes().any(|b| !(b' '..0x7f).contains(&b) || b == b';'))
        {
            cx.error(path.span, "path must have at most 1024 characters, and no control characters or ';'");
        }
    }
}

object! {
    /// A header field.
    SessionHeader = "header" {
        /// Its name.
        name / "name": HeaderName = required,
    }
}

object! {
    /// A cookie, before v1.6.
    CookieConfig = "cookieConfig" {
        /// How long it is kept.
        lifetime / "lifetimeType": CookieLifetime = or(CookieLifetime::Session),
    }
}

choice! {
    /// Which requests from other sites come with a cookie.
    SameSite {
        /// None: a link from elsewhere begins another session.
        Strict = "Strict",
        /// Those that lead a browser here.
        Lax = "Lax",
        /// All; only over HTTPS.
        None = "None",
    }
}

object! {
    /// Attributes of session cookies. Not in the Gateway API.
    SessionCookieAttributes = "sessionCookie" {
        /// `SameSite`.
        same_site / "sameSite": SameSite = or(SameSite::Lax),
        /// `Secure` over plain HTTP too, where something ends TLS in front.
        secure / "secure": bool = or(false),
        /// `Domain`: subdomains get the cookie as well.
        domain / "domain": PreciseHostname = optional,
    }
}
