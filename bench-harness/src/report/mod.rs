//! Results for people: Markdown and HTML.

mod change;
pub(crate) mod markdown;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Failure, Result};
use crate::result::Results;

/// The `report` command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Results (JSON), or directories of them. HTML and Markdown are written beside each.
    #[arg(value_name = "PATH", required_unless_present = "before")]
    paths: Vec<PathBuf>,
    /// Compares two results of one scenario instead, before and after a change, and prints what changed.
    #[arg(long, value_name = "FILE", requires = "after")]
    before: Option<PathBuf>,
    /// The other of the two.
    #[arg(long, value_name = "FILE", requires = "before")]
    after: Option<PathBuf>,
}

/// Result files of a path: itself, or all of a directory by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).context(|| format!("cannot read {}", path.display()))?;
    let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(json).collect();
    all.sort();
    if all.is_empty() { Err(Failure::new(format!("{} holds no results", path.display()))) } else { Ok(all) }
}

/// Carries it out.
pub(crate) fn command(options: &Options) -> Result<()> {
    if let (Some(before), Some(after)) = (&options.before, &options.after) {
        let text = change::document(&Results::read(before)?, &Results::read(after)?)?;
        return std::io::stdout().write_all(text.as_bytes()).context(|| "cannot print".to_owned());
    }
    for path in &options.paths {
        for file in files(path)? {
            pages(&Results::read(&file)?, file.parent().unwrap_or_else(|| Path::new(".")))?;
        }
    }
    Ok(())
}

/// Writes a scenario's JSON, HTML and Markdown.
pub(crate) fn save(results: &Results, directory: &Path) -> Result<()> {
    results.write(&directory.join(format!("{}.json", results.scenario)))?;
    pages(results, directory)
}

fn pages(results: &Results, directory: &Path) -> Result<()> {
    let path = directory.join(format!("{}.md", results.scenario));
    std::fs::write(&path, markdown::document(results)).context(|| format!("cannot write {}", path.display()))
}
