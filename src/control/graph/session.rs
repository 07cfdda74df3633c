//! Sessions as rules and BackendPolicies ask for them.

use std::time::Duration;

use ringway_core::http::{Tag, classify_request, classify_response, is_forbidden_trailer};
use ringway_core::model::{HttpMatch, PathMatch, SameSite, Session, SessionCarrier, SessionCookie, ValueMatch};
use ringway_core::session;

use crate::control::resources::session::{SessionPersistence, SessionPersistenceType};

use super::policy::{Outcome, Policies};
use super::{Problem, Report};
use crate::control::resources::backend_policy::BackendPolicySpec;
use crate::control::resources::policy::Policy as _;

/// What is asked for, for the rule with this scope; the error says why it cannot be had. A policy's cookie gets the rule
/// into its name (`suffixed`), since rules must not share sessions. Attributes of the cookie that depend on the listener
/// are not in it yet.
pub(in crate::control) fn session(
    spec: &SessionPersistence,
    scope: [u8; 16],
    suffixed: bool,
) -> Result<Session, String> {
    check(spec)?;
    let whole = |limit: Duration| Duration::from_secs(limit.as_secs() + u64::from(limit.subsec_nanos() > 0));
    let carrier = match (spec.kind, spec.name()) {
        (SessionPersistenceType::Header, name) => SessionCarrier::Header(name.unwrap_or_default().to_lowercase()),
        (SessionPersistenceType::Cookie, name) => {
            let [a, b, c, d, ..] = scope;
            let of_rule = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
            let name = match name {
                None => format!("ringway-{of_rule}"),
                Some(name) if suffixed => format!("{name}-{of_rule}"),
                Some(name) => name.to_owned(),
            };
            let path = spec.cookie.as_ref().and_then(|cookie| cookie.path.as_ref());
            SessionCarrier::Cookie(SessionCookie {
                name,
                path: path.map_or("/", |path| path.value.as_str()).to_owned(),
                domain: None,
                permanent: spec.is_permanent(),
                secure: false,
                same_site: SameSite::Lax,
            })
        }
    };
    Ok(Session {
        scope,
        carrier,
        absolute: spec.absolute_timeout.map(|limit| whole(limit.0)),
        idle: spec.idle_timeout.map(|limit| whole(limit.0)),
    })
}

/// What the API leaves open and cannot be done.
fn check(spec: &SessionPersistence) -> Result<(), String> {
    for (name, limit) in [("absoluteTimeout", spec.absolute_timeout), ("idleTimeout", spec.idle_timeout)] {
        if limit.is_some_and(|limit| limit.0 < Duration::from_secs(1)) {
            return Err(format!(
                "sessionPersistence {name} is shorter than a second, which is as exact as sessions are"
            ));
        }
    }
    let name = spec.name().unwrap_or_default();
    let plain = |name: &[u8]| classify_request(name) == Tag::Plain && classify_response(name) == Tag::Plain;
    if spec.kind == SessionPersistenceType::Header
        && (!plain(name.as_bytes())
            || is_forbidden_trailer(name.as_bytes())
            || name.to_lowercase().starts_with("grpc-")
            || name.eq_ignore_ascii_case("vary"))
    {
        return Err(format!("sessionPersistence cannot use the field {name}, which means something else"));
    }
    Ok(())
}

/// Says which BackendPolicies ask for sessions that cannot be had. Their other settings are in force.
pub(super) fn check_policies(policies: &mut Policies<'_, BackendPolicySpec>, report: &mut Report) {
    for state in &mut policies.all {
        let Some(spec) = &state.object.spec.session_persistence else { continue };
        let Err(why) = check(spec) else { continue };
        let message = format!("{why}: no sessions are kept");
        let name = state.object.meta.full_name();
        report.warning(spec.span, format!("{} {name}: {message}", BackendPolicySpec::KIND));
        for outcome in &mut state.outcomes {
            if *outcome == Outcome::Attached {
                *outcome = Outcome::Refused(Problem::new("Invalid", message.clone()));
            }
        }
    }
}

/// What tokens of a rule are good for. A rule is known again by its name, or else by its matches: rules come and go above
/// it.
pub(in crate::control) fn scope(route: &str, name: Option<&str>, matches: &[HttpMatch]) -> [u8; 16] {
    match name {
        Some(name) => session::scope(route, name),
        None => session::scope(route, &matches.iter().map(|each| said(each) + "\n").collect::<String>()),
    }
}

fn said(found: &HttpMatch) -> String {
    let value = |value: &ValueMatch| match value {
        ValueMatch::Exact(text) => format!("={text}"),
        ValueMatch::Regex(pattern) => format!("~{}", pattern.as_str()),
    };
    let mut text = match &found.path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => format!("^{path}"),
        PathMatch::Regex(pattern) | PathMatch::Method(pattern) => format!("~{}", pattern.as_str()),
    };
    text += &format!(" {}", found.method.as_deref().unwrap_or("*"));
    found.headers.iter().for_each(|each| text += &format!(" {}{}", each.name, value(&each.value)));
    found.query.iter().for_each(|each| text += &format!(" ?{}{}", each.name, value(&each.value)));
    text
}
