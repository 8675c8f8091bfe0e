//! The comparisons as a whole, as short as they can be: that they come to their end, and that their reports hold what they
//! are to hold. What the figures are is no matter here.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronik-bench")).args(arguments).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The report, which the run must have come to.
fn report(arguments: &[&str]) -> Value {
    // On a machine that is shared with others no round need be made again for that.
    let short = ["--quick", "--rounds", "1", "--seconds", "0.1", "--seed", "7", "--steal-max", "100", "--json", "-"];
    let output = run(&[arguments, &short[..]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn names(of: &Value) -> BTreeSet<String> {
    let all = of.as_array().expect("a list").iter();
    all.map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_network_layer_carries_frames_and_is_reported_with_what_it_depends_on() {
    let report = report(&["transports", "--level", "link", "--layers", "tcp+tls,grpc,quic,tcp+tls"]);
    assert_eq!(report["candidates"], serde_json::json!(["tcp+tls", "grpc", "quic", "tcp+tls #2"]));
    assert_eq!(report["seed"], 7);
    let machine = names(&report["machine"]);
    for fact in ["kernel", "processors", "chronik-bench", "librdkafka"] {
        assert!(machine.contains(fact), "{fact} is not in {machine:?}");
    }
    assert!(names(&report["conditions"]).contains("encrypted"));
    let cases = report["cases"].as_array().expect("a list");
    assert!(cases.len() >= 3);
    for case in cases {
        for candidate in case["candidates"].as_array().expect("a list") {
            let figures = names(&candidate["figures"]);
            let shows = |name: &str| figures.contains(name);
            assert!(shows("throughput") || shows("answered"), "{}: {figures:?}", case["name"]);
            // On a busy machine the generator lags, and then latencies are not told.
            let lagged = candidate["invalid_rounds"].as_u64() > Some(0);
            assert_eq!(shows("answered"), shows("round trip p99") || lagged, "{}: {figures:?}", case["name"]);
            let facts = candidate["facts"].as_array().expect("a list");
            let sockets = facts.iter().find(|fact| fact["name"] == "sockets").expect("it is said");
            let sockets = sockets["value"].as_str().expect("words");
            let kind = if candidate["name"] == "quic" { "UDP" } else { "TCP" };
            assert!(sockets.contains(kind), "{}: {sockets}", candidate["name"]);
        }
    }
}

#[test]
fn storage_engines_are_measured_each_in_a_process_of_its_own() {
    let report = report(&["storage"]);
    let cases = report["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 3);
    for case in cases {
        assert_eq!(names(&case["candidates"]), BTreeSet::from(["memory".into(), "segment".into()]));
        for candidate in case["candidates"].as_array().expect("a list") {
            assert!(candidate["latencies"][0]["count"].as_u64() > Some(0), "{candidate}");
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let refused = |arguments: &[&str], why: &str| {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said(&output).contains(why), "{arguments:?}: {}", said(&output));
    };
    refused(&["transports", "--layers", "udp"], "one of tcp, tcp+tls");
    refused(&["transports", "--windows", "65536", "--frame-bytes", "1MiB"], "give fewer --windows");
    refused(&["transports", "--broker-binary", "/nowhere/chronik"], "--broker-binary");
    refused(
        &["transports", "--level", "link", "--layers", "quic@6000", "--link-delay", "1ms"],
        "leave it out of --layers",
    );
    refused(&["transports", "--level", "link", "--baseline", "/nowhere/old.json"], "/nowhere/old.json");
    refused(&["storage", "--plugin", "/nowhere/engine.so"], "/nowhere/engine.so");
    refused(&["storage", "--engine-options", "[]"], "no JSON object");
    refused(&["compare"], "--against");
    refused(&["compare", "--against", "nobody"], "NAME=HOST:PORT");
}

#[test]
fn a_slow_and_lossy_link_is_the_kernels_or_a_relayed_device_or_is_refused_with_the_reason() {
    let arguments =
        ["transports", "--level", "link", "--layers", "tcp", "--quick", "--rounds", "1", "--seconds", "0.1"];
    let output = run(&[&arguments[..], &["--link-delay", "1ms", "--json", "-"]].concat());
    if output.status.success() {
        let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let link = report["conditions"].as_array().expect("a list").iter().find(|fact| fact["name"] == "link");
        let link = link.expect("it is said")["value"].as_str().expect("words");
        let by = link.strip_prefix("MTU 1500, 1 ms each way, by ");
        assert!(by.is_some_and(|by| by.starts_with("netem") || by.starts_with("a TUN device")), "{link}");
    } else {
        let said = said(&output);
        assert!(said.contains("TUN") || said.contains("a network of the run's own"), "{said}");
    }
}
