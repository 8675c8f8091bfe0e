//! From a request that makes records to what is to be written, and answered once it is.
//!
//! The other kinds make none by themselves: a heartbeat is for [`super::super::controller::Liveness`], what is handed on from
//! a client is for whoever understands clients, and who votes is [`super::super::raft`]'s.

use super::{Answer, Refusal, Request};
use crate::ids::{NodeId, Offset};
use crate::metadata::controller::{
    self, AdmitError, AlterPartitionError, Decision, HeartbeatError, Registration, admit_broker, registered_epoch,
};
use crate::metadata::image::Image;
use std::cmp::Ordering;

/// What to answer once the records of the decision, and those before it, are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer(Answer),
    /// With the epoch that the applied image gives to this process.
    Registered {
        node: NodeId,
        incarnation: [u8; 16],
    },
}

impl Outcome {
    pub fn answer(self, applied: &Image) -> Answer {
        match self {
            Outcome::Answer(answer) => answer,
            Outcome::Registered { node, incarnation } => match registered_epoch(applied, node, incarnation) {
                Some(broker_epoch) => Answer::Registered { broker_epoch },
                // A later process of the node has registered in the meantime.
                None => Answer::Refused(Refusal::StaleBrokerEpoch),
            },
        }
    }
}

impl Request {
    /// Decides for the broker that asks. `None`: this kind makes no records.
    pub fn decide(&self, image: &Image, from: NodeId) -> Option<Result<Decision<Outcome>, Refusal>> {
        match self {
            Request::Register(registration) => Some(register(image, from, registration)),
            Request::AlterPartitions(asked) => {
                let decided = controller::alter_partitions(image, from, asked).map_err(Refusal::from);
                Some(decided.map(|Decision { records, reply }| {
                    Decision::new(records, Outcome::Answer(Answer::AlterPartitions(reply)))
                }))
            }
            Request::AllocateProducerIds { broker_epoch } => Some(allocate(image, from, *broker_epoch)),
            Request::Heartbeat(_) | Request::Forward { .. } | Request::Voter(_) => None,
        }
    }
}

fn register(image: &Image, from: NodeId, registration: &Registration) -> Result<Decision<Outcome>, Refusal> {
    if registration.node != from {
        let why = format!("node {from} cannot register as broker {}", registration.node);
        return Err(Refusal::Invalid(why));
    }
    let decision = admit_broker(image, registration)?;
    let outcome = Outcome::Registered { node: from, incarnation: registration.incarnation };
    Ok(Decision::new(decision.records, outcome))
}

fn allocate(image: &Image, from: NodeId, broker_epoch: Offset) -> Result<Decision<Outcome>, Refusal> {
    let broker = image.broker(from).ok_or(Refusal::NotRegistered)?;
    match broker.epoch.cmp(&broker_epoch) {
        Ordering::Greater => return Err(Refusal::StaleBrokerEpoch),
        Ordering::Less => return Err(Refusal::NotController { leader: None }),
        Ordering::Equal => {}
    }
    let Decision { records, reply } =
        controller::reserve_producer_ids(image).map_err(|_| Refusal::ProducerIdsExhausted)?;
    Ok(Decision::new(records, Outcome::Answer(Answer::ProducerIds(reply))))
}

impl From<AdmitError> for Refusal {
    fn from(why: AdmitError) -> Self {
        match why {
            AdmitError::RegisteredSince { present } => Refusal::RegisteredSince { present },
            AdmitError::Duplicate(_) | AdmitError::UnsupportedVersion { .. } => Refusal::NotAdmitted(why.to_string()),
        }
    }
}

impl From<AlterPartitionError> for Refusal {
    /// Of a whole request.
    fn from(why: AlterPartitionError) -> Self {
        match why {
            AlterPartitionError::StaleBrokerEpoch => Refusal::StaleBrokerEpoch,
            AlterPartitionError::UnknownBrokerEpoch => Refusal::NotController { leader: None },
            AlterPartitionError::Decided => Refusal::Decided,
            of_one_partition => Refusal::Invalid(of_one_partition.to_string()),
        }
    }
}

impl From<HeartbeatError> for Refusal {
    fn from(why: HeartbeatError) -> Self {
        match why {
            HeartbeatError::NotRegistered => Refusal::NotRegistered,
            HeartbeatError::StaleBrokerEpoch { .. } => Refusal::StaleBrokerEpoch,
            HeartbeatError::UnknownBrokerEpoch { .. } => Refusal::NotController { leader: None },
            HeartbeatError::TooManyOffline(_) => Refusal::Invalid(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaderEpoch;
    use crate::metadata::controller::{
        AlterPartitions, FirstStart, Heartbeat, Liveness, Lost, SESSION_DEFAULT, bootstrap, supported_features,
    };
    use crate::metadata::{ClusterDefaults, Delta};
    use crate::time::Monotonic;

    const ME: NodeId = NodeId(1);

    fn image() -> Image {
        let mut image = Image::empty(ClusterDefaults::default());
        let first = bootstrap(&image, FirstStart { cluster_id: [1; 16] });
        image.apply_entry(Offset(3), LeaderEpoch(1), &first.records, &mut Delta::default()).expect("the first");
        image
    }

    fn registration(incarnation: u8, after: Option<Offset>) -> Request {
        Request::Register(Registration {
            node: ME,
            incarnation: [incarnation; 16],
            directory_id: [1; 16],
            rack: None,
            listeners: Vec::new(),
            clean: true,
            lost: Lost::NOTHING,
            replication_address: None,
            features: supported_features(),
            after,
        })
    }

    fn carry_out(image: &mut Image, request: &Request) -> Result<Answer, Refusal> {
        let Decision { records, reply } = request.decide(image, ME).expect("it makes records")?;
        let index = image.position().next + 4;
        image.apply_entry(index, LeaderEpoch(1), &records, &mut Delta::default()).expect("it makes sense");
        Ok(reply.answer(image))
    }

    #[test]
    fn a_process_learns_its_epoch_however_often_it_asks_and_its_successor_ends_it() {
        let mut image = image();
        let broker_epoch = Offset(8);
        let (first, second) = (registration(1, None), registration(2, Some(broker_epoch)));
        assert_eq!(carry_out(&mut image, &first), Ok(Answer::Registered { broker_epoch }));
        assert_eq!(carry_out(&mut image, &first), Ok(Answer::Registered { broker_epoch }));
        let ids = Request::AllocateProducerIds { broker_epoch };
        assert!(matches!(carry_out(&mut image, &ids), Ok(Answer::ProducerIds(block)) if block.first.0 == 0));
        let before = first.decide(&image, ME).expect("it makes records").expect("decided").reply;
        let not_after = Err(Refusal::RegisteredSince { present: Some(broker_epoch) });
        assert_eq!(carry_out(&mut image, &registration(2, None)), not_after, "it asks again, after that one");
        let next = carry_out(&mut image, &second);
        assert!(matches!(next, Ok(Answer::Registered { broker_epoch }) if broker_epoch > Offset(8)));
        assert_eq!(before.answer(&image), Answer::Refused(Refusal::StaleBrokerEpoch));
        assert_eq!(carry_out(&mut image, &ids), Err(Refusal::StaleBrokerEpoch));
        let asked = AlterPartitions { broker_epoch, seq: 1, partitions: Vec::new() };
        assert_eq!(carry_out(&mut image, &Request::AlterPartitions(asked)), Err(Refusal::StaleBrokerEpoch));
    }

    #[test]
    fn who_does_not_know_of_a_registration_yet_refuses_as_one_that_controls_no_more() {
        let mut image = image();
        let broker_epoch = Offset(8);
        assert_eq!(carry_out(&mut image, &registration(1, None)), Ok(Answer::Registered { broker_epoch }));
        // The broker has started anew since, and this image has not come so far.
        let (broker_epoch, refused) = (Offset(20), Err(Refusal::NotController { leader: None }));
        let ids = Request::AllocateProducerIds { broker_epoch };
        assert_eq!(carry_out(&mut image, &ids), refused);
        let asked = AlterPartitions { broker_epoch, seq: 1, partitions: Vec::new() };
        assert_eq!(carry_out(&mut image, &Request::AlterPartitions(asked)), refused);
        let now = Monotonic::default();
        let mut liveness = Liveness::new(now, SESSION_DEFAULT, &image, None);
        let heartbeat = Heartbeat { broker_epoch, ..Heartbeat::default() };
        let heard = liveness.heartbeat(now, ME, heartbeat, &image).map_err(Refusal::from);
        assert_eq!(heard, Err(Refusal::NotController { leader: None }));
    }

    #[test]
    fn nobody_registers_as_another() {
        let refused = registration(1, None).decide(&image(), NodeId(2)).expect("it makes records");
        assert!(matches!(refused, Err(Refusal::Invalid(_))));
        assert_eq!(
            carry_out(&mut image(), &Request::AllocateProducerIds { broker_epoch: Offset(3) }),
            Err(Refusal::NotRegistered)
        );
    }
}
