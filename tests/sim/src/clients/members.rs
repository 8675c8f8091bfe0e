//! Members of a group: they join, share the partitions out among themselves, read on from what the group has committed, and
//! commit what they have read.

use super::replica;
use crate::facts::Fact;
use crate::node::Node;
use crate::node::groups::{NoCoordinator, SESSION_MS, Shard};
use crate::node::watched::placed;
use crate::rt::WORLD;
use crate::world::World;
use bytes::{Buf, BufMut, Bytes};
use chronik_core::group::coordinator::Joined;
use chronik_core::group::joining::Join;
use chronik_core::group::members::Protocol;
use chronik_core::group::membership::{Leaver, Sync};
use chronik_core::group::offsets::{Commit, OffsetToCommit};
use chronik_core::group::{GroupError, Reply, coordinator_partition, subscription};
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::metadata::names::CONSUMER_OFFSETS;
use chronik_core::wal::ReadRange;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The one group of a story.
pub const GROUP: &str = "readers";
const PROTOCOL: &str = "even";
const REBALANCE_MS: i32 = 2_500;
/// Fetches of one partition before a member looks at the next one.
const READS: usize = 8;

/// What a member knows of itself.
#[derive(Default)]
struct Own {
    id: String,
    generation: i32,
    /// Requests of its connection arrive in order.
    order: Rc<Cell<Duration>>,
}

/// Partitions as a member is told of them: the topic's name, the log.
type Share = Vec<(String, LogId)>;

fn encode(share: &[(String, LogId)]) -> Bytes {
    let mut bytes = Vec::new();
    for (name, log) in share {
        bytes.put_u16(name.len() as u16);
        bytes.put_slice(name.as_bytes());
        bytes.put_slice(&log.topic.0);
        bytes.put_i32(log.partition);
    }
    bytes.into()
}

fn decode(mut bytes: Bytes) -> Option<Share> {
    let mut share = Vec::new();
    while bytes.has_remaining() {
        let length = usize::from(bytes.try_get_u16().ok()?);
        if bytes.remaining() < length + 20 {
            return None;
        }
        let name = String::from_utf8(bytes.split_to(length).to_vec()).ok()?;
        let topic = TopicId(bytes.split_to(16).as_ref().try_into().ok()?);
        share.push((name, LogId { topic, partition: bytes.get_i32() }));
    }
    Some(share)
}

/// Which member holds what: one partition after the other.
fn share_out(members: &[String], all: &Share) -> BTreeMap<String, Bytes> {
    let mut shares: BTreeMap<&String, Share> = members.iter().map(|member| (member, Share::new())).collect();
    for (place, what) in all.iter().enumerate() {
        if let Some(share) = members.get(place % members.len().max(1)).and_then(|member| shares.get_mut(member)) {
            share.push(what.clone());
        }
    }
    shares.into_iter().map(|(member, share)| (member.clone(), encode(&share))).collect()
}

/// A coordinator's part of a fetch of committed offsets.
async fn fetch_committed(node: &Node, share: &Share) -> Option<Vec<(LogId, Option<i64>)>> {
    let (shard, of, epoch) = coordinator(node).ok()?;
    let mut settled = false;
    let answer = shard.ask(|coordinator, _, key| settled = coordinator.when_settled(GROUP, key).is_some());
    if !settled && !matches!(answer.await, Ok(Reply::Stored(_))) {
        return None;
    }
    let committed: Vec<_> = shard.look(|coordinator| {
        let group = coordinator.group(GROUP);
        let one = |(name, log): &(String, LogId)| {
            let known = group.and_then(|group| group.offsets.get_of(name, log.topic, log.partition));
            (*log, known.map(|known| known.offset))
        };
        share.iter().map(one).collect()
    });
    for (log, offset) in &committed {
        node.around.tell(Fact::OffsetFetched { of, epoch, log: *log, offset: *offset });
    }
    Some(committed)
}

fn coordinator(node: &Node) -> Result<(Rc<Shard>, LogId, LeaderEpoch), NoCoordinator> {
    node.groups().ok_or(NoCoordinator::NotHere)?.find(GROUP)
}

/// A coordinator's part of a commit: told of when it is stored.
async fn commit(
    node: Rc<Node>,
    own: (String, i32),
    share: Vec<(String, LogId, Offset)>,
) -> Result<(), Option<GroupError>> {
    let (shard, of, epoch) = coordinator(&node).map_err(|_| None)?;
    // Of a topic that is gone nothing is taken; a real client is told so.
    let image = node.group().ok_or(None)?.image();
    let is_there =
        |(name, log, _): &(String, LogId, Offset)| image.topic(name).is_some_and(|topic| topic.id == log.topic);
    let share: Vec<_> = share.into_iter().filter(is_there).collect();
    let told = |what: &str| {
        let (member, generation) = (&own.0, own.1);
        let offsets: Vec<_> = share.iter().map(|(_, log, offset)| format!("{log} at {offset}")).collect();
        format!("n{} {what} of {member:?} in generation {generation}: {}", node.around.node, offsets.join(", "))
    };
    node.around.sim.tell(|| told("takes the commit"));
    let offset = |(name, log, offset): &(String, LogId, Offset)| OffsetToCommit {
        topic: name.clone(),
        topic_id: log.topic,
        partition: log.partition,
        offset: offset.0,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let wanted = Commit {
        group: GROUP.into(),
        member_id: own.0.clone(),
        generation: own.1,
        offsets: share.iter().map(offset).collect(),
        ..Commit::default()
    };
    let mut refused = None;
    let answer = shard.ask(|coordinator, now, key| {
        if let Err((why, _)) = coordinator.commit(now, wanted, key) {
            refused = Some(why);
        }
    });
    if refused.is_some() {
        return Err(refused);
    }
    match answer.await {
        Ok(Reply::Stored(Ok(()))) => {
            node.around.sim.tell(|| told("has stored the commit"));
            for (_, log, offset) in share {
                let fact = Fact::OffsetCommitted { of, epoch, generation: own.1, log, offset };
                node.around.tell(fact);
            }
            Ok(())
        }
        Ok(Reply::Stored(Err(why))) => Err(Some(why)),
        _ => Err(None),
    }
}

impl World {
    fn offsets_log(&self) -> Option<LogId> {
        let image = self.image()?;
        let topic = image.topic(CONSUMER_OFFSETS)?;
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(1);
        Some(LogId { topic: topic.id, partition: coordinator_partition(GROUP, partitions) })
    }

    /// Everything there is to be read.
    fn to_be_read(&self) -> Share {
        let Some(image) = self.image() else { return Share::new() };
        let topics = image.topics().filter(|topic| &*topic.name != CONSUMER_OFFSETS);
        topics
            .flat_map(|topic| {
                let log = |partition| (topic.name.to_string(), LogId { topic: topic.id, partition });
                (0..i32::try_from(topic.partitions.len()).unwrap_or(0)).map(log).collect::<Share>()
            })
            .collect()
    }

    /// What the group has not committed yet of what there is, in words.
    pub fn group_lacks(&self) -> Option<String> {
        let wanted = self.to_be_read();
        let judges = self.judges.borrow();
        wanted.into_iter().find_map(|(name, log)| {
            let end = judges.picture.stories.get(&log).map_or(Offset::ZERO, |story| story.end);
            let committed = judges.picture.committed_offsets.get(&log).copied().unwrap_or(Offset::ZERO);
            (committed < end)
                .then(|| format!("of {name}-{} the group has read up to {committed} of {end}", log.partition))
        })
    }

    /// Asks the coordinator, wherever that is.
    async fn ask_coordinator<T: 'static, F: Future<Output = T> + 'static>(
        self: &Rc<Self>,
        order: &Rc<Cell<Duration>>,
        act: impl FnOnce(Rc<Node>) -> F + 'static,
    ) -> Option<T> {
        let leader = self.leader_of(self.offsets_log()?)?;
        self.call(leader, order, act).await
    }

    /// The group begins with an offset that is nobody's, so that it is never forgotten as a whole.
    pub async fn begin_group(self: Rc<Self>, members: u64) {
        loop {
            self.sim.sleep(WORLD, Duration::from_millis(200)).await;
            let share = vec![("nothing".to_owned(), LogId::default(), Offset(0))];
            let begin = move |node: Rc<Node>| async move { commit(node, (String::new(), -1), share).await.ok() };
            if self.ask_coordinator(&Rc::default(), begin).await.flatten().is_some() {
                break;
            }
        }
        self.judges.borrow_mut().count("group begun");
        for _ in 0..members {
            self.sim.spawn(WORLD, self.clone().be_a_member());
        }
    }

    /// A member, and after each that dies without a word another one.
    async fn be_a_member(self: Rc<Self>) {
        loop {
            let pause = self.sim.roll(|dice| dice.span(Duration::ZERO, Duration::from_millis(1_500)));
            self.sim.sleep(WORLD, pause).await;
            let mut own = Own { generation: -1, ..Own::default() };
            while self.live_a_generation(&mut own).await {
                let pause = self.sim.roll(|dice| dice.span(Duration::from_millis(20), Duration::from_millis(200)));
                self.sim.sleep(WORLD, pause).await;
            }
        }
    }

    /// Joins, and takes part until there is another generation. False where this member is no more.
    async fn live_a_generation(self: &Rc<Self>, own: &mut Own) -> bool {
        // Before it joins: what is there only after the shares were made must make it join again.
        let known_topics = self.to_be_read();
        let Some(joined) = self.join(own).await else { return true };
        match joined.error {
            None => {}
            Some(GroupError::MemberIdRequired) => {
                own.id = joined.member_id;
                return true;
            }
            Some(GroupError::UnknownMember) => return false,
            Some(_) => return true,
        }
        own.id = joined.member_id.clone();
        own.generation = joined.generation;
        let leads = joined.leader == joined.member_id;
        let members: Vec<String> = joined.members.iter().map(|member| member.member_id.clone()).collect();
        let shares = if leads { share_out(&members, &self.to_be_read()) } else { BTreeMap::new() };
        let share = match self.sync(own, shares).await {
            Some(Ok(share)) => share,
            Some(Err(GroupError::UnknownMember)) => return false,
            _ => return true,
        };
        self.judges.borrow_mut().count("member given its share");
        let asked = share.clone();
        let known = loop {
            let asked = asked.clone();
            let fetch = move |node: Rc<Node>| async move { fetch_committed(&node, &asked).await };
            match self.ask_coordinator(&own.order, fetch).await.flatten() {
                Some(known) => break known,
                None if self.sim.roll(|dice| dice.once_in(4)) => return true,
                None => self.sim.sleep(WORLD, Duration::from_millis(100)).await,
            }
        };
        let mut positions: BTreeMap<LogId, Offset> =
            known.into_iter().map(|(log, offset)| (log, Offset(offset.unwrap_or(0)))).collect();
        self.read_and_commit(own, &share, &known_topics, &mut positions).await
    }

    async fn read_and_commit(
        self: &Rc<Self>,
        own: &mut Own,
        share: &Share,
        known_topics: &Share,
        positions: &mut BTreeMap<LogId, Offset>,
    ) -> bool {
        let mut committed = positions.clone();
        loop {
            let pause = self.sim.roll(|dice| dice.span(Duration::from_millis(50), Duration::from_millis(500)));
            self.sim.sleep(WORLD, pause).await;
            // Somebody kills it, or its owner ends it in order.
            match self.sim.roll(|dice| dice.below(400)) {
                0 if !self.is_ending() => return false,
                1 if !self.is_ending() => {
                    let leaver = Leaver { member_id: own.id.clone(), instance_id: None };
                    let leave = move |node: Rc<Node>| async move {
                        let (shard, ..) = coordinator(&node).ok()?;
                        Some(shard.with(|coordinator, now| coordinator.leave(now, GROUP, &[leaver])))
                    };
                    self.ask_coordinator(&own.order, leave).await;
                    return false;
                }
                _ => {}
            }
            for (_, log) in share {
                // All there is, as far as that can be read quickly.
                for _ in 0..READS {
                    if !self.read_some(*log, positions).await {
                        break;
                    }
                }
            }
            let news: Vec<_> = share
                .iter()
                .filter_map(|(name, log)| Some((name.clone(), *log, *positions.get(log)?)))
                .filter(|(_, log, offset)| committed.get(log) != Some(offset))
                .collect();
            let answer = match news.is_empty() {
                false => {
                    let (me, sent) = ((own.id.clone(), own.generation), news.clone());
                    let answer = self.ask_coordinator(&own.order, move |node| commit(node, me, sent)).await;
                    if answer == Some(Ok(())) {
                        committed.extend(news.into_iter().map(|(_, log, offset)| (log, offset)));
                    }
                    answer
                }
                true => self.beat(own).await,
            };
            match answer {
                // As a client that sees another number of partitions.
                Some(Ok(())) if self.to_be_read() != *known_topics => return true,
                Some(Ok(()) | Err(None | Some(GroupError::NotAvailable))) | None => {}
                Some(Err(Some(GroupError::UnknownMember))) => return false,
                Some(Err(Some(_))) => return true,
            }
        }
    }

    async fn join(self: &Rc<Self>, own: &Own) -> Option<Joined> {
        let topics: Vec<String> = self.to_be_read().into_iter().map(|(name, _)| name).collect();
        let mut metadata = vec![0, 0];
        metadata.put_i32(i32::try_from(topics.len()).unwrap_or(0));
        for topic in topics {
            metadata.put_i16(i16::try_from(topic.len()).unwrap_or(0));
            metadata.put_slice(topic.as_bytes());
        }
        let fresh = self.sim.roll(|dice| u128::from_be_bytes(dice.identity()));
        let join = Join {
            group: GROUP.into(),
            member_id: own.id.clone(),
            fresh,
            client_id: "member".into(),
            client_host: "here".into(),
            protocol_type: subscription::CONSUMER.into(),
            protocols: vec![Protocol { name: PROTOCOL.into(), metadata: metadata.into() }],
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            requires_known_member_id: true,
            ..Join::default()
        };
        let ask = move |node: Rc<Node>| async move {
            let (shard, ..) = coordinator(&node).ok()?;
            match shard.ask(|coordinator, now, key| coordinator.join(now, join, key)).await {
                Ok(Reply::Joined(joined)) => Some(joined),
                _ => None,
            }
        };
        self.ask_coordinator(&own.order, ask).await.flatten()
    }

    async fn sync(
        self: &Rc<Self>,
        own: &Own,
        assignments: BTreeMap<String, Bytes>,
    ) -> Option<Result<Share, GroupError>> {
        let (member, generation) = (own.id.clone(), own.generation);
        let sync = Sync { group: GROUP.into(), member_id: member.clone(), generation, assignments, ..Sync::default() };
        let ask = move |node: Rc<Node>| async move {
            let (shard, ..) = coordinator(&node).ok()?;
            match shard.ask(|coordinator, now, key| coordinator.sync(now, sync, key)).await {
                Ok(Reply::Synced(Ok(synced))) => {
                    let share = decode(synced.assignment)?;
                    let logs = share.iter().map(|(_, log)| *log).collect();
                    node.around.tell(Fact::Assigned { generation, member, logs });
                    Some(Ok(share))
                }
                Ok(Reply::Synced(Err(why))) => Some(Err(why)),
                _ => None,
            }
        };
        self.ask_coordinator(&own.order, ask).await.flatten()
    }

    async fn beat(self: &Rc<Self>, own: &Own) -> Option<Result<(), Option<GroupError>>> {
        let (member, generation) = (own.id.clone(), own.generation);
        let ask = move |node: Rc<Node>| async move {
            let (shard, ..) = coordinator(&node).map_err(|_| None)?;
            shard.with(|coordinator, now| coordinator.heartbeat(now, GROUP, &member, None, generation)).map_err(Some)
        };
        self.ask_coordinator(&own.order, ask).await
    }

    /// Moves a position on by what there is to read, which is judged as any other consumer's reading.
    /// Whether it moved.
    async fn read_some(self: &Rc<Self>, log: LogId, positions: &mut BTreeMap<LogId, Offset>) -> bool {
        let Some(position) = positions.get(&log).copied() else { return false };
        let Some(leader) = self.leader_of(log) else { return false };
        let may_have_lost = self.may_have_lost(log);
        let read = move |node: Rc<Node>| async move {
            let partition = replica(&node, log)?;
            let standing = partition.standing();
            if position < standing.log_start {
                return Some(standing.log_start);
            }
            if position >= standing.high_watermark {
                // What it has read may be lost where that is allowed: it begins again where the log ends.
                return (may_have_lost && standing.leads).then_some(standing.high_watermark.min(position));
            }
            let range = ReadRange { from: position, upto: standing.high_watermark, max_bytes: 64 << 10, min_one: true };
            let chunk = partition.read(range).await.ok()?;
            placed(&chunk.bytes)?.last().map(|batch| batch.next)
        };
        let next = self.call(leader, &Rc::default(), read).await.flatten();
        next.is_some_and(|next| positions.insert(log, next) != Some(next))
    }
}
