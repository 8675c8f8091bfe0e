//! Where the time of acknowledged records went, as it is reported: two rows that are beside each other, not behind.
//!
//! - **request**: the stages of a request one after the other; together they are all of its time in the broker.
//! - **meanwhile**: what went on to the followers from the record's place in the log on. What leader and followers time
//!   themselves is told, and the rest of the round trip is *on the way*: lanes and network, both ways.
//!
//! Of either, stages may be added; of both not: `followers`, in the first, is what the second took longer than the leader.

use super::{Stage, html::escaped};
use crate::anatomy::{Stages, Times};

/// In the order in which they follow each other.
pub const REQUEST: [&str; 8] = ["read", "decode", "queue", "append", "local_sync", "followers", "watermark", "reply"];
pub const MEANWHILE: [&str; 4] = ["send", "follower_append", "follower_sync", ON_THE_WAY];
const ON_THE_WAY: &str = "on the way";

/// What a stage is, for people.
pub fn about(stage: &str) -> &'static str {
    match stage {
        "read" => "the request's bytes come",
        "decode" => "its turn, decoding, checks",
        "queue" => "its place in the log",
        "append" => "written by the leader",
        "local_sync" => "synced by the leader",
        "followers" => "what followers took longer",
        "watermark" => "the leader finds that it is committed",
        "reply" => "the answer is made and sent",
        "send" => "handed to the lane",
        "follower_append" => "written by a follower",
        "follower_sync" => "synced by a follower",
        ON_THE_WAY => "the rest of the round trip: lanes and network",
        _ => "",
    }
}

/// The class of a stage's colour.
pub fn colour(stage: &str) -> String {
    let place = REQUEST.iter().chain(&MEANWHILE).position(|known| *known == stage).unwrap_or(0);
    format!("s{place}")
}

/// As it is reported; nothing where nothing was told.
pub fn reported(stages: &Stages) -> Vec<Stage> {
    let find = |path: &str, name: &str| stages.0.get(&(path.to_owned(), name.to_owned()));
    let shown = |row: &str, name: &str, times: &Times| Stage {
        row: row.to_owned(),
        name: name.to_owned(),
        count: times.count,
        mean_micros: times.mean_micros(),
        p99_micros_at_most: times.p99_micros_at_most(),
    };
    let mut all: Vec<Stage> =
        REQUEST.iter().filter_map(|name| Some(shown("request", name, find("request", name)?))).collect();
    let sent = find("replication", "send").zip(find("replication", "round_trip"));
    let Some((send, round_trip)) = sent else { return all };
    all.push(shown("meanwhile", "send", send));
    let mut rest = round_trip.mean_micros();
    for name in ["follower_append", "follower_sync"] {
        if let Some(times) = find("follower", name) {
            // Followers time other frames than the leader does: what they add up to may exceed it by chance.
            let stage = shown("meanwhile", name, times);
            rest = (rest - stage.mean_micros).max(0.0);
            all.push(stage);
        }
    }
    all.push(Stage {
        row: "meanwhile".to_owned(),
        name: ON_THE_WAY.to_owned(),
        count: round_trip.count,
        mean_micros: rest,
        p99_micros_at_most: None,
    });
    all
}

/// A stage and what it is, as HTML.
pub fn legend(stage: &str) -> String {
    format!("<li><span class=\"swatch {}\"></span>{}: {}</li>", colour(stage), escaped(stage), escaped(about(stage)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Stages of a cluster in which followers were slower than the leader: of each so many milliseconds.
    pub(crate) fn stages(factor: f64) -> Stages {
        let all = [
            ("request", "read", 0.1),
            ("request", "decode", 0.1),
            ("request", "queue", 0.1),
            ("request", "append", 0.5),
            ("request", "local_sync", 2.0),
            ("request", "followers", 3.0),
            ("request", "watermark", 0.1),
            ("request", "reply", 0.1),
            ("replication", "send", 0.5),
            ("replication", "round_trip", 4.5),
            ("follower", "follower_append", 0.5),
            ("follower", "follower_sync", 2.0),
        ];
        let times = |ms: f64| Times { count: 10, sum_seconds: ms * factor / 100.0, ..Times::default() };
        let of = |(path, name, ms): (&str, &str, f64)| ((path.to_owned(), name.to_owned()), times(ms));
        Stages(all.into_iter().map(of).collect())
    }

    #[test]
    fn what_is_left_of_the_round_trip_is_on_the_way() {
        let reported = reported(&stages(1.0));
        let names: Vec<&str> = reported.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, REQUEST.iter().chain(&MEANWHILE).copied().collect::<Vec<_>>());
        let on_the_way = reported.last().expect("there are some");
        assert!((on_the_way.mean_micros - 2_000.0).abs() < 1e-6, "{}", on_the_way.mean_micros);
        assert!(names.iter().all(|name| !about(name).is_empty()));
    }

    #[test]
    fn a_broker_alone_has_one_row_and_one_that_tells_nothing_none() {
        let mut alone = stages(1.0);
        alone.0.retain(|(path, name), _| path == "request" && name != "followers");
        let rows: Vec<String> = reported(&alone).into_iter().map(|stage| stage.row).collect();
        assert_eq!(rows, ["request"; 7]);
        assert!(reported(&Stages::default()).is_empty());
    }
}
