//! The origin behind every contender: cheap enough not to be the bottleneck, and strict about ids.
//!
//! HTTP/1.1, and HTTP/2 by prior knowledge: `GET /any/path/SIZE` answers with so many bytes. `?delay=MS` waits first, `?chunked` sends the body in chunks.
//! gRPC: a POST with its content type is answered by a message of SIZE bytes; the message of the call carries the id.
//! TCP: the first byte on a connection says what follows: `E` echo, `S` sink (which answers the end of the stream with
//! the count of bytes as eight bytes, big endian), `G` an endless source of blocks. UDP: echo.

mod http1;
mod http2;
mod streams;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use clap::ValueEnum;

use crate::failure::{Context as _, Result};
use crate::{machine, rt};

/// Bytes come back as they are sent.
pub(crate) const MODE_ECHO: u8 = b'E';
/// The same, the first one included: the first byte of a TLS handshake record.
pub(crate) const MODE_HELLO: u8 = 22;
/// Bytes are counted.
pub(crate) const MODE_SINK: u8 = b'S';
/// Bytes are made.
pub(crate) const MODE_SOURCE: u8 = b'G';

/// Wrong on purpose, to test whoever checks the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lie {
    /// Every 100th answer carries another id in its head.
    HeadId,
    /// Every 100th answer carries another id at the end of its body.
    BodyId,
    /// Every 100th body is a byte shorter than its Content-Length, and the connection ends there.
    ShortBody,
    /// HTTP/1.1: every 100th pair of pipelined answers changes places.
    Swap,
}

/// The `origin` command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Where HTTP is served.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// Where TCP is served: echo, sink, source.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) tcp: Option<SocketAddr>,
    /// Where UDP is echoed.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) udp: Option<SocketAddr>,
    /// Bytes of a block that the TCP source sends.
    #[arg(long, default_value_t = 65536, value_name = "BYTES")]
    pub(crate) block: usize,
    /// Milliseconds that every HTTP answer waits.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub(crate) delay: u64,
    /// Every HTTP answer is chunked.
    #[arg(long)]
    pub(crate) chunked: bool,
    /// Threads, each with its own listeners.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// Wrong on purpose.
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) lie: Option<Lie>,
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(8192)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Whether anything listens there or could keep us from it: sharing a port with a stranger would split the load.
fn need_free(address: SocketAddr) -> Result<()> {
    TcpListener::bind(address).map(drop).context(|| format!("cannot listen on {address}"))
}

/// Serves until the process is ended.
pub(crate) fn command(options: &Options) -> Result<()> {
    if options.http.is_none() && options.tcp.is_none() && options.udp.is_none() {
        return Err(crate::failure::Failure::new("nothing to serve: give --http, --tcp or --udp"));
    }
    for address in options.http.into_iter().chain(options.tcp) {
        need_free(address)?;
    }
    machine::raise_descriptors();
    let mut threads = Vec::new();
    for index in 0..options.threads.max(1) {
        let at = |address: SocketAddr| move || format!("cannot listen on {address}");
        let http = options.http.map(|address| listen(address).context(at(address))).transpose()?;
        let tcp = options.tcp.map(|address| listen(address).context(at(address))).transpose()?;
        let udp = options.udp.map(|address| bind_udp(address).context(at(address))).transpose()?;
        let options = options.clone();
        let work = move || rt::run(serve(options, http, tcp, udp));
        let thread = std::thread::Builder::new().name(format!("origin-{index}"));
        threads.push(thread.spawn(work).context(|| "no thread".to_owned())?);
    }
    let said = writeln!(std::io::stdout(), "ready").and_then(|()| std::io::stdout().flush());
    said.context(|| "cannot say that it is ready".to_owned())?;
    for thread in threads {
        match thread.join() {
            Ok(ended) => {
                ended.context(|| "the origin ended".to_owned())?.context(|| "the origin ended".to_owned())?;
            }
            Err(_panic) => return Err(crate::failure::Failure::new("an origin thread panicked")),
        }
    }
    Ok(())
}

async fn serve(
    options: Options,
    http: Option<TcpListener>,
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
) -> std::io::Result<()> {
    use std::rc::Rc;
    let settings = Rc::new(http1::Settings::new(&options));
    let block = options.block;
    if let Some(udp) = udp {
        let udp = monoio::net::udp::UdpSocket::from_std(udp)?;
        monoio::spawn(async move { streams::udp_echo(&udp).await });
    }
    if let Some(tcp) = tcp {
        let tcp = monoio::net::TcpListener::from_std(tcp)?;
        monoio::spawn(async move {
            loop {
                match tcp.accept().await {
                    Ok((stream, _)) => drop(monoio::spawn(streams::tcp(stream, block))),
                    Err(_out_of_descriptors) => monoio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        });
    }
    let Some(http) = http else { return std::future::pending().await };
    let http = monoio::net::TcpListener::from_std(http)?;
    loop {
        match http.accept().await {
            Ok((stream, _)) => drop(monoio::spawn(http1::connection(stream, Rc::clone(&settings)))),
            Err(_out_of_descriptors) => monoio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
