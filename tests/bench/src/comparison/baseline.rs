//! What has changed since an earlier report, and whether it exceeds the noise.
//!
//! The rounds of two runs are no pairs: a machine that was slower all day long shows as a change of everything. So a change is
//! only as good as the machine was the same, and what differs between the two reports is said first.

use super::{FORMAT, Report, Verdict};
use crate::BenchError;
use crate::report::readable;
use crate::stats::{Interval, unpaired};
use std::fmt::Write;
use std::path::Path;

/// A report is some megabytes at most.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// See the module's head.
pub struct Changes {
    /// What figures depend on, and what it was and is.
    pub conditions: Vec<(String, String, String)>,
    pub figures: Vec<Change>,
    /// Cases and candidates that only one of the two reports has.
    pub unmatched: Vec<String>,
}

/// A figure then and now.
#[derive(Clone, Debug)]
pub struct Change {
    pub case: String,
    pub candidate: String,
    pub figure: String,
    pub unit: String,
    pub then: f64,
    pub now: f64,
    pub ratio: f64,
    pub interval: Option<Interval>,
    pub verdict: Verdict,
}

/// Reads an earlier report.
pub fn read(path: &Path) -> Result<Report, BenchError> {
    let failed = |source| BenchError::File { doing: "read", path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > REPORT_BYTES_MAX {
        return Err(BenchError::NoReport { path: path.to_owned(), why: "it is too large".into() });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let none = |why: String| BenchError::NoReport { path: path.to_owned(), why };
    let report: Report = serde_json::from_str(&text).map_err(|why| none(why.to_string()))?;
    if report.format != FORMAT {
        return Err(none(format!("it is of format {}, and this program reads {FORMAT}", report.format)));
    }
    Ok(report)
}

/// What has changed.
pub fn changes(then: &Report, now: &Report, seed: u64) -> Changes {
    let mut conditions = Vec::new();
    let mut differ = |name: &str, then: &str, now: &str| {
        if then != now {
            conditions.push((name.to_owned(), then.to_owned(), now.to_owned()));
        }
    };
    differ("benchmark", &then.benchmark, &now.benchmark);
    for fact in now.machine.iter().chain(&now.conditions).filter(|fact| fact.name != "load before") {
        let mut all = then.machine.iter().chain(&then.conditions);
        let was = all.find(|was| was.name == fact.name).map_or("(not said)", |was| was.value.as_str());
        differ(&fact.name, was, &fact.value);
    }
    let (mut figures, mut unmatched) = (Vec::new(), Vec::new());
    for case in &now.cases {
        let Some(was) = then.cases.iter().find(|was| was.name == case.name) else {
            unmatched.push(format!("{} was not measured then", case.name));
            continue;
        };
        for candidate in &case.candidates {
            let Some(was) = was.candidates.iter().find(|was| was.name == candidate.name) else {
                unmatched.push(format!("{}: {} was not measured then", case.name, candidate.name));
                continue;
            };
            for figure in &candidate.figures {
                let was = was.figures.iter().find(|was| was.name == figure.name && was.unit == figure.unit);
                let Some(was) = was else { continue };
                let values = |values: &[Option<f64>]| values.iter().flatten().copied().collect::<Vec<_>>();
                let Some(ratio) = unpaired(&values(&figure.values), &values(&was.values), seed) else { continue };
                figures.push(Change {
                    case: case.name.clone(),
                    candidate: candidate.name.clone(),
                    figure: figure.name.clone(),
                    unit: figure.unit.clone(),
                    then: was.median,
                    now: figure.median,
                    ratio: ratio.ratio,
                    interval: ratio.interval,
                    verdict: Verdict::of(&ratio, figure.better),
                });
            }
        }
    }
    let gone = then.cases.iter().filter(|was| now.cases.iter().all(|case| case.name != was.name));
    unmatched.extend(gone.map(|was| format!("{} was measured only then", was.name)));
    Changes { conditions, figures, unmatched }
}

impl Change {
    /// Whether it is more than noise, as far as these rounds can tell.
    pub fn exceeds_noise(&self) -> bool {
        matches!(self.verdict, Verdict::Better | Verdict::Worse | Verdict::Differs)
    }
}

/// As text: what exceeds the noise line by line, the rest counted.
pub fn text(changes: &Changes) -> String {
    let mut out = String::from("\nagainst the baseline\n");
    for (name, then, now) in &changes.conditions {
        let _ = writeln!(out, "  not the same: {name} was {then}, is {now}");
    }
    for change in changes.figures.iter().filter(|change| change.exceeds_noise()) {
        let interval = change.interval.map_or(String::new(), |is| format!(" ({:.3} – {:.3})", is.low, is.high));
        let _ = writeln!(
            out,
            "  {}: {}, {}: {} → {} {}, × {:.3}{interval}, {}",
            change.case,
            change.candidate,
            change.figure,
            readable(change.then),
            readable(change.now),
            change.unit,
            change.ratio,
            change.verdict.words()
        );
    }
    let count = |verdict: Verdict| changes.figures.iter().filter(|change| change.verdict == verdict).count();
    let _ = writeln!(
        out,
        "  {} figures: {} better, {} worse, {} others differ, {} within the noise, {} of too few rounds to tell",
        changes.figures.len(),
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Differs),
        count(Verdict::NoDifference),
        count(Verdict::TooFewPairs)
    );
    for line in &changes.unmatched {
        let _ = writeln!(out, "  {line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::html::tests::report;

    #[test]
    fn a_report_against_itself_has_not_changed() {
        let report = report();
        let changes = changes(&report, &report, 3);
        assert!(!changes.figures.is_empty());
        assert!(changes.figures.iter().all(|change| !change.exceeds_noise()), "{:?}", changes.figures);
        assert!(changes.conditions.is_empty() && changes.unmatched.is_empty());
    }

    #[test]
    fn what_changed_and_what_it_depends_on_are_said() {
        let (then, mut now) = (report(), report());
        now.machine[0].value = "another".into();
        now.cases[0].name.push('!');
        now.cases.push(then.cases[0].clone());
        for figure in &mut now.cases[1].candidates[0].figures {
            figure.values.iter_mut().flatten().for_each(|value| *value *= 50.0);
        }
        let changes = changes(&then, &now, 3);
        let told = text(&changes);
        assert!(told.contains("not the same: processors was 2, some, is another"), "{told}");
        assert!(told.contains("bulk! was not measured then"), "{told}");
        let of =
            |figure: &str| changes.figures.iter().find(|change| change.figure == figure && change.candidate == "a");
        assert_eq!(of("throughput").map(|change| change.verdict), Some(Verdict::Better));
        assert_eq!(of("CPU").map(|change| change.verdict), Some(Verdict::Worse));
    }

    #[test]
    fn what_is_no_report_is_refused_in_words() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("old.json");
        let refused = |text: &str| {
            std::fs::write(&path, text).expect("it is written");
            read(&path).expect_err("it is none").to_string()
        };
        assert!(refused("{}").contains("is no report of this program"));
        let mut later = report();
        later.format = 9;
        let later = serde_json::to_string(&later).expect("it can be written");
        assert!(refused(&later).contains("it is of format 9"));
        let same = serde_json::to_string(&report()).expect("it can be written");
        std::fs::write(&path, same).expect("it is written");
        assert_eq!(read(&path).expect("it is one").cases.len(), report().cases.len());
    }
}
