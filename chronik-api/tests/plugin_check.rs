//! `chronik plugin new` and `check`: what is begun keeps every rule, and a plug-in that is wrong in one way is told by a rule
//! of the class that it breaks.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};
use tempfile::TempDir;

const CHRONIK: &str = env!("CARGO_BIN_EXE_chronik");

/// One at a time: each judges in as many processes as the machine has processors.
static TURN: Mutex<()> = Mutex::new(());

fn place() -> TempDir {
    tempfile::tempdir().expect("a directory for temporary files is there")
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Compiles one C source, with those of the example beside it.
fn compile(file: &Path, into: &Path) {
    let compiled = Command::new("cc")
        .args(["-std=c11", "-O1", "-w", "-fPIC", "-shared", "-pthread", "-I"])
        .arg(file.parent().expect("in a directory"))
        .arg("-I")
        .arg(source("plugins/abi/include"))
        .arg("-I")
        .arg(source("plugins/examples/plain-c"))
        .arg(file)
        .arg("-o")
        .arg(into)
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler named cc builds {}", file.display());
}

/// Judges; gives the exit code and what was said in JSON.
fn check(library: &Path, options: &str, rules: &[&str]) -> (Option<i32>, Value) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(CHRONIK);
    command.args(["plugin", "check", "--json", "--no-bench", "--engine-options", options]).arg(library);
    command.args(rules.iter().flat_map(|rule| ["--rule", rule]));
    let output = command.output().expect("chronik runs");
    let told = serde_json::from_slice(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), told.unwrap_or_else(|why| panic!("no JSON ({why}), but: {words}")))
}

/// Names of the rules with this verdict, and why.
fn with_verdict(told: &Value, verdict: &str) -> Vec<(String, String)> {
    let rules = told["rules"].as_array().cloned().unwrap_or_default();
    let wanted = rules.iter().filter(|rule| rule["verdict"] == verdict);
    wanted.map(|rule| (rule["rule"].as_str().unwrap_or("").into(), rule["why"].as_str().unwrap_or("").into())).collect()
}

static WRONG: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let place = place();
    let library = place.path().join("kit.so");
    compile(&source("plugins/check/tests/wrong/kit.c"), &library);
    (place, library)
});

#[test]
fn a_project_that_is_begun_in_c_builds_and_keeps_every_rule() {
    let place = place();
    let chronik = |arguments: &[&str]| {
        let output = Command::new(CHRONIK).args(arguments).current_dir(place.path()).output().expect("chronik runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(chronik(&["plugin", "new", "mine"]), (Some(0), String::new()));
    let made = Command::new("make").arg("-C").arg("mine").current_dir(place.path()).output().expect("make runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (code, told) = check(&place.path().join("mine/mine.so"), "{}", &[]);
    assert_eq!(with_verdict(&told, "broken"), []);
    assert_eq!(code, Some(0));
    assert_eq!(told["engine"]["name"], "mine");
    assert!(with_verdict(&told, "kept").len() > 65, "{told:#}");
    assert!(told["not_checked"].as_array().is_some_and(|not| !not.is_empty()));

    let (code, words) = chronik(&["plugin", "new", "mine"]);
    assert!(code == Some(1) && words.contains("cannot make mine"), "nothing that is there is written over: {words}");
    let (code, words) = chronik(&["plugin", "new", "../mine"]);
    assert!(code == Some(2) && words.contains("no name for an engine"), "{words}");
    let (code, words) = chronik(&["plugin", "new", "other", "--lang", "rust"]);
    assert!(code == Some(2) && words.contains("--sdk"), "{words}");
}

/// Its library and all that this depends on are built anew, which takes minutes: not among what is quick.
#[test]
#[ignore = "builds a project of its own, optimised"]
fn a_project_that_is_begun_in_rust_builds_and_keeps_every_rule() {
    let place = place();
    let sdk = source("plugins/sdk");
    let new = Command::new(CHRONIK)
        .args(["plugin", "new", "mine", "--lang", "rust", "--sdk"])
        .arg(&sdk)
        .current_dir(place.path())
        .output()
        .expect("chronik runs");
    assert!(new.status.success(), "{}", String::from_utf8_lossy(&new.stderr));
    // The versions that the workspace is tested with, not those of the day.
    fs::copy(source("Cargo.lock"), place.path().join("mine/Cargo.lock")).expect("the workspace is locked");
    let made = Command::new("make").arg("-C").arg("mine").current_dir(place.path()).output().expect("make runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (code, told) = check(&place.path().join("mine/mine.so"), "{}", &[]);
    assert_eq!(with_verdict(&told, "broken"), []);
    assert_eq!((code, &told["engine"]["name"]), (Some(0), &Value::from("mine")));
    assert!(with_verdict(&told, "kept").len() > 50, "{told:#}");
}

/// Of an example in Rust, as Cargo builds it beside its dependents' tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a file");
    let file = format!("libchronik_plugin_{name}{}", std::env::consts::DLL_SUFFIX);
    let library = test.parent().expect("in a directory").join(file);
    assert!(library.exists(), "{} is built", library.display());
    library
}

/// Killed processes, damaged files and failed writes are what an embedded database is there for; here it has to prove it.
#[test]
fn the_engine_on_an_embedded_database_keeps_every_rule() {
    let (code, told) = check(&example("fjall"), "{\"cache_bytes\": 1048576}", &[]);
    assert_eq!(with_verdict(&told, "broken"), []);
    assert_eq!((code, &told["engine"]["survives"]), (Some(0), &Value::from("power loss")));
}

#[test]
fn the_built_in_engine_keeps_every_rule_as_a_plugin_too() {
    let (code, told) = check(&example("segment"), "{}", &[]);
    assert_eq!(with_verdict(&told, "broken"), []);
    assert_eq!((code, &told["engine"]["survives"]), (Some(0), &Value::from("power loss")));
}

#[test]
fn a_plugin_that_is_wrong_is_told_by_a_rule_of_the_class_that_it_breaks() {
    for (fault, rule, words) in [
        ("needs its own sizes", "p02_newer_host", "did not start"),
        ("needs a newer host", "p10_older_host", "did not start"),
        ("reads into one buffer", "p03_buffers_stay", ""),
        ("takes signals", "p04_signals", "lets signals through"),
        ("changes directory", "p05_process", "the working directory"),
        ("changes the umask", "p05_process", "the umask"),
        ("changes the locale", "p05_process", "the locale"),
        ("handles signals", "p05_process", "signals that are caught"),
        ("forks", "p05_process", "child processes"),
        ("forgets reads when many wait", "p08_cancelled", "have ended"),
        ("waits in calls", "p09_returns_soon", "\"sync\""),
        ("leaks files", "p06_leaks", "more open files"),
        ("one engine only", "p07_engines_apart", ""),
        ("deletes nothing", "e06_delete_is_for_good", ""),
        ("sets nothing aside", "e12_set_aside", ""),
        ("forgets what was set aside", "k05_killed_setting_aside", "acknowledged was"),
        ("throws away what it sets aside", "d04_damaged_set_aside", "runs are gone that its files had still held"),
        ("opens what it sets aside", "d04_damaged_set_aside", "what is left is not set aside"),
        ("tells a wrong end", "a04_out_of_order", ""),
        ("reads from the start", "r06_from_every_offset", ""),
        ("keeps the suffix", "c01_truncate_suffix", ""),
        ("forgets on opening", "s01_reopen", ""),
        ("syncs nothing", "t05_sync_writes", "was asked to sync"),
        ("sets values later", "k03_killed_values", "acknowledged was"),
        ("crashes", "a03_completes_when_written", "signal 11"),
        ("forgets on opening", "s03_reopen_engine", ""),
        ("forgets on opening", "s04_killed", ""),
        ("forgets on opening", "k01_killed_appending", "acknowledged was"),
        ("keeps the suffix", "k02_killed_changing", ""),
        ("deletes nothing", "k04_killed_creating", ""),
        ("leaves to the kernel", "k06_power_cut", "acknowledged was"),
        ("ignores failed writes", "d03_failed_writes", "could not grow any more"),
        ("ignores failed writes", "d05_full_device", "device"),
    ] {
        let (code, told) = check(&WRONG.1, &format!("{{\"fault\": \"{fault}\"}}"), &[rule]);
        let broken = with_verdict(&told, "broken");
        let noticed = matches!(broken.as_slice(), [(name, why)] if name == rule && why.contains(words));
        assert!(noticed && code == Some(1), "{rule} does not notice an engine that {fault}: {told:#}");
    }
    let (code, told) = check(&WRONG.1, "{\"fault\": \"ends the process\"}", &[]);
    let broken = with_verdict(&told, "broken");
    assert!(
        code == Some(1)
            && matches!(broken.as_slice(), [(name, why)] if name == "p01_loads" && why.contains("has ended the process"))
    );
}

#[test]
fn files_that_are_not_checked_are_told_by_the_rules_about_damage() {
    let place = place();
    let right = fs::read_to_string(source("plugins/examples/plain-c/plain.c")).expect("the example is there");
    let build = |name: &str, changes: &[(&str, &str)]| {
        let mut text = right.clone();
        for (from, to) in changes {
            assert_eq!(right.matches(from).count(), 1, "the example has changed: {from}");
            text = text.replace(from, to);
        }
        let file = place.path().join(name);
        fs::write(&file, text).expect("written");
        let library = file.with_extension("so");
        compile(&file, &library);
        library
    };
    let broken_alone = |library: &Path, rule: &str, words: &str| {
        let (code, told) = check(library, "{}", &[rule]);
        let broken = with_verdict(&told, "broken");
        let noticed = matches!(broken.as_slice(), [(name, why)] if name == rule && why.contains(words));
        assert!(noticed && code == Some(1), "{told:#}");
    };
    let no_sums = ("return ~crc;", "(void)at; return 0;");
    broken_alone(&build("sums.c", &[no_sums]), "d02_flipped_bytes", "changed in one bit");
    // A run whose end is gone has an end of zeros.
    let fills_up = (
        "head.len <= size - at - sizeof head;",
        "(head.len <= size - at - sizeof head || !ftruncate(log->fd, (off_t)(size = at + sizeof head + head.len)));",
    );
    broken_alone(&build("fills.c", &[no_sums, fills_up]), "d01_cut_files", "cut off");
}

#[test]
fn what_is_no_plugin_is_told_in_a_sentence_and_nothing_else_is_judged() {
    let place = place();
    let file = place.path().join("text.so");
    fs::write(&file, "no library").expect("written");
    let (code, told) = check(&file, "{}", &[]);
    let broken = with_verdict(&told, "broken");
    assert!(
        matches!(broken.as_slice(), [(name, why)] if name == "p01_loads" && why.contains("is not a shared library"))
    );
    assert_eq!((code, told["rules"].as_array().map(Vec::len)), (Some(1), Some(1)));
}

/// The commands of the guide's section for C, in their order.
fn guide() -> String {
    let text = fs::read_to_string(source("plugins/README.md")).expect("the guide is there");
    let from = text.find("## From nothing to a checked engine").expect("the guide has its section");
    let section = &text[from..];
    let section = &section[..section.find("\n## In Rust").expect("another section follows")];
    let blocks: Vec<_> = section.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```")).collect();
    assert!(blocks.len() >= 4, "the guide has its commands");
    blocks.into_iter().map(|(commands, _)| commands).collect()
}

#[test]
fn the_guide_leads_from_nothing_to_a_record_in_a_checked_engine() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place();
    // Where the guide's reader has the usual port, this machine may have something else.
    let free =
        || std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let (kafka, admin) = (free().to_string(), free().to_string());
    let beside = Path::new(CHRONIK).parent().expect("in a directory").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([beside].into_iter().chain(std::env::split_paths(&path))).expect("a path");
    // Wherever it ends, its broker ends with it; and it ends.
    let script = format!("trap 'kill $! 2>/dev/null || :' EXIT\n{}", guide());
    let output = Command::new("timeout")
        .args(["240", "sh", "-e", "-c", &script])
        .current_dir(place.path())
        .env("PATH", path)
        .env("CHRONIK_KAFKA__LISTEN", &kafka)
        .env("CHRONIK_ADMIN__LISTEN", &admin)
        .env("CHRONIK_BOOTSTRAP", &kafka)
        .output()
        .expect("a shell runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{words}");
    for part in [
        "mine/ holds an engine that works",
        "rules kept, 0 broken",
        "d02_flipped_bytes is broken",
        "so it is no engine to be used",
        "plugin mine 1.0.0",
        "\nhello, world\n",
        "chronik.storage.survives = power-loss",
    ] {
        assert!(said.contains(part), "{part:?} is not said: {said}\n{words}");
    }
}
