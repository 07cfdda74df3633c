//! HTTP/1.0 and 1.1 (RFC 9112): heads by httparse, everything that decides where a message ends by us.
//!
//! The strictness is deliberate. A message whose end two parsers could see in different places is refused, never
//! repaired, and what goes on to the other side is written anew from what was understood.

pub mod authorize;
pub mod body;
pub mod choose;
pub mod encode;
pub mod exchange;
pub(crate) mod framing;
pub mod request;
pub mod response;
mod scan;
pub(crate) mod target;

pub use scan::HeadScanner;

use crate::http::Tag;
use crate::http2;

/// Most fields a head can have, whatever the configured limit.
pub const MAX_FIELDS: usize = 256;

/// Uninitialised room for a head's fields on the caller's stack.
#[derive(Debug)]
pub struct FieldStorage<'b> {
    fields: [std::mem::MaybeUninit<httparse::Header<'b>>; MAX_FIELDS],
    tags: [Tag; MAX_FIELDS],
}

impl FieldStorage<'_> {
    /// Empty.
    #[inline]
    pub fn new() -> Self {
        Self { fields: [std::mem::MaybeUninit::uninit(); MAX_FIELDS], tags: [Tag::Plain; MAX_FIELDS] }
    }
}

impl Default for FieldStorage<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The fields of a head, in order, each with what it is to the proxy.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'b>(Held<'b>);

#[derive(Debug, Clone, Copy)]
enum Held<'b> {
    /// In lines that were parsed.
    Lines(&'b [httparse::Header<'b>], &'b [Tag]),
    /// As they came out of HPACK; and all cookies in one, where they came in pieces.
    Decoded(&'b http2::Fields, Option<&'b [u8]>),
}

/// What [`Fields`] has, one after the other.
enum Tagged<'b> {
    Lines(std::iter::Zip<std::slice::Iter<'b, httparse::Header<'b>>, std::slice::Iter<'b, Tag>>),
    Decoded(http2::Tagged<'b>),
    /// The cookies that take the place of the first piece; none, behind that.
    Joined(http2::Tagged<'b>, Option<&'b [u8]>),
}

impl<'b> Iterator for Tagged<'b> {
    type Item = (Tag, &'b [u8], &'b [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Lines(fields) => fields.next().map(|(field, tag)| (*tag, field.name.as_bytes(), field.value)),
            Self::Decoded(fields) => fields.next(),
            Self::Joined(fields, cookies) => loop {
                match fields.next()? {
                    (tag, b"cookie", _) => {
                        if let Some(all) = cookies.take() {
                            return Some((tag, b"cookie", all));
                        }
                    }
                    field => return Some(field),
                }
            },
        }
    }
}

impl<'b> Fields<'b> {
    /// In lines that were parsed.
    fn of_lines(fields: &'b [httparse::Header<'b>], tags: &'b [Tag]) -> Self {
        Self(Held::Lines(fields, tags))
    }

    /// As they came out of HPACK. `cookies`: all of them, where they came in pieces.
    pub(crate) fn decoded(fields: &'b http2::Fields, cookies: Option<&'b [u8]>) -> Self {
        Self(Held::Decoded(fields, cookies))
    }

    /// Names and values as received; values without the white space around them.
    pub fn iter(self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        self.tagged().map(|(_, name, value)| (name, value))
    }

    fn tagged(self) -> Tagged<'b> {
        match self.0 {
            Held::Lines(fields, tags) => Tagged::Lines(fields.iter().zip(tags)),
            Held::Decoded(fields, None) => Tagged::Decoded(fields.tagged()),
            Held::Decoded(fields, cookies) => Tagged::Joined(fields.tagged(), cookies),
        }
    }

    /// The first value of the fields that are `tag`.
    fn first(self, tag: Tag) -> Option<&'b [u8]> {
        self.tagged().find(|(found, ..)| *found == tag).map(|(_, _, value)| value)
    }
}

/// Whether every line of the head in `buf` ends in CR LF. httparse takes a bare LF for a line's end, which is the kind
/// of leniency that lets two parsers disagree; where lines end is known from where the fields begin.
fn lines_end_in_crlf(buf: &[u8], len: usize, first: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let offset = |part: &[u8]| part.as_ptr() as usize - buf.as_ptr() as usize;
    let crlf_before = |at: usize| at >= 2 && buf[at - 2..at] == *b"\r\n";
    let lead = offset(first);
    buf[..lead].chunks(2).all(|line| line == b"\r\n")
        && fields.iter().all(|field| crlf_before(offset(field.name.as_bytes())))
        && len >= 4
        && buf[len - 4..len] == *b"\r\n\r\n"
}

/// Marks the fields that a Connection field nominates (RFC 9110 section 7.6.1). Framing, Host and what the proxy sets
/// itself cannot be nominated away, so only plain fields are marked.
fn drop_nominated(fields: &[httparse::Header<'_>], tags: &mut [Tag], option: &[u8]) {
    for (field, tag) in fields.iter().zip(tags) {
        if *tag == Tag::Plain && field.name.as_bytes().eq_ignore_ascii_case(option) {
            *tag = Tag::Drop;
        }
    }
}

/// A path in the form in which requests are matched and forwarded, or `None` if no request can have it.
pub fn normal_path(path: &str) -> Option<String> {
    let (path, _) = target::normalise(path.as_bytes(), crate::model::PathRules::default()).ok()?;
    String::from_utf8(path.into_owned()).ok()
}
