//! Committed offsets: storing, deleting, expiring; and deleting groups.

use super::coordinator::{Coordinator, GroupError, Reply};
use super::journal::{COMMAND_BYTES_MAX, Then};
use super::membership::{check_member, touch};
use super::records::{Change, CommittedOffset};
use super::state::{Group, State, Subscription};
use crate::ids::TopicId;
use crate::time::{Now, Timestamp};
use std::collections::BTreeSet;

/// An OffsetCommit.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub group: String,
    /// Empty, with a negative generation, for someone who is no member: a tool, or a consumer that assigns by hand.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    /// How long the offsets are to be kept; `None`: as the broker sees fit.
    pub retention_ms: Option<i64>,
    pub offsets: Vec<OffsetToCommit>,
}

#[derive(Clone, Debug, Default)]
pub struct OffsetToCommit {
    pub topic: String,
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

impl<K> Coordinator<K> {
    /// Stores offsets. `Err` refuses the whole; otherwise each offset's own refusal comes back at once, and `key` is
    /// answered when the others are stored, or at once if there are none.
    pub fn commit(&mut self, now: Now, commit: Commit, key: K) -> Result<Vec<Option<GroupError>>, (GroupError, K)> {
        if let Err(error) = self.check_commit(now, &commit) {
            return Err((error, key));
        }
        let expires = commit.retention_ms.map(|ms| Timestamp(now.wall.0.saturating_add(ms)));
        let mut refused = Vec::with_capacity(commit.offsets.len());
        let mut changes = Vec::with_capacity(commit.offsets.len());
        for offset in commit.offsets {
            if offset.metadata.len() > self.settings.offset_metadata_bytes_max {
                refused.push(Some(GroupError::MetadataTooLarge));
                continue;
            }
            refused.push(None);
            let committed = CommittedOffset {
                offset: offset.offset,
                // The record of an offset with an expiry has no room for these two, so memory does not keep them either.
                leader_epoch: if expires.is_some() { -1 } else { offset.leader_epoch },
                topic: if expires.is_some() { TopicId::NONE } else { offset.topic_id },
                metadata: offset.metadata,
                committed: now.wall,
                expires,
            };
            changes.push(Change::Offset {
                group: commit.group.clone(),
                topic: offset.topic,
                partition: offset.partition,
                committed: Some(committed),
            });
        }
        if changes.is_empty() {
            self.reply(key, Reply::Stored(Ok(())));
        } else if changes.iter().map(Change::weight_bytes).sum::<u64>() > COMMAND_BYTES_MAX {
            return Err((GroupError::CommitTooLarge, key));
        } else {
            self.write(Some(&commit.group), changes, Then::Answer(key));
        }
        Ok(refused)
    }

    fn check_commit(&mut self, now: Now, commit: &Commit) -> Result<(), GroupError> {
        let Some(group) = self.groups.get_mut(&commit.group) else {
            return if commit.generation >= 0 {
                Err(GroupError::NotFound)
            } else if self.groups.len() >= self.settings.groups_max {
                Err(GroupError::NotAvailable)
            } else {
                Ok(())
            };
        };
        if commit.generation < 0 && group.state == State::Empty {
            return Ok(());
        }
        check_member(group, &commit.member_id, commit.instance_id.as_deref())?;
        if commit.generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        // While members are still joining, what they have done up to now may be committed; once the generation is new,
        // partitions may already be somebody else's.
        if group.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        touch(now, group, &commit.member_id);
        Ok(())
    }

    pub(super) fn forget_offsets(&mut self, group: &str, partitions: Vec<(String, i32)>, then: Then<K>) {
        let forget = |(topic, partition)| Change::Offset { group: group.to_owned(), topic, partition, committed: None };
        self.write_in_parts(group, partitions.into_iter().map(forget).collect(), then);
    }

    /// All offsets that the group has, or will have when what is on its way is committed.
    fn known_offsets(&self, id: &str) -> BTreeSet<(String, i32)> {
        let owned = |(topic, partition): (&str, i32)| (topic.to_owned(), partition);
        let committed = self.groups.get(id).into_iter().flat_map(|group| group.offsets.iter());
        let mut known: BTreeSet<_> = committed.map(|(topic, partition, _)| owned((topic, partition))).collect();
        if self.journal.is_busy(id) {
            known.extend(self.journal.offsets_in_flight(id).map(owned));
        }
        known
    }

    /// Forgets offsets of partitions, except of topics that the group consumes. As [`Coordinator::commit`].
    pub fn delete_offsets(
        &mut self,
        id: &str,
        partitions: &[(String, i32)],
        key: K,
    ) -> Result<Vec<Option<GroupError>>, (GroupError, K)> {
        let subscribed = match self.groups.get(id) {
            // Its first commit may be on its way.
            None if !self.journal.is_busy(id) => return Err((GroupError::NotFound, key)),
            Some(group) if group.state != State::Empty => group.subscription(),
            Some(_) | None => Subscription::Topics(BTreeSet::new()),
        };
        if subscribed == Subscription::NotConsumers {
            // Who is no consumer assigns in ways that we do not know: nothing of it may be touched while it lives.
            return Err((GroupError::NotEmpty, key));
        }
        let in_use = |topic: &String| match &subscribed {
            Subscription::Topics(topics) => topics.contains(topic),
            Subscription::Unknown | Subscription::NotConsumers => true,
        };
        let refused: Vec<_> =
            partitions.iter().map(|(topic, _)| in_use(topic).then_some(GroupError::SubscribedToTopic)).collect();
        let committed = self.groups.get(id).map(|group| &group.offsets);
        let on_its_way: BTreeSet<(&str, i32)> = self.journal.offsets_in_flight(id).collect();
        let is_there = |(topic, partition): &(String, i32)| {
            committed.is_some_and(|offsets| offsets.get(topic, *partition).is_some())
                || on_its_way.contains(&(topic.as_str(), *partition))
        };
        let wanted = partitions.iter().zip(&refused);
        let wanted = wanted.filter(|(partition, refused)| refused.is_none() && is_there(partition));
        let wanted: Vec<_> = wanted.map(|(partition, _)| partition.clone()).collect();
        if wanted.is_empty() {
            self.reply(key, Reply::Stored(Ok(())));
        } else {
            if let Some(group) = self.groups.get_mut(id) {
                group.emptied = true;
            }
            self.forget_offsets(id, wanted, Then::Answer(key));
        }
        Ok(refused)
    }

    /// Deletes a group without members, and its offsets.
    pub fn delete_group(&mut self, id: &str, key: K) {
        let refused = match self.groups.get(id) {
            None if self.journal.is_busy(id) => None,
            None => Some(GroupError::NotFound),
            Some(group) if group.state != State::Empty => Some(GroupError::NotEmpty),
            Some(_) => None,
        };
        match refused {
            Some(error) => self.reply(key, Reply::Stored(Err(error))),
            None => self.write_deletion(id, Then::Answer(key)),
        }
    }

    fn write_deletion(&mut self, id: &str, then: Then<K>) {
        if let Some(group) = self.groups.get_mut(id) {
            group.emptied = false;
        }
        let offset = |(topic, partition)| Change::Offset { group: id.to_owned(), topic, partition, committed: None };
        let mut changes: Vec<Change> = self.known_offsets(id).into_iter().map(offset).collect();
        changes.push(Change::Generation { group: id.to_owned(), stored: None });
        self.write_in_parts(id, changes, then);
    }

    /// Forgets what nobody has used for the time that offsets are kept, and groups of which nothing is left. How many
    /// offsets that were.
    pub fn expire_offsets(&mut self, now: Timestamp) -> usize {
        let horizon = Timestamp(now.0.saturating_sub(self.settings.offsets_retention_ms));
        let mut expired = Vec::new();
        let mut gone = Vec::new();
        let journal = &self.journal;
        self.groups.retain(|id, group| !(group.is_deserted() && group.is_unrecorded()) || journal.is_busy(id));
        for (id, group) in &self.groups {
            // Of what is just changing nothing is old; the next look sees how it came out.
            if self.journal.is_busy(id) {
                continue;
            }
            let old = expired_offsets(group, horizon, now);
            if group.is_deserted() && old.len() == group.offsets.len() {
                gone.push((id.clone(), old.len()));
            } else if !old.is_empty() {
                expired.push((id.clone(), old));
            }
        }
        let mut count = 0;
        for (id, offsets) in gone {
            count += offsets;
            self.write_deletion(&id, Then::Nothing);
        }
        for (id, old) in expired {
            count += old.len();
            self.forget_offsets(&id, old, Then::Nothing);
        }
        count
    }

    /// Forgets all groups' offsets of a topic that is gone; not those of another topic that has its name by now.
    pub fn topic_deleted(&mut self, topic: &str, topic_id: TopicId) {
        let is_of_it = |committed: &CommittedOffset| {
            committed.topic == topic_id || committed.topic == TopicId::NONE || topic_id == TopicId::NONE
        };
        let mut doomed: Vec<(String, Vec<(String, i32)>)> = Vec::new();
        for (id, group) in &self.groups {
            let of_topic = group.offsets.of_topic(topic).filter(|(_, committed)| is_of_it(committed));
            let of_topic: Vec<_> = of_topic.map(|(partition, _)| (topic.to_owned(), partition)).collect();
            if !of_topic.is_empty() {
                doomed.push((id.clone(), of_topic));
            }
        }
        // Commits that were under way when the topic went.
        for change in self.journal.in_flight() {
            if let Change::Offset { group, topic: of, partition, committed: Some(committed) } = change
                && of == topic
                && is_of_it(committed)
            {
                doomed.push((group.clone(), vec![(of.clone(), *partition)]));
            }
        }
        for (id, partitions) in doomed {
            self.forget_offsets(&id, partitions, Then::Nothing);
        }
    }
}

/// KIP-211: a group without members keeps its offsets from when it lost the last; one that has only ever committed, or no
/// longer consumes a topic, keeps each from its commit. An offset with an expiry of its own goes by that.
fn expired_offsets<K>(group: &Group<K>, horizon: Timestamp, now: Timestamp) -> Vec<(String, i32)> {
    let subscribed = match (group.state, &group.protocol_type) {
        (State::Empty, _) | (_, None) => BTreeSet::new(),
        // What consumers in a rebalance consume is about to change, and what others consume is not known.
        (State::Stable, Some(_)) => match group.subscription() {
            Subscription::Topics(topics) => topics,
            Subscription::Unknown | Subscription::NotConsumers => return Vec::new(),
        },
        (State::PreparingRebalance | State::CompletingRebalance, Some(_)) => return Vec::new(),
    };
    // Kafka forgets an offset that is committed to a group long empty (by a tool that resets it) at its next look; here
    // it is kept from its commit.
    let deserted_since = match (group.state, &group.protocol_type) {
        (State::Empty, Some(_)) => group.state_since,
        _ => Timestamp::NONE,
    };
    let is_old = |committed: &CommittedOffset| match committed.expires {
        Some(expires) => expires <= now,
        None => committed.committed.max(deserted_since) <= horizon,
    };
    let topics = group.offsets.topics().filter(|(topic, _)| !subscribed.contains(*topic));
    let old = topics.flat_map(|(topic, partitions)| {
        let old = partitions.iter().filter(|(_, committed)| is_old(committed));
        old.map(|(partition, _)| (topic.to_owned(), *partition))
    });
    old.collect()
}
