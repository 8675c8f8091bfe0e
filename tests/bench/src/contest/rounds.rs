//! The rounds: every candidate has its turn at everything in each of them, in balanced order, and what was disturbed is done
//! again.
//!
//! A *bout* is what one turn of a candidate measures: one case, or several where a turn is dear, as where it starts a cluster. A
//! round has all bouts. Where a hypervisor took processors away in any turn of a bout, all turns of that bout and round are
//! made again, since they are compared with each other; as many times as there are rounds, and then what was disturbed
//! counts after all, and the report says so. A turn that fails when all have had one makes its bout's turns of that round be
//! made again, too, a few times in a run: an hour's measurements are not lost for one of them, and the report names it.

use super::progress::Progress;
use super::{Case, Observation, Outcome};
use crate::machine::{Processors, quiet};
use crate::stats::Order;
use std::fmt::Display;

/// Turns that may fail in a run: what fails now and then is told, what fails often ends it.
const FAILED_TURNS_MAX: usize = 3;

/// Several cases that are measured in one turn.
#[derive(Clone, Debug)]
pub struct Bout {
    pub cases: Vec<Case>,
}

impl Bout {
    pub fn of(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self { cases: vec![Case { name: name.into(), about: about.into() }] }
    }
}

/// How it is done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub candidates: Vec<String>,
    pub bouts: Vec<Bout>,
    pub rounds: usize,
    pub seed: u64,
    /// The part of the processors' time that may be taken away in a turn.
    pub stolen_share_max: f64,
}

/// What came of all rounds.
pub struct Outcomes {
    pub cases: Vec<Outcome>,
    /// What a reader must know of how it went.
    pub notes: Vec<String>,
}

/// Between turns: what a turn must not find.
pub trait Surroundings {
    fn processors(&mut self) -> Processors;
    /// False if the disk was still busy.
    fn settle(&mut self) -> bool;
}

/// This machine.
pub struct Here;

impl Surroundings for Here {
    fn processors(&mut self) -> Processors {
        Processors::now()
    }

    fn settle(&mut self) -> bool {
        quiet::wait_until_written_back()
    }
}

/// Makes all rounds. `turn` is given a bout and a candidate, by their numbers, and gives an observation for each of the bout's cases.
/// `kept` is given what there is after each round but the last, so that who is cut off in an hour's run still has it.
pub fn run<E: Display>(
    plan: &Plan,
    around: &mut dyn Surroundings,
    progress: &mut Progress,
    mut turn: impl FnMut(usize, usize) -> Result<Vec<Observation>, E>,
    mut kept: impl FnMut(usize, Outcomes),
) -> Result<Outcomes, E> {
    let count = plan.candidates.len();
    let mut made = Made { bouts: plan.bouts.iter().map(|bout| empty(bout, count)).collect(), ..Made::default() };
    let mut orders: Vec<Order> = (0..plan.bouts.len() as u64).map(|bout| Order::new(count, plan.seed ^ bout)).collect();
    for round in 0..plan.rounds {
        let bouts = plan.bouts.iter().zip(orders.iter_mut().zip(&mut made.bouts));
        for (number, (bout, (order, outcomes))) in bouts.enumerate() {
            let turns = loop {
                progress.bout(round, bout);
                let mut turns = Turns::none(count);
                let all = turns.make(plan, &order.next_round(), around, progress, |candidate| turn(number, candidate));
                made.unsettled += turns.unsettled;
                if let Err((candidate, why)) = all {
                    if round == 0 || made.failed.len() == FAILED_TURNS_MAX {
                        return Err(why);
                    }
                    let why = format!("{} failed ({why})", plan.candidates[candidate]);
                    progress.again(&turns.had(), &why);
                    made.failed
                        .push(format!("In round {} {why}; what the others showed then does not count.", round + 1));
                    continue;
                }
                let again = outcomes.first().map_or(0, |outcome| outcome.made_again);
                if !turns.stolen || again == plan.rounds {
                    break turns;
                }
                outcomes.iter_mut().for_each(|outcome| outcome.made_again += 1);
                progress.again(&turns.had(), "processors were taken away meanwhile");
            };
            made.disturbed += usize::from(turns.stolen);
            for (candidate, shown) in turns.shown.into_iter().enumerate() {
                let mut shown = shown.unwrap_or_default().into_iter();
                for outcome in outcomes.iter_mut() {
                    outcome.observed[candidate].push(shown.next().unwrap_or_default());
                }
            }
        }
        if round + 1 < plan.rounds {
            kept(round + 1, made.outcomes(plan));
        }
    }
    progress.end();
    Ok(made.outcomes(plan))
}

/// What the rounds so far have shown.
#[derive(Default)]
struct Made {
    bouts: Vec<Vec<Outcome>>,
    /// What is to be said of each turn that failed.
    failed: Vec<String>,
    /// Bouts that count though processors were taken away.
    disturbed: usize,
    unsettled: usize,
}

impl Made {
    fn outcomes(&self, plan: &Plan) -> Outcomes {
        let mut notes = self.failed.clone();
        if self.disturbed > 0 {
            notes.push(format!(
                "In {} rounds of a case more than {} % of the processors' time were taken away by the hypervisor, also after \
                 they had been made again {} times; they count.",
                self.disturbed,
                plan.stolen_share_max * 100.0,
                plan.rounds
            ));
        }
        if self.unsettled > 0 {
            notes
                .push(format!("Before {} turns the disk was still busy with writing back after 30 s.", self.unsettled));
        }
        Outcomes { cases: self.bouts.iter().flatten().cloned().collect(), notes }
    }
}

/// A bout's turns in one round.
struct Turns {
    /// By candidate; of those that have had their turn.
    shown: Vec<Option<Vec<Observation>>>,
    /// The hypervisor took more away than may be.
    stolen: bool,
    /// Before so many of them the disk was still busy.
    unsettled: usize,
}

impl Turns {
    fn none(candidates: usize) -> Self {
        Self { shown: vec![None; candidates], stolen: false, unsettled: 0 }
    }

    /// Makes them all, or up to one that fails, whose candidate it says.
    fn make<E>(
        &mut self,
        plan: &Plan,
        order: &[usize],
        around: &mut dyn Surroundings,
        progress: &mut Progress,
        mut turn: impl FnMut(usize) -> Result<Vec<Observation>, E>,
    ) -> Result<(), (usize, E)> {
        for &candidate in order {
            self.unsettled += usize::from(!around.settle());
            progress.turn(candidate);
            let before = around.processors();
            let shown = turn(candidate).map_err(|why| (candidate, why))?;
            self.stolen |= around.processors().since(&before).stolen_share() > plan.stolen_share_max;
            progress.shown(candidate, &shown);
            self.shown[candidate] = Some(shown);
        }
        Ok(())
    }

    /// The candidates that have had theirs.
    fn had(&self) -> Vec<usize> {
        let had = |(candidate, shown): (usize, &Option<_>)| shown.is_some().then_some(candidate);
        self.shown.iter().enumerate().filter_map(had).collect()
    }
}

fn empty(bout: &Bout, candidates: usize) -> Vec<Outcome> {
    let of = |case: &Case| Outcome { case: case.clone(), observed: vec![Vec::new(); candidates], made_again: 0 };
    bout.cases.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Figure;
    use std::convert::Infallible;

    const SPEED: Figure = Figure::higher("speed", "1/s");

    /// A machine that takes processors away in the turns that it is told, counted from the first.
    struct Machine {
        looks: usize,
        steals_in: Vec<usize>,
        now: Processors,
    }

    impl Surroundings for Machine {
        fn processors(&mut self) -> Processors {
            // It is looked at before and after each turn.
            let (turn, is_after) = (self.looks / 2, self.looks % 2 == 1);
            self.looks += 1;
            self.now.busy_seconds += 1.0;
            if is_after && self.steals_in.contains(&turn) {
                self.now.stolen_seconds += 0.1;
            }
            self.now
        }

        fn settle(&mut self) -> bool {
            true
        }
    }

    fn plan(rounds: usize) -> Plan {
        Plan {
            candidates: vec!["a".into(), "b".into()],
            bouts: vec![Bout::of("one", ""), Bout::of("two", "")],
            rounds,
            seed: 1,
            stolen_share_max: 0.02,
        }
    }

    fn made(rounds: usize, steals_in: Vec<usize>) -> (Outcomes, Vec<(usize, usize)>) {
        let mut turns = Vec::new();
        let mut machine = Machine { looks: 0, steals_in, now: Processors::default() };
        let mut quiet = Progress::silent();
        let turn = |bout, candidate| {
            turns.push((bout, candidate));
            Ok::<_, Infallible>(vec![Observation::default().figure(SPEED, turns.len() as f64)])
        };
        let Ok(outcomes) = run(&plan(rounds), &mut machine, &mut quiet, turn, |_, _| {});
        (outcomes, turns)
    }

    #[test]
    fn everybody_has_a_turn_at_everything_in_each_round() {
        let (outcomes, turns) = made(3, vec![]);
        assert_eq!(turns.len(), 12);
        for round in turns.chunks(4) {
            let mut round = round.to_vec();
            assert!(round[..2].iter().all(|(bout, _)| *bout == 0) && round[2..].iter().all(|(bout, _)| *bout == 1));
            round.sort_unstable();
            assert_eq!(round, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        }
        assert!(outcomes.cases.iter().all(|case| case.observed.iter().all(|rounds| rounds.len() == 3)));
        assert!(outcomes.notes.is_empty());
    }

    #[test]
    fn what_there_is_after_each_round_is_kept_in_case_there_will_be_no_more() {
        let mut kept = Vec::new();
        let mut machine = Machine { looks: 0, steals_in: Vec::new(), now: Processors::default() };
        let turn = |_, _| Ok::<_, Infallible>(vec![Observation::default()]);
        let keep = |rounds, so_far: Outcomes| {
            let counts = so_far.cases.iter().flat_map(|case| &case.observed).map(Vec::len);
            kept.push((rounds, counts.collect::<Vec<_>>()));
        };
        let Ok(_) = run(&plan(3), &mut machine, &mut Progress::silent(), turn, keep);
        assert_eq!(kept, [(1, vec![1; 4]), (2, vec![2; 4])]);
    }

    #[test]
    fn what_was_disturbed_is_made_again_for_all_and_does_not_count() {
        // The second bout's second turn of the first round.
        let (outcomes, turns) = made(2, vec![3]);
        assert_eq!(turns.len(), 10);
        assert_eq!((outcomes.cases[0].made_again, outcomes.cases[1].made_again), (0, 1));
        let seen: Vec<f64> = outcomes.cases[1]
            .observed
            .iter()
            .flatten()
            .flat_map(|shown| &shown.figures)
            .map(|figure| figure.1)
            .collect();
        assert_eq!(seen.len(), 4);
        assert!(!seen.contains(&3.0) && !seen.contains(&4.0), "{seen:?}");
    }

    #[test]
    fn a_machine_that_is_never_left_alone_ends_the_repeating_and_the_report_says_so() {
        let (outcomes, turns) = made(2, (0..100).collect());
        assert_eq!(outcomes.cases[0].made_again, 2);
        assert_eq!(turns.len(), 2 * 2 * (2 + 2));
        assert!(outcomes.notes[0].contains("4 rounds of a case"), "{:?}", outcomes.notes);
    }

    /// Two candidates at one thing, of which these turns fail, counted from the first.
    fn failing(rounds: usize, fail: &[usize]) -> Result<Outcomes, String> {
        let plan = Plan { bouts: vec![Bout::of("one", "")], ..plan(rounds) };
        let mut machine = Machine { looks: 0, steals_in: Vec::new(), now: Processors::default() };
        let mut turns = 0;
        let turn = |_, _| {
            turns += 1;
            match fail.contains(&(turns - 1)) {
                true => Err(format!("turn {turns} broke")),
                false => Ok(vec![Observation::default().figure(SPEED, turns as f64)]),
            }
        };
        run(&plan, &mut machine, &mut Progress::silent(), turn, |_, _| {})
    }

    #[test]
    fn a_turn_that_fails_in_a_long_run_is_told_and_its_round_is_made_again() {
        let outcomes = failing(3, &[3]).expect("it goes on");
        let shown = |of: &Observation| of.figures.iter().map(|figure| figure.1).collect::<Vec<_>>();
        let seen: Vec<f64> = outcomes.cases[0].observed.iter().flatten().flat_map(shown).collect();
        assert_eq!(seen.len(), 6);
        assert!(!seen.contains(&3.0), "the other's turn of the broken round counts: {seen:?}");
        let [note] = &outcomes.notes[..] else { panic!("one note: {:?}", outcomes.notes) };
        assert!(note.starts_with("In round 2 ") && note.contains("turn 4 broke"), "{note}");
    }

    #[test]
    fn what_fails_at_once_or_often_ends_the_run() {
        assert_eq!(failing(3, &[1]).err().as_deref(), Some("turn 2 broke"));
        let often: Vec<usize> = (2..100).collect();
        assert_eq!(failing(3, &often).err().as_deref(), Some("turn 6 broke"));
    }
}
