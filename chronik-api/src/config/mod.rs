//! Configuration: defaults, overridden by a TOML file, by `CHRONIK_…` environment variables, and by `--set key=value`.
//!
//! The sections are plain structs ([`Config`]) that anyone may fill by hand; [`load`] reads them from [`Sources`] and
//! refuses what it does not know or what cannot work, *all of it at once*, each problem with its key, its origin and a
//! suggestion. Nothing here looks at the machine: whether an address resolves is asked at start ([`reach`]).

mod address;
mod cluster;
mod later;
mod problem;
pub mod reach;
mod sections;
mod setting;
mod sources;
mod storage;
#[cfg(test)]
mod tests;
pub mod units;
mod validate;

pub use address::{AdvertisedAddress, ListenAddress, NotAnAddress};
pub use cluster::*;
pub use problem::{ConfigError, Problem};
pub use sections::*;
pub use sources::{ENVIRONMENT_PREFIX, Sources};
pub use storage::*;
pub use units::{ByteSize, Millis, Minutes, NotAQuantity};

use setting::Setting;
use std::collections::BTreeMap;

/// A configuration that was read, with the origin of what is not a default.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    origins: BTreeMap<String, String>,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Full path, like `kafka.listen`.
    pub key: String,
    /// A bare number in the key's unit, a string, or null where unset.
    pub value: serde_json::Value,
    /// As a TOML file would say it; `None` where unset.
    pub toml: Option<String>,
    /// `default`, `chronik.toml:4`, `environment variable CHRONIK_…`, `--set …`.
    pub origin: String,
    pub documentation: String,
}

/// Reads and checks everything.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    read(sources.layers())
}

/// As [`load`], with the text of a file that is called `name` in place of the one that the sources name.
pub fn load_text(name: &str, text: &str, sources: &Sources) -> Result<Loaded, ConfigError> {
    read(sources.layers_over(Some((name.to_owned(), Ok(text.to_owned())))))
}

fn read((figment, lines, mut problems): sources::Layers) -> Result<Loaded, ConfigError> {
    let mut report = problem::Report::new(&figment, &lines);
    let mut config = Config::default();
    let values = figment::Provider::data(&figment)
        .map_err(|why| ConfigError {
            problems: vec![Problem {
                key: String::new(),
                origin: "the configuration".into(),
                what: format!("cannot be put together: {why}"),
                suggestion: None,
            }],
        })?
        .remove(&figment::Profile::Default)
        .unwrap_or_default();
    config.merge("", &figment::value::Value::from(values), None, &mut report);
    problems.append(&mut report.problems);
    let mut origins = report.origins;
    if config.storage.engine == Engine::Memory && !origins.contains_key("topics.durability") {
        config.topics.durability = Durability::Replicated;
        origins.insert("topics.durability".into(), "follows from storage.engine".into());
    }
    let wrong: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    for conflict in config.conflicts(&|key| origins.contains_key(key)) {
        // Where a key could not be read its former value stands, and what follows from that is no news.
        let concerns = |wrong: &String| conflict.keys.iter().any(|key| wrong == key || within(wrong, key));
        if !wrong.iter().any(concerns) {
            problems.push(conflict.into_problem(&origins));
        }
    }
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(ConfigError { problems }) }
}

/// Whether the key lies in the table or list `outer`.
fn within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']))
}

impl Loaded {
    /// Every key with its effective value, in the order of the documentation.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.config.visit("", &[], &mut |shown| {
            entries.push(Entry {
                key: shown.key.to_owned(),
                value: shown.json,
                toml: shown.toml,
                origin: self.origins.get(shown.key).cloned().unwrap_or_else(|| "default".into()),
                documentation: shown.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
            });
        });
        entries
    }
}

impl Config {
    /// This node is one of several.
    pub fn is_cluster(&self) -> bool {
        !self.cluster.voters.0.is_empty()
    }

    /// Where Kafka clients connect, whichever way it was written. Never empty.
    pub fn listeners(&self) -> Vec<Listener> {
        if self.kafka.listeners.is_empty() {
            let (listen, advertise) = (self.kafka.listen.clone(), self.kafka.advertise.clone());
            return vec![Listener { name: "kafka".into(), listen, advertise }];
        }
        self.kafka.listeners.clone()
    }

    /// Checks what [`load`] checks besides the single keys: for a configuration filled by hand.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let none = BTreeMap::new();
        let problems: Vec<_> = self.conflicts(&|_| true).into_iter().map(|found| found.into_problem(&none)).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}
