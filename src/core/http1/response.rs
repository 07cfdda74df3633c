//! Response heads.

use super::encode::reason_of;
use super::framing::{self, Framed};
use super::{FieldStorage, Fields, MAX_FIELDS, drop_nominated, lines_end_in_crlf};
use crate::http::{Method, Tag, Version, classify_response, connection_options};
use crate::http2;
use crate::model::ClientLimits;

/// How a response's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body. The number is what Content-Length said of the body that a GET would have had (HEAD, 304).
    None(Option<u64>),
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

/// A response head that is whole, well-formed and framed without ambiguity. Borrows from the read buffer.
#[derive(Debug)]
pub struct ResponseHead<'b> {
    /// Bytes of the head in the buffer.
    pub len: usize,
    /// 100 to 999.
    pub status: u16,
    /// The origin's version.
    pub version: Version,
    /// As received.
    pub reason: &'b [u8],
    /// Where the body ends.
    pub body: Framing,
    /// The origin's connection may be used for another request.
    pub keep_alive: bool,
    /// The Upgrade field.
    pub upgrade: Option<&'b [u8]>,
    /// All fields.
    pub fields: Fields<'b>,
}

/// The origin's answer cannot be understood without ambiguity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseError;

/// Parses the head at the front of `buf`; `Ok(None)` when it is not whole yet and nothing is wrong with it so far.
pub fn parse_response<'b>(
    buf: &'b [u8],
    storage: &'b mut FieldStorage<'b>,
    method: Method,
    limits: &ClientLimits,
) -> Result<Option<ResponseHead<'b>>, ResponseError> {
    const START: &[u8] = b"HTTP/1.";
    let checked = START.len().min(buf.len());
    if buf[..checked] != START[..checked] {
        return Err(ResponseError);
    }
    let room = limits.head_fields.min(storage.fields.len());
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut storage.fields[..room],
    );
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if buf.len() < limits.head_bytes => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ResponseError),
    };
    let fields: &'b [httparse::Header<'b>] = response.headers;
    let status = response.code.unwrap_or(0);
    // `HTTP/1.x SP 3DIGIT`, and then a space or the line's end; httparse takes other things for a status line too.
    let line_ok = buf.len() > 12 && buf[8] == b' ' && buf[9..12].iter().all(u8::is_ascii_digit) && status >= 100;
    if !line_ok || len > limits.head_bytes || !lines_end_in_crlf(buf, len, &buf[..1], fields) {
        return Err(ResponseError);
    }
    if fields.is_empty() {
        // The status line is checked by the position of the first field otherwise.
        let line_end = memchr::memchr(b'\n', buf).ok_or(ResponseError)?;
        if line_end == 0 || buf[line_end - 1] != b'\r' {
            return Err(ResponseError);
        }
    }
    let version = if response.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let tags = &mut storage.tags[..fields.len()];
    let mut framing = framing::Framing::default();
    let (mut close, mut keep, mut connections, mut upgrade) = (false, false, false, None);
    for (field, tag) in fields.iter().zip(&mut *tags) {
        *tag = classify_response(field.name.as_bytes());
        match *tag {
            Tag::ContentLength => framing.content_length(field.value),
            Tag::TransferEncoding => framing.transfer_encoding(field.value),
            Tag::Upgrade => upgrade = Some(field.value),
            Tag::Connection => {
                connections = true;
                connection_options(field.value, |option| {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep |= option.eq_ignore_ascii_case(b"keep-alive");
                });
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
        return Err(ResponseError);
    }
    let body = body(framing.framed(), method, status)?;
    Ok(Some(ResponseHead {
        len,
        status,
        version,
        reason: response.reason.unwrap_or_default().as_bytes(),
        body,
        keep_alive: !close && (version == Version::Http11 || keep),
        upgrade,
        fields: Fields::of_lines(fields, tags),
    }))
}

/// The same of an answer that came in HTTP/2. What its fields may be has been seen to where they were decoded.
pub fn decoded<'b>(
    fields: &'b http2::Fields,
    method: Method,
    limits: &ClientLimits,
) -> Result<ResponseHead<'b>, ResponseError> {
    if fields.count() > limits.head_fields.min(MAX_FIELDS) || fields.lines_len() > limits.head_bytes {
        return Err(ResponseError);
    }
    let mut framing = framing::Framing::default();
    for (_, _, value) in fields.tagged().filter(|(tag, ..)| *tag == Tag::ContentLength) {
        framing.content_length(value);
    }
    let status = fields.status();
    Ok(ResponseHead {
        len: 0,
        status,
        version: Version::Http11,
        reason: reason_of(status).as_bytes(),
        body: body(framing.framed(), method, status)?,
        keep_alive: true,
        upgrade: None,
        fields: Fields::decoded(fields, None),
    })
}

/// How a body is delimited, by what the fields say.
fn body(framed: Framed, method: Method, status: u16) -> Result<Framing, ResponseError> {
    let bodiless = method == Method::Head || status < 200 || matches!(status, 204 | 304);
    Ok(match framed {
        Framed::Bad | Framed::UnknownCoding => return Err(ResponseError),
        Framed::Length(length) if bodiless => Framing::None(Some(length)),
        _ if bodiless => Framing::None(None),
        Framed::Length(length) => Framing::Length(length),
        Framed::Chunked => Framing::Chunked,
        Framed::Unframed => Framing::UntilClose,
    })
}
