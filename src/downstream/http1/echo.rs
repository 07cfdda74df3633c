//! The built-in responder: it describes the request it would have been sent, so that routes and filters can be tried
//! without a backend.

use crate::downstream::tls::Secure;

/// The request whose head is `head` as JSON, and the connection that it came on.
pub(super) fn describe(head: &[u8], backend: &str, secure: Option<&Secure>) -> Vec<u8> {
    let mut fields = [httparse::EMPTY_HEADER; 320];
    let mut request = httparse::Request::new(&mut fields);
    // The head is one that we have written, so it parses; if it did not, the answer would be an empty description.
    let _whole = request.parse(head);
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"path\":");
    string(request.path.unwrap_or_default().as_bytes(), &mut out);
    out.extend_from_slice(b",\"host\":");
    let host = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
    string(host.map_or(&b""[..], |field| field.value), &mut out);
    out.extend_from_slice(b",\"method\":");
    string(request.method.unwrap_or_default().as_bytes(), &mut out);
    out.extend_from_slice(b",\"proto\":\"HTTP/1.1\",\"headers\":{");
    let mut first = true;
    for (index, field) in request.headers.iter().enumerate() {
        let same = |other: &&httparse::Header<'_>| other.name.eq_ignore_ascii_case(field.name);
        if field.name.eq_ignore_ascii_case("host") || request.headers[..index].iter().any(|other| same(&other)) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        string(field.name.to_ascii_lowercase().as_bytes(), &mut out);
        out.extend_from_slice(b":[");
        for (line, other) in request.headers.iter().filter(same).enumerate() {
            if line > 0 {
                out.push(b',');
            }
            string(other.value, &mut out);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"},\"backend\":");
    string(backend.as_bytes(), &mut out);
    out.extend_from_slice(b",\"tls\":");
    match secure {
        None => out.extend_from_slice(b"null"),
        Some(secure) => connection(secure, &mut out),
    }
    out.extend_from_slice(b"}\n");
    out
}

fn connection(secure: &Secure, out: &mut Vec<u8>) {
    let mut optional = |name: &str, value: Option<&str>| {
        out.extend_from_slice(name.as_bytes());
        match value {
            Some(value) => string(value.as_bytes(), out),
            None => out.extend_from_slice(b"null"),
        }
    };
    optional("{\"version\":", Some(secure.version.as_str()));
    optional(",\"cipher\":", Some(secure.cipher));
    optional(",\"sni\":", secure.server_name.as_deref());
    optional(",\"alpn\":", secure.alpn.as_deref());
    out.extend_from_slice(if secure.resumed { b",\"resumed\":true" } else { b",\"resumed\":false" });
    match &secure.client {
        None => out.extend_from_slice(b",\"client\":null}"),
        Some(client) => {
            out.extend_from_slice(b",\"client\":{\"subject\":");
            string(client.subject.as_bytes(), out);
            out.extend_from_slice(if client.verified { b",\"verified\":true}}" } else { b",\"verified\":false}}" });
        }
    }
}

/// A JSON string; bytes that are not UTF-8 become U+FFFD.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{0}'..='\u{1f}' => {
                out.extend_from_slice(b"\\u00");
                let code = u32::from(character);
                for digit in [code >> 4, code & 15] {
                    out.push(b"0123456789abcdef"[digit as usize]);
                }
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_what_would_be_sent() {
        let head = b"GET /a?b=\"1\" HTTP/1.1\r\nHost: x:1\r\nA: 1\r\na: 2\r\nB: \t\xff\r\n\r\n";
        let text = String::from_utf8(describe(head, "echo", None)).unwrap();
        let expected = "{\"path\":\"/a?b=\\\"1\\\"\",\"host\":\"x:1\",\"method\":\"GET\",\"proto\":\"HTTP/1.1\",\
                        \"headers\":{\"a\":[\"1\",\"2\"],\"b\":[\"\u{fffd}\"]},\"backend\":\"echo\",\"tls\":null}\n";
        assert_eq!(text, expected);
    }
}
