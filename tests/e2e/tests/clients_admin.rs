//! Each client's own admin calls, step by step, with the answers that Kafka gives.

use chronik_e2e::broker::Broker;
use chronik_e2e::client::client;
use serde_json::{Value, json};

/// What each step must tell. A client leaves out the steps, and the fields, that its API does not have.
fn expected(step: &str) -> Value {
    match step {
        "cluster" => json!({"brokers": 1, "controller": true, "id": true}),
        "create_topic" | "create_partitions" | "alter_configs" | "alter_configs_whole" | "delete_topic" => {
            json!({"error": 0})
        }
        "alter_group_offsets" | "delete_group_offsets" | "delete_group" => json!({"error": 0}),
        "create_topic_again" => json!({"error": 36}),
        "create_bad_config" => json!({"error": 40}),
        "create_bad_name" => json!({"error": 17}),
        "describe_unknown_topic" => json!({"error": 3}),
        "list_topics" | "partitions_created" | "configs_altered" | "configs_altered_whole" | "topic_deleted" => {
            json!({"has": true})
        }
        "describe_topic" => json!({"partitions": 3, "led": true}),
        "describe_topic_partitions" => json!({"partitions": 5}),
        "describe_configs" => json!({"value": "3600000", "default": false}),
        "describe_broker_configs" | "describe_features" => json!({"has": true}),
        "list_offsets" => json!({"earliest": 0, "latest": 10}),
        "list_offsets_by_time" => json!({"from": 3, "max": 9, "later": -1}),
        "list_offsets_local" => json!({"earliest": 0, "tiered": -1}),
        "delete_records" => json!({"low": 4, "error": 0}),
        "records_deleted" => json!({"earliest": 4, "latest": 10}),
        "list_groups" => json!({"has": true}),
        "describe_group" => json!({"state": "Empty", "members": 0}),
        "describe_unknown_group" => json!({"error": 69}),
        "group_offsets" => json!({"offset": 7, "metadata": "noted"}),
        "group_lag" => json!({"lag": 3}),
        "group_deleted" => json!({"has": false}),
        "describe_log_dirs" => json!({"has": true, "error": 0}),
        "describe_producers" | "describe_quorum" | "list_config_resources" => json!({"error": 0}),
        "describe_client_quotas" | "api_versions" => json!({"error": 0}),
        "list_reassignments" => json!({"error": 0, "moving": 0}),
        // The preferred leader leads already.
        "elect_leaders" => json!({"error": 84}),
        "offset_for_leader_epoch" => json!({"end": 10}),
        // There is no authorizer.
        "describe_acls" => json!({"error": 54}),
        _ => panic!("a step without an expectation: {step}"),
    }
}

/// `steps` is how many this client has: that none is silently left out.
fn administers(name: &'static str, steps: usize) {
    let Some(client) = client(name) else { return };
    let broker = Broker::start();
    let events = client.run("admin", &broker.bootstrap(), &[("prefix", name)]);
    let events: Vec<_> = events.iter().filter(|event| event["step"].is_string()).collect();
    let mut wrong = Vec::new();
    for event in &events {
        let step = event["step"].as_str().unwrap_or_default();
        let expected = expected(step);
        for (field, value) in event.as_object().into_iter().flatten().filter(|(field, _)| *field != "step") {
            if expected[field] != *value {
                wrong.push(format!("{step}: {field} is {value}, not {}", expected[field]));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    assert_eq!(events.len(), steps, "{name}: the number of steps");
}

#[test]
#[ignore = "run by tests/run"]
fn librdkafka_administers() {
    administers("librdkafka", 22);
}

#[test]
#[ignore = "run by tests/run"]
fn confluent_kafka_administers() {
    administers("confluent-kafka", 25);
}

#[test]
#[ignore = "run by tests/run"]
fn kafka_python_administers() {
    administers("kafka-python", 34);
}

#[test]
#[ignore = "run by tests/run"]
fn aiokafka_administers() {
    administers("aiokafka", 21);
}

#[test]
#[ignore = "run by tests/run"]
fn kafkajs_administers() {
    administers("kafkajs", 25);
}

#[test]
#[ignore = "run by tests/run"]
fn franz_go_administers() {
    administers("franz-go", 33);
}

#[test]
#[ignore = "run by tests/run"]
fn sarama_administers() {
    administers("sarama", 28);
}

#[test]
#[ignore = "run by tests/run"]
fn the_java_client_administers() {
    administers("java", 38);
}
