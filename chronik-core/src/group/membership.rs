//! Joining, syncing, heartbeats, leaving: the rebalance protocol of classic groups (KIP-62, KIP-345, KIP-394, KIP-429,
//! KIP-814). The coordinator passes protocols' metadata and assignments on unread.

use super::coordinator::{Coordinator, Generation, GroupError, Intent, Joined, JoinedMember, Reply, Synced};
use super::records::{Key, StoredGroup};
use super::state::{Group, Member, Protocol, State};
use crate::time::{Monotonic, Now};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// A JoinGroup.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub group: String,
    /// Empty for a member that has none yet.
    pub member_id: String,
    /// What a member without one gets: made of the client's or instance's name and something random.
    pub fresh_member_id: String,
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

fn after(now: Now, ms: i32) -> Monotonic {
    now.monotonic + Duration::from_millis(ms.max(0).unsigned_abs().into())
}

impl<K> Coordinator<K> {
    /// A member joins, or joins again. Answered when the rebalance has come to its end, or at once.
    pub fn join(&mut self, now: Now, join: Join, key: K) {
        let asked = join.member_id.clone();
        let sessions = self.settings.session_timeout_ms_min..=self.settings.session_timeout_ms_max;
        let refused = if join.group.is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !sessions.contains(&join.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if !self.groups.contains_key(&join.group) {
            if !join.member_id.is_empty() {
                Some(GroupError::UnknownMember)
            } else if self.groups.len() >= self.settings.groups_max {
                Some(GroupError::NotAvailable)
            } else {
                self.groups.insert(join.group.clone(), Box::default());
                None
            }
        } else {
            None
        };
        if let Some(error) = refused {
            return self.refuse_join(key, asked, error);
        }
        let group = join.group.clone();
        self.with_group(&group, |this, id, group| {
            if !group.is_compatible(&join.protocol_type, &join.protocols) {
                this.refuse_join(key, asked, GroupError::InconsistentProtocol);
            } else if join.member_id.is_empty() {
                this.join_new(now, id, group, join, key);
            } else {
                this.join_known(now, id, group, join, key);
            }
            this.arm_for(id, group);
        });
    }

    fn refuse_join(&mut self, key: K, member_id: String, error: GroupError) {
        self.reply(key, Reply::Joined(Joined { error: Some(error), member_id, generation: -1, ..Joined::default() }));
    }

    fn join_new(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, key: K) {
        let fresh = join.fresh_member_id.clone();
        let known_instance = join.instance_id.as_ref().and_then(|instance| group.instances.get(instance).cloned());
        if let Some(replaced) = known_instance {
            return self.replace_static(now, id, group, join, replaced, key);
        }
        if group.members.len() + group.pending.len() >= self.settings.group_members_max {
            return self.refuse_join(key, String::new(), GroupError::GroupFull);
        }
        if join.instance_id.is_none() && join.requires_known_member_id {
            let until = after(now, join.session_timeout_ms);
            group.pending.insert(fresh.clone(), until);
            return self.refuse_join(key, fresh, GroupError::MemberIdRequired);
        }
        self.add_and_rebalance(now, id, group, join, fresh, key);
    }

    fn join_known(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, key: K) {
        let member_id = join.member_id.clone();
        if group.pending.remove(&member_id).is_some() {
            return self.add_and_rebalance(now, id, group, join, member_id, key);
        }
        if let Err(error) = check_member(group, &member_id, join.instance_id.as_deref()) {
            return self.refuse_join(key, member_id, error);
        }
        let unchanged = group.members.get(&member_id).is_some_and(|member| member.protocols == join.protocols);
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
        self.update_member(now, group, &member_id, join, key);
        self.rebalance(now, id, group);
    }

    fn add_and_rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, member_id: String, key: K) {
        if group.members.is_empty() {
            group.protocol_type = Some(join.protocol_type.clone());
        }
        if group.leader.is_none() {
            group.leader = Some(member_id.clone());
        }
        if let Some(instance) = &join.instance_id {
            group.instances.insert(instance.clone(), member_id.clone());
        }
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            session_ends: after(now, join.session_timeout_ms),
            awaiting_join: Some(key),
            awaiting_sync: None,
            owes_sync: false,
        };
        group.members.insert(member_id, member);
        if group.initial_wait_ends.is_some() {
            group.joined_meanwhile = true;
        }
        self.rebalance(now, id, group);
    }

    fn update_member(&mut self, now: Now, group: &mut Group<K>, member_id: &str, join: Join, key: K) {
        let Some(member) = group.members.get_mut(member_id) else { return };
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        member.session_ends = after(now, join.session_timeout_ms);
        // An earlier join of the same member: its client has given up on it.
        if let Some(earlier) = member.awaiting_join.replace(key) {
            self.refuse_join(earlier, member_id.to_owned(), GroupError::RebalanceInProgress);
        }
    }

    /// A static member has come back under a new id: who still uses the old one is fenced (KIP-345). If nothing changes
    /// for the group, it goes on without a rebalance.
    fn replace_static(&mut self, now: Now, id: &str, group: &mut Group<K>, join: Join, replaced: String, key: K) {
        let member_id = join.fresh_member_id.clone();
        let Some(mut member) = group.members.remove(&replaced) else {
            return self.add_and_rebalance(now, id, group, join, member_id, key);
        };
        if let Some(waiting) = member.awaiting_join.take() {
            self.refuse_join(waiting, replaced.clone(), GroupError::FencedInstance);
        }
        if let Some(waiting) = member.awaiting_sync.take() {
            self.reply(waiting, Reply::Synced(Err(GroupError::FencedInstance)));
        }
        if let Some(instance) = &join.instance_id {
            group.instances.insert(instance.clone(), member_id.clone());
        }
        let old_leader = group.leader.clone();
        if group.is_leader(&replaced) {
            group.leader = Some(member_id.clone());
        }
        let same_protocols = member.protocols == join.protocols;
        let knows_skip_assignment = join.knows_skip_assignment;
        group.members.insert(member_id.clone(), member);
        if let Some(member) = group.members.get_mut(&member_id) {
            member.client_id = join.client_id.clone();
            member.client_host = join.client_host.clone();
            member.protocols = join.protocols.clone();
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.session_timeout_ms;
            member.session_ends = after(now, join.session_timeout_ms);
        }
        let keeps_protocol = same_protocols || group.elect_protocol() == group.protocol;
        if group.state == State::Stable && keeps_protocol {
            let is_leader = group.is_leader(&member_id);
            let mut answer = joined(group, &member_id, is_leader && knows_skip_assignment);
            if knows_skip_assignment {
                answer.skip_assignment = is_leader;
            } else {
                // A client that cannot be told to skip the assignment must not take itself for the leader.
                answer.leader = old_leader.unwrap_or_default();
            }
            let stored = group.to_stored(None);
            return self.store_generation(id, stored, None, Some((key, answer)));
        }
        if let Some(member) = group.members.get_mut(&member_id) {
            member.awaiting_join = Some(key);
        }
        self.rebalance(now, id, group);
    }

    /// Begins a rebalance, or lets the one that is under way come to its end if this was what it waited for.
    fn rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        let was = group.state;
        match was {
            State::PreparingRebalance => return self.try_complete_join(now, id, group),
            State::CompletingRebalance => self.abort_syncs(now, group, GroupError::RebalanceInProgress),
            State::Empty | State::Stable => {}
        }
        group.enter(State::PreparingRebalance, now.wall);
        let patience = group.rebalance_timeout_ms();
        group.initial_wait_ends = None;
        group.joined_meanwhile = false;
        if was == State::Empty {
            let at_most = after(now, patience);
            group.initial_wait_ends = Some(at_most);
            group.phase_ends = Some(at_most.min(now.monotonic + self.settings.initial_rebalance_delay));
            if self.settings.initial_rebalance_delay.is_zero() {
                self.complete_join(now, id, group);
            }
        } else {
            group.phase_ends = Some(after(now, patience));
            self.try_complete_join(now, id, group);
        }
        self.arm_for(id, group);
    }

    fn abort_syncs(&mut self, now: Now, group: &mut Group<K>, error: GroupError) {
        for member in group.members.values_mut() {
            member.assignment = Bytes::new();
            member.owes_sync = false;
            if let Some(key) = member.awaiting_sync.take() {
                // It was waiting for us, not silent: its session begins anew with our answer.
                member.session_ends = after(now, member.session_timeout_ms);
                self.reply(key, Reply::Synced(Err(error)));
            }
        }
    }

    fn try_complete_join(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        if group.state == State::PreparingRebalance && group.initial_wait_ends.is_none() && group.all_have_joined() {
            self.complete_join(now, id, group);
        }
    }

    /// Everyone has joined, or the time is up: who has not joined is out, and a new generation begins.
    fn complete_join(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        // Static members stay until their session ends: they may come back without a rebalance.
        group.members.retain(|_, member| member.awaiting_join.is_some() || member.instance_id.is_some());
        let here = |group: &Group<K>, id: &str| group.members.get(id).is_some_and(|m| m.awaiting_join.is_some());
        if !group.leader.as_deref().is_some_and(|leader| here(group, leader)) {
            let first = group.members.iter().find(|(_, member)| member.awaiting_join.is_some());
            group.leader = first.map(|(id, _)| id.clone()).or(group.leader.take());
        }
        group.initial_wait_ends = None;
        group.joined_meanwhile = false;
        if !group.members.is_empty() && group.members.values().all(|member| member.awaiting_join.is_none()) {
            // Only static members are left, and none is here: wait for them, or for the end of their sessions.
            group.phase_ends = Some(after(now, group.rebalance_timeout_ms()));
            return self.arm_for(id, group);
        }
        group.generation = if group.generation == i32::MAX { 1 } else { group.generation + 1 };
        if group.members.is_empty() {
            group.protocol = None;
            group.leader = None;
            group.phase_ends = None;
            group.enter(State::Empty, now.wall);
            let stored = group.to_stored(None);
            return self.store_generation(id, stored, None, None);
        }
        group.protocol = group.elect_protocol();
        group.enter(State::CompletingRebalance, now.wall);
        group.phase_ends = Some(after(now, group.rebalance_timeout_ms()));
        let answers: Vec<(String, Joined)> =
            group.members.keys().map(|member| (member.clone(), joined(group, member, true))).collect();
        for (member_id, answer) in answers {
            let Some(member) = group.members.get_mut(&member_id) else { continue };
            member.owes_sync = true;
            member.session_ends = after(now, member.session_timeout_ms);
            if let Some(key) = member.awaiting_join.take() {
                self.reply(key, Reply::Joined(answer));
            }
        }
        self.arm_for(id, group);
    }

    fn store_generation(
        &mut self,
        id: &str,
        stored: StoredGroup,
        assignments: Option<BTreeMap<String, Bytes>>,
        reply: Option<(K, Joined)>,
    ) {
        let record = (Key::Group { group: id.to_owned() }.encode(), Some(stored.encode()));
        let generation = Box::new(Generation { stored, assignments, reply });
        self.write(vec![record], Intent::Generation { group: id.to_owned(), generation });
    }

    /// A member asks for its assignment, or the leader brings everybody's.
    pub fn sync(&mut self, now: Now, sync: Sync, key: K) {
        let group = sync.group.clone();
        let mut key = Some(key);
        self.with_group(&group, |this, id, group| {
            let Some(key) = key.take() else { return };
            match check_sync(group, &sync) {
                Err(error) => this.reply(key, Reply::Synced(Err(error))),
                Ok(()) if group.state == State::Stable => {
                    touch(now, group, &sync.member_id);
                    let assignment = group.members.get_mut(&sync.member_id).map(|member| {
                        member.owes_sync = false;
                        member.assignment.clone()
                    });
                    this.reply(key, Reply::Synced(Ok(synced(group, assignment.unwrap_or_default()))));
                }
                Ok(()) => {
                    touch(now, group, &sync.member_id);
                    if let Some(member) = group.members.get_mut(&sync.member_id) {
                        member.owes_sync = false;
                        if let Some(earlier) = member.awaiting_sync.replace(key) {
                            this.reply(earlier, Reply::Synced(Err(GroupError::RebalanceInProgress)));
                        }
                    }
                    if group.is_leader(&sync.member_id) && !group.storing {
                        group.storing = true;
                        let stored = group.to_stored(Some(&sync.assignments));
                        this.store_generation(id, stored, Some(sync.assignments), None);
                    }
                }
            }
        });
        if let Some(key) = key {
            self.reply(key, Reply::Synced(Err(GroupError::UnknownMember)));
        }
    }

    pub(super) fn generation_stored(
        &mut self,
        now: Now,
        id: &str,
        group: &mut Group<K>,
        stored: StoredGroup,
        assignments: Option<BTreeMap<String, Bytes>>,
    ) {
        let same = stored.generation == group.generation;
        group.stored = Some(stored);
        let Some(mut assignments) = assignments else { return };
        group.storing = false;
        if !same || group.state != State::CompletingRebalance {
            return;
        }
        group.enter(State::Stable, now.wall);
        let mut answers = Vec::new();
        for (member_id, member) in &mut group.members {
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

    pub(super) fn generation_not_stored(&mut self, now: Now, id: &str, group: &mut Group<K>) {
        group.storing = false;
        if group.state == State::CompletingRebalance {
            self.abort_syncs(now, group, GroupError::NotAvailable);
            self.rebalance(now, id, group);
        }
    }

    /// A member says that it lives.
    pub fn heartbeat(
        &mut self,
        now: Now,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let Some(group) = self.groups.get_mut(group) else { return Err(GroupError::UnknownMember) };
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
    pub fn leave(&mut self, now: Now, group: &str, leavers: &[Leaver]) -> Vec<Result<(), GroupError>> {
        let answers = self.with_group(group, |this, id, group| {
            let one = |leaver: &Leaver| this.leave_one(now, id, group, leaver);
            leavers.iter().map(one).collect()
        });
        answers.unwrap_or_else(|| leavers.iter().map(|_| Err(GroupError::UnknownMember)).collect())
    }

    fn leave_one(&mut self, now: Now, id: &str, group: &mut Group<K>, leaver: &Leaver) -> Result<(), GroupError> {
        let member_id = match &leaver.instance_id {
            Some(instance) if leaver.member_id.is_empty() => {
                group.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
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

    fn remove_and_rebalance(&mut self, now: Now, id: &str, group: &mut Group<K>, member_id: &str) {
        let Some(member) = group.members.remove(member_id) else { return };
        if let Some(instance) = &member.instance_id {
            group.instances.remove(instance);
        }
        if group.is_leader(member_id) {
            group.leader = group.members.keys().next().cloned();
        }
        if let Some(key) = member.awaiting_join {
            self.refuse_join(key, member_id.to_owned(), GroupError::UnknownMember);
        }
        if let Some(key) = member.awaiting_sync {
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
        let silent = |member: &Member<K>| {
            member.session_ends <= at && member.awaiting_join.is_none() && member.awaiting_sync.is_none()
        };
        let dead: Vec<String> =
            group.members.iter().filter(|(_, member)| silent(member)).map(|(id, _)| id.clone()).collect();
        for member in dead {
            self.remove_and_rebalance(now, id, group, &member);
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
                    _ => {
                        group.pending.clear();
                        self.complete_join(now, id, group);
                    }
                }
            }
            State::CompletingRebalance | State::Stable => {
                // Who has joined the generation and never synced holds the others up.
                let owing: Vec<String> =
                    group.members.iter().filter(|(_, member)| member.owes_sync).map(|(id, _)| id.clone()).collect();
                for member in owing {
                    self.remove_and_rebalance(now, id, group, &member);
                }
            }
            State::Empty => {}
        }
    }

    /// Arms the group's timer for the earliest of its deadlines.
    pub(super) fn arm_for(&mut self, id: &str, group: &Group<K>) {
        let sessions = group.members.values();
        let sessions = sessions.filter(|member| member.awaiting_join.is_none() && member.awaiting_sync.is_none());
        let sessions = sessions.map(|member| member.session_ends);
        let earliest = sessions.chain(group.pending.values().copied()).chain(group.phase_ends).min();
        if let Some(earliest) = earliest {
            self.arm(id, earliest);
        }
    }
}

/// The member is there, and is who it says.
pub(super) fn check_member<K>(group: &Group<K>, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
    if let Some(instance) = instance_id {
        match group.instances.get(instance) {
            None => return Err(GroupError::UnknownMember),
            Some(present) if present != member_id => return Err(GroupError::FencedInstance),
            Some(_) => {}
        }
    }
    if group.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMember) }
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

fn joined<K>(group: &Group<K>, member_id: &str, members_for_leader: bool) -> Joined {
    let protocol = group.protocol.clone().unwrap_or_default();
    let with_members = members_for_leader && group.is_leader(member_id);
    let member = |(id, member): (&String, &Member<K>)| JoinedMember {
        member_id: id.clone(),
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

fn synced<K>(group: &Group<K>, assignment: Bytes) -> Synced {
    Synced { protocol_type: group.protocol_type.clone(), protocol: group.protocol.clone(), assignment }
}
