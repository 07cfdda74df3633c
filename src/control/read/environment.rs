//! What values in files are replaced from, and which files were read for it.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// What `${...}` in scalars is replaced from.
pub trait Environment {
    /// `${NAME}`.
    fn variable(&self, name: &str) -> Option<String>;
    /// `${file:PATH}`.
    fn file(&self, path: &Path) -> std::io::Result<String>;
    /// A file that objects refer to, which need not be text.
    fn bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.file(path).map(String::into_bytes)
    }
}

/// The process's environment and file system.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// A file that was read, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileSeen {
    /// Its path.
    pub path: PathBuf,
    digest: u64,
}

impl FileSeen {
    fn new(path: &Path, bytes: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self { path: path.to_owned(), digest: hasher.finish() }
    }

    /// Whether it says something else now, or cannot be read any more, or can again.
    pub fn has_changed(&self) -> bool {
        let now = std::fs::read(&self.path).ok();
        Self::new(&self.path, now.as_deref()) != *self
    }
}

/// Notes which files were read, so that they can be watched.
pub struct Recording<'a> {
    inner: &'a dyn Environment,
    files: RefCell<Vec<FileSeen>>,
}

impl std::fmt::Debug for Recording<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<'a> Recording<'a> {
    /// Around an environment.
    pub fn new(inner: &'a dyn Environment) -> Self {
        Self { inner, files: RefCell::default() }
    }

    /// The files, each once, in order.
    pub fn files(self) -> Vec<FileSeen> {
        let mut files = self.files.into_inner();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn note(&self, path: &Path, bytes: Option<&[u8]>) {
        self.files.borrow_mut().push(FileSeen::new(path, bytes));
    }
}

impl Environment for Recording<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        let read = self.inner.file(path);
        self.note(path, read.as_ref().ok().map(String::as_bytes));
        read
    }

    fn bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let read = self.inner.bytes(path);
        self.note(path, read.as_ref().ok().map(Vec::as_slice));
        read
    }
}
