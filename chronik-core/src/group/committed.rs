//! A group's committed offsets, by topic and partition.

use super::records::CommittedOffset;
use crate::ids::TopicId;
use std::collections::BTreeMap;
use std::ops::Bound;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
    len: usize,
}

impl Offsets {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_topic.get(topic)?.get(&partition)
    }

    /// As [`Offsets::get`], but nothing where the offset was committed for another topic of that name, deleted since.
    pub fn get_of(&self, topic: &str, id: TopicId, partition: i32) -> Option<&CommittedOffset> {
        self.get(topic, partition)
            .filter(|committed| committed.topic == TopicId::NONE || id == TopicId::NONE || committed.topic == id)
    }

    /// Puts an offset in; what was there before comes back.
    pub fn insert(&mut self, topic: &str, partition: i32, committed: CommittedOffset) -> Option<CommittedOffset> {
        let partitions = match self.by_topic.get_mut(topic) {
            Some(partitions) => partitions,
            None => self.by_topic.entry(topic.to_owned()).or_default(),
        };
        let before = partitions.insert(partition, committed);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, topic: &str, partition: i32) -> Option<CommittedOffset> {
        let partitions = self.by_topic.get_mut(topic)?;
        let before = partitions.remove(&partition)?;
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        self.len -= 1;
        Some(before)
    }

    /// All, in the order of topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        self.by_topic
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(|(at, committed)| (topic.as_str(), *at, committed)))
    }

    /// As [`Offsets::iter`], from behind a partition; `None`: from the first.
    pub fn iter_after(&self, after: Option<(&str, i32)>) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        let first = after.map_or(Bound::Unbounded, |(topic, _)| Bound::Included(topic));
        self.by_topic.range::<str, _>((first, Bound::Unbounded)).flat_map(move |(topic, partitions)| {
            let from = match after {
                Some((same, partition)) if same == topic => Bound::Excluded(partition),
                _ => Bound::Unbounded,
            };
            partitions.range((from, Bound::Unbounded)).map(|(at, committed)| (topic.as_str(), *at, committed))
        })
    }

    /// The topics, each with its partitions.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &BTreeMap<i32, CommittedOffset>)> {
        self.by_topic.iter().map(|(topic, partitions)| (topic.as_str(), partitions))
    }

    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = (i32, &CommittedOffset)> {
        self.by_topic.get(topic).into_iter().flatten().map(|(at, committed)| (*at, committed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn at(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed: Timestamp(0),
            expires: None,
            topic: TopicId([1; 16]),
        }
    }

    #[test]
    fn a_walk_can_be_taken_up_behind_any_partition() {
        let mut offsets = Offsets::default();
        for (topic, partition) in [("b", 0), ("a", 1), ("a", 0), ("c", 7)] {
            assert_eq!(offsets.insert(topic, partition, at(1)), None);
        }
        assert_eq!(offsets.insert("b", 0, at(2)), Some(at(1)));
        let all: Vec<_> = offsets.iter().map(|(topic, partition, _)| (topic.to_owned(), partition)).collect();
        assert_eq!((offsets.len(), all.len()), (4, 4));
        for (nth, (topic, partition)) in all.iter().enumerate() {
            let rest: Vec<_> =
                offsets.iter_after(Some((topic, *partition))).map(|(t, p, _)| (t.to_owned(), p)).collect();
            assert_eq!(rest, all[nth + 1..]);
        }
        assert_eq!(offsets.iter_after(Some(("aa", 3))).count(), 2, "also behind what is not there");
        assert_eq!(offsets.remove("b", 0), Some(at(2)));
        assert_eq!((offsets.remove("b", 0), offsets.len(), offsets.topics().count()), (None, 3, 2));
    }

    #[test]
    fn an_offset_of_a_deleted_topic_is_none_of_its_successors() {
        let mut offsets = Offsets::default();
        offsets.insert("t", 0, at(5));
        assert!(offsets.get_of("t", TopicId([1; 16]), 0).is_some());
        assert!(offsets.get_of("t", TopicId::NONE, 0).is_some());
        assert!(offsets.get_of("t", TopicId([2; 16]), 0).is_none());
    }
}
