//! All rules, each in a process of its own, several at a time.

use crate::rules::{Needs, Rule, rules};
use crate::subject::{Apart, may_mount, whole};
use crate::{Again, Subject};
use chronik_core::wal::{Survives, WalEngine};
use chronik_plugin_host::{CAP_SET_ASIDE, PluginInfo};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// A judge gives up by itself before; one that does not is taken along by its plug-in.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(180);
/// More than this at a time take each other's disk.
const AT_A_TIME_MAX: usize = 8;
/// What is kept of a judge's words.
const WORDS_BYTES_MAX: u64 = 16 << 10;
/// What a judge says last on standard output, so that a plug-in that ends its process is not taken for one that keeps a rule.
pub const KEPT: &str = "kept\n";

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    /// In the words of the judge.
    Broken(String),
    /// The engine does not promise what the rule is about.
    NotPromised,
    /// This kit cannot tell.
    NotChecked,
}

/// What is judged, as it says itself.
#[derive(Clone, Debug)]
pub struct Introduced {
    pub info: PluginInfo,
    pub survives: Survives,
    pub segments: bool,
    pub run_bytes_max: usize,
}

/// What a plug-in is, where it loads, and every verdict in the order of the rules.
pub type Told = (Option<Introduced>, Vec<(Rule, Verdict)>);

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("this program cannot be started again to judge")]
    Judge(#[from] io::Error),
    #[error("{0}")]
    Unusable(String),
}

impl Introduced {
    /// In a line, for the process that judges: fields parted by tabs, the text last.
    pub fn line(&self) -> String {
        let Self { info, survives, segments, run_bytes_max } = self;
        let survives = *survives as u8;
        let plain = |text: &str| text.replace(['\t', '\n'], " ");
        format!(
            "{survives}\t{}\t{run_bytes_max}\t{}\t{}\t{}\t{}\t{}",
            u8::from(*segments),
            info.abi_major,
            info.abi_minor,
            info.capabilities,
            plain(&info.name),
            plain(&info.version)
        )
    }

    /// Whether the engine says that it has what a rule needs.
    fn promises(&self, needs: Needs) -> bool {
        let (sets_aside, lasts) = (self.info.capabilities & CAP_SET_ASIDE != 0, self.survives != Survives::Nothing);
        match needs {
            Needs::Nothing => true,
            Needs::PowerCut => self.survives == Survives::PowerLoss,
            Needs::Process | Needs::Device => lasts,
            Needs::Segments => self.segments,
            Needs::SetAside => sets_aside,
            Needs::SetAsideProcess => sets_aside && lasts,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.trim_end_matches('\n').split('\t').collect();
        let [survives, segments, run_bytes_max, major, minor, capabilities, name, version] = *fields.as_slice() else {
            return None;
        };
        let is = |one: Survives| survives == (one as u8).to_string();
        Some(Self {
            info: PluginInfo {
                name: name.to_owned(),
                version: version.to_owned(),
                abi_major: major.parse().ok()?,
                abi_minor: minor.parse().ok()?,
                capabilities: capabilities.parse().ok()?,
            },
            survives: [Survives::Nothing, Survives::Process, Survives::PowerLoss].into_iter().find(|one| is(*one))?,
            segments: segments == "1",
            run_bytes_max: run_bytes_max.parse().ok()?,
        })
    }
}

/// Starts an engine in this process, to ask it what it promises.
///
/// # Errors
/// What keeps the broker from using it.
pub fn introduce(subject: &Subject) -> Result<Introduced, TrialError> {
    let place = tempfile::tempdir()?;
    let engine = subject.start(&place.path().join("data")).map_err(|error| TrialError::Unusable(whole(&error)))?;
    let is = engine.capabilities();
    let introduced = Introduced {
        info: engine.info().clone(),
        survives: is.survives,
        segments: is.segments,
        run_bytes_max: is.run_bytes_max,
    };
    let _what_it_leaves_is_not_needed = futures::executor::block_on(engine.close());
    Ok(introduced)
}

/// As [`introduce`], in a process of its own: what a plug-in does to its process is not to befall the judges.
fn introduced(again: &Again) -> Result<Introduced, TrialError> {
    let ended = ended(again.command("introduce").stdin(Stdio::null()))?;
    let line = ended.and_then(|(_, said, _)| Introduced::parse(&said));
    line.ok_or_else(|| {
        TrialError::Unusable("the engine has started once, but does not say what it promises".to_owned())
    })
}

/// Whether an engine starts where devices may be mounted. Whose file a library is may look different there.
fn may_be_apart(again: &Again, apart: Apart) -> bool {
    let there = || ended(again.apart(apart, "introduce").stdin(Stdio::null())).ok().flatten();
    may_mount(apart) && there().is_some_and(|(status, said, _)| status.success() && Introduced::parse(&said).is_some())
}

/// Judges all rules whose name begins with one of `only` (all if that is empty). The first rule decides whether there is
/// anything to judge: where it is broken, the others are not tried, and nothing is introduced.
///
/// # Errors
/// Where this program cannot be started again.
pub fn all(again: &Again, only: &[String]) -> Result<Told, TrialError> {
    let every = rules();
    let Some((first, rest)) = every.split_first() else { return Ok((None, Vec::new())) };
    let loads = judged(again, first)?;
    if loads != Verdict::Kept {
        return Ok((None, vec![(*first, loads)]));
    }
    let introduced = introduced(again)?;
    let chosen: Vec<_> = rest
        .iter()
        .filter(|rule| only.is_empty() || only.iter().any(|prefix| rule.name.starts_with(prefix.as_str())))
        .collect();
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let at_a_time = thread::available_parallelism().map_or(2, usize::from).min(AT_A_TIME_MAX);
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(rule) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = match rule.needs {
                        needs if !introduced.promises(needs) => Ok(Verdict::NotPromised),
                        needs if apart(needs).is_some_and(|apart| !may_be_apart(again, apart)) => {
                            Ok(Verdict::NotChecked)
                        }
                        _ => judged(again, rule),
                    };
                    verdicts.lock().unwrap_or_else(PoisonError::into_inner).push((**rule, verdict));
                }
            });
        }
    });
    let mut told = vec![(*first, loads)];
    let place = |rule: &Rule| every.iter().position(|one| one.name == rule.name);
    let mut judged = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    judged.sort_by_key(|(rule, _)| place(rule));
    for (rule, verdict) in judged {
        told.push((rule, verdict?));
    }
    Ok((Some(introduced), told))
}

/// Where a rule must be judged, if not anywhere.
fn apart(needs: Needs) -> Option<Apart> {
    match needs {
        Needs::Device => Some(Apart::Memory),
        Needs::PowerCut => Some(Apart::Disk),
        _ => None,
    }
}

/// Judges one rule in a process of its own.
fn judged(again: &Again, rule: &Rule) -> Result<Verdict, TrialError> {
    let part = format!("rule {}", rule.name);
    let mut command = apart(rule.needs).map_or_else(|| again.command(&part), |apart| again.apart(apart, &part));
    let Some((status, said, words)) = ended(command.stdin(Stdio::null()))? else {
        return Ok(Verdict::Broken(format!("the process has not ended within {JUDGE_TIMEOUT:?}, and was killed")));
    };
    if status.success() && said.ends_with(KEPT) {
        return Ok(Verdict::Kept);
    }
    let sentence = format!("broken: {}", rule.says);
    let mut words: Vec<_> =
        words.lines().map(str::trim).filter(|line| !line.is_empty() && *line != sentence).map(str::to_owned).collect();
    match status.signal() {
        Some(signal) => words.push(format!("the process was ended by signal {signal}")),
        None if status.success() => words.push("the plug-in has ended the process".to_owned()),
        None => {}
    }
    words.dedup();
    Ok(Verdict::Broken(words.join("\n")))
}

/// Runs a command to its end, with what it said. `None` if it had to be killed.
fn ended(command: &mut Command) -> io::Result<Option<(ExitStatus, String, String)>> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (said, heard) = channel();
    let listen = |pipe: Option<Box<dyn Read + Send>>| {
        let said = said.clone();
        thread::spawn(move || {
            let mut all = Vec::new();
            if let Some(mut pipe) = pipe {
                let _what_came_counts = pipe.by_ref().take(WORDS_BYTES_MAX).read_to_end(&mut all);
                // The rest is not kept, but a process must be able to say it.
                let _nobody_reads = io::copy(&mut pipe, &mut io::sink());
            }
            let _ended = said.send(());
            String::from_utf8_lossy(&all).into_owned()
        })
    };
    let out = listen(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = listen(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    // A process ends when both its pipes do. Children that its plug-in forked may hold them: then it is late.
    for _ in 0..2 {
        if heard.recv_timeout(JUDGE_TIMEOUT).is_err() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
    let status = child.wait()?;
    let text = |listener: thread::JoinHandle<String>| listener.join().unwrap_or_default();
    Ok(Some((status, text(out), text(err))))
}
