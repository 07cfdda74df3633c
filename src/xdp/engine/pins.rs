//! Files in bpffs that keep things alive without a process.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::bpf::Link;
use crate::xdp::guard;

use super::{EngineError, system};

/// Ends what processes before may have left: programs, pins and the guard rule.
pub fn detach_all(directory: &Path) -> Result<(), EngineError> {
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with("link-") {
                    let link = Link::open(&path).map_err(system(format!("cannot open {}", path.display())))?;
                    detach(&link, &path)?;
                }
            }
            remove_directory(directory).map_err(system("cannot remove the pins"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(EngineError::System { what: "cannot list the pins".into(), error }),
    }
    guard::remove().map_err(system("cannot remove the guard rule"))
}

/// Where the link of an interface's program is pinned. A bpffs keeps names with a dot for itself.
pub fn link_path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("link-{}", interface.replace('.', "_")))
}

pub(super) fn detach(link: &Link, path: &Path) -> Result<(), EngineError> {
    match link.detach() {
        // The interface has gone, and the program with it.
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
            return Err(EngineError::System { what: "cannot detach a program".into(), error });
        }
        _ => {}
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::System { what: format!("cannot remove {}", path.display()), error })
        }
        _ => Ok(()),
    }
}

pub(super) fn remove_directory(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { remove_directory(&path)? } else { std::fs::remove_file(path)? }
    }
    std::fs::remove_dir(directory)
}

/// The directory of the pins, in a bpffs, which is mounted at its usual place if it is not there yet.
pub(super) fn prepare_directory(directory: &Path) -> Result<(), EngineError> {
    const BPF_MAGIC: u64 = 0xcafe_4a11;
    let usual = Path::new("/sys/fs/bpf");
    let is_bpffs = |path: &Path| rustix::fs::statfs(path).is_ok_and(|found| found.f_type.cast_unsigned() == BPF_MAGIC);
    if directory.starts_with(usual) && !is_bpffs(usual) {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("bpf", usual, "bpf", flags, None)
            .map_err(io::Error::from)
            .map_err(system("cannot mount bpffs (`mount -t bpf bpf /sys/fs/bpf` does)"))?;
    }
    std::fs::create_dir_all(directory).map_err(system(format!("cannot make {}", directory.display())))?;
    if !is_bpffs(directory) {
        let message = format!("{} is not in a bpffs: `mount -t bpf bpf {0}` makes it one", directory.display());
        return Err(EngineError::Missing(message));
    }
    Ok(())
}
