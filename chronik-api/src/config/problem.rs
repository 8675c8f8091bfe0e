//! What is wrong with a configuration: every problem at once, each with its key, where it came from, and what to do.

use super::later;
use super::setting::Setting;
use super::sources::Lines;
use figment::Figment;
use figment::value::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full path of the key, like `kafka.listen`; empty where the source as a whole cannot be read.
    pub key: String,
    /// `chronik.toml:4`, `environment variable CHRONIK_KAFKA__LISTEN`, `--set kafka.listen`; empty for a default.
    pub origin: String,
    /// Continues the sentence that the key begins.
    pub what: String,
    /// What to write instead, where that can be guessed.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), self.origin.is_empty()) {
            (true, _) => write!(f, "{} {}", self.origin, self.what)?,
            (false, true) => write!(f, "{} {}", self.key, self.what)?,
            (false, false) => write!(f, "{} {} (from {})", self.key, self.what, self.origin)?,
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "\n      {suggestion}"),
            None => Ok(()),
        }
    }
}

/// A configuration that cannot be used, and all the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has a problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

/// Collects, while the sources are read, what is wrong and where each key came from.
pub(super) struct Report<'a> {
    figment: &'a Figment,
    lines: &'a Lines,
    pub problems: Vec<Problem>,
    /// The keys that some source set.
    pub origins: BTreeMap<String, String>,
}

impl<'a> Report<'a> {
    pub fn new(figment: &'a Figment, lines: &'a Lines) -> Self {
        Self { figment, lines, problems: Vec::new(), origins: BTreeMap::new() }
    }

    /// Notes that `value` now counts for the key.
    pub fn taken(&mut self, key: &str, value: &Value) {
        self.origins.insert(key.to_owned(), self.origin(key, value));
    }

    pub fn wrong(&mut self, key: &str, value: &Value, what: String) {
        let origin = self.origin(key, value);
        self.problems.push(Problem { key: key.to_owned(), origin, what, suggestion: None });
    }

    /// A key that its table does not have; `siblings` are those it has.
    pub fn unknown(&mut self, key: &str, value: &Value, siblings: &[&str]) {
        if let Some(sentence) = later::sentence(key) {
            return self.wrong(key, value, sentence.to_owned());
        }
        // Keys that Kafka writes with dots arrive as tables in tables: `log.dirs` is the key `dirs` of the table `log`.
        let mut leaves = Vec::new();
        collect_leaves(key, value, &mut leaves);
        for (key, leaf) in leaves {
            let what = match key.rsplit_once('.') {
                Some((table, _)) => format!("is no key that [{table}] has"),
                None => "is no section".to_owned(),
            };
            let suggestion = later::kafka_name(&key)
                .map(|ours| format!("Kafka's {} is {ours} here.", key.replace('_', ".")))
                .or_else(|| nearest(&key, siblings).map(|near| format!("Did you mean {near}?")));
            let origin = self.origin(&key, leaf);
            self.problems.push(Problem { key, origin, what, suggestion });
        }
    }

    fn origin(&self, key: &str, value: &Value) -> String {
        let name = self.figment.get_metadata(value.tag()).map_or(String::new(), |from| from.name.to_string());
        match self.lines.line_of(&name, key) {
            Some(line) => format!("{name}:{line}"),
            None => name,
        }
    }
}

/// The single values below an unknown key: where Kafka's dotted name is known they are reported one by one, otherwise
/// the unknown table is one problem.
fn collect_leaves<'v>(key: &str, value: &'v Value, leaves: &mut Vec<(String, &'v Value)>) {
    if let Value::Dict(_, table) = value {
        let mut below = Vec::new();
        for (name, value) in table {
            collect_leaves(&format!("{key}.{name}"), value, &mut below);
        }
        if below.iter().any(|(key, _)| later::kafka_name(key).is_some()) {
            leaves.append(&mut below);
            return;
        }
    }
    leaves.push((key.to_owned(), value));
}

/// In words, for "not …".
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

/// The key that was probably meant: one of the same table if any is near, else one of any table.
fn nearest(key: &str, siblings: &[&str]) -> Option<String> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let near = |candidate: &str| {
        // A third of the letters may differ; one of them always may.
        let most = (name.len().max(candidate.len()) / 3).max(1);
        // Who is that much longer need not be compared letter by letter: of a very long name that would take a while.
        let is_near = name.chars().count().abs_diff(candidate.chars().count()) <= most;
        is_near.then(|| strsim::damerau_levenshtein(name, candidate)).filter(|distance| *distance <= most)
    };
    let of_table = siblings.iter().filter_map(|sibling| near(sibling).map(|distance| (distance, *sibling))).min();
    if let Some((_, sibling)) = of_table {
        return Some(if table.is_empty() { sibling.to_owned() } else { format!("{table}.{sibling}") });
    }
    all_keys()
        .iter()
        .filter_map(|known| {
            let last = known.rsplit_once('.').map_or(known.as_str(), |(_, last)| last);
            near(last).map(|distance| (distance, known))
        })
        .min()
        .map(|(_, known)| known.clone())
}

/// Every key there is, with its full path.
pub(super) fn all_keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut keys = Vec::new();
        super::Config::default().visit("", &[], &mut |shown| keys.push(shown.key.to_owned()));
        keys
    });
    &KEYS
}
