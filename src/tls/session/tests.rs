//! Two sessions that talk over pipes which cut the stream anywhere.

use std::collections::VecDeque;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

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

struct Configs {
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl Configs {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["origin.test".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { chain: vec![made.cert.der().clone()], key: made.signing_key.serialize_der(), roots: Arc::new(roots) }
    }

    fn pair(&self, version: &'static rustls::SupportedProtocolVersion, fragments: [Option<usize>; 2]) -> [Session; 2] {
        // The libraries whose AES-GCM is used talk to each other.
        let mut client = ClientConfig::builder_with_provider(Arc::new(Aes::AwsLc.provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        client.max_fragment_size = fragments[0];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut server = ServerConfig::builder_with_provider(Arc::new(Aes::Ring.provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        server.max_fragment_size = fragments[1];
        let name = ServerName::try_from("origin.test").unwrap();
        [
            UnbufferedClientConnection::new(Arc::new(client), name).unwrap().into(),
            UnbufferedServerConnection::new(Arc::new(server)).unwrap().into(),
        ]
    }
}

/// A session, what is on its way to it, and what it has to say and to hear.
struct End {
    session: Session,
    wire: VecDeque<u8>,
    shaken: bool,
    said: Vec<u8>,
    heard: Vec<u8>,
    ended: bool,
}

impl End {
    fn new(session: Session) -> Self {
        Self { session, wire: VecDeque::new(), shaken: false, said: Vec::new(), heard: Vec::new(), ended: false }
    }

    /// What `rt::Stream` does after every call that may have made the session want to say something.
    fn flush(&mut self, to: &mut VecDeque<u8>) {
        loop {
            let mut out = Buf::new(Class::Head);
            if !self.session.records(&mut out) {
                return;
            }
            to.extend(out.data());
        }
    }

    fn advance(&mut self, to: &mut VecDeque<u8>) {
        self.shaken = self.session.advance().unwrap();
        self.flush(to);
    }

    fn say(&mut self, len: usize, to: &mut VecDeque<u8>) {
        let plain = (0..len).map(|i| u8::try_from((self.said.len() + i) % 251).unwrap()).collect::<Vec<_>>();
        let mut left = &plain[..];
        while !left.is_empty() {
            let mut out = Buf::new(if len > 15_000 { Class::Records } else { Class::Head });
            let n = self.session.encrypt(left, &mut out).unwrap();
            assert!(n > 0 || !out.is_empty(), "nothing moves");
            left = &left[n..];
            to.extend(out.data());
        }
        self.said.extend(plain);
    }

    /// Reads up to `max` bytes of the wire into where `rt::Stream` would; `between` runs while they are read.
    fn read(&mut self, max: usize, random: &mut Random, between: impl FnOnce(&mut Self, &mut Random)) {
        if self.session.has_bytes() {
            // Nobody reads then.
            return;
        }
        let class = if random.below(2) == 0 { Class::Head } else { Class::Body };
        let partial = self.session.partial();
        let begun = partial.is_some();
        let mut raw = partial.unwrap_or_else(|| Buf::new(class));
        assert!(raw.room() > 0);
        between(self, random);
        let n = max.min(self.wire.len()).min(raw.room());
        if n == 0 {
            if begun {
                self.session.keep(raw);
            }
            return;
        }
        let bytes = self.wire.drain(..n).collect::<Vec<_>>();
        assert!(raw.push(&bytes));
        self.session.feed(raw);
    }

    fn take(&mut self, to: &mut VecDeque<u8>) {
        loop {
            let mut into = Buf::new(Class::Head);
            // Small rooms, so that plaintext is kept.
            let filler = into.room() - 700;
            into.filled(filler);
            let taken = self.session.take(&mut into).unwrap();
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
            if !self.session.has_bytes() {
                return;
            }
        }
    }

    /// Changes the keys that it sends by (RFC 8446 section 4.6.3).
    fn update(&mut self) {
        if self.session.raw.is_some() || self.session.version() != Some(Version::Tls13) {
            return;
        }
        // What waits is taken first; a status that is dropped takes its record with it.
        self.session.drive(Op::Read(None)).unwrap();
        let Conn::Client(conn) = &mut self.session.conn else { return };
        if let Ok(ConnectionState::WriteTraffic(traffic)) = conn.process_tls_records(&mut []).state {
            traffic.refresh_traffic_keys().unwrap();
        }
    }
}

fn shake(a: &mut End, b: &mut End, random: &mut Random) {
    for _ in 0..100_000 {
        if a.shaken && b.shaken && a.wire.is_empty() && b.wire.is_empty() {
            return;
        }
        for _ in 0..2 {
            let max = 1 + random.below(3_000);
            if !a.shaken {
                a.read(max, random, |_, _| {});
                a.advance(&mut b.wire);
            } else {
                a.read(max, random, |_, _| {});
                a.take(&mut b.wire);
            }
            std::mem::swap(a, b);
        }
    }
    panic!("the handshake does not end");
}

fn talk(seed: u64, configs: &Configs) {
    let mut random = Random(seed);
    let version = if random.below(3) == 0 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let fragment = |random: &mut Random| (random.below(2) == 0).then(|| 32 + random.below(2_000));
    let fragments = [fragment(&mut random), fragment(&mut random)];
    let [client, server] = configs.pair(version, fragments);
    let (mut a, mut b) = (End::new(client), End::new(server));
    shake(&mut a, &mut b, &mut random);
    for _ in 0..200 {
        match random.below(6) {
            0 => a.say(1 + random.below(200), &mut b.wire),
            1 => a.say(1 + random.below(150_000), &mut b.wire),
            2 => a.update(),
            3 => {
                // While a read is under way, it writes.
                let wire = &mut b.wire;
                a.read(1 + random.below(40_000), &mut Random(random.0), |end, random| {
                    end.say(1 + random.below(20_000), wire);
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
    for _ in 0..2 {
        a.session.close();
        let mut out = VecDeque::new();
        a.flush(&mut out);
        b.wire.extend(out);
        std::mem::swap(&mut a, &mut b);
    }
    for _ in 0..10_000 {
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
        let session = &end.session;
        assert!(
            session.raw.is_none() && session.plain.capacity() == 0 && session.unsent.capacity() == 0,
            "seed {seed}"
        );
    }
}

#[test]
fn whatever_is_cut_where_arrives() {
    let configs = Configs::new();
    for seed in 0..150 {
        talk(seed, &configs);
    }
}

#[test]
fn a_changed_byte_is_answered_by_an_alert_and_nothing_after_it_is_read() {
    let configs = Configs::new();
    for seed in 0..40 {
        let mut random = Random(seed);
        let version = if seed % 2 == 0 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
        let [client, server] = configs.pair(version, [None, None]);
        let (mut client, mut server) = (End::new(client), End::new(server));
        shake(&mut client, &mut server, &mut random);
        client.say(300, &mut server.wire);
        let good = server.wire.len();
        client.say(300, &mut server.wire);
        // The length is left alone: another one would be waited for.
        let at = good + HEADER + random.below(server.wire.len() - good - HEADER);
        server.wire[at] ^= 1;
        server.read(70_000, &mut random, |_, _| {});
        let mut into = Buf::new(Class::Head);
        assert_eq!(server.session.take(&mut into).unwrap(), Taken::Bytes(300), "seed {seed}");
        assert!(server.session.has_bytes());
        for _ in 0..2 {
            assert_eq!(server.session.take(&mut into).unwrap_err().kind(), io::ErrorKind::InvalidData, "seed {seed}");
        }
        let mut alert = Buf::new(Class::Head);
        assert!(server.session.records(&mut alert), "no alert, seed {seed}");
        assert!(server.session.encrypt(b"more", &mut Buf::new(Class::Head)).is_err());
        assert!(server.session.raw.is_none());
        client.session.feed(alert);
        assert_eq!(client.session.take(&mut into).unwrap_err().kind(), io::ErrorKind::InvalidData, "seed {seed}");
    }
}

#[test]
fn an_end_without_a_word_is_no_end() {
    let configs = Configs::new();
    let [client, server] = configs.pair(&rustls::version::TLS13, [None, None]);
    let (mut client, mut server) = (End::new(client), End::new(server));
    let mut random = Random(1);
    shake(&mut client, &mut server, &mut random);
    client.say(100, &mut server.wire);
    server.wire.pop_back();
    server.read(70_000, &mut random, |_, _| {});
    let mut into = Buf::new(Class::Head);
    assert_eq!(server.session.take(&mut into).unwrap(), Taken::Nothing);
    server.session.end();
    assert_eq!(server.session.take(&mut into).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_fits_is_encrypted_and_the_rest_is_left() {
    assert_eq!(fitting(0), 0);
    assert_eq!(fitting(RESERVE + OVERHEAD), 0);
    assert_eq!(fitting(RESERVE + RECORD + OVERHEAD), RECORD);
    assert_eq!(fitting(Class::Records.capacity()), 7 * RECORD + 15_936);
}
