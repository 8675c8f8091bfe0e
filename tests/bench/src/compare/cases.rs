//! What is done to each broker, and what a turn shows of it.

use super::peer::Peer;
use crate::anatomy::Stages;
use crate::contest::{Bout, Figure, Observation};
use crate::load::flow::{Flow, Flowing};
use crate::load::pace::Pacing;
use crate::load::{OneTopic, callers};
use crate::{Acks, BenchError};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const RECORDS: Figure = Figure::higher("throughput", "records/s");
const MEGABYTES: Figure = Figure::higher("bytes", "MB/s");
const CPU: Figure = Figure::lower("broker CPU", "s/GB");
const CPU_RECORDS: Figure = Figure::lower("broker CPU, per million records", "s");
const SWITCHES: Figure = Figure::lower("broker context switches", "1/MB");
const PEAK: Figure = Figure::lower("broker memory at its peak", "MB");

/// Until the client has connected and its queues have filled.
const WARM_UP_SECONDS: f64 = 0.5;
/// What is there to be read: more than a broker's own caches of a tail, less than the page cache of a small machine.
const READABLE_BYTES: u64 = 256 << 20;
const READABLE_RECORDS_MAX: u64 = 2_000_000;
/// Of records where it is not throughput that is measured.
const SIZE: usize = 1024;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One producer, batched.
    Produce,
    /// One consumer, from the beginning.
    Consume,
    /// Many callers, unbatched.
    Callers,
    /// Single records at a fixed rate.
    Latency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Produce { size: usize, acks: Acks },
    Consume { size: usize },
    Callers { acks: Acks },
    Latency { acks: Acks },
}

/// How all of it is done.
#[derive(Clone, Debug)]
pub struct Turns {
    pub kinds: Vec<Kind>,
    pub sizes: Vec<usize>,
    pub acks: Vec<Acks>,
    pub partitions: i32,
    pub replicas: i32,
    pub callers: usize,
    pub per_second: f64,
    pub seconds: f64,
}

/// Topics that were filled to be read, and how many records they hold; by candidate and size.
#[derive(Default)]
pub struct Readable(BTreeMap<(usize, usize), (OneTopic, u64)>);

impl Readable {
    pub fn clear(self) -> Result<(), BenchError> {
        self.0.into_values().try_for_each(|(topic, _)| topic.delete())
    }
}

impl Turns {
    pub fn bouts(&self) -> Vec<(Bout, Work)> {
        let mut bouts = Vec::new();
        for kind in &self.kinds {
            match kind {
                Kind::Produce => {
                    for (&size, &acks) in
                        self.sizes.iter().flat_map(|size| self.acks.iter().map(move |acks| (size, acks)))
                    {
                        let about = format!("One producer, batched records of {size} B, acks={acks}, linger 5 ms.");
                        bouts.push((
                            Bout::of(format!("produce {size} B, acks={acks}"), about),
                            Work::Produce { size, acks },
                        ));
                    }
                }
                Kind::Consume => {
                    for &size in &self.sizes {
                        let about = format!(
                            "One consumer, records of {size} B from the beginning, which have been read before."
                        );
                        bouts.push((Bout::of(format!("consume {size} B"), about), Work::Consume { size }));
                    }
                }
                Kind::Callers => {
                    for &acks in &self.acks {
                        let about = format!(
                            "{} callers of one client that each wait for their record of {SIZE} B before they send the next, acks={acks}.",
                            self.callers
                        );
                        bouts.push((Bout::of(format!("unbatched, acks={acks}"), about), Work::Callers { acks }));
                    }
                }
                Kind::Latency => {
                    for &acks in &self.acks {
                        let about = format!(
                            "Single records of {SIZE} B at {} a second, acks={acks}, to the acknowledgement and to a consumer; from \
                             when each was meant to be sent.",
                            self.per_second
                        );
                        bouts.push((Bout::of(format!("latency, acks={acks}"), about), Work::Latency { acks }));
                    }
                }
            }
        }
        bouts
    }

    fn topic(&self, peer: &Peer, what: &str, partitions: i32) -> Result<OneTopic, BenchError> {
        let name = format!("bench-{what}-{}-{}", std::process::id(), crate::load::number());
        OneTopic::create(&peer.bootstrap, name, partitions, self.replicas)
    }

    fn flowing<'a>(&self, peer: &'a Peer, topic: &'a str) -> Flowing<'a> {
        Flowing {
            bootstrap: &peer.bootstrap,
            topic,
            partitions: self.partitions,
            warm_up_seconds: WARM_UP_SECONDS,
            seconds: self.seconds,
            pids: &peer.pids,
        }
    }

    /// One turn of one candidate.
    pub fn turn(
        &self,
        work: Work,
        candidate: usize,
        peer: &Peer,
        readable: &mut Readable,
    ) -> Result<Observation, BenchError> {
        let (shown, stages) = Stages::during(&peer.admins, || self.done(work, candidate, peer, readable))?;
        Ok(Observation { stages, ..shown })
    }

    fn done(
        &self,
        work: Work,
        candidate: usize,
        peer: &Peer,
        readable: &mut Readable,
    ) -> Result<Observation, BenchError> {
        match work {
            Work::Produce { size, acks } => {
                let topic = self.topic(peer, "produce", self.partitions)?;
                let flow = self.flowing(peer, &topic.name).produce(acks.as_str(), size)?;
                topic.delete()?;
                Ok(observed(&flow))
            }
            Work::Consume { size } => {
                let (topic, records) = match readable.0.entry((candidate, size)) {
                    Entry::Occupied(there) => there.into_mut(),
                    Entry::Vacant(place) => {
                        let topic = self.topic(peer, "consume", self.partitions)?;
                        let records = (READABLE_BYTES / size as u64).clamp(1, READABLE_RECORDS_MAX);
                        self.flowing(peer, &topic.name).fill(size, records)?;
                        place.insert((topic, records))
                    }
                };
                Ok(observed(&self.flowing(peer, &topic.name).consume(*records)?))
            }
            Work::Callers { acks } => {
                let topic = self.topic(peer, "callers", self.partitions)?;
                let (at, acks) = (&peer.bootstrap, acks.as_str());
                let shown = callers::observe(at, &topic.name, acks, SIZE, self.callers, self.seconds, &peer.pids)?;
                topic.delete()?;
                Ok(shown)
            }
            Work::Latency { acks } => {
                let topic = self.topic(peer, "latency", 1)?;
                let pacing = Pacing {
                    bootstrap: &peer.bootstrap,
                    topic: &topic.name,
                    acks: acks.as_str(),
                    size: SIZE,
                    per_second: self.per_second,
                    warm_up_seconds: WARM_UP_SECONDS,
                    seconds: self.seconds,
                    pids: &peer.pids,
                };
                let shown = pacing.observe()?;
                topic.delete()?;
                Ok(shown)
            }
        }
    }
}

fn observed(flow: &Flow) -> Observation {
    let spent = flow.used.together().filter(|_| flow.records > 0);
    let (megabytes, millions) = (flow.bytes as f64 / 1e6, flow.records as f64 / 1e6);
    let shown = Observation::default()
        .figure(RECORDS, flow.records_per_second())
        .figure(MEGABYTES, flow.megabytes_per_second())
        .perhaps(CPU, spent.map(|spent| spent.cpu_seconds * 1e3 / megabytes))
        .perhaps(CPU_RECORDS, spent.map(|spent| spent.cpu_seconds / millions))
        .perhaps(SWITCHES, spent.map(|spent| spent.context_switches as f64 / megabytes))
        .perhaps(PEAK, spent.map(|spent| spent.peak_bytes as f64 / 1e6));
    flow.used.busy(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_measured_with_all_it_has() {
        let turns = Turns {
            kinds: vec![Kind::Produce, Kind::Consume, Kind::Callers, Kind::Latency],
            sizes: vec![100, 1024],
            acks: vec![Acks::One, Acks::All],
            partitions: 1,
            replicas: 1,
            callers: 4,
            per_second: 10.0,
            seconds: 1.0,
        };
        let bouts = turns.bouts();
        assert_eq!(bouts.len(), 4 + 2 + 2 + 2);
        let names: std::collections::BTreeSet<_> = bouts.iter().map(|(bout, _)| bout.cases[0].name.clone()).collect();
        assert_eq!(names.len(), bouts.len());
    }
}
