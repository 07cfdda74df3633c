//! The htpasswd files of AccessPolicies. A policy whose file cannot be used stays in force and lets nobody in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::auth;
use crate::control::read::suggestion;
use crate::control::resources::policy::Policy as _;
use crate::control::resources::traffic::{AccessPolicySpec, BasicAuth};
use crate::control::resources::{Resource, Resources};
use crate::control::source::Span;

use super::policy::{Outcome, Policies};
use super::{Problem, Report};

/// Users with the hashes of their passwords.
pub type Users = Arc<BTreeMap<String, String>>;

/// Keys that hold a file: as ingress-nginx has it, and as Envoy Gateway does.
const KEYS: [&str; 2] = ["auth", ".htpasswd"];

/// The users of every AccessPolicy that has some, by its full name.
pub(super) fn read(
    resources: &Resources,
    policies: &mut Policies<'_, AccessPolicySpec>,
    report: &mut Report,
) -> HashMap<String, Users> {
    let mut found = HashMap::new();
    for state in &mut policies.all {
        let Some(basic) = &state.object.spec.basic_auth else { continue };
        let name = state.object.meta.full_name();
        match users(resources, state.object, basic) {
            Ok(users) => {
                found.insert(name, Arc::new(users));
            }
            Err((span, message, help)) => {
                let message = format!("{message}: nobody is let in");
                let title = format!("{} {name}: {message}", AccessPolicySpec::KIND);
                report.warning_with_help(span, title, help);
                for outcome in &mut state.outcomes {
                    if *outcome == Outcome::Attached {
                        *outcome = Outcome::Refused(Problem::new("Invalid", message.clone()));
                    }
                }
            }
        }
    }
    found
}

fn users(
    resources: &Resources,
    policy: &Resource<AccessPolicySpec>,
    basic: &BasicAuth,
) -> Result<BTreeMap<String, String>, (Span, String, Option<String>)> {
    let wanted = &basic.users;
    if !wanted.group.is_empty() || &*wanted.kind != "Secret" {
        return Err((
            wanted.span,
            format!("a {} of group \"{}\" holds no users, a Secret does", &*wanted.kind, &*wanted.group),
            None,
        ));
    }
    let namespace = &policy.meta.namespace;
    let here = || resources.secrets.iter().filter(|each| each.meta.namespace == *namespace);
    let Some(secret) = here().find(|each| each.meta.name == *wanted.name) else {
        let known: Vec<&str> = here().map(|each| each.meta.name.as_str()).collect();
        let help = suggestion(&wanted.name, &known).map(|meant| format!("did you mean `{meant}`?"));
        return Err((wanted.span, format!("there is no Secret {namespace}/{}", &*wanted.name), help));
    };
    let name = secret.meta.full_name();
    let Some(found) = KEYS.iter().find_map(|key| secret.spec.get(key)) else {
        return Err((secret.meta.span, format!("Secret {name} has no `auth`"), None));
    };
    let text = found.value.map_err(|why| (found.span, format!("`auth` of Secret {name} is {why}"), None))?;
    auth::parse(&text).map_err(|why| (found.span, format!("`auth` of Secret {name}: {why}"), None))
}
