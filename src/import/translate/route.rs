//! HTTPRoutes: the rules of a host, and the redirects that go with them.

use super::canary::canary_headers;
use super::{GATEWAY_API, MAX_RULES, Output, RINGWAY_API, Work, header_match, object};
use crate::import::filters::{self, filter, full_path, is_hostname, is_path};
use crate::import::ingress::{Ingress, Path, Rule};
use crate::import::paths::{Condition, Host};
use crate::import::yaml::Yaml;
use crate::import::{affinity, authorize};

/// A rule of an HTTPRoute that is being made.
#[derive(Debug, Clone)]
struct Made {
    notes: Vec<String>,
    path: Yaml,
    headers: Vec<Yaml>,
    body: Vec<(&'static str, Yaml)>,
}

impl Made {
    fn yaml(&self) -> Yaml {
        let mut one = vec![("path", self.path.clone())];
        if !self.headers.is_empty() {
            one.push(("headers", Yaml::List(self.headers.clone())));
        }
        let mut parts = vec![("matches", Yaml::List(vec![Yaml::Map(one)]))];
        parts.extend(self.body.iter().cloned());
        Yaml::Map(parts).noted(self.notes.clone())
    }
}

/// Where rules are made for.
#[derive(Clone, Copy)]
struct Place<'p> {
    host: &'p Host,
    path: &'p Path,
    condition: &'p Condition,
    name: &'p str,
    closed: bool,
}

/// Whose routes are made.
#[derive(Clone, Copy)]
struct Target<'t> {
    ingress: &'t Ingress,
    hostnames: &'t [String],
    name: &'t str,
}

impl<'g> Work<'g> {
    /// The routes of one host.
    pub(super) fn host(&mut self, ingress: &'g Ingress, rule: &Rule, name: &str, closed: &[String], out: &mut Output) {
        let host = Host::of(rule.host.as_deref(), &self.ingresses);
        let mut hostnames: Vec<String> = rule.host.iter().cloned().collect();
        for alias in ingress.annotation("server-alias").into_iter().flat_map(|list| list.split(',')).map(str::trim) {
            if ringway_core::model::HostPattern::parse(alias).is_ok() {
                hostnames.push(alias.to_owned());
            } else if !alias.is_empty() {
                out.problems.push(format!("server-alias: \"{alias}\" is not a hostname"));
            }
        }
        let mut made = Vec::new();
        let mut plain = Vec::new();
        for (index, path) in rule.paths.iter().enumerate() {
            let condition = match host.condition(ingress, path) {
                Ok(condition) => condition,
                Err(why) => {
                    out.problems.push(format!("LEFT OUT: {why}"));
                    continue;
                }
            };
            let object_name = if rule.paths.len() == 1 { name.to_owned() } else { format!("{name}-{}", index + 1) };
            let place =
                Place { host: &host, path, condition: &condition, name: &object_name, closed: !closed.is_empty() };
            self.path(ingress, &place, &mut made, out);
            plain.push(condition.yaml());
        }
        if let Some(root) = ingress.annotation("app-root") {
            let redirect = Yaml::Map(vec![("path", full_path(root)), ("statusCode", Yaml::Int(302))]);
            let path = Yaml::Map(vec![("type", "Exact".into()), ("value", "/".into())]);
            let body = vec![("filters", Yaml::List(vec![filter("RequestRedirect", "requestRedirect", redirect)]))];
            if is_path(root) {
                made.push(Made { notes: vec!["app-root".to_owned()], path, headers: Vec::new(), body });
            } else {
                out.problems.push(format!("app-root: \"{root}\" is not a path"));
            }
        }
        if made.is_empty() {
            return;
        }
        let target = Target { ingress, hostnames: &hostnames, name };
        let is_wild = hostnames.iter().any(|host| host.starts_with("*."));
        let wild = is_wild
            .then(|| "a wildcard stands for one label in ingress-nginx, for one or more in the Gateway API".to_owned());
        let wants_tls = ingress.has_tls(rule.host.as_deref()) && self.has_https();
        let redirects = wants_tls && ingress.annotation("ssl-redirect") != Some("false");
        if wants_tls && (redirects || ingress.is("force-ssl-redirect")) {
            self.put_routes(&target, name, Some("https"), &made, wild, out);
            let note =
                "ssl-redirect: a host with TLS answers 308 in plain, which is ingress-nginx's default".to_owned();
            self.redirect_to_https(&target, &plain, note, out);
        } else if ingress.is("force-ssl-redirect") {
            let mut forwarded = made.clone();
            for each in &mut forwarded {
                each.headers.push(header_match("X-Forwarded-Proto", "Exact", "https".into()));
            }
            self.put_routes(&target, name, Some("http"), &forwarded, wild, out);
            let note = "force-ssl-redirect without TLS: what ends TLS in front says so by X-Forwarded-Proto; all else is sent to https"
                .to_owned();
            self.redirect_to_https(&target, &plain, note, out);
        } else {
            self.put_routes(&target, name, None, &made, wild, out);
        }
        self.www(&target, out);
    }

    /// Rules for one path, and the objects that they refer to.
    fn path(&mut self, ingress: &'g Ingress, place: &Place<'_>, made: &mut Vec<Made>, out: &mut Output) {
        let Place { host, path, condition, name, closed } = *place;
        if let Some(bare) = &condition.redirect {
            let redirect = Yaml::Map(vec![("path", full_path(&path.path)), ("statusCode", Yaml::Int(301))]);
            made.push(Made {
                notes: vec![format!(
                    "SURPRISE 4: ingress-nginx redirects {bare} to {} with 301; PathPrefix alone would serve it",
                    path.path
                )],
                path: Yaml::Map(vec![("type", "Exact".into()), ("value", bare.as_str().into())]),
                headers: Vec::new(),
                body: vec![("filters", Yaml::List(vec![filter("RequestRedirect", "requestRedirect", redirect)]))],
            });
        }
        let base = |headers: Vec<Yaml>, body: Vec<(&'static str, Yaml)>| Made {
            notes: condition.notes.clone(),
            path: condition.yaml(),
            headers,
            body,
        };
        if closed && !self.options.open {
            let reference = vec![
                ("group", "ringway.dev".into()),
                ("kind", "HTTPRouteFilter".into()),
                ("name", format!("{}-closed", ingress.base).into()),
            ];
            let filters = Yaml::List(vec![filter("ExtensionRef", "extensionRef", Yaml::Map(reference))]);
            let mut one = base(Vec::new(), vec![("filters", filters)]);
            let port = path.backend.port.as_ref().map_or_else(Clone::clone, ToString::to_string);
            one.notes.push(format!("CLOSED. It led to Service {} port {port}", path.backend.service));
            made.push(one);
            self.closing(ingress, out);
            return;
        }
        let found = filters::rule(self.given, ingress, path, name);
        out.problems.extend(found.problems);
        if let Some(Ok(server)) = authorize::server(ingress) {
            out.objects.extend(server.grant(ingress).filter(|grant| !out.objects.contains(grant)));
        }
        if let Some((pattern, substitution)) = &found.rewrite {
            let replace = vec![
                ("pattern", Yaml::Verbatim(pattern.clone())),
                ("substitution", Yaml::Verbatim(substitution.clone())),
            ];
            let rewrite = vec![("type", "ReplaceRegexMatch".into()), ("replaceRegexMatch", Yaml::Map(replace))];
            let spec = vec![("urlRewrite", Yaml::Map(vec![("path", Yaml::Map(rewrite))]))];
            let note = "rewrite-target with groups: the whole path becomes the target".to_owned();
            out.objects.push(object(RINGWAY_API, "HTTPRouteFilter", &ingress.namespace, name, spec).noted(vec![note]));
        }
        if let Some((hostname, port)) = &found.mirror {
            let endpoint = vec![("hostname", hostname.as_str().into()), ("port", Yaml::Int(i64::from(*port)))];
            let spec = vec![("endpoints", Yaml::List(vec![Yaml::Map(endpoint)]))];
            out.objects.push(object(RINGWAY_API, "Backend", &ingress.namespace, &format!("{name}-mirror"), spec));
        }
        let session = affinity::session(ingress, path, &mut out.problems);
        let body = |backends: Vec<Yaml>, session: Option<&Yaml>| {
            let mut body = Vec::new();
            if !found.filters.is_empty() {
                body.push(("filters", Yaml::List(found.filters.clone())));
            }
            if !found.redirect {
                body.push(("backendRefs", Yaml::List(backends)));
                body.extend(found.retry.clone().map(|retry| ("retry", retry)));
                body.extend(session.cloned().map(|session| ("sessionPersistence", session)));
            }
            body
        };
        self.backend_tls(ingress, host, &path.backend, out);
        let canary = self.canary(ingress, host, path).filter(|_| !found.redirect);
        let Some((canary, other)) = canary else {
            let backend = self.backend(ingress, &path.backend, None, out);
            made.push(base(Vec::new(), body(vec![backend], session.as_ref())));
            return;
        };
        let here = self.backend(ingress, &path.backend, None, out);
        let there = self.backend(ingress, &other, None, out);
        let note = format!("canary: Ingress {}", canary.full_name());
        for (wanted, to_canary) in canary_headers(canary, &mut out.problems) {
            let to = if to_canary { there.clone() } else { here.clone() };
            // Rules do not share sessions: whom a field leads elsewhere has none there.
            let mut one = base(vec![wanted], body(vec![to], None));
            one.notes.push(note.clone());
            made.push(one);
        }
        let number = |name: &str| canary.annotation(name).and_then(|text| text.parse::<i64>().ok());
        let total = number("canary-weight-total").unwrap_or(100).clamp(1, 1_000_000);
        let weight = number("canary-weight").unwrap_or(0).clamp(0, total);
        let backends = if weight > 0 {
            vec![
                self.backend(ingress, &path.backend, Some(total - weight), out),
                self.backend(ingress, &other, Some(weight), out),
            ]
        } else {
            vec![here]
        };
        let mut one = base(Vec::new(), body(backends, session.as_ref()));
        one.notes.push(format!("{note}, weight {weight} of {total}"));
        made.push(one);
    }

    /// The filter that answers in place of what must not be open.
    fn closing(&self, ingress: &Ingress, out: &mut Output) {
        let text = "closed by ringway import: it was protected by what is not translated\n";
        let body = Yaml::Map(vec![("type", "Inline".into()), ("inline", Yaml::Verbatim(text.to_owned()))]);
        let answer = vec![("statusCode", Yaml::Int(403)), ("contentType", "text/plain".into()), ("body", body)];
        let spec = vec![("directResponse", Yaml::Map(answer))];
        let one = object(RINGWAY_API, "HTTPRouteFilter", &ingress.namespace, &format!("{}-closed", ingress.base), spec);
        if !out.objects.contains(&one) {
            out.objects.push(one);
        }
    }

    fn put_routes(
        &self,
        target: &Target<'_>,
        name: &str,
        section: Option<&str>,
        made: &[Made],
        note: Option<String>,
        out: &mut Output,
    ) {
        for (index, rules) in made.chunks(MAX_RULES).enumerate() {
            let name = if index == 0 { name.to_owned() } else { format!("{name}-more-{index}") };
            let rules = Yaml::List(rules.iter().map(Made::yaml).collect());
            out.objects.push(self.route(target, &name, section, rules).noted(note.iter().cloned().collect()));
            out.routes.push(name);
        }
    }

    fn route(&self, target: &Target<'_>, name: &str, section: Option<&str>, rules: Yaml) -> Yaml {
        let mut spec = vec![("parentRefs", self.parents(target.ingress, section))];
        if !target.hostnames.is_empty() {
            let hostnames = target.hostnames.iter().take(16).map(|host| host.as_str().into());
            spec.push(("hostnames", Yaml::List(hostnames.collect())));
        }
        spec.push(("rules", rules));
        object(GATEWAY_API, "HTTPRoute", &target.ingress.namespace, name, spec)
    }

    fn redirect_to_https(&self, target: &Target<'_>, paths: &[Yaml], note: String, out: &mut Output) {
        let to = Yaml::Map(vec![("scheme", "https".into()), ("statusCode", Yaml::Int(308))]);
        let filters = Yaml::List(vec![filter("RequestRedirect", "requestRedirect", to)]);
        for (index, paths) in paths.chunks(64).enumerate() {
            let matches = paths.iter().map(|path| Yaml::Map(vec![("path", path.clone())]));
            let rule = Yaml::Map(vec![("matches", Yaml::List(matches.collect())), ("filters", filters.clone())]);
            let name =
                if index == 0 { format!("{}-https", target.name) } else { format!("{}-https-{index}", target.name) };
            out.objects.push(self.route(target, &name, Some("http"), Yaml::List(vec![rule])).noted(vec![note.clone()]));
        }
    }

    fn www(&self, target: &Target<'_>, out: &mut Output) {
        let Some(host) = target.hostnames.first().filter(|_| target.ingress.is("from-to-www-redirect")) else { return };
        let other = host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned);
        let taken =
            self.ingresses.iter().flat_map(|ingress| &ingress.rules).any(|rule| rule.host.as_deref() == Some(&other));
        if taken || !is_hostname(&other) {
            out.problems
                .push(format!("from-to-www-redirect: {other} is served by an Ingress of its own, or is no hostname"));
            return;
        }
        let to = Yaml::Map(vec![("hostname", host.as_str().into()), ("statusCode", Yaml::Int(308))]);
        let filters = Yaml::List(vec![filter("RequestRedirect", "requestRedirect", to)]);
        let other = [other];
        let target = Target { hostnames: &other, ..*target };
        let rules = Yaml::List(vec![Yaml::Map(vec![("filters", filters)])]);
        let note = "from-to-www-redirect: for https a certificate has to have this name too".to_owned();
        out.objects.push(self.route(&target, &format!("{}-www", target.name), None, rules).noted(vec![note]));
    }
}
