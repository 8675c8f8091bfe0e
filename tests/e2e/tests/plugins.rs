//! A cluster whose records storage plug-ins keep, under a real client: nodes are killed, a node's plug-in is gone, a log of a
//! plug-in is damaged. Nothing that was acknowledged is lost, and the replicas come to hold the same bytes.
//!
//! `CHRONIK_CLUSTER_TRANSPORT` as in `cluster.rs`.

use chronik_core::ids::{LogId, Offset};
use chronik_core::pending::Pending;
use chronik_core::wal::{OpenMode, OpenOptions, ReadRange, WalEngine};
use chronik_e2e::cluster::{Cluster, PATIENCE};
use chronik_e2e::workload::writer::Writer;
use chronik_e2e::workload::{PARTITIONS, check, client, create_topic, leaders};
use chronik_plugin_host::{PluginEngine, PluginOptions};
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions as FileOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a broker keeps what its plug-in stores.
const DIRECTORY: &str = "plugin";

/// Each node's own copy of a plug-in: what becomes of one is no matter to the others.
struct Libraries(TempDir);

impl Libraries {
    fn of(library: &Path) -> Self {
        let all = Self(tempfile::tempdir().expect("a temporary directory"));
        for id in 1..=3 {
            fs::copy(library, all.path(id)).expect("copied");
        }
        all
    }

    /// The example in plain C, after a change of its source.
    fn in_c(from: &str, to: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/examples/plain-c/plain.c");
        let text = fs::read_to_string(source).expect("the example is there");
        assert!(from.is_empty() || text.matches(from).count() == 1, "the example has changed: {from}");
        let place = tempfile::tempdir().expect("a temporary directory");
        let source = place.path().join("plain.c");
        fs::write(&source, if from.is_empty() { text } else { text.replace(from, to) }).expect("written");
        Self::of(&chronik_plugin_plain_c::compile(&source, place.path()).expect("a C compiler builds it"))
    }

    /// The example on an embedded database: cargo builds it beside the tests.
    fn on_fjall() -> Self {
        let test = std::env::current_exe().expect("a test has a file");
        let file = format!("libchronik_plugin_fjall{}", std::env::consts::DLL_SUFFIX);
        let library = test.parent().expect("in a directory").join(file);
        assert!(library.exists(), "{} is built", library.display());
        Self::of(&library)
    }

    fn path(&self, id: usize) -> PathBuf {
        self.0.path().join(format!("node-{id}.so"))
    }

    /// Three nodes whose topics are in the plug-in.
    fn cluster(&self, more: impl Fn(usize) -> &'static [&'static str]) -> Cluster {
        Cluster::start_with(3, |id| {
            let own = [format!("storage.plugin.path={}", self.path(id).display())];
            own.into_iter().chain(more(id).iter().map(ToString::to_string)).collect()
        })
    }

    /// Another file is in its place, which is none.
    fn spoil(&self, id: usize) -> Vec<u8> {
        let was = fs::read(self.path(id)).expect("it is there");
        fs::remove_file(self.path(id)).expect("removed");
        fs::write(self.path(id), "no library any more").expect("written");
        was
    }

    fn put_back(&self, id: usize, was: &[u8]) {
        fs::remove_file(self.path(id)).expect("removed");
        fs::write(self.path(id), was).expect("written");
    }

    /// What a stopped node's plug-in has, by log, in the plug-in's own words.
    fn kept(&self, cluster: &Cluster, id: usize) -> BTreeMap<LogId, Vec<u8>> {
        let options = PluginOptions::new(self.path(id), cluster.data(id).join(DIRECTORY));
        let engine = PluginEngine::start(options).expect("the plug-in starts for us as for the node");
        let mut all = BTreeMap::new();
        for log in block_on(engine.list()).expect("listed") {
            let open = OpenOptions { mode: OpenMode::Existing, segment_bytes: 1 << 30 };
            let wal = block_on(engine.open(log, open)).expect("opened");
            let (mut from, end) = (wal.state().start, wal.state().end);
            let mut bytes = Vec::new();
            while from < end {
                let range = ReadRange { from, upto: Offset(i64::MAX), max_bytes: 1 << 20, min_one: true };
                let chunk = block_on(Pending::start(|done| wal.read(range, done))).expect("read");
                assert!(chunk.next_offset > from, "a read below the end gives something");
                bytes.extend_from_slice(&chunk.bytes.to_bytes());
                from = chunk.next_offset;
            }
            all.insert(log, bytes);
        }
        block_on(engine.close()).expect("closed");
        all
    }

    /// Stops all nodes in order, and compares what each replica of each partition holds then.
    fn replicas_are_the_same(&self, cluster: &mut Cluster) {
        cluster.wait("all replicas are in sync", Cluster::is_whole);
        for id in cluster.ids() {
            cluster.terminate(id);
        }
        let first = self.kept(cluster, 1);
        let filled = first.values().filter(|bytes| !bytes.is_empty()).count();
        assert!(filled >= PARTITIONS as usize, "the plug-in has {filled} logs");
        for id in cluster.ids().skip(1) {
            let other = self.kept(cluster, id);
            assert_eq!(first.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "logs of nodes 1 and {id}");
            for (log, bytes) in &first {
                let same = bytes.iter().zip(&other[log]).take_while(|(one, other)| one == other).count();
                let (here, there) = (bytes.len(), other[log].len());
                assert!(same == here && same == there, "{log}: {here} and {there} bytes, the first {same} the same");
            }
        }
    }
}

const IN_PLUGIN: &[&str] = &["storage.engine=plugin"];

/// Whether another node knows that logs of this one have failed, or could not be opened.
fn has_failed(cluster: &Cluster, id: usize) -> bool {
    let status = cluster.status(1 + id % 3).unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().any(|node| node["node"] == id && node["failed_logs"] != 0)
}

/// Whoever leads is killed, in turn, and then all at once.
fn killed_nodes_lose_nothing(libraries: &Libraries) {
    let mut cluster = libraries.cluster(|_| IN_PLUGIN);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    for round in 0..2 {
        let leads = leaders(&cluster);
        let id = *leads.get(&(round * 5)).expect("every partition has a leader");
        cluster.kill(id);
        writer.goes_on("with a leader less");
        cluster.restart(id);
        cluster.wait("it is back, and in sync", Cluster::is_whole);
    }
    writer.goes_on("before the lights go out");
    cluster.kill_all_and_restart();
    cluster.wait("all are back", Cluster::is_whole);
    writer.goes_on("in the end");
    check(&cluster, &[writer.finish()]);
    libraries.replicas_are_the_same(&mut cluster);
}

#[test]
#[ignore = "run by tests/run"]
fn records_in_a_plugin_in_c_outlive_killed_leaders_and_a_killed_cluster() {
    killed_nodes_lose_nothing(&Libraries::in_c("", ""));
}

#[test]
#[ignore = "run by tests/run"]
fn records_in_a_plugin_on_a_database_outlive_killed_leaders_and_a_killed_cluster() {
    killed_nodes_lose_nothing(&Libraries::on_fjall());
}

#[test]
#[ignore = "run by tests/run"]
fn a_node_whose_plugin_is_gone_says_so_and_the_others_go_on() {
    let libraries = Libraries::in_c("", "");
    const NOT_REQUIRED: &[&str] = &["storage.engine=plugin", "storage.plugin.required=false"];
    let mut cluster = libraries.cluster(|id| if id == 3 { NOT_REQUIRED } else { IN_PLUGIN });
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");

    // One that requires it does not start without it.
    cluster.kill(2);
    let was = libraries.spoil(2);
    let logged = cluster.log(2).len();
    cluster.restart(2);
    for _ in 0..2_400 {
        if cluster.has_ended(2) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(!cluster.is_running(2), "it starts without a plug-in that it requires");
    let said = cluster.log(2).split_off(logged);
    assert!(said.contains("node-2.so") && said.contains("is not a shared library"), "{said}");
    writer.goes_on("with the two that have it");
    libraries.put_back(2, &was);
    cluster.restart(2);
    cluster.wait("it is back, and in sync", Cluster::is_whole);

    // One that does not keeps nothing for the topic, and takes part in everything else.
    cluster.kill(3);
    let was = libraries.spoil(3);
    let logged = cluster.log(3).len();
    cluster.restart(3);
    cluster.wait("it serves without its plug-in", |cluster| cluster.is_ready(3) && has_failed(cluster, 3));
    let said = cluster.log(3).split_off(logged);
    assert!(said.contains("what it keeps is offline") && said.contains("is not a shared library"), "{said}");
    writer.goes_on("with the two that have it");
    assert!(leaders(&cluster).values().all(|leader| *leader != 3), "it leads what it does not have");
    assert!(!cluster.is_whole(), "its replicas count as in sync");
    assert_eq!(
        create(&cluster, NewTopic::new("files", 3, TopicReplication::Fixed(3)).set("chronik.storage", "segment")),
        Ok(())
    );
    cluster.kill(3);
    libraries.put_back(3, &was);
    cluster.restart(3);
    cluster.wait("it is back, and in sync", Cluster::is_whole);
    writer.goes_on("in the end");
    check(&cluster, &[writer.finish()]);
    libraries.replicas_are_the_same(&mut cluster);
}

/// Stops a node in order, and changes a bit in the largest of its plug-in's files; gives the file.
fn damage(cluster: &mut Cluster, id: usize) -> PathBuf {
    cluster.terminate(id);
    let files = fs::read_dir(cluster.data(id).join(DIRECTORY)).expect("the plug-in's files").flatten();
    let data = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let (length, path) =
        data.map(|path| (path.metadata().expect("its length").len(), path)).max().expect("the plug-in keeps something");
    let file = FileOptions::new().read(true).write(true).open(&path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, length / 2).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], length / 2).expect("another byte");
    path
}

/// The name that a log's files have in common.
fn stem(path: &Path) -> String {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    name.split('.').next().expect("a beginning").to_owned()
}

#[test]
#[ignore = "run by tests/run"]
fn a_damaged_log_of_a_plugin_is_set_aside_and_filled_anew() {
    let libraries = Libraries::in_c("", "");
    let mut cluster = libraries.cluster(|_| IN_PLUGIN);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    let damaged = damage(&mut cluster, 2);
    let what_was_left = fs::read(&damaged).expect("read");
    let logged = cluster.log(2).len();
    writer.goes_on("without it");
    cluster.restart(2);
    cluster.wait("it is filled anew, and in sync", Cluster::is_whole);
    let said = cluster.log(2).split_off(logged);
    assert!(said.contains("the storage plug-in has set a log aside"), "{said}");
    let aside = fs::read_dir(damaged.parent().expect("a directory")).expect("the plug-in's files").flatten();
    let aside = aside.map(|file| file.path()).find(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with(&format!("{}.damaged.", stem(&damaged))) && name.ends_with(".log")
    });
    let aside = aside.unwrap_or_else(|| panic!("what was left of {} is nowhere", damaged.display()));
    assert!(fs::read(aside).expect("read") == what_was_left, "what was set aside is what was left");
    // It counts: with another one gone the cluster goes on.
    cluster.kill(1);
    writer.goes_on("with the one that was filled and one other");
    cluster.restart(1);
    cluster.wait("all are back", Cluster::is_whole);
    check(&cluster, &[writer.finish()]);
    libraries.replicas_are_the_same(&mut cluster);
}

#[test]
#[ignore = "run by tests/run"]
fn a_damaged_log_of_a_plugin_that_sets_nothing_aside_is_offline_until_somebody_removes_it() {
    let libraries = Libraries::in_c(".capabilities = CK_CAP_SET_ASIDE,", "");
    let mut cluster = libraries.cluster(|_| IN_PLUGIN);
    create_topic(&cluster);
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    let damaged = damage(&mut cluster, 2);
    let logged = cluster.log(2).len();
    cluster.restart(2);
    cluster.wait("it says why", |cluster| {
        let said = cluster.log(2).split_off(logged);
        said.contains("cannot set a log aside: what is left of it must be moved or deleted by hand")
    });
    writer.goes_on("without that replica");
    assert!(has_failed(&cluster, 2) && !cluster.is_whole(), "a damaged log counts as in sync");
    cluster.terminate(2);
    for file in fs::read_dir(damaged.parent().expect("a directory")).expect("the plug-in's files").flatten() {
        if stem(&file.path()) == stem(&damaged) {
            fs::remove_file(file.path()).expect("removed");
        }
    }
    cluster.restart(2);
    cluster.wait("it is filled anew, and in sync", Cluster::is_whole);
    check(&cluster, &[writer.finish()]);
    libraries.replicas_are_the_same(&mut cluster);
}

fn create(cluster: &Cluster, topic: NewTopic<'_>) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> = client(cluster).create().expect("a client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let mut created = block_on(admin.create_topics([&topic], &options)).expect("an answer");
    created.remove(0).map(drop).map_err(|(_, code)| code)
}

#[test]
#[ignore = "run by tests/run"]
fn what_a_plugin_does_not_promise_no_topic_in_it_can_have() {
    let libraries = Libraries::in_c("= CK_SURVIVES_POWER_LOSS;", "= CK_SURVIVES_PROCESS;");
    // Topics that do not choose go to files: a broker whose topics are all in it would not start.
    let mut cluster = libraries.cluster(|_| &[]);
    let topic = |name, durability| {
        NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(3))
            .set("chronik.storage", "plugin")
            .set("min.insync.replicas", "2")
            .set("chronik.durability", durability)
    };
    assert_eq!(create(&cluster, topic("beyond", "fsync")), Err(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(
        create(&cluster, topic("compact", "replicated").set("cleanup.policy", "compact")),
        Err(RDKafkaErrorCode::InvalidConfig)
    );
    assert_eq!(create(&cluster, topic("t", "replicated")), Ok(()));
    cluster.wait("every node knows the topic", |cluster| {
        cluster.ids().all(|id| cluster.status(id).is_some_and(|status| status["partitions"].as_i64() >= Some(12)))
    });
    let writer = Writer::start(&cluster);
    writer.goes_on("at first");
    let id = *leaders(&cluster).get(&0).expect("a leader");
    cluster.kill(id);
    writer.goes_on("with a leader less");
    cluster.restart(id);
    cluster.wait("it is back, and in sync", Cluster::is_whole);
    check(&cluster, &[writer.finish()]);
    libraries.replicas_are_the_same(&mut cluster);

    let logged = cluster.log(1).len();
    let config = cluster.home().join("node-1.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("storage.engine = \"plugin\"\n{text}")).expect("written");
    cluster.restart(1);
    for _ in 0..2_400 {
        if cluster.has_ended(1) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(!cluster.is_running(1), "it starts with a promise that its engine cannot keep");
    let said = cluster.log(1).split_off(logged);
    assert!(
        said.contains("topics.durability is \"fsync\"") && said.contains("survives the process but no power cut"),
        "{said}"
    );
}
