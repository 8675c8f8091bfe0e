//! Who takes part: a Raft id belongs to a node *and its disk*.
//!
//! A vote and an acknowledgement are promises kept by a disk. A node that comes back with another disk has forgotten what
//! it promised, so it must not be taken for its former self: its Raft id is drawn from the identity of its directory,
//! which is made once, at random, and never again.

use crate::ids::NodeId;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;

/// Longest address, in bytes: a DNS name has at most 253, and a port follows.
pub const ADDRESS_BYTES_MAX: usize = 300;
/// Nodes that one table may name. Each costs under a kilobyte, and a cluster has fewer by far.
pub const MEMBERS_MAX: usize = 1_024;

/// A participant's number in the Raft group. Never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(NonZeroU64);

impl RaftId {
    /// `None` for zero, by which Raft means "nobody".
    pub fn new(id: u64) -> Option<RaftId> {
        NonZeroU64::new(id).map(RaftId)
    }

    /// That of a node with this directory: the first eight bytes of its identity. `None` where they are zero, for which
    /// another identity must be drawn.
    pub fn of(directory_id: &[u8; 16]) -> Option<RaftId> {
        let mut first = [0; 8];
        first.copy_from_slice(&directory_id[..8]);
        RaftId::new(u64::from_be_bytes(first))
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RaftId({self})")
    }
}

/// A node with its disk, and where its Raft plane is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    id: RaftId,
    node: NodeId,
    directory_id: [u8; 16],
    address: String,
}

impl Member {
    /// `None` for a directory id that makes no Raft id, or an address that is empty or too long.
    pub fn new(node: NodeId, directory_id: [u8; 16], address: impl Into<String>) -> Option<Member> {
        let (id, address) = (RaftId::of(&directory_id)?, address.into());
        (!address.is_empty() && address.len() <= ADDRESS_BYTES_MAX).then_some(Member {
            id,
            node,
            directory_id,
            address,
        })
    }

    pub fn id(&self) -> RaftId {
        self.id
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn directory_id(&self) -> &[u8; 16] {
        &self.directory_id
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        MemberRecord::from(self).encode_to_vec()
    }

    /// `None` for bytes that name no member.
    pub fn from_bytes(bytes: &[u8]) -> Option<Member> {
        MemberRecord::decode(bytes).ok()?.member()
    }
}

/// As it is stored and sent.
#[derive(Clone, PartialEq, Eq, Message)]
struct MemberRecord {
    #[prost(int32, tag = "1")]
    node: i32,
    #[prost(bytes = "vec", tag = "2")]
    directory_id: Vec<u8>,
    #[prost(string, tag = "3")]
    address: String,
}

impl From<&Member> for MemberRecord {
    fn from(member: &Member) -> Self {
        MemberRecord {
            node: member.node.0,
            directory_id: member.directory_id.to_vec(),
            address: member.address.clone(),
        }
    }
}

impl MemberRecord {
    fn member(self) -> Option<Member> {
        Member::new(NodeId(self.node), self.directory_id.try_into().ok()?, self.address)
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MembersRecord {
    #[prost(message, repeated, tag = "1")]
    members: Vec<MemberRecord>,
}

/// Participants by their Raft ids. A node whose disk was replaced may be in it twice, under either id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<RaftId, Member>);

impl Members {
    pub fn get(&self, id: RaftId) -> Option<&Member> {
        self.0.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a member in, or its new address. False where the id belongs to another node or disk, or the table is full:
    /// nothing has changed then.
    pub fn insert(&mut self, member: Member) -> bool {
        match self.0.get(&member.id) {
            Some(known) if known.node != member.node || known.directory_id != member.directory_id => return false,
            None if self.0.len() >= MEMBERS_MAX => return false,
            _ => {}
        }
        self.0.insert(member.id, member);
        true
    }

    pub fn remove(&mut self, id: RaftId) -> Option<Member> {
        self.0.remove(&id)
    }

    /// Whether `id` is this node's, with one disk or another.
    pub fn belongs(&self, id: RaftId, node: NodeId) -> bool {
        self.get(id).is_some_and(|member| member.node == node)
    }

    /// Every id that this node has had.
    pub fn ids_of(&self, node: NodeId) -> impl Iterator<Item = RaftId> {
        self.0.values().filter(move |member| member.node == node).map(Member::id)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        MembersRecord { members: self.0.values().map(MemberRecord::from).collect() }.encode_to_vec()
    }

    /// `None` for bytes that are no such table: unreadable, too long, or one id given to two.
    pub fn from_bytes(bytes: &[u8]) -> Option<Members> {
        let record = MembersRecord::decode(bytes).ok()?;
        let mut members = Members::default();
        for member in record.members {
            let member = member.member()?;
            if members.0.contains_key(&member.id) || !members.insert(member) {
                return None;
            }
        }
        Some(members)
    }
}

impl FromIterator<Member> for Members {
    /// Of members that claim one id the first is taken.
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut table = Members::default();
        for member in members {
            table.insert(member);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: i32, disk: u8) -> Member {
        Member::new(NodeId(node), [disk; 16], format!("host-{node}:9093")).expect("a good member")
    }

    #[test]
    fn another_disk_is_another_participant() {
        let (old, new) = (member(1, 7), member(1, 8));
        assert_ne!(old.id(), new.id());
        let table: Members = [old.clone(), new.clone()].into_iter().collect();
        assert!(table.belongs(old.id(), NodeId(1)) && !table.belongs(old.id(), NodeId(2)));
        assert_eq!(table.ids_of(NodeId(1)).count(), 2);
        assert_eq!(RaftId::of(&[0; 16]), None, "zero means nobody");
    }

    #[test]
    fn an_id_is_never_given_to_another_node() {
        let mut table: Members = [member(1, 7)].into_iter().collect();
        let thief = Member::new(NodeId(2), [7; 16], "elsewhere:1").expect("well formed");
        assert!(!table.insert(thief));
        let moved = Member::new(NodeId(1), [7; 16], "new-home:1").expect("well formed");
        assert!(table.insert(moved));
        assert_eq!(table.get(member(1, 7).id()).map(Member::address), Some("new-home:1"));
    }

    #[test]
    fn a_table_reads_back_and_a_bad_one_is_refused() {
        let table: Members = [member(1, 1), member(2, 2)].into_iter().collect();
        assert_eq!(Members::from_bytes(&table.to_bytes()), Some(table.clone()));
        let twice = [table.to_bytes(), table.to_bytes()].concat();
        assert_eq!(Members::from_bytes(&twice), None);
        assert_eq!(Members::from_bytes(&[0xff]), None);
        assert_eq!(Member::from_bytes(&member(1, 1).to_bytes()), Some(member(1, 1)));
    }
}
