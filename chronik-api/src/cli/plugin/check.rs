//! `chronik plugin check`: the rules and their verdicts as a table or as JSON.
//!
//! This program starts itself again for every rule ([`chronik_plugin_check`]); what it is then told is the last argument,
//! which is no part of the command line that people use.

use super::super::output::{Failure, Table, print_json, printable};
use chronik_core::wal::Survives;
use chronik_plugin_check::trial::{self, Introduced, Verdict};
use chronik_plugin_check::{Again, NOT_CHECKED, Rule, Subject, bench, judge, writer};
use clap::Args;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;

#[derive(Args, Debug)]
pub(in crate::cli) struct CheckArgs {
    /// The shared library
    file: PathBuf,
    /// What the engine is told, a JSON object, as in storage.plugin.options
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    engine_options: String,
    /// Judge only rules whose name begins so, like --rule k01; may be given many times
    #[arg(long, value_name = "PREFIX")]
    rule: Vec<String>,
    /// Do not measure
    #[arg(long)]
    no_bench: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What this process is to do for another that judges
    #[arg(hide = true)]
    part: Option<String>,
}

pub(super) fn run(args: CheckArgs) -> Result<(), Failure> {
    let library = std::path::absolute(&args.file)
        .map_err(|why| Failure::usage(format!("{} is no path: {why}", args.file.display())))?;
    let is_object = serde_json::from_str::<Value>(&args.engine_options).is_ok_and(|json| json.is_object());
    if !is_object {
        return Err(Failure::usage("--engine-options is not a JSON object; write it like '{\"key\": 1}'"));
    }
    let subject = Subject { library, options: args.engine_options.clone() };
    let program =
        std::env::current_exe().map_err(|why| Failure::failed(format!("cannot start myself again: {why}")))?;
    let arguments = ["plugin".into(), "check".into(), "--engine-options".into(), args.engine_options.into()];
    let file = subject.library.clone().into_os_string();
    let again = Again { program, arguments: arguments.into_iter().chain([file]).collect() };
    if let Some(part) = args.part {
        return play(&subject, &again, &part);
    }
    let (introduced, told) =
        trial::all(&again, &args.rule).map_err(|why| Failure::failed(chronik_plugin_check::whole(&why)))?;
    let broken = told.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).count();
    // What breaks rules is not measured: it might take this process along.
    let measured = match &introduced {
        Some(is) if broken == 0 && !args.no_bench => {
            Some(bench::beside_built_in(&subject, &is.info.name).map_err(Failure::failed)?)
        }
        _ => None,
    };
    let mut out = io::stdout().lock();
    if args.json {
        print_json(&mut out, &as_json(&subject, introduced.as_ref(), &told, measured.as_deref()))?;
    } else {
        print(&mut out, &subject, introduced.as_ref(), &told, measured.as_deref())?;
    }
    match broken {
        0 => Ok(()),
        1 => Err(Failure::failed("one rule is broken")),
        _ => Err(Failure::failed(format!("{broken} rules are broken"))),
    }
}

/// Does one part of another process's judging, and ends this process: a plug-in may keep it from ending in order.
fn play(subject: &Subject, again: &Again, part: &str) -> Result<(), Failure> {
    let said = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .try_init();
    if let Err(why) = said {
        return Err(Failure::failed(format!("nobody would hear what the plug-in says: {why}")));
    }
    if part == "introduce" {
        let is = trial::introduce(subject).map_err(|why| Failure::failed(chronik_plugin_check::whole(&why)))?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", is.line()).and_then(|()| out.flush())?;
        exit(0);
    }
    match part.split_once(' ') {
        Some(("rule", name)) => {
            if !judge::one(subject, again, name) {
                exit(1);
            }
            let mut out = io::stdout().lock();
            out.write_all(trial::KEPT.as_bytes()).and_then(|()| out.flush())?;
            exit(0);
        }
        Some(("writer", directory)) => match writer::serve(subject, Path::new(directory)) {
            Ok(()) => exit(0),
            Err(why) => {
                let _nobody_may_read = writeln!(io::stderr(), "{why}");
                exit(1);
            }
        },
        _ => Err(Failure::usage(format!("unexpected argument {:?}", printable(part)))),
    }
}

fn survives(is: Survives) -> &'static str {
    match is {
        Survives::PowerLoss => "power loss",
        Survives::Process => "process",
        Survives::Nothing => "nothing",
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Broken(_) => "BROKEN",
        Verdict::NotPromised => "not promised",
        Verdict::NotChecked => "not checked",
    }
}

fn as_json(
    subject: &Subject,
    introduced: Option<&Introduced>,
    told: &[(Rule, Verdict)],
    measured: Option<&[bench::Measured]>,
) -> Value {
    let rules = told.iter().map(|(rule, verdict)| {
        let why = match verdict {
            Verdict::Broken(why) => Some(why),
            _ => None,
        };
        json!({
            "rule": rule.name,
            "says": rule.says,
            "verdict": word(verdict).to_lowercase(),
            "why": why,
        })
    });
    let engine = introduced.map(|is| {
        json!({
            "name": is.info.name,
            "version": is.info.version,
            "abi": format!("{}.{}", is.info.abi_major, is.info.abi_minor),
            "survives": survives(is.survives),
            "segments": is.segments,
            "run_bytes_max": is.run_bytes_max,
        })
    });
    let bench = measured.map(|all| {
        let one = |one: &bench::Measured| {
            json!({
                "engine": one.engine,
                "append_64k_mib_per_s": one.append_mib_per_s,
                "append_200_per_s": one.small_appends_per_s,
                "append_and_sync_per_s": one.syncs_per_s,
                "read_mib_per_s": one.read_mib_per_s,
            })
        };
        all.iter().map(one).collect::<Vec<_>>()
    });
    json!({
        "file": subject.library.display().to_string(),
        "engine": engine,
        "rules": rules.collect::<Vec<_>>(),
        "bench": bench,
        "not_checked": NOT_CHECKED,
    })
}

fn print(
    out: &mut dyn Write,
    subject: &Subject,
    introduced: Option<&Introduced>,
    told: &[(Rule, Verdict)],
    measured: Option<&[bench::Measured]>,
) -> Result<(), Failure> {
    writeln!(out, "{}", subject.library.display())?;
    if let Some(is) = introduced {
        let (name, version) = (printable(&is.info.name), printable(&is.info.version));
        let (major, minor) = (is.info.abi_major, is.info.abi_minor);
        writeln!(out, "{name} {version}, interface {major}.{minor}, survives: {}\n", survives(is.survives))?;
    }
    let mut table = Table::new(&["RULE", "VERDICT", "WHAT MUST HOLD"]);
    for (rule, verdict) in told {
        table.row([&rule.number(), &word(verdict), &rule.says]);
    }
    table.print(out)?;
    for (rule, verdict) in told {
        let Verdict::Broken(why) = verdict else { continue };
        writeln!(out, "\n{} is broken: {}", rule.name, rule.says)?;
        for line in why.lines() {
            writeln!(out, "    {}", printable(line))?;
        }
    }
    if let Some(measured) = measured {
        writeln!(out)?;
        let mut table =
            Table::new(&["ENGINE", "#APPEND 64K MiB/s", "#APPEND 200 B/s", "#APPEND+SYNC/s", "#READ MiB/s"]);
        for one in measured {
            let whole = |number: f64| format!("{number:.0}");
            table.row([
                &one.engine,
                &whole(one.append_mib_per_s),
                &whole(one.small_appends_per_s),
                &whole(one.syncs_per_s),
                &whole(one.read_mib_per_s),
            ]);
        }
        table.print(out)?;
    }
    writeln!(out, "\nNot checked here:")?;
    for what in NOT_CHECKED {
        writeln!(out, "  {what}")?;
    }
    let kept = told.iter().filter(|(_, verdict)| *verdict == Verdict::Kept).count();
    let broken = told.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).count();
    writeln!(out, "\n{kept} rules kept, {broken} broken, {} not judged", told.len() - kept - broken)?;
    Ok(())
}
