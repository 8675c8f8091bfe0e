//! A report as a table, for a terminal or a file.

use super::anatomy::{MEANWHILE, REQUEST};
use super::{Candidate, Case, Report, Stage};
use crate::report::readable;
use std::fmt::Write;

/// All of it as text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}: {}", report.benchmark, report.candidates.join(", "));
    for fact in report.machine.iter().chain(&report.conditions) {
        let _ = writeln!(out, "  {}: {}", fact.name, fact.value);
    }
    let _ = writeln!(out, "  rounds: {} in balanced random order, seed {}", report.rounds, report.seed);
    for case in &report.cases {
        table(&mut out, case, &report.reference);
    }
    if !report.notes.is_empty() {
        let _ = writeln!(out);
    }
    for note in &report.notes {
        let _ = writeln!(out, "{note}");
    }
    out
}

fn table(out: &mut String, case: &Case, reference: &str) {
    let _ = writeln!(out, "\n{}", case.name);
    let _ = writeln!(out, "  {}", case.about);
    if case.made_again > 0 {
        let _ = writeln!(out, "  {} disturbed rounds were made again", case.made_again);
    }
    let mut rows: Vec<[String; 4]> = vec![["".into(), "median".into(), "95 %".into(), format!("of {reference}")]];
    let mut names: Vec<(&str, &str)> = Vec::new();
    for figure in case.candidates.iter().flat_map(|candidate| &candidate.figures) {
        let name = (figure.name.as_str(), figure.unit.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for (name, unit) in names {
        rows.push([format!("{name}, {unit}"), String::new(), String::new(), String::new()]);
        for candidate in &case.candidates {
            let Some(figure) = candidate.figures.iter().find(|figure| figure.name == name) else { continue };
            let range = |low: f64, high: f64| format!("{} – {}", readable(low), readable(high));
            let interval = figure.interval.map_or("-".into(), |interval| range(interval.low, interval.high));
            let ratio = case.ratios.iter().find(|ratio| ratio.figure == name && ratio.candidate == candidate.name);
            let ratio = ratio.map_or(String::new(), |ratio| match ratio.interval {
                Some(interval) => {
                    let range = format!("{:.3} ({:.3} – {:.3})", ratio.ratio, interval.low, interval.high);
                    format!("{range} {}", ratio.verdict.words())
                }
                None => format!("{:.3} {}", ratio.ratio, ratio.verdict.words()),
            });
            rows.push([format!("  {}", candidate.name), readable(figure.median), interval, ratio]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [name, median, interval, ratio] in &rows {
        let line =
            format!("  {name:a$}  {median:>b$}  {interval:>c$}  {ratio}", a = widths[0], b = widths[1], c = widths[2]);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    stages(out, case);
    for candidate in &case.candidates {
        let facts: Vec<String> = candidate.facts.iter().map(|fact| format!("{}: {}", fact.name, fact.value)).collect();
        if !facts.is_empty() {
            let _ = writeln!(out, "  {}: {}", candidate.name, facts.join("; "));
        }
        if let Some(why) = &candidate.invalid_because {
            let _ = writeln!(
                out,
                "  {}: latencies of {} of {} rounds do not count: {why}",
                candidate.name, candidate.invalid_rounds, case.rounds
            );
        }
    }
}

/// Where the time of acknowledged records went.
fn stages(out: &mut String, case: &Case) {
    let told: Vec<_> = case.candidates.iter().filter(|candidate| !candidate.stages.is_empty()).collect();
    if told.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "  where the time of acknowledged records went: mean µs (p99 at most), of a sample; what followers do meanwhile is not to \
         be added to the rest"
    );
    let mut rows: Vec<Vec<String>> = vec![std::iter::once(String::new()).collect()];
    rows[0].extend(told.iter().map(|candidate| candidate.name.clone()));
    for name in REQUEST.iter().chain(&MEANWHILE) {
        let find = |candidate: &&Candidate| candidate.stages.iter().find(|stage| stage.name == *name).cloned();
        let found: Vec<Option<Stage>> = told.iter().map(find).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let beside = if MEANWHILE.contains(name) { "meanwhile: " } else { "" };
        let mut row = vec![format!("{beside}{name}")];
        row.extend(found.into_iter().map(|stage| {
            stage.map_or("-".into(), |stage| match stage.p99_micros_at_most {
                Some(p99) => format!("{} ({})", readable(stage.mean_micros), readable(p99)),
                None => readable(stage.mean_micros),
            })
        }));
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let mut line = format!("    {:w$}", row[0], w = widths[0]);
        for (column, text) in row.iter().enumerate().skip(1) {
            let _ = write!(line, "  {text:>w$}", w = widths[column]);
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use crate::comparison::html::tests::report;

    #[test]
    fn the_table_says_what_was_measured_and_how_sure_that_is() {
        let text = super::text(&report());
        for part in [
            "throughput, MB/s",
            "0.500 (0.500 – 0.500) worse",
            "latencies of 1 of 12 rounds do not count",
            "seed 7",
            "followers",
            "meanwhile: on the way",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line == line.trim_end()));
    }
}
