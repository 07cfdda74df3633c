use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stream(source: &str, destination: &str) -> Origin {
    Origin::Stream { source: at(source), destination: at(destination) }
}

fn ssl() -> SslInfo<'static> {
    SslInfo {
        client: PP2_CLIENT_SSL | PP2_CLIENT_CERT_CONN,
        verified: true,
        version: Some(b"TLSv1.3"),
        cipher: Some(b"TLS_AES_128_GCM_SHA256"),
        common_name: Some(b"client"),
        signature_algorithm: Some(b"SHA256"),
        key_algorithm: Some(b"EC256"),
    }
}

fn everything() -> Extras<'static> {
    Extras {
        alpn: Some(b"h2"),
        authority: Some(b"www.example.com"),
        ssl: Some(ssl()),
        unique_id: Some(b"0123456789"),
        crc32c: true,
        noop: 8,
    }
}

fn v1(origin: &Origin) -> Vec<u8> {
    let mut out = Vec::new();
    write_v1(origin, &mut out);
    out
}

fn v2(origin: &Origin, extras: &Extras<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_v2(origin, extras, &mut out);
    out
}

fn written() -> Vec<(Origin, Vec<u8>)> {
    let origins = [
        stream("192.0.2.1:56324", "198.51.100.1:443"),
        stream("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        Origin::Unknown,
    ];
    let datagram = Origin::Datagram { source: at("192.0.2.1:53"), destination: at("192.0.2.2:53") };
    let mut all: Vec<(Origin, Vec<u8>)> = Vec::new();
    for origin in origins {
        all.push((origin, v1(&origin)));
        all.push((origin, v2(&origin, &Extras::default())));
        all.push((origin, v2(&origin, &everything())));
    }
    all.push((datagram, v2(&datagram, &Extras { crc32c: true, ..Extras::default() })));
    all.push((Origin::Local, v2(&Origin::Local, &Extras::default())));
    all
}

#[test]
fn version_1_as_the_specification_shows_it() {
    let text = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!(v1(&stream("255.255.255.255:65535", "255.255.255.255:65535")), text.as_bytes());
    let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\nGET / HTTP/1.1\r\n";
    let header = parse(longest.as_bytes(), V2_MAX).unwrap().unwrap();
    assert_eq!((header.origin, header.len), (Origin::Unknown, longest.find("GET").unwrap()));
    assert_eq!(v1(&Origin::Local), b"PROXY UNKNOWN\r\n");
    assert_eq!(v1(&stream("1.2.3.4:5", "[::1]:6")), b"PROXY TCP6 ::ffff:1.2.3.4 ::1 5 6\r\n");
    assert_eq!(v1(&stream("[::ffff:1.2.3.4]:5", "5.6.7.8:6")), b"PROXY TCP4 1.2.3.4 5.6.7.8 5 6\r\n");
}

#[test]
fn version_2_byte_by_byte() {
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    expected.extend_from_slice(&[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]);
    assert_eq!(v2(&stream("192.0.2.1:56324", "198.51.100.1:443"), &Extras::default()), expected);
}

/// Whatever was written is read back, whatever follows; every prefix of it asks for more.
#[test]
fn what_is_written_is_read_and_every_prefix_asks_for_more() {
    for (origin, bytes) in written() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], V2_MAX), Ok(None), "{origin:?} {end}");
        }
        for rest in ["", "GET / HTTP/1.1\r\n", "\n"] {
            let more = [&bytes, rest.as_bytes()].concat();
            let header = parse(&more, V2_MAX).unwrap().unwrap();
            assert_eq!((header.origin, header.len), (origin, bytes.len()));
        }
    }
}

#[test]
fn what_else_is_said() {
    let bytes = v2(&stream("1.2.3.4:5", "5.6.7.8:6"), &everything());
    let header = parse(&bytes, V2_MAX).unwrap().unwrap();
    let tlvs: Vec<Tlv<'_>> = header.tlvs.iter().collect();
    let [Tlv::Crc32c(_), Tlv::Alpn(b"h2"), Tlv::Authority(b"www.example.com"), Tlv::UniqueId(b"0123456789"), rest @ ..] =
        &tlvs[..]
    else {
        panic!("{tlvs:?}")
    };
    let [Tlv::Ssl(said), Tlv::Noop] = rest else { panic!("{tlvs:?}") };
    assert_eq!((said.client, said.verify), (3, 0));
    assert_eq!(said.version(), ssl().version);
    assert_eq!(said.common_name(), ssl().common_name);
    assert_eq!(said.cipher(), ssl().cipher);
    assert_eq!(said.signature_algorithm(), ssl().signature_algorithm);
    assert_eq!(said.key_algorithm(), ssl().key_algorithm);
}

/// One bit anywhere behind the signature: another header, or none; never the same one.
#[test]
fn the_checksum_notices_every_bit() {
    let bytes = v2(&stream("1.2.3.4:5", "5.6.7.8:6"), &everything());
    for at in 16..bytes.len() {
        for bit in 0..8 {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << bit;
            let found = parse(&broken, V2_MAX);
            let noticed = matches!(found, Err(HeaderError::Checksum | HeaderError::Malformed));
            // Its own type makes it something that is not checked.
            assert!(noticed || (at == 28 && found.is_ok()), "{at} {bit}: {found:?}");
        }
    }
}

fn raw(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    out.extend_from_slice(&[version, family]);
    out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

#[test]
fn what_is_no_header() {
    use HeaderError::{Checksum, Malformed, NotProxy, TooLong};
    let ipv4 = |rest: &[u8]| raw(0x21, 0x11, &[&[0; 12][..], rest].concat());
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 15));
    let cases: &[(&[u8], HeaderError)] = &[
        (b"GET / HTTP/1.1\r\n", NotProxy),
        (b"\x16\x03\x01", NotProxy),
        (b"\0", NotProxy),
        (b"PRI * HTTP/2.0", NotProxy),
        (b"PROXYTCP4", NotProxy),
        (b"PROXY\tTCP4", NotProxy),
        (b"\r\n\r\nGET", NotProxy),
        (b"PROXY \r\n", Malformed),
        (b"PROXY TCP4\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Malformed),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", Malformed),
        (b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", Malformed),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY TCP4 1.2.3.4\x00 5.6.7.8 1 2\r\n", Malformed),
        (b"PROXY UNKNOWN \xff\r\n", Malformed),
        (long.as_bytes(), TooLong),
        (&raw(0x11, 0x11, &[0; 12]), Malformed),
        (&raw(0x22, 0x11, &[0; 12]), Malformed),
        (&raw(0x21, 0x41, &[0; 12]), Malformed),
        (&raw(0x21, 0x13, &[0; 12]), Malformed),
        (&raw(0x21, 0x11, &[0; 11]), Malformed),
        (&raw(0x21, 0x21, &[0; 35]), Malformed),
        (&raw(0x21, 0x31, &[0; 215]), Malformed),
        // TLVs: cut in their heads, past the end, a checksum of three bytes, an identity of 129, an SSL of four.
        (&ipv4(&[1]), Malformed),
        (&ipv4(&[1, 0]), Malformed),
        (&ipv4(&[1, 0, 2, 0]), Malformed),
        (&ipv4(&[1, 0xff, 0xff, 0]), Malformed),
        (&ipv4(&[3, 0, 3, 0, 0, 0]), Malformed),
        (&ipv4(&[3, 0, 4, 0, 0, 0, 0]), Checksum),
        (&ipv4(&[&[5, 0, 129][..], &[0; 129]].concat()), Malformed),
        (&ipv4(&[0x20, 0, 4, 0, 0, 0, 0]), Malformed),
        (&ipv4(&[0x20, 0, 8, 1, 0, 0, 0, 0, 0x21, 0, 1]), Malformed),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(bytes, V2_MAX), Err(*error), "{:?}", String::from_utf8_lossy(bytes));
        // A prefix asks for more or has the same answer.
        for end in 0..bytes.len() {
            let found = parse(&bytes[..end], V2_MAX);
            assert!(found == Ok(None) || found == Err(*error), "{end}: {found:?}");
        }
    }
}

#[test]
fn the_limits_are_exact() {
    let fits = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
    assert_eq!(fits.len(), V1_MAX);
    assert_eq!(parse(fits.as_bytes(), V2_MAX).map(|header| header.unwrap().len), Ok(V1_MAX));
    assert_eq!(parse(&fits.as_bytes()[..V1_MAX - 1], V2_MAX), Ok(None));

    let whole = raw(0x21, 0x11, &[&[0; 12][..], &[4, 0xff, 0xf0], &[0; 0xfff0]].concat());
    assert_eq!(whole.len(), V2_MAX);
    assert_eq!(parse(&whole, V2_MAX).map(|header| header.unwrap().len), Ok(V2_MAX));
    // Over the caller's limit it is refused as soon as its length is known.
    assert_eq!(parse(&whole[..16], 4096), Err(HeaderError::TooLong));
    assert_eq!(parse(&whole[..15], 4096), Ok(None));
}

#[test]
fn kinds_without_ip_addresses_name_nobody() {
    for (version, family, size) in [(0x21, 0x00, 0), (0x21, 0x31, 216), (0x21, 0x10, 12), (0x21, 0x01, 0)] {
        let bytes = raw(version, family, &vec![1; size]);
        assert_eq!(parse(&bytes, V2_MAX).unwrap().unwrap().origin, Origin::Unknown, "{family:x}");
    }
    // A health check's addresses are skipped, whatever they are.
    for body in [&[][..], &[1, 2, 3], &[0; 12]] {
        let bytes = raw(0x20, 0x11, body);
        let header = parse(&bytes, V2_MAX).unwrap().unwrap();
        assert_eq!((header.origin, header.len), (Origin::Local, bytes.len()));
    }
}
