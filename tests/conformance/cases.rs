//! The cases: raw bytes, and what must become of them here.

/// What must become of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Must {
    /// This status, and nothing at the origin.
    Refuse(u16),
    /// One request at the origin, answered 200.
    Pass,
    /// The same, without this text (in lower case) at the origin.
    PassWithout(&'static str),
    /// HTTP/2 is spoken: the first thing that comes is a SETTINGS frame (RFC 9113 section 3.4), and nothing at the origin.
    SpeakHttp2,
}

/// A case.
#[derive(Debug)]
pub(crate) struct Case {
    /// For the table.
    pub(crate) name: &'static str,
    /// What is sent.
    pub(crate) bytes: &'static [u8],
    /// What must become of it.
    pub(crate) must: Must,
}

const fn case(name: &'static str, bytes: &'static [u8], must: Must) -> Case {
    Case { name, bytes, must }
}

use Must::{Pass, PassWithout, Refuse, SpeakHttp2};

/// All of them.
pub(crate) const CASES: &[Case] = &[
    case("plain GET", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Pass),
    case("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", Pass),
    case("empty line before the request", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Pass),
    case("Host missing", b"GET / HTTP/1.1\r\n\r\n", Refuse(400)),
    case("Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refuse(400)),
    case("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refuse(400)),
    case("Host with userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refuse(400)),
    case("Host empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Refuse(400)),
    case("bare LF lines", b"GET / HTTP/1.1\nHost: a\n\n", Refuse(400)),
    case("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Refuse(400)),
    case("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Refuse(400)),
    case("space before a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Refuse(400)),
    case("folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Refuse(400)),
    case("empty field name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refuse(400)),
    case("field without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nXY\r\n\r\n", Refuse(400)),
    case("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refuse(505)),
    case("version 1.9", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", Refuse(505)),
    case("version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("no version", b"GET /\r\nHost: a\r\n\r\n", Refuse(400)),
    case("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("fragment in the target", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("%00 in the target", b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("broken escape", b"GET /%x HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("raw non-ASCII in the target", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("climb above the root", b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(400)),
    case("dot segments", b"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", PassWithout("..")),
    case("absolute form", b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", PassWithout("host: a\r")),
    case("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Refuse(405)),
    case("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse(405)),
    case("Expect unknown", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 0\r\n\r\n", Refuse(417)),
    case(
        "CL and TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case(
        "CL twice, different",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        Refuse(400),
    ),
    case("CL list, different", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nab", Refuse(400)),
    case("CL with a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", Refuse(400)),
    case("CL empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Refuse(400)),
    case("CL hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", Refuse(400)),
    case(
        "CL too large for 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        Refuse(400),
    ),
    case("TE in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    case("TE identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Refuse(400)),
    case(
        "TE gzip, chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refuse(501),
    ),
    case(
        "TE chunked, gzip",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case(
        "TE chunked twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case(
        "TE with vertical tab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case(
        "chunk size with a sign",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case(
        "chunk size with 0x",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        Refuse(400),
    ),
    case("Connection nominates Host", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", Pass),
    case(
        "Connection nominates a field",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
        PassWithout("x-hop"),
    ),
    case("Keep-Alive", b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\n\r\n", PassWithout("keep-alive: 5")),
    case(
        "Proxy-Connection",
        b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: x\r\n\r\n",
        PassWithout("proxy-connection"),
    ),
    case(
        "X-Forwarded-For of a stranger",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        PassWithout("6.6.6.6"),
    ),
    case(
        "X_Forwarded_For of a stranger",
        b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
        PassWithout("6.6.6.6"),
    ),
    case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SpeakHttp2),
    case("TLS ClientHello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", Refuse(400)),
];
