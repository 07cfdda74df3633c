//! The last good version of every object: the text that it stands in, and what was put in place of its `${file:PATH}`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::inventory::{Inventory, Seen};
use crate::control::read::{Cx, Environment};
use crate::control::source::{FileId, Sources};
use crate::control::yaml::{self, Node};

use super::{File, Met, ObjectKey, objects};

/// What `${file:PATH}` was replaced by.
pub(super) type Texts = Arc<HashMap<PathBuf, String>>;

/// The last good version of every object.
#[derive(Debug, Default)]
pub struct LastGood {
    objects: HashMap<ObjectKey, Good>,
}

/// A version of an object.
#[derive(Debug, Clone)]
struct Good {
    file: Arc<FileText>,
    /// Which of the file's objects it is.
    index: usize,
    texts: Texts,
    seen: Option<Seen>,
}

/// A file as it was.
#[derive(Debug)]
struct FileText {
    name: String,
    text: String,
}

impl LastGood {
    /// What is remembered of files without errors.
    pub(in crate::control) fn of(files: &[File], sources: &Sources) -> Self {
        let mut last_good = Self::default();
        for file in files {
            last_good.add(file, sources, |_| true);
        }
        last_good
    }

    /// Adds objects of a file.
    pub(super) fn add(&mut self, file: &File, sources: &Sources, is_good: impl Fn(&Met) -> bool) {
        let (name, text) = (sources.name(file.id).to_owned(), sources.text(file.id).to_owned());
        let text = Arc::new(FileText { name, text });
        for (index, met) in file.met.iter().enumerate().filter(|(_, met)| is_good(met)) {
            if let Some(key) = &met.key {
                let (texts, seen) = (Arc::clone(&met.texts), met.seen.clone());
                let good = Good { file: Arc::clone(&text), index, texts, seen };
                self.objects.insert(key.clone(), good);
            }
        }
    }

    /// Keeps what another has of these objects, in place of newer versions.
    pub(super) fn keep<'k>(&mut self, keys: impl Iterator<Item = &'k ObjectKey>, last: &Self) {
        self.objects.extend(keys.filter_map(|key| Some((key.clone(), last.objects.get(key)?.clone()))));
    }

    /// Whether there is one of that object.
    pub(super) fn has(&self, key: &ObjectKey) -> bool {
        self.objects.contains_key(key)
    }

    /// Every object of a kind that is read.
    pub(in crate::control) fn inventory(&self) -> Inventory {
        self.objects.iter().filter_map(|(key, good)| Some((key.clone(), good.seen.clone()?))).collect()
    }

    /// Every object, with the name of the file that it stood in.
    pub(super) fn files(&self) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.objects.iter().map(|(key, good)| (key, good.file.name.as_str()))
    }

    /// Parses these objects again, in the order of the files; those that it does not know are left out.
    pub(super) fn versions<'l>(&'l self, wanted: &'l HashSet<ObjectKey>, sources: &mut Sources) -> Vec<Version<'l>> {
        let mut found: Vec<(&ObjectKey, &Good)> =
            wanted.iter().filter_map(|key| Some((key, self.objects.get(key)?))).collect();
        found.sort_by_key(|(_, good)| (&good.file.name, Arc::as_ptr(&good.file), good.index));
        let mut versions = Vec::new();
        for of_file in found.chunk_by(|(_, a), (_, b)| Arc::ptr_eq(&a.file, &b.file)) {
            let file = &of_file[0].1.file;
            let id: FileId = sources.add(format!("{} (last good version)", file.name), file.text.clone());
            let documents = yaml::parse(id, sources.text(id), &mut Vec::new()).nodes;
            let all: Vec<&Node> = documents.iter().flat_map(objects).collect();
            let directory = Path::new(&file.name).parent().unwrap_or_else(|| Path::new(""));
            versions.extend(of_file.iter().filter_map(|(key, good)| {
                let node = (*all.get(good.index)?).clone();
                Some(Version { key, node, directory: directory.to_owned(), texts: &good.texts })
            }));
        }
        versions
    }
}

/// The last good version of an object, parsed.
pub(super) struct Version<'l> {
    pub(super) key: &'l ObjectKey,
    pub(super) node: Node,
    pub(super) directory: PathBuf,
    pub(super) texts: &'l Texts,
}

/// Notes what `${file:PATH}` was replaced by.
pub(in crate::control) struct Remembering<'a> {
    inner: &'a dyn Environment,
    texts: RefCell<HashMap<PathBuf, String>>,
}

impl<'a> Remembering<'a> {
    pub(in crate::control) fn new(inner: &'a dyn Environment) -> Self {
        Self { inner, texts: RefCell::default() }
    }

    /// What was noted since this was asked last.
    pub(super) fn take(&self) -> Texts {
        Arc::new(self.texts.take())
    }
}

impl Environment for Remembering<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        let text = self.inner.file(path)?;
        self.texts.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    }

    fn bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.inner.bytes(path)
    }
}

/// Replaces `${file:PATH}` as it was.
pub(super) struct Remembered<'a> {
    pub(super) inner: &'a dyn Environment,
    pub(super) texts: &'a HashMap<PathBuf, String>,
}

impl Environment for Remembered<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<String> {
        self.texts.get(path).map_or_else(|| self.inner.file(path), |text| Ok(text.clone()))
    }
}

impl Remembered<'_> {
    /// Reads with it.
    pub(super) fn with<T>(&self, directory: &Path, read: impl FnOnce(&Cx<'_>) -> T) -> T {
        read(&Cx::new(self, directory.to_owned()))
    }
}
