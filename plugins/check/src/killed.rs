//! K: a process that is killed at its work, many times, or its machine's power cut, and what it leaves.

use crate::device::Device;
use crate::judge::Judge;
use crate::snapshot::{Expected, Snapshot};
use crate::writer::Step;
use chronik_conformance::wal::Dice;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// How often the writer is killed. Always over the same store: damage may show only later.
const KILLS: u64 = 16;
/// What a writer is told before it is killed at some of it.
const STEPS: u64 = 40;
/// After the last acknowledgement that is waited for, up to so much more: the writer is killed inside its next steps.
const MICROSECONDS_MORE: u64 = 3000;

pub(crate) fn appending(judge: &Judge) {
    kill_often(judge, orders);
}

pub(crate) fn changing(judge: &Judge) {
    kill_often(judge, |expected, dice, steps| {
        let model = &expected.model;
        let at = model.start + dice.below((model.end - model.start + 1) as u64) as i64;
        match dice.below(6) {
            // The start may lie inside a run; the end may not.
            0 => steps.push(Step::Prefix(at)),
            1 if dice.below(4) == 0 => steps.push(Step::Reset(dice.below(10_000) as i64)),
            1 | 2 if model.is_boundary(at) => steps.push(Step::Suffix(at)),
            3 => steps.push(Step::Sync),
            _ => orders(expected, dice, steps),
        }
    });
}

pub(crate) fn values(judge: &Judge) {
    kill_often(judge, |_, dice, steps| {
        let value = dice.below(1 << 40).to_string();
        steps.push(Step::Put(value.clone(), value.repeat(1 + dice.below(20) as usize)));
    });
}

pub(crate) fn creating(judge: &Judge) {
    kill_often(judge, |expected, dice, steps| {
        let number = 2 + dice.below(12) as u8;
        steps.push(if expected.logs.contains(&number) { Step::Delete(number) } else { Step::Create(number) });
    });
}

/// What was set aside is in nobody's way: the same few logs are created and set aside again and again, and deleted with all
/// that is left of them.
pub(crate) fn setting_aside(judge: &Judge) {
    kill_often(judge, |expected, dice, steps| {
        let number = 2 + dice.below(4) as u8;
        let there = expected.logs.contains(&number);
        steps.push(match dice.below(4) {
            0 if there => Step::Delete(number),
            _ if there => Step::Aside(number),
            _ => Step::Create(number),
        });
    });
}

/// What is written is not to be lost before anything else is done that outlives a power cut, so that what is there afterwards
/// is a moment of the history.
pub(crate) fn power(judge: &Judge) {
    let mut device = Device::mounted().unwrap_or_else(|error| panic!("a disk could be mounted before: {error}"));
    let directory = device.at().join("data");
    let cut = || device.cut_power().unwrap_or_else(|error| panic!("the power cannot be cut: {error}"));
    let synced = |step: &Step| !matches!(step, Step::Order(..) | Step::Wait);
    interrupt_often(judge, &directory, synced, cut, |expected, dice, steps| {
        let model = &expected.model;
        let at = model.start + dice.below((model.end - model.start + 1) as u64) as i64;
        let value = dice.below(1 << 40).to_string();
        match dice.below(12) {
            0 => steps.extend([Step::Sync, Step::Prefix(at)]),
            1 if model.is_boundary(at) => steps.extend([Step::Sync, Step::Suffix(at)]),
            2 => steps.extend([Step::Sync, Step::Put(value.clone(), value)]),
            3 | 4 => steps.push(Step::Sync),
            _ => orders(expected, dice, steps),
        }
    });
}

/// Some runs at once.
pub(crate) fn orders(expected: &Expected, dice: &mut Dice, steps: &mut Vec<Step>) {
    let mut base = expected.model.end;
    let epoch = expected.model.last_epoch();
    for _ in 0..=dice.below(4) {
        let records = 1 + dice.below(5) as i64;
        let bytes = if dice.below(20) == 0 { 9000 } else { 1 + dice.below(400) as usize };
        steps.push(Step::Order(base, records, epoch, base, bytes));
        base += records;
    }
    steps.push(Step::Wait);
}

/// A writer, told everything; acknowledgements are read from it.
struct Writer {
    child: Child,
    done: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn told(command: &mut Command, steps: &[Step]) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("no process to write: {error}"));
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            panic!("the writer has no pipes");
        };
        let lines: String = steps.iter().map(|step| format!("{step}\n")).collect();
        // It may end before it has read everything, and is heard about then.
        let _it_may_be_gone = stdin.write_all(lines.as_bytes());
        Self { child, done: BufReader::new(stdout) }
    }

    /// Whether one more step is done.
    fn one_more(&mut self) -> bool {
        let mut line = String::new();
        self.done.read_line(&mut line).is_ok() && line == "done\n"
    }

    /// Kills it, and gives how many more steps it had said to be done.
    fn kill(mut self) -> usize {
        let _it_may_have_ended = self.child.kill();
        let mut more = 0;
        while self.one_more() {
            more += 1;
        }
        let _ended = self.child.wait();
        more
    }

    /// Waits for its end: steps done, and what it said if it did not do all.
    fn wait(mut self) -> (usize, String) {
        let mut done = 0;
        while self.one_more() {
            done += 1;
        }
        let words = match self.child.wait_with_output() {
            Ok(output) => {
                use std::os::unix::process::ExitStatusExt;
                if let Some(signal) = output.status.signal() {
                    panic!("after {done} steps the process was ended by signal {signal}");
                }
                String::from_utf8_lossy(&output.stderr).into_owned()
            }
            Err(error) => error.to_string(),
        };
        (done, words)
    }
}

/// Runs a writer to its end. Gives how many steps it did, and what it said about the one that it did not.
pub(crate) fn run_to_its_end(command: &mut Command, steps: &[Step]) -> (usize, String) {
    Writer::told(command, steps).wait()
}

/// Finds which of the moments from `acknowledged` on is what is there.
pub(crate) fn settle(moments: &[Expected], acknowledged: usize, found: &Snapshot) -> Result<Expected, String> {
    let possible = &moments[acknowledged..];
    let moment = possible.iter().rev().find(|moment| moment.snapshot() == *found);
    moment.cloned().ok_or_else(|| {
        let (least, most) = (moments[acknowledged].snapshot().told(), moments[moments.len() - 1].snapshot().told());
        format!("acknowledged was {least}; told was {most}; there is {}", found.told())
    })
}

/// As [`interrupt_often`], where only the process is killed.
fn kill_often(judge: &Judge, more: impl Fn(&Expected, &mut Dice, &mut Vec<Step>)) {
    let place = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory for temporary files: {error}"));
    // An order is acknowledged by the wait that follows, not by itself.
    let acknowledged = |step: &Step| !matches!(step, Step::Order(..));
    interrupt_often(judge, &place.path().join("data"), acknowledged, || {}, more);
}

/// Tells a writer what `more` chooses, kills it somewhere, does what else befalls its machine, and looks at what it has left;
/// many times. What is there must be what it was after the last step that is done and `sure`, or after a later one.
fn interrupt_often(
    judge: &Judge,
    directory: &Path,
    sure: impl Fn(&Step) -> bool,
    mut befall: impl FnMut(),
    more: impl Fn(&Expected, &mut Dice, &mut Vec<Step>),
) {
    let mut expected = Expected::default();
    for kill in 0..KILLS {
        let mut dice = Dice(kill);
        let (mut steps, mut moments) = (Vec::new(), vec![expected.clone()]);
        while (steps.len() as u64) < STEPS {
            let (mut next, before) = (Vec::new(), expected.clone());
            more(&before, &mut dice, &mut next);
            for step in next {
                expected.step(&step);
                moments.push(expected.clone());
                steps.push(step);
            }
        }
        let mut command = judge.again.command(&format!("writer {}", directory.display()));
        let mut writer = Writer::told(&mut command, &steps);
        let wanted = dice.below(steps.len() as u64 + 1) as usize;
        let mut acknowledged = 0;
        while acknowledged < wanted && writer.one_more() {
            acknowledged += 1;
        }
        if acknowledged < wanted {
            let why = writer.wait().1;
            panic!(
                "kill {kill}: after {acknowledged} steps the engine did not do {:?}: {why}",
                steps[acknowledged].to_string()
            );
        }
        thread::sleep(Duration::from_micros(dice.below(MICROSECONDS_MORE)));
        acknowledged += writer.kill();
        befall();
        let found = match Snapshot::of(&judge.subject, directory) {
            Ok(found) => found,
            Err(why) => panic!("kill {kill}: what is left after {acknowledged} steps cannot be opened: {why}"),
        };
        let sure = steps[..acknowledged].iter().rposition(&sure).map_or(0, |at| at + 1);
        expected = match settle(&moments, sure, &found) {
            Ok(expected) => expected,
            Err(why) => panic!("kill {kill}, after {acknowledged} steps: {why}"),
        };
    }
}
