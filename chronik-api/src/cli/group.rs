//! `chronik group list|describe`: who consumes, and how far behind they are.

use super::ClientArgs;
use super::client::{Client, ClientError, LATEST, To, Topic, check};
use super::output::{Failure, Table, print_json};
use bytes::Bytes;
use chronik_proto_kafka::api::consumer_protocol::ConsumerProtocolAssignment;
use chronik_proto_kafka::api::describe_groups::{DescribeGroupsRequest, DescribedGroup, DescribedGroupMember};
use chronik_proto_kafka::api::list_groups::{ListGroupsRequest, ListedGroup};
use chronik_proto_kafka::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use chronik_proto_kafka::{Decoder, ErrorCode, Message, Str};
use clap::Subcommand;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List consumer groups
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show a group's members, and its lag in each partition
    Describe {
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List { client } => list(&client),
        GroupCommand::Describe { name, client } => describe(&name, &client),
    }
}

fn list(args: &ClientArgs) -> Result<(), Failure> {
    let mut client = args.connect()?;
    client.metadata(Some(&[]), false)?;
    let mut groups: Vec<ListedGroup> = Vec::new();
    for node in client.all_nodes() {
        // Each node knows the groups that it coordinates.
        let answer = client.retry(|client| {
            let answer = client.ask(node, &ListGroupsRequest::default())?;
            check(answer.error_code, None, || "listing groups".into())?;
            Ok(answer)
        })?;
        groups.extend(answer.groups);
    }
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let mut out = io::stdout().lock();
    if args.json {
        let shown = groups.iter().map(|group| {
            json!({
                "group": group.group_id.as_str(),
                "state": group.group_state.as_str(),
                "type": group.group_type.as_str(),
                "protocol_type": group.protocol_type.as_str(),
            })
        });
        return Ok(print_json(&mut out, &shown.collect::<Vec<_>>().into())?);
    }
    if groups.is_empty() {
        writeln!(io::stderr(), "There are no groups. `chronik consume TOPIC --group NAME` makes one.")?;
        return Ok(());
    }
    let mut table = Table::new(&["GROUP", "STATE", "PROTOCOL"]);
    for group in &groups {
        table.row([&group.group_id, &group.group_state, &group.protocol_type]);
    }
    Ok(table.print(&mut out)?)
}

/// How far a group has come in one partition.
struct Position {
    topic: String,
    partition: i32,
    /// `None` where a member has the partition and has committed nothing yet.
    committed: Option<i64>,
    /// `None` where the topic is gone.
    end: Option<i64>,
    /// The member that has the partition, if the group is stable and speaks the consumers' protocol.
    owner: Option<String>,
}

impl Position {
    fn lag(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.committed?).max(0))
    }
}

fn describe(name: &str, args: &ClientArgs) -> Result<(), Failure> {
    let mut client = args.connect()?;
    let group = described(&mut client, name)?;
    let positions = positions(&mut client, &group)?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, &as_json(&group, &positions))?);
    }
    let total: i64 = positions.iter().filter_map(Position::lag).sum();
    writeln!(out, "group {name}: {}, members: {}, lag: {total}", group.group_state, group.members.len())?;
    if !group.members.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"]);
        for member in &group.members {
            let instance = member.group_instance_id.as_ref().map_or("-", |instance| instance.as_str());
            let assigned = assigned(member);
            let assigned: Vec<_> = assigned.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect();
            table.row([&member.member_id, &instance, &member.client_id, &member.client_host, &assigned.join(" ")]);
        }
        table.print(&mut out)?;
    }
    if !positions.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["TOPIC", "#PARTITION", "#COMMITTED", "#END", "#LAG", "MEMBER"]);
        let or_none = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        for at in &positions {
            let owner = at.owner.as_deref().unwrap_or("-");
            let (committed, end, lag) = (or_none(at.committed), or_none(at.end), or_none(at.lag()));
            table.row([&at.topic, &at.partition, &committed, &end, &lag, &owner]);
        }
        table.print(&mut out)?;
    }
    Ok(())
}

fn as_json(group: &DescribedGroup, positions: &[Position]) -> serde_json::Value {
    let members = group.members.iter().map(|member| {
        let assigned = assigned(member).into_iter();
        let assigned = assigned.map(|(topic, partition)| json!({ "topic": topic, "partition": partition }));
        json!({
            "member": member.member_id.as_str(),
            "instance": member.group_instance_id.as_ref().map(Str::as_str),
            "client": member.client_id.as_str(),
            "host": member.client_host.as_str(),
            "partitions": assigned.collect::<Vec<_>>(),
        })
    });
    let positions = positions.iter().map(|at| {
        json!({
            "topic": at.topic,
            "partition": at.partition,
            "committed": at.committed,
            "end": at.end,
            "lag": at.lag(),
            "member": at.owner,
        })
    });
    json!({
        "group": group.group_id.as_str(),
        "state": group.group_state.as_str(),
        "protocol_type": group.protocol_type.as_str(),
        "protocol": group.protocol_data.as_str(),
        "members": members.collect::<Vec<_>>(),
        "partitions": positions.collect::<Vec<_>>(),
    })
}

/// Asks the coordinator. A group that nobody knows is an error, in old versions too, which call it dead.
fn described(client: &mut Client, name: &str) -> Result<DescribedGroup, ClientError> {
    let request = DescribeGroupsRequest { groups: vec![name.into()], include_authorized_operations: false };
    client.retry(|client| {
        let to = client.coordinator(name)?;
        let group = client.ask(to, &request)?.groups.into_iter().next().unwrap_or_default();
        let unknown = group.error_code == 0 && group.group_state == "Dead";
        let code = if unknown { ErrorCode::GROUP_ID_NOT_FOUND.0 } else { group.error_code };
        check(code, group.error_message.as_ref(), || format!("group {name}"))?;
        Ok(group)
    })
}

/// The partitions that a member was given; none where its group speaks a protocol of its own.
fn assigned(member: &DescribedGroupMember) -> Vec<(String, i32)> {
    let assignment = decode_assignment(member.member_assignment.clone()).unwrap_or_default();
    let of_topic = |topic: &chronik_proto_kafka::api::consumer_protocol::ResponseTopicPartition| {
        let name = topic.topic.to_string();
        topic.partitions.iter().map(move |partition| (name.clone(), *partition)).collect::<Vec<_>>()
    };
    let mut assigned: Vec<_> = assignment.assigned_partitions.iter().flat_map(of_topic).collect();
    assigned.sort();
    assigned
}

/// An assignment of the consumers' embedded protocol: its version, then the message.
pub(super) fn decode_assignment(mut bytes: Bytes) -> Option<ConsumerProtocolAssignment> {
    if bytes.len() < 2 {
        return None;
    }
    let version = i16::from_be_bytes([bytes[0], bytes[1]]);
    // Newer versions only add to the end, which is left unread.
    let known = version.clamp(0, 3);
    let body = bytes.split_off(2);
    let mut input = Decoder::new(body);
    chronik_proto_kafka::wire::Wire::get(&mut input, ConsumerProtocolAssignment::form(known)).ok()
}

/// What the group committed, against where the partitions end, and who has them.
fn positions(client: &mut Client, group: &DescribedGroup) -> Result<Vec<Position>, ClientError> {
    let owners: BTreeMap<(String, i32), String> = group
        .members
        .iter()
        .flat_map(|member| assigned(member).into_iter().map(|partition| (partition, member.member_id.to_string())))
        .collect();
    let committed = committed(client, &group.group_id, None)?;
    let mut committed: BTreeMap<_, _> = committed.into_iter().map(|(at, offset)| (at, Some(offset))).collect();
    for partition in owners.keys() {
        committed.entry(partition.clone()).or_insert(None);
    }
    let mut ends: BTreeMap<String, Option<BTreeMap<i32, i64>>> = BTreeMap::new();
    for (topic, _) in committed.keys() {
        if !ends.contains_key(topic) {
            ends.insert(topic.clone(), ends_of(client, topic)?);
        }
    }
    let position = |((topic, partition), committed): ((String, i32), Option<i64>)| Position {
        end: ends.get(&topic).and_then(|ends| ends.as_ref()?.get(&partition).copied()),
        owner: owners.get(&(topic.clone(), partition)).cloned(),
        topic,
        partition,
        committed,
    };
    Ok(committed.into_iter().map(position).collect())
}

/// `None` if there is no such topic any more.
fn ends_of(client: &mut Client, topic: &str) -> Result<Option<BTreeMap<i32, i64>>, ClientError> {
    let topic: Topic = match client.topic(topic, false) {
        Ok(topic) => topic,
        Err(why) if why.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => return Ok(None),
        Err(why) => return Err(why),
    };
    client.offsets(&topic, LATEST).map(Some)
}

/// The offsets that a group committed, in one topic or in all.
pub(super) fn committed(
    client: &mut Client,
    group: &str,
    topic: Option<&Topic>,
) -> Result<BTreeMap<(String, i32), i64>, ClientError> {
    /// From the next version on topics are named by id.
    const BY_NAME: i16 = 9;
    let partitions = |topic: &Topic| -> Vec<i32> { topic.leaders.keys().copied().collect() };
    // Versions before 8 ask for one group, later ones for several.
    let of_group = topic.map(|topic| {
        let (name, partition_indexes) = (topic.name.as_str().into(), partitions(topic));
        vec![OffsetFetchRequestTopics { name, partition_indexes, ..Default::default() }]
    });
    let topics = topic.map(|topic| {
        vec![OffsetFetchRequestTopic { name: topic.name.as_str().into(), partition_indexes: partitions(topic) }]
    });
    let wanted = OffsetFetchRequestGroup { group_id: group.into(), topics: of_group, ..Default::default() };
    let request = OffsetFetchRequest { group_id: group.into(), topics, groups: vec![wanted], require_stable: false };
    client.retry(|client| {
        let to: To = client.coordinator(group)?;
        let answer = client.ask_waiting(to, &request, BY_NAME, std::time::Duration::ZERO)?;
        let doing = || format!("asking for the offsets of group {group}");
        check(answer.error_code, None, doing)?;
        let mut offsets = BTreeMap::new();
        for group in &answer.groups {
            check(group.error_code, None, doing)?;
            for topic in &group.topics {
                let of_topic = topic.partitions.iter().filter(|at| at.committed_offset >= 0);
                offsets.extend(of_topic.map(|at| ((topic.name.to_string(), at.partition_index), at.committed_offset)));
            }
        }
        for topic in &answer.topics {
            let of_topic = topic.partitions.iter().filter(|at| at.committed_offset >= 0);
            offsets.extend(of_topic.map(|at| ((topic.name.to_string(), at.partition_index), at.committed_offset)));
        }
        Ok(offsets)
    })
}
