//! The keys of session tokens: read or derived here, and handed to every worker.

use std::path::PathBuf;
use std::sync::Arc;

use crate::session::SessionKeys;

/// The keys in use.
#[derive(Debug)]
pub(super) struct Sessions {
    /// The file that they come from, and its text.
    file: Option<(PathBuf, String)>,
    keys: Arc<SessionKeys>,
    /// Neither a file nor the machine has one.
    random: bool,
}

impl Sessions {
    /// Those of a file, or else this machine's, or else one of this process.
    pub(super) fn new(file: Option<PathBuf>) -> Result<Self, String> {
        if let Some(path) = file {
            let (text, keys) = SessionKeys::read(&path)?;
            return Ok(Self { file: Some((path, text)), keys: Arc::new(keys), random: false });
        }
        let of_machine = SessionKeys::of_machine();
        let random = of_machine.is_none();
        Ok(Self { file: None, keys: Arc::new(of_machine.unwrap_or_else(SessionKeys::random)), random })
    }

    pub(super) fn keys(&self) -> &Arc<SessionKeys> {
        &self.keys
    }

    /// Says once that sessions end with this process, if they do.
    pub(super) fn warn(&mut self) {
        if std::mem::take(&mut self.random) {
            tracing::warn!("neither --session-keys nor /etc/machine-id gives a key: sessions end with this process");
        }
    }

    /// The file to watch.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref().map(|(path, _)| path)
    }

    /// Other keys, if the file says something else. One that cannot be used leaves the keys that are in use.
    pub(super) fn refresh(&mut self) -> Option<&Arc<SessionKeys>> {
        let (path, known) = self.file.as_mut()?;
        match SessionKeys::read(path) {
            Ok((text, _)) if text == *known => return None,
            Ok((text, keys)) => (*known, self.keys) = (text, Arc::new(keys)),
            Err(error) => {
                tracing::error!(%error, "session keys not changed");
                return None;
            }
        }
        tracing::info!("session keys changed");
        Some(&self.keys)
    }
}
