//! Charts as inline SVG: bars with intervals, and distributions of latencies. Colours come from the page's own style.

use super::anatomy::{self, MEANWHILE, REQUEST};
use super::{Case, Stage, Summary, html::escaped};
use crate::report::readable;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// Where names end and bars begin.
const LEFT: f64 = 170.0;
/// Room for the number behind a bar.
const RIGHT: f64 = 90.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
/// Colours that the page's style has; more candidates begin anew.
const COLOURS: usize = 8;

/// A candidate's number, name, and quantiles with times.
type Line<'a> = (usize, &'a str, &'a [(f64, f64)]);

/// The class of a candidate's colour.
pub fn colour(candidate: usize) -> String {
    format!("c{}", candidate % COLOURS)
}

/// A bar for each candidate, from zero to the median, with the interval. Empty where the figure was not measured.
pub fn bars(case: &Case, figure: &str) -> String {
    let found: Vec<(usize, &str, &Summary)> = case
        .candidates
        .iter()
        .enumerate()
        .filter_map(|(number, candidate)| {
            let summary = candidate.figures.iter().find(|summary| summary.name == figure)?;
            Some((number, candidate.name.as_str(), summary))
        })
        .collect();
    let top = |(_, _, summary): &(usize, &str, &Summary)| summary.interval.map_or(summary.median, |is| is.high);
    let highest = found.iter().map(top).fold(0.0, f64::max);
    let Some((_, _, first)) = found.first().filter(|_| highest > 0.0) else { return String::new() };
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / highest;
    let height = ROW * found.len() as f64 + 8.0;
    let title = format!("{figure}, {}", first.unit);
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(&title),
        escaped(&title)
    );
    for (row, (number, name, summary)) in found.iter().enumerate() {
        let middle = ROW * row as f64 + ROW / 2.0 + 4.0;
        let (end, class) = (x(summary.median), colour(*number));
        let _ = write!(
            out,
            "<g><title>{}: {} {}</title><text x=\"{:.1}\" y=\"{:.1}\" class=\"name\">{}</text><rect x=\"{LEFT}\" \
             y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" class=\"{class}\"></rect>",
            escaped(name),
            summary.median,
            escaped(&summary.unit),
            LEFT - 8.0,
            middle + 4.0,
            escaped(name),
            middle - BAR / 2.0,
            (end - LEFT).max(0.5),
        );
        let mut behind = end;
        if let Some(interval) = summary.interval {
            let (low, high) = (x(interval.low), x(interval.high));
            behind = behind.max(high);
            let _ = write!(
                out,
                "<path class=\"whisker\" d=\"M{low:.1} {0:.1}H{high:.1}M{low:.1} {1:.1}V{2:.1}M{high:.1} {1:.1}V{2:.1}\"></path>",
                middle,
                middle - 5.0,
                middle + 5.0
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"value\">{}</text></g>",
            behind + 6.0,
            middle + 4.0,
            readable(summary.median)
        );
    }
    out.push_str("</svg></figure>");
    out
}

/// How long something took: quantiles to the right, each step a tenth of what is beyond; time upwards, in powers of ten.
pub fn distribution(case: &Case, name: &str) -> String {
    const HEIGHT: f64 = 300.0;
    const AXIS: f64 = 56.0;
    const EDGE: f64 = 24.0;
    let lines: Vec<Line<'_>> = case
        .candidates
        .iter()
        .enumerate()
        .filter_map(|(number, candidate)| {
            let found = candidate.latencies.iter().find(|distribution| distribution.name == name)?;
            Some((number, candidate.name.as_str(), found.micros.as_slice()))
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, _, steps)| steps.iter());
    let lowest = all().map(|step| step.1).filter(|micros| *micros > 0.0).fold(f64::INFINITY, f64::min);
    let highest = all().map(|step| step.1).fold(0.0, f64::max);
    if !lowest.is_finite() || highest <= 0.0 {
        return String::new();
    }
    let (low, mut high) = (lowest.log10().floor(), highest.log10().ceil());
    if high <= low {
        high = low + 1.0;
    }
    // The maximum stands where the next step would be.
    let depth = |quantile: f64| -(1.0 - quantile).log10();
    let deepest = all().filter(|step| step.0 < 1.0).map(|step| depth(step.0)).fold(1.0, f64::max) + 0.5;
    let x = |quantile: f64| {
        let at = if quantile < 1.0 { depth(quantile) } else { deepest };
        AXIS + (WIDTH - AXIS - EDGE) * at / deepest
    };
    let y = |micros: f64| {
        let at = (micros.max(10f64.powf(low)).log10() - low) / (high - low);
        10.0 + (HEIGHT - 40.0) * (1.0 - at)
    };
    let title = format!("{name}: how long it took, by quantile");
    let mut out = format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">",
        escaped(&title)
    );
    let mut power = low;
    while power <= high {
        let (at, micros) = (y(10f64.powf(power)), 10f64.powf(power));
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{AXIS} {at:.1}H{:.1}\"></path><text x=\"{:.1}\" y=\"{:.1}\" class=\"name\">{}</text>",
            WIDTH - EDGE,
            AXIS - 6.0,
            at + 4.0,
            time(micros)
        );
        power += 1.0;
    }
    for (quantile, label) in [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (1.0, "max")]
    {
        if quantile < 1.0 && depth(quantile) > deepest - 0.4 {
            continue;
        }
        let at = x(quantile);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} 10V{:.1}\"></path><text x=\"{at:.1}\" y=\"{:.1}\" class=\"below\">{label}</text>",
            HEIGHT - 30.0,
            HEIGHT - 12.0
        );
    }
    for (number, name, steps) in &lines {
        let points: Vec<String> =
            steps.iter().map(|(quantile, micros)| format!("{:.1},{:.1}", x(*quantile), y(*micros))).collect();
        let _ = write!(
            out,
            "<g><title>{}</title><polyline class=\"line {}\" points=\"{}\"></polyline></g>",
            escaped(name),
            colour(*number),
            points.join(" ")
        );
    }
    out.push_str("</svg>");
    out.push_str(&legend(&lines.iter().map(|(number, name, _)| (*number, *name)).collect::<Vec<_>>()));
    out.push_str("</figure>");
    out
}

/// Where the time of acknowledged records went: two bars for each candidate, the second for what went on to followers
/// meanwhile, from where the record had its place in the log. Empty where nothing was told.
pub fn stages(case: &Case) -> String {
    let found: Vec<(&str, &[Stage])> = case
        .candidates
        .iter()
        .filter(|candidate| !candidate.stages.is_empty())
        .map(|candidate| (candidate.name.as_str(), candidate.stages.as_slice()))
        .collect();
    let of = |stages: &[Stage], names: &[&str]| -> Vec<Stage> {
        let named = |name: &&str| stages.iter().find(|stage| stage.name == **name).cloned();
        names.iter().filter_map(named).collect()
    };
    // Until the record has its place nothing can go on beside.
    let before = |stages: &[Stage]| -> f64 { of(stages, &REQUEST[..2]).iter().map(|stage| stage.mean_micros).sum() };
    let total = |stages: &[Stage]| -> f64 { stages.iter().map(|stage| stage.mean_micros).sum() };
    let mut rows: Vec<(String, f64, Vec<Stage>)> = Vec::new();
    for (name, stages) in &found {
        rows.push(((*name).to_owned(), 0.0, of(stages, &REQUEST)));
        let meanwhile = of(stages, &MEANWHILE);
        if !meanwhile.is_empty() {
            rows.push(("meanwhile".to_owned(), before(stages), meanwhile));
        }
    }
    let longest = rows.iter().map(|(_, from, stages)| from + total(stages)).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let height = ROW * rows.len() as f64 + 8.0;
    let title = "where the time of acknowledged records went, mean µs";
    let mut out = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (row, (name, from, stages)) in rows.iter().enumerate() {
        let middle = ROW * row as f64 + ROW / 2.0 + 4.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"name\">{}</text>",
            LEFT - 8.0,
            middle + 4.0,
            escaped(name)
        );
        let mut at = LEFT + from * scale;
        for stage in stages {
            let wide = stage.mean_micros * scale;
            let p99 = stage.p99_micros_at_most.map_or(String::new(), |p99| format!(", p99 at most {}", readable(p99)));
            let _ = write!(
                out,
                "<g><title>{}: {} µs{p99} ({} batches)</title><rect x=\"{at:.2}\" y=\"{:.1}\" width=\"{wide:.2}\" \
                 height=\"{BAR}\" class=\"{}\"></rect></g>",
                escaped(&stage.name),
                readable(stage.mean_micros),
                stage.count,
                middle - BAR / 2.0,
                anatomy::colour(&stage.name)
            );
            at += wide;
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"value\">{}</text>",
            at + 6.0,
            middle + 4.0,
            readable(total(stages))
        );
    }
    out.push_str("</svg>");
    let shown = |name: &&&str| rows.iter().any(|(.., stages)| stages.iter().any(|stage| stage.name == **name));
    let all: String = REQUEST.iter().chain(&MEANWHILE).filter(shown).map(|name| anatomy::legend(name)).collect();
    let _ = write!(
        out,
        "<ul class=\"legend\">{all}</ul><p class=\"note\">Of a sample of the batches, the warm-up's included. The stages of a bar \
         follow each other. What went on to followers meanwhile has a bar of its own, and is not to be added to the one above: \
         that one has as <b>followers</b> what they took longer than the leader itself.</p></figure>"
    );
    out
}

fn legend(names: &[(usize, &str)]) -> String {
    let one = |(number, name): &(usize, &str)| {
        format!("<li><span class=\"swatch {}\"></span>{}</li>", colour(*number), escaped(name))
    };
    format!("<ul class=\"legend\">{}</ul>", names.iter().map(one).collect::<String>())
}

fn time(micros: f64) -> String {
    match micros {
        1e6.. => format!("{} s", micros / 1e6),
        1e3.. => format!("{} ms", micros / 1e3),
        _ => format!("{micros} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::html::tests::report;

    /// The numbers of an attribute, of all elements that have it.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let begins = format!("{attribute}=\"");
        let parts = svg.split(begins.as_str()).skip(1);
        parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_figures_and_within_the_picture() {
        let report = report();
        let svg = bars(&report.cases[0], "throughput");
        let widths = numbers(&svg, " width");
        assert_eq!(widths.len(), 2);
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01, "{widths:?}");
        assert!(widths.iter().all(|width| *width <= WIDTH - LEFT - RIGHT + 0.1));
        assert!(bars(&report.cases[0], "nothing of the kind").is_empty());
    }

    #[test]
    fn stages_stand_behind_each_other_and_what_goes_on_meanwhile_stands_below() {
        let report = report();
        let svg = stages(&report.cases[0]);
        let (at, wide) = (numbers(&svg, " x"), numbers(&svg, " width"));
        // Of each row a name, its rectangles, and the sum behind them.
        let row = |first: usize, count: usize, from: usize| {
            let (at, wide) = (&at[first + 1..=first + count], &wide[from..from + count]);
            for place in 1..count {
                assert!((at[place - 1] + wide[place - 1] - at[place]).abs() < 0.03, "{at:?} {wide:?}");
            }
            (at[0], at[count - 1] + wide[count - 1])
        };
        let (request, meanwhile) = (row(0, 8, 0), row(10, 4, 8));
        assert!((request.0 - LEFT).abs() < 0.01 && meanwhile.0 > request.0 && meanwhile.1 <= request.1, "{svg}");
        let (slower, _) = (row(16, 8, 12), row(26, 4, 20));
        assert!(slower.1 > request.1 && slower.1 <= WIDTH - RIGHT + 0.1, "half as fast");
        let mut nothing = report.cases[0].clone();
        nothing.candidates.iter_mut().for_each(|candidate| candidate.stages.clear());
        assert!(stages(&nothing).is_empty());
    }

    #[test]
    fn a_distribution_rises_to_the_right_and_stays_within_the_picture() {
        let svg = distribution(&report().cases[0], "round trip");
        let lines: Vec<&str> = svg.split("points=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
        assert_eq!(lines.len(), 2);
        assert!(svg.contains("M56 270.0H"), "the lowest power of ten is the bottom: {svg}");
        for line in lines {
            let points: Vec<(f64, f64)> = line
                .split(' ')
                .filter_map(|point| point.split_once(','))
                .filter_map(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)))
                .collect();
            assert!(points.windows(2).all(|pair| pair[1].0 >= pair[0].0 && pair[1].1 <= pair[0].1), "{line}");
            assert!(points.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..=300.0).contains(y)), "{line}");
        }
    }
}
