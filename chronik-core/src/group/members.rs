//! The members of a group, and what must be known of all of them without asking each: how many are joining, and which
//! protocols all of them support.
//!
//! **Invariant: the counts are those of the members.** What they count can be changed only through here, so that a join
//! costs the same in a group of five thousand as in one of two.

use crate::time::Monotonic;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A way of assigning that a member supports, with what it tells the leader about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A member. `K` is what its waiting requests are answered by.
#[derive(Debug)]
pub struct Member<K> {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub assignment: Bytes,
    /// It is dead if nothing is heard of it by then; not while it waits for an answer of ours.
    pub session_ends: Monotonic,
    /// In its first join it has no id to send heartbeats with, and is forgotten if the rebalance takes longer than this.
    pub first_join_ends: Option<Monotonic>,
    pub awaiting_sync: Option<K>,
    /// It has joined the generation that is being completed, and owes a SyncGroup.
    pub owes_sync: bool,
    /// In its order of preference.
    protocols: Vec<Protocol>,
    awaiting_join: Option<K>,
}

impl<K> Member<K> {
    /// One of whom nothing is known yet but this.
    pub fn new(instance_id: Option<String>, protocols: Vec<Protocol>) -> Self {
        Self {
            instance_id,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            assignment: Bytes::new(),
            session_ends: Monotonic::default(),
            first_join_ends: None,
            awaiting_sync: None,
            owes_sync: false,
            protocols,
            awaiting_join: None,
        }
    }

    pub fn protocols(&self) -> &[Protocol] {
        &self.protocols
    }

    pub fn is_joining(&self) -> bool {
        self.awaiting_join.is_some()
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|known| known.name == protocol);
        known.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    /// When it is taken for dead, as things are. Who waits for us is not silent.
    pub fn deadline(&self) -> Option<Monotonic> {
        if self.is_joining() {
            self.first_join_ends
        } else if self.awaiting_sync.is_some() {
            None
        } else {
            Some(self.session_ends)
        }
    }

    /// The names of its protocols, each once.
    fn names(&self) -> impl Iterator<Item = &str> {
        let first = |(at, protocol): &(usize, &Protocol)| {
            self.protocols[..*at].iter().all(|earlier| earlier.name != protocol.name)
        };
        self.protocols.iter().enumerate().filter(first).map(|(_, protocol)| protocol.name.as_str())
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Members<K> {
    by_id: BTreeMap<String, Member<K>>,
    /// Static members (KIP-345): instance id to member id.
    instances: BTreeMap<String, String>,
    /// How many members support each protocol.
    support: BTreeMap<String, usize>,
    joining: usize,
}

impl<K> Default for Members<K> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), instances: BTreeMap::new(), support: BTreeMap::new(), joining: 0 }
    }
}

impl<K> Members<K> {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub fn get(&self, id: &str) -> Option<&Member<K>> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Member<K>> {
        self.by_id.get_mut(id)
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member<K>)> {
        self.by_id.iter().map(|(id, member)| (id.as_str(), member))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Member<K>)> {
        self.by_id.iter_mut().map(|(id, member)| (id.as_str(), member))
    }

    /// The member id of a static member.
    pub fn instance(&self, instance: &str) -> Option<&str> {
        self.instances.get(instance).map(String::as_str)
    }

    /// How many wait for the next generation.
    pub fn joining(&self) -> usize {
        self.joining
    }

    pub fn all_are_joining(&self) -> bool {
        self.joining == self.by_id.len()
    }

    /// Whether all members support it; so does everyone where there is nobody.
    pub fn all_support(&self, protocol: &str) -> bool {
        self.support.get(protocol).copied().unwrap_or(0) == self.by_id.len()
    }

    /// The protocol of the next generation: each member votes for the first in its list that all support.
    pub fn elect_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.by_id.values() {
            if let Some(choice) = member.protocols.iter().find(|protocol| self.all_support(&protocol.name)) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    /// Puts a member in the place of whoever had its ids; the one with its member id comes back.
    pub fn insert(&mut self, id: String, member: Member<K>) -> Option<Member<K>> {
        let replaced = self.remove(&id);
        self.joining += usize::from(member.is_joining());
        count(&mut self.support, &member, 1);
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.by_id.insert(id, member);
        replaced
    }

    pub fn remove(&mut self, id: &str) -> Option<Member<K>> {
        let member = self.by_id.remove(id)?;
        self.joining -= usize::from(member.is_joining());
        count(&mut self.support, &member, -1);
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|holder| holder == id)
        {
            self.instances.remove(instance);
        }
        Some(member)
    }

    /// Changes what a member supports.
    pub fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let Some(member) = self.by_id.get_mut(id) else { return };
        count(&mut self.support, member, -1);
        member.protocols = protocols;
        count(&mut self.support, member, 1);
    }

    /// A member waits for the next generation; an earlier wait of its comes back.
    pub fn await_join(&mut self, id: &str, key: K) -> Option<K> {
        let earlier = self.by_id.get_mut(id)?.awaiting_join.replace(key);
        self.joining += usize::from(earlier.is_none());
        earlier
    }

    /// Its wait is over.
    pub fn take_join(&mut self, id: &str) -> Option<K> {
        let key = self.by_id.get_mut(id)?.awaiting_join.take()?;
        self.joining -= 1;
        Some(key)
    }
}

impl<K> Member<K> {
    /// Takes the wait of a member that is in no group (any more).
    pub fn into_waiting(self) -> (Option<K>, Option<K>) {
        (self.awaiting_join, self.awaiting_sync)
    }
}

fn count<K>(support: &mut BTreeMap<String, usize>, member: &Member<K>, by: isize) {
    for name in member.names() {
        let supporters = match support.get_mut(name) {
            Some(supporters) => supporters,
            None => support.entry(name.to_owned()).or_default(),
        };
        *supporters = supporters.saturating_add_signed(by);
        if *supporters == 0 {
            support.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(names: &[&str]) -> Vec<Protocol> {
        names.iter().map(|name| Protocol { name: (*name).into(), metadata: Bytes::new() }).collect()
    }

    fn member(instance: Option<&str>, names: &[&str]) -> Member<u8> {
        Member::new(instance.map(Into::into), protocols(names))
    }

    #[test]
    fn each_votes_for_its_first_protocol_that_all_support() {
        let mut members = Members::default();
        members.insert("a".into(), member(None, &["x", "y", "z"]));
        members.insert("b".into(), member(None, &["z", "y"]));
        members.insert("c".into(), member(None, &["y", "z", "y"]));
        assert_eq!(members.elect_protocol().as_deref(), Some("y"), "two voices against one");
        assert!(members.all_support("z") && !members.all_support("x"));
        members.set_protocols("c", protocols(&["z"]));
        assert_eq!(members.elect_protocol().as_deref(), Some("z"));
        members.remove("b");
        members.remove("c");
        assert_eq!(members.elect_protocol().as_deref(), Some("x"));
    }

    #[test]
    fn counts_follow_the_members() {
        let mut members = Members::default();
        members.insert("a".into(), member(Some("i"), &["x"]));
        members.insert("b".into(), member(None, &["x"]));
        assert_eq!((members.await_join("a", 1), members.await_join("a", 2)), (None, Some(1)));
        assert_eq!((members.joining(), members.all_are_joining()), (1, false));
        members.await_join("b", 3);
        assert!(members.all_are_joining());
        assert_eq!((members.take_join("b"), members.take_join("b"), members.joining()), (Some(3), None, 1));
        members.insert("c".into(), member(Some("i"), &["x"]));
        members.remove("a");
        assert_eq!((members.instance("i"), members.joining(), members.len()), (Some("c"), 0, 2));
    }
}
