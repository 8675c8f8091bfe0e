//! What the nodes have on their disks, batch by batch.

use super::PARTITIONS;
use crate::broker::binary;
use crate::cluster::Cluster;
use std::collections::BTreeMap;
use std::process::Command;

/// Stops all nodes in order, and compares what each replica of each partition holds then.
pub fn replicas_are_the_same(cluster: &mut Cluster) {
    cluster.wait("all replicas are in sync", Cluster::is_whole);
    for id in cluster.ids() {
        // Each leads something until it stops; the last one has nobody to hand over to.
        cluster.terminate(id);
    }
    let dump = |id: usize| {
        let mut logs = BTreeMap::new();
        let directory = cluster.data(id).join("logs");
        for entry in std::fs::read_dir(&directory).expect("the logs").flatten().filter(|entry| entry.path().is_dir()) {
            let mut command = Command::new(binary());
            command.args(["log", "dump", "--json", "--records"]).arg(entry.path());
            let shown = command.output().expect("it runs");
            let batches = String::from_utf8_lossy(&shown.stdout).lines().filter_map(batch).collect::<Vec<_>>();
            logs.insert(entry.file_name(), batches);
        }
        logs
    };
    let mut first = dump(1);
    for id in cluster.ids().skip(1) {
        let other = dump(id);
        // Every replica of the topic is everywhere; what else there may be is not.
        first.retain(|log, _| other.contains_key(log));
        for (log, batches) in &first {
            let differs = batches.iter().zip(&other[log]).find(|(one, other)| one != other);
            assert!(differs.is_none(), "log {log:?} of nodes 1 and {id}: {differs:?}");
            assert_eq!(batches.len(), other[log].len(), "log {log:?} of nodes 1 and {id}");
        }
    }
    let filled = first.values().filter(|batches| !batches.is_empty()).count();
    assert!(filled >= PARTITIONS as usize, "{filled} logs");
}

/// A batch as it is shown, without where it lies in its file: replicas begin new files when it suits them.
fn batch(line: &str) -> Option<String> {
    let mut shown: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let fields = shown.as_object_mut()?;
    fields.remove("position")?;
    Some(shown.to_string())
}
