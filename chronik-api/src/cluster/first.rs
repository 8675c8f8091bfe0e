//! The first start of a node that is in no cluster yet: it begins one with all of its voters, or joins one that is there.

use super::disk::{Disk, DiskError};
use super::node::{ASK_CONTROLLER, ASK_WHO};
use crate::clock::Clock;
use bytes::Bytes;
use chronik_core::ids::NodeId;
use chronik_core::metadata::raft::{BadBootstrap, Bootstrap, FirstEffect, FirstInput, Found, Member, Members, Report};
use chronik_core::metadata::requests::{Answer, Refusal};
use chronik_core::raft_transport::{Event, Message, RaftTransport};
use chronik_link::raft::RaftLanes;
use tokio::sync::mpsc;

/// How a node comes into a cluster.
pub enum First {
    /// With these, who begin it.
    Begin(Members),
    /// It is there already.
    Join,
}

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    #[error(transparent)]
    Bad(#[from] BadBootstrap),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the transport has ended")]
    Ended,
}

/// What a node knows at its first start.
pub struct Beginning {
    pub own: Member,
    /// As configured.
    pub voters: Vec<NodeId>,
    /// The word for the occasion, if it is told to begin a cluster.
    pub begin: Option<String>,
    pub found: Found,
}

/// Returns when it is decided.
pub async fn start(
    clock: Clock,
    disk: &Disk,
    beginning: Beginning,
    transport: &RaftLanes,
    events: &mut mpsc::Receiver<Event>,
) -> Result<First, FirstError> {
    let Beginning { own, voters, begin, found } = beginning;
    match (&begin, &found) {
        (Some(_), Found::Blank) => tracing::info!("beginning a cluster, once all {} voters are there", voters.len()),
        (None, Found::Blank) => tracing::info!(
            "this node is in no cluster: it waits for one that exists; to begin one, start every voter with --bootstrap"
        ),
        (_, Found::Prepared(_)) => tracing::info!("this node has prepared to begin a cluster, and goes on with that"),
    }
    let mut machine = Bootstrap::new(clock.now().monotonic, own, voters, begin, found)?;
    loop {
        while let Some(effect) = machine.poll_effect() {
            match effect {
                FirstEffect::Ask { node } => {
                    transport.send(node, Message::Ask { number: 0, body: Bytes::from_static(&[ASK_WHO]) });
                }
                FirstEffect::Persist { value } => {
                    disk.prepare(value).await?;
                    machine.handle(clock.now().monotonic, FirstInput::Persisted);
                }
                FirstEffect::Begin { voters } => return Ok(First::Begin(voters)),
                FirstEffect::Join { .. } => return Ok(First::Join),
                FirstEffect::Stuck { why } => tracing::error!("the cluster cannot begin: {why}"),
            }
        }
        let deadline = clock.instant(machine.deadline());
        tokio::select! {
            event = events.recv() => match event.ok_or(FirstError::Ended)? {
                Event::Unreachable { .. } | Event::Gone { .. } => {}
                Event::Message { from, message } => heard(&mut machine, clock, transport, from, message),
            },
            () = tokio::time::sleep_until(deadline) => machine.handle(clock.now().monotonic, FirstInput::Tick),
        }
    }
}

fn heard(machine: &mut Bootstrap, clock: Clock, transport: &RaftLanes, from: NodeId, message: Message) {
    match message {
        Message::Ask { number, body } => {
            let answer = match body.first() {
                Some(&ASK_WHO) => [&[ASK_WHO], &machine.report().to_bytes()[..]].concat(),
                Some(&ASK_CONTROLLER) => {
                    let refused = Answer::Refused(Refusal::NotController { leader: None });
                    [&[ASK_CONTROLLER], &refused.to_bytes()[..]].concat()
                }
                _ => return,
            };
            transport.send(from, Message::Answer { number, body: answer.into() });
        }
        Message::Answer { body, .. } if body.first() == Some(&ASK_WHO) => {
            if let Some(report) = Report::from_bytes(&body[1..]) {
                machine.handle(clock.now().monotonic, FirstInput::Heard { from, report });
            }
        }
        // Of a group that this node takes no part in yet.
        Message::Answer { .. } | Message::Raft(_) => {}
    }
}
