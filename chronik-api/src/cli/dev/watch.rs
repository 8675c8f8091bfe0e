//! What happens in a cluster, told in lines: the difference between two looks at it.

use crate::cli::client::{Client, ClientError, To};
use chronik_proto_kafka::api::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use chronik_proto_kafka::api::metadata::MetadataResponse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// Lines about one topic in one look; more are summed up.
const LINES_MAX: usize = 6;

/// What was seen of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    leader: i32,
    in_sync: Vec<i32>,
    replicas: usize,
}

/// What was seen of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    nodes: BTreeSet<i32>,
    controller: Option<(i32, i32)>,
    topics: BTreeMap<String, BTreeMap<i32, Seen>>,
}

/// Looks again and again.
pub(super) struct Watch {
    bootstrap: String,
    client: Option<Client>,
    last: Sight,
}

impl Watch {
    pub fn new(bootstrap: String) -> Self {
        Self { bootstrap, client: None, last: Sight::default() }
    }

    /// What is new since the last look; nothing while no node answers.
    pub fn look(&mut self) -> Vec<String> {
        let client = match self.client.take() {
            Some(client) => Ok(client),
            None => Client::connect(&self.bootstrap, LOOK_WITHIN),
        };
        let Ok(mut client) = client else { return Vec::new() };
        match see(&mut client) {
            Ok(sight) => {
                self.client = Some(client);
                let lines = news(&self.last, &sight);
                self.last = sight;
                lines
            }
            // The node that was asked may be gone: another one is asked the next time.
            Err(_) => Vec::new(),
        }
    }
}

fn see(client: &mut Client) -> Result<Sight, ClientError> {
    let metadata = client.metadata(None, false)?;
    let asked = PartitionData { partition_index: 0 };
    let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![asked] };
    let quorum = client.ask(To::Any, &DescribeQuorumRequest { topics: vec![topic] })?;
    let leads = quorum.topics.iter().flat_map(|topic| &topic.partitions).next();
    let controller = leads.filter(|quorum| quorum.leader_id >= 0).map(|quorum| (quorum.leader_id, quorum.leader_epoch));
    Ok(sight(&metadata, controller))
}

fn sight(metadata: &MetadataResponse, controller: Option<(i32, i32)>) -> Sight {
    let mut topics = BTreeMap::new();
    for topic in metadata.topics.iter().filter(|topic| !topic.is_internal) {
        let partition = |partition: &chronik_proto_kafka::api::metadata::MetadataResponsePartition| {
            let mut in_sync = partition.isr_nodes.clone();
            in_sync.sort_unstable();
            let seen = Seen { leader: partition.leader_id, in_sync, replicas: partition.replica_nodes.len() };
            (partition.partition_index, seen)
        };
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        topics.insert(name, topic.partitions.iter().map(partition).collect());
    }
    Sight { nodes: metadata.brokers.iter().map(|node| node.node_id).collect(), controller, topics }
}

/// The difference, in lines.
pub(super) fn news(before: &Sight, now: &Sight) -> Vec<String> {
    let mut lines = Vec::new();
    let listed = |nodes: &[i32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if now.controller != before.controller {
        match now.controller {
            Some((node, term)) => lines.push(format!("node {node} leads the metadata (term {term})")),
            None => lines.push("nobody leads the metadata".into()),
        }
    }
    for node in now.nodes.difference(&before.nodes) {
        lines.push(format!("node {node} serves"));
    }
    for node in before.nodes.difference(&now.nodes) {
        lines.push(format!("node {node} is fenced"));
    }
    for name in before.topics.keys().filter(|name| !now.topics.contains_key(*name)) {
        lines.push(format!("topic {name} is deleted"));
    }
    for (name, partitions) in &now.topics {
        let Some(known) = before.topics.get(name) else {
            let replicas = partitions.values().next().map_or(0, |seen| seen.replicas);
            lines.push(format!("topic {name}: {} partitions, {replicas} replicas each", partitions.len()));
            continue;
        };
        let mut changed = Vec::new();
        for (number, seen) in partitions {
            let Some(was) = known.get(number) else {
                changed.push(format!("{name}-{number}: new, led by node {}", seen.leader));
                continue;
            };
            if was.leader != seen.leader {
                changed.push(match seen.leader {
                    ..0 => format!("{name}-{number}: nobody leads it"),
                    leader => format!("{name}-{number}: node {leader} leads, in sync {}", listed(&seen.in_sync)),
                });
            } else if was.in_sync != seen.in_sync {
                changed.push(format!("{name}-{number}: in sync {}", listed(&seen.in_sync)));
            }
        }
        let more = changed.len().saturating_sub(LINES_MAX);
        lines.extend(changed.into_iter().take(LINES_MAX));
        if more > 0 {
            lines.push(format!("{name}: {more} more partitions changed"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(leader: i32, in_sync: &[i32]) -> Seen {
        Seen { leader, in_sync: in_sync.to_vec(), replicas: 3 }
    }

    #[test]
    fn what_happened_is_told_once_and_in_few_lines() {
        let mut before = Sight { nodes: BTreeSet::from([1, 2, 3]), controller: Some((1, 4)), ..Sight::default() };
        before.topics.insert("t".into(), (0..12).map(|number| (number, seen(1, &[1, 2, 3]))).collect());
        before.topics.insert("gone".into(), BTreeMap::new());
        assert_eq!(news(&before, &before), Vec::<String>::new());
        let mut now = Sight { nodes: BTreeSet::from([2, 3]), controller: Some((2, 5)), ..Sight::default() };
        now.topics.insert("t".into(), (0..12).map(|number| (number, seen(2, &[2, 3]))).collect());
        now.topics.insert("new".into(), BTreeMap::from([(0, seen(3, &[2, 3]))]));
        let told = news(&before, &now);
        for line in [
            "node 2 leads the metadata (term 5)",
            "node 1 is fenced",
            "topic gone is deleted",
            "topic new: 1 partitions, 3 replicas each",
            "t-0: node 2 leads, in sync 2, 3",
            "t: 6 more partitions changed",
        ] {
            assert!(told.iter().any(|one| one == line), "{line:?} in {told:#?}");
        }
        assert_eq!(told.len(), 11);
    }
}
