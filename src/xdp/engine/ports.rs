//! Programs at interfaces: attached, taken over, replaced, taken away.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ringway_core::model::DsrMode;

use crate::sys::bpf::{self, Link, XdpMode};
use crate::xdp::program;

use super::pins::{self, detach};
use super::{Engine, EngineError, system};

/// A program at an interface.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    pub(super) mode: Option<XdpMode>,
    pub(super) link: Link,
}

impl Engine {
    pub(super) fn attach(&mut self) -> Result<(), EngineError> {
        let gone: Vec<String> =
            self.ports.keys().filter(|name| !self.wanted_ports.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(port) = self.ports.remove(&name) {
                detach(&port.link, &self.link_path(&name))?;
            }
        }
        for (name, mode) in self.wanted_ports.clone() {
            self.attach_to(&name, mode)?;
        }
        // Links that an earlier process left at interfaces that are not wanted any more.
        for (name, path) in self.pinned_links()? {
            if !self.wanted_ports.contains_key(&name) {
                let link = Link::open(&path).map_err(system(format!("cannot open {}", path.display())))?;
                detach(&link, &path)?;
            }
        }
        Ok(())
    }

    fn link_path(&self, interface: &str) -> PathBuf {
        pins::link_path(&self.directory, interface)
    }

    fn pinned_links(&self) -> Result<Vec<(String, PathBuf)>, EngineError> {
        let entries = std::fs::read_dir(&self.directory).map_err(system("cannot list the pins"))?;
        let known = |path: &Path| self.wanted_ports.keys().find(|name| self.link_path(name) == path).cloned();
        Ok(entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = name.strip_prefix("link-")?.to_owned();
                Some((known(&entry.path()).unwrap_or(name), entry.path()))
            })
            .collect())
    }

    fn attach_to(&mut self, name: &str, mode: DsrMode) -> Result<(), EngineError> {
        let Some(interface) = self.interface(name).cloned() else {
            // It may come back; the guard rule holds meanwhile.
            if self.ports.remove(name).is_some() {
                tracing::error!(interface = name, "interface has gone");
            }
            return Ok(());
        };
        let Some(mac) = interface.mac else { return Ok(()) };
        let allowed: &[XdpMode] = match mode {
            DsrMode::Native => &[XdpMode::Native],
            DsrMode::Generic => &[XdpMode::Generic],
            // A veth transmits natively only to a peer that has a program too, and loses frames silently otherwise.
            DsrMode::Auto if interface.kind.as_deref() == Some("veth") => &[XdpMode::Generic],
            DsrMode::Auto => &[XdpMode::Native, XdpMode::Generic],
        };
        if let Some(port) = self.ports.get(name)
            && port.index == interface.index
            && port.mac == mac
            && port.mode.is_some_and(|mode| allowed.contains(&mode))
            && port.link.ifindex().is_ok_and(|index| index == port.index)
        {
            return Ok(());
        }
        let program = bpf::load_xdp(&program::emit(&self.maps, mac), "ringway_dsr")?;
        let path = self.link_path(name);
        let pinned = self.ports.remove(name).map(|port| port.link).or_else(|| Link::open(&path).ok());
        if let Some(link) = pinned {
            let here = link.ifindex().is_ok_and(|index| index == interface.index);
            let mode = interface.xdp.filter(|mode| allowed.contains(mode));
            if here && mode.is_some() && link.update(program.as_fd()).is_ok() {
                tracing::info!(interface = name, mode = ?mode, "program taken over and replaced");
                self.ports.insert(name.to_owned(), Port { index: interface.index, mac, mode, link });
                return Ok(());
            }
            detach(&link, &path)?;
        }
        let mut refused = None;
        for mode in allowed {
            match Link::attach(program.as_fd(), interface.index, *mode) {
                Ok(link) => {
                    bpf::pin(link.as_fd(), &path).map_err(system(format!("cannot pin the link of {name}")))?;
                    tracing::info!(interface = name, mode = ?mode, "program attached");
                    if let Some(error) = refused {
                        tracing::warn!(interface = name, %error, "no native XDP here: the program runs in the stack");
                    }
                    let port = Port { index: interface.index, mac, mode: Some(*mode), link };
                    self.ports.insert(name.to_owned(), port);
                    return Ok(());
                }
                Err(error) => refused = Some(error),
            }
        }
        let error = refused.expect("at least one mode was tried");
        let what = match error.raw_os_error() {
            Some(libc::EBUSY) => format!("another XDP program is at {name} (`ip link show {name}` shows it)"),
            _ => format!("cannot attach to {name}"),
        };
        Err(EngineError::System { what, error })
    }
}
