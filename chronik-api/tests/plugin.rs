//! A broker whose records a plug-in keeps, and what it says when the plug-in cannot.

mod broker;

use broker::*;
use chronik_api::config::{ByteSize, CleanupPolicy, Config, Durability, Engine, Millis, NamedPlugin};
use chronik_api::server;
use chronik_core::batch::{Records, batches};
use chronik_core::payload::Payload;
use chronik_proto_kafka::ErrorCode;
use chronik_proto_kafka::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use chronik_proto_kafka::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use chronik_proto_kafka::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn values(fetched: &chronik_proto_kafka::api::fetch::PartitionData) -> Vec<String> {
    let bytes = fetched.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
    let mut values = Vec::new();
    for batch in batches(&Payload::from(bytes)) {
        let batch = batch.expect("whole batches");
        for record in Records::new(&batch.records) {
            values.push(String::from_utf8_lossy(record.expect("a record").value.unwrap_or_default()).into_owned());
        }
    }
    values
}

fn over(data: &Path, library: &Path) -> impl FnOnce(&mut Config) {
    let (data, library) = (data.to_owned(), library.to_owned());
    move |config| {
        config.storage.engine = Engine::Plugin;
        config.storage.plugin.path = Some(library);
        config.node.data_dir = data;
        config.topics.durability = Durability::Fsync;
    }
}

/// Why the broker does not start.
async fn refused(adjust: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    config.kafka.listen.port = 0;
    config.admin.enabled = false;
    adjust(&mut config);
    let run = server::run(config, false, std::future::pending(), |_, _| {});
    let ended = tokio::time::timeout(Duration::from_secs(60), run).await.expect("it says so at once");
    let error = ended.expect_err("it does not start");
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_plugin_keeps_are_there_after_a_restart() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let data = place.path().join("data");
    let broker = start(over(&data, &library)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for value in ["a", "b", "c"] {
        let answer = client.produce("t", -1, sealed(batch(&[value]))).await;
        assert_eq!(answer.error_code, 0, "{value}");
    }
    assert_eq!(values(&client.fetch("t", 0, 0).await), ["a", "b", "c"]);
    broker.stop().await;
    let kept = fs::read_dir(data.join("plugin")).expect("the plug-in's directory");
    assert!(kept.flatten().any(|file| file.file_name().to_string_lossy().ends_with("-0.meta")), "the plug-in kept it");

    let broker = start(over(&data, &library)).await;
    let mut client = Client::to(&broker).await;
    assert_eq!(values(&client.fetch("t", 0, 0).await), ["a", "b", "c"]);
    assert_eq!(client.produce("t", -1, sealed(batch(&["d"]))).await.base_offset, 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_too_old_go_also_where_there_are_no_segments() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let data = place.path().join("data");
    let broker = start(|config| {
        over(&data, &library)(config);
        config.topics.retention_check_interval_ms = Millis(10);
    });
    let broker = broker.await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("retention.ms", "3600000")]).await;
    let hour = 3_600_000;
    assert_eq!(client.produce("t", -1, sealed(batch_at(now_ms() - 2 * hour, &["old"]))).await.error_code, 0);
    assert_eq!(client.produce("t", -1, sealed(batch_at(now_ms(), &["young"]))).await.error_code, 0);
    let mut fetched = client.fetch("t", 0, 0).await;
    for _ in 0..1_000 {
        if fetched.log_start_offset == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        fetched = client.fetch("t", 0, 0).await;
    }
    assert_eq!(fetched.log_start_offset, 1, "the old one is gone");
    assert_eq!(values(&client.fetch("t", 1, 0).await), ["young"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_refuses_a_plugin_it_cannot_use_and_promises_it_cannot_keep() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let data = place.path().join("data");
    let said = refused(over(&data, &place.path().join("missing.so"))).await;
    assert!(said.contains("the storage engine does not start") && said.contains("missing.so"), "{said}");
    let said = refused(|config| {
        over(&data, &library)(config);
        config.storage.plugin.sha256 = Some("ab".repeat(32));
    });
    assert!(said.await.contains(&"ab".repeat(32)));
    let said = refused(|config| {
        over(&data, &library)(config);
        config.topics.retention_bytes = ByteSize::mib(1);
    });
    assert!(said.await.contains("keeps no segments"));
    let said = refused(|config| {
        over(&data, &library)(config);
        config.topics.cleanup_policy = CleanupPolicy::Compact;
    });
    assert!(said.await.contains("which is what compaction replaces"));
}

/// The engine in plain C, after a change of its source.
fn changed(name: &str, from: &str, to: &str, place: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/examples/plain-c/plain.c");
    let text = fs::read_to_string(source).expect("the example is there");
    assert_eq!(text.matches(from).count(), 1, "the example has changed: {from}");
    let source = place.join(name).with_extension("c");
    fs::write(&source, text.replace(from, to)).expect("written");
    chronik_plugin_plain_c::compile(&source, place).expect("a C compiler builds it")
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_stored_reach_no_client() {
    let place = tempfile::tempdir().expect("a directory");
    let from = "out->slices[i] = (ck_slice){here + sizeof head, wanted[i].len};";
    let liar = changed("liar", from, &format!("here[sizeof head + wanted[i].len - 1] ^= 1; {from}"), place.path());
    let broker = start(over(&place.path().join("data"), &liar)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[]).await;
    assert_eq!(client.produce("t", -1, sealed(batch(&["true"]))).await.error_code, 0);
    let fetched = client.fetch("t", 0, 0).await;
    assert_ne!(fetched.error_code, 0);
    assert_eq!(values(&fetched), [""; 0], "what it gives is no batch of the broker's");
    let later = client.produce("t", -1, sealed(batch(&["more"]))).await.error_code;
    assert_eq!(later, ErrorCode::KAFKA_STORAGE_ERROR.0, "the log is out of service");
    broker.stop().await;
}

fn plain(library: &Path) -> NamedPlugin {
    NamedPlugin { name: "plain".into(), path: Some(library.to_owned()), ..NamedPlugin::default() }
}

/// A broker whose topics choose among `segment`, `memory` and the plug-in `plain`.
fn with_choice(data: &Path, library: &Path, default: Engine) -> impl FnOnce(&mut Config) {
    let (data, plugin) = (data.to_owned(), plain(library));
    move |config| {
        config.storage.engine = default;
        config.storage.plugins = vec![plugin];
        config.node.data_dir = data;
    }
}

async fn try_create(client: &mut Client, name: &str, configs: &[(&str, &str)]) -> (i16, String) {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned().into(),
        value: Some((*value).to_owned().into()),
    };
    let topic = CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let made = client.ask(request).await.topics.remove(0);
    (made.error_code, made.error_message.map(|words| words.to_string()).unwrap_or_default())
}

/// Where a topic's records are, and what they outlive.
async fn kept(client: &mut Client, topic: &str) -> (String, String) {
    let (storage, fixed) = described(client, 2, topic, "chronik.storage").await.expect("told");
    assert!(fixed, "nobody moves records by altering it");
    (storage, described(client, 2, topic, "chronik.storage.survives").await.expect("told").0)
}

fn is_in(directory: &Path, part: &str) -> bool {
    let Ok(files) = fs::read_dir(directory) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().contains(part))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topic_stays_in_the_engine_it_was_created_in() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let data = place.path().join("data");
    let broker = start(with_choice(&data, &library, Engine::Segment)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("files", 1, &[]).await;
    let plain_id = client.create_topic("own", 1, &[("chronik.storage", "plain")]).await;
    let volatile = [("chronik.storage", "memory"), ("chronik.durability", "replicated")];
    client.create_topic("volatile", 1, &volatile).await;
    for topic in ["files", "own", "volatile"] {
        assert_eq!(client.produce(topic, -1, sealed(batch(&[topic]))).await.error_code, 0, "{topic}");
    }
    let of = |storage: &str, survives: &str| (storage.to_owned(), survives.to_owned());
    assert_eq!(kept(&mut client, "files").await, of("segment", "power-loss"));
    assert_eq!(kept(&mut client, "own").await, of("plain", "power-loss"));
    assert_eq!(kept(&mut client, "volatile").await, of("memory", "nothing"));
    let (engines, _) = described(&mut client, 4, "1", "chronik.storage.engines").await.expect("told");
    assert_eq!(engines, "segment,memory,plain");

    // What an engine cannot keep, or nobody has, is refused with the reason.
    for (configs, why) in [
        (&[("chronik.storage", "plane")][..], "which has memory, plain, segment"),
        (&[("chronik.storage", "memory")], "the storage engine (memory) keeps does not survive the process"),
        (&[("chronik.storage", "plain"), ("cleanup.policy", "compact")], "(plain plain-c 1.0.0) keeps no segments"),
        (&[("chronik.storage", "plain"), ("retention.bytes", "9")], "(plain plain-c 1.0.0) keeps no segments"),
    ] {
        let (code, words) = try_create(&mut client, "refused", configs).await;
        assert_eq!(code, ErrorCode::INVALID_CONFIG.0, "{configs:?}: {words}");
        assert!(words.contains(why), "{words}");
    }
    let set = AlterableConfig { name: "chronik.storage".into(), config_operation: 0, value: Some("memory".into()) };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: "own".into(), configs: vec![set] };
    let altered = client.ask(IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }).await;
    let words = altered.responses[0].error_message.as_ref().map(|words| words.to_string()).unwrap_or_default();
    assert_eq!(altered.responses[0].error_code, ErrorCode::INVALID_CONFIG.0);
    assert!(words.contains("cannot be altered: it is plain"), "{words}");
    broker.stop().await;
    let uuid: String = plain_id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(is_in(&data.join("plugins/plain"), &uuid), "the plug-in has it");

    // Another default is for new topics; the others are where they were.
    let broker = start(with_choice(&data, &library, Engine::Named("plain".into()))).await;
    let mut client = Client::to(&broker).await;
    assert_eq!(values(&client.fetch("files", 0, 0).await), ["files"]);
    assert_eq!(values(&client.fetch("own", 0, 0).await), ["own"]);
    assert_eq!(client.produce("volatile", -1, sealed(batch(&["again"]))).await.base_offset, 0, "it was in memory");
    client.create_topic("by-default", 1, &[]).await;
    assert_eq!(kept(&mut client, "by-default").await, of("plain", "power-loss"));
    assert_eq!(kept(&mut client, "files").await, of("segment", "power-loss"));
    broker.stop().await;

    // Without the plug-in its topics are offline, and nothing is stored for them elsewhere.
    let broker = start(|config| {
        config.storage.engine = Engine::Segment;
        config.node.data_dir = data.clone();
    });
    let broker = broker.await;
    let mut client = Client::to(&broker).await;
    assert_eq!(values(&client.fetch("files", 0, 0).await), ["files"]);
    assert_eq!(client.produce("own", -1, sealed(batch(&["lost"]))).await.error_code, ErrorCode::KAFKA_STORAGE_ERROR.0);
    assert_eq!(kept(&mut client, "own").await, of("plain", "unknown"));
    broker.stop().await;
    assert!(!is_in(&data.join("logs"), &uuid), "the built-in engine has begun no log of that name");

    let broker = start(with_choice(&data, &library, Engine::Segment)).await;
    let mut client = Client::to(&broker).await;
    assert_eq!(values(&client.fetch("own", 0, 0).await), ["own"]);
    assert_eq!(client.produce("own", -1, sealed(batch(&["more"]))).await.base_offset, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_starts_without_a_plugin_that_it_does_not_require() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let data = place.path().join("data");
    let broker = start(with_choice(&data, &library, Engine::Segment)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("files", 1, &[]).await;
    client.create_topic("own", 1, &[("chronik.storage", "plain")]).await;
    broker.stop().await;

    // Another file in its place: what this process has mapped stays as it is.
    fs::remove_file(&library).expect("removed");
    fs::write(&library, "no library any more").expect("written");
    let said = refused(with_choice(&data, &library, Engine::Segment)).await;
    assert!(
        said.contains("the storage plug-in plain cannot be used") && said.contains("not a shared library"),
        "{said}"
    );
    let broker = start(|config| {
        with_choice(&data, &library, Engine::Segment)(config);
        config.storage.plugins[0].required = false;
    });
    let broker = broker.await;
    let mut client = Client::to(&broker).await;
    assert_eq!(client.produce("files", -1, sealed(batch(&["a"]))).await.error_code, 0);
    assert_eq!(client.produce("own", -1, sealed(batch(&["a"]))).await.error_code, ErrorCode::KAFKA_STORAGE_ERROR.0);
    let (code, words) = try_create(&mut client, "more", &[("chronik.storage", "plain")]).await;
    assert_eq!(code, ErrorCode::INVALID_CONFIG.0);
    assert!(words.contains("cannot be used now") && words.contains("not a shared library"), "{words}");
    broker.stop().await;
}

/// What DescribeConfigs says a resource's records outlive, and whether that can be altered.
async fn survives(client: &mut Client, resource_type: i8, name: &str) -> Option<(String, bool)> {
    described(client, resource_type, name, "chronik.storage.survives").await
}

/// What DescribeConfigs says, and whether it cannot be altered.
async fn described(client: &mut Client, resource_type: i8, name: &str, config: &str) -> Option<(String, bool)> {
    let resource = DescribeConfigsResource {
        resource_type,
        resource_name: name.to_owned().into(),
        configuration_keys: Some(vec![config.to_owned().into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let told = client.ask(request).await.results.into_iter().flat_map(|result| result.configs).next()?;
    Some((told.value?.to_string(), told.read_only))
}

/// What creating a topic with this durability and altering it to fsync afterwards are answered.
async fn fsync_is_refused(broker: &Running, whose: &str) {
    let mut client = Client::to(broker).await;
    let named =
        |value: &str| CreatableTopicConfig { name: "chronik.durability".into(), value: Some(value.to_owned().into()) };
    let topic = |name: &str, value: &str| CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![named(value)],
        ..Default::default()
    };
    let topics = vec![topic("beyond", "fsync"), topic("within", "replicated")];
    let made = client.ask(CreateTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() }).await.topics;
    let of = |name: &str| made.iter().find(|topic| &*topic.name == name).expect("answered");
    let why = of("beyond").error_message.as_ref().map(|words| words.to_string()).unwrap_or_default();
    assert_eq!((of("beyond").error_code, of("within").error_code), (ErrorCode::INVALID_CONFIG.0, 0), "{why}");
    assert!(why.contains(whose) && why.contains("does not survive the process"), "{why}");

    let set = AlterableConfig { name: "chronik.durability".into(), config_operation: 0, value: Some("fsync".into()) };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: "within".into(), configs: vec![set] };
    let altered = client.ask(IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }).await;
    assert_eq!(altered.responses[0].error_code, ErrorCode::INVALID_CONFIG.0);
    for (kind, name) in [(2, "within"), (4, "1")] {
        assert_eq!(survives(&mut client, kind, name).await, Some(("nothing".to_owned(), true)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_records_outlive_is_shown_and_no_more_is_promised() {
    let place = tempfile::tempdir().expect("a directory");
    let library = chronik_plugin_plain_c::build(place.path()).expect("a C compiler builds the example");
    let broker = start(over(&place.path().join("data"), &library)).await;
    let mut client = Client::to(&broker).await;
    client.create_topic("t", 1, &[("chronik.durability", "fsync")]).await;
    assert_eq!(survives(&mut client, 2, "t").await, Some(("power-loss".to_owned(), true)));
    broker.stop().await;

    let broker = start(|config| config.storage.engine = Engine::Memory).await;
    fsync_is_refused(&broker, "(memory)").await;
    broker.stop().await;

    // The same engine, but it promises nothing.
    let modest = changed("modest", "= CK_SURVIVES_POWER_LOSS;", "= CK_SURVIVES_NOTHING;", place.path());
    let data = place.path().join("modest");
    let said = refused(over(&data, &modest)).await;
    assert!(said.contains("topics.durability is \"fsync\"") && said.contains("does not survive the process"), "{said}");
    let broker = start(|config| {
        over(&data, &modest)(config);
        config.topics.durability = Durability::Replicated;
    });
    let broker = broker.await;
    fsync_is_refused(&broker, "(plugin plain-c 1.0.0)").await;
    broker.stop().await;
}
