//! Cookie affinity: sessionPersistence of rules, and the attributes of their cookies in a BackendPolicy.

use super::ingress::{Ingress, Path};
use super::policies::duration;
use super::yaml::Yaml;

/// What ingress-nginx calls its cookie unless told otherwise.
const COOKIE: &str = "INGRESSCOOKIE";

fn is_asked(ingress: &Ingress) -> bool {
    ingress.annotation("affinity") == Some("cookie")
}

/// `sessionPersistence` of a path's rule, if its clients are to stay.
pub(super) fn session(ingress: &Ingress, path: &Path, problems: &mut Vec<String>) -> Option<Yaml> {
    if !is_asked(ingress) {
        if let Some(other) = ingress.annotation("affinity") {
            problems.push(format!("affinity: {other} is not known: cookie is"));
        }
        return None;
    }
    let token = |name: &str| ringway_core::http::is_token(name.as_bytes());
    let name = ingress.annotation("session-cookie-name").unwrap_or(COOKIE);
    let mut cookie = Vec::new();
    if token(name) {
        cookie.push(("name", Yaml::from(name)));
    } else {
        problems.push(format!("session-cookie-name: \"{name}\" is not a name of a cookie"));
    }
    let plain = |path: &str| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    let wanted = match ingress.annotation("session-cookie-path") {
        Some(wanted) => Some(Yaml::from(wanted)).filter(|_| plain(wanted)),
        // ingress-nginx takes the location's, and asks for one where that is a regular expression.
        None if ingress.is("use-regex") || ingress.annotation("rewrite-target").is_some() => None,
        None => {
            let note = "session-cookie-path: unless given it is the path of the Ingress, as in ingress-nginx";
            Some(Yaml::from(path.path.as_str()).noted(vec![note.to_owned()])).filter(|_| plain(&path.path))
        }
    };
    cookie.extend(wanted.map(|path| ("path", path)));
    let age = ["session-cookie-max-age", "session-cookie-expires"].iter().find_map(|name| {
        let text = ingress.annotation(name)?;
        let seconds = text.parse::<i64>().ok().filter(|seconds| *seconds > 0);
        if seconds.is_none() {
            problems.push(format!("{name}: \"{text}\" is not a number of seconds"));
        }
        seconds
    });
    let mut session = Vec::new();
    if let Some(seconds) = age {
        session.push(("absoluteTimeout", duration(seconds)));
        cookie.push(("lifetimeType", "Permanent".into()));
    }
    session.push(("cookie", Yaml::Map(cookie)));
    Some(Yaml::Map(session))
}

/// `BackendPolicy` `sessionCookie`: what is not as it would be anyway.
pub(super) fn attributes(ingress: &Ingress, problems: &mut Vec<String>) -> Option<Yaml> {
    if !is_asked(ingress) {
        return None;
    }
    let mut found = Vec::new();
    if let Some(text) = ingress.annotation("session-cookie-samesite") {
        match ["Strict", "Lax", "None"].into_iter().find(|known| known.eq_ignore_ascii_case(text)) {
            Some(known) => found.push(("sameSite", known.into())),
            None => problems.push(format!("session-cookie-samesite: \"{text}\" is none of Strict, Lax and None")),
        }
    }
    if ingress.is("session-cookie-secure") {
        found.push(("secure", Yaml::Bool(true)));
    }
    if let Some(domain) = ingress.annotation("session-cookie-domain") {
        let bare = domain.trim_start_matches('.').to_ascii_lowercase();
        if super::filters::is_hostname(&bare) {
            found.push(("domain", bare.as_str().into()));
        } else {
            problems.push(format!("session-cookie-domain: \"{domain}\" is not a domain"));
        }
    }
    (!found.is_empty()).then_some(Yaml::Map(found))
}
