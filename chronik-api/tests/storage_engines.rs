//! Which logs a node that comes back has lost, by the engines that keep them.

use chronik_api::assemble::engines::Engines;
use chronik_api::broker::FollowMetadata;
use chronik_api::clock::Clock;
use chronik_api::config::Config;
use chronik_api::metadata::Applied;
use chronik_api::metadata::settings::cluster_defaults;
use chronik_api::partitions::partition::Surroundings;
use chronik_api::partitions::stall::StallWatch;
use chronik_api::partitions::throttle::Throttling;
use chronik_api::partitions::{NoPeers, PartitionTable};
use chronik_core::ids::{LeaderEpoch, LogId, NodeId, TopicId};
use chronik_core::metadata::controller::{self, FirstStart, Lost, NewTopic, Registration};
use chronik_core::metadata::{Delta, Image, Record};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn applied(image: &mut Image, records: &[Record]) {
    let mut delta = Delta::default();
    for record in records {
        let at = image.position().next;
        image.apply(at, LeaderEpoch(1), record, &mut delta).expect("it applies");
    }
}

fn topic(name: &str, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
    NewTopic { configs, ..NewTopic::with_defaults(name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_memory_is_told_as_lost_at_every_start_however_the_process_has_stopped() {
    let home = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    config.node.data_dir = home.path().join("data");
    let engines = Arc::new(Engines::start(&config).await.expect("they start"));
    let mut image = Image::empty(cluster_defaults(&config, &engines));
    let first = controller::bootstrap(&image, FirstStart { cluster_id: [9; 16] }).records;
    applied(&mut image, &first);
    let registration = Registration {
        node: NodeId(1),
        incarnation: [1; 16],
        directory_id: [2; 16],
        rack: None,
        listeners: Vec::new(),
        clean: true,
        lost: Lost::NOTHING,
        replication_address: None,
        features: controller::supported_features(),
        after: None,
    };
    applied(&mut image, &controller::register_broker(&registration).records);
    let volatile = [("chronik.storage", "memory"), ("chronik.durability", "replicated")];
    let mut next = 0;
    let made = controller::create_topics(&image, &[topic("files", &[]), topic("volatile", &volatile)], || {
        next += 1;
        TopicId([next; 16])
    });
    assert!(made.reply.iter().all(|(_, outcome)| outcome.is_ok()), "{:?}", made.reply);
    applied(&mut image, &made.records);

    let around = Surroundings {
        node: NodeId(1),
        clock: Clock::start(),
        stalls: StallWatch::start(tokio::runtime::Handle::current()).expect("a thread"),
        channel: Arc::new(NoPeers),
        throttling: Throttling::default(),
        sampling: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
    };
    let follow = FollowMetadata {
        node: NodeId(1),
        clock: Clock::start(),
        replica_lag_max: Duration::from_secs(30),
        partitions: Arc::new(PartitionTable::new(engines.clone(), around)),
        metrics: Arc::default(),
        groups: OnceLock::new(),
    };
    let id = |name: &str| LogId { topic: image.topic(name).expect("there").id, partition: 0 };
    let lost = follow.open_idle(&image).await;
    assert_eq!(lost.damaged, [id("volatile")], "nobody may count it in sync");
    assert_eq!(lost.missing, [id("files"), id("volatile")], "nothing is begun before that is told");
    assert_eq!(follow.partitions.len(), 0);
    let image = Arc::new(image);
    follow.begin(&image).await;
    assert_eq!((follow.partitions.len(), follow.partitions.offline()), (2, vec![]), "both are begun now");
    assert_eq!(follow.open_idle(&image).await, lost, "the memory's are lost all the same");
    assert_eq!(engines.stored("segment").map(|stored| stored.survives()), Some("power-loss"));
    follow.partitions.shut_down().await.expect("closed");
}
