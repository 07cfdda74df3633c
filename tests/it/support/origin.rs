//! Origins: a listening socket and a script for what each connection does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client::find;

/// A request as an origin got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The whole head as it came.
    pub raw: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Request {
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
}

/// One accepted connection.
pub struct Conn {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    /// Which connection of the origin it is, from 0.
    pub number: usize,
}

impl Conn {
    /// The head of the next request, or `None` at the end of the stream. Anything malformed fails the test.
    pub fn head(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        let raw = String::from_utf8(raw).expect("a head of ASCII");
        assert!(!raw.replace("\r\n", "").contains(['\r', '\n', '\0']), "bare line ends in {raw:?}");
        let mut lines = raw[..raw.len() - 4].split("\r\n");
        let line: Vec<&str> = lines.next().unwrap().split(' ').collect();
        assert_eq!(line.len(), 3, "request line {line:?}");
        assert_eq!(line[2], "HTTP/1.1");
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("field line {line:?}"));
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let (method, target) = (line[0].to_owned(), line[1].to_owned());
        Some(Request { method, target, headers, body: Vec::new(), trailers: Vec::new(), raw })
    }

    /// Reads the body that a head announces; `false` when it was cut.
    pub fn body(&mut self, request: &mut Request) -> bool {
        let length = request.header("content-length").map(|value| value.parse::<usize>().expect("a length"));
        let coding = request.header("transfer-encoding").map(str::to_owned);
        assert!(length.is_none() || coding.is_none(), "both framings: {:?}", request.raw);
        match (length, coding) {
            (Some(length), _) => {
                while self.buffer.len() < length {
                    if !self.fill() {
                        return false;
                    }
                }
                request.body = self.buffer.drain(..length).collect();
                true
            }
            (None, Some(coding)) => {
                assert_eq!(coding, "chunked");
                self.chunks(request)
            }
            (None, None) => true,
        }
    }

    fn chunks(&mut self, request: &mut Request) -> bool {
        loop {
            let Some(line) = self.line() else { return false };
            assert!(!line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit()), "chunk size {line:?}");
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                loop {
                    let Some(line) = self.line() else { return false };
                    if line.is_empty() {
                        return true;
                    }
                    let (name, value) = line.split_once(':').expect("a trailer");
                    request.trailers.push((name.to_owned(), value.trim().to_owned()));
                }
            }
            while self.buffer.len() < size + 2 {
                if !self.fill() {
                    return false;
                }
            }
            request.body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            assert_eq!(end, b"\r\n", "the end of a chunk");
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// A whole request, or `None` at the end of the stream or of a cut body.
    pub fn request(&mut self) -> Option<Request> {
        let mut request = self.head()?;
        self.body(&mut request).then_some(request)
    }

    /// Reads something; `false` at the end of the stream.
    pub fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
        }
    }

    /// Raw bytes that have been read ahead.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub fn reply(&mut self, status: &str, body: &str) -> bool {
        self.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    pub fn close(&self) {
        // It may be closed already.
        let _closed = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes by a reset.
    pub fn abort(&self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// An origin. Its threads end with the test's process.
pub struct Origin {
    pub address: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    /// Runs a script for every connection.
    pub fn script(script: impl Fn(Conn, Arc<Mutex<Vec<Request>>>) + Send + Sync + 'static) -> Self {
        Self::at(&format!("{}:0", super::address()), script)
    }

    pub fn at(bind: &str, script: impl Fn(Conn, Arc<Mutex<Vec<Request>>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(bind).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (seen, counted, script) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                stream.set_nodelay(true).ok();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                std::thread::spawn(move || script(Conn { stream, buffer: Vec::new(), number }, seen));
            }
        });
        Self { address, requests, connections }
    }

    /// Answers every request with its own target as the body.
    pub fn echo() -> Self {
        Self::replying(|request| {
            let body = format!("{} {}", request.method, request.target);
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        })
    }

    /// Answers every request with what `reply` makes of it.
    pub fn replying(reply: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(move |mut conn, seen| {
            while let Some(request) = conn.request() {
                let bytes = reply(&request);
                seen.lock().unwrap().push(request);
                if !conn.send(bytes) {
                    return;
                }
            }
        })
    }

    /// Answers the first request of every connection with raw bytes and closes.
    pub fn closing(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::script(move |mut conn, seen| {
            if let Some(request) = conn.request() {
                seen.lock().unwrap().push(request);
                conn.send(&bytes);
            }
        })
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request it has got.
    pub fn request(&self) -> Request {
        let all = self.requests();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }
}
