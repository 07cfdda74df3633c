//! The table of results in a README, between two comments, written anew from saved results.

use std::fmt::Write as _;
use std::path::Path;

use super::markdown::{number, primary_title};
use crate::failure::{Failure, Result};
use crate::result::{CaseResult, ContenderResult, Results};
use crate::stats::Verdict;

const BEGIN: &str = "<!-- results: written by bench-harness report --readme -->";
const END: &str = "<!-- end of results -->";

/// The contender that the README is about: the table's last column compares it with the best of the others.
const OURS: &str = "ringway";

fn cell(case: &CaseResult, name: &str) -> String {
    let found = case.find(name).filter(|contender| contender.took_part());
    let spread = found.and_then(|contender| contender.spread(case.primary(), case));
    spread.map_or_else(|| "–".to_owned(), |spread| number(spread.median))
}

fn verdict(case: &CaseResult) -> String {
    let found = case.comparison(OURS, case.primary()).and_then(|each| Some((each, each.ratio?)));
    let Some((comparison, ratio)) = found else { return "–".to_owned() };
    let word = match (ratio.verdict, ratio.resolved_after) {
        (Verdict::Better, Some(after)) => format!("better, {after} of {} rounds", ratio.rounds),
        (Verdict::Worse, Some(after)) => format!("worse, {after} of {} rounds", ratio.rounds),
        _ => format!("unresolved, {} rounds", ratio.rounds),
    };
    let spread = ratio.spread;
    format!("{:.2} of {} ({:.2}–{:.2}; {word})", spread.median, comparison.peer, spread.min, spread.max)
}

/// The table of some results, with everything that it needs to be judged.
fn table(all: &[Results], directory: &str) -> Result<String> {
    let first = all.first().ok_or_else(|| Failure::new("no results"))?;
    let mut proxies: Vec<&ContenderResult> = Vec::new();
    for contender in all.iter().flat_map(|results| &results.cases).flat_map(|case| &case.contenders) {
        let new = contender.took_part() && !contender.direct && !proxies.iter().any(|each| each.name == contender.name);
        if new {
            proxies.push(contender);
        }
    }
    // Ours first; the others by name.
    proxies.sort_by_key(|contender| (contender.name != OURS, contender.name.clone()));
    let versions: Vec<String> = proxies.iter().map(|each| format!("{} {}", each.title, each.version)).collect();
    let mut out = String::new();
    let mut add = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a string takes all that is written");
    add(format_args!(
        "CPU time per request of the whole process, one core for the proxy, on {} at commit {}: {}. Loopback; load and \
         origin on another core. {}. Medians of the rounds; better or worse only where the rounds agree (95 %). Throughput, \
         latency and memory of every contender: [{directory}]({directory}). Repeat: `scripts/bench`.\n\n",
        first.date.split('T').next().unwrap_or_default(),
        first.commit,
        first.machine.describe(),
        versions.join(", ")
    ));
    add(format_args!("| | | |"));
    for proxy in &proxies {
        add(format_args!(" {} |", proxy.title));
    }
    add(format_args!(" Ringway beside the best of the others |\n|---|---|---|{}---|\n", "---|".repeat(proxies.len())));
    for (results, case) in all.iter().flat_map(|results| results.cases.iter().map(move |case| (results, case))) {
        if case.find(OURS).is_none_or(|ours| !ours.took_part()) {
            continue;
        }
        // A scenario of one case without a name has its own.
        let title = if case.title.starts_with(&results.title) { "" } else { case.title.as_str() };
        add(format_args!("| {} | {title} | {} |", results.title, primary_title(case)));
        for proxy in &proxies {
            add(format_args!(" {} |", cell(case, &proxy.name)));
        }
        add(format_args!(" {} |\n", verdict(case)));
    }
    Ok(out)
}

/// Puts the table into a document.
fn replace(document: &str, table: &str) -> Result<String> {
    let find = || {
        let (before, rest) = document.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    };
    let (before, after) =
        find().ok_or_else(|| Failure::new(format!("the document has no place for the table: {BEGIN} ... {END}")))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The document with the results of a directory in it.
pub(super) fn update(document: &str, all: &[Results], directory: &Path) -> Result<String> {
    replace(document, &table(all, &directory.display().to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replace(&document, "new\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replace(&once, "new\n").unwrap(), once);
        assert!(replace("a b", "new").is_err());
    }
}
