//! Client programs in other languages, driven by the same commands (described in `clients/python/story.py`).
//!
//! `tests/run` prepares them under `.cache`. What it could not prepare it names in `CHRONIK_E2E_WITHOUT` after having said so
//! loudly; anything else that is missing fails the test that wants it.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far above what any command or event takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Every client program.
pub const ALL: [&str; 8] =
    ["librdkafka", "confluent-kafka", "kafka-python", "aiokafka", "kafkajs", "franz-go", "sarama", "java"];

/// Those that could be prepared on this machine.
pub fn all() -> Vec<Client> {
    ALL.into_iter().filter_map(client).collect()
}

#[derive(Clone, Debug)]
pub struct Client {
    pub name: &'static str,
    words: Vec<String>,
    node_path: PathBuf,
}

/// The folder of this package's own sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where `tests/run` puts what it prepares.
pub fn cache() -> PathBuf {
    std::env::var_os("CHRONIK_E2E_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"), PathBuf::from)
}

/// True if `tests/run` said that this machine does not have it.
pub fn is_missing(name: &str) -> bool {
    let without = std::env::var("CHRONIK_E2E_WITHOUT").unwrap_or_default();
    let missing = without.split_whitespace().any(|word| word == name);
    if missing {
        eprintln!("NOT RUN: {name} could not be prepared here");
    }
    missing
}

/// A prepared client; none if `tests/run` said that this machine cannot have it.
pub fn client(name: &'static str) -> Option<Client> {
    if is_missing(name) {
        return None;
    }
    let path = |path: PathBuf| {
        assert!(path.exists(), "{name} is not prepared ({} is missing): ./tests/run does that", path.display());
        path.display().to_string()
    };
    let python = |file: &str| vec![path(cache().join("python/bin/python")), path(sources().join("python").join(file))];
    let words = match name {
        "librdkafka" => vec![path(beside_tests("librdkafka-client"))],
        "confluent-kafka" => python("confluent_client.py"),
        "kafka-python" => python("kafka_python_client.py"),
        "aiokafka" => python("aiokafka_client.py"),
        "kafkajs" => {
            path(cache().join("node/node_modules/kafkajs"));
            vec!["node".into(), path(sources().join("node/kafkajs_client.js"))]
        }
        "franz-go" => vec![path(cache().join("go/franzgo"))],
        "sarama" => vec![path(cache().join("go/saramago"))],
        "java" => java("chronik.e2e.JavaClient"),
        _ => panic!("no such client: {name}"),
    };
    Some(Client { name, words, node_path: cache().join("node/node_modules") })
}

/// The words that start a Java class of the prepared class path. `CHRONIK_E2E_JAVA_LOG` says how much it tells of itself, which
/// is shown when a test fails: "error" unless it says "warn" or "info".
pub fn java(class: &str) -> Vec<String> {
    let path = cache().join("java");
    let jars = std::fs::read_to_string(path.join("classpath.txt"))
        .unwrap_or_else(|_| panic!("java is not prepared: ./tests/run does that"));
    let class_path = format!("{}:{}", path.join("classes").display(), jars.trim());
    // Short programs: the quick compiler and the small collector start fastest.
    let options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"];
    let log_level = std::env::var("CHRONIK_E2E_JAVA_LOG").unwrap_or_else(|_| "error".into());
    let mut words = vec!["java".to_string()];
    words.extend(options.map(String::from));
    words.push(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"));
    words.extend(["-cp".into(), class_path, class.into()]);
    words
}

fn beside_tests(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    this.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps").join(name)
}

/// What a program printed, once it ended.
#[derive(Debug)]
pub struct Output {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, with `input` on its standard input.
pub fn run(words: &[String], input: &[u8]) -> Output {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    finish(&words.join(" "), command, input)
}

fn finish(what: &str, mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let read = |stream: Option<Box<dyn Read + Send>>| {
        let mut stream = stream.expect("piped above");
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = read(child.stderr.take().map(|s| Box::new(s) as _));
    // A program that ends early closes this end: that shows in what it printed.
    let _ = child.stdin.take().expect("piped above").write_all(input);
    let end = Instant::now() + PATIENCE;
    let ok = loop {
        if let Some(status) = child.try_wait().expect("the child's status") {
            break status.success();
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            let (out, err) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            panic!("{what}: does not end\n{out}\n{err}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { ok, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() }
}

impl Client {
    fn command(&self, command: &str, bootstrap: &str, options: &[(&str, &str)]) -> Command {
        let mut program = Command::new(&self.words[0]);
        program.args(&self.words[1..]).arg(command).arg("--bootstrap").arg(bootstrap);
        for (name, value) in options {
            program.arg(format!("--{name}")).arg(value);
        }
        program.env("NODE_PATH", &self.node_path).env("PYTHONDONTWRITEBYTECODE", "1");
        program
    }

    /// Runs a command to its end and gives its lines of output, one JSON object each.
    pub fn run(&self, command: &str, bootstrap: &str, options: &[(&str, &str)]) -> Vec<Value> {
        let what = format!("{} {command} {options:?}", self.name);
        let output = finish(&what, self.command(command, bootstrap, options), b"");
        assert!(output.ok, "{what} failed:\n{}\n{}", output.stdout, output.stderr);
        output
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{what} printed {line:?}")))
            .collect()
    }

    /// Starts a command that runs until told otherwise.
    pub fn start(&self, command: &str, bootstrap: &str, options: &[(&str, &str)]) -> Running {
        let name = format!("{} {command}", self.name);
        let mut program = self.command(command, bootstrap, options);
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = program.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = Arc::new(Told::default());
        let (out, err) = (process.stdout.take().expect("piped above"), process.stderr.take().expect("piped above"));
        let readers = vec![told.clone().follow(out, true), told.clone().follow(err, false)];
        Running { orders: process.stdin.take(), name, process, told, readers }
    }
}

#[derive(Default)]
struct Told {
    state: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    events: Vec<Value>,
    noise: String,
    ended: bool,
}

impl Told {
    fn follow(self: Arc<Self>, stream: impl Read + Send + 'static, is_output: bool) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut state = self.state.lock().expect("no holder of it panics");
                match serde_json::from_str(&line) {
                    Ok(event) if is_output => state.events.push(event),
                    _ => state.noise.push_str(&(line + "\n")),
                }
                self.more.notify_all();
            }
            if is_output {
                self.state.lock().expect("no holder of it panics").ended = true;
                self.more.notify_all();
            }
        })
    }
}

/// A client program at work.
pub struct Running {
    pub name: String,
    process: Child,
    orders: Option<ChildStdin>,
    told: Arc<Told>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until what the program has printed so far satisfies `look`, and gives what `look` made of it.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&[Value]) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut state = self.told.state.lock().expect("no holder of it panics");
        loop {
            if let Some(found) = look(&state.events) {
                return found;
            }
            if state.ended || Instant::now() > end {
                let tail = &state.events[state.events.len().saturating_sub(40)..];
                let tail: Vec<_> = tail.iter().map(Value::to_string).collect();
                let (name, noise) = (&self.name, state.noise.clone());
                drop(state);
                panic!("{name}: waiting for {what}, which did not come\n{}\n{noise}", tail.join("\n"));
            }
            state = self.told.more.wait_timeout(state, Duration::from_millis(200)).expect("no holder of it panics").0;
        }
    }

    pub fn events(&self) -> Vec<Value> {
        self.told.state.lock().expect("no holder of it panics").events.clone()
    }

    /// Waits until the member's newest assignment has this many partitions, and gives them.
    pub fn wait_for_partitions(&self, count: usize) -> BTreeSet<(String, i64)> {
        self.wait_for(&format!("{count} partitions"), |events| {
            let held = assignment(events)?;
            (held.len() == count).then_some(held)
        })
    }

    /// What the member holds now.
    pub fn partitions(&self) -> BTreeSet<(String, i64)> {
        assignment(&self.events()).unwrap_or_default()
    }

    /// Tells a group member to leave, and waits until it has.
    pub fn leave(mut self) -> Vec<Value> {
        let mut orders = self.orders.take().expect("told only once");
        let _ = orders.write_all(b"leave\n");
        drop(orders);
        self.wait_for("having left", |events| events.iter().any(|e| e["event"] == "left").then_some(()));
        self.end(false)
    }

    /// Waits for the program's own end.
    pub fn finish(mut self) -> Vec<Value> {
        self.orders = None;
        self.wait_for("the end", |events| events.iter().any(|e| e["event"] == "produced").then_some(()));
        self.end(false)
    }

    /// Ends a member without a word, as a crash does.
    pub fn kill(mut self) -> Vec<Value> {
        self.end(true)
    }

    fn end(&mut self, at_once: bool) -> Vec<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        while !at_once && Instant::now() < end && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.events()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(true);
        if std::thread::panicking() {
            let state = self.told.state.lock().expect("no holder of it panics");
            let tail: Vec<_> = state.events.iter().rev().take(12).rev().map(Value::to_string).collect();
            eprintln!("-- {}:\n{}\n{}", self.name, tail.join("\n"), state.noise);
        }
    }
}

/// What a member holds after these events. An assignment is told whole; what is revoked after it is gone, which not every
/// client tells by another assignment.
fn assignment(events: &[Value]) -> Option<BTreeSet<(String, i64)>> {
    let mut held: Option<BTreeSet<(String, i64)>> = None;
    for event in events {
        let pairs = event["partitions"].as_array().into_iter().flatten();
        let named = pairs.filter_map(|pair| Some((pair[0].as_str()?.to_string(), pair[1].as_i64()?)));
        match (event["event"].as_str(), &mut held) {
            (Some("assigned"), _) => held = Some(named.collect()),
            (Some("revoked"), Some(held)) => named.for_each(|one| _ = held.remove(&one)),
            _ => {}
        }
    }
    held
}
