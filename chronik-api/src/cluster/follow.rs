//! From the thread of the metadata to those who act on its changes.
//!
//! Acting takes as long as it takes: logs are opened and cut. So it happens in a task among those that serve clients, one
//! step after the other, and the metadata goes on meanwhile. **Bounded**: where the task is behind, steps are put together
//! into one, whose image is the newest.

use crate::metadata::Applied;
use crate::metadata::writer::{Outcome, Proposal};
use chronik_core::metadata::{Change, Delta, Image};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Steps that may wait apart.
const STEPS_MAX: usize = 256;

/// A change, and who waits for it to be acted on.
pub struct Step {
    pub image: Arc<Image>,
    pub delta: Delta,
    pub answers: Vec<(Box<dyn Proposal>, Outcome)>,
}

enum Item {
    Step(Step),
    Listen(Arc<dyn Applied>, oneshot::Sender<()>),
}

/// Where steps are handed in.
pub struct Steps {
    items: mpsc::Sender<Item>,
    behind: Option<Step>,
    images: watch::Receiver<Arc<Image>>,
}

/// The task's end.
pub struct Follow {
    items: mpsc::Receiver<Item>,
    publish: watch::Sender<Arc<Image>>,
}

/// Both ends, before anything is known.
pub fn steps(image: Arc<Image>) -> (Steps, Follow, watch::Receiver<Arc<Image>>) {
    let (sender, items) = mpsc::channel(STEPS_MAX);
    let (publish, images) = watch::channel(image);
    let steps = Steps { items: sender, behind: None, images: images.clone() };
    (steps, Follow { items, publish }, images)
}

impl Steps {
    pub fn push(&mut self, step: Step) {
        match &mut self.behind {
            Some(behind) => {
                behind.image = step.image;
                behind.delta.changes.extend(step.delta.changes);
                behind.answers.extend(step.answers);
            }
            None => self.behind = Some(step),
        }
        self.flush();
    }

    /// Hands in what could not be before.
    pub fn flush(&mut self) {
        let Some(step) = self.behind.take() else { return };
        match self.items.try_send(Item::Step(step)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(Item::Step(step))) => self.behind = Some(step),
            // The broker is stopping: nobody acts any more.
            Err(_) => {}
        }
    }

    /// From now on `listener` hears of every change.
    pub fn listen(&self, listener: Arc<dyn Applied>, reply: oneshot::Sender<()>) {
        // Listeners come when the broker starts; there is room then, or whoever asks hears that there is not.
        let _ = self.items.try_send(Item::Listen(listener, reply));
    }

    /// As acted on.
    pub fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }
}

impl Follow {
    /// Until the metadata ends.
    pub async fn run(mut self) {
        let mut listeners: Vec<Arc<dyn Applied>> = Vec::new();
        while let Some(item) = self.items.recv().await {
            match item {
                Item::Listen(listener, reply) => {
                    let image = self.publish.borrow().clone();
                    listener.begin(&image).await;
                    listeners.push(listener);
                    let _ = reply.send(());
                }
                Item::Step(Step { image, delta, answers }) => {
                    if !delta.changes.is_empty() {
                        for listener in &listeners {
                            listener.applied(&image, &delta).await;
                        }
                    }
                    self.publish.send_replace(image);
                    answers.into_iter().for_each(|(proposal, outcome)| proposal.answer(outcome));
                }
            }
        }
    }
}

/// What turns one image into another that did not come from it step by step.
pub fn difference(before: &Image, after: &Image) -> Delta {
    let mut changes = Vec::new();
    let topics = |image: &Image| image.topics().map(|topic| (topic.id, topic.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (topics(before), topics(after));
    for (id, topic) in &old {
        if !new.contains_key(id) {
            changes.push(Change::TopicDeleted(topic.clone()));
        }
    }
    for (id, topic) in &new {
        let known = old.get(id).map_or(0, |known| known.partitions.len());
        if known == 0 {
            changes.push(Change::TopicCreated(*id));
        }
        for partition in 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) {
            let topic = *id;
            changes.push(if (partition as usize) < known {
                Change::PartitionChanged { topic, partition }
            } else {
                Change::PartitionAdded { topic, partition }
            });
        }
        changes.push(Change::TopicConfig(*id));
    }
    changes.extend(after.brokers().keys().map(|node| Change::BrokerRegistered(*node)));
    let gone = before.brokers().iter().filter(|(node, _)| after.broker(**node).is_none());
    changes.extend(gone.map(|(_, broker)| Change::BrokerUnregistered(broker.clone())));
    changes.extend([Change::Cluster, Change::Features, Change::BrokerConfig, Change::ProducerIds]);
    Delta { changes }
}
