//! The admin server and its client: health, metrics, status, and on the Unix socket the commands reload and drain.
//!
//! It runs on plain threads beside the workers: a scrape or a slow reader cannot hold a connection of the data path
//! up. Over TCP only GET is answered.

mod client;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

pub use client::{Answer, ask};
pub use server::{Ask, Reply, Server, serve};

/// Where an admin server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket: everything is allowed to who may open it.
    Unix(PathBuf),
    /// TCP: read-only.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path behind `unix:`".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|error| format!("expected unix:PATH or IP:PORT: {error}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Where the admin server is unless told otherwise, the preferred place first.
pub fn default_addresses() -> Vec<Address> {
    let mut places = vec![Address::Unix(PathBuf::from("/run/ringway/admin.sock"))];
    if let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|found| !found.is_empty()) {
        places.push(Address::Unix(PathBuf::from(directory).join("ringway.sock")));
    }
    places
}
