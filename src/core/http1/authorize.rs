//! Asking another server whether a request may pass (Gateway API GEP-1494, HTTPExternalAuthFilter by HTTP): what it is
//! asked, what its answer adds to the request, and how a refusal is passed on.

use super::encode::{Modifier, Out, Reply, RequestContext, client_fields, end_of_head, status_line};
use super::request::RequestHead;
use super::response::{Framing, ResponseHead};

use crate::http::{Date, Tag, classify_request};
use crate::model::{ExternalAuth, HeaderModifier};

/// A field of a request, as its server has given it.
pub type GrantedField = (Vec<u8>, Vec<u8>);

/// What a server has added to a request that it lets pass.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// Whose word a field of this name is (in lower case): the client's own is not passed on, whether the server has
    /// sent one or not.
    pub names: &'a [String],
    /// What it has sent.
    pub fields: &'a [GrantedField],
}

impl Granted<'_> {
    /// Whether the client's own fields of this name are not passed on; nor are those that a backend which reads fields
    /// as variables (CGI) would take for it.
    pub(super) fn replaces(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| is_one_variable(name, known.as_bytes()))
            || self.fields.iter().any(|(known, _)| is_one_variable(name, known))
    }
}

/// Names of fields, in lower case, that the client may not send at a request's end either: whose word they are others'.
pub fn withheld(granted: &[Granted<'_>]) -> Vec<Vec<u8>> {
    let names = granted.iter().flat_map(|granted| granted.names.iter().map(|name| name.clone().into_bytes()));
    let fields = granted.iter().flat_map(|granted| granted.fields.iter().map(|(name, _)| name.clone()));
    names.chain(fields).collect()
}

/// Whether two names are one variable to what reads fields as CGI does.
pub(super) fn is_one_variable(a: &[u8], b: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

/// Whether a path would lead out of one put in front of it, for a server that takes escaped slashes, or backslashes, for
/// what they stand for: dot segments between plain slashes have been resolved.
pub fn climbs(path: &[u8]) -> bool {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, later @ ..] = rest {
        let (byte, after) = match (first, later) {
            (b'%', [b'2', b'f' | b'F', after @ ..]) | (b'%', [b'5', b'c' | b'C', after @ ..]) => (b'/', after),
            (b'%', [b'2', b'e' | b'E', after @ ..]) => (b'.', after),
            (b'\\', after) => (b'/', after),
            (byte, after) => (*byte, after),
        };
        plain.push(byte);
        rest = after;
    }
    plain.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment.starts_with(b"..;"))
}

/// Writes the head of a question without its end, which [`end_question`] writes once it is known how much of the body goes
/// along. The client's fields go as it has sent them: filters are at work behind the answer.
pub fn question(head: &RequestHead<'_>, rules: &ExternalAuth, context: &RequestContext<'_>, out: &mut Vec<u8>) {
    let mut out = Out(out);
    let path = |out: &mut Out<'_>| {
        out.put(&head.path);
        if let Some(query) = head.query {
            out.put(b"?");
            out.put(query);
        }
    };
    out.put(head.method_token);
    out.put(b" ");
    out.put(rules.path.as_bytes());
    if !rules.path.is_empty() && !head.path.starts_with(b"/") {
        // `*` of OPTIONS is a path of its own only.
        out.put(b"/");
    }
    path(&mut out);
    out.put(b" HTTP/1.1\r\n");
    out.field(b"Host", head.authority);
    for (tag, name, value) in head.fields.tagged() {
        let goes = match tag {
            Tag::Plain => true,
            Tag::PeerClaim => context.trusted && !is_told(name),
            _ => false,
        };
        let wanted = |known: &String| name.eq_ignore_ascii_case(known.as_bytes());
        if goes && (name.eq_ignore_ascii_case(b"authorization") || rules.request_headers.iter().any(wanted)) {
            out.field(name, value);
        }
    }
    client_fields(head, context, &mut Modifier::new(&HeaderModifier::default()), &mut out);
    out.field(b"x-forwarded-method", head.method_token);
    out.put(b"x-forwarded-uri: ");
    path(&mut out);
    out.put(b"\r\n");
}

/// What a question says itself of what is asked for.
fn is_told(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"x-forwarded-method") || name.eq_ignore_ascii_case(b"x-forwarded-uri")
}

/// Ends the head of a question with so many bytes of a body behind it.
pub fn end_question(body: usize, out: &mut Vec<u8>) {
    let mut out = Out(out);
    out.length(body as u64);
    out.put(b"\r\n");
}

/// Whether an answer lets the request pass.
pub fn passes(status: u16) -> bool {
    status / 100 == 2
}

/// The fields of an answer that go on with the request. What frames it, belongs to a connection or is said by the proxy is
/// never among them; what describes the answer's own content is only where it is asked for by name.
pub fn granted(answer: &ResponseHead<'_>, rules: &ExternalAuth) -> Vec<GrantedField> {
    let wanted = |name: &[u8]| match rules.response_headers.as_slice() {
        [] => !name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")),
        names => names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())),
    };
    let sayable = |name: &[u8]| matches!(classify_request(name), Tag::Plain | Tag::PeerClaim);
    let fields = answer.fields.tagged();
    let fields = fields.filter(|(tag, name, _)| *tag == Tag::Plain && sayable(name) && wanted(name));
    fields.map(|(_, name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect()
}

/// Writes the answer that a client gets of a server that does not let its request pass. `lost`: names of fields, in lower
/// case, that others say.
pub fn refusal(answer: &ResponseHead<'_>, body: &[u8], lost: &[&str], reply: Reply, now: &Date, out: &mut Vec<u8>) {
    let mut out = Out(out);
    status_line(&mut out, answer.status, answer.reason);
    let mut dated = false;
    for (tag, name, value) in answer.fields.tagged() {
        let is_lost = lost.iter().any(|lost| name.eq_ignore_ascii_case(lost.as_bytes()));
        if matches!(tag, Tag::Plain | Tag::Date) && !is_lost {
            dated |= tag == Tag::Date;
            out.field(name, value);
        }
    }
    if !dated {
        out.field(b"date", now.as_bytes());
    }
    match answer.body {
        Framing::None(Some(length)) => out.length(length),
        Framing::None(None) => {}
        _ => out.length(body.len() as u64),
    }
    end_of_head(&mut out, reply);
    if !reply.head_only && !matches!(answer.body, Framing::None(_)) {
        out.put(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::http1::FieldStorage;
    use crate::http1::encode;
    use crate::http1::request::parse_request;
    use crate::http1::response::parse_response;
    use crate::model::{ClientLimits, ClientPolicy, Filters, Target};
    use crate::route::Matched;

    fn rules(path: &str, request: &[&str], response: &[&str]) -> ExternalAuth {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        ExternalAuth {
            target: Target::Invalid,
            path: path.to_owned(),
            request_headers: names(request),
            response_headers: names(response),
            body_bytes: 0,
        }
    }

    fn context<'a>(policy: &'a ClientPolicy, trusted: bool, granted: &'a [Granted<'a>]) -> RequestContext<'a> {
        RequestContext {
            client: "192.0.2.1",
            scheme: "https",
            trusted,
            policy,
            request_id: "id",
            client_certificate: None,
            host: None,
            content_type: None,
            granted,
        }
    }

    const REQUEST: &[u8] = b"POST /a%20b?q=1 HTTP/1.1\r\nHost: www.example\r\nAuthorization: Bearer t\r\n\
        Cookie: c\r\nX-Forwarded-Uri: /public\r\nX-Forwarded-User: root\r\nX-Secret: s\r\nX-User: root\r\nx_user: root\r\n\
        Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: te, x-secret\r\n\r\n";

    fn asked(rules: &ExternalAuth, trusted: bool) -> String {
        let policy = ClientPolicy::default();
        let mut storage = FieldStorage::new();
        let head = parse_request(REQUEST, &mut storage, &ClientLimits::default()).unwrap().unwrap();
        let mut out = Vec::new();
        question(&head, rules, &context(&policy, trusted, &[]), &mut out);
        end_question(3, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_question_says_what_is_asked_for_and_nothing_else() {
        let told = "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: www.example\r\n\
            x-request-id: id\r\nvia: 1.1 ringway\r\nx-forwarded-method: POST\r\nx-forwarded-uri: /a%20b?q=1\r\ncontent-length: 3\r\n\r\n";
        let start = "Host: www.example\r\nAuthorization: Bearer t\r\n";
        let expected = format!("POST /a%20b?q=1 HTTP/1.1\r\n{start}{told}");
        assert_eq!(asked(&rules("", &[], &[]), false), expected);
        // What frames the request and what its client may not say does not go along, whoever lists it.
        let names = ["cookie", "x-forwarded-uri", "x-forwarded-user", "x-secret", "expect", "te", "transfer-encoding"];
        let expected = format!("POST /auth/a%20b?q=1 HTTP/1.1\r\n{start}Cookie: c\r\n{told}");
        assert_eq!(asked(&rules("/auth", &names, &[]), false), expected);
        let expected = format!("POST /auth/a%20b?q=1 HTTP/1.1\r\n{start}Cookie: c\r\nX-Forwarded-User: root\r\n{told}");
        assert_eq!(asked(&rules("/auth", &names, &[]), true), expected);
    }

    #[test]
    fn paths_that_lead_out_of_their_prefix() {
        for path in ["/a/..%2fb", "/a%2F..%2F..", "/..%5cx", "/a\\..\\b", "/x/%2e.%2f", "/a/..;/b", "/a/..;x=1"] {
            assert!(climbs(path.as_bytes()), "{path}");
        }
        for path in ["/", "/a%2Fb", "/a..b/c..", "/...%2f", "/%2", "/%", "*", "/a/.%2f"] {
            assert!(!climbs(path.as_bytes()), "{path}");
        }
    }

    const GRANT: &[u8] = b"HTTP/1.1 200 OK\r\nDate: d\r\nHost: evil\r\nX-User: me\r\nX-Groups: a\r\nX-Groups: b\r\nContent-Type: t\r\n\
        X-Forwarded-User: me\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: x-hop\r\nX-Hop: h\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn given(rules: &ExternalAuth) -> Vec<GrantedField> {
        let mut storage = FieldStorage::new();
        let head = parse_response(GRANT, &mut storage, Method::Get, &ClientLimits::default()).unwrap().unwrap();
        granted(&head, rules)
    }

    fn text(fields: &[GrantedField]) -> Vec<String> {
        let one = |(name, value): &GrantedField| format!("{}={}", name.escape_ascii(), value.escape_ascii());
        fields.iter().map(one).collect()
    }

    #[test]
    fn fields_of_the_answer_go_on_as_they_are_wanted() {
        let all = ["x-user=me", "x-groups=a", "x-groups=b", "x-forwarded-user=me"];
        assert_eq!(text(&given(&rules("", &[], &[]))), all);
        assert_eq!(
            text(&given(&rules("", &[], &["x-user", "content-type", "host", "x-forwarded-for", "x-hop", "date"]))),
            ["x-user=me", "content-type=t"]
        );
    }

    fn forwarded(names: &[String], fields: &[GrantedField]) -> String {
        let policy = ClientPolicy::default();
        let mut storage = FieldStorage::new();
        let head = parse_request(REQUEST, &mut storage, &ClientLimits::default()).unwrap().unwrap();
        let mut filters = Filters::default();
        filters.request_headers.add.push(("x-groups".to_owned(), "c".to_owned()));
        let granted = [Granted { names, fields }];
        let mut out = Vec::new();
        encode::request(&head, &filters, Matched::Prefix(""), &context(&policy, true, &granted), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_answer_says_cannot_be_said_by_the_client() {
        let names = ["x-user".to_owned(), "x-forwarded-user".to_owned(), "cookie".to_owned()];
        let sent = forwarded(&names, &given(&rules("", &[], &["x-user", "x-groups"])));
        assert!(sent.contains("\r\nx-user: me\r\nx-groups: a,c\r\nx-groups: b\r\n"), "{sent}");
        for gone in ["root", "Cookie", "x_user"] {
            assert!(!sent.contains(gone), "{gone}: {sent}");
        }
        // Also where the server has said nothing.
        let sent = forwarded(&names, &[]);
        assert!(!sent.contains("root") && sent.contains("Authorization: Bearer t"), "{sent}");
    }

    fn refused(answer: &[u8], method: Method, body: &[u8], head_only: bool) -> String {
        let mut storage = FieldStorage::new();
        let head = parse_response(answer, &mut storage, method, &ClientLimits::default()).unwrap().unwrap();
        let mut out = Vec::new();
        let reply = Reply { head_only, close: false, ..Reply::CLOSE };
        refusal(&head, body, &["access-control-allow-origin"], reply, &Date::at(0), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refusal_is_passed_on_with_a_framing_of_its_own() {
        let answer = b"HTTP/1.1 401 Who?\r\nDate: d\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
            Access-Control-Allow-Origin: *\r\nConnection: close, x-hop\r\nX-Hop: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let expected = "HTTP/1.1 401 Who?\r\nDate: d\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
            content-length: 2\r\n\r\nno";
        assert_eq!(refused(answer, Method::Get, b"no", false), expected);
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nDate: d\r\n\r\n";
        let expected = "HTTP/1.1 403 Forbidden\r\nDate: d\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(refused(answer, Method::Head, b"", true), expected);
        let answer = b"HTTP/1.1 304 Not Modified\r\nDate: d\r\n\r\n";
        assert_eq!(refused(answer, Method::Get, b"", false), "HTTP/1.1 304 Not Modified\r\nDate: d\r\n\r\n");
    }
}
