//! Request heads.

use std::borrow::Cow;

use super::framing::{self, Framed};
use super::target;
use super::{FieldStorage, Fields, drop_nominated, lines_end_in_crlf};
use crate::http::{Method, Tag, Version, classify_request, connection_options, is_token, list, trim};
use crate::model::ClientLimits;

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no field says so.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request head that is whole, well-formed and framed without ambiguity. Borrows from the read buffer.
#[derive(Debug, Clone)]
pub struct RequestHead<'b> {
    /// Bytes of the head in the buffer.
    pub len: usize,
    /// What is asked.
    pub method: Method,
    /// The same as received.
    pub method_token: &'b [u8],
    /// Who asks.
    pub version: Version,
    /// The target's authority, or else Host, as received; empty only in HTTP/1.0.
    pub authority: &'b [u8],
    /// The same in lower case, without a port and a trailing dot.
    pub host: Cow<'b, str>,
    /// Normalised; begins with `/`, or is `*`.
    pub path: Cow<'b, [u8]>,
    /// Behind the first `?`, as received.
    pub query: Option<&'b [u8]>,
    /// Escaped slashes were in the path, and the client is to ask for what it has become in its own words.
    pub redirect: bool,
    /// Where the body ends.
    pub body: Framing,
    /// The connection may be used for another request.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// The Upgrade field, when an upgrade is really asked for: nominated by Connection, in HTTP/1.1, without a body, to
    /// something other than HTTP/2 (which is never passed on).
    pub upgrade: Option<&'b [u8]>,
    /// The client understands trailers.
    pub te_trailers: bool,
    /// Max-Forwards of an OPTIONS request.
    pub max_forwards: Option<u32>,
    /// All fields.
    pub fields: Fields<'b>,
}

impl<'b> RequestHead<'b> {
    /// Names and values as received.
    pub fn fields(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.fields.iter()
    }

    /// The values of the fields with this name, in their order.
    pub fn named(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.fields().filter(|(each, _)| each.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }
}

/// Why a request is refused. Whoever sent it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The request line or a field line is malformed, or a line does not end in CR LF.
    Malformed,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The target is malformed.
    Target,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The head is longer than the limit or has more fields.
    TooLarge,
    /// Host is missing, there are several, or it is malformed.
    Host,
    /// Where the body ends is ambiguous.
    Framing,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// An expectation other than 100-continue.
    Expectation,
    /// CONNECT or TRACE.
    Method,
}

impl RequestError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Target | Self::Host | Self::Framing => 400,
            Self::Method => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::TooLarge => 431,
            Self::TransferCoding => 501,
            Self::Version => 505,
        }
    }

    /// Its name in metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_head",
            Self::Version => "version",
            Self::Target => "bad_target",
            Self::TargetTooLong => "uri_too_long",
            Self::TooLarge => "head_too_large",
            Self::Host => "bad_host",
            Self::Framing => "ambiguous_framing",
            Self::TransferCoding => "transfer_coding",
            Self::Expectation => "expectation",
            Self::Method => "method",
        }
    }
}

/// Parses the head at the front of `buf`; `Ok(None)` when it is not whole yet and nothing is wrong with it so far.
pub fn parse_request<'b>(
    buf: &'b [u8],
    storage: &'b mut FieldStorage<'b>,
    limits: &ClientLimits,
) -> Result<Option<RequestHead<'b>>, RequestError> {
    let room = limits.head_fields.min(storage.fields.len());
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut request,
        buf,
        &mut storage.fields[..room],
    );
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(buf, limits).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooLarge),
        // Which error it is shows when the line is whole.
        Err(httparse::Error::Version) if !first_line_is_whole(buf) => return partial(buf, limits).map(|()| None),
        Err(httparse::Error::Version) => return Err(version_error(buf)),
        Err(_) => return Err(RequestError::Malformed),
    };
    if len > limits.head_bytes {
        return Err(RequestError::TooLarge);
    }
    let method_token = request.method.unwrap_or_default().as_bytes();
    let raw_target = request.path.unwrap_or_default().as_bytes();
    let fields: &'b [httparse::Header<'b>] = request.headers;
    if !is_token(method_token) || !lines_end_in_crlf(buf, len, method_token, fields) {
        return Err(RequestError::Malformed);
    }
    let version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let method = Method::from_token(method_token);
    if matches!(method, Method::Connect | Method::Trace) {
        return Err(RequestError::Method);
    }
    if raw_target.len() > limits.uri_bytes {
        return Err(RequestError::TargetTooLong);
    }

    let tags = &mut storage.tags[..fields.len()];
    let mut framing = framing::Framing::default();
    let mut host = None;
    let mut hosts = 0;
    let (mut close, mut keep, mut upgrades, mut connections) = (false, false, false, false);
    let (mut upgrade, mut expect, mut te_trailers, mut max_forwards) = (None, None, false, None);
    for (field, tag) in fields.iter().zip(&mut *tags) {
        *tag = classify_request(field.name.as_bytes());
        match *tag {
            Tag::ContentLength => framing.content_length(field.value),
            Tag::TransferEncoding => framing.transfer_encoding(field.value),
            Tag::Host => {
                hosts += 1;
                host = Some(field.value);
            }
            Tag::Connection => {
                connections = true;
                connection_options(field.value, |option| {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    upgrades |= option.eq_ignore_ascii_case(b"upgrade");
                });
            }
            Tag::Upgrade => upgrade = Some(field.value),
            Tag::Expect => expect = Some(field.value),
            Tag::Te => te_trailers |= list(field.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
            Tag::MaxForwards if method == Method::Options => {
                max_forwards = std::str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
    if connections {
        for field in fields {
            if field.name.len() == 10 && field.name.eq_ignore_ascii_case("connection") {
                connection_options(field.value, |option| drop_nominated(fields, tags, option));
            }
        }
    }

    if version == Version::Http10 && framing.has_transfer_encoding() {
        return Err(RequestError::Framing);
    }
    let body = match framing.framed() {
        Framed::Unframed => Framing::None,
        Framed::Length(length) => Framing::Length(length),
        Framed::Chunked => Framing::Chunked,
        Framed::Bad => return Err(RequestError::Framing),
        Framed::UnknownCoding => return Err(RequestError::TransferCoding),
    };
    if hosts > 1 || (hosts == 0 && version == Version::Http11) {
        return Err(RequestError::Host);
    }
    let target =
        target::parse(raw_target, method == Method::Options, limits.path).map_err(|_bad| RequestError::Target)?;
    let named = match host {
        Some(value) => Some(target::host_of(value).ok_or(RequestError::Host)?),
        None => None,
    };
    let (authority, host) = match target.authority {
        // The target's authority counts, and what Host says does not (RFC 9112 section 3.2.2).
        Some(authority) => (authority, target::host_of(authority).ok_or(RequestError::Target)?),
        None => (host.unwrap_or_default(), named.unwrap_or_default()),
    };
    let expect_continue = match expect {
        Some(value) if version == Version::Http11 => {
            if !trim(value).eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::Expectation);
            }
            !matches!(body, Framing::None | Framing::Length(0))
        }
        _ => false,
    };
    let bodiless = matches!(body, Framing::None | Framing::Length(0));
    let upgrade = upgrade.filter(|value| {
        let passable =
            |protocol: &[u8]| !protocol.eq_ignore_ascii_case(b"h2c") && !protocol.eq_ignore_ascii_case(b"h2");
        upgrades && version == Version::Http11 && bodiless && list(value).any(passable)
    });
    let keep_alive = !close && (version == Version::Http11 || keep);
    Ok(Some(RequestHead {
        len,
        method,
        method_token,
        version,
        authority,
        host,
        path: target.path,
        query: target.query,
        redirect: target.redirect,
        body,
        keep_alive,
        expect_continue,
        upgrade,
        te_trailers,
        max_forwards,
        fields: Fields::of_lines(fields, tags),
    }))
}

/// What an unfinished head already shows to be too long.
fn partial(buf: &[u8], limits: &ClientLimits) -> Result<(), RequestError> {
    // The longest request line the limits allow, with room for a method and the version.
    const LINE_EXTRA: usize = 64;
    if buf.len() > limits.uri_bytes + LINE_EXTRA
        && memchr::memchr(b'\n', &buf[..limits.uri_bytes + LINE_EXTRA]).is_none()
    {
        return Err(RequestError::TargetTooLong);
    }
    if buf.len() >= limits.head_bytes {
        return Err(RequestError::TooLarge);
    }
    Ok(())
}

/// A version that is HTTP but not ours is told so; anything else is malformed.
fn first_line_is_whole(buf: &[u8]) -> bool {
    let start = buf.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(buf.len());
    memchr::memchr(b'\n', &buf[start..]).is_some()
}

fn version_error(buf: &[u8]) -> RequestError {
    let line = buf.split(|&byte| byte == b'\n').find(|line| !trim_cr(line).is_empty()).unwrap_or_default();
    let mut words = trim_cr(line).split(|&byte| byte == b' ');
    let version = words.nth(2).filter(|_| words.next().is_none()).unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            RequestError::Version
        }
        _ => RequestError::Malformed,
    }
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
