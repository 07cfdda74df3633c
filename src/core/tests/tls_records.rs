//! Records of established TLS connections at every cut, and what the peer's side of a conversation may be.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "../../../tests/fuzz/harness/tls_records.rs"]
mod harness;
mod random;

use ringway_core::tls::established::{Heard, KEY_UPDATE, Peer, Side};
use ringway_core::tls::record::{ContentType, Fault, HEADER, MAX_PLAIN, OVERHEAD, Protection, TAG};

use self::harness::{IV, sealed};
use self::random::Random;

const ALL: [Protection; 3] = [Protection::Tls13, Protection::Tls12Explicit, Protection::Tls12Implicit];

fn no_ticket(_: &[u8]) -> bool {
    panic!("there is no ticket")
}

#[test]
fn every_prefix_of_a_record_is_none_or_it() {
    for protection in ALL {
        let record = sealed(protection, 7, ContentType::Handshake, b"some text");
        assert_eq!(record.len(), b"some text".len() + protection.overhead());
        assert!(protection.overhead() <= OVERHEAD);
        for end in 0..record.len() {
            assert_eq!(protection.arrived(&IV, 7, &record[..end]), Ok(None), "{protection:?} {end}");
        }
        let more = [&record[..], b"and more"].concat();
        let arrived = protection.arrived(&IV, 7, &more).unwrap().unwrap();
        assert_eq!(arrived.len, record.len());
        let sent = protection.outgoing(&IV, 7, ContentType::Handshake, b"some text".len());
        assert_eq!(arrived.inputs, sent);
        let text = &record[protection.prefix()..record.len() - TAG];
        assert_eq!(protection.opened(&arrived, text), Ok((ContentType::Handshake, b"some text".len())));
    }
}

#[test]
fn nonces_and_what_is_authenticated_are_those_of_the_documents() {
    // RFC 8446 section 5.3: the vector, and the number in its last bytes; section 5.2: the header.
    let inputs = Protection::Tls13.outgoing(&[0xff; 12], 0x0102, ContentType::Alert, 2);
    assert_eq!(inputs.nonce, [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0xfe, 0xfd]);
    assert_eq!(inputs.prefix(), [23, 3, 3, 0, 19]);
    assert_eq!(inputs.additional(), inputs.prefix());
    // RFC 5246 section 6.2.3.3: number, type, version and length of the plaintext; RFC 5288 section 3: half of the nonce
    // goes along.
    let inputs = Protection::Tls12Explicit.outgoing(&IV, 0x0102, ContentType::Alert, 2);
    assert_eq!(inputs.prefix()[..HEADER], [21, 3, 3, 0, 26]);
    assert_eq!(inputs.prefix()[HEADER..], inputs.nonce[4..]);
    assert_eq!(inputs.additional(), [0, 0, 0, 0, 0, 0, 1, 2, 21, 3, 3, 0, 2]);
    // A peer makes up its half as it likes.
    let mut record = sealed(Protection::Tls12Explicit, 0x0102, ContentType::Alert, b"ab");
    record[HEADER..HEADER + 8].copy_from_slice(b"nonce!!!");
    let arrived = Protection::Tls12Explicit.arrived(&IV, 0x0102, &record).unwrap().unwrap();
    assert_eq!(arrived.inputs.nonce, [&IV[..4], b"nonce!!!"].concat()[..]);
    // RFC 7905 section 2: it does not.
    let inputs = Protection::Tls12Implicit.outgoing(&IV, 1, ContentType::ApplicationData, 3);
    assert_eq!(inputs.prefix(), [23, 3, 3, 0, 19]);
    let numbers = (0..1000)
        .map(|number| Protection::Tls13.outgoing(&IV, number, ContentType::Alert, 2).nonce)
        .collect::<Vec<_>>();
    let mut different = numbers.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), numbers.len());
}

#[test]
fn headers_are_refused_as_soon_as_they_are_there() {
    for protection in ALL {
        let tls13 = protection == Protection::Tls13;
        let of = |header: [u8; 5]| protection.arrived(&IV, 0, &header);
        assert!(matches!(of([20, 3, 3, 0, 1]), Err(Fault::Unexpected(_))));
        assert!(matches!(of([25, 3, 3, 0, 1]), Err(Fault::Unexpected(_))));
        assert_eq!(matches!(of([22, 3, 3, 0, 100]), Err(Fault::Unexpected(_))), tls13);
        assert!(matches!(of([23, 2, 3, 0, 100]), Err(Fault::Decode(_))));
        let longest = u16::try_from(MAX_PLAIN + if tls13 { 256 } else { 2048 }).unwrap();
        let with = |len: u16| [23, 3, 3, len.to_be_bytes()[0], len.to_be_bytes()[1]];
        assert_eq!(of(with(longest)), Ok(None));
        assert_eq!(of(with(longest + 1)), Err(Fault::Overflow));
        let shortest = u16::try_from(protection.overhead() - HEADER).unwrap();
        assert_eq!(of(with(shortest)), Ok(None));
        assert_eq!(of(with(shortest - 1)), Err(Fault::BadMac));
    }
}

#[test]
fn padding_is_taken_off_and_bounds_hold() {
    let record = sealed(Protection::Tls13, 0, ContentType::ApplicationData, b"x");
    let arrived = Protection::Tls13.arrived(&IV, 0, &record).unwrap().unwrap();
    let opened = |text: &[u8]| Protection::Tls13.opened(&arrived, text);
    assert_eq!(opened(&[7, 0, 7, 23, 0, 0]), Ok((ContentType::ApplicationData, 3)));
    assert_eq!(opened(&[23]), Ok((ContentType::ApplicationData, 0)));
    assert!(matches!(opened(&[0, 0, 0]), Err(Fault::Unexpected(_))));
    assert!(matches!(opened(&[]), Err(Fault::Unexpected(_))));
    assert!(matches!(opened(&[1, 77]), Err(Fault::Unexpected(_))));
    let most = [&vec![1; MAX_PLAIN][..], &[23]].concat();
    assert_eq!(opened(&most), Ok((ContentType::ApplicationData, MAX_PLAIN)));
    assert_eq!(opened(&[&most[..], &[0]].concat()), Err(Fault::Overflow));
    for protection in [Protection::Tls12Explicit, Protection::Tls12Implicit] {
        assert_eq!(protection.opened(&arrived, &vec![1; MAX_PLAIN + 1]), Err(Fault::Overflow));
    }
}

#[test]
fn tickets_in_any_pieces() {
    let tickets = [vec![1; 300], Vec::new(), vec![2; 0xffff], vec![3; 9]];
    let mut text = Vec::new();
    for ticket in &tickets {
        text.push(4);
        text.extend(&u32::try_from(ticket.len()).unwrap().to_be_bytes()[1..]);
        text.extend(ticket);
    }
    for size in [1, 3, 4, 5, 304, 305, 16_384, usize::MAX] {
        let mut peer = Peer::new(Side::Client, true);
        let mut heard = Vec::new();
        for piece in text.chunks(size) {
            let took = |ticket: &[u8]| {
                heard.push(ticket.to_vec());
                true
            };
            assert_eq!(peer.hear(ContentType::Handshake, piece, took), Ok(Heard::Nothing));
        }
        assert_eq!(heard, tickets, "{size}");
        // Nothing is left of the last one.
        assert_eq!(peer.hear(ContentType::ApplicationData, b"x", no_ticket), Ok(Heard::Data));
    }
    let mut peer = Peer::new(Side::Client, true);
    assert!(matches!(peer.hear(ContentType::Handshake, &text[..400], |_| false), Err(Fault::Decode(_))));
    let mut peer = Peer::new(Side::Client, true);
    assert!(matches!(peer.hear(ContentType::Handshake, &[4, 1, 0, 0], no_ticket), Err(Fault::Decode(_))));
}

#[test]
fn updates_of_keys_end_their_record_and_are_bounded() {
    for side in [Side::Client, Side::Server] {
        let mut peer = Peer::new(side, true);
        for round in 0..3 {
            for _ in 0..32 {
                let heard = peer.hear(ContentType::Handshake, &KEY_UPDATE, no_ticket);
                assert_eq!(heard, Ok(Heard::Update { answer: false }), "{round}");
            }
            assert_eq!(peer.hear(ContentType::ApplicationData, b"x", no_ticket), Ok(Heard::Data));
        }
        for (cut, _) in KEY_UPDATE.iter().enumerate().skip(1) {
            assert_eq!(peer.hear(ContentType::Handshake, &KEY_UPDATE[..cut], no_ticket), Ok(Heard::Nothing));
            let heard = peer.hear(ContentType::Handshake, &KEY_UPDATE[cut..], no_ticket);
            assert_eq!(heard, Ok(Heard::Update { answer: false }));
        }
        assert_eq!(peer.hear(ContentType::Handshake, &[24, 0, 0, 1, 1], no_ticket), Ok(Heard::Update { answer: true }));
        let twice = [KEY_UPDATE, KEY_UPDATE].concat();
        assert!(matches!(peer.hear(ContentType::Handshake, &twice, no_ticket), Err(Fault::Unexpected(_))));
        let mut peer = Peer::new(side, true);
        for _ in 0..32 {
            peer.hear(ContentType::Handshake, &KEY_UPDATE, no_ticket).unwrap();
        }
        assert!(matches!(peer.hear(ContentType::Handshake, &KEY_UPDATE, no_ticket), Err(Fault::Unexpected(_))));
        // TLS 1.2 knows none.
        let mut peer = Peer::new(side, false);
        assert!(matches!(peer.hear(ContentType::Handshake, &KEY_UPDATE, no_ticket), Err(Fault::Unexpected(_))));
    }
}

#[test]
fn alerts_end_a_conversation_but_for_warnings() {
    let alert = |tls13: bool, text: &[u8]| Peer::new(Side::Server, tls13).hear(ContentType::Alert, text, no_ticket);
    for tls13 in [false, true] {
        for level in [1, 2] {
            assert_eq!(alert(tls13, &[level, 0]), Ok(Heard::End));
        }
        assert_eq!(alert(tls13, &[2, 40]), Err(Fault::Alert(40)));
        assert_eq!(alert(tls13, &[1, 90]), Ok(Heard::Nothing));
        assert_eq!(alert(tls13, &[1, 100]), if tls13 { Err(Fault::Alert(100)) } else { Ok(Heard::Nothing) });
        assert!(matches!(alert(tls13, &[1]), Err(Fault::Decode(_))));
        assert!(matches!(alert(tls13, &[1, 0, 1]), Err(Fault::Decode(_))));
    }
    assert_eq!(Fault::Alert(40).alert(), None);
    assert_eq!(Fault::BadMac.alert(), Some(20));
}

#[test]
fn another_handshake_is_refused_once_by_a_warning() {
    let mut server = Peer::new(Side::Server, false);
    let hello = [1, 0, 0, 3, 1, 2, 3];
    assert_eq!(server.hear(ContentType::Handshake, &hello[..3], no_ticket), Ok(Heard::Nothing));
    assert_eq!(server.hear(ContentType::Handshake, &hello[3..], no_ticket), Ok(Heard::Renegotiation));
    assert!(matches!(server.hear(ContentType::Handshake, &hello, no_ticket), Err(Fault::Unexpected(_))));
    let mut server = Peer::new(Side::Server, false);
    assert!(matches!(server.hear(ContentType::Handshake, &[1, 0, 0x40, 1], no_ticket), Err(Fault::Decode(_))));
    let mut client = Peer::new(Side::Client, false);
    assert_eq!(client.hear(ContentType::Handshake, &[0, 0, 0, 0], no_ticket), Ok(Heard::Renegotiation));
    assert!(matches!(client.hear(ContentType::Handshake, &hello, no_ticket), Err(Fault::Unexpected(_))));
}

#[test]
fn any_records_in_any_pieces_come_to_the_same() {
    let mut random = Random(11);
    let mut ends = [0; 3];
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.below(8) {
            let len = random.below(24);
            let mut text = (0..len).map(|_| u8::try_from(random.below(5)).unwrap()).collect::<Vec<_>>();
            match random.below(6) {
                0 => text = KEY_UPDATE.to_vec(),
                1 => text = [[4, 0, 0, 2], [1; 4]].concat(),
                2 => text = vec![1, [0, 90, 40][random.below(3)]],
                _ => {}
            }
            bytes.push(u8::try_from(random.below(5)).unwrap());
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text);
        }
        let first = u8::try_from(random.below(256)).unwrap();
        let whole = harness::run(first, &bytes, usize::MAX);
        assert_eq!(harness::run(first, &bytes, 1 + random.below(40)), whole);
        ends[match whole.end {
            None => 0,
            Some(Ok(())) => 1,
            Some(Err(_)) => 2,
        }] += 1;
    }
    assert!(ends.iter().all(|times| *times > 200), "{ends:?}");
}
