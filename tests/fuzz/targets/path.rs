#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::http1::normal_path;

fuzz_target!(|path: &str| {
    if !path.starts_with('/') || !path.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return;
    }
    if let Some(once) = normal_path(path) {
        assert!(once.starts_with('/'));
        assert_eq!(normal_path(&once).as_deref(), Some(once.as_str()));
    }
});
