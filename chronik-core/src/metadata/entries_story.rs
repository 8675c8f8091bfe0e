//! Stories of entries: several records that share one place in the log, and take effect together or not at all.

use super::image::{ClusterDefaults, Image};
use super::records::*;
use super::{ApplyError, Change, Delta, Entry, Stale};
use crate::ids::{LeaderEpoch, NodeId, Offset};

const TERM: LeaderEpoch = LeaderEpoch(3);

/// Brokers 1 and 2, registered by the entry at 7.
fn image() -> Image {
    let mut image = Image::empty(ClusterDefaults::default());
    let level = FeatureLevelRecord { name: METADATA_VERSION.into(), level: 30, features_epoch: None };
    let records = [Record::FeatureLevel(level), registration(1), registration(2)];
    assert_eq!(image.apply_entry(Offset(7), TERM, &records, &mut Delta::default()), Ok(Entry::Applied));
    image
}

fn registration(node_id: i32) -> Record {
    let identity = vec![node_id as u8; 16];
    Record::RegisterBroker(RegisterBrokerRecord {
        node_id,
        incarnation: identity.clone(),
        directory_id: identity,
        fenced: true,
        replication_address: Some(format!("b{node_id}:9192")),
        features: vec![FeatureRangeRecord { name: METADATA_VERSION.into(), min: 30, max: 30 }],
        ..RegisterBrokerRecord::default()
    })
}

fn request(broker_epoch: i64, seq: i64) -> Record {
    Record::Request(RequestRecord { node_id: 1, broker_epoch, seq })
}

fn ids(next: i64) -> Record {
    Record::ProducerIds(ProducerIdsRecord { next })
}

#[test]
fn records_of_an_entry_share_its_index() {
    let mut image = image();
    assert_eq!(image.brokers().values().map(|broker| broker.epoch).collect::<Vec<_>>(), [Offset(7), Offset(7)]);
    assert_eq!((image.position().next, image.position().epoch), (Offset(8), TERM));
    let mut delta = Delta::default();
    assert_eq!(image.apply_entry(Offset(8), LeaderEpoch(4), &[], &mut delta), Ok(Entry::Applied));
    assert_eq!((image.position().next, image.position().epoch), (Offset(9), LeaderEpoch(4)));
    let early = image.apply_entry(Offset(8), TERM, &[], &mut delta);
    assert_eq!(early, Err(ApplyError::OutOfOrder { offset: Offset(8), next: Offset(9) }));
    let again = image.apply_entry(Offset(9), TERM, &[registration(1), registration(1)], &mut delta);
    assert!(matches!(again, Err(ApplyError::BrokerEpochFell { .. })), "one epoch, two processes");
    assert_eq!(delta, Delta::default());
}

#[test]
fn a_request_takes_effect_once_however_often_it_is_written() {
    let mut image = image();
    let mut delta = Delta::default();
    let mut write = |image: &mut Image, records: &[Record]| {
        let index = image.position().next;
        image.apply_entry(index, TERM, records, &mut delta).expect("it makes sense")
    };
    let node = NodeId(1);
    assert_eq!(write(&mut image, &[request(7, 1), ids(1_000)]), Entry::Applied);
    let decided = Stale::Decided { node, seq: 1, last: 1 };
    assert_eq!(write(&mut image, &[request(7, 1), ids(2_000)]), Entry::Discarded(decided));
    assert_eq!(image.next_producer_id(), 1_000, "what came with it did not happen either");
    assert_eq!(image.position().next, Offset(10), "the log goes on after it");
    assert_eq!(write(&mut image, &[ids(3_000), request(7, 1)]), Entry::Discarded(decided), "wherever it stands");
    assert_eq!(image.next_producer_id(), 1_000);
    let other = Stale::OtherEpoch { node, asked: Offset(6) };
    assert_eq!(write(&mut image, &[request(6, 2)]), Entry::Discarded(other), "of the process before");

    let restored = image.to_records();
    let mut from_snapshot = Image::empty(ClusterDefaults::default());
    assert_eq!(write(&mut from_snapshot, &restored), Entry::Applied);
    assert!(from_snapshot.says_the_same_as(&image));
    assert_eq!(write(&mut from_snapshot, &[request(7, 1)]), Entry::Discarded(decided), "a snapshot remembers");

    assert_eq!(write(&mut image, &[registration(1)]), Entry::Applied);
    assert_eq!(write(&mut image, &[request(12, 1)]), Entry::Applied, "a new process counts anew");
}

#[test]
fn what_a_broker_is_fit_for_belongs_to_its_registration() {
    let mut image = image();
    let state = |broker_epoch, fenced| {
        let offline = vec![LogRecord { topic_id: vec![5; 16], partition: 0 }];
        Record::BrokerState(BrokerStateRecord {
            node_id: 1,
            broker_epoch,
            fenced,
            in_controlled_shutdown: true,
            offline,
        })
    };
    let mut delta = Delta::default();
    assert!(image.broker(NodeId(1)).expect("registered").fenced);
    image.apply_entry(Offset(8), TERM, &[state(7, false)], &mut delta).expect("it makes sense");
    assert_eq!(delta.changes, [Change::BrokerState(NodeId(1))]);
    let broker = image.broker(NodeId(1)).expect("registered");
    assert!(!broker.fenced && !broker.is_active());
    assert!(!broker.serves(broker.offline[0]) && broker.serves(Default::default()));
    let restored = image.to_records();
    let mut from_snapshot = Image::empty(ClusterDefaults::default());
    from_snapshot.apply_entry(Offset(8), TERM, &restored, &mut delta).expect("it makes sense");
    assert_eq!(from_snapshot, image);

    image.apply_entry(Offset(9), TERM, &[registration(1)], &mut delta).expect("it makes sense");
    let late = image.apply_entry(Offset(10), TERM, &[state(7, false)], &mut delta);
    assert!(matches!(late, Ok(Entry::Discarded(Stale::OtherEpoch { .. }))), "said of the process before");
    let broker = image.broker(NodeId(1)).expect("registered");
    assert!(broker.fenced && broker.offline.is_empty());

    let gone = BrokerUnregisteredRecord { node_id: 1, broker_epoch: 9 };
    delta.changes.clear();
    image.apply_entry(Offset(11), TERM, &[Record::BrokerUnregistered(gone)], &mut delta).expect("it makes sense");
    assert!(image.broker(NodeId(1)).is_none());
    assert!(matches!(&delta.changes[..], [Change::BrokerUnregistered(broker)] if broker.id == NodeId(1)));
}

#[test]
fn what_another_term_decided_is_not_carried_out() {
    let mut image = image();
    let mut delta = Delta::default();
    let facts = Facts { term: 4, records: vec![ids(1_000)] };
    let late = Entry::Discarded(Stale::OtherTerm { decided: 4, written: 5 });
    assert_eq!(image.apply_facts(Offset(8), 5, &facts, &mut delta), Ok(late));
    assert_eq!((image.next_producer_id(), image.position().next), (0, Offset(9)));
    let facts = Facts { term: 5, ..facts };
    assert_eq!(image.apply_facts(Offset(9), 5, &facts, &mut delta), Ok(Entry::Applied));
    assert_eq!((image.next_producer_id(), image.position().epoch), (1_000, LeaderEpoch(5)));
}
