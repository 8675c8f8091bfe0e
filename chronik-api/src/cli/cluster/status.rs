//! `chronik cluster status`: what one node knows of its cluster, from its admin port.

use crate::cli::output::{Failure, Table, print_json};
use clap::Args;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The largest answer that is read: some ten thousand partitions that are not in sync.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Partitions that are shown; all of them are in the JSON.
const SHOWN_MAX: usize = 50;

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    /// A node's admin address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644", env = "CHRONIK_ADMIN")]
    admin: String,
    /// Seconds to wait for the node
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    timeout: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = fetch(args).map_err(|why| {
        let hint = "Say where a node's admin port is with --admin HOST:PORT (admin.listen in its configuration).";
        Failure::failed(format!("cannot ask {}: {why}\n  {hint}", args.admin))
    })?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, &status)?);
    }
    Ok(show(&status, &mut out)?)
}

fn fetch(args: &StatusArgs) -> Result<Value, String> {
    let words = |why: io::Error| why.to_string();
    let within = Duration::from_secs(args.timeout.into());
    let address = args.admin.to_socket_addrs().map_err(words)?.next().ok_or("it has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, within).map_err(words)?;
    stream.set_read_timeout(Some(within)).map_err(words)?;
    write!(stream, "GET /cluster HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", args.admin).map_err(words)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(words)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("what answers there does not speak HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!("{status}: {}", body.trim()));
    }
    serde_json::from_str(body).map_err(|why| why.to_string())
}

fn show(status: &Value, out: &mut dyn Write) -> io::Result<()> {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    writeln!(out, "cluster {}, as node {} sees it\n", text(&status["cluster_id"]), text(&status["node"]))?;
    if status["alone"] == true {
        return writeln!(out, "It is alone: there is no other node.");
    }
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let mut nodes = Table::new(&["NODE", "STATE", "RAFT", "#LAG", "RACK", "TRANSPORTS", "ROUND TRIPS", "TROUBLE"]);
    let peers = |key: &str, node: &Value| list(key).into_iter().find(|peer| peer["node"] == *node);
    for node in list("nodes") {
        let id = &node["node"];
        let state = match (&node["fenced"], &node["stopping"]) {
            (Value::Bool(true), _) => "fenced",
            (_, Value::Bool(true)) => "stopping",
            _ => "serves",
        };
        // A node with a blank disk learns at first, while the former one's vote counts against the majority.
        let (former, present): (Vec<Value>, Vec<Value>) = list("raft")
            .into_iter()
            .filter(|member| member["node"] == *id)
            .partition(|member| member["former_disk"] == true);
        let member = present.first();
        let mut role = member.map_or("-".into(), |member| text(&member["role"]));
        if former.iter().any(|member| member["role"] != "learner") {
            role.push_str(", its former disk votes");
        }
        let lag = member.map_or("-".into(), |member| text(&member["lag"]));
        let (raft, replication) = (peers("raft_peers", id), peers("replication_peers", id));
        let both = |show: &dyn Fn(&Value) -> String| match (&raft, &replication) {
            (None, None) => "this node".to_owned(),
            (raft, replication) => {
                let one = |peer: &Option<Value>| peer.as_ref().map_or("-".into(), show);
                format!("{} / {}", one(raft), one(replication))
            }
        };
        let transports = both(&|peer| text(&peer["transport"]));
        let round_trips = both(&|peer| match (&peer["up"], peer["round_trip_us"].as_u64()) {
            (Value::Bool(true), Some(us)) => format!("{:.2} ms", us as f64 / 1_000.0),
            (Value::Bool(true), None) => "up".into(),
            _ => "down".into(),
        });
        let trouble = [&raft, &replication].into_iter().flatten().find_map(|peer| peer["trouble"].as_str());
        let (rack, trouble) = (text(&node["rack"]), trouble.unwrap_or_default().to_owned());
        nodes.row([&text(id), &state, &role, &lag, &rack, &transports, &round_trips, &trouble]);
    }
    nodes.print(out)?;
    let behind = list("not_in_sync");
    let partitions = status["partitions"].as_u64().unwrap_or(0);
    if behind.is_empty() {
        return writeln!(out, "\nAll replicas of all {partitions} partitions are in sync.");
    }
    writeln!(out, "\n{} of {partitions} partitions are not fully in sync:\n", behind.len())?;
    let mut table = Table::new(&["TOPIC", "#PARTITION", "LEADER", "REPLICAS", "IN SYNC", "ELIGIBLE"]);
    let numbers = |value: &Value| {
        let all = value.as_array().cloned().unwrap_or_default();
        all.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
    };
    for partition in behind.iter().take(SHOWN_MAX) {
        table.row([
            &text(&partition["topic"]),
            &text(&partition["partition"]),
            &partition["leader"].as_i64().map_or("none".into(), |leader| leader.to_string()),
            &numbers(&partition["replicas"]),
            &numbers(&partition["in_sync"]),
            &numbers(&partition["eligible"]),
        ]);
    }
    table.print(out)?;
    if behind.len() > SHOWN_MAX {
        writeln!(out, "… and {} more; --json shows all", behind.len() - SHOWN_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_stands_out() {
        let peer = |node: i32, up: bool, trouble: Option<&str>| json!({ "node": node, "transport": "tcp", "up": up, "round_trip_us": 150, "trouble": trouble });
        let status = json!({
            "cluster_id": "c", "node": 1, "alone": false, "partitions": 12,
            "nodes": [{ "node": 1, "fenced": false }, { "node": 2, "fenced": true, "rack": "b" }, { "node": 3, "fenced": false }],
            "raft": [
                { "node": 1, "role": "leader", "lag": 0 },
                { "node": 2, "role": "follower", "lag": 7 },
                { "node": 3, "role": "follower", "lag": 900, "former_disk": true },
                { "node": 3, "role": "learner", "lag": 42, "former_disk": false },
            ],
            "raft_peers": [peer(2, true, None)],
            "replication_peers": [peer(2, false, Some("it cannot be reached"))],
            "not_in_sync": [{ "topic": "t", "partition": 3, "leader": null, "replicas": [1, 2], "in_sync": [2], "eligible": [] }],
        });
        let mut out = Vec::new();
        show(&status, &mut out).expect("memory takes it");
        let text = String::from_utf8(out).expect("text");
        for part in [
            "this node",
            "fenced",
            "0.15 ms / down",
            "it cannot be reached",
            "1 of 12 partitions",
            "none",
            "learner, its former disk votes",
            "42",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("900"), "how far a disk that is gone is behind is of no interest:\n{text}");
    }
}
