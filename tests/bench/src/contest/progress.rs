//! How far it is, for who waits: on a terminal a view that is drawn anew, elsewhere a line for each bout of a round.

use super::{Better, Bout, Observation, Plan};
use crate::stats::median;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const BAR: usize = 30;

/// See the module's head.
pub struct Progress {
    out: Box<dyn Write + Send>,
    style: Style,
    candidates: Vec<String>,
    rounds: usize,
    turns: usize,
    done: usize,
    began: Instant,
    round: usize,
    case: String,
    running: Option<usize>,
    /// The headline of the first case, for each candidate and case, over the rounds so far.
    seen: BTreeMap<(String, usize), (&'static str, Vec<f64>)>,
    /// Lines of the view that stand on the terminal.
    drawn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    View,
    Lines,
    #[cfg(test)]
    Silent,
}

impl Progress {
    /// On standard error, as suits it.
    pub fn new(plan: &Plan) -> Self {
        let style = if std::io::stderr().is_terminal() { Style::View } else { Style::Lines };
        Self::to(Box::new(std::io::stderr()), style, plan.candidates.clone(), plan.rounds, plan.bouts.len())
    }

    #[cfg(test)]
    pub fn silent() -> Self {
        Self::to(Box::new(std::io::sink()), Style::Silent, Vec::new(), 0, 0)
    }

    fn to(out: Box<dyn Write + Send>, style: Style, candidates: Vec<String>, rounds: usize, bouts: usize) -> Self {
        let turns = rounds * bouts * candidates.len();
        Self {
            out,
            style,
            candidates,
            rounds,
            turns,
            done: 0,
            began: Instant::now(),
            round: 0,
            case: String::new(),
            running: None,
            seen: BTreeMap::new(),
            drawn: 0,
        }
    }

    pub fn bout(&mut self, round: usize, bout: &Bout) {
        self.round = round;
        self.case = bout.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", ");
        if self.style == Style::Lines {
            self.say(&format!("round {} of {}, {}:", round + 1, self.rounds, self.case));
        }
    }

    pub fn turn(&mut self, candidate: usize) {
        self.running = Some(candidate);
        self.draw();
    }

    pub fn shown(&mut self, candidate: usize, shown: &[Observation]) {
        self.done += 1;
        self.running = None;
        if let Some((unit, value)) = shown.first().and_then(headline) {
            let seen = self.seen.entry((self.case.clone(), candidate)).or_insert((unit, Vec::new()));
            seen.1.push(value);
            if self.style == Style::Lines {
                let name = self.candidates.get(candidate).cloned().unwrap_or_default();
                let line = format!("  {name}  {} {unit}", crate::report::readable(value));
                self.say(&line);
            }
        }
        self.draw();
    }

    /// What these have shown last does not count, and is to come again.
    pub fn again(&mut self, shown: &[usize], why: &str) {
        self.running = None;
        self.turns += shown.len();
        for candidate in shown {
            if let Some((_, seen)) = self.seen.get_mut(&(self.case.clone(), *candidate)) {
                seen.pop();
            }
        }
        if self.style == Style::Lines {
            self.say(&format!("  {why}: once more"));
        }
    }

    pub fn end(&mut self) {
        self.wipe();
        let _ = self.out.flush();
    }

    fn say(&mut self, line: &str) {
        // Who closed it does not want to know.
        let _ = writeln!(self.out, "{line}");
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            let _ = write!(self.out, "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        if self.style != Style::View {
            return;
        }
        self.wipe();
        let lines = self.view();
        for line in &lines {
            self.say(line);
        }
        self.drawn = lines.len();
        let _ = self.out.flush();
    }

    fn view(&self) -> Vec<String> {
        let done = if self.turns == 0 { 1.0 } else { self.done as f64 / self.turns as f64 };
        let full = ((done * BAR as f64) as usize).min(BAR);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
        let mut lines = vec![
            format!("{bar} {:3.0} %  {}", done * 100.0, left(self.began.elapsed(), self.done, self.turns)),
            format!("round {} of {}, {}", self.round + 1, self.rounds, self.case),
        ];
        let width = self.candidates.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (candidate, name) in self.candidates.iter().enumerate() {
            let mark = if self.running == Some(candidate) { '▶' } else { ' ' };
            let seen = self.seen.get(&(self.case.clone(), candidate)).filter(|seen| !seen.1.is_empty());
            let figure = seen.map(|(unit, values)| {
                format!("{} {unit} (median of {})", crate::report::readable(median(values)), values.len())
            });
            lines.push(format!("{mark} {name:width$}  {}", figure.unwrap_or_default()));
        }
        lines
    }
}

/// The figure of a turn that is shown meanwhile: the first, or where that is no goal the latency.
fn headline(shown: &Observation) -> Option<(&'static str, f64)> {
    let first = shown.figures.first().filter(|(figure, _)| figure.better != Better::Neither);
    let latency = || shown.latencies.first().map(|(_, latencies)| ("µs p50", latencies.micros(0.5)));
    first.map(|(figure, value)| (figure.unit, *value)).or_else(latency)
}

/// How long it will still take, by how long it took so far.
fn left(since: Duration, done: usize, turns: usize) -> String {
    if done == 0 {
        return String::new();
    }
    let seconds = since.as_secs_f64() / done as f64 * turns.saturating_sub(done) as f64;
    format!("{}:{:02} left", seconds as u64 / 60, seconds as u64 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Figure;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn told(style: Style) -> String {
        let paper = Paper::default();
        let names = vec!["tcp".to_owned(), "quic".to_owned()];
        let mut progress = Progress::to(Box::new(paper.clone()), style, names, 2, 1);
        progress.bout(0, &Bout::of("bulk", ""));
        progress.turn(1);
        let shown = Observation::default().figure(Figure::higher("throughput", "MB/s"), 12.0);
        progress.shown(1, &[shown]);
        progress.end();
        String::from_utf8(paper.0.lock().expect("nobody panics").clone()).expect("it is text")
    }

    #[test]
    fn without_a_terminal_there_are_plain_lines() {
        assert_eq!(told(Style::Lines), "round 1 of 2, bulk:\n  quic  12.00 MB/s\n");
    }

    #[test]
    fn on_a_terminal_the_view_is_drawn_anew_and_gone_at_the_end() {
        let told = told(Style::View);
        assert!(
            told.contains("▶ quic") && told.contains("12.00 MB/s (median of 1)") && told.contains(" 25 %"),
            "{told}"
        );
        assert!(told.ends_with("\x1b[4A\x1b[J"), "{told:?}");
    }
}
