//! Stories of configurations: what is read, what overrides what, and what is refused.

use super::*;
use std::io::Write;

/// A file that is there while the value lives.
struct File(tempfile::NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        Self(file)
    }

    fn name(&self) -> String {
        self.0.path().display().to_string()
    }
}

fn read(file: Option<&File>, environment: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, ConfigError> {
    load(&Sources {
        file: file.map(|file| file.0.path().to_owned()),
        environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        sets: sets.iter().map(|set| set.to_string()).collect(),
    })
}

fn refused(file: &str, sets: &[&str]) -> Vec<Problem> {
    let file = File::new(file);
    let mut problems = read(Some(&file), &[], sets).expect_err("it is wrong").problems;
    for problem in &mut problems {
        problem.origin = problem.origin.replace(&file.name(), "FILE");
    }
    problems
}

fn origin(loaded: &Loaded, key: &str) -> String {
    loaded.entries().into_iter().find(|entry| entry.key == key).expect(key).origin
}

#[test]
fn nothing_configured_gives_the_defaults() {
    let loaded = read(None, &[], &[]).expect("defaults are right");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.listeners()[0].listen.to_string(), "127.0.0.1:9092");
    assert_eq!(loaded.config.validate(), Ok(()));
    assert!(loaded.entries().iter().all(|entry| entry.origin == "default"));
}

#[test]
fn the_file_yields_to_the_environment_and_that_to_set() {
    let file = File::new("[node]\nid = 1\nrack = 'file'\n\n[limits]\nconnections = 7\n[topics]\nretention_ms = '2h'\n");
    let environment = [("CHRONIK_NODE__ID", "2"), ("CHRONIK_LIMITS__CONNECTIONS", "8"), ("HOME", "/root")];
    let loaded =
        read(Some(&file), &environment, &["node.id=3", "storage.segment.tail_cache_bytes=1GiB"]).expect("right");
    assert_eq!(loaded.config.node.id, 3);
    assert_eq!(loaded.config.limits.connections, 8);
    assert_eq!(loaded.config.node.rack.as_deref(), Some("file"));
    assert_eq!(loaded.config.topics.retention_ms, Millis::hours(2));
    assert_eq!(loaded.config.storage.segment.tail_cache_bytes, ByteSize::gib(1));
    assert_eq!(origin(&loaded, "node.id"), "--set node.id");
    assert_eq!(origin(&loaded, "limits.connections"), "environment variable CHRONIK_LIMITS__CONNECTIONS");
    assert_eq!(origin(&loaded, "node.rack"), format!("{}:3", file.name()));
    assert_eq!(origin(&loaded, "topics.retention_ms"), format!("{}:8", file.name()));
    assert_eq!(origin(&loaded, "node.data_dir"), "default");
}

#[test]
fn every_problem_is_told_at_once_with_its_key_its_origin_and_a_suggestion() {
    let file = "\
[node]
id = -4
data_dirr = 'x'
[kafka]
listen = 'nowhere'
[limit]
connections = 3
[topics]
retention_ms = 'a while'
default_replication_factor = 3
[log]
conections = 1
";
    let problems = refused(file, &["limits.request_bytes=1GiB", "limits.memory_bytes=64MiB", "nonsense"]);
    let found: Vec<_> = problems.iter().map(|p| (p.key.as_str(), p.origin.as_str())).collect();
    for expected in [
        ("node.id", "FILE:2"),
        ("node.data_dirr", "FILE:3"),
        ("kafka.listen", "FILE:5"),
        ("limit", "FILE:6"),
        ("topics.retention_ms", "FILE:9"),
        ("topics.default_replication_factor", "FILE:10"),
        ("log.conections", "FILE:12"),
        ("limits.request_bytes", "--set limits.request_bytes"),
        ("", "--set nonsense"),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:#?}");
    }
    let suggestion = |key: &str| problems.iter().find(|p| p.key == key).and_then(|p| p.suggestion.clone());
    assert_eq!(suggestion("node.data_dirr").as_deref(), Some("Did you mean node.data_dir?"));
    assert_eq!(suggestion("limit").as_deref(), Some("Did you mean limits?"));
    assert_eq!(suggestion("log.conections").as_deref(), Some("Did you mean admin.connections?"));
    let error = ConfigError { problems: problems.clone() }.to_string();
    for said in ["must be at least 0, not -4", "must be a span of time like", "there is no port", "key=value"] {
        assert!(error.contains(said), "{said:?} in {error}");
    }
}

#[test]
fn a_key_of_very_many_parts_is_refused_wherever_it_is_said() {
    // As many as would overflow the stack of whoever went down to the last of them.
    const PARTS: usize = 300_000;
    let (dots, underscores) = (["a"; PARTS].join("."), format!("CHRONIK_{}", ["A"; PARTS].join("__")));
    let set = format!("{dots}=1");
    for problems in [
        refused("", &[&set]),
        read(None, &[(&underscores, "1")], &[]).expect_err("of many parts").problems,
        refused(&format!("{dots} = 1"), &[]),
    ] {
        let told: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
        let [what] = told[..] else { panic!("{} problems", told.len()) };
        assert!(what == "has 300000 parts, and no key has more than 16" || what.contains("recursion limit"), "{what}");
    }
}

#[test]
fn what_later_versions_will_have_is_refused_as_such() {
    let file = "\
[[kafka.listeners]]
name = 'a'
listen = '127.0.0.1:1'
tls = { cert = 'c' }
";
    let problems = refused(file, &[]);
    let said = |key: &str| problems.iter().find(|p| p.key == key).map(|p| p.what.clone()).unwrap_or_default();
    assert!(said("kafka.listeners[0].tls").contains("TLS"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
}

#[test]
fn kafkas_own_names_are_answered_with_ours() {
    let problems = refused("num.partitions = 3\nlog.dirs = '/tmp'\n[topics]\nauto_create_topics_enable = false\n", &[]);
    let suggested: Vec<_> = problems.iter().filter_map(|p| p.suggestion.as_deref()).collect();
    assert!(suggested.contains(&"Kafka's num.partitions is topics.default_partitions here."), "{problems:#?}");
    for key in problem::all_keys() {
        assert!(later::sentence(key).is_none(), "{key} is there already");
    }
    for kafka in ["broker.id", "log.dirs", "message.max.bytes", "group.max.size", "queued.max.request.bytes"] {
        let ours = later::kafka_name(kafka).expect(kafka);
        assert!(problem::all_keys().iter().any(|key| key == ours), "{ours}");
    }
}

#[test]
fn impossible_combinations_are_refused() {
    let told = |file: &str, key: &str| {
        let problems = refused(file, &[]);
        assert!(problems.iter().any(|p| p.key == key), "{key} in {problems:#?}");
    };
    told("[storage]\nengine = 'memory'\n[topics]\ndurability = 'fsync'", "topics.durability");
    told("[storage]\nengine = 'plugin'", "storage.plugin.path");
    told("[storage]\nengine = 'plugin'\nplugin.path = 'engine.so'", "storage.plugin.path");
    told("[storage]\nengine = 'memory'\nplugin.path = '/engine.so'", "storage.plugin.path");
    told("[storage]\nengine = 'plugin'\nplugin.path = '/a.so'\nplugin.required = 'no'", "storage.plugin.required");
    told("[storage]\nengine = 'plugin'\nplugin.path = '/a.so'\nplugin.sha256 = 'abc'", "storage.plugin.sha256");
    told("[storage]\nengine = 'plugin'\nplugin.path = '/a.so'\nplugin.options = '[1]'", "storage.plugin.options");
    told("[kafka]\nadvertise = '0.0.0.0:9092'", "kafka.advertise");
    told("[kafka]\nlisten = '127.0.0.1:9644'", "kafka.listen");
    told("[kafka]\nlisten = '127.0.0.1:1'\nlisteners = [{ name = 'a', listen = '127.0.0.1:2' }]", "kafka.listen");
    told("[[kafka.listeners]]\nlisten = '127.0.0.1:2'", "kafka.listeners[0].name");
    told("[[kafka.listeners]]\nname = 'a'", "kafka.listeners[0].listen");
    told("[topics]\nmin_insync_replicas = 2", "topics.min_insync_replicas");
    told("[groups]\nmin_session_timeout_ms = '2h'", "groups.min_session_timeout_ms");
    told("[log]\nlevel = 'very loud'", "log.level");
}

#[test]
fn engines_of_ones_own_are_a_list_and_each_mistake_is_told_with_its_place() {
    let file = File::new(
        "[storage]\nengine = 'cold-store'\nplugin.path = '/plain.so'\n\
         [[storage.plugins]]\nname = 'cold-store'\npath = '/cold.so'\noptions = '{\"cache\": 1}'\nrequired = false\n",
    );
    let storage = read(Some(&file), &[], &[]).expect("right").config.storage;
    assert_eq!(storage.engine, Engine::Named("cold-store".into()));
    let plugins = storage.configured_plugins();
    let named: Vec<_> = plugins.iter().map(|plugin| (plugin.engine.word(), plugin.options.required)).collect();
    assert_eq!(named, [("plugin", true), ("cold-store", false)]);
    assert_eq!(plugins[1].options.path.as_deref(), Some(std::path::Path::new("/cold.so")));
    let set = read(None, &[], &["storage.plugins=[{name=\"a\", path=\"/a.so\"}]", "storage.engine=a"]).expect("right");
    assert_eq!(set.config.storage.configured_plugins().len(), 1);

    let two = |first: &str, second: &str| format!("[[storage.plugins]]\n{first}\n[[storage.plugins]]\n{second}\n");
    let good = "name = 'a'\npath = '/a.so'";
    for (file, key, what) in [
        (two(good, "name = 'a'\npath = '/b.so'"), "storage.plugins[1].name", "names a second plug-in \"a\""),
        (two(good, "path = '/b.so'"), "storage.plugins[1].name", "is missing"),
        (two(good, "name = 'B'\npath = '/b.so'"), "storage.plugins[1].name", "is no name for an engine"),
        (two(good, "name = 'memory'\npath = '/b.so'"), "storage.plugins[1].name", "names another engine already"),
        (two(good, "name = 'b'"), "storage.plugins[1].path", "is missing"),
        (two(good, "name = 'b'\npath = 'b.so'"), "storage.plugins[1].path", "is not absolute"),
        (two(good, "name = 'b'\npath = '/b.so'\nsha256 = '0'"), "storage.plugins[1].sha256", "is no SHA-256"),
        (two(good, "name = 'b'\npath = '/b.so'\noptions = '7'"), "storage.plugins[1].options", "is not a JSON object"),
        (
            two(good, "name = 'b'\npath = '/b.so'\ncall_timeout_ms = 1"),
            "storage.plugins[1].call_timeout_ms",
            "must be at least",
        ),
        (
            format!("storage.engine = 'b'\n[[storage.plugins]]\n{good}\n"),
            "storage.engine",
            "which none of [[storage.plugins]] is called",
        ),
        ("storage.engine = 'B b'\n".to_owned(), "storage.engine", "or the name of one of [[storage.plugins]]"),
    ] {
        let problems = refused(&file, &[]);
        assert!(problems.iter().any(|p| p.key == key && p.what.contains(what)), "{key} {what} in {problems:#?}");
    }
}

#[test]
fn the_memory_engine_alone_lowers_the_durability_to_what_it_can_keep() {
    let loaded = read(None, &[], &["storage.engine=memory"]).expect("right");
    assert_eq!(loaded.config.topics.durability, Durability::Replicated);
    assert_eq!(origin(&loaded, "topics.durability"), "follows from storage.engine");
}

#[test]
fn listeners_come_as_a_list_too() {
    let file = File::new(
        "[[kafka.listeners]]\nname = 'in'\nlisten = '127.0.0.1:0'\n\
         [[kafka.listeners]]\nname = 'out'\nlisten = '0.0.0.0:0'\nadvertise = 'broker.example.org'\n",
    );
    let config = read(Some(&file), &[], &[]).expect("right").config;
    let listeners = config.listeners();
    assert_eq!(listeners.len(), 2);
    assert_eq!(listeners[1].name, "out");
    assert_eq!(listeners[1].advertise.as_ref().map(|a| a.host.as_str()), Some("broker.example.org"));

    let set = read(None, &[], &["kafka.listeners=[{name=\"a\", listen=\"127.0.0.1:5\"}]"]).expect("right").config;
    assert_eq!(set.listeners()[0].listen.port, 5);
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let loaded = read(None, &[("CHRONIK_NODE__RACK", "007")], &[]).expect("right");
    assert_eq!(loaded.config.node.rack.as_deref(), Some("007"));
}

#[test]
fn a_platforms_variables_are_passed_over_but_a_missing_underscore_is_told() {
    let service = [("CHRONIK_SERVICE_HOST", "10.0.0.1"), ("CHRONIK_PORT", "tcp://10.0.0.1:9092")];
    assert!(read(None, &service, &[]).is_ok());
    let problems = read(None, &[("CHRONIK_NODE_ID", "3")], &[]).expect_err("no key").problems;
    assert!(problems[0].to_string().contains("Write CHRONIK_NODE__ID"), "{problems:?}");
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_told_with_its_lines() {
    let problems = refused("[node\nid = 1\nid = = 2\n", &[]);
    assert!(problems.iter().any(|p| p.origin == "FILE:1"), "{problems:#?}");
    let missing = Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() };
    let problems = load(&missing).expect_err("not there").problems;
    assert!(problems[0].to_string().contains("/no/such/file.toml cannot be read"), "{problems:?}");
}

#[test]
fn what_print_shows_is_a_file_that_gives_the_same_configuration() {
    let sets = ["limits.memory_bytes=1GiB", "node.rack=a\"b", "kafka.advertise=x:9", "topics.retention_ms=-1"];
    let loaded = read(None, &[], &sets).expect("right");
    let lines: Vec<_> = loaded.entries().into_iter().filter_map(|e| Some(format!("{} = {}", e.key, e.toml?))).collect();
    let file = File::new(&lines.join("\n"));
    assert_eq!(read(Some(&file), &[], &[]).expect("right").config, loaded.config);
}

#[test]
fn every_key_is_documented_and_every_default_is_within_its_bounds() {
    let loaded = read(None, &[], &[]).expect("right");
    for entry in loaded.entries() {
        assert!(!entry.documentation.is_empty(), "{}", entry.key);
        if let Some(toml) = &entry.toml {
            let text = toml.trim_matches('"');
            let set = format!("{}={text}", entry.key);
            let problems = read(None, &[], &[&set]).err().map(|error| error.problems).unwrap_or_default();
            assert!(problems.is_empty(), "{set}: {problems:#?}");
        }
    }
}

#[test]
fn the_segment_engines_defaults_are_the_ones_it_was_measured_with() {
    let (ours, engine) = (SegmentOptions::default(), chronik_storage_segment::SegmentOptions::default());
    assert_eq!(ours.tail_cache_bytes.as_u64(), engine.tail_cache_bytes);
    assert_eq!(ours.unwritten_bytes.as_u64(), engine.unwritten_bytes_max);
    assert_eq!(ours.open_files as usize, engine.open_files_max);
    assert_eq!(ours.free_bytes_min.as_u64(), engine.free_bytes_min);
    assert_eq!(ours.checkpoint_bytes.as_u64(), engine.checkpoint_bytes);
    assert_eq!(ours.read_threads as usize, engine.read_threads);
    assert_eq!(ours.send_from_files, engine.send_from_files);
    assert_eq!(ours.sync_threads as usize, engine.sync.threads);
    assert_eq!(ours.sync_filesystem_from_logs as usize, engine.sync.filesystem_from_logs);
    assert_eq!(ours.sync_journal_bytes.as_u64(), engine.sync.journal_bytes);
    assert_eq!(u128::from(ours.sync_gather_us), engine.sync.gather_wait.as_micros());
}

#[test]
fn a_cluster_is_named_node_by_node_and_what_is_unsafe_or_cannot_work_is_refused() {
    let three = "cluster.voters = ['1@a:9093', '2@b:9093', '3@[::1]:9093']\n";
    let accepted = |file: &str, sets: &[&str]| {
        let file = File::new(file);
        read(Some(&file), &[], sets).expect("it is right").config
    };
    let config = accepted(&format!("{three}topics.default_replication_factor = 3\n"), &[]);
    assert_eq!(config.cluster.voters.0.len(), 3);
    assert_eq!(config.cluster.voters.0[2].to_string(), "3@[::1]:9093");
    let same = accepted("", &["cluster.voters=1@a:9093, 2@b:9093,3@[::1]:9093"]);
    assert_eq!(same.cluster.voters, config.cluster.voters);
    let said = |file: &str, key: &str| {
        let problems = refused(file, &[]);
        let found = problems.iter().find(|p| p.key == key).map(|p| p.what.clone());
        found.unwrap_or_else(|| panic!("nothing of {key} in {problems:#?}"))
    };
    assert!(said("cluster.voters = ['a:9093']\n", "cluster.voters").contains("there is no node id"));
    assert!(said("cluster.voters = ['1@a:9093', '1@b:9093']\n", "cluster.voters").contains("node 1 more than once"));
    assert!(said("[raft]\nlisten = '127.0.0.1:7'\n", "raft.listen").contains("names no node"));
    let with = |more: &str| format!("{three}{more}\n");
    assert!(said(&with("raft.transport = 'quic'"), "raft.transport").contains("always encrypted"));
    assert!(said(&with("replication.transport = 'carrier pigeon'"), "replication.transport").contains("grpc"));
    assert!(said(&with("replication.listen = '0.0.0.0:9094'"), "replication.listen").contains("pose as a node"));
    accepted(&with("replication.listen = '0.0.0.0:9094'\ncluster.unsafe_plaintext_beyond_loopback = true"), &[]);
    assert!(said(&with("cluster.tls.cert = 'c.pem'"), "cluster.tls.key").contains("missing"));
    assert!(said(&with("cluster.heartbeat_ms = '1s'"), "cluster.heartbeat_ms").contains("third"));
    assert!(said(&with("raft.heartbeat_ms = '300ms'"), "raft.heartbeat_ms").contains("fifth"));
}
