#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::http::Method;
use ringway_core::http1::FieldStorage;
use ringway_core::http1::exchange::{After, Exchange, FailurePlan, HeadPlan, UpstreamFault};
use ringway_core::http1::request::parse_request;
use ringway_core::http1::response::parse_response;
use ringway_core::model::ClientLimits;

const REQUESTS: [&[u8]; 4] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
];
const RESPONSES: [&[u8]; 5] = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
];

// Operations in any order: no panic, no retry once the answer has begun, no reuse of what is not whole.
fuzz_target!(|operations: &[u8]| {
    let limits = ClientLimits::default();
    let [first, rest @ ..] = operations else { return };
    let mut storage = FieldStorage::new();
    let request = parse_request(REQUESTS[usize::from(*first) % 4], &mut storage, &limits).unwrap().unwrap();
    let mut exchange = Exchange::new(&request, first & 0x80 != 0);
    let mut begun = false;
    let mut complete = false;
    for operation in rest {
        match operation % 6 {
            0 => exchange.request_body_consumed(),
            1 => exchange.request_complete(),
            2 => {
                let mut storage = FieldStorage::new();
                let bytes = RESPONSES[usize::from(operation / 6) % 5];
                let head = parse_response(bytes, &mut storage, Method::Get, &limits).unwrap().unwrap();
                if let Ok(plan) = exchange.response_head(&head) {
                    assert!(!begun, "a second answer");
                    begun = !matches!(plan, HeadPlan::Interim { .. });
                }
            }
            3 if begun => {
                exchange.response_complete();
                complete = true;
            }
            4 => {
                let faults = [
                    UpstreamFault::ConnectRefused,
                    UpstreamFault::Reset,
                    UpstreamFault::Eof,
                    UpstreamFault::Timeout,
                    UpstreamFault::BadHead,
                ];
                let plan = exchange.upstream_failed(
                    faults[usize::from(operation / 6) % 5],
                    operation & 0x40 != 0,
                    operation & 0x80 != 0,
                );
                if begun {
                    assert_eq!(plan, FailurePlan::CutDownstream);
                }
            }
            _ => {
                let finish = exchange.finish();
                assert!(complete || (finish.upstream == After::Close && finish.downstream == After::Close));
            }
        }
    }
});
