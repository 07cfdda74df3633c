//! The server: one thread per listening socket, one per request, few and short.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::Address;

/// Requests being answered at one time.
const MAX_REQUESTS: usize = 32;
/// A request's head.
const MAX_HEAD: usize = 8 << 10;
/// For reading a request and for writing its answer.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// For the control thread's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked of the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `GET /readyz`.
    Ready,
    /// `GET /metrics`.
    Metrics,
    /// `GET /status`.
    Status,
    /// `GET /config`.
    Config {
        /// Digests of Secrets may be told.
        secrets: bool,
    },
    /// `GET /backends`.
    Backends,
    /// `GET /dsr/flows`.
    DsrFlows,
    /// `POST /dsr/detach`.
    DsrDetach,
    /// `POST /reload`.
    Reload,
    /// `POST /drain`.
    Drain,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Its content's type.
    pub content_type: &'static str,
    /// Its content.
    pub body: String,
}

impl Reply {
    /// Plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", body: format!("{value:#}\n") }
    }
}

/// A server that listens; its socket file goes when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where.
    pub address: Address,
    socket: Option<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // Gone already if somebody cleaned up.
            let _removed = std::fs::remove_file(path);
        }
    }
}

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// Listens at an address; what needs the control thread is sent there by `send`.
pub fn serve<F>(address: &Address, send: F) -> io::Result<Server>
where
    F: Fn(Ask, Sender<Reply>) + Send + Sync + 'static,
{
    let send = Arc::new(send);
    let busy = Arc::new(AtomicUsize::new(0));
    match address {
        Address::Unix(path) => {
            let listener = bind_unix(path)?;
            spawn_acceptor(move || {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(IO_TIMEOUT))?;
                stream.set_write_timeout(Some(IO_TIMEOUT))?;
                spawn_answer(Box::new(stream), true, &send, &busy)
            })?;
            Ok(Server { address: address.clone(), socket: Some(path.clone()) })
        }
        Address::Tcp(at) => {
            let listener = TcpListener::bind(at)?;
            let bound = listener.local_addr()?;
            spawn_acceptor(move || {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(IO_TIMEOUT))?;
                stream.set_write_timeout(Some(IO_TIMEOUT))?;
                spawn_answer(Box::new(stream), false, &send, &busy)
            })?;
            Ok(Server { address: Address::Tcp(bound), socket: None })
        }
    }
}

/// Binds a socket file that only its owner and group may open. One that nobody answers at is left over and replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::other("the path exists and is not a socket"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    } else if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        std::fs::create_dir(directory)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn spawn_acceptor(mut accept: impl FnMut() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let run = move || {
        loop {
            if let Err(error) = accept() {
                tracing::debug!(%error, "admin connection failed");
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(run).map(drop)
}

fn spawn_answer<F>(
    mut stream: Box<dyn Connection>,
    may_change: bool,
    send: &Arc<F>,
    busy: &Arc<AtomicUsize>,
) -> io::Result<()>
where
    F: Fn(Ask, Sender<Reply>) + Send + Sync + 'static,
{
    if busy.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
        busy.fetch_sub(1, Ordering::Relaxed);
        return Err(io::Error::other("too many admin requests at one time"));
    }
    let (send, busy) = (Arc::clone(send), Arc::clone(busy));
    let run = move || {
        let reply = match read_head(&mut *stream) {
            Ok(head) => route(&head, may_change, &*send),
            Err(reply) => Some(reply),
        };
        if let Some(reply) = reply
            && let Err(error) = write_reply(&mut *stream, &reply)
        {
            tracing::debug!(%error, "admin answer failed");
        }
        busy.fetch_sub(1, Ordering::Relaxed);
    };
    std::thread::Builder::new().name("admin-request".to_owned()).spawn(run).map(drop)
}

/// Method and path.
struct Head {
    method: String,
    path: String,
}

fn read_head(stream: &mut dyn Connection) -> Result<Head, Reply> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&buffer) {
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
                return Ok(Head { method: request.method.unwrap_or("").to_owned(), path });
            }
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) => return Err(Reply::text(431, "request head too large\n")),
            Err(error) => return Err(Reply::text(400, format!("{error}\n"))),
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return Err(Reply::text(408, "no whole request came\n")),
        }
    }
}

fn route<F: Fn(Ask, Sender<Reply>)>(head: &Head, may_change: bool, send: &F) -> Option<Reply> {
    let ask = match (head.method.as_str(), head.path.as_str()) {
        ("GET", "/healthz") => return Some(Reply::text(200, "ok\n")),
        ("GET", "/readyz") => Ask::Ready,
        ("GET", "/metrics") => Ask::Metrics,
        ("GET", "/status") => Ask::Status,
        ("GET", "/config") => Ask::Config { secrets: may_change },
        ("GET", "/backends") => Ask::Backends,
        ("POST", "/reload") if may_change => Ask::Reload,
        ("POST", "/drain") if may_change => Ask::Drain,
        ("GET", "/dsr/flows") => Ask::DsrFlows,
        ("POST", "/dsr/detach") if may_change => Ask::DsrDetach,
        ("POST", "/reload" | "/drain" | "/dsr/detach") => return Some(Reply::text(403, "only over the Unix socket\n")),
        (
            _,
            "/healthz" | "/readyz" | "/metrics" | "/status" | "/config" | "/backends" | "/reload" | "/drain"
            | "/dsr/flows" | "/dsr/detach",
        ) => {
            return Some(Reply::text(405, "method not allowed\n"));
        }
        _ => {
            let paths =
                "GET /healthz /readyz /metrics /status /config /backends /dsr/flows, POST /reload /drain /dsr/detach\n";
            return Some(Reply::text(404, paths));
        }
    };
    let (sender, receiver) = mpsc::channel();
    send(ask, sender);
    Some(receiver.recv_timeout(ANSWER_TIMEOUT).unwrap_or_else(|_| Reply::text(503, "the process is ending\n")))
}

fn write_reply(stream: &mut dyn Connection, reply: &Reply) -> io::Result<()> {
    let reason = ringway_core::http1::encode::reason_of(reply.status);
    write!(
        stream,
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        reply.status,
        reason,
        reply.content_type,
        reply.body.len()
    )?;
    stream.write_all(reply.body.as_bytes())?;
    stream.flush()
}
