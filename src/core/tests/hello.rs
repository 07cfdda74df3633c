//! ClientHellos as clients send them and as attackers do: every prefix, every cut into records, every flipped byte.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use ringway_core::tls::{ClientHello, HelloError, HelloReader, ServerName};

/// `openssl s_client -connect 127.0.0.1:1 -servername www.example.com -alpn h2,http/1.1` (OpenSSL 3.0), its record.
fn openssl() -> Vec<u8> {
    let mut extensions = Vec::new();
    extension(&mut extensions, 0x0000, &server_name(b"www.Example.com"));
    extension(&mut extensions, 0x000b, &[3, 0, 1, 2]);
    extension(&mut extensions, 0x000a, &[0, 4, 0, 0x1d, 0, 0x17]);
    extension(&mut extensions, 0x0023, &[]);
    extension(&mut extensions, 0x0010, b"\x00\x0c\x02h2\x08http/1.1");
    extension(&mut extensions, 0x000d, &[0, 8, 4, 3, 8, 7, 8, 8, 8, 4]);
    extension(&mut extensions, 0x002b, &[4, 3, 4, 3, 3]);
    extension(&mut extensions, 0x0033, &[0, 2, 0, 0]);
    record(&hello(&[0x1302, 0x1303, 0x1301, 0xc02c], &extensions))
}

/// As browsers send it: GREASE everywhere, a post-quantum key share of 1,216 bytes.
fn browser() -> Vec<u8> {
    let mut extensions = Vec::new();
    extension(&mut extensions, 0x1a1a, &[]);
    extension(&mut extensions, 0x002b, &[6, 0x3a, 0x3a, 3, 4, 3, 3]);
    extension(&mut extensions, 0x000d, &[0, 4, 0x0a, 0x0a, 4, 3]);
    extension(&mut extensions, 0x0033, &[7; 1300]);
    extension(&mut extensions, 0x0000, &server_name(b"a.b.example.org"));
    extension(&mut extensions, 0x0010, b"\x00\x03\x02h2");
    extension(&mut extensions, 0xfafa, &[0]);
    record(&hello(&[0x2a2a, 0x1301, 0x1302], &extensions))
}

fn extension(out: &mut Vec<u8>, kind: u16, content: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    out.extend(content);
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap();
    let mut out = (length + 3).to_be_bytes().to_vec();
    out.push(0);
    out.extend(length.to_be_bytes());
    out.extend(name);
    out
}

/// A handshake message with the extensions as they are.
fn hello(ciphers: &[u16], extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x55; 32]);
    body.push(32);
    body.extend([0x66; 32]);
    body.extend(u16::try_from(ciphers.len() * 2).unwrap().to_be_bytes());
    body.extend(ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()));
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn record(fragment: &[u8]) -> Vec<u8> {
    let mut out = vec![22, 3, 1];
    out.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
    out.extend(fragment);
    out
}

/// The same message in records of at most `size` bytes.
fn in_records_of(size: usize, one: &[u8]) -> Vec<u8> {
    one[5..].chunks(size).flat_map(record).collect()
}

fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    HelloReader::new().read(bytes)
}

fn found(bytes: &[u8]) -> ClientHello {
    parse(bytes).unwrap().unwrap()
}

#[test]
fn what_a_hello_says() {
    let hello = found(&openssl());
    assert_eq!(hello.server_name, ServerName::Name("www.example.com".to_owned()));
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(hello.version, 0x0304);
    assert_eq!(hello.cipher_suites, [0x1302, 0x1303, 0x1301, 0xc02c]);
    assert_eq!(hello.extensions, [0x00, 0x0b, 0x0a, 0x23, 0x10, 0x0d, 0x2b, 0x33]);
    assert_eq!(hello.signature_schemes, [0x0403, 0x0807, 0x0808, 0x0804]);
}

#[test]
fn grease_means_nothing() {
    let hello = found(&browser());
    assert_eq!(hello.server_name.name(), Some("a.b.example.org"));
    assert_eq!(hello.version, 0x0304);
    assert_eq!(hello.cipher_suites, [0x1301, 0x1302]);
    assert_eq!(hello.extensions, [0x2b, 0x0d, 0x33, 0x00, 0x10]);
    assert_eq!(hello.signature_schemes, [0x0403]);
}

#[test]
fn every_prefix_needs_more() {
    for whole in [openssl(), in_records_of(1, &openssl()), in_records_of(7, &openssl())] {
        let expected = found(&whole);
        let mut reader = HelloReader::new();
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Ok(None), "{end} bytes");
            assert_eq!(reader.read(&whole[..end]), Ok(None), "{end} bytes, read as they come");
        }
        assert_eq!(reader.read(&whole), Ok(Some(expected.clone())));
        let mut with_more = whole.clone();
        with_more.extend(b"\x14\x03\x03\x00\x01\x01");
        assert_eq!(parse(&with_more), Ok(Some(expected)));
    }
}

#[test]
fn how_it_is_cut_into_records_does_not_matter() {
    let whole = openssl();
    for size in 1..whole.len() {
        assert_eq!(parse(&in_records_of(size, &whole)), Ok(Some(found(&whole))), "records of {size}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let whole = openssl();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let first = parse(&bytes);
            let mut reader = HelloReader::new();
            let slow = (0..=bytes.len()).find_map(|end| reader.read(&bytes[..end]).transpose());
            assert_eq!(first.transpose(), slow, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn what_is_no_tls_is_seen_at_once() {
    for bytes in
        [&b"G"[..], b"GET / HTTP/1.1\r\n", b"\x80\x2e\x01", b"\x00", b"\x16\x02", b"\x15\x03\x01\x00\x02\x02\x28"]
    {
        assert_eq!(parse(bytes), Err(HelloError::NotTls), "{bytes:?}");
    }
}

#[test]
fn broken_hellos_are_malformed() {
    let with = |extensions: &[u8]| parse(&record(&hello(&[0x1301], extensions)));
    let one = |kind: u16, content: &[u8]| {
        let mut extensions = Vec::new();
        extension(&mut extensions, kind, content);
        with(&extensions)
    };
    let mut twice = Vec::new();
    extension(&mut twice, 0, &server_name(b"a.example"));
    extension(&mut twice, 0, &server_name(b"b.example"));
    assert_eq!(with(&twice), Err(HelloError::Malformed), "two name extensions");
    let two_names = [&server_name(b"a.example")[2..], &server_name(b"b.example")[2..]].concat();
    let two_names = [&u16::try_from(two_names.len()).unwrap().to_be_bytes()[..], &two_names].concat();
    assert_eq!(one(0, &two_names), Err(HelloError::Malformed), "two names in one extension");
    for name in [&b""[..], b"a..b", b"a b", b"a\0b", b".", b"\xff\xfe", b"a/b", &[b'a'; 64], &b"a.".repeat(128)] {
        assert_eq!(one(0, &server_name(name)), Err(HelloError::Malformed), "{name:?}");
    }
    assert_eq!(one(0, &[]), Err(HelloError::Malformed), "no list");
    assert_eq!(one(16, b"\x00\x01\x00"), Err(HelloError::Malformed), "an empty protocol");
    assert_eq!(one(13, b"\x00\x03\x04\x03\x08"), Err(HelloError::Malformed), "half a number");
    assert_eq!(with(b"\x00"), Err(HelloError::Malformed), "half an extension");
    let mut short = hello(&[0x1301], &[]);
    short[3] -= 1;
    assert_eq!(parse(&record(&short)), Err(HelloError::Malformed), "a body that is too short");
    assert_eq!(parse(&record(b"\x02\x00\x00\x00")), Err(HelloError::Malformed), "a server's hello");
    assert_eq!(parse(b"\x16\x03\x01\x00\x00"), Err(HelloError::Malformed), "an empty record");
    assert_eq!(parse(b"\x16\x03\x01\x40\x01"), Err(HelloError::Malformed), "a record that is too long");
}

#[test]
fn names_that_are_none() {
    let with = |name: &[u8]| {
        let mut extensions = Vec::new();
        extension(&mut extensions, 0, &server_name(name));
        found(&record(&hello(&[0x1301], &extensions))).server_name
    };
    assert_eq!(with(b"192.0.2.1"), ServerName::Address);
    assert_eq!(with(b"2001:db8::1"), ServerName::Address);
    assert_eq!(with(b"host.example."), ServerName::Name("host.example".to_owned()));
    assert_eq!(with(b"_x.example"), ServerName::Name("_x.example".to_owned()));
    assert_eq!(found(&record(&hello(&[0x1301], &[]))).server_name, ServerName::Absent);
}

#[test]
fn sizes_are_bounded() {
    let mut message = hello(&[0x1301], &[]);
    message[1..4].copy_from_slice(&[0, 0xff, 0xfd]);
    assert_eq!(parse(&record(&message)), Err(HelloError::TooLarge));
    let mut extensions = Vec::new();
    extension(&mut extensions, 21, &vec![0; 60_000]);
    let large: Vec<u8> = hello(&[0x1301], &extensions).chunks(16_384).flat_map(record).collect();
    assert_eq!(found(&large).extensions, [21]);
}
