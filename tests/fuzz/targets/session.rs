#![no_main]
use libfuzzer_sys::fuzz_target;
use ringway_core::balance::hash;
use ringway_core::model::{SameSite, Session, SessionCarrier, SessionCookie};
use ringway_core::route::FieldLookup;
use ringway_core::session::{Found, Mac, TOKEN, Token, find, scope};

/// Of the form of HMAC-SHA256, and quick.
struct Key(u64);

impl Mac for Key {
    fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = [0; 32];
        for (index, part) in mac.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&hash::with_seed(self.0 + index as u64, bytes).to_le_bytes());
        }
        mac
    }
}

struct Line<'l>(&'l [u8]);

impl FieldLookup for Line<'_> {
    fn values(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if name == "cookie" {
            f(self.0);
        }
    }
}

// What is opened is sealed to the very same text, and a token is found in a line whatever stands around it.
fuzz_target!(|bytes: &[u8]| {
    let key = Key(1);
    let here = scope("HTTPRoute/a/b", "r");
    if let Some(token) = Token::open(bytes, &here, &key) {
        assert_eq!(token.seal(&here, &key), bytes);
    }
    let cookie = SessionCookie {
        name: "sid".to_owned(),
        path: "/".to_owned(),
        domain: None,
        permanent: false,
        secure: false,
        same_site: SameSite::Lax,
    };
    let session = Session { scope: here, carrier: SessionCarrier::Cookie(cookie), absolute: None, idle: None };
    find(&session, &Line(bytes), &[Key(1), Key(2)], u64::MAX);
    let token = Token { endpoint: bytes.len() as u64, began: 7, seen: 8 };
    let sealed = token.seal(&here, &key);
    assert_eq!(sealed.len(), TOKEN);
    let line = [b"sid=", &sealed[..], b"; ", bytes].concat();
    assert_eq!(find(&session, &Line(&line), &[key], 0), Found::Good { token, anew: false });
});
