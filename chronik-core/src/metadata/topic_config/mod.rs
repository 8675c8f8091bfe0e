//! Topic configurations: Kafka's names, types, defaults and bounds, and what they mean here.
//!
//! [`table::TOPIC_CONFIGS`] declares every name once; parsing, validation, description and the typed view
//! ([`TopicConfig`]) all read it. A value is kept as the text it was given in, as Kafka does, and parsed where it is used.
//!
//! **Order of precedence**, as in Kafka: the topic's own value, the cluster-wide one set at run time, the one in the
//! configuration file, the default.

mod effective;
mod table;
mod value;

pub use effective::{CleanupPolicy, CompressionPolicy, Durability, ThrottledReplicas, TopicConfig};
pub use table::{Synonym, TOPIC_CONFIGS, TopicConfigDef, Unit, definition, definition_by_synonym};
pub use value::{Kind, Valid, Value, is_engine_name, split_list};

use std::collections::BTreeMap;

/// A name and what is wrong with it or its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    #[error("Invalid value {value} for configuration {name}: {why}")]
    BadValue { name: String, value: String, why: String },
    /// Two values that cannot go together, or one that cannot be served.
    #[error("{0}")]
    Conflict(String),
    #[error("{name} is said when a topic is created and cannot be altered: it is {value}")]
    Fixed { name: &'static str, value: String },
    #[error("Null value not supported for topic configs: {0}")]
    NullValue(String),
}

/// Reads the value of a configuration that is declared so.
pub fn parse(name: &str, kind: Kind, valid: Valid, text: &str) -> Result<Value, InvalidConfig> {
    value::parse(kind, valid, text).map_err(|why| InvalidConfig::BadValue {
        name: name.to_owned(),
        value: text.to_owned(),
        why,
    })
}

/// Checks a topic's own configurations, alone and together with what they fall back to.
///
/// `fallback` gives the text that applies where the topic says nothing ([`super::Image::topic_default`]).
pub fn check(
    overrides: &BTreeMap<String, String>,
    fallback: impl Fn(&TopicConfigDef) -> String,
) -> Result<(), InvalidConfig> {
    for (name, text) in overrides {
        check_one(name, text)?;
    }
    check_together(|def| overrides.get(def.name).cloned().unwrap_or_else(|| fallback(def)))
}

/// Checks one name and its value.
pub fn check_one(name: &str, text: &str) -> Result<(), InvalidConfig> {
    let def = definition(name).ok_or_else(|| InvalidConfig::UnknownName(name.to_owned()))?;
    def.parse(text).map(drop)
}

/// Rules between configurations. Kafka's, apart from tiered storage, which is refused as Kafka refuses it where it is
/// disabled.
pub fn check_together(text_of: impl Fn(&TopicConfigDef) -> String) -> Result<(), InvalidConfig> {
    let read = |name: &str| {
        let def = definition(name).expect("the names below are in the table, which a test proves");
        def.parse(&text_of(def))
    };
    let (min_lag, max_lag) = (read("min.compaction.lag.ms")?.as_i64(), read("max.compaction.lag.ms")?.as_i64());
    if min_lag > max_lag {
        return Err(InvalidConfig::Conflict(format!(
            "conflict topic config setting min.compaction.lag.ms ({min_lag}) > max.compaction.lag.ms ({max_lag})"
        )));
    }
    if read("remote.storage.enable")?.as_bool() {
        return Err(InvalidConfig::Conflict(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                .into(),
        ));
    }
    for flag in ["remote.log.delete.on.disable", "remote.log.copy.disable"] {
        if read(flag)?.as_bool() {
            return Err(InvalidConfig::Conflict(format!("{flag} needs remote.storage.enable, which is not available")));
        }
    }
    Ok(())
}

/// Whether what is fixed stays what it was.
pub fn check_fixed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Result<(), InvalidConfig> {
    for def in TOPIC_CONFIGS.iter().filter(|def| def.fixed) {
        let of = |configs: &BTreeMap<String, String>| {
            configs.get(def.name).map_or(def.default, |text| text.trim()).to_owned()
        };
        if of(before) != of(after) {
            return Err(InvalidConfig::Fixed { name: def.name, value: of(before) });
        }
    }
    Ok(())
}

/// What is fixed in `before`, for whoever names all that is to be and cannot mean it to go.
pub fn fixed(before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_fixed = |name: &String| definition(name).is_some_and(|def| def.fixed);
    before.iter().filter(|(name, _)| is_fixed(name)).map(|(name, text)| (name.clone(), text.clone())).collect()
}

/// The text that applies where nobody has set anything. Internal configurations are absent then, which is an empty text.
pub fn table_default(def: &TopicConfigDef) -> String {
    if def.internal { String::new() } else { def.default.to_owned() }
}
