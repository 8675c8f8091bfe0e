//! The executable as a person at a terminal meets it: start it, do what it says, stop it, look at what it left.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const CHRONIK: &str = env!("CARGO_BIN_EXE_chronik");

/// A broker in a directory of its own, on free ports.
struct Broker {
    child: Child,
    /// Everything it printed up to and including the commands to type.
    greeting: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Broker {
    fn start(dir: &Path) -> Self {
        let settings = ["kafka.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "groups.initial_rebalance_delay_ms=0"];
        let arguments: Vec<&str> =
            ["serve"].into_iter().chain(settings.iter().flat_map(|set| ["--set", set])).collect();
        let mut child = chronik(dir, &arguments).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut greeting = String::new();
        while !greeting.contains("chronik consume") {
            assert_ne!(stdout.read_line(&mut greeting).expect("text"), 0, "it stopped after saying {greeting:?}");
        }
        Self { child, greeting, stdout }
    }

    /// What the greeting says behind a name.
    fn said(&self, name: &str) -> &str {
        let line = self.greeting.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {}", self.greeting)).trim()
    }

    fn commands(&self) -> Vec<String> {
        let lines = self.greeting.lines().map(str::trim);
        lines
            .filter(|line| line.starts_with("chronik ") && line.contains("--") || line.starts_with("echo"))
            .map(str::to_owned)
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(id, signal).expect("it runs");
    }

    /// Asks it to stop, and gives the exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let code = self.child.wait().expect("it ends").code();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        code
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone if the test stopped it; a failed test must not leave it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chronik(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(CHRONIK);
    command.args(arguments).current_dir(dir).env_remove("CHRONIK_BOOTSTRAP").env_remove("CHRONIK_CONFIG");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    chronik(dir, arguments).stdin(Stdio::null()).output().expect("it runs")
}

/// Standard output of a command that must succeed.
fn out(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Exit code and standard error of a command that must fail.
fn fails(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(dir, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The directory of the log that holds a record with this value.
fn only_log_with(dir: &Path, value: &str) -> PathBuf {
    let logs: Vec<serde_json::Value> =
        serde_json::from_str(&out(dir, &["log", "dump", "chronik-data", "--json"])).expect("JSON");
    let dirs = logs.iter().map(|log| PathBuf::from(log["directory"].as_str().expect("a path")));
    let holds = |log: &PathBuf| out(dir, &["log", "dump", "--records", &log.to_string_lossy()]).contains(value);
    dirs.into_iter().find(holds).expect("one log holds it")
}

#[test]
fn the_commands_that_the_greeting_prints_work_as_they_stand() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    let commands = broker.commands();
    assert_eq!(commands.len(), 3, "{}", broker.greeting);
    let beside = Path::new(CHRONIK).parent().expect("a directory");
    let path = std::env::join_paths(
        [beside.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let path = path.expect("directories");
    let mut printed = String::new();
    for mut command in commands {
        if command.starts_with("chronik consume") {
            command.push_str(" --exit-at-end");
        }
        let shell = Command::new("sh").args(["-c", &command]).env("PATH", &path).output().expect("a shell");
        assert!(shell.status.success(), "{command}: {}", String::from_utf8_lossy(&shell.stderr));
        printed = String::from_utf8(shell.stdout).expect("text");
    }
    assert_eq!(printed, "hello, world\n");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn records_outlive_a_stop_and_can_be_looked_at_without_the_broker() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    let bootstrap = broker.said("kafka").to_owned();
    let mut produce = chronik(dir.path(), &["produce", "orders", "-k", ":", "-c", "zstd", "--bootstrap", &bootstrap])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    produce.stdin.take().expect("piped").write_all(b"a:1\nb:2\nno key\n").expect("it reads");
    assert!(produce.wait().expect("it ends").success());
    assert_eq!(broker.stop(), Some(0));

    let log = only_log_with(dir.path(), "no key");
    let dumped = out(dir.path(), &["log", "dump", "--records", "--json", &log.to_string_lossy()]);
    let batch: serde_json::Value = serde_json::from_str(dumped.lines().next().expect("a batch")).expect("JSON");
    assert_eq!((&batch["compression"], &batch["records"][1]["key"]), (&"zstd".into(), &"b".into()));

    let broker = Broker::start(dir.path());
    let bootstrap = broker.said("kafka").to_owned();
    let consume = ["consume", "orders", "--from-beginning", "-e", "-f", "%o %k=%v\\n", "--bootstrap", &bootstrap];
    assert_eq!(out(dir.path(), &consume), "0 a=1\n1 b=2\n2 =no key\n");
    let described = out(dir.path(), &["topic", "describe", "orders", "--json", "--bootstrap", &bootstrap]);
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["partitions"][0]["high_watermark"], 3);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn topics_are_made_shown_and_deleted() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    let bootstrap = broker.said("kafka").to_owned();
    let topic = |arguments: &[&str]| run(dir.path(), &[&["topic"], arguments, &["--bootstrap", &bootstrap]].concat());
    assert!(topic(&["create", "orders", "-p", "2", "--config", "retention.ms=60000"]).status.success());
    let again = topic(&["create", "orders"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--if-not-exists"));
    assert!(topic(&["create", "orders", "--if-not-exists"]).status.success());
    let listed = topic(&["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("orders           2"), "{listed:?}");
    let described = topic(&["describe", "orders"]);
    assert!(String::from_utf8_lossy(&described.stdout).contains("retention.ms = 60000"), "{described:?}");
    assert!(topic(&["delete", "orders"]).status.success());
    assert_eq!(topic(&["describe", "orders"]).status.code(), Some(1));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_wrong_configuration_is_told_whole_and_starts_nothing() {
    let dir = directory();
    std::fs::write(dir.path().join("c.toml"), "[node]\nid = 'one'\n[kafak]\nlisten = 'x'\n").expect("written");
    let (code, said) = fails(dir.path(), &["--config", "c.toml", "--set", "limits.connections=0"]);
    assert_eq!(code, Some(2));
    for part in
        ["3 problems", "node.id must be a whole number", "c.toml:2", "Did you mean kafka?", "limits.connections"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!dir.path().join("chronik-data").exists());
}

#[test]
fn a_taken_port_and_a_taken_directory_are_told_with_what_to_do() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    let listen = format!("kafka.listen={}", broker.said("kafka"));
    let (code, said) = fails(dir.path(), &["--set", &listen, "--set", "admin.enabled=false"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("Another program listens there"), "{said}");
    let (code, said) = fails(dir.path(), &["--set", "kafka.listen=127.0.0.1:0", "--set", "admin.enabled=false"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("chronik-data"), "{said}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn nobody_there_and_nobody_reading_are_no_panics() {
    let dir = directory();
    let (code, said) = fails(dir.path(), &["topic", "list", "--bootstrap", "127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("Start a broker with `chronik`"), "{said}");
    let mut printing = chronik(dir.path(), &["config", "print", "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(printing.stdout.take());
    let output = printing.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}

#[test]
fn a_group_reads_each_record_once_and_its_lag_is_shown() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    let bootstrap = broker.said("kafka").to_owned();
    let there = ["--bootstrap", &bootstrap];
    out(dir.path(), &[&["topic", "create", "orders", "-p", "3"], &there[..]].concat());
    let lines: String = (0..100).map(|index| format!("key-{index}:{index}\n")).collect();
    std::fs::write(dir.path().join("lines"), lines).expect("written");
    out(dir.path(), &[&["produce", "orders", "-k", ":", "--file", "lines"], &there[..]].concat());
    let read = |more: &[&str]| {
        let consume: &[&str] = &["consume", "orders", "--group", "billing", "--from-beginning"];
        out(dir.path(), &[consume, more, &there].concat())
    };
    let lag = || {
        let shown = out(dir.path(), &[&["group", "describe", "billing", "--json"], &there[..]].concat());
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let partitions = shown["partitions"].as_array().expect("a list").clone();
        partitions.iter().map(|at| at["lag"].as_i64().expect("a number")).sum::<i64>()
    };
    let mut values: Vec<String> = read(&["-n", "30"]).lines().map(str::to_owned).collect();
    assert_eq!(values.len(), 30);
    values.extend(read(&["--exit-at-end"]).lines().map(str::to_owned));
    values.sort_by_key(|value| value.parse::<u32>().expect("a number"));
    assert_eq!(values, (0..100).map(|value| value.to_string()).collect::<Vec<_>>());
    assert_eq!(lag(), 0);
    assert!(out(dir.path(), &[&["group", "list"], &there[..]].concat()).contains("billing  Empty  consumer"));
    let (code, said) = fails(dir.path(), &[&["group", "describe", "nobody"], &there[..]].concat());
    assert!(code == Some(1) && said.contains("GROUP_ID_NOT_FOUND"), "{said}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_signal_that_comes_twice_at_once_still_stops_the_broker_in_order() {
    let dir = directory();
    let broker = Broker::start(dir.path());
    // As `timeout` does it: the process, and then the group that it is in.
    broker.signal(Signal::TERM);
    broker.signal(Signal::TERM);
    assert_eq!(broker.stop(), Some(0));
}
