use super::names::{COUNT, STATIC};
use super::{CompressionError, Decoder, Encoder, huffman};

type Field = (Vec<u8>, Vec<u8>);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("two hexadecimal digits"))
        .collect()
}

fn fields(of: &[(&str, &str)]) -> Vec<Field> {
    of.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, CompressionError> {
    let mut found = Vec::new();
    decoder.decode(block, |name, value| found.push((name.to_vec(), value.to_vec())))?;
    Ok(found)
}

fn decode_new(block: &[u8]) -> Result<Vec<Field>, CompressionError> {
    decode(&mut Decoder::new(4096), block)
}

fn encode(encoder: &mut Encoder, fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(name, value, &mut out);
    }
    out
}

/// Blocks of one connection, and what they say.
type Series = [(&'static str, &'static [(&'static str, &'static str)])];

fn check_series(limit: usize, update: &str, series: &Series, tables: &[&[(&str, &str)]]) {
    let mut decoder = Decoder::new(limit);
    assert_eq!(decode(&mut decoder, &hex(update)), Ok(Vec::new()));
    for ((block, said), table) in series.iter().zip(tables) {
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(fields(said)), "{block}");
        // The table, entry by entry, and that there is not one more.
        for (at, entry) in table.iter().enumerate() {
            let index = 0x80 | u8::try_from(COUNT + 1 + at).expect("below 127");
            assert_eq!(decode(&mut decoder, &[index]), Ok(fields(&[*entry])), "{block}: {index}");
        }
        let beyond = 0x80 | u8::try_from(COUNT + 1 + table.len()).expect("below 127");
        assert_eq!(decode(&mut decoder, &[beyond]), Err(CompressionError), "{block}");
    }
}

// RFC 7541 appendix C.2.
#[test]
fn examples_of_representations() {
    const CUSTOM: &[(&str, &str)] = &[("custom-key", "custom-header")];
    check_series(4096, "", &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", CUSTOM)], &[CUSTOM]);
    check_series(4096, "", &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")])], &[&[]]);
    let secret = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check_series(4096, "", &[(secret, &[("password", "secret")])], &[&[]]);
    check_series(4096, "", &[("82", &[(":method", "GET")])], &[&[]]);
    let mut marks = Vec::new();
    Decoder::new(4096).decode_marked(&hex(secret), |_, _, mark| marks.push(mark)).expect("the example");
    assert_eq!(marks, [true]);
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const REQUEST_TABLES: [&[(&str, &str)]; 3] = [
    &[(":authority", "www.example.com")],
    &[("cache-control", "no-cache"), (":authority", "www.example.com")],
    &[("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")],
];

const CODED_REQUESTS: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

// Appendices C.3 and C.4.
#[test]
fn examples_of_requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    for blocks in [plain, CODED_REQUESTS] {
        let series: Vec<_> = blocks.into_iter().zip(REQUESTS).collect();
        check_series(4096, "", &series, &REQUEST_TABLES);
    }
}

// The encoder finds the same as appendix C.4 for the same fields.
#[test]
fn encodes_the_examples() {
    let mut encoder = Encoder::new();
    for (request, block) in REQUESTS.iter().zip(CODED_REQUESTS) {
        assert_eq!(encode(&mut encoder, &fields(request)), hex(block));
    }
}

// Appendices C.5 and C.6: a table of 256 octets, so that entries are evicted.
#[test]
fn examples_of_responses() {
    const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
    const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
    const PRIVATE: (&str, &str) = ("cache-control", "private");
    const LOCATION: (&str, &str) = ("location", "https://www.example.com");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");
    const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    let said: [&[(&str, &str)]; 3] = [
        &[(":status", "302"), PRIVATE, DATE, LOCATION],
        &[(":status", "307"), PRIVATE, DATE, LOCATION],
        &[(":status", "200"), PRIVATE, LATER, LOCATION, GZIP, COOKIE],
    ];
    let tables: [&[(&str, &str)]; 3] = [
        &[LOCATION, DATE, PRIVATE, (":status", "302")],
        &[(":status", "307"), LOCATION, DATE, PRIVATE],
        &[COOKIE, GZIP, LATER],
    ];
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let series: Vec<_> = blocks.into_iter().zip(said).collect();
        check_series(256, "3fe1 01", &series, &tables);
    }
}

// Section 5.1: 10 in five bits, 1337 in five bits, and where the lengths change.
#[test]
fn integers_at_their_boundaries() {
    let table = |limit: usize, block: &[u8]| Decoder::new(limit).decode(block, |_, _| {});
    assert_eq!(table(10, &[0x2a]), Ok(()));
    assert_eq!(table(9, &[0x2a]), Err(CompressionError));
    assert_eq!(table(1337, &[0x3f, 0x9a, 0x0a]), Ok(()));
    assert_eq!(table(1336, &[0x3f, 0x9a, 0x0a]), Err(CompressionError));
    // Five octets are the most, whatever they come to.
    assert_eq!(table(31, &[0x3f, 0x80, 0x80, 0x80, 0x00]), Ok(()));
    assert_eq!(table(31, &[0x3f, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(CompressionError));
    assert_eq!(table(usize::MAX, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x7f]), Err(CompressionError));
    assert_eq!(table(4096, &[0x3f, 0xff, 0xff, 0xff, 0x7f]), Err(CompressionError));
    assert_eq!(table(usize::MAX, &[0x3f, 0xe0, 0xff, 0xff, 0x7f]), Ok(()));
    for cut in [&[0x3f][..], &[0x3f, 0x80], &[0xff, 0xff], &[0x40, 0x7f]] {
        assert_eq!(decode_new(cut), Err(CompressionError), "{cut:x?}");
    }
    // Lengths of strings through both directions.
    for length in [0, 1, 30, 31, 32, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 100_000] {
        let field = (b"content-length".to_vec(), vec![0xff; length]);
        let block = encode(&mut Encoder::new(), std::slice::from_ref(&field));
        assert_eq!(decode_new(&block), Ok(vec![field]), "{length}");
    }
}

#[test]
fn what_is_no_block() {
    let bad: [(&str, &str); 12] = [
        ("index 0", "80"),
        ("an index beyond the table", "be"),
        ("a name beyond the table", "7e 00"),
        ("a name beyond the table, not indexed", "0f2f 00"),
        ("a size update behind a field", "82 20"),
        ("a name that ends behind the block", "40 03 6161"),
        ("a value that ends behind the block", "40 0161 02 61"),
        ("no value", "40 0161"),
        ("EOS", "4084 ffff ffff 00"),
        ("padding of eight bits", "4082 1fff 00"),
        ("padding of zeros", "4081 18 00"),
        ("a code that ends behind the string", "4081 fe 00"),
    ];
    for (what, block) in bad {
        assert_eq!(decode_new(&hex(block)), Err(CompressionError), "{what}");
    }
    assert_eq!(decode_new(&hex("4081 1f 00")), Ok(fields(&[("a", "")])));
    // Several size updates are fine where the block begins.
    assert_eq!(decode_new(&hex("20 3fe11f 82")), Ok(fields(&[(":method", "GET")])));
}

// Section 4.4: such an entry empties the table, and its field is one nonetheless. The name may be that of an entry that
// goes.
#[test]
fn an_entry_larger_than_the_table() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &hex("3f09 40 0161 0162")), Ok(fields(&[("a", "b")])));
    assert_eq!(decode(&mut decoder, &hex("be")), Ok(fields(&[("a", "b")])));
    assert_eq!(decode(&mut decoder, &hex("7e 0763 6363 6363 6363")), Ok(fields(&[("a", "ccccccc")])));
    assert_eq!(decode(&mut decoder, &hex("7e 0863 6363 6363 6363 63")), Ok(fields(&[("a", "cccccccc")])));
    assert_eq!(decode(&mut decoder, &hex("be")), Err(CompressionError));
}

#[test]
fn every_octet_has_its_code() {
    for octet in 0..=u8::MAX {
        for length in 0..40 {
            let text = [&vec![b'e'; length][..], &[octet, octet]].concat();
            let mut coded = Vec::new();
            huffman::encode(&text, huffman::encoded_len(&text), &mut coded);
            let mut out = vec![0; huffman::decoded_bound(coded.len())];
            let decoded = huffman::decode(&coded, &mut out).expect("our own");
            assert_eq!(out[..decoded], text);
        }
    }
}

#[test]
fn statuses() {
    let mut decoder = Decoder::new(4096);
    let mut encoder = Encoder::new();
    for status in (100..=999).chain(100..=999) {
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.status(status, &mut block);
        assert_eq!(decode(&mut decoder, &block), Ok(fields(&[(":status", &status.to_string())])));
    }
    let mut block = Vec::new();
    Encoder::new().status(200, &mut block);
    assert_eq!(block, [0x88]);
}

// What recurs is one octet the second time; what differs or is secret never is in the table.
#[test]
fn what_is_indexed() {
    let recurs = [("Server", "origin"), ("x-custom", "1"), ("cookie", "session=0123456789abcdef"), ("user-agent", "c")];
    let not = [(":path", "/a"), ("content-length", "12"), ("etag", "\"1\""), ("set-cookie", "a=b"), ("cookie", "a=b")];
    let secrets = ["set-cookie", "cookie", "authorization", "proxy-authorization"];
    for (name, value) in recurs {
        let mut encoder = Encoder::new();
        encode(&mut encoder, &fields(&[(name, value)]));
        assert_eq!(encode(&mut encoder, &fields(&[(name, value)])), [0xbe], "{name}");
    }
    for (name, value) in not {
        let mut encoder = Encoder::new();
        let first = encode(&mut encoder, &fields(&[(name, value)]));
        assert_eq!(encode(&mut encoder, &fields(&[(name, value)])), first, "{name}");
        assert_eq!(encoder.memory(), 0, "{name}");
    }
    for name in secrets {
        let block = encode(&mut Encoder::new(), &fields(&[(name, "a")]));
        assert_eq!(block[0] >> 4, 1, "{name}");
    }
    let mut block = Vec::new();
    Encoder::new().secret(b"X-Key", b"value", &mut block);
    Decoder::new(4096)
        .decode_marked(&block, |name, value, mark| {
            assert_eq!((name, value, mark), (&b"x-key"[..], &b"value"[..], true))
        })
        .expect("our own");
}

// A name that nothing is known of, whose values all differ, costs the table a few entries, and not all there are.
#[test]
fn a_name_that_varies_is_learnt() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    encode(&mut encoder, &fields(&[("server", "origin")]));
    for number in 0..64 {
        let said = fields(&[("x-nonce", &number.to_string())]);
        let block = encode(&mut encoder, &said);
        if number == 0 {
            decode(&mut decoder, &encode(&mut Encoder::new(), &fields(&[("server", "origin")]))).expect("our own");
        }
        assert_eq!(decode(&mut decoder, &block), Ok(said));
    }
    let block = encode(&mut encoder, &fields(&[("server", "origin")]));
    assert_eq!(block.len(), 1);
    assert!(block[0] < 0x80 | 76, "{block:x?}");
}

#[test]
fn size_updates() {
    let said = fields(&[("server", "origin")]);
    let begin = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        out
    };
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    encoder.set_limit(4096);
    encoder.set_limit(65_536);
    assert_eq!(begin(&mut encoder), []);
    decode(&mut decoder, &encode(&mut encoder, &said)).expect("our own");
    // Away and back between two blocks: both are said, and the table is empty.
    encoder.set_limit(0);
    encoder.set_limit(8192);
    let block = encode(&mut encoder, &said);
    assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f]);
    assert_eq!(decode(&mut decoder, &block), Ok(said.clone()));
    encoder.set_limit(100);
    encoder.set_limit(10);
    assert_eq!(begin(&mut encoder), [0x2a]);
    encoder.set_limit(20);
    assert_eq!(begin(&mut encoder), [0x34]);
    encoder.set_limit(0);
    encode(&mut encoder, &said);
    assert_eq!(encoder.memory(), 0);
}

// A small block that is many large fields: all of them are reported, for the caller to stop it, and cost no memory.
#[test]
fn bombs() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decoder.memory(), 0);
    let mut block = vec![0x40, 1, b'a', 0x7f, 0x80, 0x1e];
    block.resize(block.len() + 127 + 0x1e * 128, b'b');
    decode(&mut decoder, &block).expect("an entry of 4000 octets");
    let memory = decoder.memory();
    assert!(memory <= 2 * 4096 + 1024, "{memory}");
    let (mut count, mut octets) = (0, 0);
    decoder
        .decode(&vec![0xbe; 16_384], |name, value| {
            count += 1;
            octets += name.len() + value.len();
        })
        .expect("references");
    assert_eq!((count, octets), (16_384, 16_384 * (1 + 127 + 0x1e * 128)));
    assert_eq!(decoder.memory(), memory);
}

#[test]
fn the_static_table_is_used() {
    for (at, (name, value)) in STATIC.iter().enumerate() {
        let index = u8::try_from(at + 1).expect("61 entries");
        if !value.is_empty() {
            assert_eq!(encode(&mut Encoder::new(), &[(name.to_vec(), value.to_vec())]), [0x80 | index]);
        }
        assert_eq!(decode_new(&[0x80 | index]), Ok(vec![(name.to_vec(), value.to_vec())]));
        // Whatever the representation, the name is an index and not written.
        let block = encode(&mut Encoder::new(), &[(name.to_ascii_uppercase(), b"\xff".to_vec())]);
        assert!(block.len() <= 4, "{block:x?}");
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below).expect("below")
    }

    fn text(&mut self, most: u64) -> Vec<u8> {
        let coded = self.next(4) > 0;
        (0..self.next(most))
            .map(|_| {
                u8::try_from(if coded { b'a'.into() } else { 0 } + self.next(if coded { 26 } else { 256 })).unwrap()
            })
            .collect()
    }

    /// Names and values that recur now and then, and others.
    fn field(&mut self) -> Field {
        let name = match self.next(8) {
            0..4 => STATIC[self.next(61)].0.to_vec(),
            4..7 => format!("X-Name-{}", self.next(20)).into_bytes(),
            _ => self.text(100),
        };
        let value = match self.next(8) {
            0..5 => format!("value {}", self.next(6)).into_bytes(),
            5 => STATIC[self.next(61)].1.to_vec(),
            6 => self.text(60),
            _ => self.text(3000),
        };
        (name, value)
    }
}

/// Says which seed it was.
fn seeds(seeds: std::ops::RangeInclusive<u64>, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds {
        std::panic::catch_unwind(|| test(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

#[test]
fn random_fields_there_and_back() {
    seeds(1..=300, |seed| {
        let mut random = Random(seed * 0x9e37_79b9);
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for _ in 0..60 {
            for _ in 0..random.next(8).saturating_sub(5) {
                let limit = [0, 31, 32, 64, 100, 300, 1000, 4096, 70_000][random.next(9)];
                encoder.set_limit(limit);
            }
            let said: Vec<Field> = (0..random.next(30)).map(|_| random.field()).collect();
            let block = encode(&mut encoder, &said);
            let lower: Vec<Field> = said.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
            assert_eq!(decode(&mut decoder, &block), Ok(lower));
            assert!(encoder.memory() <= 3 * 4096, "{}", encoder.memory());
            assert!(decoder.memory() <= 2 * 4096 + 1024, "{}", decoder.memory());
        }
    });
}

// What a cut block says is the beginning of what the whole one does; what a changed one says is anything but a panic.
#[test]
fn cut_and_changed_blocks() {
    seeds(1..=8, |seed| {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut encoder = Encoder::new();
        encoder.set_limit(1000);
        let mut said: Vec<Field> = Vec::new();
        while said.len() < 12 {
            let (mut name, mut value) = random.field();
            name.make_ascii_lowercase();
            value.truncate(80);
            said.push((name, value));
        }
        said.extend_from_within(..);
        let block = encode(&mut encoder, &said);
        assert_eq!(decode_new(&block), Ok(said.clone()));
        for end in 0..block.len() {
            let mut found = Vec::new();
            let result =
                Decoder::new(4096).decode(&block[..end], |name, value| found.push((name.to_vec(), value.to_vec())));
            assert!(found.len() <= said.len() && found == said[..found.len()], "{end} {result:?}");
        }
        let mut changed = block.clone();
        for at in 0..block.len() {
            for octet in 0..=u8::MAX {
                changed[at] = octet;
                let mut decoder = Decoder::new(4096);
                if decoder.decode(&changed, |_, _| {}).is_ok() {
                    assert!(decoder.memory() <= 2 * 4096 + 1024);
                }
            }
            changed[at] = block[at];
        }
    });
}

#[test]
fn lines_are_written_as_their_fields_are() {
    let (mut by_line, mut by_field) = (Encoder::new(), Encoder::new());
    let mut decoder = Decoder::new(4096);
    let mut known = 0;
    for round in 0..200 {
        let (mut lined, mut fielded, mut said) = (Vec::new(), Vec::new(), Vec::new());
        // What recurs, what changes now and then and evicts the others, what is never in the table, and what is spelled otherwise.
        let changing = format!("X-Round: {}", "y".repeat(round / 3));
        let secret = "authorization: Basic eDp5".to_owned();
        for line in
            ["Server: x", "content-type: text/plain", changing.as_str(), secret.as_str(), "a:b", "a: b ", "te: "]
        {
            let (name, value) = line.split_once(':').expect("a line");
            let (name, value) = (name.as_bytes(), value.trim().as_bytes());
            by_field.field(name, value, &mut fielded);
            if by_line.line(line.as_bytes(), &mut lined) {
                known += 1;
            } else {
                by_line.line_field(line.as_bytes(), name, value, &mut lined);
            }
            said.push((name.to_ascii_lowercase(), value.to_vec()));
        }
        assert_eq!(lined, fielded, "{round}");
        assert_eq!(decode(&mut decoder, &lined), Ok(said), "{round}");
        if round == 100 {
            by_line.set_limit(0);
            by_field.set_limit(0);
            let (mut update, mut same) = (Vec::new(), Vec::new());
            by_line.begin(&mut update);
            by_field.begin(&mut same);
            assert_eq!((decode(&mut decoder, &update), update.is_empty()), (Ok(Vec::new()), false));
            assert_eq!(update, same);
        }
    }
    assert!(known > 200, "{known}");
}
