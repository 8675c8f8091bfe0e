//! Joining, and the first half of a rebalance: from whoever wants in to the next generation's members and protocol
//! (KIP-62, KIP-345, KIP-394, KIP-814). The coordinator passes protocols' metadata on unread.

use super::coordinator::{Coordinator, GroupError, Joined, JoinedMember, Reply};
use super::journal::{COMMAND_BYTES_MAX, Then};
use super::members::{Member, Protocol};
use super::membership::{check_member, touch};
use super::records::{Change, StoredGroup};
use super::state::{Group, State};
use crate::time::{Monotonic, Now};
use std::time::Duration;

/// A member in its first join is forgotten if the rebalance takes longer: it has no id yet to be heard of by, and if its
/// client has gone away nobody would ever take its place. Kafka's value.
pub const FIRST_JOIN_MAX: Duration = Duration::from_secs(5 * 60);

/// A JoinGroup.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub group: String,
    /// Empty for a member that has none yet.
    pub member_id: String,
    /// What a member without one gets its id's uniqueness from: 128 bits that nobody can guess.
    pub fresh: u128,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// The client knows to join again with the id it is given (KIP-394).
    pub requires_known_member_id: bool,
    /// The client knows that a leader may be told to keep the assignment (KIP-814).
    pub knows_skip_assignment: bool,
}

impl Join {
    /// A new member's id: the instance's or the client's name, and a random UUID (version 4, RFC 9562).
    fn fresh_member_id(&self) -> String {
        /// The UUID and what joins them take 37; what remains of a field's two bytes of length is for the name.
        const NAME_BYTES_MAX: usize = i16::MAX as usize - 37;
        let name = self.instance_id.as_ref().unwrap_or(&self.client_id);
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        let bits = self.fresh & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let digits = format!("{bits:032x}");
        let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        format!("{name}-{a}-{b}-{c}-{d}-{e}")
    }
}

pub(super) fn after(now: Now, ms: i32) -> Monotonic {
    now.monotonic + Duration::from_millis(ms.max(0).unsigned_abs().into())
}

impl<K> Coordinator<K> {
    /// A member joins, or joins again. Answered when the rebalance has come to its end, or at once.
    pub fn join(&mut self, now: Now, join: Join, key: K) {
        let sessions = self.settings.session_timeout_ms_min..=self.settings.session_timeout_ms_max;
        let refused = if join.group.is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !sessions.contains(&join.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if self.groups.contains_key(&join.group) {
            None
        } else if !join.member_id.is_empty() {
            Some(GroupError::UnknownMember)
        } else if self.groups.len() >= self.settings.groups_max {
            Some(GroupError::NotAvailable)
        } else {
            self.groups.insert(join.group.clone(), Box::default());
            None
        };
        if let Some(error) = refused {
            return self.refuse_join(key, join.member_id, error);
        }
        let group = join.group.clone();
        self.with_group(&group, |this, id, group| {
            let replaced = join.instance_id.as_ref().filter(|_| join.member_id.is_empty());
            let replaced = replaced.and_then(|instance| group.members.instance(instance)).map(str::to_owned);
            if replaced.is_none() && !this.has_room(group, &join.member_id) {
                // Also a member that was in before the bound was lowered, and was not among the first to join again.
                this.refuse_join(key, String::new(), GroupError::GroupFull);
                group.pending.remove(&join.member_id);
                this.remove_and_rebalance(now, id, group, &join.member_id);
            } else if !group.is_compatible(&join.protocol_type, &join.protocols) {
                this.refuse_join(key, join.member_id, GroupError::InconsistentProtocol);
            } else if let Some(replaced) = replaced {
                this.replace_static(now, id, group, join, replaced, key);
            } else if join.member_id.is_empty() {
                this.join_new(now, id, group, join, key);
            } else {
                this.join_known(now, id, group, join, key);
            }
        });
        self.settle(&group);
    }

    pub(super) fn refuse_join(&mut self, key: K, member_id: String, error: GroupError) {
        self.reply(key, Reply::Joined(Joined { error: Some(error), member_id, generation: -1, ..Joined::default() }));
    }

    /// Whether a group takes this member in. While members join, those count who have; so if the bound was lowered, the
    /// last to join again are out.
    fn has_room(&self, group: &Group<K>, member_id: &str) -> bool {
        let max = self.settings.group_members_max;
        match group.state {
            State::Empty => group.pending.len() < max || group.pending.contains_key(member_id),
            State::PreparingRebalance => {
                group.members.get(member_id).is_some_and(Member::is_joining) || group.members.joining() < max
            }
            State::CompletingRebalance | State::Stable => {
                group.members.contains(member_id) || group.members.len() < max
            }
        }
    }

    fn join_new(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, key: K) {
        let fresh = join.fresh_member_id();
        if join.instance_id.is_none() && join.requires_known_member_id {
            // Each waits for as long as its session at most; the bound is the same as that on members.
            if group.pending.len() >= self.settings.group_members_max {
                return self.refuse_join(key, String::new(), GroupError::GroupFull);
            }
            let until = after(now, join.session_timeout_ms);
            group.pending.insert(fresh.clone(), until);
            self.arm(id, until);
            return self.refuse_join(key, fresh, GroupError::MemberIdRequired);
        }
        self.add_and_rebalance(now, id, group, join, fresh, key);
    }

    fn join_known(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, key: K) {
        let member_id = join.member_id.clone();
        // Ids are not given out to static members, so who comes back with one and an instance has made something up.
        if join.instance_id.is_none() && group.pending.remove(&member_id).is_some() {
            return self.add_and_rebalance(now, id, group, join, member_id, key);
        }
        if let Err(error) = check_member(group, &member_id, join.instance_id.as_deref()) {
            return self.refuse_join(key, member_id, error);
        }
        let unchanged = group.members.get(&member_id).is_some_and(|member| member.protocols() == join.protocols);
        let as_it_stands = match group.state {
            State::Empty => return self.refuse_join(key, member_id, GroupError::UnknownMember),
            State::PreparingRebalance => false,
            // It has missed the answer to its join.
            State::CompletingRebalance => unchanged,
            // A leader that joins again wants a rebalance; a follower that has nothing new to say does not.
            State::Stable => unchanged && !group.is_leader(&member_id),
        };
        if as_it_stands {
            let with_members = group.state == State::CompletingRebalance;
            let joined = joined(group, &member_id, with_members);
            touch(now, group, &member_id);
            return self.reply(key, Reply::Joined(joined));
        }
        group.members.set_protocols(&member_id, join.protocols);
        if let Some(member) = group.members.get_mut(&member_id) {
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.session_timeout_ms;
            member.session_ends = after(now, join.session_timeout_ms);
        }
        // An earlier join of the same member: its client has given up on it.
        if let Some(earlier) = group.members.await_join(&member_id, key) {
            self.refuse_join(earlier, member_id, GroupError::RebalanceInProgress);
        }
        self.rebalance(now, id, group);
    }

    fn add_and_rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, member_id: String, key: K) {
        if group.members.is_empty() {
            group.protocol_type = Some(join.protocol_type.clone());
        }
        if group.leader.is_none() {
            group.leader = Some(member_id.clone());
        }
        let first_join_ends = now.monotonic + FIRST_JOIN_MAX;
        let mut member = member_of(now, join);
        member.first_join_ends = Some(first_join_ends);
        group.members.insert(member_id.clone(), member);
        group.members.await_join(&member_id, key);
        self.arm(id, first_join_ends);
        if group.initial_wait_ends.is_some() {
            group.joined_meanwhile = true;
        }
        self.rebalance(now, id, group);
    }

    /// A static member has come back under a new id: who still uses the old one is fenced (KIP-345). If nothing changes
    /// for the group, it goes on without a rebalance.
    fn replace_static(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, replaced: String, key: K) {
        let member_id = join.fresh_member_id();
        let Some(before) = group.members.remove(&replaced) else {
            return self.add_and_rebalance(now, id, group, join, member_id, key);
        };
        let knows_skip_assignment = join.knows_skip_assignment;
        let mut member = member_of(now, join);
        member.assignment = before.assignment.clone();
        member.first_join_ends = before.first_join_ends;
        member.owes_sync = before.owes_sync;
        self.arm(id, member.session_ends);
        group.members.insert(member_id.clone(), member);
        let (waiting_join, waiting_sync) = before.into_waiting();
        if let Some(waiting) = waiting_join {
            self.refuse_join(waiting, replaced.clone(), GroupError::FencedInstance);
        }
        if let Some(waiting) = waiting_sync {
            self.reply(waiting, Reply::Synced(Err(GroupError::FencedInstance)));
        }
        let old_leader = group.leader.clone();
        if group.is_leader(&replaced) {
            group.leader = Some(member_id.clone());
        }
        if group.state == State::Stable && group.members.elect_protocol() == group.protocol {
            let is_leader = group.is_leader(&member_id);
            let mut answer = joined(group, &member_id, is_leader && knows_skip_assignment);
            if knows_skip_assignment {
                answer.skip_assignment = is_leader;
            } else {
                // A client that cannot be told to skip the assignment must not take itself for the leader.
                answer.leader = old_leader.unwrap_or_default();
            }
            let stored = group.to_stored(None);
            if let Err(then) = self.store_generation(id, stored, Then::AnswerJoin { key, joined: Box::new(answer) })
                && let Then::AnswerJoin { key, .. } = then
            {
                self.refuse_join(key, member_id, GroupError::GroupTooLarge);
            }
            return;
        }
        group.members.await_join(&member_id, key);
        self.rebalance(now, id, group);
    }

    /// Begins a rebalance, or lets the one that is under way come to its end if this was what it waited for.
    pub(super) fn rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        let was = group.state;
        match was {
            State::PreparingRebalance => return self.try_complete_join(now, id, group),
            State::CompletingRebalance => self.abort_syncs(now, id, group, GroupError::RebalanceInProgress),
            State::Empty | State::Stable => {}
        }
        group.enter(State::PreparingRebalance, now.wall);
        let at_most = after(now, group.rebalance_timeout_ms());
        group.initial_wait_ends = None;
        group.joined_meanwhile = false;
        if was == State::Empty {
            let ends = at_most.min(now.monotonic + self.settings.initial_rebalance_delay);
            group.initial_wait_ends = Some(at_most);
            group.phase_ends = Some(ends);
            self.arm(id, ends);
            if self.settings.initial_rebalance_delay.is_zero() {
                self.complete_join(now, id, group);
            }
        } else {
            group.phase_ends = Some(at_most);
            self.arm(id, at_most);
            self.try_complete_join(now, id, group);
        }
    }

    pub(super) fn try_complete_join(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        if group.state == State::PreparingRebalance && group.initial_wait_ends.is_none() && group.all_have_joined() {
            self.complete_join(now, id, group);
        }
    }

    /// Everyone has joined, or the time is up: who has not joined is out, and a new generation begins.
    pub(super) fn complete_join(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        // Static members stay until their session ends: they may come back without a rebalance.
        let is_out = |member: &Member<K>| !member.is_joining() && member.instance_id.is_none();
        let out: Vec<String> =
            group.members.iter().filter(|(_, member)| is_out(member)).map(|(id, _)| id.to_owned()).collect();
        out.iter().for_each(|member| drop(group.members.remove(member)));
        let is_here = |leader: &String| group.members.get(leader).is_some_and(Member::is_joining);
        if !group.leader.as_ref().is_some_and(is_here) {
            let first = group.members.iter().find(|(_, member)| member.is_joining()).map(|(id, _)| id.to_owned());
            group.leader = first.or(group.leader.take());
        }
        group.initial_wait_ends = None;
        group.joined_meanwhile = false;
        if !group.members.is_empty() && group.members.joining() == 0 {
            // Only static members are left, and none is here: wait for them, or for the end of their sessions.
            let ends = after(now, group.rebalance_timeout_ms());
            group.phase_ends = Some(ends);
            return self.arm(id, ends);
        }
        group.generation = if group.generation == i32::MAX { 1 } else { group.generation + 1 };
        if group.members.is_empty() {
            group.protocol = None;
            group.leader = None;
            group.phase_ends = None;
            group.enter(State::Empty, now.wall);
            // Small, since it names nobody.
            let _ = self.store_generation(id, group.to_stored(None), Then::Nothing);
            return;
        }
        group.protocol = group.members.elect_protocol();
        group.enter(State::CompletingRebalance, now.wall);
        let ends = after(now, group.rebalance_timeout_ms());
        group.phase_ends = Some(ends);
        let answers: Vec<(String, Joined)> =
            group.members.iter().map(|(member, _)| (member.to_owned(), joined(group, member, true))).collect();
        for (member_id, answer) in answers {
            if let Some(key) = group.members.take_join(&member_id) {
                self.reply(key, Reply::Joined(answer));
            }
            if let Some(member) = group.members.get_mut(&member_id) {
                member.owes_sync = true;
                member.first_join_ends = None;
                member.session_ends = after(now, member.session_timeout_ms);
            }
        }
        self.arm_for(id, group);
    }

    /// Sends a generation to the log; what was to follow comes back if it is too large for a record.
    pub(super) fn store_generation(&mut self, id: &str, stored: StoredGroup, then: Then<K>) -> Result<(), Then<K>> {
        let change = Change::Generation { group: id.to_owned(), stored: Some(Box::new(stored)) };
        if change.weight_bytes() > COMMAND_BYTES_MAX {
            return Err(then);
        }
        self.write(Some(id), vec![change], then);
        Ok(())
    }
}

/// Who joins as it says, its session beginning now.
fn member_of<K>(now: Now, join: Join) -> Member<K> {
    let mut member = Member::new(join.instance_id, join.protocols);
    member.client_id = join.client_id;
    member.client_host = join.client_host;
    member.rebalance_timeout_ms = join.rebalance_timeout_ms;
    member.session_timeout_ms = join.session_timeout_ms;
    member.session_ends = after(now, join.session_timeout_ms);
    member
}

fn joined<K>(group: &Group<K>, member_id: &str, members_for_leader: bool) -> Joined {
    let protocol = group.protocol.clone().unwrap_or_default();
    let with_members = members_for_leader && group.is_leader(member_id);
    let member = |(id, member): (&str, &Member<K>)| JoinedMember {
        member_id: id.to_owned(),
        instance_id: member.instance_id.clone(),
        metadata: member.metadata(&protocol),
    };
    Joined {
        error: None,
        member_id: member_id.to_owned(),
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        skip_assignment: false,
        members: if with_members { group.members.iter().map(member).collect() } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_id_is_the_clients_name_and_a_random_uuid_and_fits_its_field() {
        let join = Join { client_id: "app".into(), fresh: u128::MAX, ..Join::default() };
        assert_eq!(join.fresh_member_id(), "app-ffffffff-ffff-4fff-bfff-ffffffffffff");
        let join = Join { instance_id: Some("i-1".into()), ..join };
        assert_eq!(join.fresh_member_id(), "i-1-ffffffff-ffff-4fff-bfff-ffffffffffff");
        let join = Join { instance_id: None, client_id: "é".repeat(20_000), ..join };
        let id = join.fresh_member_id();
        assert!(id.len() <= i16::MAX as usize && id.ends_with("é-ffffffff-ffff-4fff-bfff-ffffffffffff"));
    }
}
