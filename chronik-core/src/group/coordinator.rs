//! The machine of one `__consumer_offsets` partition: the groups whose coordinator it is.
//!
//! Commands change membership at once, and emit what must be stored as [`Effect::Write`]; the driver appends the records
//! in the order of the effects and reports back in that order ([`Coordinator::committed`]). Only then do offsets count
//! and replies that depend on them exist. Time-outs are a command too ([`Coordinator::tick`], due at
//! [`Coordinator::deadline`]).
//!
//! **Cost.** Each group has one timer, armed for the earliest of its deadlines and looked at when it fires, so a
//! heartbeat touches only its member.

use super::records::{CommittedOffset, Key, NotARecord, RawRecord, StoredGroup};
use super::state::Group;
use crate::time::{Monotonic, Now};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    pub session_timeout_ms_min: i32,
    pub session_timeout_ms_max: i32,
    pub initial_rebalance_delay: Duration,
    pub group_members_max: usize,
    pub groups_max: usize,
    pub offset_metadata_bytes_max: usize,
    pub offsets_retention_ms: i64,
}

/// Why a group's request is refused. Each is one of Kafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum GroupError {
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the session time-out is outside the allowed range")]
    InvalidSessionTimeout,
    #[error("the member's protocols do not match the group's")]
    InconsistentProtocol,
    #[error("the member is not known")]
    UnknownMember,
    #[error("join again with the given member id")]
    MemberIdRequired,
    #[error("the group is full")]
    GroupFull,
    #[error("another member has taken this instance id")]
    FencedInstance,
    #[error("the generation is not the present one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the group is not empty")]
    NotEmpty,
    #[error("there is no such group")]
    NotFound,
    #[error("the group consumes the topic")]
    SubscribedToTopic,
    #[error("the offset's metadata is too large")]
    MetadataTooLarge,
    #[error("the coordinator cannot store records now")]
    NotAvailable,
}

/// The answer to a join.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    pub error: Option<GroupError>,
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    /// The leader is to keep the present assignment (KIP-814).
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// What a waiting request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Joined(Joined),
    Synced(Result<Synced, GroupError>),
    /// What was to be stored is, or could not be.
    Stored(Result<(), GroupError>),
}

/// What the driver is to do, in order.
#[derive(Debug)]
pub enum Effect<K> {
    Reply {
        key: K,
        reply: Reply,
    },
    /// Append these, and report their fate by the ticket. Tickets rise, and are reported in order.
    Write {
        ticket: u64,
        records: Vec<RawRecord>,
    },
}

/// What follows when records are committed.
#[derive(Debug)]
pub(super) enum Intent<K> {
    Offsets { group: String, changes: Vec<((String, i32), Option<CommittedOffset>)>, key: Option<K> },
    Generation { group: String, generation: Box<Generation<K>> },
    Deletion { group: String, key: Option<K> },
}

/// A finished generation on its way to the log.
#[derive(Debug)]
pub(super) struct Generation<K> {
    pub stored: StoredGroup,
    /// What its leader handed out; `None` where the record only notes who is there.
    pub assignments: Option<BTreeMap<String, Bytes>>,
    /// A join that is answered once the record is committed.
    pub reply: Option<(K, Joined)>,
}

#[derive(Debug)]
struct InFlight<K> {
    intent: Intent<K>,
    records: Vec<RawRecord>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Coordinator<K> {
    pub(super) settings: Settings,
    pub(super) groups: BTreeMap<String, Box<Group<K>>>,
    timers: BTreeSet<(Monotonic, String)>,
    armed: BTreeMap<String, Monotonic>,
    in_flight: BTreeMap<u64, InFlight<K>>,
    next_ticket: u64,
    effects: VecDeque<Effect<K>>,
}

impl<K> Coordinator<K> {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_ticket: 0,
            effects: VecDeque::new(),
        }
    }

    pub fn group(&self, id: &str) -> Option<&Group<K>> {
        self.groups.get(id).map(|group| &**group)
    }

    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group<K>)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), &**group))
    }

    pub fn poll_effect(&mut self) -> Option<Effect<K>> {
        self.effects.pop_front()
    }

    /// When [`Coordinator::tick`] is due.
    pub fn deadline(&self) -> Option<Monotonic> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Carries out what has become due.
    pub fn tick(&mut self, now: Now) {
        while let Some((at, group)) = self.timers.pop_first() {
            if at > now.monotonic {
                self.timers.insert((at, group));
                return;
            }
            self.armed.remove(&group);
            self.with_group(&group, |this, id, group| this.group_is_due(now, id, group));
            // Who was given a member id and never came back leaves nothing behind.
            if self.groups.get(&group).is_some_and(|group| group.is_trace_of_nobody()) {
                self.groups.remove(&group);
            }
        }
    }

    /// Looks at a group no later than `at`.
    pub(super) fn arm(&mut self, group: &str, at: Monotonic) {
        match self.armed.get(group) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => drop(self.timers.remove(&(*later, group.to_owned()))),
            None => {}
        }
        self.timers.insert((at, group.to_owned()));
        self.armed.insert(group.to_owned(), at);
    }

    /// Works on a group with the rest of the machine at hand.
    pub(super) fn with_group<R>(
        &mut self,
        id: &str,
        work: impl FnOnce(&mut Self, &str, &mut Group<K>) -> R,
    ) -> Option<R> {
        let (id, mut group) = self.groups.remove_entry(id)?;
        let result = work(self, &id, &mut group);
        self.groups.insert(id, group);
        Some(result)
    }

    pub(super) fn reply(&mut self, key: K, reply: Reply) {
        self.effects.push_back(Effect::Reply { key, reply });
    }

    pub(super) fn write(&mut self, records: Vec<RawRecord>, intent: Intent<K>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.in_flight.insert(ticket, InFlight { intent, records: records.clone() });
        self.effects.push_back(Effect::Write { ticket, records });
    }

    /// Offsets of a group that are on their way to be stored or forgotten. Whoever decides to forget must cover them too:
    /// the log's order is the order of decisions, and they stand before this one.
    pub(super) fn offsets_in_flight<'a>(&'a self, of: &'a str) -> impl Iterator<Item = &'a (String, i32)> {
        self.in_flight
            .values()
            .flat_map(move |in_flight| match &in_flight.intent {
                Intent::Offsets { group, changes, .. } if group == of => changes.as_slice(),
                Intent::Offsets { .. } | Intent::Generation { .. } | Intent::Deletion { .. } => &[],
            })
            .map(|(partition, _)| partition)
    }

    /// Groups with offsets on their way.
    pub(super) fn groups_in_flight<'a>(&'a self) -> BTreeSet<&'a str> {
        let of = |in_flight: &'a InFlight<K>| match &in_flight.intent {
            Intent::Offsets { group, .. } => Some(group.as_str()),
            Intent::Generation { .. } | Intent::Deletion { .. } => None,
        };
        self.in_flight.values().filter_map(of).collect()
    }

    /// The records of a ticket are committed.
    pub fn committed(&mut self, ticket: u64, now: Now) {
        let Some(InFlight { intent, .. }) = self.in_flight.remove(&ticket) else { return };
        match intent {
            Intent::Offsets { group, changes, key } => {
                let group = self.groups.entry(group).or_default();
                for (partition, change) in changes {
                    match change {
                        Some(offset) => drop(group.offsets.insert(partition, offset)),
                        None => drop(group.offsets.remove(&partition)),
                    }
                }
                if let Some(key) = key {
                    self.reply(key, Reply::Stored(Ok(())));
                }
            }
            Intent::Generation { group, generation } => {
                let Generation { stored, assignments, reply } = *generation;
                self.with_group(&group, |this, id, group| this.generation_stored(now, id, group, stored, assignments));
                if let Some((key, joined)) = reply {
                    self.reply(key, Reply::Joined(joined));
                }
            }
            Intent::Deletion { group, key } => {
                // Somebody may have joined since; then only what was stored is gone.
                let in_use = |group: &Group<K>| !group.members.is_empty() || !group.pending.is_empty();
                if self.groups.get(&group).is_some_and(|group| in_use(group)) {
                    self.with_group(&group, |_, _, group| {
                        group.offsets.clear();
                        group.stored = None;
                    });
                } else {
                    self.groups.remove(&group);
                }
                if let Some(key) = key {
                    self.reply(key, Reply::Stored(Ok(())));
                }
            }
        }
    }

    /// The records of a ticket could not be stored.
    pub fn failed(&mut self, ticket: u64, now: Now) {
        let Some(InFlight { intent, .. }) = self.in_flight.remove(&ticket) else { return };
        match intent {
            Intent::Offsets { key, .. } | Intent::Deletion { key, .. } => {
                if let Some(key) = key {
                    self.reply(key, Reply::Stored(Err(GroupError::NotAvailable)));
                }
            }
            Intent::Generation { group, generation } => {
                if generation.assignments.is_some() {
                    self.with_group(&group, |this, id, group| this.generation_not_stored(now, id, group));
                }
                if let Some((key, joined)) = generation.reply {
                    let error = Some(GroupError::NotAvailable);
                    self.reply(key, Reply::Joined(Joined { error, ..joined }));
                }
            }
        }
    }

    /// Takes a record that was read back from the log. Call [`Coordinator::loaded`] when all have been.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), NotARecord> {
        match (Key::decode(key)?, value) {
            (Key::Offset { group, topic, partition }, Some(value)) => {
                let offset = CommittedOffset::decode(value)?;
                self.groups.entry(group).or_default().offsets.insert((topic, partition), offset);
            }
            (Key::Offset { group, topic, partition }, None) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&(topic, partition));
                }
            }
            (Key::Group { group }, Some(value)) => {
                self.groups.entry(group).or_default().stored = Some(StoredGroup::decode(value)?);
            }
            (Key::Group { group }, None) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.stored = None;
                }
            }
        }
        Ok(())
    }

    /// All records have been replayed: the groups take up their last generation, and members their sessions.
    pub fn loaded(&mut self, now: Now) {
        self.groups.retain(|_, group| group.stored.is_some() || !group.offsets.is_empty());
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, |this, id, group| {
                group.restore(now.monotonic);
                this.arm_for(id, group);
            });
        }
    }

    /// Everything that a rebuild needs, as records: what is committed, and over it what is on its way to the log. Appended
    /// after everything that is on its way, they make all earlier records superfluous.
    pub fn snapshot(&self) -> Vec<(Bytes, Bytes)> {
        let mut live: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        for (id, group) in &self.groups {
            if let Some(stored) = &group.stored {
                live.insert(Key::Group { group: id.clone() }.encode(), Some(stored.encode()));
            }
            for ((topic, partition), offset) in &group.offsets {
                let key = Key::Offset { group: id.clone(), topic: topic.clone(), partition: *partition };
                live.insert(key.encode(), Some(offset.encode()));
            }
        }
        for in_flight in self.in_flight.values() {
            live.extend(in_flight.records.iter().cloned());
        }
        live.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// How many records a snapshot would have, about.
    pub fn live_records(&self) -> usize {
        self.groups.values().map(|group| group.offsets.len() + 1).sum()
    }
}
