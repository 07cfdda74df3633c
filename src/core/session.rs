//! Tokens by which clients go where they went (Gateway API GEP-1619), and what is made of those they bring.
//!
//! A token says which endpoint of which backend, since when, and when it was last given. It is 36 bytes, written as 48
//! characters of base64url (RFC 4648 section 5):
//!
//! ```text
//! tag   16   the MAC of the scope and the body in plain
//! body  20   endpoint 8, began 8, seen 4, little-endian; under a mask, the MAC of the scope and the tag
//! ```
//!
//! A MAC of which both are made is a pseudorandom function, so this is authenticated encryption that needs no random
//! numbers (the construction of RFC 5297): who has no key can neither read which endpoint it is, nor make a token, nor
//! take one from one rule to another. Whoever has the key needs nothing else, which is what makes tokens hold across
//! cores, reloads, restarts and machines.

use crate::balance::hash;
use crate::http::cookie::cookies;
use crate::model::{SameSite, Session, SessionCarrier};
use crate::route::FieldLookup;

/// Characters of a token.
pub const TOKEN: usize = 48;

/// Values that are looked at of one request: what more it brings is not.
pub const TRIED: usize = 4;

const TAG: usize = 16;
const BODY: usize = 20;
const SEALED: usize = TAG + BODY;
const _: () = assert!(SEALED * 4 == TOKEN * 3);

/// A message authentication code that is a pseudorandom function, with its key: HMAC-SHA256.
pub trait Mac {
    /// Of these bytes.
    fn mac(&self, bytes: &[u8]) -> [u8; 32];
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Which endpoint, as [`identity`] names it.
    pub endpoint: u64,
    /// When the session began, in seconds since 1970.
    pub began: u64,
    /// How many seconds after that the token was given.
    pub seen: u32,
}

/// What an endpoint is called in tokens: its backend's name and its address, the same in every process.
pub fn identity(backend: &str, address: &str) -> u64 {
    hash::with_seed(hash::bytes(backend.as_bytes()), address.as_bytes())
}

/// What the tokens of a rule are good for.
pub fn scope(route: &str, rule: &str) -> [u8; 16] {
    let low = hash::with_seed(hash::bytes(route.as_bytes()), rule.as_bytes());
    let high = hash::with_seed(hash::step(low, hash::SEED), rule.as_bytes());
    let mut scope = [0; 16];
    scope[..8].copy_from_slice(&low.to_le_bytes());
    scope[8..].copy_from_slice(&high.to_le_bytes());
    scope
}

/// What the parts of a token are told apart by where they are authenticated.
const FOR_TAG: u8 = b'T';
const FOR_MASK: u8 = b'M';

impl Token {
    /// Of a session that begins now.
    pub fn new(endpoint: u64, now: u64) -> Self {
        Self { endpoint, began: now, seen: 0 }
    }

    /// The same session, a while later.
    #[must_use]
    pub fn seen(self, now: u64) -> Self {
        Self { seen: u32::try_from(now.saturating_sub(self.began)).unwrap_or(u32::MAX), ..self }
    }

    fn to_bytes(self) -> [u8; BODY] {
        let mut body = [0; BODY];
        body[..8].copy_from_slice(&self.endpoint.to_le_bytes());
        body[8..16].copy_from_slice(&self.began.to_le_bytes());
        body[16..].copy_from_slice(&self.seen.to_le_bytes());
        body
    }

    fn from_bytes(body: [u8; BODY]) -> Self {
        let [e0, e1, e2, e3, e4, e5, e6, e7, b0, b1, b2, b3, b4, b5, b6, b7, s0, s1, s2, s3] = body;
        Self {
            endpoint: u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]),
            began: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            seen: u32::from_le_bytes([s0, s1, s2, s3]),
        }
    }

    /// As a client is given it.
    pub fn seal(self, scope: &[u8; 16], key: &impl Mac) -> [u8; TOKEN] {
        let body = self.to_bytes();
        let tag = tag(scope, &body, key);
        let mut sealed = [0; SEALED];
        sealed[..TAG].copy_from_slice(&tag);
        sealed[TAG..].copy_from_slice(&masked(body, scope, &tag, key));
        encode(&sealed)
    }

    /// What a client has brought; `None`: it was not made by this key for this scope, or not left as it was.
    pub fn open(text: &[u8], scope: &[u8; 16], key: &impl Mac) -> Option<Self> {
        let sealed = decode(text)?;
        let (mut told, mut body) = ([0; TAG], [0; BODY]);
        told.copy_from_slice(&sealed[..TAG]);
        body.copy_from_slice(&sealed[TAG..]);
        let body = masked(body, scope, &told, key);
        // Without a branch on where they differ.
        let made = tag(scope, &body, key);
        let difference = made.iter().zip(&told).fold(0, |sum, (a, b)| sum | (a ^ b));
        (difference == 0).then(|| Self::from_bytes(body))
    }

    /// How a session with this token stands.
    fn judge(&self, session: &Session, now: u64) -> Standing {
        let age = now.saturating_sub(self.began);
        if session.absolute.is_some_and(|limit| age >= limit.as_secs()) {
            return Standing::Over;
        }
        let Some(idle) = session.idle.map(|idle| idle.as_secs()) else { return Standing::Good };
        let quiet = age.saturating_sub(u64::from(self.seen));
        // A token that is given anew with every request would be one more field in every answer.
        let step = (idle / 16).max(1);
        if quiet > idle.saturating_add(step) {
            Standing::Over
        } else if quiet >= step {
            Standing::Aging
        } else {
            Standing::Good
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// It is given anew, so that it can be seen that the session is not idle.
    Aging,
    Over,
}

fn tag(scope: &[u8; 16], body: &[u8; BODY], key: &impl Mac) -> [u8; TAG] {
    let mut message = [0; 1 + 16 + BODY];
    message[0] = FOR_TAG;
    message[1..17].copy_from_slice(scope);
    message[17..].copy_from_slice(body);
    let mut tag = [0; TAG];
    tag.copy_from_slice(&key.mac(&message)[..TAG]);
    tag
}

fn masked(mut body: [u8; BODY], scope: &[u8; 16], tag: &[u8; TAG], key: &impl Mac) -> [u8; BODY] {
    let mut message = [0; 1 + 16 + TAG];
    message[0] = FOR_MASK;
    message[1..17].copy_from_slice(scope);
    message[17..].copy_from_slice(tag);
    body.iter_mut().zip(key.mac(&message)).for_each(|(byte, mask)| *byte ^= mask);
    body
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8; SEALED]) -> [u8; TOKEN] {
    let mut text = [0; TOKEN];
    for (four, three) in text.chunks_exact_mut(4).zip(bytes.chunks_exact(3)) {
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for (at, place) in four.iter_mut().enumerate() {
            *place = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
        }
    }
    text
}

/// Every text of this length that is in the alphabet is the form of exactly one token.
fn decode(text: &[u8]) -> Option<[u8; SEALED]> {
    if text.len() != TOKEN {
        return None;
    }
    let mut bytes = [0; SEALED];
    for (three, four) in bytes.chunks_exact_mut(3).zip(text.chunks_exact(4)) {
        let mut bits = 0;
        for byte in four {
            bits = bits << 6
                | match byte {
                    b'A'..=b'Z' => u32::from(byte - b'A'),
                    b'a'..=b'z' => u32::from(byte - b'a') + 26,
                    b'0'..=b'9' => u32::from(byte - b'0') + 52,
                    b'-' => 62,
                    b'_' => 63,
                    _ => return None,
                };
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(bytes)
}

/// What a request brings of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A token that is good; `anew`: its client is to be given another one for the same session.
    Good {
        /// What it says.
        token: Token,
        /// It ages, or was made by a key that has been followed by another.
        anew: bool,
    },
    /// One whose session is over.
    Over,
    /// One that was made by nobody who has the keys, or for another rule.
    Foreign,
}

/// Looks for a token of a rule's sessions. `keys`: the one that makes tokens first. Of several tokens the first good one
/// counts, since a client may have cookies of one name for several paths.
pub fn find<M: Mac>(session: &Session, fields: &(impl FieldLookup + ?Sized), keys: &[M], now: u64) -> Found {
    let mut found = Found::Nothing;
    let mut tried = 0;
    let mut look = |value: &[u8]| {
        if matches!(found, Found::Good { .. }) || tried == TRIED {
            return;
        }
        tried += 1;
        let mut opened = keys.iter().enumerate().filter_map(|(index, key)| {
            let token = Token::open(value, &session.scope, key)?;
            Some((index, token))
        });
        match opened.next().map(|(index, token)| (index, token, token.judge(session, now))) {
            Some((_, _, Standing::Over)) => found = Found::Over,
            Some((index, token, standing)) => {
                found = Found::Good { token, anew: index > 0 || standing == Standing::Aging };
            }
            None if found == Found::Nothing => found = Found::Foreign,
            None => {}
        }
    };
    match &session.carrier {
        SessionCarrier::Cookie(cookie) => fields.values("cookie", &mut |line| {
            cookies(line, cookie.name.as_bytes()).for_each(&mut look);
        }),
        SessionCarrier::Header(name) => fields.values(name, &mut look),
    }
    found
}

/// Appends the line of an answer that gives a client its token.
pub fn give(session: &Session, token: &Token, key: &impl Mac, now: u64, out: &mut Vec<u8>) {
    let text = token.seal(&session.scope, key);
    let cookie = match &session.carrier {
        SessionCarrier::Header(name) => {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(&text);
            out.extend_from_slice(b"\r\n");
            return;
        }
        SessionCarrier::Cookie(cookie) => cookie,
    };
    let mut put = |part: &[u8]| out.extend_from_slice(part);
    put(b"set-cookie: ");
    put(cookie.name.as_bytes());
    put(b"=");
    put(&text);
    put(b"; Path=");
    put(cookie.path.as_bytes());
    if let Some(domain) = &cookie.domain {
        put(b"; Domain=");
        put(domain.as_bytes());
    }
    if let Some(limit) = session.absolute.filter(|_| cookie.permanent) {
        let left = limit.as_secs().saturating_sub(now.saturating_sub(token.began));
        put(b"; Max-Age=");
        let mut digits = [0; 20];
        put(decimal(left, &mut digits));
    }
    put(b"; HttpOnly");
    if cookie.secure {
        put(b"; Secure");
    }
    if cookie.secure || cookie.same_site != SameSite::None {
        put(b"; SameSite=");
        put(cookie.same_site.as_str().as_bytes());
    }
    put(b"\r\n");
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::SessionCookie;

    /// No HMAC, but different for different keys and messages.
    struct Key(u64);

    impl Mac for Key {
        fn mac(&self, bytes: &[u8]) -> [u8; 32] {
            let mut mac = [0; 32];
            for (index, part) in mac.chunks_exact_mut(8).enumerate() {
                part.copy_from_slice(&hash::with_seed(self.0 + index as u64 * 1000, bytes).to_le_bytes());
            }
            mac
        }
    }

    fn session(carrier: SessionCarrier) -> Session {
        Session { scope: scope("HTTPRoute/a/b", "r"), carrier, absolute: None, idle: None }
    }

    fn cookie() -> SessionCookie {
        SessionCookie {
            name: "sid".to_owned(),
            path: "/".to_owned(),
            domain: None,
            permanent: false,
            secure: false,
            same_site: SameSite::Lax,
        }
    }

    struct Fields(Vec<(&'static str, String)>);

    impl FieldLookup for Fields {
        fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
            self.0.iter().filter(|field| field.0 == name).for_each(|field| f(field.1.as_bytes()));
        }
    }

    fn text(token: Token, scope: &[u8; 16], key: &Key) -> String {
        String::from_utf8(token.seal(scope, key).to_vec()).unwrap()
    }

    const TOKEN_HERE: Token = Token { endpoint: 0x0123_4567_89ab_cdef, began: 1_800_000_000, seen: 77 };

    #[test]
    fn a_token_is_read_by_its_key_for_its_scope_only() {
        let here = scope("HTTPRoute/a/b", "r");
        let sealed = text(TOKEN_HERE, &here, &Key(1));
        assert_eq!(sealed.len(), TOKEN);
        assert_eq!(Token::open(sealed.as_bytes(), &here, &Key(1)), Some(TOKEN_HERE));
        assert_eq!(Token::open(sealed.as_bytes(), &here, &Key(2)), None);
        for elsewhere in [scope("HTTPRoute/a/b", "s"), scope("HTTPRoute/a/c", "r"), scope("HTTPRoute/a/br", "")] {
            assert_eq!(Token::open(sealed.as_bytes(), &elsewhere, &Key(1)), None);
        }
    }

    #[test]
    fn every_prefix_and_every_other_character_is_refused() {
        let here = scope("r", "0");
        let sealed = TOKEN_HERE.seal(&here, &Key(1));
        for end in 0..TOKEN {
            assert_eq!(Token::open(&sealed[..end], &here, &Key(1)), None, "{end}");
        }
        assert_eq!(Token::open(&[&sealed[..], b"A"].concat(), &here, &Key(1)), None);
        for at in 0..TOKEN {
            for byte in 0..=255 {
                let mut bent = sealed;
                bent[at] = byte;
                let expected = (byte == sealed[at]).then_some(TOKEN_HERE);
                assert_eq!(Token::open(&bent, &here, &Key(1)), expected, "{at} {byte}");
            }
        }
    }

    /// What can be read is written as it was, so no token has two forms.
    #[test]
    fn texts_are_canonical() {
        let mut seed = 1;
        for _ in 0..1000 {
            let mut bytes = [0; SEALED];
            for byte in &mut bytes {
                seed = hash::step(seed, 7);
                *byte = seed.to_le_bytes()[3];
            }
            let text = encode(&bytes);
            assert_eq!(decode(&text), Some(bytes));
            assert!(text.iter().all(|byte| ALPHABET.contains(byte)));
        }
        assert_eq!(encode(&[0xff; SEALED]), [b'_'; TOKEN]);
        assert_eq!(decode(&[b'='; TOKEN]), None);
    }

    /// The form of tokens is a promise: machines of different versions stand side by side.
    #[test]
    fn values_never_change() {
        assert_eq!(identity("Service/a/b:80", "10.0.0.1:80"), 943_455_262_482_018_300);
        assert_eq!(
            u128::from_le_bytes(scope("HTTPRoute/a/b", "r")),
            339_991_403_785_139_454_138_533_330_993_621_191_284
        );
        assert_ne!(identity("Service/a/b:80", "10.0.0.2:80"), identity("Service/a/c:80", "10.0.0.2:80"));
    }

    #[test]
    fn sessions_end() {
        let mut rules = session(SessionCarrier::Header("x-s".to_owned()));
        let began = 1_000_000;
        let fresh = Token::new(1, began);
        let standing = |rules: &Session, token: Token, age: u64| token.judge(rules, began + age);
        assert_eq!(standing(&rules, fresh, u64::MAX - began), Standing::Good);
        rules.absolute = Some(Duration::from_secs(100));
        assert_eq!([standing(&rules, fresh, 99), standing(&rules, fresh, 100)], [Standing::Good, Standing::Over]);
        // A clock that is behind does not end a session.
        assert_eq!(fresh.judge(&rules, began - 50), Standing::Good);
        rules.idle = Some(Duration::from_secs(32));
        assert_eq!([standing(&rules, fresh, 1), standing(&rules, fresh, 2)], [Standing::Good, Standing::Aging]);
        assert_eq!([standing(&rules, fresh, 34), standing(&rules, fresh, 35)], [Standing::Aging, Standing::Over]);
        let later = fresh.seen(began + 30);
        assert_eq!([standing(&rules, later, 31), standing(&rules, later, 65)], [Standing::Good, Standing::Over]);
        // Being busy does not keep it for longer than it may take as a whole.
        assert_eq!(standing(&rules, fresh.seen(began + 99), 100), Standing::Over);
    }

    #[test]
    fn the_first_good_token_counts() {
        let rules = session(SessionCarrier::Cookie(cookie()));
        let keys = [Key(1), Key(2)];
        let good = |key: &Key| text(TOKEN_HERE, &rules.scope, key);
        let find = |lines: &[String]| {
            let fields = Fields(lines.iter().map(|line| ("cookie", line.clone())).collect());
            find(&rules, &fields, &keys, TOKEN_HERE.began)
        };
        let (new, old) = (good(&keys[0]), good(&keys[1]));
        assert_eq!(find(&[]), Found::Nothing);
        assert_eq!(find(&["a=b; sidx=1".to_owned()]), Found::Nothing);
        assert_eq!(find(&["sid=".to_owned()]), Found::Foreign);
        assert_eq!(find(&[format!("sid={new}")]), Found::Good { token: TOKEN_HERE, anew: false });
        assert_eq!(find(&[format!("a=b; sid={old}; c=d")]), Found::Good { token: TOKEN_HERE, anew: true });
        let both = [format!("sid=x; sid={}", good(&Key(3))), format!("sid={new}")];
        assert_eq!(find(&both), Found::Good { token: TOKEN_HERE, anew: false });
        // Behind many others it is not looked for.
        assert_eq!(find(&["sid=x; sid=x; sid=x; sid=x".to_owned(), format!("sid={new}")]), Found::Foreign);
        let over = Session { absolute: Some(Duration::from_secs(1)), ..rules.clone() };
        let fields = Fields(vec![("cookie", format!("sid={new}; sid=x"))]);
        assert_eq!(super::find(&over, &fields, &keys, TOKEN_HERE.began + 1), Found::Over);
        assert_eq!(super::find(&over, &fields, &[] as &[Key], TOKEN_HERE.began), Found::Foreign);
        let by_header = session(SessionCarrier::Header("x-s".to_owned()));
        let fields = Fields(vec![("cookie", format!("x-s={new}")), ("x-s", new)]);
        assert!(matches!(super::find(&by_header, &fields, &keys, 0), Found::Good { anew: false, .. }));
    }

    #[test]
    fn lines_have_the_attributes() {
        let line = |session: &Session, now: u64| {
            let mut out = Vec::new();
            give(session, &TOKEN_HERE, &Key(1), now, &mut out);
            let text = text(TOKEN_HERE, &session.scope, &Key(1));
            String::from_utf8(out).unwrap().replace(&text, "TOKEN")
        };
        let mut cookie = cookie();
        let now = TOKEN_HERE.began + 5;
        let of = |cookie: &SessionCookie| session(SessionCarrier::Cookie(cookie.clone()));
        assert_eq!(line(&of(&cookie), now), "set-cookie: sid=TOKEN; Path=/; HttpOnly; SameSite=Lax\r\n");
        cookie.same_site = SameSite::None;
        assert_eq!(line(&of(&cookie), now), "set-cookie: sid=TOKEN; Path=/; HttpOnly\r\n");
        cookie = SessionCookie { secure: true, domain: Some("example.com".to_owned()), permanent: true, ..cookie };
        let permanent = Session { absolute: Some(Duration::from_secs(300)), ..of(&cookie) };
        let expected =
            "set-cookie: sid=TOKEN; Path=/; Domain=example.com; Max-Age=295; HttpOnly; Secure; SameSite=None\r\n";
        assert_eq!(line(&permanent, now), expected);
        assert_eq!(line(&permanent, now + 1000), expected.replace("295", "0"));
        assert_eq!(line(&session(SessionCarrier::Header("x-s".to_owned())), now), "x-s: TOKEN\r\n");
    }
}
