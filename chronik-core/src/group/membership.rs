//! Being a member: syncing, heartbeats, leaving, and falling silent (KIP-62, KIP-345, KIP-429). The coordinator passes
//! assignments on unread.

use super::coordinator::{Coordinator, GroupError, Reply, Synced};
use super::joining::after;
use super::journal::Then;
use super::members::Member;
use super::state::{Group, State};
use crate::time::Now;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A SyncGroup.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    pub group: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Of all members; from the leader only.
    pub assignments: BTreeMap<String, Bytes>,
}

/// Who leaves: by member id, or a static member by its instance id alone.
#[derive(Clone, Debug, Default)]
pub struct Leaver {
    pub member_id: String,
    pub instance_id: Option<String>,
}

impl<K> Coordinator<K> {
    /// A member asks for its assignment, or the leader brings everybody's.
    pub fn sync(&mut self, now: Now, sync: Sync, key: K) {
        let id = sync.group.clone();
        if !self.groups.contains_key(&id) {
            let error = if id.is_empty() { GroupError::InvalidGroupId } else { GroupError::UnknownMember };
            return self.reply(key, Reply::Synced(Err(error)));
        }
        self.with_group(&id, |this, id, group| {
            if let Err(error) = check_sync(group, &sync) {
                return this.reply(key, Reply::Synced(Err(error)));
            }
            touch(now, group, &sync.member_id);
            let Some(member) = group.members.get_mut(&sync.member_id) else { return };
            member.owes_sync = false;
            if group.state == State::Stable {
                let assignment = member.assignment.clone();
                return this.reply(key, Reply::Synced(Ok(synced(group, assignment))));
            }
            if let Some(earlier) = member.awaiting_sync.replace(key) {
                this.reply(earlier, Reply::Synced(Err(GroupError::RebalanceInProgress)));
            }
            if group.is_leader(&sync.member_id) && group.storing != Some(group.generation) {
                let generation = group.generation;
                let stored = group.to_stored(Some(&sync.assignments));
                match this.store_generation(id, stored, Then::Assign { generation }) {
                    Ok(()) => group.storing = Some(generation),
                    Err(_) => {
                        this.abort_syncs(now, id, group, GroupError::GroupTooLarge);
                        this.rebalance(now, id, group);
                    }
                }
            }
        });
    }

    /// A generation's assignments are committed. If the group has gone on since, they are nobody's any more.
    pub(super) fn generation_stored(&mut self, now: Now, id: &str, group: &mut Group<K>, generation: i32) {
        group.storing.take_if(|storing| *storing == generation);
        if group.state != State::CompletingRebalance || group.generation != generation {
            return;
        }
        let stored = group.stored.iter().flat_map(|stored| &stored.members);
        let mut assignments: BTreeMap<String, Bytes> =
            stored.map(|member| (member.member_id.clone(), member.assignment.clone())).collect();
        group.enter(State::Stable, now.wall);
        let mut answers = Vec::new();
        for (member_id, member) in group.members.iter_mut() {
            member.assignment = assignments.remove(member_id).unwrap_or_default();
            member.session_ends = after(now, member.session_timeout_ms);
            answers.extend(member.awaiting_sync.take().map(|key| (key, member.assignment.clone())));
        }
        for (key, assignment) in answers {
            let answer = synced(group, assignment);
            self.reply(key, Reply::Synced(Ok(answer)));
        }
        self.arm_for(id, group);
    }

    pub(super) fn generation_not_stored(&mut self, now: Now, id: &str, group: &mut Group<K>, generation: i32) {
        group.storing.take_if(|storing| *storing == generation);
        if group.state == State::CompletingRebalance && group.generation == generation {
            self.abort_syncs(now, id, group, GroupError::NotAvailable);
            self.rebalance(now, id, group);
        }
    }

    /// Tells whoever waits for an assignment that this generation will have none.
    pub(super) fn abort_syncs(&mut self, now: Now, id: &str, group: &mut Group<K>, error: GroupError) {
        let mut keys = Vec::new();
        for (_, member) in group.members.iter_mut() {
            member.assignment = Bytes::new();
            member.owes_sync = false;
            if let Some(key) = member.awaiting_sync.take() {
                // It was waiting for us, not silent: its session begins anew with our answer.
                member.session_ends = after(now, member.session_timeout_ms);
                keys.push(key);
            }
        }
        keys.into_iter().for_each(|key| self.reply(key, Reply::Synced(Err(error))));
        self.arm_for(id, group);
    }

    /// A member says that it lives.
    pub fn heartbeat(
        &mut self,
        now: Now,
        id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let Some(group) = self.groups.get_mut(id) else {
            return Err(if id.is_empty() { GroupError::InvalidGroupId } else { GroupError::UnknownMember });
        };
        check_member(group, member_id, instance_id)?;
        if group.generation != generation {
            return Err(GroupError::IllegalGeneration);
        }
        match group.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => {
                touch(now, group, member_id);
                Err(GroupError::RebalanceInProgress)
            }
            // Between its join and its sync a member's heartbeats are ordinary ones.
            State::CompletingRebalance | State::Stable => {
                touch(now, group, member_id);
                Ok(())
            }
        }
    }

    /// Members leave; each has its own answer.
    pub fn leave(&mut self, now: Now, id: &str, leavers: &[Leaver]) -> Vec<Result<(), GroupError>> {
        let answers = self.with_group(id, |this, id, group| {
            let one = |leaver: &Leaver| this.leave_one(now, id, group, leaver);
            leavers.iter().map(one).collect()
        });
        self.settle(id);
        answers.unwrap_or_else(|| leavers.iter().map(|_| Err(GroupError::UnknownMember)).collect())
    }

    fn leave_one(&mut self, now: Now, id: &str, group: &mut Group<K>, leaver: &Leaver) -> Result<(), GroupError> {
        let member_id = match &leaver.instance_id {
            Some(instance) if leaver.member_id.is_empty() => {
                group.members.instance(instance).ok_or(GroupError::UnknownMember)?.to_owned()
            }
            _ => leaver.member_id.clone(),
        };
        if group.pending.remove(&member_id).is_some() {
            self.try_complete_join(now, id, group);
            return Ok(());
        }
        check_member(group, &member_id, leaver.instance_id.as_deref())?;
        self.remove_and_rebalance(now, id, group, &member_id);
        Ok(())
    }

    /// Takes a member out, if it is in.
    pub(super) fn remove_and_rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>, member_id: &str) {
        let Some(member) = group.members.remove(member_id) else { return };
        if group.is_leader(member_id) {
            group.leader = group.members.iter().next().map(|(id, _)| id.to_owned());
        }
        let (waiting_join, waiting_sync) = member.into_waiting();
        if let Some(key) = waiting_join {
            self.refuse_join(key, member_id.to_owned(), GroupError::UnknownMember);
        }
        if let Some(key) = waiting_sync {
            self.reply(key, Reply::Synced(Err(GroupError::UnknownMember)));
        }
        match group.state {
            State::Empty => {}
            State::PreparingRebalance if group.members.is_empty() && group.pending.is_empty() => {
                self.complete_join(now, id, group);
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => self.rebalance(now, id, group),
        }
    }

    /// One of a group's deadlines has come, perhaps.
    pub(super) fn group_is_due(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        let at = now.monotonic;
        group.pending.retain(|_, until| *until > at);
        self.try_complete_join(now, id, group);
        let is_dead = |member: &Member<K>| member.deadline().is_some_and(|deadline| deadline <= at);
        let dead: Vec<String> =
            group.members.iter().filter(|(_, member)| is_dead(member)).map(|(id, _)| id.to_owned()).collect();
        for member in dead {
            // A rebalance that another's end has completed meanwhile has given it a new session.
            if group.members.get(&member).is_some_and(is_dead) {
                self.remove_and_rebalance(now, id, group, &member);
            }
        }
        if group.phase_ends.is_some_and(|ends| ends <= at) {
            self.phase_is_over(now, id, group);
        }
        self.arm_for(id, group);
    }

    fn phase_is_over(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        group.phase_ends = None;
        match group.state {
            State::PreparingRebalance => {
                let longest = group.initial_wait_ends.filter(|longest| *longest > now.monotonic);
                match longest {
                    // More have come while we waited: perhaps even more are coming.
                    Some(longest) if group.joined_meanwhile => {
                        group.joined_meanwhile = false;
                        group.phase_ends = Some(longest.min(now.monotonic + self.settings.initial_rebalance_delay));
                    }
                    _ => self.complete_join(now, id, group),
                }
            }
            State::CompletingRebalance | State::Stable => {
                // Who has joined the generation and never synced holds the others up.
                let owing: Vec<String> =
                    group.members.iter().filter(|(_, member)| member.owes_sync).map(|(id, _)| id.to_owned()).collect();
                for member in owing {
                    self.remove_and_rebalance(now, id, group, &member);
                }
            }
            State::Empty => {}
        }
    }

    /// Arms the group's timer for the earliest of its deadlines.
    pub(super) fn arm_for(&mut self, id: &str, group: &Group<K>) {
        let members = group.members.iter().filter_map(|(_, member)| member.deadline());
        let earliest = members.chain(group.pending.values().copied()).chain(group.phase_ends).min();
        if let Some(earliest) = earliest {
            self.arm(id, earliest);
        }
    }
}

/// The member is there, and is who it says.
pub(super) fn check_member<K>(group: &Group<K>, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
    if let Some(instance) = instance_id {
        match group.members.instance(instance) {
            None => return Err(GroupError::UnknownMember),
            Some(present) if present != member_id => return Err(GroupError::FencedInstance),
            Some(_) => {}
        }
    }
    if group.members.contains(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
}

fn check_sync<K>(group: &Group<K>, sync: &Sync) -> Result<(), GroupError> {
    check_member(group, &sync.member_id, sync.instance_id.as_deref())?;
    let differs = |asked: &Option<String>, ours: &Option<String>| asked.is_some() && asked != ours;
    if group.generation != sync.generation {
        Err(GroupError::IllegalGeneration)
    } else if differs(&sync.protocol_type, &group.protocol_type) || differs(&sync.protocol, &group.protocol) {
        Err(GroupError::InconsistentProtocol)
    } else {
        match group.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}

pub(super) fn touch<K>(now: Now, group: &mut Group<K>, member_id: &str) {
    if let Some(member) = group.members.get_mut(member_id) {
        member.session_ends = after(now, member.session_timeout_ms);
    }
}

fn synced<K>(group: &Group<K>, assignment: Bytes) -> Synced {
    Synced { protocol_type: group.protocol_type.clone(), protocol: group.protocol.clone(), assignment }
}
