//! What comes from outside: signals and changed files.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Event;

/// Files are read when they have been left alone for this long.
const QUIET: Duration = Duration::from_millis(150);
/// But after this long at the latest.
const PATIENCE: Duration = Duration::from_secs(2);
/// Directories below one that was given, at most.
const DEPTH: usize = 16;

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

/// Directories that are watched.
pub(super) struct Files {
    inotify: Arc<OwnedFd>,
    followed: HashSet<PathBuf>,
}

impl Files {
    /// Watches these files too, by their directories.
    pub(super) fn follow<'p>(&mut self, files: impl Iterator<Item = &'p PathBuf>) {
        for directory in files.map(|file| parent(file)) {
            if self.followed.contains(directory) {
                continue;
            }
            match watch(&self.inotify, directory) {
                Ok(()) => drop(self.followed.insert(directory.to_owned())),
                Err(error) => tracing::warn!(directory = %directory.display(), %error, "not watched"),
            }
        }
    }
}

/// Watches files and directories, until the process ends. A file is watched by its directory, because editors and
/// mounted ConfigMaps replace files rather than write to them. Where watching cannot be had, that is said, and SIGHUP
/// still works.
pub(super) fn files(paths: &[PathBuf], events: Sender<Event>) -> Option<Files> {
    if paths.is_empty() {
        return None;
    }
    match begin(paths, events) {
        Ok(files) => Some(files),
        Err(error) => {
            tracing::warn!(%error, "files are not watched; SIGHUP and `ringway reload` still work");
            None
        }
    }
}

fn begin(paths: &[PathBuf], events: Sender<Event>) -> io::Result<Files> {
    let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
    let (trees, files): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| path.is_dir());
    for file in &files {
        watch(&inotify, parent(file))?;
    }
    for tree in &trees {
        watch(&inotify, tree)?;
        watch_below(&inotify, tree, DEPTH);
    }
    let watched = Arc::clone(&inotify);
    let run = move || {
        if let Err(error) = forward(&watched, &trees, &events) {
            tracing::error!(%error, "files are no longer watched; SIGHUP and `ringway reload` still work");
        }
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(run)?;
    Ok(Files { inotify, followed: HashSet::new() })
}

/// Tells of changes until nobody listens any more.
fn forward(inotify: &OwnedFd, trees: &[PathBuf], events: &Sender<Event>) -> io::Result<()> {
    loop {
        if !wait(inotify, None)? {
            continue;
        }
        let latest = Instant::now() + PATIENCE;
        while Instant::now() < latest && wait(inotify, Some(QUIET))? {}
        for tree in trees {
            watch_below(inotify, tree, DEPTH);
        }
        if events.send(Event::FilesChanged).is_err() {
            return Ok(());
        }
    }
}

/// Watches what changes a directory's files or their names. Not that they are opened or read, nor each write: a
/// directory may hold files of others, and somebody who reads them thousands of times a second must not wake us.
fn watch(inotify: &OwnedFd, directory: &Path) -> io::Result<()> {
    let changes = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(inotify, directory, changes)?;
    Ok(())
}

/// Watches the directories below one. One that is watched already stays so; one that cannot be is left out.
fn watch_below(inotify: &OwnedFd, directory: &Path, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && watch(inotify, &entry.path()).is_ok() {
            watch_below(inotify, &entry.path(), depth);
        }
    }
}

/// Waits for events and takes all that there are; whether any of them is a change.
fn wait(inotify: &OwnedFd, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut [PollFd::new(inotify, PollFlags::IN)], limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut space);
    let mut changed = false;
    loop {
        match reader.next() {
            // A watch ends when its directory does, which was an event of its own.
            Ok(event) => changed |= !event.events().contains(ReadFlags::IGNORED),
            Err(Errno::AGAIN) => return Ok(changed),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
