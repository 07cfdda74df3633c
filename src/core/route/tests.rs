use regex::bytes::Regex;

use super::*;
use crate::model::{HeaderModifier, HostPattern, HttpRoute, HttpRule, UrlRewrite, ValueMatch};

/// Names and values, in order.
struct FieldList(Vec<(String, String)>);

impl FieldLookup for FieldList {
    fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        for (known, value) in &self.0 {
            if known.eq_ignore_ascii_case(name) {
                f(value.as_bytes());
            }
        }
    }
}

fn host(text: &str) -> HostPattern {
    if text == "*" { HostPattern::Any } else { HostPattern::parse(text).unwrap() }
}

fn rule(matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        matches,
        filters: Filters {
            request_headers: HeaderModifier::default(),
            response_headers: HeaderModifier::default(),
            rewrite: None::<UrlRewrite>,
        },
        action: Action::Fail(500),
        timeouts: RouteTimeouts::default(),
        extras: None,
    }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(path.to_owned()), ..HttpMatch::default() }
}

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Exact(path.to_owned()), ..HttpMatch::default() }
}

fn regex(pattern: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Regex(Regex::new(&format!("^(?:{pattern})$")).unwrap()), ..HttpMatch::default() }
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch { name: name.to_owned(), value: ValueMatch::Exact(value.to_owned()) }
}

fn query(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.to_owned(), value: ValueMatch::Exact(value.to_owned()) }
}

/// One listener for every host; a route per entry, its rules one match each.
fn table(routes: &[(&[&str], Vec<HttpMatch>)]) -> RouteTable {
    RouteTable::compile(&[listener("*", routes)])
}

fn listener(hostname: &str, routes: &[(&[&str], Vec<HttpMatch>)]) -> HttpListener {
    HttpListener {
        name: "l".to_owned(),
        hostname: host(hostname),
        routes: routes
            .iter()
            .enumerate()
            .map(|(index, (hosts, matches))| HttpRoute {
                grpc: false,
                id: RouteId(u32::try_from(index).unwrap()),
                hostnames: hosts.iter().map(|name| host(name)).collect(),
                rules: matches.iter().map(|one| rule(vec![one.clone()])).collect(),
            })
            .collect(),
        responses: None,
    }
}

/// `METHOD host/path?query`: the route and rule found.
fn find(table: &RouteTable, line: &str, fields: &[(&str, &str)]) -> Option<(u32, usize)> {
    let (method, target) = line.split_once(' ').unwrap();
    let at = target.find('/').unwrap();
    let (name, rest) = target.split_at(at);
    let (path, search) = match rest.split_once('?') {
        Some((path, search)) => (path, Some(search)),
        None => (rest, None),
    };
    let fields = FieldList(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
    let key = RequestKey {
        host: name,
        path: path.as_bytes(),
        query: search.map(str::as_bytes),
        method: method.as_bytes(),
        fields: &fields,
    };
    let found = match table.find(&key) {
        Found::Rule { rule, .. } => {
            let rule = &table.rules()[rule.index()];
            Some((rule.route.0, rule.rule_index))
        }
        Found::NoRule { .. } | Found::NoListener => None,
    };
    let trace = table.trace(&key);
    let winners: Vec<_> = trace.candidates.iter().filter(|candidate| candidate.lost.is_none()).collect();
    assert!(winners.len() < 2, "{line}: {winners:?}");
    let traced = winners.first().map(|winner| {
        let rule = &table.rules()[winner.rule.index()];
        (rule.route.0, rule.rule_index)
    });
    assert_eq!(traced, found, "{line}: what is traced is not what is served: {trace:#?}");
    found
}

#[test]
fn a_trace_says_what_every_candidate_failed_by() {
    let mut post = prefix("/a");
    post.method = Some("POST".to_owned());
    let mut versioned = prefix("/a");
    versioned.headers = vec![header("version", "two")];
    let mut asked = exact("/a/b");
    asked.query = vec![query("q", "1")];
    let routes = [(&["*.example.com"][..], vec![prefix("/"), post, versioned, asked, exact("/c"), regex("/x.*")])];
    let other = [(&["other.org"][..], vec![prefix("/")])];
    let all: Vec<_> = routes.into_iter().chain(other).collect();
    let table = RouteTable::compile(&[listener("*", &all), listener("*.org", &all), listener("a.org", &all)]);
    let fields = FieldList(Vec::new());
    let key = RequestKey { host: "www.example.com", path: b"/a/b", query: None, method: b"GET", fields: &fields };
    let trace = table.trace(&key);
    let fates: Vec<_> = trace.listeners.iter().map(|seen| (seen.index, seen.fate)).collect();
    assert_eq!(fates, [(2, Fate::OtherHost), (1, Fate::OtherHost), (0, Fate::Chosen)]);
    let seen: Vec<_> = trace
        .candidates
        .iter()
        .map(|candidate| {
            let rule = &table.rules()[candidate.rule.index()];
            let lost = candidate.lost.map(|lost| match lost {
                Lost::Header(wanted) => format!("header {}", wanted.name),
                Lost::Query(wanted) => format!("query {}", wanted.name),
                other => format!("{other:?}"),
            });
            (rule.rule_index, lost)
        })
        .collect();
    let expected = [
        (0, Some("Host")),
        (3, Some("query q")),
        (4, Some("Path")),
        (5, Some("Path")),
        (1, Some("Method")),
        (2, Some("header version")),
        (0, None),
    ];
    assert_eq!(seen, expected.map(|(rule, lost)| (rule, lost.map(str::to_owned))));
    let key = RequestKey { host: "a.org", ..key };
    let fates: Vec<_> = table.trace(&key).listeners.iter().map(|seen| (seen.index, seen.fate)).collect();
    assert_eq!(fates, [(2, Fate::Chosen), (1, Fate::LessSpecific), (0, Fate::LessSpecific)]);
}

#[test]
fn path_precedence() {
    let routes = [(
        &["*"][..],
        vec![prefix("/"), prefix("/a"), prefix("/a/b"), regex("/a/.*"), exact("/a/b/c"), regex("/a/b/.*")],
    )];
    let table = table(&routes);
    for (path, rule) in
        [("/", 0), ("/x", 0), ("/a", 1), ("/ab", 0), ("/a/b", 3), ("/a/b/c", 4), ("/a/b/d", 5), ("/a/x", 3)]
    {
        assert_eq!(find(&table, &format!("GET h{path}"), &[]), Some((0, rule)), "{path}");
    }
}

#[test]
fn prefixes_match_by_element_and_ignore_a_trailing_slash() {
    for value in ["/foo", "/foo/"] {
        let table = table(&[(&["*"], vec![prefix(value)])]);
        for (path, matches) in [
            ("/foo", true),
            ("/foo/", true),
            ("/foo/bar", true),
            ("/foobar", false),
            ("/", false),
            ("/Foo", false),
            ("/foo%2Fbar", false),
        ] {
            assert_eq!(find(&table, &format!("GET h{path}"), &[]).is_some(), matches, "{value} {path}");
        }
    }
}

#[test]
fn then_method_then_headers_then_query_then_order() {
    let method = HttpMatch { method: Some("POST".to_owned()), ..prefix("/a") };
    let one_header = HttpMatch { headers: vec![header("x", "1")], ..prefix("/a") };
    let two_headers = HttpMatch { headers: vec![header("x", "1"), header("y", "2")], ..prefix("/a") };
    let one_query = HttpMatch { query: vec![query("q", "1")], ..prefix("/a") };
    let two_queries = HttpMatch { query: vec![query("q", "1"), query("r", "2")], ..prefix("/a") };
    let table = table(&[
        (&["*"], vec![one_query, one_header, prefix("/a")]),
        (&["*"], vec![prefix("/a"), two_queries, two_headers, method]),
    ]);
    let (x, y) = (("X", "1"), ("Y", "2"));
    for (line, fields, expected) in [
        ("GET h/a", &[][..], (0, 2)),
        ("GET h/a?q=1", &[], (0, 0)),
        ("GET h/a?q=1&r=2", &[], (1, 1)),
        ("GET h/a?q=1&r=2", &[x], (0, 1)),
        ("GET h/a?q=1", &[x, y], (1, 2)),
        ("POST h/a?q=1", &[x, y], (1, 3)),
    ] {
        assert_eq!(find(&table, line, fields), Some(expected), "{line} {fields:?}");
    }
}

#[test]
fn hosts_from_the_specific_to_the_general() {
    let table = table(&[
        (&["*"], vec![prefix("/")]),
        (&["*.example.com"], vec![prefix("/")]),
        (&["*.b.example.com"], vec![prefix("/")]),
        (&["a.example.com"], vec![prefix("/only")]),
    ]);
    for (name, route) in [
        ("example.com", 0),
        ("x.example.com", 1),
        ("x.y.example.com", 1),
        ("b.example.com", 1),
        ("x.b.example.com", 2),
        ("x.y.b.example.com", 2),
        ("", 0),
        (".example.com", 0),
    ] {
        assert_eq!(find(&table, &format!("GET {name}/"), &[]), Some((route, 0)), "{name}");
    }
    assert_eq!(find(&table, "GET a.example.com/only", &[]), Some((3, 0)));
    // A less specific hostname serves what the more specific one has no rule for.
    assert_eq!(find(&table, "GET a.example.com/other", &[]), Some((1, 0)));
}

#[test]
fn only_the_most_specific_listener_is_asked() {
    let table = RouteTable::compile(&[
        listener("*", &[(&["*"], vec![prefix("/any")])]),
        listener("*.example.com", &[(&["*.example.com"], vec![prefix("/wild")])]),
        listener("a.example.com", &[(&["a.example.com"], vec![prefix("/exact")])]),
    ]);
    assert!(find(&table, "GET a.example.com/exact", &[]).is_some());
    assert!(find(&table, "GET a.example.com/wild", &[]).is_none());
    assert!(find(&table, "GET b.example.com/wild", &[]).is_some());
    assert!(find(&table, "GET b.example.com/any", &[]).is_none());
    assert!(find(&table, "GET other/any", &[]).is_some());
}

#[test]
fn header_values() {
    let table = table(&[(&["*"], vec![HttpMatch { headers: vec![header("x", "a,b")], ..prefix("/") }])]);
    assert!(find(&table, "GET h/", &[("X", "a,b")]).is_some());
    assert!(find(&table, "GET h/", &[("x", "a"), ("X", "b")]).is_some(), "lines of one name are joined");
    assert!(find(&table, "GET h/", &[("x", "a")]).is_none());
    assert!(find(&table, "GET h/", &[("x", "A,B")]).is_none());
    assert!(find(&table, "GET h/", &[]).is_none());
}

#[test]
fn query_values() {
    let table = table(&[(&["*"], vec![HttpMatch { query: vec![query("q", "a b")], ..prefix("/") }])]);
    for (search, matches) in [
        ("q=a+b", true),
        ("q=a%20b", true),
        ("%71=a+b", true),
        ("x=1&q=a+b&q=c", true),
        ("q=c&q=a+b", false),
        ("q=a", false),
        ("q", false),
        ("Q=a+b", false),
        ("q=a%2", false),
    ] {
        assert_eq!(find(&table, &format!("GET h/?{search}"), &[]).is_some(), matches, "{search}");
    }
    assert!(find(&table, "GET h/", &[]).is_none());
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const HOSTS: [&str; 7] = ["*", "*.c", "*.b.c", "b.c", "a.b.c", "c", "x.a.b.c"];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/a/bc"];

fn random_match(random: &mut Random) -> HttpMatch {
    let path = random.pick(&PATHS);
    HttpMatch {
        path: match random.below(6) {
            0 | 1 => PathMatch::Exact(path.to_owned()),
            2 => regex(random.pick(&["/a.*", "/[ab]+", "/a/b.*", ".*c"])).path,
            _ => PathMatch::Prefix(path.to_owned()),
        },
        method: (random.below(3) == 0).then(|| random.pick(&["GET", "POST"]).to_owned()),
        headers: ["x", "y"][..random.below(3)].iter().map(|name| header(name, random.pick(&["1", "2"]))).collect(),
        query: ["q", "r"][..random.below(3)].iter().map(|name| query(name, random.pick(&["1", "2"]))).collect(),
    }
}

/// The API's order, written down as one key: smaller is served first.
type Rank = (bool, usize, u8, usize, bool, usize, usize, usize);

/// The reference: every match of every route is tried, and the least key wins.
fn reference(
    routes: &[HttpRoute],
    name: &str,
    path: &str,
    method: &str,
    fields: &[(&str, &str)],
    params: &[(&str, &str)],
) -> Option<(u32, usize)> {
    let mut best: Option<(Rank, (u32, usize))> = None;
    let mut order = 0;
    for route in routes {
        let fitting = route.hostnames.iter().filter(|pattern| pattern.matches(name));
        let hostname = fitting
            .map(|pattern| match pattern {
                HostPattern::Exact(text) => (false, usize::MAX - text.len()),
                HostPattern::Wildcard(text) => (true, usize::MAX - text.len()),
                HostPattern::Any => (true, usize::MAX),
            })
            .min();
        for (index, rule) in route.rules.iter().enumerate() {
            for one in &rule.matches {
                order += 1;
                let Some((wild, host_rank)) = hostname else { continue };
                let (kind, length) = match &one.path {
                    PathMatch::Exact(text) if text == path => (0, 0),
                    PathMatch::Regex(pattern) if pattern.is_match(path.as_bytes()) => {
                        (1, usize::MAX - pattern.as_str().len())
                    }
                    PathMatch::Prefix(text) => {
                        let text = text.trim_end_matches('/');
                        let fits = path.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                        if !fits {
                            continue;
                        }
                        (2, usize::MAX - text.len())
                    }
                    _ => continue,
                };
                let value = |list: &[(&str, &str)], wanted: &str| {
                    list.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
                };
                let fits = one.method.as_deref().is_none_or(|wanted| wanted == method)
                    && one.headers.iter().all(|wanted| {
                        value(fields, &wanted.name).is_some_and(|found| wanted.value.matches(found.as_bytes()))
                    })
                    && one.query.iter().all(|wanted| {
                        value(params, &wanted.name).is_some_and(|found| wanted.value.matches(found.as_bytes()))
                    });
                if !fits {
                    continue;
                }
                let rank = (
                    wild,
                    host_rank,
                    kind,
                    length,
                    one.method.is_none(),
                    usize::MAX - one.headers.len(),
                    usize::MAX - one.query.len(),
                    order,
                );
                if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                    best = Some((rank, (route.id.0, index)));
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

#[test]
fn random_tables_agree_with_the_reference() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let routes: Vec<HttpRoute> = (0..1 + random.below(8))
            .map(|index| HttpRoute {
                grpc: false,
                id: RouteId(u32::try_from(index).unwrap()),
                hostnames: (0..1 + random.below(2)).map(|_| host(random.pick(&HOSTS))).collect(),
                rules: (0..1 + random.below(4))
                    .map(|_| rule((0..1 + random.below(3)).map(|_| random_match(&mut random)).collect()))
                    .collect(),
            })
            .collect();
        let table = RouteTable::compile(&[HttpListener {
            name: "l".to_owned(),
            hostname: HostPattern::Any,
            routes: routes.clone(),
            responses: None,
        }]);
        for _ in 0..60 {
            let name = random.pick(&["c", "b.c", "a.b.c", "x.a.b.c", "other", "y.c", "z.b.c"]);
            let path =
                random.pick(&["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/b", "/b/", "/a/bc", "/none"]);
            let method = random.pick(&["GET", "POST", "PUT"]);
            let fields: Vec<(&str, &str)> =
                ["x", "y"][..random.below(3)].iter().map(|name| (*name, random.pick(&["1", "2"]))).collect();
            let params: Vec<(&str, &str)> =
                ["q", "r"][..random.below(3)].iter().map(|name| (*name, random.pick(&["1", "2"]))).collect();
            let search: Vec<String> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let line = format!("{method} {name}{path}{}{}", if search.is_empty() { "" } else { "?" }, search.join("&"));
            let expected = reference(&routes, name, path, method, &fields, &params);
            assert_eq!(find(&table, &line, &fields), expected, "seed {seed}: {line} {fields:?}\n{routes:#?}");
        }
    }
}

fn call(path: PathMatch) -> HttpMatch {
    HttpMatch { path, method: Some("POST".to_owned()), ..HttpMatch::default() }
}

fn any_service(method: &str) -> HttpMatch {
    call(PathMatch::Method(Regex::new(&format!("^(?:/(?:[^/]+)/(?:{method}))$")).unwrap()))
}

/// A listener with HTTPRoutes and GRPCRoutes, told apart by the flag.
fn mixed(routes: Vec<(bool, &str, Vec<HttpRule>)>) -> RouteTable {
    let route = |(index, (grpc, name, rules)): (usize, (bool, &str, Vec<HttpRule>))| HttpRoute {
        grpc,
        id: RouteId(u32::try_from(index).unwrap()),
        hostnames: vec![host(name)],
        rules,
    };
    let routes = routes.into_iter().enumerate().map(route).collect();
    RouteTable::compile(&[HttpListener { name: "l".to_owned(), hostname: HostPattern::Any, routes, responses: None }])
}

const CALL: (&str, &str) = ("content-type", "application/grpc+proto");

/// GRPCRouteRule.matches: characters of the service, then of the method, then the number of header conditions.
#[test]
fn a_service_comes_before_a_method() {
    let headers = vec![header("a", "1"), header("b", "1")];
    let rules = vec![
        rule(vec![call(prefix("/").path)]),
        rule(vec![HttpMatch { headers: headers.clone(), ..any_service("Longer") }]),
        rule(vec![any_service("Longer")]),
        rule(vec![any_service("[^/]+")]),
        rule(vec![call(prefix("/s").path)]),
        rule(vec![call(exact("/s/Longer").path)]),
        rule(vec![HttpMatch { headers, ..call(exact("/t/Get").path) }]),
    ];
    let table = mixed(vec![(true, "*", rules)]);
    let both = [CALL, ("a", "1"), ("b", "1")];
    for (path, fields, expected) in [
        ("/s/Longer", &both[..], 5),
        ("/s/Other", &both[..1], 4),
        ("/t/Longer", &both[..], 1),
        ("/t/Longer", &both[..1], 2),
        ("/t/Get", &both[..], 6),
        ("/t/Get", &both[..1], 3),
        ("/t/more/Get", &both[..1], 0),
    ] {
        assert_eq!(find(&table, &format!("POST h{path}"), fields), Some((0, expected)), "{path} {}", fields.len());
    }
    assert_eq!(find(&table, "GET h/s/Longer", &[]), None);
}

/// Rules of the two kinds are not merged: calls ask those for calls first, and everything else asks them last.
#[test]
fn routes_for_calls_are_asked_apart() {
    let rules = || vec![rule(vec![call(prefix("/s").path)])];
    let pages = || vec![rule(vec![exact("/s/Get"), prefix("/")])];
    let table = mixed(vec![(false, "*", pages()), (true, "*", rules())]);
    assert_eq!(find(&table, "POST h/s/Get", &[CALL]), Some((1, 0)));
    assert_eq!(find(&table, "POST h/s/Get", &[("content-type", "application/grpc-web-text")]), Some((1, 0)));
    assert_eq!(find(&table, "POST h/s/Get", &[("content-type", "text/plain")]), Some((0, 0)));
    assert_eq!(find(&table, "POST h/other/Get", &[CALL]), Some((0, 0)));
    // Hostnames come first.
    let table = mixed(vec![(false, "h", pages()), (true, "*", rules())]);
    assert_eq!(find(&table, "POST h/s/Get", &[CALL]), Some((0, 0)));
    assert_eq!(find(&table, "POST g/s/Get", &[]), Some((1, 0)));
}

/// A page asks before it makes a call: only rules that answer such questions take them.
#[test]
fn preflights_for_calls() {
    let cors = crate::model::Cors {
        origins: vec![crate::model::OriginPattern::Any],
        credentials: false,
        methods: vec!["*".to_owned()],
        headers: vec!["*".to_owned()],
        expose: Vec::new(),
        max_age: 5,
    };
    let with = |cors| HttpRule {
        extras: Some(Box::new(RuleExtras { cors, ..RuleExtras::default() })),
        ..rule(vec![call(prefix("/s").path)])
    };
    let pages = || vec![rule(vec![prefix("/")])];
    let asks = [("access-control-request-method", "POST")];
    let web = [asks[0], ("access-control-request-headers", "content-type,x-grpc-web")];
    let table = mixed(vec![(false, "*", pages()), (true, "*", vec![with(Some(cors.clone()))])]);
    assert_eq!(find(&table, "OPTIONS h/s/Get", &web), Some((1, 0)));
    assert_eq!(find(&table, "OPTIONS h/s/Get", &asks), Some((0, 0)));
    assert_eq!(find(&table, "OPTIONS h/s/Get", &[]), Some((0, 0)));
    let table = mixed(vec![(true, "*", vec![with(Some(cors))])]);
    assert_eq!(find(&table, "OPTIONS h/s/Get", &asks), Some((0, 0)));
    assert_eq!(find(&table, "OPTIONS h/s/Get", &[]), None);
    let table = mixed(vec![(true, "*", vec![with(None)])]);
    assert_eq!(find(&table, "OPTIONS h/s/Get", &web), None);
}
