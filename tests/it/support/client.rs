//! A strict HTTP/1.1 client: it sends bytes as they are and fails on any answer that is not exactly right.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended because the connection did.
    pub until_close: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands there twice: {:?}", self.headers);
        first
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The echo's description of the request.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON: {error}: {:?}", self.text()))
    }
}

/// What a connection gave when no whole response came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// An end of stream with nothing before it.
    Closed,
    /// An end of stream within a response.
    Truncated(Vec<u8>),
    /// A reset; what had come before it.
    Reset(Vec<u8>),
    /// Nothing for as long as the client waits.
    TimedOut(Vec<u8>),
}

/// A connection.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Closes by a reset.
    pub fn abort(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Sends what the peer will take; it may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        self.response()
    }

    /// A response to a request that was not HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET").unwrap_or_else(|ended| panic!("no response: {ended:?}"))
    }

    /// A response to a request with this method.
    pub fn response_to(&mut self, method: &str) -> Result<Response, Ended> {
        let head_end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill(true)?;
        };
        let head: Vec<u8> = self.buffer.drain(..head_end).collect();
        let head = String::from_utf8(head).expect("a head of ASCII");
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "bare line ends in {head:?}");
        let mut lines = head[..head.len() - 4].split("\r\n");
        let line = lines.next().unwrap();
        let (version, rest) = line.split_once(' ').unwrap_or_else(|| panic!("status line {line:?}"));
        assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "status line {line:?}");
        assert!(rest.len() >= 4 && rest.as_bytes()[3] == b' ', "status line {line:?}");
        let status: u16 = rest[..3].parse().unwrap();
        let headers = fields(lines);
        let mut response = Response {
            status,
            version: version.to_owned(),
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
            until_close: false,
        };
        let length = response.header("content-length").map(|value| value.parse::<usize>().expect("a length"));
        let coding = response.header("transfer-encoding").map(str::to_owned);
        assert!(length.is_none() || coding.is_none(), "both framings: {head:?}");
        if method == "HEAD" || status / 100 == 1 || status == 204 || status == 304 {
            if status / 100 == 1 || status == 204 {
                assert!(coding.is_none() && length.is_none(), "framing where there is no body: {head:?}");
            }
            return Ok(response);
        }
        if let Some(coding) = coding {
            assert_eq!(coding, "chunked");
            self.chunked(&mut response)?;
        } else if let Some(length) = length {
            while self.buffer.len() < length {
                self.fill(false)?;
            }
            response.body = self.buffer.drain(..length).collect();
        } else {
            response.until_close = true;
            loop {
                match self.fill(false) {
                    Ok(()) => {}
                    Err(Ended::Truncated(all)) => {
                        response.body = all;
                        break;
                    }
                    Err(Ended::Closed) => break,
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(response)
    }

    fn chunked(&mut self, response: &mut Response) -> Result<(), Ended> {
        loop {
            let line = self.line()?;
            assert!(!line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit()), "chunk size {line:?}");
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                let mut lines = Vec::new();
                loop {
                    let line = self.line()?;
                    if line.is_empty() {
                        break;
                    }
                    lines.push(line);
                }
                response.trailers = fields(lines.iter().map(String::as_str));
                return Ok(());
            }
            while self.buffer.len() < size + 2 {
                self.fill(false)?;
            }
            response.body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            assert_eq!(end, b"\r\n", "the end of a chunk");
        }
    }

    fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            self.fill(false)?;
        }
    }

    fn fill(&mut self, at_start: bool) -> Result<(), Ended> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) if at_start && self.buffer.is_empty() => return Err(Ended::Closed),
                Ok(0) => return Err(Ended::Truncated(std::mem::take(&mut self.buffer))),
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Ended::TimedOut(self.buffer.clone()));
                }
                Err(_) => return Err(Ended::Reset(std::mem::take(&mut self.buffer))),
            }
        }
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            match self.fill(false) {
                Ok(()) => {}
                Err(Ended::Truncated(all)) => return Ok(all),
                Err(Ended::Closed) => return Ok(Vec::new()),
                Err(other) => return Err(other),
            }
        }
    }

    /// Asserts that the server ends the connection in order, without another byte.
    pub fn expect_close(&mut self) {
        assert_eq!(self.rest(), Ok(Vec::new()));
    }

    /// At least so many raw bytes.
    pub fn raw(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.fill(false).unwrap_or_else(|ended| panic!("{count} bytes wanted: {ended:?}"));
        }
        self.buffer.drain(..count).collect()
    }
}

fn fields<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<(String, String)> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("field line {line:?}"));
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "field name in {line:?}");
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect()
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
