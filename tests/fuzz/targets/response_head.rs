#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::http::Method;
use ringway_core::http1::FieldStorage;
use ringway_core::http1::response::parse_response;
use ringway_core::model::ClientLimits;

fuzz_target!(|bytes: &[u8]| {
    for method in [Method::Get, Method::Head] {
        let mut storage = FieldStorage::new();
        if let Ok(Some(head)) = parse_response(bytes, &mut storage, method, &ClientLimits::default()) {
            assert!(head.len <= bytes.len() && (100..1000).contains(&head.status));
        }
    }
});
