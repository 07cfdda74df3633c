#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::tls::HelloReader;

// What a hello says does not depend on how its bytes come, and its fingerprint always has one form.
fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let whole = HelloReader::new().read(&bytes).transpose();
    let mut reader = HelloReader::new();
    let mut end = 0;
    let mut found = None;
    for cut in cuts.iter().map(|cut| usize::from(*cut)).chain([bytes.len()]) {
        end = (end + cut).min(bytes.len());
        found = reader.read(&bytes[..end]).transpose();
        if found.is_some() {
            break;
        }
    }
    if end == bytes.len() {
        // A fault may be seen in a prefix before the bytes that would have been needed to see another.
        assert_eq!(whole.is_some(), found.is_some());
    }
    if let Some(Ok(hello)) = found {
        let text = hello.ja4(|_| [0; 32]);
        assert_eq!(text.len(), 36, "{text}");
    }
});
