//! The machine of one `__consumer_offsets` partition: the groups whose coordinator it is.
//!
//! Commands change membership at once, and emit what must be stored as [`Effect::Write`]; the driver appends the records
//! in the order of the effects and reports back in that order ([`Coordinator::committed`]). Only then do offsets and
//! generations count ([`super::journal`]), and replies that depend on them exist. Time-outs are a command too
//! ([`Coordinator::tick`], due at [`Coordinator::deadline`]).
//!
//! **Cost.** Each group has one timer, armed for the earliest of its deadlines and looked at when it fires, so a
//! heartbeat touches only its member, and no command looks at other groups than its own.

use super::journal::Journal;
use super::records::{RawRecord, StoredGroup};
use super::snapshot::{self, Snapshots};
use super::state::{Group, State};
use crate::ids::Offset;
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
    pub snapshot: snapshot::Settings,
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
    #[error("the offsets are too many for one record batch")]
    CommitTooLarge,
    #[error("what the members say of themselves is too large for one record")]
    GroupTooLarge,
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
    /// Append these as one batch, and report its fate by the ticket, in the order of the tickets, which rise. One that
    /// cannot even be ordered has failed at once, and with it all that are polled after it until there are no more
    /// effects: they may build upon it.
    Write {
        ticket: u64,
        records: Vec<RawRecord>,
    },
    /// Drop the log's records below this offset, and report with [`Coordinator::trimmed`].
    Trim {
        upto: Offset,
    },
}

/// See the module's head.
#[derive(Debug)]
pub struct Coordinator<K> {
    pub(super) settings: Settings,
    pub(super) groups: BTreeMap<String, Box<Group<K>>>,
    pub(super) journal: Journal<K>,
    pub(super) snapshots: Snapshots,
    pub(super) effects: VecDeque<Effect<K>>,
    timers: BTreeSet<(Monotonic, String)>,
    armed: BTreeMap<String, Monotonic>,
}

impl<K> Coordinator<K> {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            journal: Journal::default(),
            snapshots: Snapshots::default(),
            effects: VecDeque::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
        }
    }

    pub fn group(&self, id: &str) -> Option<&Group<K>> {
        self.groups.get(id).map(|group| &**group)
    }

    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group<K>)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), &**group))
    }

    /// What is committed of a group, as it lies in the log.
    pub fn stored(&self, id: &str) -> Option<&StoredGroup> {
        self.groups.get(id)?.stored.as_ref()
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
            self.settle(&group);
        }
    }

    /// Looks at a group no later than `at`.
    pub(super) fn arm(&mut self, group: &str, at: Monotonic) {
        match self.armed.get_mut(group) {
            Some(armed) if *armed <= at => return,
            Some(armed) => {
                let later = std::mem::replace(armed, at);
                self.timers.remove(&(later, group.to_owned()));
            }
            None => drop(self.armed.insert(group.to_owned(), at)),
        }
        self.timers.insert((at, group.to_owned()));
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

    /// Drops a group of which nothing is left, here, in the log, or on its way there; and what one without members knew
    /// of a generation that is no longer in the log.
    pub(super) fn settle(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.state != State::Empty || self.journal.is_busy(id) {
            return;
        }
        if group.is_deserted() && group.is_unrecorded() && !group.emptied {
            self.groups.remove(id);
        } else if group.stored.is_none() {
            group.forget_generation();
        }
    }

    pub(super) fn reply(&mut self, key: K, reply: Reply) {
        self.effects.push_back(Effect::Reply { key, reply });
    }
}
