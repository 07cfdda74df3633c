//! Tables in Markdown.

use std::fmt::Write as _;

use crate::result::{Bottleneck, CaseResult, ContenderResult, Figure, Results, Round, Unit};
use crate::stats::{Ratio, Spread, Verdict};

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if value.abs() < 1000.0 {
        return text;
    }
    // Thousands are set apart.
    let (sign, whole) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}")
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |spread| format!("{} ({}–{})", number(spread.median), number(spread.min), number(spread.max)),
    )
}

/// A ratio, what it means, and how many rounds that took.
pub(super) fn ratio(ratio: &Ratio) -> String {
    let verdict = match (ratio.verdict, ratio.resolved_after) {
        (Verdict::Better, Some(after)) => format!("better, {after} of {} rounds", ratio.rounds),
        (Verdict::Worse, Some(after)) => format!("worse, {after} of {} rounds", ratio.rounds),
        _ => format!("unresolved, {} rounds", ratio.rounds),
    };
    format!("{:.2} ({:.2}–{:.2}; {verdict})", ratio.spread.median, ratio.spread.min, ratio.spread.max)
}

/// The figure of the table's first column, with its unit.
pub(super) fn primary_title(case: &CaseResult) -> String {
    match case.unit {
        Unit::Gib => "CPU s/GiB".to_owned(),
        Unit::Idle => "bytes/connection".to_owned(),
        unit => format!("CPU µs/{}", unit.name()),
    }
}

pub(super) fn throughput_title(case: &CaseResult) -> &'static str {
    match case.unit {
        Unit::Gib => "GiB/s",
        _ => "per second",
    }
}

pub(super) fn mib(bytes: f64) -> String {
    number(bytes / f64::from(1 << 20))
}

/// Faults of all rounds, or none.
pub(super) fn faults(contender: &ContenderResult) -> String {
    let all = contender.faults();
    let unfinished: u64 = contender.rounds.iter().map(|round| round.unfinished).sum();
    let mut parts: Vec<String> = all
        .iter()
        .map(|(fault, times)| format!("{} {times}", serde_json::to_string(fault).unwrap_or_default().replace('"', "")))
        .collect();
    if unfinished > 0 {
        let due: u64 = contender.rounds.iter().map(|round| round.due).sum();
        parts.push(format!("overloaded: {unfinished} of {due} unanswered at the end"));
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// What else has to be known of a contender's rounds: sessions resumed, events that happened.
pub(super) fn remarks(contender: &ContenderResult) -> Option<String> {
    let sum = |of: fn(&Round) -> u64| contender.rounds.iter().map(of).sum::<u64>();
    let (handshakes, resumed, events) =
        (sum(|round| round.handshakes), sum(|round| round.resumed), sum(|round| round.events));
    let mut parts = Vec::new();
    if handshakes > 0 {
        parts.push(format!("{} of {} TLS handshakes resumed", number(resumed as f64), number(handshakes as f64)));
    }
    if events > 0 {
        parts.push(format!("{events} reloads"));
    }
    (!parts.is_empty()).then(|| format!("{}: {}", contender.title, parts.join(", ")))
}

pub(super) fn bottleneck(contender: &ContenderResult) -> String {
    let (proxy, load) = (contender.middle(|round| round.proxy_busy), contender.middle(|round| round.load_busy));
    let side = match contender.bottleneck() {
        Bottleneck::Proxy => "proxy",
        Bottleneck::LoadSide => "load side",
        Bottleneck::Neither => "neither",
        Bottleneck::Disturbed => "DISTURBED BY OTHERS",
    };
    format!("{side} ({:.0} %/{:.0} %)", proxy * 100.0, load * 100.0)
}

/// The table of one case.
pub(crate) fn case(case: &CaseResult) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    let primary = case.primary();
    line(&format!(
        "| {} | {} | ratio to the best other | {} | p50 µs | p99 µs | p99.9 µs | max µs | anonymous MiB | PSS MiB | faults | bottleneck (proxy/load cores busy) |",
        case.title,
        primary_title(case),
        throughput_title(case)
    ));
    line("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for contender in &case.contenders {
        let title = if contender.version.is_empty() {
            contender.title.clone()
        } else {
            format!("{} {}", contender.title, contender.version)
        };
        if let Some(why) = contender.skipped.as_ref().or(contender.disqualified.as_ref()) {
            let how = if contender.skipped.is_some() { "left out" } else { "DISQUALIFIED" };
            line(&format!("| {title} | {how}: {why} | | | | | | | | | | |"));
            continue;
        }
        if contender.rounds.is_empty() {
            continue;
        }
        // What the load side spoilt is shown in brackets.
        let spoilt = contender.is_spoilt();
        let cell = |figure: Figure| {
            let text = contender.spread(figure, case).map_or_else(|| "–".to_owned(), |spread| number(spread.median));
            if spoilt && text != "–" { format!("[{text}]") } else { text }
        };
        let best = case.comparison(&contender.name, primary).and_then(|each| Some((each, each.ratio?)));
        let best = best.map_or_else(|| "–".to_owned(), |(each, found)| format!("{} of {}", ratio(&found), each.peer));
        line(&format!(
            "| {title} | {} | {best} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            spread(contender.spread(primary, case)),
            cell(Figure::Throughput),
            cell(Figure::P50),
            cell(Figure::P99),
            cell(Figure::P999),
            cell(Figure::Max),
            if contender.direct { "–".to_owned() } else { mib(contender.middle(|round| round.anonymous as f64)) },
            if contender.direct { "–".to_owned() } else { mib(contender.middle(|round| round.pss as f64)) },
            faults(contender),
            bottleneck(contender),
        ));
    }
    let remarks: Vec<String> = case.contenders.iter().filter_map(remarks).collect();
    if !remarks.is_empty() {
        line(&format!("\n{}.", remarks.join("; ")));
    }
    for contender in case.contenders.iter().filter(|contender| contender.took_part()) {
        let Some(elder) = case.elder(contender) else { continue };
        if let Some(found) = case.ratio(contender, elder, primary) {
            line(&format!("\n{} is {} of {}.", contender.name, ratio(&found), elder.name));
        }
    }
    out
}

/// What every table needs to be read rightly.
pub(super) const LEGEND: &str = "Median of the rounds (smallest–largest). Ratios are medians of the rounds' own \
ratios; better or worse only where their 95 % interval lies on one side of 1. [In brackets]: the load side was the \
bottleneck, or other processes used the machine, so throughput and latency say nothing about the proxy.";

/// A whole scenario.
pub(crate) fn document(results: &Results) -> String {
    let mut out = String::new();
    let mut add = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a string takes all that is written");
    add(format_args!("# {}\n\n{}\n\n", results.title, results.why));
    add(format_args!(
        "{}, commit {}, {}; proxy on core {:?}, load and origin on {:?}.\n\nRepeat: `{}`\n\n{LEGEND}\n\n",
        results.date,
        results.commit,
        results.machine.describe(),
        results.proxy_cores,
        results.load_cores,
        results.command
    ));
    for each in &results.cases {
        add(format_args!("## {}\n\n{}\nLoad: `{}`\n\n", each.title, case(each), each.load));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        for (value, text) in [
            (0.1234, "0.123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1,234"),
            (1e6, "1,000,000"),
            (-12345.0, "-12,345"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
