//! Stories of a cluster: decide, apply, look. And the property that everything rests on: replaying gives the same.

use super::controller::*;
use super::engines::{EngineTraits, StorageEngines};
use super::image::{ClusterDefaults, ConfigResource, Image, Listener};
use super::names::BadTopicName;
use super::records::{METADATA_VERSION_LATEST, Record};
use super::topic_config::InvalidConfig;
use super::{ApplyError, Change, Delta, describe_config};
use crate::ids::{LeaderEpoch, NodeId, Offset, TopicId};
use crate::wal::Survives;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A cluster's log and the image it makes.
struct Cluster {
    image: Image,
    log: Vec<Record>,
    next_id: u8,
}

impl Cluster {
    /// Before anything has happened.
    fn blank() -> Self {
        Cluster { image: Image::empty(ClusterDefaults::default()), log: Vec::new(), next_id: 0 }
    }

    /// Up, with these brokers.
    fn of(brokers: &[i32]) -> Self {
        let mut cluster = Cluster::blank();
        cluster.carry_out(bootstrap(&cluster.image, FirstStart { cluster_id: [9; 16] }));
        for id in brokers {
            cluster.start_broker(*id);
        }
        cluster
    }

    fn carry_out<R>(&mut self, decision: Decision<R>) -> (R, Delta) {
        let mut delta = Delta::default();
        let mut image = self.image.clone();
        for record in &decision.records {
            let at = image.position().next;
            image.apply(at, LeaderEpoch(1), record, &mut delta).expect("a decision can be applied");
            // What is written is what is read.
            assert_eq!(Record::from_bytes(&record.to_bytes()).as_ref(), Ok(record));
        }
        self.image = image;
        self.log.extend(decision.records);
        (decision.reply, delta)
    }

    fn start_broker(&mut self, id: i32) -> Delta {
        let listener = Listener { name: "main".into(), host: "localhost".into(), port: 9092 };
        let registration = Registration {
            node: NodeId(id),
            incarnation: [self.log.len() as u8; 16],
            directory_id: [id as u8; 16],
            rack: None,
            listeners: vec![listener],
            clean: true,
            lost: Lost::NOTHING,
            replication_address: None,
            features: supported_features(),
            after: None,
        };
        self.carry_out(register_broker(&registration)).1
    }

    fn create_all(&mut self, topics: &[NewTopic]) -> Vec<(String, Result<CreatedTopic, CreateTopicError>)> {
        let mut next = self.next_id;
        let decision = create_topics(&self.image, topics, || {
            next += 1;
            TopicId([next; 16])
        });
        self.next_id = next;
        self.carry_out(decision).0
    }

    fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, CreateTopicError> {
        self.create_all(&[topic]).remove(0).1
    }

    fn alter(&mut self, kind: i8, name: &str, configs: &[(&str, AlterOp)]) -> Result<(), AlterConfigError> {
        let alteration = ResourceAlteration {
            resource: AlterResource { kind, name: name.into() },
            configs: configs.iter().map(|(name, op)| ((*name).to_owned(), op.clone())).collect(),
        };
        self.carry_out(alter_configs(&self.image, &[alteration])).0.remove(0).1
    }
}

fn named(name: &str) -> NewTopic {
    NewTopic::with_defaults(name)
}

fn set(value: &str) -> AlterOp {
    AlterOp::Set(Some(value.into()))
}

#[test]
fn a_cluster_gets_its_id_and_its_level_once() {
    let mut cluster = Cluster::of(&[]);
    assert_eq!(cluster.image.cluster_id().len(), 22);
    assert_eq!(cluster.image.metadata_version(), METADATA_VERSION_LATEST);
    assert_eq!(cluster.image.features().len(), 1, "nothing is finalized that is not served");
    let again = bootstrap(&cluster.image, FirstStart { cluster_id: [1; 16] });
    assert_eq!(again.records, []);
    cluster.start_broker(1);
    assert_eq!(cluster.image.broker(NodeId(1)).map(|broker| broker.epoch), Some(Offset(2)));
}

#[test]
fn a_topic_takes_the_defaults_where_its_creator_says_nothing() {
    let mut cluster = Cluster::of(&[1]);
    let created = cluster.create(named("orders")).expect("created");
    assert_eq!((created.partitions, created.replication_factor), (1, 1));
    let topic = cluster.image.topic("orders").expect("it is there");
    assert_eq!(cluster.image.topic_by_id(created.id), Some(topic));
    let partition = topic.partition(0).expect("its partition");
    assert_eq!(partition.leader, Some(NodeId(1)));
    assert_eq!(partition.leader_epoch, LeaderEpoch(0));
    assert_eq!(partition.isr, [NodeId(1)]);
    assert!(!topic.internal);
    cluster.create(named("__consumer_offsets")).expect("created");
    assert!(cluster.image.topic("__consumer_offsets").expect("it is there").internal);
}

#[test]
fn each_topic_of_a_request_stands_or_falls_alone() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create(named("a.b")).expect("created");
    let wide = NewTopic { replication_factor: 3, ..named("wide") };
    let none = NewTopic { partitions: 0, ..named("none") };
    let huge = NewTopic { partitions: 10_001, ..named("huge") };
    let outcomes = cluster.create_all(&[
        named("good"),
        named("a_b"),
        named("a.b"),
        named("x/y"),
        named("twice"),
        named("twice"),
        named("__cluster_metadata"),
        wide,
        none,
        huge,
    ]);
    let errors: Vec<String> =
        outcomes.into_iter().map(|(_, outcome)| outcome.map_or_else(|why| why.to_string(), |_| "ok".into())).collect();
    assert_eq!(
        errors,
        [
            "ok",
            "Topic 'a_b' collides with existing topic: a.b",
            "Topic 'a.b' already exists.",
            &BadTopicName::BadCharacter.to_string(),
            "Duplicate topic name.",
            "Duplicate topic name.",
            "Creation of internal topic __cluster_metadata is prohibited.",
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because \
             only 1 broker(s) are registered.",
            "Number of partitions was set to an invalid non-positive value.",
            "Excessively large number of partitions per request.",
        ]
    );
    assert_eq!(cluster.image.topics_count(), 2);
    let colliding = cluster.create_all(&[named("c.d"), named("c_d")]);
    assert!(colliding[0].1.is_ok());
    assert!(matches!(colliding[1].1, Err(CreateTopicError::Collides { .. })), "also within one request");
}

#[test]
fn a_cluster_is_never_given_more_partitions_than_it_may_have() {
    let mut defaults = ClusterDefaults::default();
    defaults.partitions_max = 5;
    let mut cluster = Cluster::blank();
    cluster.image = Image::empty(defaults);
    cluster.carry_out(bootstrap(&cluster.image, FirstStart { cluster_id: [9; 16] }));
    cluster.start_broker(1);
    let of = |name: &str, partitions| NewTopic { partitions, ..named(name) };
    let outcomes = cluster.create_all(&[of("a", 4), of("b", 2), of("c", 1)]);
    assert!(outcomes[0].1.is_ok() && outcomes[2].1.is_ok());
    assert!(matches!(outcomes[1].1, Err(CreateTopicError::TooManyPartitions(_))));
    let why = cluster.create(of("d", 1)).expect_err("refused").to_string();
    assert_eq!(why, "The cluster has 5 of at most 5 partitions.");
    let more = MorePartitions { topic: "a".into(), count: 5, assignments: None };
    let (reply, _) = cluster.carry_out(create_partitions(&cluster.image, &[more]));
    assert!(matches!(reply[0].1, Err(CreatePartitionsError::TooMany(_))));
}

#[test]
fn replicas_may_be_assigned_by_hand() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let by_hand = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments.iter().map(|(p, ids)| (*p, ids.iter().copied().map(NodeId).collect())).collect(),
        ..named("hand")
    };
    let mut refusal = |topic: NewTopic| cluster.create(topic).expect_err("refused").to_string();
    assert!(refusal(by_hand(&[(0, &[])])).contains("empty replica list"));
    assert!(refusal(by_hand(&[(0, &[1, 1])])).contains("more than once"));
    assert!(refusal(by_hand(&[(0, &[4])])).contains("no such broker"));
    assert!(refusal(by_hand(&[(0, &[1, 2]), (1, &[1])])).contains("not consistent"));
    assert!(refusal(by_hand(&[(0, &[1]), (0, &[2])])).contains("multiple manual"));
    assert!(refusal(by_hand(&[(0, &[1]), (2, &[2])])).contains("consecutive"));
    assert!(refusal(NewTopic { partitions: 1, ..by_hand(&[(0, &[1])]) }).contains("numPartitions"));
    assert!(refusal(NewTopic { replication_factor: 1, ..by_hand(&[(0, &[1])]) }).contains("replicationFactor"));
    let created = cluster.create(by_hand(&[(1, &[3, 1]), (0, &[2, 3])])).expect("created");
    assert_eq!((created.partitions, created.replication_factor), (2, 2));
    assert_eq!(cluster.image.partition(created.id, 0).expect("there").leader, Some(NodeId(2)));
    assert_eq!(cluster.image.partition(created.id, 1).expect("there").leader, Some(NodeId(3)));
}

#[test]
fn leaders_are_spread_over_brokers() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let topic = NewTopic { partitions: 6, replication_factor: 2, ..named("spread") };
    let id = cluster.create(topic).expect("created").id;
    let mut led = BTreeMap::new();
    for partition in &cluster.image.topic_by_id(id).expect("there").partitions {
        *led.entry(partition.leader).or_insert(0) += 1;
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
    }
    assert_eq!(led.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn ids_that_cannot_be_used_are_drawn_again() {
    let cluster = Cluster::of(&[1]);
    let mut drawn = [TopicId::NONE, TopicId::METADATA, TopicId([0xf8; 16]), TopicId([7; 16])].into_iter();
    let decision = create_topics(&cluster.image, &[named("t")], || drawn.next().expect("the fourth is good"));
    assert_eq!(decision.reply[0].1.as_ref().map(|created| created.id), Ok(TopicId([7; 16])));
}

#[test]
fn a_topic_is_deleted_by_name_or_id_with_its_configurations() {
    let mut cluster = Cluster::of(&[1]);
    let config = ("retention.ms".to_owned(), Some("1000".to_owned()));
    let first = cluster.create(NewTopic { configs: vec![config], ..named("t") }).expect("created");
    let by = |name: Option<&str>, id: TopicId| TopicRef { name: name.map(str::to_owned), id };
    let asked = [
        by(Some("missing"), TopicId::NONE),
        by(None, TopicId([99; 16])),
        by(Some("t"), first.id),
        by(None, TopicId::NONE),
        by(Some("t"), TopicId::NONE),
        by(None, first.id),
    ];
    let (reply, _) = cluster.carry_out(delete_topics(&cluster.image, &asked));
    let errors: Vec<_> = reply.into_iter().map(Result::unwrap_err).collect();
    use DeleteTopicError::*;
    assert_eq!(errors, [UnknownName, UnknownId, NameAndId, NeitherNameNorId, Duplicate, Duplicate]);

    let (reply, delta) = cluster.carry_out(delete_topics(&cluster.image, &[by(None, first.id)]));
    assert_eq!(reply, [Ok(DeletedTopic { name: "t".into(), id: first.id })]);
    assert!(matches!(&delta.changes[..], [Change::TopicDeleted(topic)] if topic.id == first.id));
    assert!(cluster.image.topic("t").is_none() && cluster.image.topic_by_id(first.id).is_none());

    let second = cluster.create(named("t")).expect("the name is free again");
    assert_ne!(second.id, first.id);
    let topic = cluster.image.topic("t").expect("there");
    assert_eq!(topic.config.retention_ms, Some(604_800_000), "the old topic's configuration went with it");
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create(NewTopic { partitions: 3, ..named("t") }).expect("created");
    cluster.create(named("__consumer_offsets")).expect("created");
    let more = |topic: &str, count| MorePartitions { topic: topic.into(), count, assignments: None };
    let asked = [more("t", 2), more("missing", 2), more("__consumer_offsets", 60)];
    let (reply, _) = cluster.carry_out(create_partitions(&cluster.image, &asked));
    assert!(reply[0].1.as_ref().unwrap_err().to_string().contains("2 would not be an increase"));
    assert_eq!(reply[1].1, Err(CreatePartitionsError::UnknownTopic));
    assert!(matches!(reply[2].1, Err(CreatePartitionsError::Fixed(_))));
    let (reply, _) = cluster.carry_out(create_partitions(&cluster.image, &[more("t", 3)]));
    assert_eq!(reply[0].1, Err(CreatePartitionsError::HasThem(3)));
    let (reply, delta) = cluster.carry_out(create_partitions(&cluster.image, &[more("t", 5)]));
    assert_eq!(reply[0].1, Ok(()));
    let id = cluster.image.topic("t").expect("there").id;
    let added = |partition| Change::PartitionAdded { topic: id, partition };
    assert_eq!(delta.changes, [added(3), added(4)]);
    let given = MorePartitions { assignments: Some(vec![vec![NodeId(1)]]), ..more("t", 7) };
    let (reply, _) = cluster.carry_out(create_partitions(&cluster.image, &[given]));
    assert!(reply[0].1.as_ref().unwrap_err().to_string().contains("2 additional"));
}

#[test]
fn a_new_start_of_a_broker_begins_a_new_epoch_of_what_it_leads() {
    let mut cluster = Cluster::of(&[1, 2]);
    let hands = vec![(0, vec![NodeId(1), NodeId(2)]), (1, vec![NodeId(2), NodeId(1)])];
    let id = cluster.create(NewTopic { assignments: hands, ..named("t") }).expect("created").id;
    let before = cluster.image.broker(NodeId(1)).expect("registered").epoch;
    let delta = cluster.start_broker(1);
    assert_eq!(
        delta.changes,
        [Change::BrokerRegistered(NodeId(1)), Change::PartitionChanged { topic: id, partition: 0 }]
    );
    assert!(cluster.image.broker(NodeId(1)).expect("registered").epoch > before);
    let epoch = |partition| cluster.image.partition(id, partition).expect("there").leader_epoch;
    assert_eq!((epoch(0), epoch(1)), (LeaderEpoch(1), LeaderEpoch(0)));
}

#[test]
fn configurations_are_set_removed_and_edited() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create(named("t")).expect("created");
    let own = |cluster: &Cluster| cluster.image.overrides(&ConfigResource::Topic("t".into())).clone();
    cluster
        .alter(2, "t", &[("retention.ms", set("5000")), ("cleanup.policy", AlterOp::Append(Some("compact".into())))])
        .expect("altered");
    assert_eq!(own(&cluster)["cleanup.policy"], "delete,compact", "appended to the default");
    let config = cluster.image.topic("t").expect("there").config.clone();
    assert_eq!(config.retention_ms, Some(5000));
    assert!(config.cleanup_policy.compact && config.cleanup_policy.delete);
    cluster
        .alter(
            2,
            "t",
            &[("retention.ms", AlterOp::Delete), ("cleanup.policy", AlterOp::Subtract(Some("delete".into())))],
        )
        .expect("altered");
    assert_eq!(own(&cluster).into_iter().collect::<Vec<_>>(), [("cleanup.policy".into(), "compact".into())]);
    cluster.alter(2, "t", &[("never.heard.of", AlterOp::Delete)]).expect("there is nothing to delete");

    let replace = |name: &str, value: &str| ResourceAlteration {
        resource: AlterResource { kind: 2, name: "t".into() },
        configs: vec![(name.to_owned(), Some(value.to_owned()))],
    };
    let (reply, _) = cluster.carry_out(replace_configs(&cluster.image, &[replace("segment.ms", "60000")]));
    assert_eq!(reply[0].1, Ok(()));
    assert_eq!(own(&cluster).into_iter().collect::<Vec<_>>(), [("segment.ms".into(), "60000".into())]);
}

#[test]
fn bad_alterations_are_refused_with_their_reason_and_change_nothing() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create(named("t")).expect("created");
    let before = cluster.image.clone();
    let mut refusal = |kind, name: &str, configs: &[(&str, AlterOp)]| {
        cluster.alter(kind, name, configs).expect_err("refused").to_string()
    };
    assert_eq!(refusal(2, "t", &[("retention.msec", set("1"))]), "Unknown topic config name: retention.msec");
    assert!(refusal(2, "t", &[("retention.ms", set("1")), ("segment.ms", set("0"))]).contains("at least 1"));
    assert!(refusal(2, "t", &[("retention.ms", AlterOp::Append(Some("1".into())))]).contains("not LIST"));
    assert!(refusal(2, "t", &[("retention.ms", set("1")), ("retention.ms", set("2"))]).contains("duplicate"));
    assert!(refusal(2, "t", &[("retention.ms", AlterOp::Set(None))]).contains("Null value"));
    assert!(refusal(2, "t", &[("retention.ms", AlterOp::Unknown(9))]).contains("9"));
    assert!(
        refusal(2, "t", &[("min.compaction.lag.ms", set("9")), ("max.compaction.lag.ms", set("1"))]).contains("> max")
    );
    assert!(refusal(2, "t", &[("remote.storage.enable", set("true"))]).contains("Tiered Storage"));
    assert!(refusal(2, "missing", &[]).contains("does not exist"));
    assert!(refusal(2, "a/b", &[]).contains("holds only"));
    assert!(refusal(4, "1", &[("log.retention.ms", set("1"))]).contains("for all brokers"));
    assert!(refusal(4, "1", &[("num.partitions", set("1"))]).contains("read-only"));
    assert!(refusal(4, "", &[("listeners", set("x"))]).contains("read-only"));
    assert!(refusal(4, "", &[("log.retention.hours", set("1"))]).contains("Unknown broker config"));
    assert!(refusal(4, "", &[("log.roll.ms", set("0"))]).contains("configuration log.roll.ms"));
    assert!(refusal(4, "7", &[]).contains("No broker 7"));
    assert!(refusal(4, "x", &[]).contains("integer"));
    assert!(refusal(8, "1", &[]).contains("loggers"));
    assert!(refusal(3, "1", &[]).contains("Unknown resource type 3"));
    assert_eq!(cluster.image, before);
}

#[test]
fn cluster_wide_defaults_reach_every_topic_that_says_nothing_itself() {
    let mut cluster = Cluster::of(&[1]);
    let config = ("retention.ms".to_owned(), Some("1".to_owned()));
    let stubborn = cluster.create(NewTopic { configs: vec![config], ..named("stubborn") }).expect("created");
    let plain = cluster.create(named("plain")).expect("created");
    cluster.alter(4, "", &[("log.retention.ms", set("777"))]).expect("altered");
    assert_eq!(cluster.image.topic("plain").expect("there").config.retention_ms, Some(777));
    assert_eq!(cluster.image.topic("stubborn").expect("there").config.retention_ms, Some(1));

    let entries =
        describe_config::topic_entries(&cluster.image, &BTreeMap::from([("retention.ms".into(), "1".into())]));
    let entry = entries.iter().find(|entry| entry.name == "retention.ms").expect("listed");
    let synonyms: Vec<_> =
        entry.synonyms.iter().map(|synonym| (synonym.name, synonym.value.as_str(), synonym.source as i8)).collect();
    assert_eq!(
        synonyms,
        [("retention.ms", "1", 1), ("log.retention.ms", "777", 3), ("log.retention.ms", "604800000", 5)]
    );
    assert_eq!(describe_config::all_brokers_entries(&cluster.image).len(), 1);
    assert!(entries.iter().all(|entry| !entry.name.starts_with("internal.")));

    let removed = alter_configs(
        &cluster.image,
        &[ResourceAlteration {
            resource: AlterResource { kind: 4, name: String::new() },
            configs: vec![("log.retention.ms".into(), AlterOp::Delete)],
        }],
    );
    let (_, delta) = cluster.carry_out(removed);
    assert!(delta.changes.contains(&Change::TopicConfig(plain.id)));
    assert!(!delta.changes.contains(&Change::TopicConfig(stubborn.id)), "nothing is new for it");
}

#[test]
fn a_brokers_own_configurations_stand_before_those_of_all_brokers() {
    const RATE: &str = "leader.replication.throttled.rate";
    let mut cluster = Cluster::of(&[1, 2]);
    let rates = |cluster: &Cluster| [1, 2].map(|id| cluster.image.broker_config(NodeId(id)).leader_throttled_rate);
    let described = |cluster: &Cluster, id| {
        let entries = describe_config::broker_entries(&cluster.image, NodeId(id), &Default::default());
        let entry = entries.into_iter().find(|entry| entry.name == RATE).expect("it is always shown");
        assert!(!entry.read_only);
        (entry.value, entry.source as i8, entry.synonyms.len())
    };
    assert_eq!(rates(&cluster), [None, None]);
    assert_eq!(described(&cluster, 1), (i64::MAX.to_string(), 5, 1), "a default");
    cluster.alter(4, "", &[(RATE, set("100"))]).expect("altered");
    cluster.alter(4, "2", &[(RATE, set("7"))]).expect("altered");
    assert_eq!(rates(&cluster), [Some(100), Some(7)]);
    assert_eq!(described(&cluster, 1), ("100".into(), 3, 2));
    assert_eq!(described(&cluster, 2), ("7".into(), 2, 3));
    let of_all = describe_config::all_brokers_entries(&cluster.image);
    assert_eq!(of_all.iter().map(|entry| (entry.name, &*entry.value)).collect::<Vec<_>>(), [(RATE, "100")]);
    cluster.alter(4, "", &[(RATE, AlterOp::Delete)]).expect("altered");
    assert_eq!(rates(&cluster), [None, Some(7)]);
    let refusal = |cluster: &mut Cluster, config| cluster.alter(4, "2", &[config]).expect_err("refused").to_string();
    assert!(refusal(&mut cluster, (RATE, set("-1"))).contains("at least 0"));
    assert!(refusal(&mut cluster, (RATE, AlterOp::Append(Some("1".into())))).contains("not LIST"));
    assert!(refusal(&mut cluster, ("follower.throttle", set("1"))).contains("Unknown broker config name"));
    let unknown = "replica.alter.log.dirs.io.max.bytes.per.second";
    assert!(refusal(&mut cluster, (unknown, set("1"))).contains("Unknown broker config name"));
    let clears = ["leader.replication.throttled.rate", "follower.replication.throttled.rate", unknown];
    cluster.alter(4, "2", &clears.map(|name| (name, AlterOp::Delete))).expect("as Kafka's tool clears a throttle");
    assert_eq!(rates(&cluster), [None, None]);
}

#[test]
fn a_topic_is_not_created_with_what_it_cannot_be_configured_to() {
    let mut cluster = Cluster::of(&[1]);
    let mut with = |name: &str, value: Option<&str>| {
        let config = (name.to_owned(), value.map(str::to_owned));
        cluster.create(NewTopic { configs: vec![config], ..named("t") })
    };
    let unknown = CreateTopicError::InvalidConfig(InvalidConfig::UnknownName("x".into()));
    assert_eq!(with("x", Some("1")), Err(unknown));
    assert!(with("retention.ms", None).unwrap_err().to_string().contains("Null value"));
    let created = with("cleanup.policy", Some("compact")).expect("accepted");
    assert_eq!(created.configs["cleanup.policy"], "compact");
}

/// A broker with three engines, the default one without segments.
fn with_engines() -> Cluster {
    let of = |label: &str, survives, segments| Ok(EngineTraits { label: label.into(), survives, segments });
    let configured = BTreeMap::from([
        ("segment".to_owned(), of("segment", Survives::PowerLoss, true)),
        ("memory".to_owned(), of("memory", Survives::Nothing, true)),
        ("plain".to_owned(), of("plain", Survives::PowerLoss, false)),
    ]);
    let mut defaults = ClusterDefaults::default();
    defaults.storage = StorageEngines::new("plain", configured);
    let mut cluster = Cluster::blank();
    cluster.image = Image::empty(defaults);
    cluster.carry_out(bootstrap(&cluster.image, FirstStart { cluster_id: [9; 16] }));
    cluster.start_broker(1);
    cluster
}

fn configured(name: &str, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
    NewTopic { configs, ..named(name) }
}

#[test]
fn a_topic_is_created_in_an_engine_and_stays_there_whatever_the_default_becomes() {
    let mut cluster = with_engines();
    let engine = |cluster: &Cluster, name: &str| cluster.image.topic(name).expect("there").config.storage.clone();
    let asked = |engine: &str| [("chronik.storage".to_owned(), engine.to_owned())].into();
    assert_eq!(cluster.create(named("by-default")).expect("created").configs, asked("plain"));
    assert_eq!(
        cluster.create(configured("chosen", &[("chronik.storage", "segment")])).expect("created").configs,
        asked("segment")
    );
    cluster.create(configured("__consumer_offsets", &[("cleanup.policy", "compact")])).expect("created");
    assert_eq!(
        ["by-default", "chosen", "__consumer_offsets"].map(|name| engine(&cluster, name)),
        ["plain", "segment", "segment"]
    );

    // The same records on a broker with another default.
    let mut other = Image::empty(ClusterDefaults::default());
    let mut delta = Delta::default();
    for record in &cluster.log {
        let at = other.position().next;
        other.apply(at, LeaderEpoch(1), record, &mut delta).expect("it applies");
    }
    let of = |name: &str| other.topic(name).expect("there").config.storage.clone();
    assert_eq!(["by-default", "chosen", "__consumer_offsets"].map(of), ["plain", "segment", "segment"]);

    let entries = describe_config::topic_entries(&cluster.image, &asked("plain"));
    let entry = entries.iter().find(|entry| entry.name == "chronik.storage").expect("listed");
    assert_eq!((entry.value.as_str(), entry.source as i8, entry.read_only), ("plain", 1, true));
    let mut refusal =
        |configs: &[(&str, &str)]| cluster.create(configured("t", configs)).expect_err("refused").to_string();
    assert!(
        refusal(&[("chronik.storage", "plane")])
            .contains("no storage engine of that name is configured on this broker, which has memory, plain, segment")
    );
    assert!(refusal(&[("chronik.storage", "../etc")]).contains("Not an engine's name"));
    assert!(refusal(&[("chronik.storage", "memory")]).contains("chronik.durability=fsync cannot be kept"));
    assert!(refusal(&[("cleanup.policy", "compact")]).contains("the storage engine (plain) keeps no segments"));
    assert!(refusal(&[("retention.bytes", "1")]).contains("dropped by size"));
}

#[test]
fn a_topics_engine_is_not_altered_and_nothing_is_promised_later_that_it_cannot_keep() {
    let mut cluster = with_engines();
    let volatile = [("chronik.storage", "memory"), ("chronik.durability", "replicated")];
    cluster.create(configured("volatile", &volatile)).expect("created");
    cluster.create(named("t")).expect("created");
    let before = cluster.image.clone();
    let mut refusal = |kind, name: &str, configs: &[(&str, AlterOp)]| {
        cluster.alter(kind, name, configs).expect_err("refused").to_string()
    };
    let fixed = "chronik.storage is said when a topic is created and cannot be altered: it is plain";
    assert_eq!(refusal(2, "t", &[("chronik.storage", set("memory"))]), fixed);
    assert_eq!(refusal(2, "t", &[("chronik.storage", AlterOp::Delete)]), fixed);
    assert!(refusal(2, "volatile", &[("chronik.durability", set("fsync"))]).contains("does not survive the process"));
    let follows = refusal(2, "volatile", &[("chronik.durability", AlterOp::Delete)]);
    assert!(follows.contains("does not survive the process"), "the default would hold: {follows}");
    assert!(refusal(2, "t", &[("cleanup.policy", AlterOp::Append(Some("compact".into())))]).contains("compaction"));
    assert!(
        refusal(4, "", &[("log.cleanup.policy", set("compact"))]).contains("compaction"),
        "new topics would follow"
    );
    assert!(refusal(4, "", &[("chronik.storage", set("memory"))]).contains("Unknown broker config name"));
    assert_eq!(cluster.image, before);

    cluster.alter(2, "t", &[("chronik.storage", set("plain")), ("retention.ms", set("5"))]).expect("it is what it was");
    let replaced = ResourceAlteration {
        resource: AlterResource { kind: 2, name: "t".into() },
        configs: vec![("retention.ms".to_owned(), Some("7".to_owned()))],
    };
    let (reply, _) = cluster.carry_out(replace_configs(&cluster.image, &[replaced]));
    assert_eq!(reply[0].1, Ok(()), "who replaces all else does not mean that the records move");
    let config = &cluster.image.topic("t").expect("there").config;
    assert_eq!((config.storage.as_str(), config.retention_ms), ("plain", Some(7)));
}

#[test]
fn a_default_for_all_is_refused_where_a_topic_that_follows_it_could_not() {
    let mut cluster = with_engines();
    cluster.alter(4, "", &[("chronik.durability", set("replicated"))]).expect("altered");
    cluster.create(configured("follows", &[("chronik.storage", "memory")])).expect("created");
    let why = cluster.alter(4, "", &[("chronik.durability", AlterOp::Delete)]).expect_err("refused").to_string();
    assert!(why.starts_with("for topic follows: chronik.durability=fsync cannot be kept"), "{why}");
    cluster.alter(2, "follows", &[("chronik.durability", set("replicated"))]).expect("altered");
    cluster.alter(4, "", &[("chronik.durability", AlterOp::Delete)]).expect("now it says so itself");
}

#[test]
fn one_node_needs_no_elections_and_says_so() {
    let mut cluster = Cluster::of(&[1]);
    cluster.create(named("t")).expect("created");
    let asked = [("t".to_owned(), 0), ("t".to_owned(), 5), ("missing".to_owned(), 0)];
    for kind in [ElectionKind::Preferred, ElectionKind::Unclean] {
        let decision = elect_leaders(&cluster.image, kind, &asked);
        assert_eq!(decision.records, []);
        assert_eq!(decision.reply[0].2, Err(ElectLeaderError::NotNeeded));
        assert!(matches!(decision.reply[1].2, Err(ElectLeaderError::UnknownPartition { .. })));
        assert!(matches!(decision.reply[2].2, Err(ElectLeaderError::UnknownTopic(_))));
        assert_eq!(elect_all_leaders(&cluster.image, kind).reply, []);
    }
}

#[test]
fn producer_ids_are_never_given_out_twice() {
    let mut cluster = Cluster::of(&[1]);
    let decision = reserve_producer_ids(&cluster.image).expect("there are many");
    let first = cluster.carry_out(decision).0;
    let decision = reserve_producer_ids(&cluster.image).expect("there are many");
    let second = cluster.carry_out(decision).0;
    assert_eq!(second.first.0, first.first.0 + first.count);
}

#[test]
fn a_log_that_makes_no_sense_is_not_believed() {
    let mut cluster = Cluster::of(&[1]);
    let id = cluster.create(named("t")).expect("created").id;
    cluster.start_broker(1);
    let state = cluster.image.partition(id, 0).expect("there").clone();
    let mut refused = |record: Record| {
        let before = cluster.image.clone();
        let at = cluster.image.position().next;
        let why = cluster.image.apply(at, LeaderEpoch(1), &record, &mut Delta::default()).expect_err("refused");
        assert_eq!(cluster.image, before, "and nothing changed");
        why
    };
    use super::snapshot::{partition_record, topic_record};
    let older = super::Partition { leader_epoch: LeaderEpoch(0), partition_epoch: 99, ..state.clone() };
    assert!(matches!(refused(partition_record(id, 0, &older)), ApplyError::EpochFell { was: 1, is: 0, .. }));
    assert!(matches!(refused(partition_record(id, 0, &state)), ApplyError::EpochFell { .. }));
    assert!(matches!(refused(partition_record(id, 2, &state)), ApplyError::NoSuchTopic(_)));
    assert!(matches!(refused(partition_record(TopicId([50; 16]), 0, &state)), ApplyError::NoSuchTopic(_)));
    assert!(matches!(refused(topic_record(TopicId([51; 16]), "t")), ApplyError::TopicExists(_)));
    let other = super::records::ClusterRecord { cluster_id: "another".into() };
    assert!(matches!(refused(Record::Cluster(other)), ApplyError::OtherCluster { .. }));
    let future = super::records::FeatureLevelRecord {
        name: "metadata.version".into(),
        level: i32::from(METADATA_VERSION_LATEST) + 1,
        features_epoch: None,
    };
    assert!(matches!(refused(Record::FeatureLevel(future)), ApplyError::UnknownLevel { .. }));

    let mut blank = Cluster::blank();
    let early = topic_record(TopicId([1; 16]), "t");
    let why = blank.image.apply(Offset(0), LeaderEpoch(0), &early, &mut Delta::default());
    assert!(matches!(why, Err(ApplyError::Gated { needs: 30, level: 0 })), "no level, no records");
}

/// What may happen to a cluster.
#[derive(Clone, Debug)]
enum Step {
    StartBroker(i32),
    Create { name: u8, partitions: i32, factor: i16, config: Option<u8> },
    Delete(u8),
    Grow(u8, i32),
    Configure { name: u8, config: u8, value: u8, delete: bool },
    Default { config: u8, value: u8, delete: bool },
    Throttle { broker: i32, rate: u8, delete: bool },
    Elect(u8, i32, bool),
    ProducerIds,
}

const CONFIGS: [(&str, &str); 5] = [
    ("retention.ms", "log.retention.ms"),
    ("segment.ms", "log.roll.ms"),
    ("cleanup.policy", "log.cleanup.policy"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("chronik.durability", "chronik.durability"),
];
const VALUES: [&str; 6] = ["1", "2", "3000", "compact", "replicated", "fsync"];

fn step() -> impl Strategy<Value = Step> {
    let (name, config, value) = (0..6u8, 0..5u8, 0..6u8);
    prop_oneof![
        1 => (1..4i32).prop_map(Step::StartBroker),
        4 => (name.clone(), -1..4i32, -1..4i16, prop::option::of(config.clone()))
            .prop_map(|(name, partitions, factor, config)| Step::Create { name, partitions, factor, config }),
        2 => name.clone().prop_map(Step::Delete),
        2 => (name.clone(), 0..6i32).prop_map(|(name, count)| Step::Grow(name, count)),
        3 => (name.clone(), config.clone(), value.clone(), any::<bool>())
            .prop_map(|(name, config, value, delete)| Step::Configure { name, config, value, delete }),
        1 => (config, value, any::<bool>()).prop_map(|(config, value, delete)| Step::Default { config, value, delete }),
        1 => (1..4i32, 0..3u8, any::<bool>())
            .prop_map(|(broker, rate, delete)| Step::Throttle { broker, rate, delete }),
        1 => (name, 0..4i32, any::<bool>()).prop_map(|(name, partition, unclean)| Step::Elect(name, partition, unclean)),
        1 => Just(Step::ProducerIds),
    ]
}

fn take(cluster: &mut Cluster, step: &Step) {
    let topic = |name: u8| format!("topic-{name}");
    let op = |value: u8, delete| if delete { AlterOp::Delete } else { set(VALUES[usize::from(value)]) };
    match *step {
        Step::StartBroker(id) => drop(cluster.start_broker(id)),
        Step::Create { name, partitions, factor, config } => {
            let configs = config.map(|at| (CONFIGS[usize::from(at)].0.to_owned(), Some("2".to_owned())));
            let wanted = NewTopic { partitions, replication_factor: factor, ..named(&topic(name)) };
            let _ = cluster.create(NewTopic { configs: configs.into_iter().collect(), ..wanted });
        }
        Step::Delete(name) => {
            let named = TopicRef { name: Some(topic(name)), id: TopicId::NONE };
            cluster.carry_out(delete_topics(&cluster.image, &[named]));
        }
        Step::Grow(name, count) => {
            let more = MorePartitions { topic: topic(name), count, assignments: None };
            cluster.carry_out(create_partitions(&cluster.image, &[more]));
        }
        Step::Configure { name, config, value, delete } => {
            let _ = cluster.alter(2, &topic(name), &[(CONFIGS[usize::from(config)].0, op(value, delete))]);
        }
        Step::Default { config, value, delete } => {
            let _ = cluster.alter(4, "", &[(CONFIGS[usize::from(config)].1, op(value, delete))]);
        }
        Step::Throttle { broker, rate, delete } => {
            let config = ("follower.replication.throttled.rate", op(rate, delete));
            let _ = cluster.alter(4, &broker.to_string(), &[config]);
        }
        Step::Elect(name, partition, unclean) => {
            let kind = if unclean { ElectionKind::Unclean } else { ElectionKind::Preferred };
            cluster.carry_out(elect_leaders(&cluster.image, kind, &[(topic(name), partition)]));
        }
        Step::ProducerIds => {
            let decision = reserve_producer_ids(&cluster.image).expect("there are many");
            cluster.carry_out(decision);
        }
    }
}

fn replay(mut image: Image, records: &[Record]) -> Image {
    for record in records {
        let at = image.position().next;
        image.apply(at, LeaderEpoch(1), record, &mut Delta::default()).expect("it could be applied before");
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is decided, in whatever order: replaying the records gives the same image, from the beginning and from a
    /// snapshot taken anywhere; and what must never fall never falls. A failing case is printed whole.
    #[test]
    fn replaying_gives_the_same_image(steps in prop::collection::vec(step(), 1..40), snapshot_after in 0..40usize) {
        let mut cluster = Cluster::of(&[1]);
        let mut snapshot = (cluster.image.clone(), cluster.log.len());
        for (number, step) in steps.iter().enumerate() {
            let before = cluster.image.clone();
            take(&mut cluster, step);
            for topic in before.topics() {
                let Some(now) = cluster.image.topic_by_id(topic.id) else { continue };
                prop_assert!(now.partitions.len() >= topic.partitions.len());
                for (was, is) in topic.partitions.iter().zip(&now.partitions) {
                    prop_assert!(is.leader_epoch >= was.leader_epoch && is.partition_epoch >= was.partition_epoch);
                }
            }
            prop_assert!(cluster.image.features_epoch() >= before.features_epoch());
            prop_assert!(cluster.image.next_producer_id() >= before.next_producer_id());
            if number == snapshot_after {
                snapshot = (cluster.image.clone(), cluster.log.len());
            }
        }
        let blank = Image::empty(ClusterDefaults::default());
        prop_assert_eq!(&replay(blank.clone(), &cluster.log), &cluster.image);

        let (image, upto) = snapshot;
        let restored = replay(blank, &image.to_records()).at(image.position());
        prop_assert_eq!(&restored, &image, "a snapshot says what the image says");
        prop_assert_eq!(&replay(restored, &cluster.log[upto..]), &cluster.image);
    }
}
