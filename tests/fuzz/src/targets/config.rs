//! What a broker is told: a TOML file, environment variables, `--set key=value`.
//!
//! The input is text. What stands before the first line that begins with `@` is the file; each such line is a variable
//! (`@ENV NAME=value`) or an argument (`@SET key=value`). Every input gives a configuration or a list of problems, each
//! with words for what is wrong; and a configuration that is printed gives itself when it is read again.

use crate::target::{Seen, Target, about};
use chronik_api::config::{ENVIRONMENT_PREFIX, Loaded, Sources, load_text};

/// See the module's head.
pub struct Configurations;

fn read(text: &str, sources: &Sources) -> Result<Loaded, chronik_api::config::ConfigError> {
    load_text("chronik.toml", text, sources)
}

/// As a file that says everything: keys as `chronik config print` prints them, and behind them the tables of lists, whose
/// keys it numbers.
fn printed(loaded: &Loaded) -> String {
    let (mut keys, mut tables, mut table) = (String::new(), String::new(), String::new());
    for entry in loaded.entries() {
        match entry.key.rsplit_once("].") {
            None => keys.extend(entry.toml.map(|value| format!("{} = {value}\n", entry.key))),
            Some((at, key)) => {
                if at != table {
                    tables.push_str(&format!("[[{}]]\n", at.split('[').next().unwrap_or_default()));
                    at.clone_into(&mut table);
                }
                tables.extend(entry.toml.map(|value| format!("{key} = {value}\n")));
            }
        }
    }
    keys + &tables
}

impl Target for Configurations {
    fn name(&self) -> &'static str {
        "config"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let defaults = match read("", &Sources::default()) {
            Ok(loaded) => printed(&loaded),
            Err(why) => panic!("the defaults are wrong: {why}"),
        };
        let mut seeds = vec![
            defaults.clone(),
            "[node]\nid = 1\ndata_dir = \"/data\"\nrack = 'r'\n[[kafka.listeners]]\nname = \"in\"\nlisten = \"127.0.0.1:9092\"\n\
             [[kafka.listeners]]\nname = \"out\"\nlisten = \"0.0.0.0:9095\"\nadvertise = \"broker.example:9095\"\n"
                .into(),
            "node.id = 2\n[cluster]\nvoters = [\"1@127.0.0.1:9093\", \"2@127.0.0.1:9193\", \"3@127.0.0.1:9293\"]\n\
             [raft]\nlisten = \"127.0.0.1:9193\"\ntransport = \"tcp\"\n[replication]\nlisten = \"127.0.0.1:9194\"\n\
             transport = \"grpc\"\nlanes = 2\n"
                .into(),
            "[storage]\nengine = \"plugin\"\nplugin.path = \"/usr/lib/plain.so\"\nplugin.options = '{}'\n\
             plugin.sha256 = \"00\"\n[topics]\ndurability = \"replicated\"\nretention_ms = '2h'\n"
                .into(),
            "[storage]\nengine = 'memory'\n@ENV CHRONIK_NODE__ID=3\n@ENV HOME=/root\n@SET topics.default_partitions=4\n\
             @SET storage.memory.bytes=1GiB\n"
                .into(),
            "@ENV CHRONIK_CLUSTER__VOTERS=['1@h:9']\n@SET cluster.tls={ cert = 'a', key = 'b', ca = 'c' }\n".into(),
        ];
        // One line each, so that every key is near.
        seeds.extend(defaults.lines().map(|line| format!("{line}\n")));
        seeds.extend(defaults.lines().step_by(7).map(|line| format!("@SET {}\n", line.replace(" = ", "="))));
        // Some contradict others, or what is not there: they are for mutations to begin from, and need not be right.
        let is_right = |seed: &String| self.feed(seed.as_bytes()).is_taken;
        seeds.into_iter().filter(is_right).map(String::into_bytes).collect()
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let text = String::from_utf8_lossy(input);
        let (mut file, mut sources) = (String::new(), Sources::default());
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n').unwrap_or(line);
            if let Some(variable) = line.strip_prefix("@ENV ") {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                sources.environment.push((name.into(), value.into()));
            } else if let Some(set) = line.strip_prefix("@SET ") {
                sources.sets.push(set.into());
            } else {
                file.push_str(line);
                file.push('\n');
            }
        }
        match read(&file, &sources) {
            Ok(loaded) => {
                assert!(!loaded.config.listeners().is_empty(), "it has nothing to listen on");
                let print = printed(&loaded);
                let again = match read(&print, &Sources::default()) {
                    Ok(again) => again,
                    Err(why) => panic!("what is printed cannot be read again: {why}\n{print}"),
                };
                assert_eq!(again.config, loaded.config, "what is printed is read otherwise:\n{print}");
                let own = loaded.entries().into_iter().filter(|entry| entry.origin != "default");
                let keys: Vec<_> = own.map(|entry| entry.key).take(3).collect();
                Seen::taken((keys, sources.environment.len(), sources.sets.len()))
            }
            Err(error) => {
                assert!(!error.problems.is_empty(), "it is refused for nothing");
                for problem in &error.problems {
                    assert!(!problem.what.is_empty(), "a problem without words: {problem:?}");
                }
                assert!(!error.to_string().is_empty());
                let first = error.problems.first().map(|problem| {
                    let words: String = problem.what.chars().filter(|c| c.is_ascii_alphabetic()).take(24).collect();
                    (problem.key.chars().take(40).collect::<String>(), words)
                });
                Seen::refused((about(error.problems.len()), first), None)
            }
        }
    }

    fn words(&self) -> &[&'static [u8]] {
        debug_assert_eq!(ENVIRONMENT_PREFIX, "CHRONIK_");
        &[
            b"@ENV CHRONIK_",
            b"@SET ",
            b"__",
            b"[[kafka.listeners]]\n",
            b"[cluster]\n",
            b"[node]\n",
            b"[topics]\n",
            b" = ",
            b"\"127.0.0.1:9092\"",
            b"'1h'",
            b"1GiB",
            b"true",
            b"{}",
            b"[]",
            b"nan",
            b"1979-05-27T07:32:00Z",
            b"\"\"\"",
            b"'''",
            b"\\u0000",
            b"9223372036854775807",
            b"18446744073709551616",
        ]
    }

    fn input_bytes_max(&self) -> usize {
        2 * 1024
    }

    /// A TOML document and figment's layers of it are trees of small nodes, each with its name and its origin: some hundred
    /// bytes for a few of text, and there are three of them at once.
    fn more_memory_bytes(&self) -> usize {
        4 << 20
    }
}
