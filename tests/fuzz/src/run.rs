//! The loop: draw an input, mutate it, feed it, judge what happened, keep what was new.

use crate::dice::{Dice, mix};
use crate::memory;
use crate::mutate::{Material, mutate};
use crate::target::{Seen, Target};
use crate::watch::{Desk, SLOW};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Inputs of each kind, taken and refused, that a worker keeps; beyond that a new one takes the place of any.
const KEPT_MAX: usize = 4096;
/// Marks that a worker remembers. A target whose marks do not end would otherwise fill the memory.
const MARKS_MAX: usize = 1 << 20;
/// Executions between two looks at the clock and at what the others found.
const LOOK_EVERY: u64 = 64;
/// Executions that are spent on making a finding smaller.
const REDUCTIONS_MAX: usize = 4000;

/// What went wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    Panicked(String),
    Memory { peak: usize, allowed: usize },
    Slow(Duration),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Panicked(message) => write!(f, "it panicked: {message}"),
            Wrong::Memory { peak, allowed } => write!(f, "it held {peak} bytes, more than the {allowed} allowed"),
            Wrong::Slow(took) => write!(f, "it took {} ms", took.as_millis()),
        }
    }
}

impl Wrong {
    /// The same mistake, as far as one can tell from outside? Panics are told apart by their place.
    fn is_like(&self, other: &Wrong) -> bool {
        match (self, other) {
            (Wrong::Panicked(a), Wrong::Panicked(b)) => a.lines().next() == b.lines().next(),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static IS_QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics inside an execution are kept for the report, not printed; others go where they went.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.with(|quiet| *quiet.borrow()) {
                return before(info);
            }
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("not a text");
            LAST_PANIC.with(|last| *last.borrow_mut() = format!("at {place}\n{message}"));
        }));
    });
}

/// What this thread has had of a processor: on a machine that has other things to do, an execution is no slower by this
/// clock. One that waits for ever is [`crate::watch`]'s to find.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Feeds one input, and judges.
pub fn execute(target: &dyn Target, input: &[u8]) -> Result<(Seen, usize), Wrong> {
    keep_panics();
    IS_QUIET.with(|quiet| *quiet.borrow_mut() = true);
    let began = thread_time();
    let (result, peak) = memory::measured(|| catch_unwind(AssertUnwindSafe(|| target.feed(input))));
    let took = thread_time().saturating_sub(began);
    IS_QUIET.with(|quiet| *quiet.borrow_mut() = false);
    let Ok(seen) = result else {
        return Err(Wrong::Panicked(LAST_PANIC.with(|last| last.borrow().clone())));
    };
    let allowed = memory::allowed(input.len(), target.more_memory_bytes());
    if peak > allowed {
        return Err(Wrong::Memory { peak, allowed });
    }
    if took > SLOW { Err(Wrong::Slow(took)) } else { Ok((seen, peak)) }
}

/// As [`execute`], but one that was slow gets a second chance: the machine may have been at something else.
fn execute_fairly(target: &dyn Target, input: &[u8]) -> Result<(Seen, usize), Wrong> {
    match execute(target, input) {
        Err(Wrong::Slow(_)) => execute(target, input),
        result => result,
    }
}

/// An input that something is wrong with, as small as it could be made.
#[derive(Clone, Debug)]
pub struct Finding {
    pub wrong: Wrong,
    pub input: Vec<u8>,
}

/// What one or more workers did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub executions: u64,
    pub taken: u64,
    pub peak_bytes: usize,
    pub kept: Vec<Vec<u8>>,
    pub finding: Option<Finding>,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.executions += other.executions;
        self.taken += other.taken;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
        self.kept.extend(other.kept);
        self.finding = self.finding.take().or(other.finding);
    }
}

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub executions: u64,
    pub until: Option<Instant>,
}

/// What the workers of one target have in common.
#[derive(Debug)]
struct Shared {
    left: AtomicU64,
    is_over: AtomicBool,
}

/// Feeds `target` from as many threads as there are desks, until the bounds are reached or something is wrong.
pub fn run(target: &dyn Target, bounds: Bounds, seed: u64, corpus: &[Vec<u8>], desks: &[Desk]) -> Report {
    let shared = Shared { left: AtomicU64::new(bounds.executions), is_over: AtomicBool::new(false) };
    let mut sum = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0u64..)
            .zip(desks)
            .map(|(index, desk)| {
                let shared = &shared;
                scope.spawn(move || work(target, bounds, mix(seed.wrapping_add(index)), corpus, desk, shared))
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(report) => sum.add(report),
                // Not the fed code's panic, which is caught, but the fuzzer's own.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    sum
}

struct Kept {
    input: Vec<u8>,
    at: Option<usize>,
}

/// The inputs that told something new. Refusals come in many more kinds than what is taken: with both in one pool nearly
/// everything would be made from what is refused already.
#[derive(Default)]
struct Pool {
    taken: Vec<Kept>,
    refused: Vec<Kept>,
}

impl Pool {
    fn pick(&self, dice: &mut Dice) -> Option<&Kept> {
        let (first, second) = (&self.taken, &self.refused);
        let (first, second) = if dice.one_in(4) { (second, first) } else { (first, second) };
        dice.pick(first).or_else(|| dice.pick(second))
    }

    fn keep(&mut self, new: Kept, is_taken: bool, dice: &mut Dice) {
        let kept = if is_taken { &mut self.taken } else { &mut self.refused };
        if kept.len() < KEPT_MAX {
            kept.push(new);
        } else {
            let place = dice.below(kept.len());
            kept[place] = new;
        }
    }
}

fn work(target: &dyn Target, bounds: Bounds, seed: u64, corpus: &[Vec<u8>], desk: &Desk, shared: &Shared) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = Report::default();
    let mut marks = HashSet::new();
    let mut pool = Pool::default();
    let bytes_max = target.input_bytes_max();
    let mut seeds = corpus.iter();
    let mut input = Vec::new();
    loop {
        if report.executions.is_multiple_of(LOOK_EVERY) {
            let is_late = bounds.until.is_some_and(|until| Instant::now() >= until);
            let take = |left: u64| left.checked_sub(LOOK_EVERY).or((left > 0).then_some(0));
            let is_done = shared.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err();
            if is_late || is_done || shared.is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        input.clear();
        if let Some(seed) = seeds.next() {
            input.extend_from_slice(seed);
        } else {
            let from = pool.pick(&mut dice);
            let other = pool.pick(&mut dice).map_or(&[][..], |kept| &kept.input);
            input.extend_from_slice(from.map_or(&[], |kept| &kept.input));
            let material = Material { other, words: target.words(), at: from.and_then(|kept| kept.at), bytes_max };
            mutate(&mut input, &material, &mut dice);
            if dice.one_in(2) {
                target.mend(&mut input);
            }
        }
        desk.begin(target.name(), &input);
        report.executions += 1;
        match execute_fairly(target, &input) {
            Ok((seen, peak)) => {
                report.taken += u64::from(seen.is_taken);
                report.peak_bytes = report.peak_bytes.max(peak);
                if marks.len() < MARKS_MAX && marks.insert(seen.mark) {
                    pool.keep(Kept { input: input.clone(), at: seen.at }, seen.is_taken, &mut dice);
                }
            }
            Err(wrong) => {
                shared.is_over.store(true, Ordering::Relaxed);
                desk.leave();
                report.finding = Some(reduce(target, Finding { wrong, input }));
                break;
            }
        }
    }
    desk.leave();
    // Those that were taken first: they are the better ones to begin with.
    report.kept = pool.taken.into_iter().chain(pool.refused).map(|kept| kept.input).collect();
    report
}

/// Leaves out what the mistake does not need, in ever smaller pieces, and makes bytes zero.
fn reduce(target: &dyn Target, finding: Finding) -> Finding {
    if matches!(finding.wrong, Wrong::Slow(_)) {
        return finding;
    }
    let mut best = finding;
    let mut left = REDUCTIONS_MAX;
    let mut piece = (best.input.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut is_smaller = false;
        while at < best.input.len() && left > 0 {
            left -= 1;
            let mut input = best.input.clone();
            input.drain(at..(at + piece).min(input.len()));
            match execute(target, &input) {
                Err(wrong) if wrong.is_like(&best.wrong) => {
                    best = Finding { wrong, input };
                    is_smaller = true;
                }
                _ => at += piece,
            }
        }
        if left == 0 || (piece == 1 && !is_smaller) {
            break;
        }
        piece = (piece / 2).max(1);
    }
    for at in 0..best.input.len().min(left) {
        let mut input = best.input.clone();
        if std::mem::take(&mut input[at]) != 0
            && let Err(wrong) = execute(target, &input)
            && wrong.is_like(&best.wrong)
        {
            best = Finding { wrong, input };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wrong about one word; refuses what does not begin with its first letters, and says where.
    struct Picky(&'static [u8]);

    impl Target for Picky {
        fn name(&self) -> &'static str {
            "picky"
        }

        fn seeds(&self) -> Vec<Vec<u8>> {
            vec![b"----------------".to_vec()]
        }

        fn feed(&self, input: &[u8]) -> Seen {
            let right = input.iter().zip(self.0).take_while(|(a, b)| a == b).count();
            assert!(right < self.0.len(), "the word was said");
            Seen::refused(right, Some(right))
        }
    }

    #[test]
    fn a_mistake_three_steps_away_is_found_by_what_is_new_and_reduced_to_what_it_needs() {
        let target = Picky(b"bug");
        let bounds = Bounds { executions: 5_000_000, until: None };
        let report = run(&target, bounds, 4711, &target.seeds(), &[Desk::default()]);
        let finding = report.finding.map(|finding| (finding.wrong, finding.input));
        let Some((Wrong::Panicked(message), input)) = finding else { panic!("not found in {}", report.executions) };
        assert!(message.ends_with("the word was said"), "{message}");
        assert_eq!(input, b"bug");
    }

    #[test]
    fn the_same_seed_does_the_same_and_the_bound_is_kept() {
        let target = Picky(b"never to be guessed in so short a time");
        let bounds = Bounds { executions: 1000, until: None };
        let tell = || run(&target, bounds, 7, &target.seeds(), &[Desk::default()]);
        let (first, second) = (tell(), tell());
        assert!(first.finding.is_none());
        assert!((1000..1000 + LOOK_EVERY).contains(&first.executions), "{}", first.executions);
        assert_eq!(first.kept, second.kept);
    }
}
