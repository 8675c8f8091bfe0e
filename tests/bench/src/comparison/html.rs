//! A report as one page that needs nothing else: styles, charts and the script are in it, and it asks no network.

use super::baseline::Changes;
use super::{Case, Report, Verdict, anatomy, chart};
use crate::contest::Better;
use crate::report::readable;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub fn page(report: &Report, changes: Option<&Changes>) -> String {
    let title = format!("chronik bench {}", report.benchmark);
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head><body><header><h1>{0}</h1>\
         <p><code>{1}</code></p><p>{2} rounds in balanced random order, seed {3}; ratios are to <b>{4}</b>, pair by pair; intervals \
         are of 95 %.</p></header><main>",
        escaped(&title),
        escaped(&report.command),
        report.rounds,
        report.seed,
        escaped(&report.reference)
    );
    facts(&mut out, report);
    for note in &report.notes {
        let _ = write!(out, "<p class=\"note\">{}</p>", escaped(note));
    }
    if let Some(changes) = changes {
        changed(&mut out, changes);
    }
    contents(&mut out, report);
    for (number, case) in report.cases.iter().enumerate() {
        section(&mut out, number, case, &report.reference);
    }
    let _ = write!(out, "</main><script>{SCRIPT}</script></body></html>");
    out
}

/// Text as HTML and its attributes take it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn facts(out: &mut String, report: &Report) {
    out.push_str("<details open><summary>What it was measured on</summary><dl>");
    for fact in report.machine.iter().chain(&report.conditions) {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(&fact.name), escaped(&fact.value));
    }
    out.push_str("</dl></details>");
}

fn contents(out: &mut String, report: &Report) {
    out.push_str("<nav><ol>");
    for (number, case) in report.cases.iter().enumerate() {
        let _ = write!(out, "<li><a href=\"#case-{number}\">{}</a></li>", escaped(&case.name));
    }
    out.push_str("</ol></nav>");
}

fn section(out: &mut String, number: usize, case: &Case, reference: &str) {
    let _ =
        write!(out, "<section id=\"case-{number}\"><h2>{}</h2><p>{}</p>", escaped(&case.name), escaped(&case.about));
    if case.made_again > 0 {
        let _ = write!(out, "<p class=\"note\">{} disturbed rounds were made again.</p>", case.made_again);
    }
    let mut names: Vec<&str> = Vec::new();
    for distribution in case.candidates.iter().flat_map(|candidate| &candidate.latencies) {
        if !names.contains(&distribution.name.as_str()) {
            names.push(&distribution.name);
        }
    }
    let mut figures: Vec<&str> = Vec::new();
    for figure in case.candidates.iter().flat_map(|candidate| &candidate.figures) {
        // Single quantiles are in the distributions and in the table.
        let is_quantile = names.iter().any(|name| figure.name.starts_with(&format!("{name} ")));
        // What is no goal is in the table alone.
        let is_drawn = !is_quantile && figure.better != Better::Neither;
        if is_drawn && !figures.contains(&figure.name.as_str()) {
            figures.push(&figure.name);
        }
    }
    out.push_str("<div class=\"charts\">");
    for name in &names {
        out.push_str(&chart::distribution(case, name));
    }
    for figure in &figures {
        out.push_str(&chart::bars(case, figure));
    }
    out.push_str(&chart::stages(case));
    out.push_str("</div>");
    table(out, case, reference);
    for candidate in &case.candidates {
        if let Some(why) = &candidate.invalid_because {
            let _ = write!(
                out,
                "<p class=\"note\">{}: latencies of {} of {} rounds do not count: {}</p>",
                escaped(&candidate.name),
                candidate.invalid_rounds,
                case.rounds,
                escaped(why)
            );
        }
    }
    out.push_str("</section>");
}

fn table(out: &mut String, case: &Case, reference: &str) {
    let _ = write!(
        out,
        "<details><summary>All figures</summary><div class=\"wide\"><table><thead><tr><th>figure</th><th>candidate</th>\
         <th>median</th><th>95 %</th><th>of {}</th><th></th></tr></thead><tbody>",
        escaped(reference)
    );
    for (number, candidate) in case.candidates.iter().enumerate() {
        for figure in &candidate.figures {
            let interval = figure
                .interval
                .map_or("–".into(), |interval| format!("{} – {}", readable(interval.low), readable(interval.high)));
            let mut ratios = case.ratios.iter();
            let ratio = ratios.find(|ratio| ratio.figure == figure.name && ratio.candidate == candidate.name);
            let (said, verdict) = ratio.map_or((String::new(), None), |ratio| {
                let interval = ratio.interval.map_or(String::new(), |is| format!(" ({:.3} – {:.3})", is.low, is.high));
                (format!("{:.3}{interval}", ratio.ratio), Some(ratio.verdict))
            });
            let _ = write!(
                out,
                "<tr><td>{}, {}</td><td><span class=\"swatch {}\"></span>{}</td><td>{}</td><td>{interval}</td><td>{said}</td>{}</tr>",
                escaped(&figure.name),
                escaped(&figure.unit),
                chart::colour(number),
                escaped(&candidate.name),
                readable(figure.median),
                verdict_cell(verdict)
            );
        }
        for fact in &candidate.facts {
            let _ = write!(
                out,
                "<tr><td>{}</td><td><span class=\"swatch {}\"></span>{}</td><td colspan=\"4\">{}</td></tr>",
                escaped(&fact.name),
                chart::colour(number),
                escaped(&candidate.name),
                escaped(&fact.value)
            );
        }
    }
    out.push_str("</tbody></table></div></details>");
    stages(out, case);
}

/// Where the time of acknowledged records went, in numbers.
fn stages(out: &mut String, case: &Case) {
    if case.candidates.iter().all(|candidate| candidate.stages.is_empty()) {
        return;
    }
    out.push_str(
        "<details><summary>Where the time went, in numbers</summary><div class=\"wide\"><table><thead><tr><th>stage</th>\
         <th>candidate</th><th>mean, µs</th><th>p99 at most, µs</th><th>batches</th></tr></thead><tbody>",
    );
    for (number, candidate) in case.candidates.iter().enumerate() {
        for stage in &candidate.stages {
            let _ = write!(
                out,
                "<tr><td><span class=\"swatch {}\"></span>{}, {}</td><td><span class=\"swatch {}\"></span>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>",
                anatomy::colour(&stage.name),
                escaped(&stage.row),
                escaped(&stage.name),
                chart::colour(number),
                escaped(&candidate.name),
                readable(stage.mean_micros),
                stage.p99_micros_at_most.map_or("–".into(), readable),
                stage.count
            );
        }
    }
    out.push_str("</tbody></table></div></details>");
}

fn verdict_cell(verdict: Option<Verdict>) -> String {
    let Some(verdict) = verdict else { return "<td></td>".into() };
    let class = match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Differs | Verdict::NoDifference | Verdict::TooFewPairs => "even",
    };
    format!("<td class=\"{class}\">{}</td>", verdict.words())
}

fn changed(out: &mut String, changes: &Changes) {
    out.push_str("<section><h2>Against the baseline</h2>");
    for (name, then, now) in &changes.conditions {
        let (name, then, now) = (escaped(name), escaped(then), escaped(now));
        let _ = write!(out, "<p class=\"note\">Not the same: {name} was {then}, is {now}.</p>");
    }
    out.push_str(
        "<div class=\"wide\"><table><thead><tr><th>case</th><th>candidate</th><th>figure</th><th>then</th><th>now</th>\
         <th>ratio</th><th></th></tr></thead><tbody>",
    );
    for change in changes.figures.iter().filter(|change| change.exceeds_noise()) {
        let interval = change.interval.map_or(String::new(), |is| format!(" ({:.3} – {:.3})", is.low, is.high));
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}, {}</td><td>{}</td><td>{}</td><td>{:.3}{interval}</td>{}</tr>",
            escaped(&change.case),
            escaped(&change.candidate),
            escaped(&change.figure),
            escaped(&change.unit),
            readable(change.then),
            readable(change.now),
            change.ratio,
            verdict_cell(Some(change.verdict))
        );
    }
    let within = changes.figures.iter().filter(|change| !change.exceeds_noise()).count();
    let _ = write!(out, "</tbody></table></div><p>{within} figures show no change beyond the noise.</p>");
    for line in &changes.unmatched {
        let _ = write!(out, "<p class=\"note\">{}</p>", escaped(line));
    }
    out.push_str("</section>");
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::comparison::{FORMAT, Fact, baseline, summary};

    /// A report of one case with two candidates, one of which has a name that is not harmless.
    pub(crate) fn report() -> Report {
        let names = vec!["a".to_owned(), "b".to_owned()];
        Report {
            format: FORMAT,
            benchmark: "transports".into(),
            command: "chronik bench transports --html '<x>'".into(),
            began: 1,
            took_seconds: 2.0,
            seed: 7,
            rounds: 12,
            reference: "a".into(),
            machine: vec![Fact::new("processors", "2, some")],
            conditions: vec![Fact::new("durability", "none & nothing")],
            cases: vec![summary::case(&summary::tests::outcome(), &names, 0, 7)],
            candidates: names,
            notes: vec!["A note with <b> in it.".into()],
        }
    }

    /// Elements that have no end.
    const VOID: [&str; 3] = ["!doctype", "meta", "br"];

    /// Reads a page as strictly as XML is read, but for the elements without an end; gives its elements' names with their
    /// attributes.
    fn parsed(page: &str) -> Vec<(String, Vec<(String, String)>)> {
        let (mut open, mut all, mut rest) = (Vec::<String>::new(), Vec::new(), page);
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            assert!(!text.contains('>'), "a bare > in {text:?}");
            for entity in text.split('&').skip(1) {
                let name = entity.split(';').next().unwrap_or_default();
                assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "an entity {name:?}");
            }
            rest = &rest[at + 1..];
            let end = rest.find('>').expect("a tag has an end");
            let tag = &rest[..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "what ends is what was begun last");
                continue;
            }
            let (name, mut given) = tag.split_once(' ').unwrap_or((tag, ""));
            let mut attributes = Vec::new();
            while name != "!doctype" && !given.trim().is_empty() {
                let (key, behind) = match given.split_once('=') {
                    Some((key, behind)) if !key.trim().contains(' ') => (key.trim(), behind),
                    _ => {
                        attributes.push((given.trim().to_owned(), String::new()));
                        break;
                    }
                };
                let (value, after) = behind.strip_prefix('"').and_then(|value| value.split_once('"')).expect("quotes");
                attributes.push((key.to_owned(), value.to_owned()));
                given = after;
            }
            all.push((name.to_owned(), attributes));
            if name == "style" || name == "script" {
                let close = format!("</{name}>");
                let end = rest.find(&close).expect("it ends");
                rest = &rest[end + close.len()..];
            } else if !VOID.contains(&name) {
                open.push(name.to_owned());
            }
        }
        assert!(open.is_empty(), "these have no end: {open:?}");
        all
    }

    #[test]
    fn the_page_parses_and_needs_nothing_else() {
        let report = report();
        let changes = baseline::changes(&report, &report, 1);
        let page = page(&report, Some(&changes));
        let elements = parsed(&page);
        for name in ["svg", "polyline", "rect", "table", "script", "style"] {
            assert!(elements.iter().any(|element| element.0 == name), "there is no {name}");
        }
        for outside in ["http://", "https://", "url(", "@import", "fetch(", "XMLHttpRequest", "import("] {
            assert!(!page.contains(outside), "{outside} is in it");
        }
        for (name, attributes) in &elements {
            assert!(!["link", "img", "iframe", "object", "embed", "base"].contains(&name.as_str()), "{name}");
            for (key, value) in attributes {
                assert!(key != "src" && key != "srcset" && key != "xlink:href", "{name} has {key}");
                assert!(key != "href" || value.starts_with('#'), "{name} leads to {value}");
                assert!(!key.starts_with("on"), "{name} has {key}");
            }
        }
        assert!(page.contains("&lt;x&gt;") && page.contains("none &amp; nothing"));
        for stage in anatomy::REQUEST.iter().chain(&anatomy::MEANWHILE) {
            let drawn = |(name, attributes): &(String, Vec<(String, String)>)| {
                name == "rect"
                    && attributes.iter().any(|(key, class)| key == "class" && *class == anatomy::colour(stage))
            };
            assert_eq!(elements.iter().filter(|element| drawn(element)).count(), 2, "{stage}, of each candidate");
        }
    }

    #[test]
    fn it_is_readable_in_light_and_in_dark_and_has_every_colour_that_charts_name() {
        assert!(STYLE.contains("prefers-color-scheme: dark"));
        for candidate in 0..20 {
            assert!(STYLE.contains(&format!(".{}", chart::colour(candidate))), "{candidate}");
        }
        for stage in anatomy::REQUEST.iter().chain(&anatomy::MEANWHILE) {
            let class = anatomy::colour(stage);
            assert!(
                STYLE.contains(&format!("rect.{class} ")) && STYLE.contains(&format!(".swatch.{class} ")),
                "{stage}"
            );
        }
    }
}
