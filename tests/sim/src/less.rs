//! A story with less in it: what can be left out of one that goes wrong, so that what remains can be understood.
//!
//! The same seed with one thing less is another story, but mostly a similar one. What is left out is tried one after the
//! other, and stays out where the same rule is broken still.

use crate::check::Violation;
use crate::story::{Fault, Story};
use crate::trace::Telling;
use crate::world::{Outcome, run_less};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// For how long a story is made smaller at most: somebody waits for it.
const SHRINK_FOR: Duration = Duration::from_secs(60);

/// One thing that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    Fault(Fault),
    /// Topics and replicas stay as they are.
    Administration,
    Group,
    Trims,
    /// Links are fair.
    Weather,
    /// One producer and one consumer, with one batch at a time.
    Clients,
    /// Clocks run alike.
    Drift,
    /// Everything that would go wrong before.
    Before(Duration),
    /// And after.
    After(Duration),
}

/// What a story is told without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Less(pub Vec<Out>);

impl Less {
    fn and(&self, out: Out) -> Less {
        Less(self.0.iter().copied().chain([out]).collect())
    }

    pub fn apply(&self, story: &mut Story) {
        for out in &self.0 {
            match *out {
                Out::Fault(fault) => story.faults.retain(|known| *known != fault),
                Out::Administration => story.administers = false,
                Out::Group => story.members = 0,
                Out::Trims => story.trims = false,
                Out::Weather => story.weather = crate::net::Weather::fair(),
                Out::Clients => (story.producers, story.consumers, story.in_flight) = (1, 1, 1),
                Out::Drift => story.drift_ppm = 0,
                Out::Before(at) => story.quiet_until = at,
                Out::After(at) => story.span = story.span.min(at),
            }
        }
    }
}

impl fmt::Display for Less {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |out: &Out| match out {
            Out::Fault(fault) => fault.name().replace(' ', "-"),
            Out::Administration => "administration".into(),
            Out::Group => "group".into(),
            Out::Trims => "trims".into(),
            Out::Weather => "weather".into(),
            Out::Clients => "clients".into(),
            Out::Drift => "drift".into(),
            Out::Before(at) => format!("before={}", at.as_millis()),
            Out::After(at) => format!("after={}", at.as_millis()),
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Less {
    type Err = String;

    fn from_str(text: &str) -> Result<Less, String> {
        let one = |word: &str| {
            let millis = |text: &str| text.parse().map(Duration::from_millis).map_err(|_| format!("{text} is no time"));
            Ok(match word {
                "administration" => Out::Administration,
                "group" => Out::Group,
                "trims" => Out::Trims,
                "weather" => Out::Weather,
                "clients" => Out::Clients,
                "drift" => Out::Drift,
                _ => match word.split_once('=') {
                    Some(("before", at)) => Out::Before(millis(at)?),
                    Some(("after", at)) => Out::After(millis(at)?),
                    _ => {
                        let named = |fault: &Fault| fault.name().replace(' ', "-") == word;
                        Out::Fault(Fault::ALL.into_iter().find(named).ok_or_else(|| format!("there is no {word}"))?)
                    }
                },
            })
        };
        text.split(',').filter(|word| !word.is_empty()).map(one).collect::<Result<_, _>>().map(Less)
    }
}

/// Leaves out what can be left out of a story in which that rule is broken.
pub fn shrink(seed: u64, whole: &Outcome, violation: &Violation) -> (Less, Outcome) {
    let began = Instant::now();
    let (mut less, mut best) = (Less::default(), whole.clone());
    let attempt = |less: &Less| {
        if began.elapsed() > SHRINK_FOR {
            return None;
        }
        let told = std::panic::catch_unwind(|| run_less(seed, Telling::Kept, less)).ok()?;
        told.violation.as_ref().is_some_and(|found| found.rule == violation.rule).then_some(told)
    };
    // A story is told again by what is printed, so only what can be printed is tried.
    let whole_millis = |at: Duration| Duration::from_millis(at.as_millis() as u64);
    let ended = |outcome: &Outcome| whole_millis(outcome.simulated) + Duration::from_millis(1);
    let faults = Fault::ALL.into_iter().filter(|fault| whole.faults.contains_key(fault.name())).map(Out::Fault);
    let others =
        [Out::Group, Out::Administration, Out::Trims, Out::Weather, Out::Drift, Out::Clients, Out::After(ended(whole))];
    for out in faults.chain(others) {
        let tried = less.and(out);
        if let Some(told) = attempt(&tried) {
            (less, best) = (tried, told);
        }
    }
    // The latest beginning of what goes wrong: halved as often as it helps.
    let (mut known, mut too_late) = (Duration::ZERO, ended(&best));
    while too_late.saturating_sub(known) > Duration::from_secs(1) {
        let middle = whole_millis(known + (too_late - known) / 2);
        let tried = less.and(Out::Before(middle));
        match attempt(&tried) {
            Some(told) => {
                (known, best) = (middle, told);
                too_late = too_late.min(ended(&best));
            }
            None => too_late = middle,
        }
    }
    if known > Duration::ZERO {
        less = less.and(Out::Before(known));
    }
    (less, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_and_read_again() {
        let less = Less(vec![
            Out::Fault(Fault::PowerCutAll),
            Out::Group,
            Out::Before(Duration::from_millis(1_500)),
            Out::After(Duration::from_secs(20)),
        ]);
        assert_eq!(less.to_string(), "power-cut-everywhere,group,before=1500,after=20000");
        assert_eq!(less.to_string().parse(), Ok(less));
        assert!("nonsense".parse::<Less>().is_err());
    }
}
