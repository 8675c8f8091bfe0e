//! Committed offsets: storing, deleting, expiring; and deleting groups.

use super::coordinator::{Coordinator, GroupError, Intent, Reply};
use super::membership::{check_member, touch};
use super::records::{CommittedOffset, Key, RawRecord};
use super::state::{Group, State};
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
    pub offsets: Vec<OffsetToCommit>,
}

#[derive(Clone, Debug, Default)]
pub struct OffsetToCommit {
    pub topic: String,
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
        let too_large = |offset: &OffsetToCommit| {
            let max = self.settings.offset_metadata_bytes_max;
            (offset.metadata.len() > max).then_some(GroupError::MetadataTooLarge)
        };
        let refused: Vec<_> = commit.offsets.iter().map(too_large).collect();
        let accepted = commit.offsets.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let changes: Vec<_> = accepted
            .map(|(offset, _)| {
                let committed = CommittedOffset {
                    offset: offset.offset,
                    leader_epoch: offset.leader_epoch,
                    metadata: offset.metadata,
                    committed: now.wall,
                };
                ((offset.topic, offset.partition), Some(committed))
            })
            .collect();
        if changes.is_empty() {
            self.reply(key, Reply::Stored(Ok(())));
        } else {
            self.groups.entry(commit.group.clone()).or_default();
            self.write_offsets(commit.group, changes, Some(key));
        }
        Ok(refused)
    }

    fn check_commit(&mut self, now: Now, commit: &Commit) -> Result<(), GroupError> {
        if commit.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let Some(group) = self.groups.get_mut(&commit.group) else {
            return if commit.generation >= 0 {
                Err(GroupError::IllegalGeneration)
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

    fn write_offsets(&mut self, group: String, changes: Vec<((String, i32), Option<CommittedOffset>)>, key: Option<K>) {
        let record = |((topic, partition), change): &((String, i32), Option<CommittedOffset>)| -> RawRecord {
            let key = Key::Offset { group: group.clone(), topic: topic.clone(), partition: *partition };
            (key.encode(), change.as_ref().map(CommittedOffset::encode))
        };
        let records = changes.iter().map(record).collect();
        self.write(records, Intent::Offsets { group, changes, key });
    }

    /// Forgets offsets of partitions, except of topics that the group consumes. As [`Coordinator::commit`].
    pub fn delete_offsets(
        &mut self,
        group_id: &str,
        partitions: &[(String, i32)],
        key: K,
    ) -> Result<Vec<Option<GroupError>>, (GroupError, K)> {
        let Some(group) = self.groups.get(group_id) else { return Err((GroupError::NotFound, key)) };
        let subscribed = match group.state {
            State::Empty => None,
            // Who is no consumer assigns in ways that we do not know: nothing of it may be touched while it lives.
            _ => match group.subscribed_topics() {
                Some(topics) => Some(topics),
                None => return Err((GroupError::NotEmpty, key)),
            },
        };
        let in_use = |topic: &String| subscribed.as_ref().is_some_and(|topics| topics.contains(topic));
        let refused: Vec<_> =
            partitions.iter().map(|(topic, _)| in_use(topic).then_some(GroupError::SubscribedToTopic)).collect();
        let on_their_way: BTreeSet<_> = self.offsets_in_flight(group_id).collect();
        let is_there =
            |partition: &(String, i32)| group.offsets.contains_key(partition) || on_their_way.contains(partition);
        let there =
            partitions.iter().zip(&refused).filter(|(partition, refused)| refused.is_none() && is_there(partition));
        let changes: Vec<_> = there.map(|(partition, _)| (partition.clone(), None)).collect();
        if changes.is_empty() {
            self.reply(key, Reply::Stored(Ok(())));
        } else {
            self.write_offsets(group_id.to_owned(), changes, Some(key));
        }
        Ok(refused)
    }

    /// Deletes a group without members, and its offsets.
    pub fn delete_group(&mut self, group_id: &str, key: K) {
        let refused = match self.groups.get(group_id) {
            None => Some(GroupError::NotFound),
            Some(group) if group.state != State::Empty || !group.pending.is_empty() => Some(GroupError::NotEmpty),
            Some(_) => None,
        };
        match refused {
            Some(error) => self.reply(key, Reply::Stored(Err(error))),
            None => self.write_deletion(group_id, Some(key)),
        }
    }

    fn write_deletion(&mut self, group_id: &str, key: Option<K>) {
        let Some(group) = self.groups.get(group_id) else { return };
        let offset = |(topic, partition): &(String, i32)| Key::Offset {
            group: group_id.to_owned(),
            topic: topic.clone(),
            partition: *partition,
        };
        let partitions: BTreeSet<_> = group.offsets.keys().chain(self.offsets_in_flight(group_id)).collect();
        let mut records: Vec<RawRecord> = partitions.into_iter().map(|at| (offset(at).encode(), None)).collect();
        records.push((Key::Group { group: group_id.to_owned() }.encode(), None));
        self.write(records, Intent::Deletion { group: group_id.to_owned(), key });
    }

    /// Forgets what nobody has used for the time that offsets are kept, and groups of which nothing is left.
    pub fn expire_offsets(&mut self, now: Timestamp) {
        let horizon = Timestamp(now.0.saturating_sub(self.settings.offsets_retention_ms));
        let mut expired = Vec::new();
        let mut gone = Vec::new();
        let committing = self.groups_in_flight();
        for (id, group) in &self.groups {
            // What is being committed right now is not old, whatever lies there yet: next time.
            if committing.contains(id.as_str()) {
                continue;
            }
            let old = expired_offsets(group, horizon);
            let idle = group.state == State::Empty && group.pending.is_empty();
            if idle && old.len() == group.offsets.len() && (group.stored.is_some() || !old.is_empty()) {
                // A group that has just been left is not gone because it never committed.
                if !group.offsets.is_empty() || group.state_since < horizon {
                    gone.push(id.clone());
                }
            } else if !old.is_empty() {
                expired.push((id.clone(), old));
            }
        }
        for id in gone {
            self.write_deletion(&id, None);
        }
        for (id, old) in expired {
            self.write_offsets(id, old.into_iter().map(|partition| (partition, None)).collect(), None);
        }
    }

    /// Forgets all groups' offsets of a topic that is gone.
    pub fn topic_deleted(&mut self, topic: &str) {
        let committing = self.groups_in_flight();
        let mut forgotten = Vec::new();
        for (id, group) in &self.groups {
            let range = (topic.to_owned(), i32::MIN)..=(topic.to_owned(), i32::MAX);
            let stored = group.offsets.range(range).map(|(partition, _)| partition);
            let busy = Some(id).filter(|id| committing.contains(id.as_str()));
            let on_their_way = busy.into_iter().flat_map(|id| self.offsets_in_flight(id));
            let on_their_way = on_their_way.filter(|(name, _)| name == topic);
            let partitions: BTreeSet<_> = stored.chain(on_their_way).cloned().collect();
            forgotten.push((id.clone(), partitions));
        }
        for (id, partitions) in forgotten {
            let changes: Vec<_> = partitions.into_iter().map(|partition| (partition, None)).collect();
            if !changes.is_empty() {
                self.write_offsets(id, changes, None);
            }
        }
    }
}

/// KIP-211: a group without members keeps its offsets from when it lost the last; one that has only ever committed, or no
/// longer consumes a topic, keeps each from its commit.
fn expired_offsets<K>(group: &Group<K>, horizon: Timestamp) -> Vec<(String, i32)> {
    let subscribed = match (group.state, &group.protocol_type) {
        (State::Empty, _) => None,
        (_, Some(_)) => match group.subscribed_topics() {
            Some(topics) => Some(topics),
            None => return Vec::new(),
        },
        (_, None) => None,
    };
    let is_old = |topic: &String, offset: &CommittedOffset| match &subscribed {
        Some(topics) => !topics.contains(topic) && offset.committed < horizon,
        None if group.protocol_type.is_some() => group.state_since.max(offset.committed) < horizon,
        None => offset.committed < horizon,
    };
    let old = group.offsets.iter().filter(|((topic, _), offset)| is_old(topic, offset));
    old.map(|(partition, _)| partition.clone()).collect()
}
