//! The ClientHello (RFC 8446 section 4.1.2), as far as routing and fingerprints need it.
//!
//! It is read out of the records as they came, so that the same bytes can be handed on. Hellos with post-quantum key
//! shares do not fit one segment, and clients may cut them into as many records as they like, so nothing here expects
//! a whole one.

/// A handshake message that is longer, header included, is refused: there is no such hello.
pub const MAX_HELLO: usize = 64 << 10;

/// Plaintext in one record (RFC 8446 section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// Which server it wants (RFC 6066 section 3).
    pub server_name: ServerName,
    /// Application protocols, preferred first (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// The highest version it speaks: 0x0304 is TLS 1.3.
    pub version: u16,
    /// Cipher suites in its order, without GREASE (RFC 8701).
    pub cipher_suites: Vec<u16>,
    /// Extensions in its order, without GREASE.
    pub extensions: Vec<u16>,
    /// Signature schemes in its order, without GREASE.
    pub signature_schemes: Vec<u16>,
}

/// The server_name extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// There is none.
    Absent,
    /// A DNS name in lower case.
    Name(String),
    /// An IP address, which is not allowed there; it is taken as if there were none.
    Address,
}

impl ServerName {
    /// The name, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Absent | Self::Address => None,
        }
    }
}

/// Why bytes are no ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloError {
    /// They are no TLS records: plain HTTP on the wrong port, or noise.
    NotTls,
    /// They are records, but what is in them is no ClientHello, or a broken one.
    Malformed,
    /// It is longer than [`MAX_HELLO`].
    TooLarge,
}

/// Reads the ClientHello at the start of a connection's bytes, as they come.
///
/// Work done for one record is not done again when more bytes come, so that a hello in single bytes costs no more than
/// one in one piece.
#[derive(Debug, Clone, Default)]
pub struct HelloReader {
    /// Where the first record that is not taken starts.
    at: usize,
    /// Fragments of the records before it.
    message: Vec<u8>,
}

impl HelloReader {
    /// At the start.
    pub fn new() -> Self {
        Self::default()
    }

    /// `bytes` is everything that has come, from the connection's first byte on. `None`: more are needed.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        while let Some(fragment) = record(&bytes[self.at.min(bytes.len())..])? {
            self.at += 5 + fragment.len();
            self.message.extend_from_slice(fragment);
            if let Some(length) = length(&self.message)?
                && let Some(message) = self.message.get(4..length)
            {
                return hello(message).map(Some);
            }
        }
        Ok(None)
    }
}

/// The length of the handshake message that starts with `message`, header included.
fn length(message: &[u8]) -> Result<Option<usize>, HelloError> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError::Malformed);
    }
    let Some(&[_, high, middle, low]) = message.first_chunk::<4>() else { return Ok(None) };
    let length = 4 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
    if length > MAX_HELLO { Err(HelloError::TooLarge) } else { Ok(Some(length)) }
}

/// The first record's fragment; `None` when it is not whole.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let header = &bytes[..bytes.len().min(5)];
    if header.first().is_some_and(|kind| *kind != HANDSHAKE) || header.get(1).is_some_and(|major| *major != 3) {
        return Err(HelloError::NotTls);
    }
    let &[_, _, _, high, low] = header else { return Ok(None) };
    let length = usize::from(high) << 8 | usize::from(low);
    if length == 0 || length > MAX_FRAGMENT {
        // An empty handshake fragment is forbidden, so that nobody is kept busy by them.
        return Err(HelloError::Malformed);
    }
    Ok(bytes[5..].get(..length))
}

/// Bytes being taken from the front.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<usize, HelloError> {
        Ok(usize::from(self.take(1)?[0]))
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Result<Self, HelloError> {
        let length = self.u8()?;
        self.take(length).map(Self)
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Result<Self, HelloError> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }

    /// What is left, as numbers without GREASE.
    fn numbers(mut self) -> Result<Vec<u16>, HelloError> {
        let mut numbers = Vec::with_capacity(self.0.len() / 2);
        while !self.0.is_empty() {
            let number = self.u16()?;
            if !is_grease(number) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// Nothing may be left.
    fn end(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::Malformed) }
    }
}

/// Values that mean nothing and keep servers tolerant (RFC 8701): 0x0a0a, 0x1a1a, to 0xfafa.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn hello(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut body = Cursor(body);
    let legacy_version = body.u16()?;
    body.take(32)?; // random
    if body.short()?.0.len() > 32 {
        return Err(HelloError::Malformed); // legacy_session_id
    }
    let cipher_suites = body.long()?.numbers()?;
    if body.short()?.0.is_empty() {
        return Err(HelloError::Malformed); // legacy_compression_methods
    }
    let mut hello = ClientHello {
        server_name: ServerName::Absent,
        alpn: Vec::new(),
        version: legacy_version,
        cipher_suites,
        extensions: Vec::new(),
        signature_schemes: Vec::new(),
    };
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.long()?;
    body.end()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.long()?;
        if is_grease(kind) {
            continue;
        }
        hello.extensions.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = server_name(content)?,
            ALPN => hello.alpn = alpn(content)?,
            SIGNATURE_ALGORITHMS => hello.signature_schemes = list(content)?.numbers()?,
            SUPPORTED_VERSIONS => hello.version = highest(content)?.unwrap_or(legacy_version),
            _ => {}
        }
    }
    // Each kind may stand there once (section 4.2): two readers must not see two different names.
    let mut kinds = hello.extensions.clone();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(HelloError::Malformed);
    }
    Ok(hello)
}

/// An extension that is one list.
fn list(mut content: Cursor<'_>) -> Result<Cursor<'_>, HelloError> {
    let list = content.long()?;
    content.end()?;
    if list.0.is_empty() { Err(HelloError::Malformed) } else { Ok(list) }
}

fn server_name(content: Cursor<'_>) -> Result<ServerName, HelloError> {
    const HOST_NAME: usize = 0;
    let mut list = list(content)?;
    let mut found = ServerName::Absent;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.long()?.0;
        if kind != HOST_NAME {
            continue;
        }
        if found != ServerName::Absent {
            // There may be one name of a kind.
            return Err(HelloError::Malformed);
        }
        found = dns_name(name).ok_or(HelloError::Malformed)?;
    }
    Ok(found)
}

fn dns_name(name: &[u8]) -> Option<ServerName> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Some(ServerName::Address);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // Without the dot at its end, says the RFC; some send it.
    let name = name.strip_suffix('.').unwrap_or(&name);
    (name.len() <= 253 && name.split('.').all(label)).then(|| ServerName::Name(name.to_owned()))
}

fn alpn(content: Cursor<'_>) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut list = list(content)?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.short()?.0;
        if protocol.is_empty() {
            return Err(HelloError::Malformed);
        }
        protocols.push(protocol.to_vec());
    }
    Ok(protocols)
}

fn highest(mut content: Cursor<'_>) -> Result<Option<u16>, HelloError> {
    let versions = content.short()?.numbers()?;
    content.end()?;
    Ok(versions.into_iter().max())
}
