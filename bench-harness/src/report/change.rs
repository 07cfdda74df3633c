//! Two results of the same scenario: before a change and after it.
//!
//! The runs have no rounds in common, so a verdict needs that the intervals of both do not touch. And the machine may have
//! changed as well: contenders that are the same version in both runs are the control. Where the figure of any of them has
//! moved, figures are divided, round by round, by the controls' (their geometric mean) before they are judged.

use std::fmt::Write as _;

use super::markdown::number;
use crate::failure::{Failure, Result};
use crate::result::{CaseResult, ContenderResult, Figure, Results};
use crate::stats::{Change, Verdict};

const SHOWN: [Figure; 5] = [Figure::Cpu, Figure::PerConnection, Figure::Throughput, Figure::P99, Figure::P999];

fn name(figure: Figure) -> &'static str {
    match figure {
        Figure::Cpu => "CPU",
        Figure::PerConnection => "bytes/connection",
        Figure::Throughput => "throughput",
        Figure::P99 => "p99",
        Figure::P999 => "p99.9",
        _ => "other",
    }
}

/// A contender's figure in both runs, as they are and divided by the controls.
#[derive(Debug)]
struct Row {
    plain: Change,
    controlled: Option<Change>,
    /// Controls that moved.
    moved: Vec<String>,
}

/// A contender before and after.
type Pair<'a> = (&'a ContenderResult, &'a ContenderResult);

/// The other proxies that are the same version in both. A contender's own older build is none: it may share the change.
fn controls<'a>(ours: &ContenderResult, before: &'a CaseResult, after: &'a CaseResult) -> Vec<Pair<'a>> {
    let candidates = before.contenders.iter().filter(|each| each.took_part() && !each.direct);
    candidates
        .filter(|was| was.family != ours.family && !was.version.is_empty())
        .filter_map(|was| {
            let is = after.find(&was.name)?;
            (is.took_part() && is.version == was.version).then_some((was, is))
        })
        .collect()
}

/// Each round's figure divided by the geometric mean of the controls' in the same round.
fn divided(ours: &ContenderResult, controls: &[&ContenderResult], figure: Figure, case: &CaseResult) -> Vec<f64> {
    let others: Vec<Vec<f64>> = controls.iter().map(|control| control.values(figure, case)).collect();
    let values = ours.values(figure, case).into_iter().enumerate();
    values
        .filter_map(|(round, value)| {
            let logarithms: Option<f64> = others.iter().map(|values| values.get(round).map(|value| value.ln())).sum();
            Some(value / (logarithms? / others.len() as f64).exp())
        })
        .collect()
}

fn row(ours: Pair<'_>, figure: Figure, before: &CaseResult, after: &CaseResult) -> Option<Row> {
    let (was, is) = ours;
    let change = |was: &[f64], is: &[f64]| Change::of(was, is, figure.goal());
    let plain = change(&was.values(figure, before), &is.values(figure, after))?;
    let controls = controls(was, before, after);
    let moved: Vec<String> = controls
        .iter()
        .filter_map(|(was, is)| {
            let change = change(&was.values(figure, before), &is.values(figure, after))?;
            (change.verdict != Verdict::Unresolved).then(|| format!("{} {:.2}", was.name, change.ratio))
        })
        .collect();
    let (then, now): (Vec<_>, Vec<_>) = controls.into_iter().unzip();
    let controlled = (!moved.is_empty())
        .then(|| change(&divided(was, &then, figure, before), &divided(is, &now, figure, after)))
        .flatten();
    Some(Row { plain, controlled, moved })
}

/// What changed, in Markdown.
pub(crate) fn document(before: &Results, after: &Results) -> Result<String> {
    if before.scenario != after.scenario {
        return Err(Failure::new(format!("{} and {} are different scenarios", before.scenario, after.scenario)));
    }
    let mut out = String::new();
    let mut add = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a string takes all that is written");
    add(format_args!("# {}: {} -> {}\n\n", after.title, before.commit, after.commit));
    add(format_args!("Before: {}, {}\n", before.date, before.machine.describe()));
    add(format_args!("After: {}, {}\n\n", after.date, after.machine.describe()));
    if before.machine != after.machine {
        add(format_args!("THE MACHINES DIFFER: only ratios to other contenders can be compared.\n\n"));
    }
    add(format_args!(
        "| case | contender | figure | before | after | ratio | verdict |\n|---|---|---|---|---|---|---|\n"
    ));
    let mut compared = 0;
    for is in &after.cases {
        let Some(was) = before.cases.iter().find(|case| case.name == is.name) else { continue };
        for contender in is.contenders.iter().filter(|contender| contender.took_part()) {
            let Some(earlier) = was.find(&contender.name).filter(|earlier| earlier.took_part()) else { continue };
            for figure in SHOWN {
                let Some(row) = row((earlier, contender), figure, was, is) else { continue };
                compared += 1;
                let judged = row.controlled.as_ref().unwrap_or(&row.plain);
                let verdict = match judged.verdict {
                    Verdict::Better => "better",
                    Verdict::Worse => "worse",
                    Verdict::Unresolved => "unresolved",
                };
                let note = if row.moved.is_empty() {
                    String::new()
                } else {
                    let moved = row.moved.join(", ");
                    format!(" ({:.3} relative to the others; the machine moved: {moved})", judged.ratio)
                };
                add(format_args!(
                    "| {} | {} | {} | {} | {} | {:.3} | {verdict}{note} |\n",
                    is.title,
                    contender.name,
                    name(figure),
                    number(row.plain.before.median),
                    number(row.plain.after.median),
                    row.plain.ratio,
                ));
            }
        }
    }
    if compared == 0 {
        return Err(Failure::new("the two results have no case with a common contender"));
    }
    Ok(out)
}
