//! How a cluster begins, once: all of its voters agree on who they are before any of them votes.
//!
//! If voters each began for themselves, two could come to hold different ideas of the group, or one begin twice with
//! different disks, and both would decide. So each configured voter, told to begin a cluster, waits until it has heard
//! from all of them, writes down *exactly* who they are, disks included ([`Plan`]), and begins only when every one of them
//! has reported the same plan as written. Nobody changes a plan that is written.
//!
//! A node whose disk is blank and which hears of a cluster that has begun never begins another: it joins as a learner,
//! under the new identity that its new disk gives it.

use super::members::{Member, Members, RaftId};
use crate::ids::NodeId;
use crate::time::Monotonic;
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Where the plan is kept, beside the log of entries.
pub const PREPARED: &str = "raft.prepared";
/// How often others are asked where they stand.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A token is an operator's word for the occasion.
const TOKEN_BYTES_MAX: usize = 256;

/// Exactly who begins a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Keeps two beginnings with the same nodes apart.
    pub token: String,
    pub voters: Members,
}

/// What a node answers when it is asked where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// With the token of the cluster that it was told to begin, if it was.
    Blank { member: Member, token: Option<String> },
    /// The plan is durable there.
    Prepared { member: Member, plan: Plan },
    /// Takes part in a cluster, of which these are the members.
    Started { member: Member, members: Members },
}

/// What a node's disk had when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Blank,
    Prepared(Plan),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstInput {
    Tick,
    /// The node's identity has been checked by the transport.
    Heard {
        from: NodeId,
        report: Report,
    },
    /// The value of [`FirstEffect::Persist`] is durable.
    Persisted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstEffect {
    /// Where does that node stand?
    Ask { node: NodeId },
    /// Under [`PREPARED`].
    Persist { value: Bytes },
    /// Write `Recovered::genesis_persist` of these voters, and open with `Recovered::genesis`. The last effect.
    Begin { voters: Members },
    /// Open blank, and ask the leader of these to take this node in as a learner. The last effect.
    Join { members: Members },
    /// It cannot go on without an operator; said once for each reason.
    Stuck { why: String },
}

/// Why a configuration cannot be begun with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBootstrap {
    #[error("node {0} is told to begin a cluster, and is not among its voters")]
    NotAVoter(NodeId),
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    Token,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Blank,
    /// The plan is being written.
    Writing(Plan),
    Prepared(Plan),
    Done,
}

/// See the module's head. Used only by nodes that are in no cluster yet.
#[derive(Debug)]
pub struct Bootstrap {
    own: Member,
    /// The configured voters, own node included or not.
    voters: Vec<NodeId>,
    /// The token, where this node is told to begin a cluster.
    begin: Option<String>,
    phase: Phase,
    heard: BTreeMap<NodeId, Report>,
    effects: VecDeque<FirstEffect>,
    next_ask: Monotonic,
    stuck: Option<String>,
}

impl Bootstrap {
    /// `begin` is the token, if the node is told to begin a cluster.
    pub fn new(
        now: Monotonic,
        own: Member,
        voters: impl IntoIterator<Item = NodeId>,
        begin: Option<String>,
        found: Found,
    ) -> Result<Bootstrap, BadBootstrap> {
        let voters: Vec<NodeId> = voters.into_iter().collect();
        if begin.is_some() && !voters.contains(&own.node()) {
            return Err(BadBootstrap::NotAVoter(own.node()));
        }
        if begin.as_ref().is_some_and(|token| token.len() > TOKEN_BYTES_MAX) {
            return Err(BadBootstrap::Token);
        }
        let phase = match found {
            Found::Blank => Phase::Blank,
            Found::Prepared(plan) => Phase::Prepared(plan),
        };
        let (heard, effects) = (BTreeMap::new(), VecDeque::new());
        let mut machine = Bootstrap { own, voters, begin, phase, heard, effects, next_ask: now, stuck: None };
        machine.decide();
        Ok(machine)
    }

    /// When [`FirstInput::Tick`] is due.
    pub fn deadline(&self) -> Monotonic {
        self.next_ask
    }

    pub fn poll_effect(&mut self) -> Option<FirstEffect> {
        self.effects.pop_front()
    }

    /// What to answer whoever asks.
    pub fn report(&self) -> Report {
        let member = self.own.clone();
        match &self.phase {
            Phase::Prepared(plan) => Report::Prepared { member, plan: plan.clone() },
            Phase::Blank | Phase::Writing(_) | Phase::Done => Report::Blank { member, token: self.begin.clone() },
        }
    }

    pub fn handle(&mut self, now: Monotonic, input: FirstInput) {
        match input {
            FirstInput::Tick if now < self.next_ask || self.phase == Phase::Done => {}
            FirstInput::Tick => {
                self.next_ask = now + ASK_EVERY;
                let others = self.voters.iter().filter(|node| **node != self.own.node());
                self.effects.extend(others.map(|node| FirstEffect::Ask { node: *node }));
            }
            FirstInput::Heard { from, report } => {
                // Each speaks for itself only, and this node needs nobody to tell it of itself.
                if report.member().node() == from && from != self.own.node() && self.voters.contains(&from) {
                    self.heard.insert(from, report);
                }
            }
            FirstInput::Persisted => {
                if let Phase::Writing(plan) = &self.phase {
                    self.phase = Phase::Prepared(plan.clone());
                }
            }
        }
        self.decide();
    }

    fn decide(&mut self) {
        if self.phase == Phase::Done {
            return;
        }
        let started = self.heard.values().find_map(|report| match report {
            Report::Started { members, .. } => Some(members.clone()),
            _ => None,
        });
        match (self.phase.clone(), started) {
            // It began after this node had reported its plan, and so has everyone's.
            (Phase::Prepared(plan), Some(members)) if members.get(self.own.id()).is_some() => self.begin_with(plan),
            (Phase::Blank | Phase::Prepared(_), Some(members)) => {
                self.phase = Phase::Done;
                self.effects.push_back(FirstEffect::Join { members });
            }
            (Phase::Blank, None) => self.prepare(),
            (Phase::Prepared(plan), None) => self.compare(plan),
            (Phase::Writing(_) | Phase::Done, _) => {}
        }
    }

    fn begin_with(&mut self, plan: Plan) {
        self.phase = Phase::Done;
        self.effects.push_back(FirstEffect::Begin { voters: plan.voters });
    }

    fn others(&self) -> impl Iterator<Item = (NodeId, Option<&Report>)> {
        let others = self.voters.iter().filter(|node| **node != self.own.node());
        others.map(|node| (*node, self.heard.get(node)))
    }

    /// All are there, and want the same.
    fn prepare(&mut self) {
        let Some(token) = self.begin.clone() else { return };
        let mut voters: Members = [self.own.clone()].into_iter().collect();
        let mut trouble = None;
        for (node, report) in self.others() {
            let (member, theirs) = match report {
                None | Some(Report::Started { .. }) => return,
                Some(Report::Blank { token: None, .. }) => return,
                Some(Report::Blank { member, token: Some(token) }) => (member, token),
                Some(Report::Prepared { member, plan }) => (member, &plan.token),
            };
            if *theirs != token {
                trouble =
                    Some(format!("node {node} begins a cluster with the token {theirs:?}, and this one {token:?}"));
            } else if !voters.insert(member.clone()) {
                trouble = Some(format!("node {node} has the identity of another node's directory; was it copied?"));
            }
        }
        if let Some(why) = trouble {
            return self.stuck(why);
        }
        let plan = Plan { token, voters };
        let differs = |report: &Report| matches!(report, Report::Prepared { plan: theirs, .. } if *theirs != plan);
        if let Some(node) = self.heard.iter().find(|(_, report)| differs(report)).map(|(node, _)| *node) {
            return self.stuck(format!(
                "node {node} has prepared to begin a cluster with other voters or directories; begin anew with an empty \
                 directory there"
            ));
        }
        self.effects.push_back(FirstEffect::Persist { value: plan.to_bytes().into() });
        self.phase = Phase::Writing(plan);
    }

    /// Written here; written everywhere?
    fn compare(&mut self, plan: Plan) {
        let mut all = true;
        let mut trouble = None;
        for member in plan.voters.iter().filter(|member| member.id() != self.own.id()) {
            let node = member.node();
            match self.heard.get(&node) {
                Some(Report::Prepared { plan: theirs, .. }) if *theirs == plan => continue,
                Some(Report::Prepared { .. }) => {
                    trouble = Some(format!("node {node} has prepared to begin another cluster than this node"));
                }
                Some(Report::Blank { member: theirs, .. }) if theirs.id() != member.id() => {
                    trouble = Some(format!(
                        "node {node} has another directory than when this node prepared to begin a cluster with it; \
                         begin anew with an empty directory here"
                    ));
                }
                Some(Report::Blank { .. } | Report::Started { .. }) | None => {}
            }
            all = false;
        }
        match trouble {
            Some(why) => self.stuck(why),
            None if all && self.is_in(&plan) => self.begin_with(plan),
            None => {}
        }
    }

    fn is_in(&self, plan: &Plan) -> bool {
        plan.voters.get(self.own.id()).is_some_and(|member| member.node() == self.own.node())
    }

    fn stuck(&mut self, why: String) {
        if self.stuck.as_ref() != Some(&why) {
            self.stuck = Some(why.clone());
            self.effects.push_back(FirstEffect::Stuck { why });
        }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PlanRecord {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(bytes = "vec", tag = "2")]
    voters: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ReportRecord {
    #[prost(bytes = "vec", tag = "1")]
    member: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    token: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    plan: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    members: Option<Vec<u8>>,
}

impl Plan {
    pub fn to_bytes(&self) -> Vec<u8> {
        PlanRecord { token: self.token.clone(), voters: self.voters.to_bytes() }.encode_to_vec()
    }

    /// `None` for bytes that are no plan.
    pub fn from_bytes(bytes: &[u8]) -> Option<Plan> {
        let record = PlanRecord::decode(bytes).ok()?;
        let voters = Members::from_bytes(&record.voters)?;
        (!voters.is_empty()).then_some(Plan { token: record.token, voters })
    }
}

impl Report {
    pub fn member(&self) -> &Member {
        match self {
            Report::Blank { member, .. } | Report::Prepared { member, .. } | Report::Started { member, .. } => member,
        }
    }

    /// As the body of an answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut record = ReportRecord { member: self.member().to_bytes(), token: None, plan: None, members: None };
        match self {
            Report::Blank { token, .. } => record.token = token.clone(),
            Report::Prepared { plan, .. } => record.plan = Some(plan.to_bytes()),
            Report::Started { members, .. } => record.members = Some(members.to_bytes()),
        }
        record.encode_to_vec()
    }

    /// `None` for bytes that are no report.
    pub fn from_bytes(bytes: &[u8]) -> Option<Report> {
        let record = ReportRecord::decode(bytes).ok()?;
        let member = Member::from_bytes(&record.member)?;
        match (record.plan, record.members) {
            (None, None) => Some(Report::Blank { member, token: record.token }),
            (Some(plan), None) => Some(Report::Prepared { member, plan: Plan::from_bytes(&plan)? }),
            (None, Some(members)) => Some(Report::Started { member, members: Members::from_bytes(&members)? }),
            (Some(_), Some(_)) => None,
        }
    }
}

/// Draws directory identities until one makes a Raft id: all but one in 2⁶⁴ do.
pub fn directory_id(mut draw: impl FnMut() -> [u8; 16]) -> [u8; 16] {
    loop {
        let id = draw();
        if RaftId::of(&id).is_some() {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
