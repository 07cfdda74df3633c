//! Sessions and the library's own connections that talk over pipes which cut the stream anywhere, and what a session
//! makes of records that no good peer sends.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::tls::provider::Aes;

struct Random(u64);

impl Random {
    /// Below `limit` (SplitMix64).
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

/// Suites whose records are different ones, for the key of the test's certificate.
const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

struct Configs {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    roots: Arc<RootCertStore>,
}

/// One side of a connection.
struct Wanted {
    aes: Aes,
    /// It is the library's own connection.
    theirs: bool,
    fragment: Option<usize>,
}

const OURS: [Wanted; 2] = [
    Wanted { aes: Aes::AwsLc, theirs: false, fragment: None },
    Wanted { aes: Aes::Ring, theirs: false, fragment: None },
];

impl Configs {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["origin.test".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { chain: vec![made.cert.der().clone()], key: made.signing_key.serialize_der(), roots: Arc::new(roots) }
    }

    fn client(&self, suite: CipherSuite, aes: Aes) -> ClientConfig {
        let mut client = ClientConfig::builder_with_provider(only(suite, aes))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client
    }

    fn server(&self, suite: CipherSuite, aes: Aes) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut server = ServerConfig::builder_with_provider(only(suite, aes))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        server.enable_secret_extraction = true;
        server
    }

    /// Both ends of a connection.
    fn pair(&self, suite: CipherSuite, [client, server]: &[Wanted; 2]) -> [End; 2] {
        let mut config = self.client(suite, client.aes);
        config.max_fragment_size = client.fragment;
        let (config, name) = (Arc::new(config), ServerName::try_from("origin.test").unwrap());
        let one = if client.theirs {
            Kind::Theirs(Box::new(ClientConnection::new(config, name).unwrap().into()))
        } else {
            Kind::Ours(UnbufferedClientConnection::new(config, name).unwrap().into())
        };
        let mut config = self.server(suite, server.aes);
        config.max_fragment_size = server.fragment;
        let config = Arc::new(config);
        let other = if server.theirs {
            Kind::Theirs(Box::new(ServerConnection::new(config).unwrap().into()))
        } else {
            Kind::Ours(UnbufferedServerConnection::new(config).unwrap().into())
        };
        [End::new(one), End::new(other)]
    }

    /// Two sessions that have shaken hands.
    fn sessions(&self, suite: CipherSuite) -> [End; 2] {
        let [mut client, mut server] = self.pair(suite, &OURS);
        shake(&mut client, &mut server, &mut Random(1));
        [client, server]
    }
}

fn only(suite: CipherSuite, aes: Aes) -> Arc<CryptoProvider> {
    let mut provider = aes.provider();
    provider.cipher_suites.retain(|other| other.suite() == suite);
    Arc::new(provider)
}

fn is_tls13(suite: CipherSuite) -> bool {
    suite.as_str().unwrap().starts_with("TLS13")
}

enum Kind {
    Ours(Session),
    Theirs(Box<Connection>),
}

/// A connection's end, what is on its way to it, and what it has to say and to hear.
struct End {
    kind: Kind,
    wire: VecDeque<u8>,
    shaken: bool,
    said: Vec<u8>,
    heard: Vec<u8>,
    ended: bool,
}

impl End {
    fn new(mut kind: Kind) -> Self {
        if let Kind::Theirs(conn) = &mut kind {
            conn.set_buffer_limit(None);
        }
        Self { kind, wire: VecDeque::new(), shaken: false, said: Vec::new(), heard: Vec::new(), ended: false }
    }

    fn ours(&mut self) -> &mut Session {
        match &mut self.kind {
            Kind::Ours(session) => session,
            Kind::Theirs(_) => panic!("no session"),
        }
    }

    fn established(&mut self) -> &mut Records {
        match &mut self.ours().conn {
            Conn::Established(records) => records,
            _ => panic!("not established"),
        }
    }

    /// What `rt::Stream` does after every call that may have made the session want to say something.
    fn flush(&mut self, to: &mut VecDeque<u8>) {
        match &mut self.kind {
            Kind::Ours(session) => loop {
                let mut out = Buf::new(Class::Head);
                if !session.records(&mut out) {
                    return;
                }
                to.extend(out.data());
            },
            Kind::Theirs(conn) => {
                while conn.wants_write() {
                    conn.write_tls(to).unwrap();
                }
            }
        }
    }

    fn advance(&mut self, to: &mut VecDeque<u8>) {
        self.shaken = match &mut self.kind {
            Kind::Ours(session) => session.advance().unwrap(),
            Kind::Theirs(conn) => !conn.is_handshaking(),
        };
        self.flush(to);
    }

    fn say(&mut self, len: usize, to: &mut VecDeque<u8>, random: &mut Random) {
        let plain = (0..len).map(|i| u8::try_from((self.said.len() + i) % 251).unwrap()).collect::<Vec<_>>();
        self.said.extend_from_slice(&plain);
        let session = match &mut self.kind {
            Kind::Ours(session) => session,
            Kind::Theirs(conn) => {
                conn.writer().write_all(&plain).unwrap();
                return self.flush(to);
            }
        };
        let mut left = &plain[..];
        if random.below(2) == 0 {
            while !left.is_empty() {
                let mut out = Buf::new(if len > 15_000 { Class::Records } else { Class::Head });
                let n = session.encrypt(left, &mut out).unwrap();
                assert!(n > 0 || !out.is_empty(), "nothing moves");
                left = &left[n..];
                to.extend(out.data());
            }
            return;
        }
        while !left.is_empty() {
            let mut buf = Buf::new(Class::Body);
            // Something is in front of it and behind it.
            assert!(buf.push(b"<<"));
            buf.consume(1 + random.below(2));
            let front = buf.len();
            let n = left.len().min(buf.room() - 2 + random.below(3));
            assert!(buf.push(&left[..n]));
            let behind = b">>".len().min(buf.room());
            assert!(buf.push(&b">>"[..behind]));
            buf.consume(front);
            let (encrypted, mut laced) = session.encrypt_in_place(buf, n);
            encrypted.unwrap();
            to.extend(laced.written());
            assert_eq!(laced.into_buf().data(), &b">>"[..behind]);
            left = &left[n..];
        }
    }

    /// Reads up to `max` bytes of the wire into where `rt::Stream` would; `between` runs while they are read.
    fn read(&mut self, max: usize, random: &mut Random, between: impl FnOnce(&mut Self, &mut Random)) {
        if let Kind::Theirs(conn) = &mut self.kind {
            let mut n = max.min(self.wire.len());
            while n > 0 {
                // Its buffer takes a part at a time.
                let taken = conn.read_tls(&mut (&mut self.wire).take(n as u64)).unwrap();
                conn.process_new_packets().unwrap();
                let mut heard = Vec::new();
                let read = conn.reader().read_to_end(&mut heard);
                self.ended |= read.is_ok();
                self.heard.extend(heard);
                n -= taken;
            }
            return between(self, random);
        }
        if self.ours().has_bytes() {
            // Nobody reads then.
            return;
        }
        let class = if random.below(2) == 0 { Class::Head } else { Class::Body };
        let partial = self.ours().partial();
        let begun = partial.is_some();
        let mut raw = partial.unwrap_or_else(|| Buf::new(class));
        assert!(raw.room() > 0);
        between(self, random);
        let n = max.min(self.wire.len()).min(raw.room());
        if n == 0 {
            if begun {
                self.ours().keep(raw);
            }
            return;
        }
        let bytes = self.wire.drain(..n).collect::<Vec<_>>();
        assert!(raw.push(&bytes));
        self.ours().feed(raw);
    }

    fn take(&mut self, to: &mut VecDeque<u8>) {
        while let Kind::Ours(session) = &mut self.kind {
            let mut into = Buf::new(Class::Head);
            // Small rooms, so that plaintext is kept.
            let filler = into.room() - 700;
            into.filled(filler);
            let taken = session.take(&mut into).unwrap();
            self.heard.extend(&into.data()[filler..]);
            self.flush(to);
            match taken {
                Taken::Bytes(n) => assert!(n > 0),
                Taken::End => {
                    self.ended = true;
                    return;
                }
                Taken::Nothing => return,
            }
            if !self.ours().has_bytes() {
                return;
            }
        }
        self.flush(to);
    }

    /// Changes the keys that it sends by (RFC 8446 section 4.6.3). The library asks the other side to do so as well.
    fn update(&mut self, suite: CipherSuite) {
        if !is_tls13(suite) {
            return;
        }
        match &mut self.kind {
            Kind::Ours(session) => {
                let Conn::Established(records) = &mut session.conn else { return };
                let record = records.update().unwrap();
                session.unsent.extend(record);
            }
            Kind::Theirs(conn) => conn.refresh_traffic_keys().unwrap(),
        }
    }

    fn close(&mut self, to: &mut VecDeque<u8>) {
        match &mut self.kind {
            Kind::Ours(session) => session.close(),
            Kind::Theirs(conn) => conn.send_close_notify(),
        }
        self.flush(to);
    }
}

fn shake(a: &mut End, b: &mut End, random: &mut Random) {
    for _ in 0..100_000 {
        if a.shaken && b.shaken && a.wire.is_empty() && b.wire.is_empty() {
            return;
        }
        for _ in 0..2 {
            let max = 1 + random.below(3_000);
            a.read(max, random, |_, _| {});
            if a.shaken {
                a.take(&mut b.wire);
            } else {
                a.advance(&mut b.wire);
            }
            std::mem::swap(a, b);
        }
    }
    panic!("the handshake does not end");
}

fn talk(seed: u64, configs: &Configs) {
    let mut random = Random(seed);
    let suite = SUITES[random.below(SUITES.len())];
    let theirs = random.below(3);
    let side = |of_library: bool, random: &mut Random| Wanted {
        aes: [Aes::AwsLc, Aes::Ring][random.below(2)],
        theirs: of_library,
        fragment: (random.below(2) == 0).then(|| 32 + random.below(2_000)),
    };
    let wanted = [side(theirs == 1, &mut random), side(theirs == 2, &mut random)];
    let [mut a, mut b] = configs.pair(suite, &wanted);
    shake(&mut a, &mut b, &mut random);
    for end in [&mut a, &mut b] {
        if let Kind::Ours(session) = &mut end.kind {
            assert_eq!(session.version(), Some(if is_tls13(suite) { Version::Tls13 } else { Version::Tls12 }));
            assert_eq!(session.cipher_suite(), suite.as_str());
            if is_tls13(suite) && random.below(2) == 0 {
                let limit = 3 + random.below(30) as u64;
                end.established().set_limit(limit);
            }
        }
    }
    for _ in 0..200 {
        match random.below(6) {
            0 => a.say(1 + random.below(200), &mut b.wire, &mut random),
            1 => a.say(1 + random.below(150_000), &mut b.wire, &mut random),
            2 => a.update(suite),
            3 => {
                // While a read is under way, it writes.
                let wire = &mut b.wire;
                a.read(1 + random.below(40_000), &mut Random(random.0), |end, random| {
                    end.say(1 + random.below(20_000), wire, random);
                });
                random.below(2);
            }
            4 => a.take(&mut b.wire),
            _ => a.read(1 + random.below(70_000), &mut Random(random.0), |_, _| {}),
        }
        if random.below(2) == 0 {
            std::mem::swap(&mut a, &mut b);
        }
        assert!(b.said.starts_with(&a.heard) && a.said.starts_with(&b.heard), "bytes changed on the way, seed {seed}");
    }
    a.close(&mut b.wire);
    b.close(&mut a.wire);
    for _ in 0..20_000 {
        if a.ended && b.ended {
            break;
        }
        a.read(70_000, &mut random, |_, _| {});
        a.take(&mut b.wire);
        std::mem::swap(&mut a, &mut b);
    }
    assert!(a.ended && b.ended, "no end was heard, seed {seed}");
    assert!(a.said == b.heard && b.said == a.heard, "bytes lost, seed {seed}");
    for end in [&a, &b] {
        if let Kind::Ours(session) = &end.kind {
            assert!(session.raw.is_none() && session.unsent.capacity() == 0, "seed {seed}");
        }
    }
}

#[test]
fn whatever_is_cut_where_arrives() {
    let configs = Configs::new();
    for seed in 0..300 {
        talk(seed, &configs);
    }
}

/// The alert that a session answers what it refuses by.
fn alert(end: &mut End, of: &mut End) -> u8 {
    let mut into = Buf::new(Class::Head);
    while matches!(end.ours().take(&mut into), Ok(Taken::Bytes(_))) {
        into.clear();
    }
    for _ in 0..2 {
        assert_eq!(end.ours().take(&mut into).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // Who wants to send meanwhile does not take the alert away.
    let mut data = Buf::new(Class::Body);
    assert!(data.push(&[1; 20_000]));
    assert!(end.ours().encrypt_in_place(data, 20_000).0.is_err());
    let mut records = Buf::new(Class::Head);
    assert!(end.ours().records(&mut records), "no alert");
    assert!(end.ours().encrypt(b"more", &mut Buf::new(Class::Head)).is_err());
    assert!(end.ours().raw.is_none());
    of.ours().feed(records);
    let error = of.ours().take(&mut into).unwrap_err();
    match error.get_ref().and_then(|error| error.downcast_ref::<Fault>()) {
        Some(Fault::Alert(alert)) => *alert,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_changed_byte_is_answered_by_an_alert_and_nothing_after_it_is_read() {
    let configs = Configs::new();
    for seed in 0..60 {
        let mut random = Random(seed);
        let suite = SUITES[usize::try_from(seed).unwrap() % SUITES.len()];
        let [mut client, mut server] = configs.sessions(suite);
        client.say(300, &mut server.wire, &mut random);
        let good = server.wire.len();
        client.say(300, &mut server.wire, &mut random);
        // The length is left alone: another one would be waited for. So are type and version, which have alerts of
        // their own.
        let at = good + HEADER + random.below(server.wire.len() - good - HEADER);
        server.wire[at] ^= 1;
        server.read(70_000, &mut random, |_, _| {});
        let mut into = Buf::new(Class::Head);
        assert_eq!(server.ours().take(&mut into).unwrap(), Taken::Bytes(300), "seed {seed}");
        assert!(server.ours().has_bytes());
        assert_eq!(alert(&mut server, &mut client), 20, "seed {seed}");
    }
}

#[test]
fn an_end_without_a_word_is_no_end() {
    let configs = Configs::new();
    for suite in SUITES {
        let [mut client, mut server] = configs.sessions(suite);
        let mut random = Random(1);
        client.say(100, &mut server.wire, &mut random);
        server.wire.pop_back();
        server.read(70_000, &mut random, |_, _| {});
        let mut into = Buf::new(Class::Head);
        assert_eq!(server.ours().take(&mut into).unwrap(), Taken::Nothing);
        server.ours().end();
        assert_eq!(server.ours().take(&mut into).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn what_a_peer_may_not_send_has_its_alert() {
    const DATA: u8 = 23;
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    let configs = Configs::new();
    // What is in records of TLS 1.3, and the alert that it is answered by.
    let data = |len: usize| [&vec![7; len][..], &[DATA]].concat();
    let twice = |text: &[u8], times: usize| vec![text.to_vec(); times];
    let refused: Vec<(Vec<Vec<u8>>, u8)> = vec![
        (vec![vec![0; 20]], 10),
        (vec![vec![1, 20]], 10),
        (vec![vec![1, 99]], 10),
        (vec![vec![1, 0, 0, ALERT]], 50),
        (vec![vec![ALERT]], 50),
        (vec![vec![HANDSHAKE]], 10),
        (vec![vec![1, 0, 0, 0, HANDSHAKE]], 10),
        (vec![vec![4, 0, 0, 1, 0, HANDSHAKE]], 10),
        (vec![vec![24, 0, 0, 1, 2, HANDSHAKE]], 47),
        (vec![vec![24, 0, 0, 2, 0, 0, HANDSHAKE]], 50),
        (vec![vec![24, 0, 0, 0, HANDSHAKE]], 50),
        (vec![vec![24, 0, 0, 1, 0, 24, HANDSHAKE]], 10),
        (vec![vec![24, 0, HANDSHAKE], data(1)], 10),
        (vec![data(16_385)], 22),
        (vec![[data(16_384), vec![0]].concat()], 22),
        (twice(&[DATA, 0, 0], 33), 10),
        (twice(&[1, 90, ALERT], 5), 10),
    ];
    for (texts, expected) in refused {
        let [mut client, mut server] = configs.sessions(SUITES[0]);
        let mut raw = Buf::new(Class::Body);
        for text in &texts {
            let record = client.established().forged(text);
            assert!(raw.push(&record));
        }
        server.ours().feed(raw);
        assert_eq!(alert(&mut server, &mut client), expected, "{:?}", &texts[0][..texts[0].len().min(20)]);
    }
    // Records that do not get as far as to be decrypted.
    let long = [&[DATA, 3, 3, 0x41, 1][..], &[0; 300]].concat();
    for (record, expected) in [
        (&[20, 3, 3, 0, 1, 1][..], 10),
        (&[ALERT, 3, 3, 0, 2, 1, 0], 10),
        (&[24, 3, 3, 0, 1], 10),
        (&[DATA, 2, 0, 0, 1], 50),
        (&[DATA, 3, 3, 0, 16], 20),
        (&long, 22),
    ] {
        let [mut client, mut server] = configs.sessions(SUITES[1]);
        let mut raw = Buf::new(Class::Head);
        assert!(raw.push(record));
        server.ours().feed(raw);
        assert_eq!(alert(&mut server, &mut client), expected, "{record:?}");
    }
    // Of TLS 1.2: one attempt to renegotiate is answered by a warning, another one is one too many.
    let [mut client, mut server] = configs.sessions(SUITES[3]);
    for last in [false, true] {
        let record = client.established().sealed(ContentType::Handshake, &[1, 0, 0, 2, 0, 0]).unwrap();
        let mut raw = Buf::new(Class::Head);
        assert!(raw.push(&record));
        server.ours().feed(raw);
        if last {
            assert_eq!(alert(&mut server, &mut client), 10);
        } else {
            let mut into = Buf::new(Class::Head);
            assert_eq!(server.ours().take(&mut into).unwrap(), Taken::Nothing);
            let mut said = Buf::new(Class::Head);
            assert!(server.ours().records(&mut said));
            client.ours().feed(said);
            assert_eq!(client.ours().take(&mut into).unwrap(), Taken::Nothing);
        }
    }
}

#[test]
fn what_a_peer_may_send_beside_data_is_no_fault() {
    let configs = Configs::new();
    let [mut client, mut server] = configs.sessions(SUITES[0]);
    let mut raw = Buf::new(Class::Body);
    // Padding, a warning, updates of keys in a row and in pieces, with and without a wish for ours.
    let mut send = |text: &[u8]| {
        let record = client.established().forged(text);
        assert!(raw.push(&record));
    };
    send(&[b"a".as_slice(), &[23], &[0; 700]].concat());
    send(&[1, 90, 21]);
    send(&[23]);
    for _ in 0..20 {
        let record = client.established().update().unwrap();
        assert!(raw.push(&record));
    }
    let record = client.established().forged(&[b"b".as_slice(), &[23]].concat());
    assert!(raw.push(&record));
    server.ours().feed(raw);
    let mut into = Buf::new(Class::Head);
    assert_eq!(server.ours().take(&mut into).unwrap(), Taken::Bytes(2));
    assert_eq!(into.data(), b"ab");
    assert!(!server.ours().wants_write());
    // Both sides' keys go on from there, and a request for new ones is answered once, before the next data.
    for _ in 0..3 {
        let record = client.established().forged(&[24, 0, 0, 1, 1, 22]);
        client.established().next_keys().unwrap();
        let mut raw = Buf::new(Class::Head);
        assert!(raw.push(&record));
        server.ours().feed(raw);
        assert_eq!(server.ours().take(&mut into).unwrap(), Taken::Nothing);
    }
    let mut out = Buf::new(Class::Head);
    assert_eq!(server.ours().encrypt(b"answer", &mut out).unwrap(), 6);
    let update = HEADER + KEY_UPDATE_LEN + 1 + 16;
    assert_eq!(out.len(), update + HEADER + b"answer".len() + 1 + 16);
    client.ours().feed(out);
    let mut into = Buf::new(Class::Head);
    assert_eq!(client.ours().take(&mut into).unwrap(), Taken::Bytes(6));
    assert_eq!(into.data(), b"answer");
}

const KEY_UPDATE_LEN: usize = 5;

#[test]
fn keys_that_are_used_up_are_changed_or_encrypt_no_more() {
    let configs = Configs::new();
    for suite in SUITES {
        let [mut client, mut server] = configs.sessions(suite);
        client.established().set_limit(10);
        let mut said = 0;
        let mut failed = false;
        for _ in 0..50 {
            let mut out = Buf::new(Class::Records);
            match client.ours().encrypt(&[1; 100], &mut out) {
                Ok(n) => said += n,
                Err(_) => failed = true,
            }
            server.wire.extend(out.data());
        }
        // The handshake has taken one record of TLS 1.2's keys.
        assert_eq!((failed, said), if is_tls13(suite) { (false, 5000) } else { (true, 900) }, "{suite:?}");
        let in_place = client.ours().encrypt_in_place(
            {
                let mut buf = Buf::new(Class::Body);
                assert!(buf.push(&[1; 40_000]));
                buf
            },
            40_000,
        );
        assert_eq!(in_place.0.is_err(), failed);
        client.close(&mut server.wire);
        let expected = if failed { said } else { said + 40_000 };
        if !failed {
            let closing = server.wire.split_off(server.wire.len() - (HEADER + 2 + 1 + 16));
            let (_, mut laced) = in_place;
            server.wire.extend(laced.written());
            server.wire.extend(closing);
        }
        while !server.wire.is_empty() {
            server.read(70_000, &mut Random(1), |_, _| {});
            server.take(&mut client.wire);
        }
        assert!(server.ended, "{suite:?}");
        assert_eq!(server.heard.len(), expected, "{suite:?}");
    }
}

#[test]
fn tickets_that_come_after_the_handshake_are_kept() {
    let configs = Configs::new();
    for suite in [SUITES[0], SUITES[3]] {
        let client = Arc::new(configs.client(suite, Aes::Ring));
        let mut server = configs.server(suite, Aes::AwsLc);
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        server.send_tls13_tickets = 4;
        server.max_fragment_size = Some(40);
        let server = Arc::new(server);
        for resumed in [false, true] {
            let name = ServerName::try_from("origin.test").unwrap();
            let client = UnbufferedClientConnection::new(Arc::clone(&client), name).unwrap();
            let mut client = End::new(Kind::Ours(client.into()));
            let server = ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut server = End::new(Kind::Theirs(Box::new(server.into())));
            shake(&mut client, &mut server, &mut Random(5));
            assert_eq!(client.ours().is_resumed(), resumed, "{suite:?}");
        }
    }
}

#[test]
fn an_idle_session_holds_little() {
    let sizes = [size_of::<Session>(), size_of::<Records>()];
    assert!(sizes[0] <= 192 && sizes[1] <= 256, "{sizes:?}");
}
