//! One page per scenario, complete in itself: styles and plots inside, no script, nothing loaded from elsewhere.

use std::fmt::Write as _;

use super::markdown::{LEGEND, bottleneck, faults, mib, number, primary_title, remarks, throughput_title};
use super::svg::{self, class, escape};
use crate::result::{Bottleneck, CaseResult, ContenderResult, Figure, Results, Unit};
use crate::stats::{Ratio, Verdict};

const STYLE: &str = include_str!("style.css");

fn chip(ratio: &Ratio) -> String {
    let (class, word) = match ratio.verdict {
        Verdict::Better => ("better", "better"),
        Verdict::Worse => ("worse", "worse"),
        Verdict::Unresolved => ("open", "unresolved"),
    };
    let rounds = match ratio.resolved_after {
        Some(after) => format!("from round {after} of {}", ratio.rounds),
        None => format!("{} rounds", ratio.rounds),
    };
    format!(
        "<span class=\"ratio\">{:.2}</span> <span class=\"muted\">({:.2}–{:.2})</span> <span class=\"chip {class}\" title=\"{rounds}\">{word}</span>",
        ratio.spread.median, ratio.spread.min, ratio.spread.max
    )
}

fn row(case: &CaseResult, contender: &ContenderResult) -> String {
    let name = format!(
        "<th scope=\"row\"><span class=\"key {}\"></span>{} <span class=\"muted\">{}</span></th>",
        class(case, contender),
        escape(&contender.title),
        escape(&contender.version)
    );
    if let Some(why) = contender.skipped.as_ref().or(contender.disqualified.as_ref()) {
        let how = if contender.skipped.is_some() { "left out" } else { "disqualified" };
        return format!("<tr class=\"absent\">{name}<td colspan=\"10\">{how}: {}</td></tr>", escape(why));
    }
    if contender.rounds.is_empty() {
        return String::new();
    }
    let spoilt = contender.is_spoilt();
    let cell = |figure: Figure| {
        let text = contender.spread(figure, case).map_or_else(|| "–".to_owned(), |spread| number(spread.median));
        let marked = spoilt && text != "–";
        format!(
            "<td{}>{text}</td>",
            if marked { " class=\"spoilt\" title=\"says nothing about the proxy: see the last column\"" } else { "" }
        )
    };
    let primary = contender.spread(case.primary(), case).map_or_else(
        || "<td>–</td>".to_owned(),
        |spread| {
            format!(
                "<td><b>{}</b> <span class=\"muted\">({}–{})</span></td>",
                number(spread.median),
                number(spread.min),
                number(spread.max)
            )
        },
    );
    let best = case.comparison(&contender.name, case.primary()).and_then(|each| Some((each, each.ratio?)));
    let best = best.map_or_else(
        || "<td>–</td>".to_owned(),
        |(each, ratio)| format!("<td>{} <span class=\"muted\">of {}</span></td>", chip(&ratio), escape(&each.peer)),
    );
    let memory =
        |bytes: f64| if contender.direct { "<td>–</td>".to_owned() } else { format!("<td>{}</td>", mib(bytes)) };
    let faults = faults(contender);
    let faulty = if faults == "none" { "" } else { " class=\"faults\"" };
    format!(
        "<tr>{name}{primary}{best}{}{}{}{}{}{}{}<td{faulty}>{}</td><td>{}</td></tr>",
        cell(Figure::Throughput),
        cell(Figure::P50),
        cell(Figure::P99),
        cell(Figure::P999),
        cell(Figure::Max),
        memory(contender.middle(|round| round.anonymous as f64)),
        memory(contender.middle(|round| round.pss as f64)),
        escape(&faults),
        escape(&bottleneck(contender)),
    )
}

/// The sentence that says what a case found, whoever it is about.
fn finding(case: &CaseResult) -> String {
    let figure = case.primary();
    let proxies = case.contenders.iter().filter(|contender| contender.took_part() && !contender.direct);
    let best = proxies
        .filter_map(|contender| Some((contender, contender.spread(figure, case)?.median)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let Some((best, value)) = best else { return String::new() };
    let unit = match case.unit {
        Unit::Gib => "s of CPU per GiB".to_owned(),
        Unit::Idle => "bytes per idle connection".to_owned(),
        unit => format!("µs of CPU per {}", unit.name()),
    };
    let next = case.comparison(&best.name, figure).and_then(|each| Some((each, each.ratio?)));
    let next = next.map_or_else(String::new, |(each, ratio)| {
        format!(
            ": {:.2} of {} ({})",
            ratio.spread.median,
            escape(&each.peer),
            match ratio.verdict {
                Verdict::Better => "the rounds agree",
                _ => "unresolved: the rounds do not tell them apart",
            }
        )
    });
    format!("<p class=\"finding\">Lowest: <b>{}</b> with {} {unit}{next}.</p>", escape(&best.title), number(value))
}

fn section(case: &CaseResult) -> String {
    let mut out = format!("<section id=\"{0}\"><h2>{1}</h2>", escape(&case.name), escape(&case.title));
    out.push_str(&finding(case));
    out.push_str("<ul class=\"legend\">");
    for contender in case.contenders.iter().filter(|contender| contender.took_part()) {
        let mark = match contender.bottleneck() {
            Bottleneck::LoadSide => " <span class=\"muted\">(load side was the bottleneck)</span>",
            Bottleneck::Disturbed => " <span class=\"muted\">(others used the machine)</span>",
            _ => "",
        };
        let item = (class(case, contender), escape(&contender.title));
        write!(out, "<li><span class=\"key {}\"></span>{}{mark}</li>", item.0, item.1).expect("a string takes all");
    }
    out.push_str("</ul><div class=\"plots\">");
    let mut plot = |title: &str, drawing: &str| {
        write!(out, "<figure><figcaption>{title}</figcaption>{drawing}</figure>").expect("a string takes all");
    };
    let title = primary_title(case);
    plot(&format!("{title}: median, smallest and largest round"), &svg::bars(case));
    if let Some(curves) = svg::curves(case) {
        let open = if case.rate.is_some() { ", from the intended start" } else { "" };
        plot(&format!("Latency by percentile{open}"), &curves);
    }
    plot(&format!("{title}: every round"), &svg::rounds(case));
    out.push_str("</div><div class=\"scroll\"><table><thead><tr><th>contender</th>");
    let heads = [&title, "ratio to the best other", throughput_title(case), "p50 µs", "p99 µs", "p99.9 µs", "max µs"];
    for head in heads.into_iter().chain(["anonymous MiB", "PSS MiB", "faults", "bottleneck (busy: proxy/load)"]) {
        write!(out, "<th>{head}</th>").expect("a string takes all");
    }
    out.push_str("</tr></thead><tbody>");
    out.extend(case.contenders.iter().map(|contender| row(case, contender)));
    let remarks: Vec<String> = case.contenders.iter().filter_map(remarks).collect();
    let remarks = if remarks.is_empty() { String::new() } else { escape(&format!("{}. ", remarks.join("; "))) };
    let rate = case.rate.map_or_else(String::new, |rate| format!("{} requests/s offered. ", number(rate)));
    write!(
        out,
        "</tbody></table></div><p class=\"muted\">{remarks}{rate}Rounds of {} s. Load: <code>{}</code></p></section>",
        case.seconds,
        escape(&case.load)
    )
    .expect("a string takes all");
    out
}

/// The page of a scenario.
pub(super) fn page(results: &Results) -> String {
    let links: String = results
        .cases
        .iter()
        .map(|case| format!("<a href=\"#{}\">{}</a>", escape(&case.name), escape(&case.title)))
        .collect();
    let sections: String = results.cases.iter().map(section).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head><body>\
         <header><h1>{title}</h1><p>{why}</p><dl><div><dt>Run</dt><dd>{date}, commit {commit}</dd></div>\
         <div><dt>Machine</dt><dd>{machine}</dd></div>\
         <div><dt>Cores</dt><dd>proxy on {proxy:?}, load and origin on {load:?}, loopback</dd></div>\
         <div><dt>Repeat</dt><dd><code>{command}</code></dd></div></dl><nav>{links}</nav></header>\
         <main>{sections}</main><footer><p>{legend}</p></footer></body></html>\n",
        title = escape(&results.title),
        why = escape(&results.why),
        date = escape(&results.date),
        commit = escape(&results.commit),
        machine = escape(&results.machine.describe()),
        proxy = results.proxy_cores,
        load = results.load_cores,
        command = escape(&results.command),
        legend = escape(LEGEND),
    )
}
