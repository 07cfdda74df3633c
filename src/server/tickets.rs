//! The keys of session tickets: made or read here, and handed to every worker.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::tls::{PERIOD, TicketRing};

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    /// Of this process alone.
    Random {
        /// When the next one is due.
        rotate: Instant,
    },
    /// Shared by those who have the file, and rotated by whoever writes it.
    File(PathBuf),
}

/// The ring in use.
#[derive(Debug)]
pub(super) struct Tickets {
    source: Source,
    text: String,
    ring: Arc<TicketRing>,
}

impl Tickets {
    /// Random keys, or those of a file.
    pub(super) fn new(file: Option<PathBuf>) -> Result<Self, String> {
        let Some(path) = file else {
            let rotate = Instant::now() + PERIOD;
            let ring = Arc::new(TicketRing::random());
            return Ok(Self { source: Source::Random { rotate }, text: String::new(), ring });
        };
        let unusable = |error: &dyn std::fmt::Display| format!("ticket keys in {}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error: io::Error| unusable(&error))?;
        let ring = Arc::new(TicketRing::parse(&text).map_err(|error| unusable(&error))?);
        Ok(Self { source: Source::File(path), text, ring })
    }

    pub(super) fn ring(&self) -> Arc<TicketRing> {
        Arc::clone(&self.ring)
    }

    /// The file to watch.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match &self.source {
            Source::File(path) => Some(path),
            Source::Random { .. } => None,
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.source {
            Source::Random { rotate } => Some(rotate),
            Source::File(_) => None,
        }
    }

    /// A new ring, if the keys have changed: their time has come, or the file says something else. A file that cannot
    /// be used leaves the keys that are in use.
    pub(super) fn refresh(&mut self) -> Option<Arc<TicketRing>> {
        match &mut self.source {
            Source::Random { rotate } if Instant::now() >= *rotate => {
                *rotate += PERIOD;
                self.ring = Arc::new(self.ring.rotated());
            }
            Source::Random { .. } => return None,
            Source::File(path) => {
                let text = std::fs::read_to_string(&*path).unwrap_or_default();
                if text == self.text {
                    return None;
                }
                match TicketRing::parse(&text) {
                    Ok(ring) => self.ring = Arc::new(ring),
                    Err(error) => {
                        tracing::error!(file = %path.display(), %error, "ticket keys not changed");
                        return None;
                    }
                }
                self.text = text;
            }
        }
        tracing::info!("ticket keys changed");
        Some(self.ring())
    }
}
