//! The plots: CPU bars, latency curves, rounds. Plain SVG, coloured by the page's style sheet.

use std::fmt::Write as _;

use super::markdown::number;
use crate::result::{CaseResult, ContenderResult, Figure, Unit};

/// Units of the drawing; the page scales it.
const WIDTH: f64 = 460.0;

/// Text as it may stand in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The style class of a contender: a colour that it has in all plots of a page.
pub(super) fn class(case: &CaseResult, contender: &ContenderResult) -> String {
    if contender.direct {
        return "c-direct".to_owned();
    }
    let at = case.contenders.iter().filter(|each| !each.direct).position(|each| each.name == contender.name);
    format!("c{}", at.unwrap_or(0) % 8)
}

fn drawn(case: &CaseResult) -> impl Iterator<Item = &ContenderResult> {
    case.contenders.iter().filter(|contender| contender.took_part())
}

struct Drawing(String);

impl Drawing {
    fn new(height: f64, what: &str) -> Self {
        let what = escape(what);
        Self(format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{what}\"><title>{what}</title>"))
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a string takes all that is written");
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        self.add(format_args!("<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", at.0, at.1, escape(text)));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }
}

/// Round numbers from zero that cover a range with about four steps.
fn ticks(max: f64) -> Vec<f64> {
    let raw = (max / 4.0).max(1e-9);
    let power = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|step| step * power).find(|step| *step >= raw).unwrap_or(raw);
    let mut all = vec![0.0];
    while all.last().is_some_and(|last| *last < max * 0.999) {
        all.push(step * all.len() as f64);
    }
    all
}

/// A tick's number: no digits that are zero.
fn tick_text(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1000.0 { format!("{value:.0}") } else { number(value) }
}

/// 1, 2 and 5 of every power of ten within a range of values, by their logarithms.
fn log_ticks(bottom: f64, top: f64) -> Vec<f64> {
    let mut all = Vec::new();
    let mut decade = bottom.floor();
    while decade <= top {
        let steps = [1.0, 2.0, 5.0].map(|step| step * 10.0_f64.powf(decade));
        all.extend(steps.into_iter().filter(|value| (bottom - 1e-9..=top).contains(&value.log10())));
        decade += 1.0;
    }
    all
}

/// Horizontal bars of the primary figure: the median, and the rounds' range as a whisker.
pub(super) fn bars(case: &CaseResult) -> String {
    let figure = case.primary();
    let mut rows: Vec<_> =
        drawn(case).filter_map(|contender| Some((contender, contender.spread(figure, case)?))).collect();
    rows.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let (left, right, pitch) = (128.0, WIDTH - 64.0, 34.0);
    let height = pitch * rows.len() as f64 + 34.0;
    let mut out = Drawing::new(height, &format!("{}: {}", case.title, super::markdown::primary_title(case)));
    let axis = ticks(rows.iter().map(|row| row.1.max).fold(0.0, f64::max));
    let top = axis.last().copied().unwrap_or(1.0);
    let x = |value: f64| left + (right - left) * value / top;
    for &tick in &axis {
        out.line("grid", (x(tick), 4.0), (x(tick), height - 26.0));
        out.text("tick mid", (x(tick), height - 10.0), &tick_text(tick));
    }
    for (at, (contender, spread)) in rows.iter().enumerate() {
        let y = 6.0 + pitch * at as f64;
        let middle = y + pitch / 2.0 - 3.0;
        out.text("label end", (left - 10.0, middle + 4.0), &contender.title);
        out.add(format_args!(
            "<rect class=\"bar {}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\" rx=\"3\"><title>{}: {} ({}–{})</title></rect>",
            class(case, contender),
            middle - 10.0,
            (x(spread.median) - left).max(1.0),
            escape(&contender.title),
            number(spread.median),
            number(spread.min),
            number(spread.max)
        ));
        out.line("whisker", (x(spread.min), middle), (x(spread.max), middle));
        for end in [spread.min, spread.max] {
            out.line("whisker", (x(end), middle - 5.0), (x(end), middle + 5.0));
        }
        out.text("value", (x(spread.max) + 8.0, middle + 4.0), &number(spread.median));
    }
    out.end()
}

/// A time in microseconds with its unit.
fn time(microseconds: f64) -> String {
    let (value, unit) = match microseconds {
        x if x >= 1e6 => (x / 1e6, "s"),
        x if x >= 1e3 => (x / 1e3, "ms"),
        x => (x, "µs"),
    };
    if value.fract().abs() < 1e-9 { format!("{value:.0} {unit}") } else { format!("{value} {unit}") }
}

/// Latency over the share of requests, both on logarithmic axes, so that the tail has room.
pub(super) fn curves(case: &CaseResult) -> Option<String> {
    if matches!(case.unit, Unit::Gib | Unit::Idle) {
        return None;
    }
    // How far into the tail: each nine has the same width.
    let depth = |percent: f64| -(1.0 - percent / 100.0).log10();
    let lines: Vec<(&ContenderResult, Vec<(f64, f64)>)> = drawn(case)
        .map(|contender| {
            let points = contender.curve.iter().filter(|point| point.0 < 100.0 && point.1 > 0.0);
            (contender, points.map(|&(percent, time)| (depth(percent), time)).collect::<Vec<_>>())
        })
        .filter(|line| line.1.len() > 1)
        .collect();
    let all = || lines.iter().flat_map(|line| &line.1);
    let deepest = all().map(|point| point.0).fold(2.0, f64::max);
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|point| point.1).fold(1.0, f64::max);
    if !low.is_finite() {
        return None;
    }
    let (bottom, top) = (low.log10().floor().max(0.0), (high * 1.1).log10());
    let (left, right, upper, lower) = (58.0, WIDTH - 16.0, 12.0, 262.0);
    let x = |depth: f64| left + (right - left) * depth / deepest;
    let y = |time: f64| lower - (lower - upper) * (time.log10() - bottom) / (top - bottom).max(0.1);
    let mut out = Drawing::new(300.0, &format!("{}: latency by percentile", case.title));
    for value in log_ticks(bottom, top) {
        let whole = value.log10().fract().abs() < 1e-9;
        out.line(if whole { "grid strong" } else { "grid" }, (left, y(value)), (right, y(value)));
        if whole || top - bottom < 2.5 {
            out.text("tick end", (left - 8.0, y(value) + 4.0), &time(value));
        }
    }
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999] {
        if depth(percent) <= deepest + 0.01 {
            out.line("grid", (x(depth(percent)), upper), (x(depth(percent)), lower));
            out.text("tick mid", (x(depth(percent)), lower + 18.0), &format!("p{percent}"));
        }
    }
    for (contender, points) in &lines {
        let path: Vec<String> = points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let spoilt = contender.is_spoilt();
        out.add(format_args!(
            "<polyline class=\"curve {}{}\" points=\"{}\"><title>{}</title></polyline>",
            class(case, contender),
            if spoilt { " spoilt" } else { "" },
            path.join(" "),
            escape(&contender.title)
        ));
    }
    out.text("tick mid", (f64::midpoint(left, right), 297.0), "percentile");
    Some(out.end())
}

/// Every round of every contender, on a logarithmic axis: what the medians are made of.
pub(super) fn rounds(case: &CaseResult) -> String {
    let figure = case.primary();
    let of = |contender: &ContenderResult| contender.values(figure, case);
    let all = || drawn(case).flat_map(of).filter(|value| *value > 0.0);
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(1e-9, f64::max));
    let count = drawn(case).map(|contender| contender.rounds.len()).max().unwrap_or(1);
    let (left, right, upper, lower) = (58.0, WIDTH - 16.0, 12.0, 262.0);
    let (bottom, top) = ((low.min(high) * 0.8).log10(), (high * 1.1).log10());
    let x = |round: usize| left + (right - left) * (round as f64 + 0.5) / count as f64;
    let y = |value: f64| lower - (lower - upper) * (value.max(1e-9).log10() - bottom) / (top - bottom).max(0.1);
    let mut out = Drawing::new(300.0, &format!("{}: every round", case.title));
    for value in log_ticks(bottom, top) {
        out.line("grid", (left, y(value)), (right, y(value)));
        out.text("tick end", (left - 8.0, y(value) + 4.0), &tick_text(value));
    }
    for round in 0..count {
        out.text("tick mid", (x(round), lower + 18.0), &(round + 1).to_string());
    }
    out.text("tick mid", (f64::midpoint(left, right), 297.0), "round");
    for contender in drawn(case).filter(|contender| {
        Figure::of(figure, &contender.rounds[0], case.unit, case.connections, contender.direct).is_some()
    }) {
        let values = of(contender);
        let class = class(case, contender);
        let path: Vec<String> =
            values.iter().enumerate().map(|(round, &value)| format!("{:.1},{:.1}", x(round), y(value))).collect();
        out.add(format_args!("<polyline class=\"thread {class}\" points=\"{}\"/>", path.join(" ")));
        for (round, value) in values.iter().enumerate() {
            out.add(format_args!(
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}, round {}: {}</title></circle>",
                x(round),
                y(*value),
                escape(&contender.title),
                round + 1,
                number(*value)
            ));
        }
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_cover_the_range_with_round_numbers() {
        assert_eq!(ticks(10.0), [0.0, 2.5, 5.0, 7.5, 10.0]);
        assert_eq!(ticks(17.0), [0.0, 5.0, 10.0, 15.0, 20.0]);
        for max in [1e-6, 0.3, 1.0, 99.0, 12_345.0, 1e9] {
            let found = ticks(max);
            assert!((3..=6).contains(&found.len()) && found[found.len() - 1] >= max * 0.999, "{max}: {found:?}");
        }
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
        assert_eq!((time(500.0), time(2000.0), time(5e6)), ("500 µs".into(), "2 ms".into(), "5 s".into()));
    }
}
