//! What stands for the entries that were cut off.
//!
//! A snapshot travels whole inside one Raft message and is kept in memory by everyone who may lead, so it is small:
//! [`super::Settings::snapshot_bytes_max`]. It carries the configuration *and* the table of members, so that a node with a
//! blank disk knows from it alone whom to talk to.

use super::configuration::Configuration;
use super::entries::Mark;
use super::members::Members;
use bytes::Bytes;
use prost::Message;
use raft::eraftpb;

/// The state after the entry at [`Snapshot::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub at: Mark,
    pub configuration: Configuration,
    /// At least those of the configuration.
    pub members: Members,
    /// The application's own; empty before anything was applied.
    pub image: Bytes,
}

/// The bytes of Raft's `Snapshot.data`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Manifest {
    #[prost(bytes = "vec", tag = "1")]
    members: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    image: Bytes,
}

impl Snapshot {
    /// Where a cluster begins: at index 1 of term 1, the same on all voters. That first index stands for something that
    /// is in nobody's log, the first configuration; so a node that joins later cannot begin with an empty log either, but
    /// is sent a snapshot, which has it.
    pub fn genesis(voters: &Members) -> Snapshot {
        Snapshot {
            at: Mark { index: 1, term: 1 },
            configuration: Configuration::of_voters(voters.iter().map(|member| member.id())),
            members: voters.clone(),
            image: Bytes::new(),
        }
    }

    /// Whether it can be restored: Raft would end the process over one that cannot.
    pub fn is_sound(&self) -> bool {
        let known = self.configuration.all().iter().all(|id| self.members.get(*id).is_some());
        self.at.index > 0 && self.at.term > 0 && self.configuration.is_sound() && known
    }

    pub(super) fn to_raft(&self) -> eraftpb::Snapshot {
        let mut snapshot = eraftpb::Snapshot::default();
        let manifest = Manifest { members: self.members.to_bytes(), image: self.image.clone() };
        snapshot.data = manifest.encode_to_vec().into();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.at.index;
        metadata.term = self.at.term;
        metadata.set_conf_state(self.configuration.to_raft());
        snapshot
    }

    /// `None` for one that could not be restored.
    pub(super) fn from_raft(snapshot: &eraftpb::Snapshot) -> Option<Snapshot> {
        let metadata = snapshot.get_metadata();
        let manifest = Manifest::decode(snapshot.data.clone()).ok()?;
        let snapshot = Snapshot {
            at: Mark { index: metadata.index, term: metadata.term },
            configuration: Configuration::from_raft(metadata.get_conf_state())?,
            members: Members::from_bytes(&manifest.members)?,
            image: manifest.image,
        };
        snapshot.is_sound().then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::metadata::raft::members::Member;

    #[test]
    fn a_snapshot_reads_back_and_one_with_a_stranger_is_refused() {
        let voters: Members = (1..=3).filter_map(|n: u8| Member::new(NodeId(n.into()), [n; 16], "host:1")).collect();
        let snapshot = Snapshot { image: Bytes::from_static(b"image"), ..Snapshot::genesis(&voters) };
        assert_eq!(Snapshot::from_raft(&snapshot.to_raft()), Some(snapshot.clone()));
        let first = voters.iter().next().map(Member::id).expect("three voters");
        let mut fewer = snapshot.clone();
        fewer.members.remove(first);
        assert_eq!(Snapshot::from_raft(&fewer.to_raft()), None);
    }
}
