//! Secrets of every connection to a file, for decrypting captures (the NSS key log format). Only by an explicit flag.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::KeyLog;

static LOG: OnceLock<Arc<KeyFile>> = OnceLock::new();

/// Opens the file, readable by its owner only; configurations made afterwards write to it.
pub fn enable(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // Called once, at the start; a second call would change nothing.
    let _first = LOG.set(Arc::new(KeyFile(Mutex::new(file))));
    Ok(())
}

/// The log, if there is one.
pub(super) fn current() -> Option<Arc<dyn KeyLog>> {
    LOG.get().map(|log| Arc::clone(log) as Arc<dyn KeyLog>)
}

#[derive(Debug)]
struct KeyFile(Mutex<File>);

impl KeyLog for KeyFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // What cannot be written is not worth a connection.
        let _written = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
