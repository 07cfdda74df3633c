//! What ends a command before it has a result.

/// One clear line for whoever started the command.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub(crate) struct Failure {
    line: String,
    /// The exit code: 2 where the command could not do its work, 1 where it did and the outcome is bad.
    pub(crate) code: u8,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The command could not be carried out: wrong arguments, a port in use, a program that does not start.
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 2 }
    }

    /// The command was carried out, and what it found is bad: wrong answers, lost requests.
    pub(crate) fn bad_outcome(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 1 }
    }

    /// Ended by a signal.
    pub(crate) fn interrupted() -> Self {
        Self { line: "interrupted".to_owned(), code: 130 }
    }
}

/// Says what was being done when an operation failed.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what())))
    }
}
