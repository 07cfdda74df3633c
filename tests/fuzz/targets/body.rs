#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::http1::body::BodyDecoder;
use ringway_core::http1::request::Framing;

fn decode(parts: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    let (mut payload, mut used) = (Vec::new(), 0);
    for part in parts {
        let mut buf = part.to_vec();
        let decoded = decoder.decode(&mut buf).ok()?;
        payload.extend_from_slice(&buf[decoded.data]);
        used += decoded.consumed;
        if decoded.done {
            return Some((payload, used));
        }
    }
    None
}

// The first two bytes say where the rest is cut; the cuts change nothing.
fuzz_target!(|bytes: &[u8]| {
    let [first, second, stream @ ..] = bytes else { return };
    let cut = |byte: u8| usize::from(byte) * stream.len() / 255;
    let (low, high) = (cut(*first).min(cut(*second)), cut(*first).max(cut(*second)));
    let whole = decode(&[stream]);
    let parts = decode(&[&stream[..low], &stream[low..high], &stream[high..]]);
    assert_eq!(whole, parts);
});
