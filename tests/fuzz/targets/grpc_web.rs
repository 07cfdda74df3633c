//! Base64 of gRPC-Web decodes the same however it is cut, and what answers become is read back as what they were.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_core::grpc::Call;
use ringway_core::grpc::web::{Answer, Base64};

fn decode(text: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut decoder = Base64::default();
    let mut out = Vec::new();
    for part in [&text[..cut], &text[cut..]] {
        let mut part = part.to_vec();
        let len = decoder.decode(&mut part).ok()?;
        out.extend_from_slice(&part[..len]);
    }
    decoder.is_whole().then_some(out)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let cut = usize::from(*cut).min(data.len());
    assert_eq!(decode(data, cut), decode(data, 0));

    // Whatever a head says, it stays a head.
    let mut answer = Answer::new(Call::WebText);
    if let Some(head) = answer.head(data) {
        assert!(head.len() <= data.len() + 64);
    }
    let mut answer = Answer::new(Call::WebText);
    answer.head(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\r\n").expect("an answer of gRPC");
    let mut text = Vec::new();
    answer.body(&data[..cut], &mut text);
    answer.body(&data[cut..], &mut text);
    answer.end(b"grpc-status: 0\r\n".to_vec(), &mut text);
    let end = b"\x80\0\0\0\x10grpc-status: 0\r\n";
    assert_eq!(decode(&text, cut.min(text.len())), Some([data, end].concat()));
});
