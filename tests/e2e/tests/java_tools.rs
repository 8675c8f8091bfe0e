//! Kafka's own command-line tools, as their users type them.

use chronik_e2e::broker::Broker;
use chronik_e2e::client::{self, Output, is_missing};

fn tool(broker: &Broker, class: &str, words: &[&str], input: &str) -> Output {
    let mut command = client::java(class);
    command.push("--bootstrap-server".into());
    command.push(broker.bootstrap());
    command.extend(words.iter().map(ToString::to_string));
    client::run(&command, input.as_bytes())
}

/// What the tool printed, if it ended well.
fn says(broker: &Broker, class: &str, words: &[&str]) -> String {
    let output = tool(broker, class, words, "");
    assert!(output.ok, "{class} {words:?}\n{}\n{}", output.stdout, output.stderr);
    output.stdout
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const LEADERS: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";

fn contains(text: &str, wanted: &[&str]) {
    for one in wanted {
        assert!(text.contains(one), "{one:?} is not in:\n{text}");
    }
}

#[test]
#[ignore = "run by tests/run"]
fn topics_are_made_described_changed_and_deleted() {
    if is_missing("java") {
        return;
    }
    let broker = Broker::start();
    let make = ["--create", "--topic", "t", "--partitions", "3", "--config", "retention.ms=3600000"];
    contains(&says(&broker, TOPICS, &make), &["Created topic t."]);
    let again = tool(&broker, TOPICS, &make, "");
    assert!(!again.ok, "a topic is made only once");
    contains(&(again.stdout + &again.stderr), &["already exists"]);
    contains(&says(&broker, TOPICS, &["--list"]), &["t\n"]);
    contains(
        &says(&broker, TOPICS, &["--describe", "--topic", "t"]),
        &["PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=3600000", "Partition: 2", "Leader: 1", "Isr: 1"],
    );
    says(&broker, TOPICS, &["--alter", "--topic", "t", "--partitions", "5"]);
    contains(&says(&broker, TOPICS, &["--describe", "--topic", "t"]), &["PartitionCount: 5"]);
    contains(&says(&broker, OFFSETS, &["--topic", "t"]), &["t:0:0", "t:4:0"]);
    says(&broker, TOPICS, &["--delete", "--topic", "t"]);
    assert!(!says(&broker, TOPICS, &["--list"]).lines().any(|line| line == "t"));
}

#[test]
#[ignore = "run by tests/run"]
fn configurations_are_described_and_altered() {
    if is_missing("java") {
        return;
    }
    let broker = Broker::start();
    const CONFIGS: &str = "kafka.admin.ConfigCommand";
    says(&broker, TOPICS, &["--create", "--topic", "t"]);
    let of_topic = ["--entity-type", "topics", "--entity-name", "t"];
    let with = |words: &[&'static str]| [words, of_topic.as_slice()].concat();
    let change = with(&["--alter", "--add-config", "max.message.bytes=2000000,cleanup.policy=[compact,delete]"]);
    contains(&says(&broker, CONFIGS, &change), &["Completed updating config for topic t."]);
    contains(
        &says(&broker, CONFIGS, &with(&["--describe"])),
        &["max.message.bytes=2000000", "DYNAMIC_TOPIC_CONFIG", "cleanup.policy=compact,delete"],
    );
    says(&broker, CONFIGS, &with(&["--alter", "--delete-config", "max.message.bytes"]));
    assert!(!says(&broker, CONFIGS, &with(&["--describe"])).contains("max.message.bytes"));
    contains(&says(&broker, CONFIGS, &with(&["--describe", "--all"])), &["segment.bytes=", "min.insync.replicas="]);
    let bad = tool(&broker, CONFIGS, &with(&["--alter", "--add-config", "retention.ms=soon"]), "");
    assert!(!bad.ok && (bad.stdout + &bad.stderr).contains("retention.ms"), "a bad value is refused with its name");
    let of_broker = ["--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"];
    contains(&says(&broker, CONFIGS, &of_broker), &["log.retention.ms="]);
}

#[test]
#[ignore = "run by tests/run"]
fn the_console_writes_and_reads_and_the_offsets_topic_is_readable() {
    if is_missing("java") {
        return;
    }
    let broker = Broker::start();
    let write = ["--topic", "t", "--property", "parse.key=true", "--property", "key.separator=:"];
    let output = tool(&broker, PRODUCER, &write, "a:1\nb:2\nc:3\n");
    assert!(output.ok, "{}\n{}", output.stdout, output.stderr);
    let read =
        ["--topic", "t", "--from-beginning", "--max-messages", "3", "--group", "g", "--property", "print.key=true"];
    contains(&says(&broker, CONSUMER, &read), &["a\t1", "b\t2", "c\t3"]);
    contains(&says(&broker, GROUPS, &["--list"]), &["g"]);
    let described = says(&broker, GROUPS, &["--describe", "--group", "g"]);
    let row = described.lines().find(|line| line.starts_with("g ")).unwrap_or_default();
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        row.get(..6),
        Some(["g", "t", "0", "3", "3", "0"].as_slice()),
        "group, topic, partition, offset, end, lag: {described}"
    );
    contains(&says(&broker, GROUPS, &["--describe", "--group", "g", "--state"]), &["Empty"]);
    let formatted = says(
        &broker,
        CONSUMER,
        &[
            "--topic",
            "__consumer_offsets",
            "--from-beginning",
            "--timeout-ms",
            "5000",
            "--formatter",
            "org.apache.kafka.tools.consumer.OffsetsMessageFormatter",
        ],
    );
    contains(&formatted, &["\"group\":\"g\"", "\"topic\":\"t\"", "\"offset\":3"]);
    let groups = says(
        &broker,
        CONSUMER,
        &[
            "--topic",
            "__consumer_offsets",
            "--from-beginning",
            "--timeout-ms",
            "5000",
            "--formatter",
            "org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter",
        ],
    );
    contains(&groups, &["\"group\":\"g\"", "\"protocolType\":\"consumer\""]);
}

#[test]
#[ignore = "run by tests/run"]
fn groups_are_reset_and_deleted() {
    if is_missing("java") {
        return;
    }
    let broker = Broker::start();
    assert!(tool(&broker, PRODUCER, &["--topic", "t"], "1\n2\n3\n4\n").ok);
    says(&broker, CONSUMER, &["--topic", "t", "--from-beginning", "--max-messages", "4", "--group", "g"]);
    let reset = ["--reset-offsets", "--group", "g", "--topic", "t", "--to-earliest", "--execute"];
    contains(&says(&broker, GROUPS, &reset), &["g", "t"]);
    let read = says(&broker, CONSUMER, &["--topic", "t", "--max-messages", "4", "--group", "g"]);
    contains(&read, &["1\n2\n3\n4"]);
    contains(&says(&broker, GROUPS, &["--delete-offsets", "--group", "g", "--topic", "t"]), &["Successful"]);
    contains(&says(&broker, GROUPS, &["--delete", "--group", "g"]), &["was successful"]);
    assert!(!says(&broker, GROUPS, &["--list"]).lines().any(|line| line == "g"));
}

#[test]
#[ignore = "run by tests/run"]
fn the_broker_tells_of_itself() {
    if is_missing("java") {
        return;
    }
    let broker = Broker::start();
    assert!(tool(&broker, PRODUCER, &["--topic", "t"], "1\n2\n3\n").ok);
    contains(&says(&broker, VERSIONS, &[]), &["Produce(0): 0 to 13", "Fetch(1): 4 to 18", "ApiVersions(18): 0 to 4"]);
    contains(&says(&broker, LOG_DIRS, &["--describe", "--topic-list", "t"]), &["\"partition\":\"t-0\""]);
    contains(&says(&broker, FEATURES, &["describe"]), &["metadata.version"]);
    contains(&says(&broker, QUORUM, &["describe", "--status"]), &["LeaderId:", "CurrentVoters:"]);
    let elect = ["--election-type", "preferred", "--all-topic-partitions"];
    let elected = tool(&broker, LEADERS, &elect, "");
    assert!(elected.ok, "{}\n{}", elected.stdout, elected.stderr);
    let wanted = broker.data().with_file_name("delete.json");
    let json = r#"{"partitions":[{"topic":"t","partition":0,"offset":2}],"version":1}"#;
    std::fs::write(&wanted, json).expect("a file for the tool");
    let path = wanted.display().to_string();
    contains(&says(&broker, DELETE_RECORDS, &["--offset-json-file", &path]), &["low_watermark: 2"]);
    contains(&says(&broker, OFFSETS, &["--topic", "t", "--time", "earliest"]), &["t:0:2"]);
}
