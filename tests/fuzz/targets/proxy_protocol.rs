#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::proxy_protocol::{Extras, Origin, V2_MAX, parse, write_v2};

// A header takes no more than there is, nothing shorter is one, and who it names survives being written anew.
fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(header)) = parse(bytes, V2_MAX) else { return };
    assert!(header.len <= bytes.len());
    assert_eq!(parse(&bytes[..header.len - 1], V2_MAX), Ok(None));
    assert_eq!(parse(&bytes[..header.len], V2_MAX), Ok(Some(header)));
    header.tlvs.iter().for_each(drop);
    let mut out = Vec::new();
    write_v2(&header.origin, &Extras { crc32c: true, ..Extras::default() }, &mut out);
    let again = parse(&out, V2_MAX).expect("our own").expect("our own, whole");
    let canonical = |origin: Origin| {
        origin.addresses().map(|(a, b)| (a.ip().to_canonical(), a.port(), b.ip().to_canonical(), b.port()))
    };
    assert_eq!(canonical(again.origin), canonical(header.origin));
});
