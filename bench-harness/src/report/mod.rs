//! Results for people: Markdown and HTML.

mod change;
mod html;
pub(crate) mod markdown;
mod readme;
mod svg;

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
    /// Writes the table of the results into a document, between its two marks.
    #[arg(long, value_name = "FILE", requires = "paths")]
    readme: Option<PathBuf>,
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
    let mut all = Vec::new();
    for path in &options.paths {
        for file in files(path)? {
            let results = Results::read(&file)?;
            pages(&results, file.parent().unwrap_or_else(|| Path::new(".")))?;
            all.push(results);
        }
    }
    if let Some(document) = &options.readme {
        let what = || format!("cannot update {}", document.display());
        let text = std::fs::read_to_string(document).context(what)?;
        let text = readme::update(&text, &all, options.paths.first().map_or_else(|| Path::new(""), PathBuf::as_path))?;
        std::fs::write(document, text).context(what)?;
    }
    Ok(())
}

/// Writes a scenario's JSON, HTML and Markdown.
pub(crate) fn save(results: &Results, directory: &Path) -> Result<()> {
    results.write(&directory.join(format!("{}.json", results.scenario)))?;
    pages(results, directory)
}

fn pages(results: &Results, directory: &Path) -> Result<()> {
    for (ending, text) in [("md", markdown::document(results)), ("html", html::page(results))] {
        let path = directory.join(format!("{}.{ending}", results.scenario));
        std::fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
