//! Whatever blocks say, what was said of fields survives being encoded anew, on a connection that goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_core::http2::hpack::{Decoder, Encoder};

type Field = (Vec<u8>, Vec<u8>);

fn decode(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<Field>> {
    let (mut fields, mut octets) = (Vec::new(), 0);
    let decoded = decoder.decode(block, |name, value| {
        octets += name.len() + value.len();
        if octets < 1 << 20 {
            fields.push((name.to_vec(), value.to_vec()));
        }
    });
    decoded.ok().map(|()| fields)
}

// The first octet says how long the blocks are, and which limit the peer sets between them.
fuzz_target!(|data: &[u8]| {
    let Some((length, data)) = data.split_first() else { return };
    let mut decoder = Decoder::new(4096);
    let (mut encoder, mut again) = (Encoder::new(), Decoder::new(4096));
    for (block, turn) in data.chunks(usize::from(*length) + 1).zip(0u32..) {
        let Some(mut fields) = decode(&mut decoder, block) else { return };
        assert!(decoder.memory() < 3 * 4096);
        let mut out = Vec::new();
        if turn % 3 == 2 {
            encoder.set_limit(u32::from(*length) * turn);
        }
        encoder.begin(&mut out);
        for (name, value) in &fields {
            encoder.field(name, value, &mut out);
        }
        fields.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
        assert_eq!(decode(&mut again, &out), Some(fields));
        assert!(encoder.memory() < 3 * 4096);
    }
});
