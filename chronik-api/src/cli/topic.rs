//! `chronik topic create|list|describe|delete`.

use super::ClientArgs;
use super::client::{Client, ClientError, EARLIEST, LATEST, To, Topic, check};
use super::output::{Failure, Table, print_json};
use chronik_proto_kafka::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use chronik_proto_kafka::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use chronik_proto_kafka::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use chronik_proto_kafka::{ErrorCode, Str};
use clap::Subcommand;
use serde_json::json;
use std::io::{self, Write};

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create a topic
    Create {
        name: String,
        /// Partitions; the broker's default if not given
        #[arg(long, short, default_value_t = -1, hide_default_value = true)]
        partitions: i32,
        /// Replicas of each; the broker's default if not given
        #[arg(long, default_value_t = -1, hide_default_value = true)]
        replication_factor: i16,
        /// A config of the topic, like --config retention.ms=3600000; may be given many times
        #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
        config: Vec<(String, String)>,
        /// Succeed if it exists already, whatever its partitions and configs
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List topics
    List {
        /// Also those that the broker keeps for itself
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show a topic's partitions and the configs that are not defaults
    Describe {
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete topics with all their records
    Delete {
        #[arg(required = true)]
        names: Vec<String>,
        /// Succeed if one does not exist
        #[arg(long)]
        if_exists: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

pub(super) fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create { name, partitions, replication_factor, config, if_not_exists, client } => {
            let configs = config
                .into_iter()
                .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) });
            let topic = CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor,
                configs: configs.collect(),
                ..Default::default()
            };
            create(topic, if_not_exists, &client)
        }
        TopicCommand::List { internal, client } => list(internal, &client),
        TopicCommand::Describe { name, client } => describe(&name, &client),
        TopicCommand::Delete { names, if_exists, client } => delete(&names, if_exists, &client),
    }
}

fn create(topic: CreatableTopic, if_not_exists: bool, args: &ClientArgs) -> Result<(), Failure> {
    let mut client = args.connect()?;
    let name = topic.name.to_string();
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: args.timeout_ms(), ..Default::default() };
    let made = client.retry(|client| {
        let to = client.controller()?;
        let answer = client.ask(to, &request)?;
        let result = answer.topics.into_iter().next().unwrap_or_default();
        check(result.error_code, result.error_message.as_ref(), || format!("creating topic {name}"))?;
        Ok(result)
    });
    let exists = |why: &ClientError| why.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS);
    let existed = if_not_exists && made.as_ref().is_err_and(exists);
    // Returning only when every partition has its leader spares scripts the wait.
    let described = if existed {
        client.topic(&name, false)?
    } else {
        made?;
        client.retry(|client| client.topic(&name, false))?
    };
    let mut out = io::stdout().lock();
    if args.json {
        let topic = json!({
            "topic": name,
            "id": described.id.to_string(),
            "partitions": described.leaders.len(),
            "created": !existed,
        });
        print_json(&mut out, &topic)?;
    } else {
        let what = if existed { "exists already" } else { "created" };
        writeln!(out, "topic {name} {what}, partitions: {}", described.leaders.len())?;
    }
    Ok(())
}

fn list(internal: bool, args: &ClientArgs) -> Result<(), Failure> {
    let mut topics = args.connect()?.metadata(None, false)?.topics;
    topics.retain(|topic| internal || !topic.is_internal);
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = io::stdout().lock();
    let name = |name: &Option<Str>| name.as_ref().map(Str::to_string).unwrap_or_default();
    if args.json {
        let shown = topics.iter().map(|topic| {
            let replicas = topic.partitions.first().map_or(0, |partition| partition.replica_nodes.len());
            json!({
                "topic": name(&topic.name),
                "id": topic.topic_id.to_string(),
                "partitions": topic.partitions.len(),
                "replicas": replicas,
                "internal": topic.is_internal,
            })
        });
        return Ok(print_json(&mut out, &shown.collect::<Vec<_>>().into())?);
    }
    if topics.is_empty() {
        writeln!(io::stderr(), "There are no topics yet. `chronik topic create NAME` makes one.")?;
        return Ok(());
    }
    let mut table = Table::new(&["TOPIC", "#PARTITIONS", "#REPLICAS", "ID"]);
    for topic in &topics {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replica_nodes.len());
        table.row([&name(&topic.name), &topic.partitions.len(), &replicas, &topic.topic_id]);
    }
    Ok(table.print(&mut out)?)
}

fn describe(name: &str, args: &ClientArgs) -> Result<(), Failure> {
    let mut client = args.connect()?;
    let mut described = client.describe_topic(name, false)?;
    described.partitions.sort_by_key(|partition| partition.partition_index);
    let topic = Topic::new(name, &described);
    let (starts, ends) = (client.offsets(&topic, EARLIEST)?, client.offsets(&topic, LATEST)?);
    let configs = configs_of(&mut client, name)?;
    let span = |partition: i32| {
        let (start, end) = (starts.get(&partition).copied().unwrap_or(-1), ends.get(&partition).copied().unwrap_or(-1));
        (start, end, end.saturating_sub(start).max(0))
    };
    let mut out = io::stdout().lock();
    if args.json {
        let partitions = described.partitions.iter().map(|partition| {
            let (start, end, records) = span(partition.partition_index);
            json!({
                "partition": partition.partition_index,
                "leader": partition.leader_id,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replica_nodes,
                "in_sync": partition.isr_nodes,
                "log_start_offset": start,
                "high_watermark": end,
                "offsets": records,
            })
        });
        let partitions: Vec<_> = partitions.collect();
        let configs: serde_json::Map<String, serde_json::Value> = configs
            .iter()
            .map(|config| (config.name.to_string(), json!(config.value.as_ref().map(Str::to_string))))
            .collect();
        let shown = json!({
            "topic": name,
            "id": described.topic_id.to_string(),
            "internal": described.is_internal,
            "partitions": partitions,
            "configs": configs,
        });
        return Ok(print_json(&mut out, &shown)?);
    }
    writeln!(out, "topic {name}, id {}{}", described.topic_id, if described.is_internal { ", internal" } else { "" })?;
    for config in &configs {
        let value = config.value.as_ref().map_or("(not shown)".to_owned(), |value| super::output::printable(value));
        writeln!(out, "  {} = {value}", config.name)?;
    }
    writeln!(out)?;
    let list = |nodes: &[i32]| nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let mut table = Table::new(&["#PARTITION", "#LEADER", "REPLICAS", "IN SYNC", "#START", "#END", "#OFFSETS"]);
    for partition in &described.partitions {
        let (start, end, records) = span(partition.partition_index);
        let (replicas, in_sync) = (list(&partition.replica_nodes), list(&partition.isr_nodes));
        table.row([&partition.partition_index, &partition.leader_id, &replicas, &in_sync, &start, &end, &records]);
    }
    Ok(table.print(&mut out)?)
}

/// The configs that somebody set for the topic itself, which engine keeps its records, and what they outlive.
fn configs_of(client: &mut Client, topic: &str) -> Result<Vec<DescribeConfigsResourceResult>, ClientError> {
    /// Resource type and config source, as the protocol numbers them.
    const TOPIC: i8 = 2;
    const OF_TOPIC: i8 = 1;
    const STORAGE: [&str; 2] = ["chronik.storage", "chronik.storage.survives"];
    let resource =
        DescribeConfigsResource { resource_type: TOPIC, resource_name: topic.into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = client.ask(To::Any, &request)?;
    let Some(result) = answer.results.into_iter().next() else { return Ok(Vec::new()) };
    check(result.error_code, result.error_message.as_ref(), || format!("asking for the configs of {topic}"))?;
    Ok(result
        .configs
        .into_iter()
        .filter(|config| config.config_source == OF_TOPIC || STORAGE.contains(&&*config.name))
        .collect())
}

fn delete(names: &[String], if_exists: bool, args: &ClientArgs) -> Result<(), Failure> {
    let mut client = args.connect()?;
    let state = |name: &String| DeleteTopicState { name: Some(name.as_str().into()), ..Default::default() };
    let request = DeleteTopicsRequest {
        topics: names.iter().map(state).collect(),
        topic_names: names.iter().map(|name| name.as_str().into()).collect(),
        timeout_ms: args.timeout_ms(),
    };
    let to = client.controller()?;
    let answer = client.ask(to, &request)?;
    let mut out = io::stdout().lock();
    let (mut shown, mut failed) = (Vec::new(), Vec::new());
    for result in &answer.responses {
        let name = result.name.as_ref().map(Str::to_string).unwrap_or_default();
        let missing = ErrorCode(result.error_code) == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let done = check(result.error_code, result.error_message.as_ref(), || format!("deleting topic {name}"));
        let deleted = done.is_ok();
        match done {
            Err(_) if if_exists && missing => {}
            Err(why) => failed.push(why.to_string()),
            Ok(()) => {}
        }
        if !args.json && deleted {
            writeln!(out, "topic {name} deleted")?;
        }
        shown.push(json!({ "topic": name, "deleted": deleted, "error": ErrorCode(result.error_code).name() }));
    }
    if args.json {
        print_json(&mut out, &shown.into())?;
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(failed.join("\n"))) }
}
