//! What operators do with a cluster, with Kafka's own tools: look at the quorum, move replicas, take a broker out; and a
//! consumer that reads from the replica in its own rack.

use chronik_e2e::client::{self, Output, is_missing};
use chronik_e2e::cluster::Cluster;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
/// Far above what any of these take.
const PATIENCE: Duration = Duration::from_secs(120);

fn tool(cluster: &Cluster, class: &str, words: &[&str]) -> Output {
    let mut command = client::java(class);
    let (words, at) = (words.iter().map(ToString::to_string), ["--bootstrap-server".to_owned(), cluster.bootstrap()]);
    // Some tools want it before their subcommand, one behind.
    match class {
        CLUSTER => command.extend(words.chain(at)),
        _ => command.extend(at.into_iter().chain(words)),
    }
    client::run(&command, b"")
}

/// What the tool printed, if it ended well.
fn says(cluster: &Cluster, class: &str, words: &[&str]) -> String {
    let output = tool(cluster, class, words);
    assert!(output.ok, "{class} {words:?}\n{}\n{}", output.stdout, output.stderr);
    output.stdout
}

/// The tool's words, once they are as they should be.
fn comes_to_say(cluster: &Cluster, class: &str, words: &[&str], is_so: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = says(cluster, class, words);
        if is_so(&said) {
            return said;
        }
        assert!(Instant::now() < end, "{class} {words:?} goes on saying:\n{said}");
    }
}

fn client(cluster: &Cluster) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap());
    config
}

fn write(cluster: &Cluster, topic: &str, count: usize) {
    write_all(cluster, topic, (0..count).map(|number| number.to_string()));
}

fn write_all(cluster: &Cluster, topic: &str, values: impl Iterator<Item = String>) {
    let producer: BaseProducer = client(cluster).set("acks", "all").create().expect("a producer");
    for value in values {
        producer.send(BaseRecord::<(), _>::to(topic).payload(&value).partition(0)).expect("there is room");
    }
    producer.flush(PATIENCE).expect("all is acknowledged");
}

/// The values that a consumer in this rack reads.
fn read(cluster: &Cluster, topic: &str, rack: &str, count: usize) -> Vec<String> {
    let mut config = client(cluster);
    config.set("group.id", rack).set("client.rack", rack).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    let (mut values, end) = (Vec::new(), Instant::now() + PATIENCE);
    while values.len() < count {
        assert!(Instant::now() < end, "only {} of {count} were read", values.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            let payload = rdkafka::Message::payload(&message).unwrap_or_default();
            values.push(String::from_utf8_lossy(payload).into_owned());
        }
    }
    values
}

/// Bytes of the topic that a node has given to consumers.
fn given(cluster: &Cluster, id: usize, topic: &str) -> u64 {
    let metrics = cluster.http(id, "/metrics").expect("metrics");
    let of_topic =
        |line: &&str| line.starts_with("chronik_topic_fetched_bytes") && line.contains(&format!("{topic:?}"));
    let line = metrics.lines().find(of_topic);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "run by tests/run"]
fn the_tools_of_kafka_look_after_a_cluster() {
    if is_missing("java") {
        return;
    }
    let mut cluster = Cluster::start(3, &[]);
    let status = says(&cluster, QUORUM, &["describe", "--status"]);
    assert!(status.contains("LeaderId:"), "{status}");
    let replicas = comes_to_say(&cluster, QUORUM, &["describe", "--replication"], |said| {
        said.lines().map(str::trim).filter(|line| line.ends_with("Leader") || line.ends_with("Follower")).count() == 3
    });
    assert_eq!(replicas.lines().filter(|line| line.trim().ends_with("Leader")).count(), 1, "{replicas}");
    assert!(says(&cluster, FEATURES, &["describe"]).contains("metadata.version"));

    let create = ["--create", "--topic", "moved", "--replica-assignment", "1:2,2:3"];
    says(&cluster, TOPICS, &create);
    write(&cluster, "moved", 1_000);
    let plan = cluster.home().join("plan.json");
    let moves = r#"{"version":1,"partitions":[{"topic":"moved","partition":0,"replicas":[2,3]}]}"#;
    std::fs::write(&plan, moves).expect("the plan is written");
    let plan = plan.display().to_string();
    says(&cluster, REASSIGN, &["--reassignment-json-file", &plan, "--execute"]);
    comes_to_say(&cluster, REASSIGN, &["--reassignment-json-file", &plan, "--verify"], |said| {
        said.contains("Reassignment of partition moved-0 is completed")
    });
    let described = comes_to_say(&cluster, TOPICS, &["--describe", "--topic", "moved"], |said| {
        said.lines().any(|line| line.contains("Partition: 0") && line.contains("Replicas: 2,3"))
    });
    assert!(!described.contains("Adding Replicas"), "{described}");
    assert_eq!(read(&cluster, "moved", "anywhere", 1_000).len(), 1_000, "what was moved is all there");

    // A broker that is gone for good: its registration goes too.
    cluster.terminate(1);
    says(&cluster, CLUSTER, &["unregister", "--id", "1"]);
    cluster.wait("the others know of it", |cluster| {
        [2, 3].iter().all(|id| {
            let status = cluster.status(*id).unwrap_or_default();
            status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["node"] != 1))
        })
    });
    let again = tool(&cluster, CLUSTER, &["unregister", "--id", "1"]);
    assert!(!again.ok || (again.stdout + &again.stderr).contains("not"), "it is not there any more");
}

#[test]
#[ignore = "run by tests/run"]
fn a_consumer_reads_from_the_replica_in_its_rack_and_from_the_leader_when_that_is_gone() {
    let mut cluster = Cluster::start_with(3, |id| vec![format!("node.rack=rack-{id}")]);
    let admin: rdkafka::admin::AdminClient<_> = client(&cluster).create().expect("a client");
    let topic = rdkafka::admin::NewTopic::new("near", 1, rdkafka::admin::TopicReplication::Fixed(3));
    let created = futures::executor::block_on(admin.create_topics([&topic], &Default::default())).expect("an answer");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    write(&cluster, "near", 5_000);
    let metadata = admin.inner().fetch_metadata(Some("near"), PATIENCE).expect("metadata");
    let leader = metadata.topics()[0].partitions()[0].leader() as usize;
    let near = cluster.ids().find(|id| *id != leader).expect("there are three");
    let before = given(&cluster, near, "near");
    let values = read(&cluster, "near", &format!("rack-{near}"), 5_000);
    assert_eq!(values, (0..5_000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(given(&cluster, near, "near") > before, "it was read where the consumer is");
    assert_eq!(read(&cluster, "near", "nowhere", 5_000).len(), 5_000, "and from the leader by who is nowhere near");
    cluster.kill(near);
    // Another group: the first one has read everything.
    cluster.restart(near);
    cluster.wait("it is back", Cluster::is_whole);
}

/// A metric of a node: the one that has these words in its line.
fn metric(cluster: &Cluster, id: usize, words: &str) -> Option<u64> {
    let metrics = cluster.http(id, "/metrics").expect("metrics");
    let line = metrics.lines().find(|line| line.starts_with(words))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
#[ignore = "run by tests/run"]
fn a_throttled_move_is_slow_until_the_throttle_is_raised_and_leaves_no_throttle_behind() {
    if is_missing("java") {
        return;
    }
    const COUNT: usize = 2_000;
    let cluster = Cluster::start(3, &[]);
    says(&cluster, TOPICS, &["--create", "--topic", "slow", "--replica-assignment", "1:2"]);
    // Minutes' worth at the first rate, next to nothing at the second.
    write_all(&cluster, "slow", (0..COUNT).map(|number| format!("{number:04096}")));
    let plan = cluster.home().join("plan.json");
    let moves = r#"{"version":1,"partitions":[{"topic":"slow","partition":0,"replicas":[2,3]}]}"#;
    std::fs::write(&plan, moves).expect("the plan is written");
    let plan = plan.display().to_string();
    let execute = ["--reassignment-json-file", &plan, "--execute", "--throttle", "10000"];
    assert!(says(&cluster, REASSIGN, &execute).contains("throttle limit was set to 10000"));
    let broker = |id| says(&cluster, CONFIGS, &["--describe", "--entity-type", "brokers", "--entity-name", id]);
    for id in ["1", "2", "3"] {
        let described = broker(id);
        for side in ["leader", "follower"] {
            assert!(described.contains(&format!("{side}.replication.throttled.rate=10000")), "{described}");
        }
    }
    let topic = || says(&cluster, TOPICS, &["--describe", "--topic", "slow"]);
    let described = topic();
    assert!(described.contains("follower.replication.throttled.replicas=0:3"), "{described}");
    cluster.wait("the new replica waits for its throttle", |cluster| {
        let waits = metric(cluster, 3, "chronik_replication_throttle_waits_total{side=\"follower\"}");
        waits.is_some_and(|waits| waits > 0)
    });
    assert_eq!(metric(&cluster, 3, "chronik_replication_throttle_rate_bytes{side=\"follower\"}"), Some(10_000));
    let verify = ["--reassignment-json-file", &plan, "--verify"];
    let said = says(&cluster, REASSIGN, &[&verify[..], &["--preserve-throttles"]].concat());
    assert!(said.contains("still in progress"), "{said}");
    // Nobody waits for the replica that is throttled.
    write(&cluster, "slow", 100);

    let faster = ["--reassignment-json-file", &plan, "--execute", "--additional", "--throttle", "100000000"];
    assert!(says(&cluster, REASSIGN, &faster).contains("throttle limit was set to 100000000"));
    let said = comes_to_say(&cluster, REASSIGN, &verify, |said| {
        said.contains("Reassignment of partition slow-0 is completed")
    });
    assert!(
        said.contains("Clearing broker-level throttles") && said.contains("Clearing topic-level throttles"),
        "{said}"
    );
    for id in ["1", "2", "3"] {
        let described = broker(id);
        assert!(!described.contains("throttled"), "{described}");
    }
    let described = topic();
    assert!(described.contains("Replicas: 2,3") && !described.contains("throttled"), "{described}");
    assert_eq!(metric(&cluster, 3, "chronik_replication_throttle_rate_bytes{side=\"follower\"}"), None, "no limit");
    let bytes = metric(&cluster, 3, "chronik_replication_throttled_bytes_total{side=\"follower\"}");
    assert!(bytes.is_some_and(|bytes| bytes >= (COUNT * 4_096 / 2) as u64), "{bytes:?} came under the throttle");
    assert_eq!(read(&cluster, "slow", "anywhere", COUNT + 100).len(), COUNT + 100, "what was moved is all there");
}

/// A node of the quorum, as the tool tells of it.
struct Voter {
    id: u64,
    directory: String,
    endpoint: String,
}

/// The quorum's leader, its voters and those without a vote.
fn quorum(cluster: &Cluster) -> (u64, Vec<Voter>, Vec<u64>) {
    let said = says(cluster, QUORUM, &["describe", "--status"]);
    let after = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{said}")).trim().to_owned()
    };
    let nodes = |key: &str| -> Vec<Voter> {
        let nodes: Vec<serde_json::Value> = serde_json::from_str(&after(key)).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let one = |node: &serde_json::Value| Voter {
            id: node["id"].as_u64().expect("a node's number"),
            directory: text(&node["directoryId"]),
            endpoint: text(&node["endpoints"][0]),
        };
        nodes.iter().map(one).collect()
    };
    let observers = nodes("CurrentObservers:").into_iter().map(|node| node.id).collect();
    (after("LeaderId:").parse().expect("a node's number"), nodes("CurrentVoters:"), observers)
}

/// What the tool wants to know of a controller that is to be added: its configuration, and its directory's identity.
fn controller_file(cluster: &Cluster, voter: &Voter) -> String {
    let Voter { id, directory, endpoint } = voter;
    let home = cluster.home().join(format!("controller-{id}"));
    std::fs::create_dir_all(&home).expect("a directory");
    let identity = format!("version=1\ncluster.id=any\nnode.id={id}\ndirectory.id={directory}\n");
    std::fs::write(home.join("meta.properties"), identity).expect("it is written");
    let (name, _) = endpoint.split_once("://").expect("a name and an address");
    let config = format!(
        "process.roles=controller\nnode.id={id}\nlog.dirs={}\nlisteners={endpoint}\ncontroller.listener.names={name}\n",
        home.display()
    );
    let path = home.join("controller.properties");
    std::fs::write(&path, config).expect("it is written");
    path.display().to_string()
}

#[test]
#[ignore = "run by tests/run"]
fn the_quorums_leader_loses_its_vote_and_gets_it_back_while_records_are_written() {
    if is_missing("java") {
        return;
    }
    let cluster = Cluster::start(3, &[]);
    says(&cluster, TOPICS, &["--create", "--topic", "kept", "--replica-assignment", "1:2:3"]);
    let (leader, voters, observers) = quorum(&cluster);
    assert!((voters.len(), observers.len()) == (3, 0), "all three decide");
    let voter = voters.into_iter().find(|voter| voter.id == leader).expect("the leader votes");
    let removes = ["remove-controller", "-i", &leader.to_string(), &format!("-d={}", voter.directory)];
    assert!(says(&cluster, QUORUM, &removes).contains("Removed"));
    let (next, voters, observers) = quorum(&cluster);
    assert_ne!(next, leader, "another leads");
    assert_eq!((voters.len(), observers), (2, vec![leader]), "it goes on without a vote");
    let again = tool(&cluster, QUORUM, &removes);
    assert!(!again.ok && again.stderr.contains("VoterNotFound"), "{}", again.stderr);
    write(&cluster, "kept", 1_000);

    let rest = voters.iter().find(|voter| voter.id != next).expect("there are two");
    let file = controller_file(&cluster, &voter);
    let adds = ["--command-config", &file, "add-controller"];
    assert!(says(&cluster, QUORUM, &adds).contains("Added"));
    let (_, voters, observers) = quorum(&cluster);
    assert_eq!((voters.len(), observers.len()), (3, 0), "it votes again");
    let again = tool(&cluster, QUORUM, &adds);
    assert!(!again.ok && again.stderr.contains("DuplicateVoter"), "{}", again.stderr);
    let elsewhere = Voter { endpoint: rest.endpoint.clone(), ..voter };
    let elsewhere =
        tool(&cluster, QUORUM, &["--command-config", &controller_file(&cluster, &elsewhere), "add-controller"]);
    assert!(!elsewhere.ok && elsewhere.stderr.contains("is reached at"), "{}", elsewhere.stderr);
    assert_eq!(read(&cluster, "kept", "anywhere", 1_000).len(), 1_000);
}
