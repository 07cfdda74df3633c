//! What comes from outside: signals and changed files.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Event;

/// Files are read when they have been left alone for this long.
const QUIET: Duration = Duration::from_millis(150);
/// But after this long at the latest.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turns signals into events. A second request to end does so at once.
pub(super) fn signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let run = move || {
        let mut asked = false;
        for signal in signals.forever() {
            if signal != SIGHUP && std::mem::replace(&mut asked, true) {
                #[allow(clippy::exit, reason = "this is what a second signal asks for")]
                std::process::exit(1);
            }
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(run).map(drop)
}

/// Watches while it is kept.
pub(super) struct Files {
    watcher: notify::RecommendedWatcher,
    followed: HashSet<PathBuf>,
}

impl Files {
    /// Watches these files too, by their directories.
    pub(super) fn follow<'p>(&mut self, files: impl Iterator<Item = &'p PathBuf>) {
        for directory in files.map(|file| parent(file)) {
            if self.followed.contains(directory) {
                continue;
            }
            match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.followed.insert(directory.to_owned())),
                Err(error) => tracing::warn!(directory = %directory.display(), %error, "not watched"),
            }
        }
    }
}

/// Watches files and directories. A file is watched by its directory, because editors and mounted ConfigMaps replace
/// files rather than write to them. Where watching cannot be had, that is said, and SIGHUP still works.
pub(super) fn files(paths: &[PathBuf], events: Sender<Event>) -> Option<Files> {
    if paths.is_empty() {
        return None;
    }
    let (changes, changed) = mpsc::channel();
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // The debouncing thread ends with the process only.
            let _sent = changes.send(());
        }
    };
    let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
        for path in paths {
            let directory = if path.is_dir() { path.as_path() } else { parent(path) };
            let mode = if path.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            watcher.watch(directory, mode)?;
        }
        Ok(watcher)
    });
    let watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files are not watched; SIGHUP and `ringway reload` still work");
            return None;
        }
    };
    let debounce = move || {
        while changed.recv().is_ok() {
            let latest = Instant::now() + PATIENCE;
            while Instant::now() < latest {
                match changed.recv_timeout(QUIET) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if events.send(Event::FilesChanged).is_err() {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(debounce) {
        tracing::warn!(%error, "files are not watched; SIGHUP and `ringway reload` still work");
        return None;
    }
    Some(Files { watcher, followed: HashSet::new() })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
