//! TLS sockets: listeners by server name, and what each of them does.

use ringway_core::model::{HttpListener, RouteId, TlsListener, TlsRoute, TlsServes, TlsSettings, WeightedTarget};
use ringway_core::route::{HostMap, RouteTable};

use crate::tls::ServerTls;

/// A socket that speaks TLS.
#[derive(Debug)]
pub struct TlsSocket {
    /// By index, which is also that of their metrics.
    pub listeners: Vec<TlsListenerSnapshot>,
    /// Routes of the HTTPS listeners, in their order.
    pub table: RouteTable,
    /// Streams of all TLS listeners.
    pub streams: Vec<TlsStream>,
    by_name: HostMap<usize>,
}

/// A listener.
#[derive(Debug)]
pub struct TlsListenerSnapshot {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// What it does.
    pub kind: TlsKind,
}

/// What a listener does with a connection. Without its `ServerTls` it refuses every one.
#[derive(Debug)]
pub enum TlsKind {
    /// Ends it, HTTP inside.
    Https {
        /// How.
        tls: Option<ServerTls>,
        /// Its index among the table's listeners.
        listener: usize,
    },
    /// Ends it, and relays what is inside.
    Terminate {
        /// How.
        tls: Option<ServerTls>,
        /// By server name: indices of [`TlsSocket::streams`].
        routes: HostMap<usize>,
    },
    /// Relays it as it is.
    Passthrough {
        /// By server name: indices of [`TlsSocket::streams`].
        routes: HostMap<usize>,
    },
}

/// What a TLSRoute does.
#[derive(Debug)]
pub struct TlsStream {
    /// Its name and metrics.
    pub route: RouteId,
    /// Where its connections go.
    pub split: Vec<WeightedTarget>,
}

impl TlsSocket {
    /// Compiles the listeners of one socket.
    pub(super) fn compile(listeners: Vec<TlsListener>) -> Self {
        let mut https: Vec<HttpListener> = Vec::new();
        let mut streams = Vec::new();
        let mut by_name = HostMap::default();
        let mut compiled = Vec::with_capacity(listeners.len());
        for listener in listeners {
            by_name.entry(&listener.hostname, || compiled.len());
            let TlsListener { name, hostname, serves } = listener;
            let kind = match serves {
                TlsServes::Https { tls, routes, responses } => {
                    https.push(HttpListener { name: name.clone(), hostname, routes, responses });
                    TlsKind::Https { tls: prepare(&name, &tls), listener: https.len() - 1 }
                }
                TlsServes::Terminate { tls, routes } => {
                    TlsKind::Terminate { tls: prepare(&name, &tls), routes: by_host(routes, &mut streams) }
                }
                TlsServes::Passthrough { routes } => TlsKind::Passthrough { routes: by_host(routes, &mut streams) },
            };
            compiled.push(TlsListenerSnapshot { name, kind });
        }
        Self { listeners: compiled, table: RouteTable::compile(&https), streams, by_name }
    }

    /// The listener that takes a server name, or the absence of one.
    pub fn listener(&self, name: Option<&str>) -> Option<usize> {
        self.by_name.find(name.unwrap_or(""), |index| Some(*index))
    }

    /// The number of a stream's split on its socket: those of the table's rules come first.
    pub fn split_number(&self, stream: usize) -> usize {
        self.table.rules().len() + stream
    }
}

fn prepare(name: &str, settings: &TlsSettings) -> Option<ServerTls> {
    match ServerTls::new(settings) {
        Ok(ready) => Some(ready),
        Err(error) => {
            // The control path has checked certificates and authorities; this is for what only both together show.
            tracing::error!(listener = name, %error, "TLS cannot be had: the listener refuses connections");
            None
        }
    }
}

/// The oldest route has a name.
fn by_host(routes: Vec<TlsRoute>, streams: &mut Vec<TlsStream>) -> HostMap<usize> {
    let mut by_host = HostMap::default();
    for route in routes {
        let index = streams.len();
        for hostname in &route.hostnames {
            by_host.entry(hostname, || index);
        }
        streams.push(TlsStream { route: route.id, split: route.split });
    }
    by_host
}
