//! Kafka's messages: every API, in every version, both ways, and the headers before them.
//!
//! Two bytes choose the API and the version, and what the rest is taken for: a request's body, a response's, a request's
//! frame or a response's. What is decoded is encoded again; that must decode to an equal message and encode to the same
//! bytes. Besides the APIs: what consumers embed in group requests, and what other brokers write into `__consumer_offsets`.

use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_proto_kafka::api::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use chronik_proto_kafka::api::offsets_topic::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{
    DecodeError, Decoder, Message, Request, RequestHeader, decode_request, decode_response, encode_request,
    encode_response, in_memory,
};

/// Bytes that choose, before those that are decoded.
const CHOICE_BYTES: usize = 2;

/// See the module's head.
pub struct Messages;

/// One message in one version.
struct Shape {
    version: i16,
    /// Not embedded in others.
    is_api: bool,
    feed: fn(i16, Way, Bytes) -> Result<usize, DecodeError>,
    seed: fn(i16, Way) -> Vec<u8>,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Way {
    Request,
    Response,
    RequestFrame,
    ResponseFrame,
}

impl Way {
    const ALL: [Way; 4] = [Way::Request, Way::Response, Way::RequestFrame, Way::ResponseFrame];
}

/// Encodes what was decoded, and looks whether it is still the same; gives its size.
fn same_again<M: Message + PartialEq + std::fmt::Debug>(message: &M, version: i16) -> usize {
    let encoded = message.to_bytes(version);
    let again = match M::decode(&mut Decoder::new(encoded.clone()), version) {
        Ok(again) => again,
        Err(error) => panic!("{message:?} in version {version} cannot be read again: {error}"),
    };
    // A message that differs from itself holds a number that is none; its bytes are compared all the same.
    #[allow(clippy::eq_op)]
    let is_no_number = *message != *message;
    assert!(again == *message || is_no_number, "version {version}: {message:?} was read again as {again:?}");
    assert_eq!(again.to_bytes(version), encoded, "version {version} of {message:?} is written in two ways");
    encoded.len()
}

fn feed_message<M: Message + PartialEq + std::fmt::Debug>(version: i16, body: Bytes) -> Result<usize, DecodeError> {
    let message = M::decode(&mut Decoder::new(body), version)?;
    Ok(same_again(&message, version))
}

fn feed_api<R>(version: i16, way: Way, bytes: Bytes) -> Result<usize, DecodeError>
where
    R: Request + PartialEq + std::fmt::Debug,
    R::Response: PartialEq + std::fmt::Debug,
{
    match way {
        Way::Request => feed_message::<R>(version, bytes),
        Way::Response => feed_message::<R::Response>(version, bytes),
        Way::RequestFrame => {
            let mut input = Decoder::new(bytes);
            RequestHeader::decode(&mut input)?;
            decode_request::<R>(&mut input, version).map(|request| same_again(&request, version))
        }
        Way::ResponseFrame => decode_response::<R>(bytes, version).map(|(_, response)| same_again(&response, version)),
    }
}

fn seed_api<R: Request>(version: i16, way: Way) -> Vec<u8> {
    let frame = |rope: chronik_proto_kafka::encode::Rope| rope.concat().split_off(size_of::<i32>());
    match way {
        Way::Request => R::default().to_bytes(version).into(),
        Way::Response => R::Response::default().to_bytes(version).into(),
        Way::RequestFrame => frame(encode_request(&R::default(), version, 7, Some("fuzz"))),
        Way::ResponseFrame => {
            frame(in_memory(encode_response::<R>(7, version, &R::Response::default())).expect("nothing in files"))
        }
    }
}

fn feed_embedded<M: Message + PartialEq + std::fmt::Debug>(
    version: i16,
    _: Way,
    bytes: Bytes,
) -> Result<usize, DecodeError> {
    feed_message::<M>(version, bytes)
}

fn seed_embedded<M: Message>(version: i16, _: Way) -> Vec<u8> {
    M::default().to_bytes(version).into()
}

macro_rules! shapes {
    (apis $($module:ident::$request:ident)*; embedded $($message:ident $versions:expr;)*) => {
        /// All there are: the APIs' versions, then what is embedded in others.
        fn shapes() -> &'static [Shape] {
            static SHAPES: std::sync::OnceLock<Vec<Shape>> = std::sync::OnceLock::new();
            SHAPES.get_or_init(|| {
                let mut shapes = Vec::new();
                $(for version in $module::$request::VERSIONS {
                    shapes.push(Shape {
                        version,
                        is_api: true,
                        feed: feed_api::<$module::$request>,
                        seed: seed_api::<$module::$request>,
                    });
                })*
                $(for version in $versions {
                    let (feed, seed) = (feed_embedded::<$message>, seed_embedded::<$message>);
                    shapes.push(Shape { version, is_api: false, feed, seed });
                })*
                shapes
            })
        }
    };
}

shapes! {
    apis
        add_raft_voter::AddRaftVoterRequest alter_client_quotas::AlterClientQuotasRequest
        alter_configs::AlterConfigsRequest alter_partition_reassignments::AlterPartitionReassignmentsRequest
        alter_replica_log_dirs::AlterReplicaLogDirsRequest api_versions::ApiVersionsRequest
        create_acls::CreateAclsRequest create_partitions::CreatePartitionsRequest create_topics::CreateTopicsRequest
        delete_acls::DeleteAclsRequest delete_groups::DeleteGroupsRequest delete_records::DeleteRecordsRequest
        delete_topics::DeleteTopicsRequest describe_acls::DescribeAclsRequest
        describe_client_quotas::DescribeClientQuotasRequest describe_cluster::DescribeClusterRequest
        describe_configs::DescribeConfigsRequest describe_groups::DescribeGroupsRequest
        describe_log_dirs::DescribeLogDirsRequest describe_producers::DescribeProducersRequest
        describe_quorum::DescribeQuorumRequest describe_topic_partitions::DescribeTopicPartitionsRequest
        elect_leaders::ElectLeadersRequest fetch::FetchRequest find_coordinator::FindCoordinatorRequest
        heartbeat::HeartbeatRequest incremental_alter_configs::IncrementalAlterConfigsRequest
        init_producer_id::InitProducerIdRequest join_group::JoinGroupRequest leave_group::LeaveGroupRequest
        list_config_resources::ListConfigResourcesRequest list_groups::ListGroupsRequest
        list_offsets::ListOffsetsRequest list_partition_reassignments::ListPartitionReassignmentsRequest
        metadata::MetadataRequest offset_commit::OffsetCommitRequest offset_delete::OffsetDeleteRequest
        offset_fetch::OffsetFetchRequest offset_for_leader_epoch::OffsetForLeaderEpochRequest
        produce::ProduceRequest remove_raft_voter::RemoveRaftVoterRequest sync_group::SyncGroupRequest
        unregister_broker::UnregisterBrokerRequest update_features::UpdateFeaturesRequest;
    embedded
        ConsumerProtocolSubscription 0..=3;
        ConsumerProtocolAssignment 0..=3;
        OffsetCommitKey 0..=1;
        OffsetCommitValue 0..=4;
        GroupMetadataKey 2..=2;
        GroupMetadataValue 0..=4;
}

/// Every API's request in every version, as a client frames it: with nothing in it.
pub(super) fn request_frames() -> impl Iterator<Item = Vec<u8>> {
    shapes().iter().filter(|shape| shape.is_api).map(|shape| {
        // What the shape gives is without the length before it.
        let body = (shape.seed)(shape.version, Way::RequestFrame);
        [&(body.len() as i32).to_be_bytes(), body.as_slice()].concat()
    })
}

/// The first two bytes say which shape, in ten bits and more, and which way, in the upper ones of the first.
fn choose(choice: [u8; CHOICE_BYTES]) -> (usize, Way) {
    let way = Way::ALL[usize::from(choice[0] >> 6)];
    let number = usize::from(u16::from_be_bytes([choice[0] & 0x3f, choice[1]]));
    (number % shapes().len(), way)
}

impl Target for Messages {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for (index, shape) in shapes().iter().enumerate() {
            for (number, way) in (0u8..).zip(Way::ALL) {
                let [high, low] = (index as u16).to_be_bytes();
                let mut seed = vec![number << 6 | high, low];
                seed.extend((shape.seed)(shape.version, way));
                seeds.push(seed);
            }
        }
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((choice, body)) = input.split_first_chunk::<CHOICE_BYTES>() else {
            return Seen::refused("short", None);
        };
        let (index, way) = choose(*choice);
        let shape = &shapes()[index];
        match (shape.feed)(shape.version, way, Bytes::copy_from_slice(body)) {
            Ok(size) => Seen::taken((index, way, about(size))),
            Err(error) => {
                // Where it ends tells most; beyond the first fields nearly the same place is the same place.
                let at = if error.at < 32 { error.at } else { 32 + error.at.ilog2() as usize };
                let mark = (index, way, std::mem::discriminant(&error.what), at);
                Seen::refused(mark, Some(CHOICE_BYTES + error.at))
            }
        }
    }
}
