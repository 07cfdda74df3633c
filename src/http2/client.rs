//! The client's end of a connection: one connection to an endpoint, many requests on it.
//!
//! A connection is driven by a task of its own, which ends when the connection has. Whoever has a request takes a
//! [`Slot`] on it; how many there may be is the smaller of what is configured and what the endpoint allows.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{PingPong, Reason, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Response, Uri};

use super::SEND_BUFFER;
use super::message::{Body, Chunk, Gone, Outgoing, split_line};
use super::transport::{Transport, Wire};
use crate::rt::{self, Deadline, Stream, Tick};

/// How a connection is used.
#[derive(Debug, Clone, Copy)]
pub struct ClientSettings {
    /// Requests at a time.
    pub max_streams: u32,
    /// Silence after which an endpoint that has requests is asked whether it is there.
    pub ping_interval: Duration,
    /// How long its answer may take.
    pub ping_timeout: Duration,
    /// `:scheme` of requests on it.
    pub scheme: &'static str,
}

/// What an endpoint may send of a head.
const HEADER_LIST: u32 = 64 << 10;

/// The connection's window; a stream's is the protocol's default, 65,535 bytes.
const WINDOW: u32 = 1 << 20;

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Client {
    requests: RefCell<SendRequest<Chunk>>,
    life: Rc<Life>,
    settings: ClientSettings,
}

/// What a connection's driver and its users share.
#[derive(Debug, Default)]
struct Life {
    open: Cell<u32>,
    /// No more requests are taken.
    ended: Cell<bool>,
    /// When the last request ended.
    idle_since: Cell<Tick>,
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Slot(Rc<Client>);

impl Client {
    /// Begins a connection on a stream that nothing has been sent on, and drives it in a task.
    pub async fn start(stream: Stream, settings: ClientSettings) -> Result<Rc<Self>, Gone> {
        let timer = Deadline::new(stream.fd());
        let fd = stream.fd();
        let (transport, wire, read, write) = Transport::new(stream, None, false);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(HEADER_LIST)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(SEND_BUFFER);
        let pumps = async move {
            let (read, write) = (std::pin::pin!(read), std::pin::pin!(write));
            rt::join(read, write).await;
        };
        // It writes the preface, for which there is always room, so it does not wait.
        let begun = Box::pin(builder.handshake(wire)).await;
        let life = Rc::new(Life::default());
        life.idle_since.set(rt::now());
        let mut driver = Driver {
            connection: None,
            pings: None,
            transport,
            pumps: Some(Box::pin(pumps)),
            life: Rc::clone(&life),
            timer,
            armed: None,
            asked: None,
            settings,
            fd,
        };
        let requests = match begun {
            Ok((requests, mut connection)) => {
                driver.pings = connection.ping_pong();
                driver.connection = Some(connection);
                Some(requests)
            }
            // Never seen; the pumps have to be polled to their ends all the same.
            Err(_) => None,
        };
        rt::spawn(async move { poll_fn(|cx| driver.poll(cx)).await });
        let requests = RefCell::new(requests.ok_or(Gone)?);
        Ok(Rc::new(Self { requests, life, settings }))
    }

    /// Requests on it.
    pub fn open(&self) -> u32 {
        self.life.open.get()
    }

    /// How many more it takes.
    pub fn room(&self) -> u32 {
        if self.is_ended() { 0 } else { self.limit().saturating_sub(self.open()) }
    }

    /// How many it takes.
    pub fn limit(&self) -> u32 {
        let theirs = self.requests.borrow().current_max_send_streams();
        self.settings.max_streams.min(u32::try_from(theirs).unwrap_or(u32::MAX))
    }

    /// It takes no more requests: it has ended, or the endpoint has said so.
    pub fn is_ended(&self) -> bool {
        self.life.ended.get()
    }

    /// Since when it has had none, if it has none.
    pub fn idle_since(&self) -> Option<Tick> {
        (self.open() == 0).then(|| self.life.idle_since.get())
    }

    /// A place for a request.
    pub fn slot(self: &Rc<Self>) -> Slot {
        self.life.open.set(self.open() + 1);
        Slot(Rc::clone(self))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let life = &self.0.life;
        life.open.set(life.open.get() - 1);
        life.idle_since.set(rt::now());
    }
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint has not looked at it: it may be sent again, whatever it is (RFC 9113 section 8.7).
    Refused,
    /// The same, since the connection takes no more requests: another one does.
    GoneAway,
    /// The endpoint, or its connection, ended it.
    Reset,
    /// What came breaks the protocol.
    Malformed,
    /// The request cannot be said in HTTP/2.
    Unspeakable,
}

impl Failure {
    fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Self::Refused,
            // Only streams above the last that the endpoint will look at end by its GOAWAY.
            _ if error.is_go_away() && error.is_remote() => Self::GoneAway,
            _ if error.is_io() || error.is_remote() => Self::Reset,
            _ => Self::Malformed,
        }
    }
}

impl Slot {
    /// Whether the endpoint has said that it takes extended CONNECT (RFC 8441 section 3).
    pub fn takes_connect(&self) -> bool {
        self.0.requests.borrow().is_extended_connect_protocol_enabled()
    }

    /// Whether the connection has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_ended()
    }

    /// Sends a request; `head` is one of HTTP/1.1, `end`: nothing comes behind it.
    pub fn request(&self, head: &[u8], end: bool) -> Result<(Sending, Received), Failure> {
        let request = translate(head, self.0.settings.scheme).ok_or(Failure::Unspeakable)?;
        let connect = request.method() == Method::CONNECT;
        if connect && !self.takes_connect() {
            return Err(Failure::Unspeakable);
        }
        let sent = self.0.requests.borrow_mut().send_request(request, end && !connect);
        match sent {
            Ok((response, stream)) => {
                let received = Received { response, body: None };
                Ok((Sending(Rc::new(RefCell::new(Some(stream)))), received))
            }
            Err(error) => {
                // Nothing has been sent: the connection is ending, or its streams have run out.
                self.0.life.ended.set(true);
                match Failure::of(&error) {
                    Failure::Malformed if !error.is_reset() => Err(Failure::GoneAway),
                    Failure::Reset => Err(Failure::GoneAway),
                    failure => Err(failure),
                }
            }
        }
    }
}

/// A request's body on its way. Copies share one stream.
#[derive(Debug, Clone)]
pub struct Sending(Rc<RefCell<Option<SendStream<Chunk>>>>);

impl Outgoing for Sending {
    fn stream<R>(&self, f: impl FnOnce(&mut SendStream<Chunk>) -> R) -> Result<R, Gone> {
        self.0.borrow_mut().as_mut().map(f).ok_or(Gone)
    }
}

impl Sending {
    /// Takes the request back.
    pub fn cancel(&self) {
        if let Some(stream) = &mut *self.0.borrow_mut() {
            stream.send_reset(Reason::CANCEL);
        }
    }
}

/// An answer on its way.
#[derive(Debug)]
pub struct Received {
    response: ResponseFuture,
    body: Option<Body>,
}

/// What comes of an answer.
#[derive(Debug)]
pub enum Incoming {
    /// A head, as one of HTTP/1.1.
    Head(Vec<u8>),
    /// Bytes of its body; they count against the endpoint's windows until they are released.
    Data(bytes::Bytes),
    /// The end, with the trailer fields as lines.
    End(Vec<u8>),
}

impl Received {
    /// What comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Failure>> {
        if let Some(body) = &mut self.body {
            match ready!(body.0.poll_data(cx)) {
                Some(Ok(bytes)) => return Poll::Ready(Ok(Incoming::Data(bytes))),
                Some(Err(error)) => return Poll::Ready(Err(Failure::of(&error))),
                None => {}
            }
            let lines = ready!(body.poll_trailer_lines(cx)).map_err(|Gone| Failure::Reset)?;
            return Poll::Ready(Ok(Incoming::End(lines)));
        }
        let interim = ready!(self.response.poll_informational(cx));
        let response = match interim {
            Some(interim) => interim,
            None => match ready!(Pin::new(&mut self.response).poll(cx)) {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    self.body = Some(Body(body));
                    Ok(Response::from_parts(parts, ()))
                }
                Err(error) => Err(error),
            },
        };
        match response {
            Ok(response) => Poll::Ready(Ok(Incoming::Head(lines(&response)))),
            Err(error) => Poll::Ready(Err(Failure::of(&error))),
        }
    }

    /// Whether nothing more will come but the end.
    pub fn is_end(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end)
    }

    /// Gives the endpoint credit for bytes that have gone on.
    pub fn release(&mut self, bytes: usize) {
        if let Some(body) = &mut self.body {
            body.release(bytes);
        }
    }
}

/// A head in the form of HTTP/1.1.
fn lines(response: &Response<()>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(256);
    lines.extend_from_slice(b"HTTP/1.1 ");
    lines.extend_from_slice(response.status().as_str().as_bytes());
    lines.push(b' ');
    lines.extend_from_slice(response.status().canonical_reason().unwrap_or_default().as_bytes());
    lines.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines.extend_from_slice(b"\r\n");
    lines
}

/// A request's head as HTTP/1.1 writes it, which is how all are written here, in the codec's form. `None` for what the
/// codec cannot say.
fn translate(head: &[u8], scheme: &str) -> Option<http::Request<()>> {
    // `GET /path HTTP/1.1`
    let (line, mut fields) = split_line(head)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut request = http::Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    let (mut authority, mut websocket) = (None, false);
    while let Some((line, rest)) = split_line(fields) {
        fields = rest;
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], ringway_core::http::trim(&line[colon + 1..]));
        if name.eq_ignore_ascii_case(b"host") {
            authority = (!value.is_empty()).then_some(value);
            continue;
        }
        websocket |= name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"websocket");
        let about_connection: [&[u8]; 6] = [
            b"connection",
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
            // Proves what the stream proves by itself.
            b"sec-websocket-key",
        ];
        if about_connection.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        headers.try_append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?).ok()?;
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::try_from(scheme).ok()?);
    // A client of HTTP/1.0 need not name one.
    uri.authority = Some(Authority::try_from(authority.unwrap_or(b"localhost")).ok()?);
    uri.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    if websocket {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    }
    Some(request)
}

/// What moves a connection.
struct Driver {
    connection: Option<Connection<Wire, Chunk>>,
    pings: Option<PingPong>,
    transport: Transport,
    pumps: Option<Pin<Box<dyn Future<Output = ()>>>>,
    life: Rc<Life>,
    timer: Deadline,
    /// The tick that the timer is set for.
    armed: Option<Tick>,
    /// When the endpoint was asked whether it is there, and has not answered.
    asked: Option<Tick>,
    settings: ClientSettings,
    fd: i32,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.poll_pumps(cx);
            if let Some(connection) = &mut self.connection
                && Pin::new(connection).poll(cx).is_ready()
            {
                self.life.ended.set(true);
                self.connection = None;
                self.transport.close();
            }
            // What the codec has written leaves at once.
            self.poll_pumps(cx);
            if self.connection.is_none() && self.pumps.is_none() {
                return Poll::Ready(());
            }
            if !self.transport.progressed() && !self.keep_alive(cx) {
                return Poll::Pending;
            }
        }
    }

    fn poll_pumps(&mut self, cx: &mut Context<'_>) {
        if let Some(pumps) = &mut self.pumps
            && pumps.as_mut().poll(cx).is_ready()
        {
            self.pumps = None;
        }
    }

    /// Asks an endpoint that has requests and says nothing whether it is there; whether there is something to be sent.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        if self.connection.is_none() || (self.life.open.get() == 0 && self.asked.is_none()) {
            return false;
        }
        if self.asked.is_some() && pings.poll_pong(cx).is_ready() {
            self.asked = None;
        }
        let after = |from: Tick, wait: Duration| from + (rt::tick_after(wait) - rt::now());
        let due = match self.asked {
            Some(asked) => after(asked, self.settings.ping_timeout),
            None => after(self.transport.heard(), self.settings.ping_interval),
        };
        if rt::now() < due {
            // One look at the wheel per interval, not one per frame: an early look finds a later time.
            if self.armed.is_none_or(|armed| armed <= rt::now() || due < armed) {
                self.armed = Some(due);
                let waiting = std::pin::pin!(self.timer.passed(due)).poll(cx).is_pending();
                debug_assert!(waiting, "it lies ahead");
            }
            return false;
        }
        if self.asked.is_some() {
            // Its connection is of no use. Whoever waits on it is told so by the end that this brings.
            self.life.ended.set(true);
            self.asked = None;
            self.pings = None;
            if self.pumps.is_some() {
                crate::sys::reset(self.fd);
            }
            return false;
        }
        self.asked = Some(rt::now());
        self.pings.as_mut().is_some_and(|pings| pings.send_ping(h2::Ping::opaque()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_http_1_in_http_2() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: a.test:80\r\nX-A: 1\r\nte: trailers\r\nconnection: te\r\n\
                     transfer-encoding: chunked\r\n\r\nbody: x\r\n";
        let request = translate(head, "http").unwrap();
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "http://a.test:80/a?b"));
        let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-a", &b"1"[..]), ("te", b"trailers")]);
        let asterisk = translate(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "https").unwrap();
        assert_eq!(asterisk.uri().path(), "*");
        assert!(translate(b"GET / HTTP/1.1\r\nHost: a\r\nx y: 1\r\n\r\n", "http").is_none());
        assert!(translate(b"GET", "http").is_none());
    }

    #[test]
    fn answers_of_http_2_in_http_1() {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        response.headers_mut().append("x-a", HeaderValue::from_static("1"));
        response.headers_mut().append("x-a", HeaderValue::from_static("2"));
        assert_eq!(lines(&response), b"HTTP/1.1 404 Not Found\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
    }
}
