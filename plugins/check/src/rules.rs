//! Every rule, in the order in which they are told.

use crate::{damage, judge, killed, process};
use chronik_conformance::wal;

/// What a rule needs of an engine to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// That written data outlives the process.
    Process,
    /// The capability `CK_CAP_SEGMENTS`.
    Segments,
    /// The capability `CK_CAP_SET_ASIDE`.
    SetAside,
    /// The same, and that written data outlives the process.
    SetAsideProcess,
    /// That written data outlives the process, and that whoever judges may mount a device of its own.
    Device,
    /// That synced data outlives a power cut, and that whoever judges may mount a disk whose power can be cut.
    PowerCut,
}

/// One sentence of the contract: what an engine's author must see to.
#[derive(Clone, Copy)]
pub struct Rule {
    /// A letter and a number, then words.
    pub name: &'static str,
    pub says: &'static str,
    pub needs: Needs,
    pub(crate) check: Check,
}

/// How to tell. A rule is broken where this panics.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// The suite's rule of the same name.
    Suite,
    Own(fn(&judge::Judge)),
}

impl Rule {
    /// The letter and the number.
    pub fn number(&self) -> &'static str {
        self.name.split('_').next().unwrap_or(self.name)
    }
}

/// Rules of this kit: a name, what it needs, the sentence and the test.
macro_rules! own_rules {
    ($($name:ident, $needs:ident: $says:literal, $check:path;)*) => {
        &[$(Rule { name: stringify!($name), says: $says, needs: Needs::$needs, check: Check::Own($check) }),*]
    };
}

const OWN: &[Rule] = own_rules! {
    p01_loads, Nothing: "the file loads, its table can be used, and an engine starts and closes", process::loads;
    p02_newer_host, Nothing: "a host of a later minor version, whose structs are larger, is served like any other, and finds \
        what others have left", process::newer_host;
    p03_buffers_stay, Nothing: "what a read has handed out stays as it is until it is released, also after log and engine are \
        closed", process::buffers_stay;
    p04_signals, Nothing: "threads of the plug-in block all signals", process::signals;
    p05_process, Nothing: "working directory, umask, locale and signal handlers of the process are left alone, and nothing is \
        forked",
        process::process_is_left_alone;
    p06_leaks, Nothing: "a log that is closed and released keeps no file open, no thread and no handed-out memory",
        process::leaks;
    p07_engines_apart, Nothing: "engines over different directories know nothing of each other", process::engines_apart;
    p08_cancelled, Nothing: "calls that nobody waits for any more end like others, before their log is closed, and do no harm",
        process::cancelled;
    p09_returns_soon, Nothing: "calls with a log return soon, also those that wait for the disk: it is waited for on threads of \
        the plug-in", process::returns_soon;
    p10_older_host, Nothing: "a host of an earlier minor version, which knows less, is served like any other, and finds what \
        others have left", process::older_host;
    k01_killed_appending, Process: "what an append has completed is there after SIGKILL, and what was on its way is there up to \
        some run, whole", killed::appending;
    k02_killed_changing, Process: "a truncation or reset that SIGKILL interrupts has happened whole or not at all",
        killed::changing;
    k03_killed_values, Process: "small values that SIGKILL interrupts are all set or none", killed::values;
    k04_killed_creating, Process: "a log that is created or deleted when the call returns stays so after SIGKILL",
        killed::creating;
    k05_killed_setting_aside, SetAsideProcess: "a log that SIGKILL interrupts while it is set aside is as it was, or is there no \
        more; one that is set aside when the call returns stays so", killed::setting_aside;
    k06_power_cut, PowerCut: "what a sync, a truncation or small values have completed is there after a power cut, and what was \
        not synced is there up to some run, whole", killed::power;
    d01_cut_files, Process: "files that are cut off give what came before, or an error: never other bytes", damage::cut;
    d02_flipped_bytes, Process: "a byte that has changed in a file is noticed: never are other bytes given for what was stored",
        damage::flipped;
    d03_failed_writes, Process: "a write that fails is told, and what was acknowledged before is there after opening again",
        damage::failed_writes;
    d04_damaged_set_aside, SetAsideProcess: "a log that cannot be opened any more, for its files have changed, can be set aside: \
        it is kept, and one that begins anew is in its place", damage::set_aside;
    d05_full_device, Device: "a device that is full is told, what was acknowledged is there after opening again, and where there \
        is room the log takes more", damage::full_device;
};

/// Every rule: those of the storage suite, and those of this kit.
pub fn rules() -> Vec<Rule> {
    let needs = |name: &str| match name {
        "s03_reopen_engine" | "s04_killed" => Needs::Process,
        "c12_segments" | "c13_retention" => Needs::Segments,
        "e12_set_aside" => Needs::SetAside,
        _ => Needs::Nothing,
    };
    let (first, rest) = OWN.split_at(10);
    // What cuts the power of a running engine knows when it writes: a simulated disk does. Here it is rule k06 that does it.
    let suite = wal::rules().filter(|rule| rule.name != "s05_power_cut").map(|rule| Rule {
        name: rule.name,
        says: rule.says,
        needs: needs(rule.name),
        check: Check::Suite,
    });
    first.iter().copied().chain(suite).chain(rest.iter().copied()).collect()
}
