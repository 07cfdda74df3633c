//! Where configuration comes from: files and directories.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crate::sys::netlink::Netlink;

use super::graph::{OnLink, Resolve};

/// A file larger than this is no configuration.
const MAX_BYTES: u64 = 64 << 20;

/// The configuration of `ringway run` without any: what `examples/quickstart.yaml` says.
pub const DEMO: &str = include_str!("../../examples/quickstart.yaml");
/// How its file is called in messages.
pub const DEMO_NAME: &str = "<embedded demo>";

/// A file.
#[derive(Debug)]
pub struct Input {
    /// Its path as given or found.
    pub name: String,
    /// What it says.
    pub text: io::Result<String>,
}

/// Where configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Files and directories.
    Files(Vec<PathBuf>),
    /// The embedded demo.
    Demo,
}

impl Provider {
    /// Reads everything, as it is now. What cannot be read is an input with an error.
    pub fn read(&self) -> Vec<Input> {
        match self {
            Self::Demo => vec![Input { name: DEMO_NAME.to_owned(), text: Ok(DEMO.to_owned()) }],
            Self::Files(paths) => {
                let mut files = Vec::new();
                for path in paths {
                    collect(path, true, 0, &mut files);
                }
                files
            }
        }
    }

    /// What to watch.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::Demo => &[],
            Self::Files(paths) => paths,
        }
    }
}

/// Directories are read recursively and in order; hidden entries are left out, `..data` of a mounted ConfigMap too.
fn collect(path: &Path, named: bool, depth: usize, files: &mut Vec<Input>) {
    let name = || path.display().to_string();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return files.push(Input { name: name(), text: Err(error) }),
    };
    if meta.is_dir() {
        if depth > 16 {
            return files.push(Input { name: name(), text: Err(io::Error::other("directories nested too deeply")) });
        }
        let entries = std::fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()
        });
        match entries {
            Ok(mut entries) => {
                entries.sort();
                let hidden =
                    |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                for entry in entries.iter().filter(|entry| !hidden(entry)) {
                    collect(entry, false, depth + 1, files);
                }
            }
            Err(error) => files.push(Input { name: name(), text: Err(error) }),
        }
    } else if named || path.extension().and_then(OsStr::to_str).is_some_and(|it| matches!(it, "yaml" | "yml" | "json"))
    {
        let text = if meta.len() > MAX_BYTES {
            Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")))
        } else {
            std::fs::read_to_string(path)
        };
        files.push(Input { name: name(), text });
    }
}

/// The system's resolver. A name that stops resolving keeps its last addresses.
#[derive(Debug, Default)]
pub struct SystemResolver {
    known: HashMap<String, Vec<IpAddr>>,
}

impl Resolve for SystemResolver {
    fn resolve(&mut self, hostname: &str) -> Vec<IpAddr> {
        match (hostname, 0).to_socket_addrs() {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
                addresses.sort_unstable();
                addresses.dedup();
                self.known.insert(hostname.to_owned(), addresses.clone());
                addresses
            }
            Err(_) => self.known.get(hostname).cloned().unwrap_or_default(),
        }
    }

    fn is_usable(&mut self, ip: IpAddr) -> bool {
        // Whatever else keeps a socket from being had is not the address's fault.
        let bound = std::net::UdpSocket::bind((ip, 0));
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    fn on_link(&mut self, interface: &str, ip: IpAddr) -> OnLink {
        let Ok(mut netlink) = Netlink::open() else { return OnLink::Unknown };
        match netlink.interfaces() {
            Ok(all) => match all.iter().find(|each| each.name == interface) {
                None => return OnLink::NoInterface,
                // Its routes are not there either, or lead astray.
                Some(found) if !found.running => return OnLink::Unknown,
                Some(_) => {}
            },
            Err(_) => return OnLink::Unknown,
        }
        match netlink.route(ip) {
            Ok(route) if route.local => OnLink::Local,
            Ok(route) if route.gateway => OnLink::Router,
            Ok(_) => OnLink::Yes,
            Err(_) => OnLink::Unknown,
        }
    }
}
