//! New connections.

use std::io;

use ringway_core::model::EndpointAddress;

use super::{Endpoint, Pooled};
use crate::rt::{self, Stream, Tick};

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub stream: Stream,
    /// It has carried an exchange before: its peer may have ended it in the meantime.
    pub reused: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// Refused, unreachable, reset.
    Refused,
    /// Not established in time.
    Timeout,
    /// This process has no descriptor or memory left for it.
    NoResources,
}

/// A connection: a kept one, or a new one by `deadline` or the endpoint's connect timeout, whichever is first. `look`
/// asks for proof that a kept one is alive.
pub async fn connect(endpoint: &Endpoint, look: bool, deadline: Tick) -> Result<Connection, ConnectError> {
    if let Some(Pooled(stream)) = endpoint.take(look) {
        return Ok(Connection { stream, reused: true });
    }
    let stream = match &endpoint.address {
        EndpointAddress::Tcp(address) => rt::connect_tcp(*address, endpoint.connect_by().min(deadline)).await,
        EndpointAddress::Unix(path) => rt::connect_unix(path),
        EndpointAddress::Echo(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    match stream {
        Ok(stream) => Ok(Connection { stream, reused: false }),
        Err(error) => Err(classify(&error)),
    }
}

fn classify(error: &io::Error) -> ConnectError {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            ConnectError::NoResources
        }
        Some(Errno::TIMEDOUT) => ConnectError::Timeout,
        _ if error.kind() == io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Refused,
    }
}
