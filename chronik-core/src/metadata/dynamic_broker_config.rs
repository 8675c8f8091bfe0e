//! Broker configurations that are altered while brokers run: under Kafka's names, for one broker, or for all that have none
//! of their own.
//!
//! [`DYNAMIC_BROKER_CONFIGS`] declares every name once; validation, description and the typed view ([`DynamicBrokerConfig`])
//! all read it. The cluster-wide defaults of topic configurations are altered in the same way and declared in
//! [`super::topic_config`]; what only a broker's configuration file says is in [`super::broker_config`].
//!
//! **Order of precedence**, as in Kafka: the broker's own value, the one for all brokers, the default.

use super::topic_config::{InvalidConfig, Kind, Valid, Value, parse};

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct DynamicBrokerConfigDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    pub documentation: &'static str,
}

impl DynamicBrokerConfigDef {
    pub fn parse(&self, text: &str) -> Result<Value, InvalidConfig> {
        parse(self.name, self.kind, self.valid, text)
    }
}

/// Kafka's word for "no limit".
const LONG_MAX: &str = "9223372036854775807";

/// In the order of their names.
pub static DYNAMIC_BROKER_CONFIGS: &[DynamicBrokerConfigDef] = &[
    DynamicBrokerConfigDef {
        name: "follower.replication.throttled.rate",
        kind: Kind::Long,
        default: LONG_MAX,
        valid: Valid::AtLeast(0),
        documentation: "How many bytes a second this broker takes from leaders for replicas that are not in sync and that \
                        their topics name in follower.replication.throttled.replicas.",
    },
    DynamicBrokerConfigDef {
        name: "leader.replication.throttled.rate",
        kind: Kind::Long,
        default: LONG_MAX,
        valid: Valid::AtLeast(0),
        documentation: "How many bytes a second this broker sends to replicas that are not in sync, of partitions that \
                        their topics name with it in leader.replication.throttled.replicas.",
    },
];

/// By name.
pub fn definition(name: &str) -> Option<&'static DynamicBrokerConfigDef> {
    DYNAMIC_BROKER_CONFIGS.binary_search_by(|def| def.name.cmp(name)).ok().map(|at| &DYNAMIC_BROKER_CONFIGS[at])
}

/// One broker's configurations with their values in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DynamicBrokerConfig {
    /// Bytes a second; `None`: no limit.
    pub leader_throttled_rate: Option<u64>,
    pub follower_throttled_rate: Option<u64>,
}

impl DynamicBrokerConfig {
    /// Reads every value from the text that is in effect; one that cannot be read, because a later release accepted it,
    /// counts as the default.
    pub fn resolve(text_of: impl Fn(&DynamicBrokerConfigDef) -> String) -> Self {
        let rate = |name: &str| {
            let number = definition(name).and_then(|def| def.parse(&text_of(def)).ok()).map(|value| value.as_i64());
            number.filter(|rate| *rate < i64::MAX).and_then(|rate| u64::try_from(rate).ok())
        };
        Self {
            leader_throttled_rate: rate("leader.replication.throttled.rate"),
            follower_throttled_rate: rate("follower.replication.throttled.rate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{broker_config, topic_config};
    use super::*;

    #[test]
    fn the_table_is_in_order_and_declares_nothing_that_is_declared_elsewhere() {
        assert!(DYNAMIC_BROKER_CONFIGS.is_sorted_by_key(|def| def.name), "look-ups are binary searches");
        for def in DYNAMIC_BROKER_CONFIGS {
            assert!(def.parse(def.default).is_ok(), "{}", def.name);
            assert!(broker_config::definition(def.name).is_none(), "{}", def.name);
            assert!(topic_config::definition_by_synonym(def.name).is_none(), "{}", def.name);
            assert!(def.documentation.ends_with('.'), "{}", def.name);
        }
    }

    #[test]
    fn values_in_effect_are_typed() {
        let config = DynamicBrokerConfig::resolve(|def| def.default.to_owned());
        assert_eq!(config, DynamicBrokerConfig::default(), "no limits");
        let config = DynamicBrokerConfig::resolve(|def| match def.name {
            "leader.replication.throttled.rate" => " 1000 ".into(),
            _ => "what a later release may mean".into(),
        });
        assert_eq!(config, DynamicBrokerConfig { leader_throttled_rate: Some(1_000), follower_throttled_rate: None });
        assert!(definition("leader.replication.throttled.rate").expect("there").parse("-1").is_err());
    }
}
