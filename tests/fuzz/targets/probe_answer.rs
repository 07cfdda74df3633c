#![no_main]
//! Frames that answer a health probe, cut where the input says: none of them may harm the prober.

use libfuzzer_sys::fuzz_target;
use ringway_core::dsr::segment::{self, ACK, SYN, Segment};
use ringway_core::health::{Conversation, Next, Probe};

fuzz_target!(|bytes: &[u8]| {
    let _judged = segment::decode(bytes);
    let (source, destination) = ("10.0.0.1:61000".parse().unwrap(), "10.0.0.100:80".parse().unwrap());
    let probe = Probe::Http { path: "/".to_owned(), host: "a".to_owned(), statuses: vec![(200, 299)] };
    let mut conversation = Conversation::new(source, destination, probe, 0);
    let answer = |sequence, flags, data| Segment {
        source: destination,
        destination: source,
        sequence,
        acknowledged: 1,
        flags,
        data,
    };
    assert!(matches!(conversation.receive(&answer(0, SYN | ACK, &[])), Next::Send(_)));
    let mut sequence = 1_u32;
    for data in bytes.split(|byte| *byte == 0xff) {
        let flags = data.first().copied().unwrap_or(ACK) | ACK;
        match conversation.receive(&answer(sequence, flags, data)) {
            Next::Done(..) => return,
            Next::Send(_) => sequence = sequence.wrapping_add(u32::try_from(data.len()).unwrap()),
            Next::Wait => {}
        }
    }
});
