//! Where settings come from, in the order in which they override each other: the file, the environment, `--set`.
//!
//! Each file, variable and argument is a layer of its own in the figment, so that every value knows who set it.

use super::problem::{Problem, all_keys};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// What precedes every environment variable that sets a key; `__` stands for the dot.
pub const ENVIRONMENT_PREFIX: &str = "CHRONIK_";

/// Parts between the dots of a key from the environment or from `--set`. Ours have four at most, and Kafka's, which are
/// answered with ours, have seven. Each part is a table in a table, and whoever looks at them goes as deep: thousands
/// would cost memory by their square, and the stack. (TOML's reader has a bound of its own.)
const KEY_PARTS_MAX: usize = 16;

/// Settings on top of each other, where those of the file stand, and what cannot be read.
pub(super) type Layers = (Figment, Lines, Vec<Problem>);

/// What a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables and their values; those that do not begin with [`ENVIRONMENT_PREFIX`] are passed over.
    pub environment: Vec<(String, String)>,
    /// `key=value` each; later ones override earlier ones.
    pub sets: Vec<String>,
}

impl Sources {
    /// The given file and settings, and this process's environment.
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let ours = |(name, value)| (text(name), text(value));
        let environment = std::env::vars_os().map(ours).filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
        Self { file, environment: environment.collect(), sets }
    }

    /// All of them on top of each other, and what cannot even be read.
    pub(super) fn layers(&self) -> Layers {
        self.layers_over(self.file.as_ref().map(|path| (path.display().to_string(), std::fs::read_to_string(path))))
    }

    /// As [`Sources::layers`], over a file that has been read already: its name, and its text.
    pub(super) fn layers_over(&self, file: Option<(String, io::Result<String>)>) -> Layers {
        let mut figment = Figment::new();
        let mut lines = Lines::default();
        let mut problems = Vec::new();
        if let Some((name, text)) = file {
            match text {
                Ok(text) => figment = figment.merge(read_file(name, &text, &mut lines, &mut problems)),
                Err(why) => problems.push(unreadable(name, format!("cannot be read: {why}"))),
            }
        }
        for (name, value) in &self.environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let origin = format!("environment variable {name}");
            if rest.contains("__") {
                let key = rest.to_ascii_lowercase().replace("__", ".");
                match Layer::single(origin, &key, value) {
                    Ok(layer) => figment = figment.merge(layer),
                    Err(problem) => problems.push(problem),
                }
            } else if let Some(key) = all_keys().iter().find(|key| key.replace('.', "_").eq_ignore_ascii_case(rest)) {
                // A name without `__` cannot be a key, and container platforms set such names (CHRONIK_SERVICE_HOST …),
                // so it is passed over, unless only the second underscore is missing.
                let variable = format!("{ENVIRONMENT_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"));
                let what = format!("is not what sets {key}");
                let suggestion = Some(format!("Write {variable}, with two underscores between section and key."));
                problems.push(Problem { suggestion, ..unreadable(origin, what) });
            }
        }
        for set in &self.sets {
            match set.split_once('=') {
                Some((key, value)) if key.split('.').all(|part| !part.trim().is_empty()) => {
                    let key = key.trim();
                    match Layer::single(format!("--set {key}"), key, value) {
                        Ok(layer) => figment = figment.merge(layer),
                        Err(problem) => problems.push(problem),
                    }
                }
                _ => problems.push(unreadable(format!("--set {set}"), "must be written key=value".into())),
            }
        }
        (figment, lines, problems)
    }
}

fn unreadable(origin: String, what: String) -> Problem {
    Problem { key: String::new(), origin, what, suggestion: None }
}

/// One source with its name.
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    /// A single key, from text. Lists and tables are written as in TOML; all else is text that the key's type reads.
    fn single(name: String, key: &str, text: &str) -> Result<Self, Problem> {
        let parts = key.split('.').count();
        if parts > KEY_PARTS_MAX {
            return Err(unreadable(name, format!("has {parts} parts, and no key has more than {KEY_PARTS_MAX}")));
        }
        let structured = || {
            let mut table = toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?;
            Value::serialize(table.remove("value")?).ok()
        };
        let value = if text.trim_start().starts_with(['[', '{']) { structured() } else { None };
        let value = value.unwrap_or_else(|| Value::from(text));
        let values = figment::util::nest(key, value).into_dict().unwrap_or_default();
        Ok(Self { name, values })
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// In which line of which file each key stands.
#[derive(Debug, Default)]
pub(super) struct Lines {
    file: String,
    /// Where its lines end.
    ends: Vec<usize>,
    of_key: BTreeMap<String, usize>,
}

impl Lines {
    /// `None` if the source is not a file.
    pub fn line_of(&self, source: &str, key: &str) -> Option<usize> {
        if source == self.file { self.of_key.get(key).copied() } else { None }
    }

    /// Of a file that is about to be read.
    fn of(text: &str) -> Self {
        Self { ends: text.match_indices('\n').map(|(at, _)| at).collect(), ..Self::default() }
    }

    /// The line in which this byte stands, counted from one.
    fn line_at(&self, byte: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < byte)
    }

    fn note(&mut self, at: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = if at.is_empty() { name.get_ref().to_string() } else { format!("{at}.{}", name.get_ref()) };
            self.note_value(&key, name.span().start, value.get_ref());
        }
    }

    fn note_value(&mut self, key: &str, start: usize, value: &DeValue<'_>) {
        self.of_key.insert(key.to_owned(), self.line_at(start));
        match value {
            DeValue::Table(table) => self.note(key, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note_value(&format!("{key}[{index}]"), item.span().start, item.get_ref());
                }
            }
            _ => {}
        }
    }
}

/// Reads a TOML file. Where it is no TOML every mistake is told, and none of its keys counts.
fn read_file(name: String, text: &str, lines: &mut Lines, problems: &mut Vec<Problem>) -> Layer {
    let (table, mistakes) = DeTable::parse_recoverable(text);
    let mut values = Dict::new();
    *lines = Lines::of(text);
    if mistakes.is_empty() {
        lines.file.clone_from(&name);
        lines.note("", table.get_ref());
        match toml::from_str::<toml::Table>(text).map(Value::serialize) {
            Ok(Ok(value)) => values = value.into_dict().unwrap_or_default(),
            Ok(Err(why)) => problems.push(unreadable(name.clone(), format!("cannot be read: {why}"))),
            Err(why) => problems.push(unreadable(name.clone(), format!("is not TOML: {}", why.message()))),
        }
    }
    for mistake in mistakes {
        let place = mistake.span().map_or(name.clone(), |span| format!("{name}:{}", lines.line_at(span.start)));
        problems.push(unreadable(place, format!("is not TOML: {}", mistake.message())));
    }
    Layer { name, values }
}
