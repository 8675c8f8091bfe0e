//! Writers in other languages: their command `sequence` (`clients/python/story.py` describes it).

use super::{KEYS, PARTITIONS, TOPIC, Written};
use crate::client::{self, Running};
use crate::cluster::Cluster;

/// The clients that have the command.
pub const NAMES: [&str; 2] = ["java", "franz-go"];

/// A client program that writes as long as it is let.
pub struct Other {
    name: &'static str,
    running: Running,
}

/// All that this machine can have; each has begun to write when this returns.
pub fn start(cluster: &Cluster) -> Vec<Other> {
    let (keys, partitions) = (KEYS.to_string(), PARTITIONS.to_string());
    let begin = |name: &'static str| {
        let mut options = vec![("topic", TOPIC), ("name", name), ("keys", &keys), ("partitions", &partitions)];
        if name == "java" {
            // A node that is paused is given up as soon as the other clients do.
            options.extend([("idempotent", "true"), ("request-timeout-ms", "10000")]);
        }
        Some(Other { name, running: client::client(name)?.start("sequence", &cluster.bootstrap(), &options) })
    };
    let all: Vec<Other> = NAMES.into_iter().filter_map(begin).collect();
    for other in &all {
        other.running.wait_for("something acknowledged", |events| {
            events.iter().any(|event| event["event"] == "acknowledged").then_some(())
        });
    }
    all
}

impl Other {
    /// It writes no more, and all is answered.
    pub fn finish(self) -> Written {
        let events = self.running.leave();
        let refused: Vec<_> = events.iter().filter(|event| event["event"] == "refused").take(5).collect();
        assert!(refused.is_empty(), "{}: refused, though there was time enough: {refused:?}", self.name);
        let place = |event: &serde_json::Value| {
            let number = |name: &str| event[name].as_i64().expect("a number");
            (number("value") as u64, (number("partition") as i32, number("offset")))
        };
        let acknowledged = events.iter().filter(|event| event["event"] == "acknowledged").map(place).collect();
        Written { name: self.name, acknowledged, renumbered: 0 }
    }
}
