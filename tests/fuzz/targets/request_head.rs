#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::http1::FieldStorage;
use ringway_core::http1::encode::{self, Reply, RequestContext};
use ringway_core::http1::request::parse_request;
use ringway_core::model::{ClientLimits, ClientPolicy, Filters};
use ringway_core::route::Matched;

// Whatever is accepted can be written anew, and what is written is accepted with the same meaning.
fuzz_target!(|bytes: &[u8]| {
    let limits = ClientLimits::default();
    let mut storage = FieldStorage::new();
    let Ok(Some(head)) = parse_request(bytes, &mut storage, &limits) else { return };
    assert!(head.len <= bytes.len());
    let policy = ClientPolicy::default();
    let context = RequestContext {
        client: "::1",
        scheme: "http",
        trusted: false,
        policy: &policy,
        request_id: "id",
        client_certificate: None,
        host: None,
        content_type: None,
        granted: &[],
    };
    let mut out = Vec::new();
    encode::request(&head, &Filters::default(), Matched::Prefix(""), &context, &mut out);
    let mut again = FieldStorage::new();
    // What the proxy adds may take a head beyond the limits that it came within.
    let roomy = ClientLimits {
        head_bytes: 1 << 20,
        head_fields: 256,
        uri_bytes: 1 << 20,
        body_bytes: None,
        ..ClientLimits::default()
    };
    if let Ok(Some(second)) = parse_request(&out, &mut again, &roomy) {
        assert_eq!(second.len, out.len());
        assert_eq!(second.body, head.body);
        assert_eq!(second.path, head.path);
        assert_eq!(second.query, head.query);
    }
    let mut answer = Vec::new();
    encode::error(400, Reply::to(&head, false), &ringway_core::http::Date::at(0), &mut answer);
});
