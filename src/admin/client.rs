//! The client: one request, one answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Address;

/// A drain or reload may take a while.
const TIMEOUT: Duration = Duration::from_secs(90);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content.
    pub body: String,
}

/// Asks the process at `address`.
pub fn ask(address: &Address, method: &str, path: &str) -> io::Result<Answer> {
    match address {
        Address::Unix(at) => {
            let stream = UnixStream::connect(at)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream, method, path)
        }
        Address::Tcp(at) => {
            let stream = TcpStream::connect_timeout(at, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream, method, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> io::Result<Answer> {
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: ringway\r\nconnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(&bytes) {
        Ok(httparse::Status::Complete(head)) => {
            let status = response.code.ok_or_else(|| bad("an answer without a status"))?;
            let body = String::from_utf8(bytes[head..].to_vec())
                .map_err(|error| bad(&format!("an answer that is not text: {error}")))?;
            Ok(Answer { status, body })
        }
        _ => Err(bad("not an HTTP answer")),
    }
}
