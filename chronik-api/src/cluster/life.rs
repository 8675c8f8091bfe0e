//! A broker's life in the cluster: it registers, is heard of, and asks to be let go.

use super::asks::{Asks, NoAnswer};
use crate::clock::Clock;
use crate::metadata::MetadataLog;
use crate::partitions::PartitionTable;
use chronik_core::ids::{NodeId, Offset};
use chronik_core::metadata::controller::{self, Heartbeat, Registration};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long one question may take, before the log says that it is still asked.
const ASK_FOR: Duration = Duration::from_secs(10);
/// A registration that is refused because the process before still counts as alive is tried again so often.
const AGAIN: Duration = Duration::from_millis(300);

/// Why a broker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    #[error("the controller does not take this broker in: {0}")]
    NotAdmitted(String),
    #[error("another process has registered as node {0}: two of them have the same node.id")]
    Replaced(NodeId),
}

/// Registers this process, however long that takes; gives its broker epoch, once this node's image has it.
pub async fn register(
    asks: &Asks,
    metadata: &MetadataLog,
    mut registration: Registration,
) -> Result<Offset, LifeError> {
    let (node, incarnation) = (registration.node, registration.incarnation);
    let mut told = false;
    loop {
        let request = Request::Register(registration.clone());
        match asks.ask(&request, ASK_FOR).await {
            Ok(Answer::Registered { broker_epoch }) => {
                let mut images = metadata.subscribe();
                let here = images
                    .wait_for(|image| controller::registered_epoch(image, node, incarnation) == Some(broker_epoch));
                if here.await.is_ok() {
                    return Ok(broker_epoch);
                }
            }
            Ok(Answer::Refused(Refusal::NotAdmitted(why))) => {
                // The process before may have been killed a moment ago, with another directory.
                if told {
                    tracing::debug!("not admitted yet: {why}");
                } else {
                    tracing::warn!("the controller does not take this broker in yet: {why}");
                }
                told = true;
                tokio::time::sleep(AGAIN).await;
            }
            Ok(Answer::Refused(Refusal::RegisteredSince { present })) => {
                // A process before, whose registration this node's metadata did not have yet, or whose request came last.
                let is_news = present > registration.after;
                registration.after = present;
                if !is_news {
                    // Said by one that knows less than another has said before: it will not control for long.
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Ok(Answer::Refused(Refusal::Invalid(why))) => return Err(LifeError::NotAdmitted(why)),
            Ok(_) => tokio::time::sleep(AGAIN).await,
            Err(NoAnswer::NoController | NoAnswer::TimedOut) => {
                tracing::warn!("there is no controller to register with yet; is a majority of the voters up?");
            }
        }
    }
}

/// What a broker says of itself, and what it is told.
pub struct Heart {
    pub asks: Arc<Asks>,
    pub metadata: MetadataLog,
    pub partitions: Arc<PartitionTable>,
    pub clock: Clock,
    pub node: NodeId,
    pub broker_epoch: Offset,
    pub every: Duration,
    /// The broker wants to stop.
    pub wants_shutdown: watch::Receiver<bool>,
    /// It may.
    pub may_stop: watch::Sender<bool>,
}

impl Heart {
    /// Beats for ever, or until another process has taken this one's place.
    pub async fn beat(self) -> LifeError {
        let mut images = self.metadata.subscribe();
        let mut wants = self.wants_shutdown.clone();
        let mut fenced = true;
        loop {
            let heartbeat = Heartbeat {
                broker_epoch: self.broker_epoch,
                applied: images.borrow_and_update().position().next,
                offline: self.partitions.offline(),
                wants_shutdown: *wants.borrow_and_update(),
            };
            // One that is late says nothing that the next one would not say better.
            match self.asks.ask(&Request::Heartbeat(heartbeat), self.every.max(MIN_ASK)).await {
                Ok(Answer::Heartbeat(answer)) => {
                    if answer.fenced != fenced {
                        fenced = answer.fenced;
                        if fenced {
                            tracing::warn!("this broker is fenced: it leads nothing until it has caught up");
                        } else {
                            tracing::info!("this broker takes part");
                        }
                    }
                    if answer.may_stop {
                        self.may_stop.send_replace(true);
                    }
                }
                Ok(Answer::Refused(Refusal::StaleBrokerEpoch)) => return LifeError::Replaced(self.node),
                Ok(_) | Err(_) => {}
            }
            // A fenced broker is in a hurry: it is let in when it has applied what the controller waits for.
            let pause = if fenced { self.every / 10 } else { self.every };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = wants.changed() => {}
            }
        }
    }
}

/// The shortest time in which a heartbeat can be expected to be answered.
const MIN_ASK: Duration = Duration::from_millis(300);
