//! Every API in every version, both ways, against the public `kafka-protocol` crate as the oracle.
//!
//! A message is drawn at random, encoded by us, decoded and encoded again by the oracle, and must come back byte for byte;
//! we decode that, and must get the message we drew. Then a byte of it is changed, and we and the oracle must agree on what
//! it is now. The versions that the oracle does not cover are named in the table below.

use crate::decode::Malformed;
use crate::encode::{Rope, in_memory};
use crate::message::{Message, Request};
use crate::wire::{Form, Records, Spec, Str, Uuid, Wire};
use crate::{
    DecodeError, Decoder, RequestHeader, api, decode_request, decode_response, encode_request, encode_response,
};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader as TheirRequestHeader, ResponseHeader as TheirResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};
use proptest::prelude::*;

/// A small generator (xorshift64*): the same seed draws the same message.
pub struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    fn bytes(&mut self) -> Bytes {
        // Now and then long enough to be spliced rather than copied.
        let len = if self.below(20) == 0 { 700 } else { self.below(12) };
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub trait Sample {
    fn sample(draw: &mut Draw, form: Form) -> Self;
}

pub trait SampleField {
    fn sample_field(draw: &mut Draw, form: Form, spec: Spec) -> Self;
}

impl<T: Sample + Wire> SampleField for T {
    fn sample_field(draw: &mut Draw, form: Form, _: Spec) -> Self {
        T::sample(draw, form)
    }
}

impl<T: Sample + Wire> SampleField for Option<T> {
    fn sample_field(draw: &mut Draw, form: Form, spec: Spec) -> Self {
        let null = spec.may_be_null(form.version) && draw.below(4) == 0;
        (!null).then(|| T::sample(draw, form))
    }
}

macro_rules! sample_number {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(draw: &mut Draw, _: Form) -> Self {
                draw.next() as $type
            }
        }
    )*};
}

sample_number!(i8, i16, u16, i32, u32, i64);

impl Sample for f64 {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        draw.next() as i32 as f64
    }
}

impl Sample for bool {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        draw.below(2) == 1
    }
}

impl Sample for Uuid {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        Uuid((u128::from(draw.next()) << 64 | u128::from(draw.next())).to_be_bytes())
    }
}

impl Sample for Str {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        let len = draw.below(9);
        (0..len).map(|_| ['a', 'Z', '7', '.', 'é', '☃'][draw.below(6) as usize]).collect::<String>().into()
    }
}

impl Sample for Bytes {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        draw.bytes()
    }
}

impl Sample for Records {
    fn sample(draw: &mut Draw, _: Form) -> Self {
        Records::from(draw.bytes())
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(draw: &mut Draw, form: Form) -> Self {
        let len = draw.below(4);
        (0..len).map(|_| T::sample(draw, form)).collect()
    }
}

fn read<M: Message>(bytes: Bytes, version: i16) -> Result<M, DecodeError> {
    M::decode(&mut Decoder::new(bytes), version)
}

/// What the oracle makes of the bytes, written again; `None` if it does not take them, or not all of them.
fn oracle_again<Theirs: Encodable + Decodable>(mut bytes: Bytes, version: i16) -> Option<Bytes> {
    let theirs = Theirs::decode(&mut bytes, version).ok().filter(|_| bytes.is_empty())?;
    let mut again = BytesMut::new();
    theirs.encode(&mut again, version).ok()?;
    Some(again.freeze())
}

/// A message comes back from its bytes; cut anywhere, they are an error and no panic.
fn check_alone<Ours>(seed: u64, version: i16) -> Result<Bytes, TestCaseError>
where
    Ours: Message + Sample + PartialEq + std::fmt::Debug,
{
    let drawn = Ours::sample(&mut Draw::new(seed), Ours::form(version));
    let bytes = drawn.to_bytes(version);
    prop_assert_eq!(read::<Ours>(bytes.clone(), version), Ok(drawn), "version {}", version);
    for at in 0..bytes.len().min(200) {
        prop_assert!(read::<Ours>(bytes.slice(..at), version).is_err(), "version {} cut at {}", version, at);
    }
    Ok(bytes)
}

/// One message in one version, also against the oracle; gives whether that covers it.
fn check<Ours, Theirs>(seed: u64, version: i16) -> Result<bool, TestCaseError>
where
    Ours: Message + Sample + PartialEq + std::fmt::Debug,
    Theirs: Encodable + Decodable + OracleMessage,
{
    let bytes = check_alone::<Ours>(seed, version)?;
    let covered = (Theirs::VERSIONS.min..=Theirs::VERSIONS.max).contains(&version);
    if covered {
        let again = oracle_again::<Theirs>(bytes.clone(), version);
        prop_assert_eq!(again.as_ref(), Some(&bytes), "version {}", version);
        let mut draw = Draw::new(seed.rotate_left(32));
        for _ in 0..DAMAGES {
            check_damaged::<Ours, Theirs>(&mut draw, &bytes, version)?;
        }
    }
    Ok(covered)
}

/// A quarter of the usual cases, since each runs through all versions; `PROPTEST_CASES` gives more. A failing seed is
/// printed, and not kept in a file.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(4), failure_persistence: None, ..usual }
}

/// How often each message is damaged.
const DAMAGES: usize = 8;

/// A byte is changed, which makes a null, another count, another length, another value or nonsense: we and the oracle
/// must agree on whether that is a message, and on which.
fn check_damaged<Ours, Theirs>(draw: &mut Draw, bytes: &Bytes, version: i16) -> Result<(), TestCaseError>
where
    Ours: Message,
    Theirs: Encodable + Decodable,
{
    // In these the oracle is not Kafka: it takes null in all versions of a field that may be null in some, and knows two
    // markers of a structure where Kafka looks at the sign.
    const NULLS_DIFFER: [&str; 7] = [
        "MetadataRequest",
        "MetadataResponse",
        "OffsetFetchRequest",
        "JoinGroupResponse",
        "DeleteTopicsResponse",
        "DescribeTopicPartitionsRequest",
        "DescribeTopicPartitionsResponse",
    ];
    let name = std::any::type_name::<Ours>().rsplit("::").next().unwrap_or_default();
    if bytes.is_empty() || NULLS_DIFFER.contains(&name) {
        return Ok(());
    }
    let at = draw.below(bytes.len() as u64) as usize;
    let mut damaged = BytesMut::from(&bytes[..]);
    damaged[at] = [0, 1, 2, 0x7f, 0x80, 0xff, draw.next() as u8][draw.below(7) as usize];
    let damaged = damaged.freeze();
    let ours = read::<Ours>(damaged.clone(), version);
    match ours.map_err(|error| error.what) {
        Ok(ours) => {
            let theirs = oracle_again::<Theirs>(damaged.clone(), version);
            prop_assert!(theirs.is_some(), "version {}: we alone take {:?}", version, damaged);
            // The oracle keeps unknown tagged fields and writes them again; we do not.
            let ours = ours.to_bytes(version);
            let theirs = theirs.filter(|theirs| theirs.len() == ours.len());
            prop_assert!(theirs.is_none_or(|theirs| theirs == ours), "version {}: {:?}", version, damaged);
        }
        Err(Malformed::Null | Malformed::NotUtf8 | Malformed::Trailing) => {
            let theirs = oracle_again::<Theirs>(damaged.clone(), version);
            prop_assert!(theirs.is_none(), "version {}: the oracle alone takes {:?}", version, damaged);
        }
        // The oracle makes room for counts before it looks how much is there; and it does not mind tagged fields out of
        // order or of another size, or a varint's bits that fall off the end.
        Err(_) => {}
    }
    Ok(())
}

/// An API's request and response in all versions that we speak; says which versions the oracle could not judge.
fn check_api<R, TheirRequest, TheirResponse>(uncovered_expected: &[i16])
where
    R: Request + Sample,
    R::Response: Sample + std::fmt::Debug + PartialEq,
    R: std::fmt::Debug + PartialEq,
    TheirRequest: Encodable + Decodable + OracleMessage,
    TheirResponse: Encodable + Decodable + OracleMessage,
{
    proptest!(config(), |(seed: u64)| {
        for version in R::VERSIONS {
            let request = check::<R, TheirRequest>(seed, version)?;
            let response = check::<R::Response, TheirResponse>(seed, version)?;
            prop_assert_eq!(
                request && response,
                !uncovered_expected.contains(&version),
                "whether the oracle covers version {} has changed", version
            );
            check_headers::<R>(seed, version)?;
        }
    });
}

/// Whole frames of a request and its response: their headers as the oracle reads them, and both read back by us.
fn check_headers<R>(seed: u64, version: i16) -> Result<(), TestCaseError>
where
    R: Request + Sample + std::fmt::Debug + PartialEq,
    R::Response: Sample + std::fmt::Debug + PartialEq,
{
    let key = ApiKey::try_from(R::KEY).map_err(|()| TestCaseError::fail("the oracle does not know the key"))?;
    let draw = &mut Draw::new(seed);
    let correlation_id = draw.next() as i32;
    let client_id = (draw.below(4) > 0).then(|| Str::sample(draw, R::form(version)));
    let unframed = |frame: Rope| {
        let mut bytes = Bytes::from(frame.concat());
        assert_eq!(bytes.get_i32() as usize, bytes.len());
        bytes
    };

    let request = R::sample(draw, R::form(version));
    let frame = unframed(encode_request(&request, version, correlation_id, client_id.as_deref()));
    let mut rest = frame.clone();
    let theirs = TheirRequestHeader::decode(&mut rest, key.request_header_version(version))
        .map_err(|why| TestCaseError::fail(format!("the oracle cannot read the header: {why}")))?;
    prop_assert_eq!((theirs.request_api_key, theirs.request_api_version), (R::KEY, version));
    prop_assert_eq!(theirs.correlation_id, correlation_id);
    prop_assert_eq!(theirs.client_id.as_deref(), client_id.as_deref());
    prop_assert_eq!(&rest, &request.to_bytes(version), "version {}", version);
    let mut input = Decoder::new(frame);
    let header = RequestHeader { api_key: R::KEY, api_version: version, correlation_id, client_id };
    prop_assert_eq!(RequestHeader::decode(&mut input), Ok(header));
    prop_assert_eq!(decode_request(&mut input, version), Ok(request));

    let response = R::Response::sample(draw, R::Response::form(version));
    let parts = encode_response::<R>(correlation_id, version, &response);
    let frame = unframed(in_memory(parts).expect("samples lie in memory"));
    let mut rest = frame.clone();
    let theirs = TheirResponseHeader::decode(&mut rest, key.response_header_version(version))
        .map_err(|why| TestCaseError::fail(format!("the oracle cannot read the header: {why}")))?;
    prop_assert_eq!(theirs.correlation_id, correlation_id);
    prop_assert_eq!(&rest, &response.to_bytes(version), "version {}", version);
    prop_assert_eq!(decode_response::<R>(frame, version), Ok((correlation_id, response)));
    Ok(())
}

macro_rules! apis {
    ($($module:ident $request:ident $response:ident $(not $($version:literal)*)?;)*) => {$(
        #[test]
        fn $module() {
            check_api::<
                api::$module::$request,
                kafka_protocol::messages::$request,
                kafka_protocol::messages::$response,
            >(&[$($($version),*)?]);
        }
    )*};
}

// `not`: versions that the oracle does not know; those go round with our own decoder alone.
apis! {
    add_raft_voter AddRaftVoterRequest AddRaftVoterResponse not 1;
    alter_client_quotas AlterClientQuotasRequest AlterClientQuotasResponse;
    alter_configs AlterConfigsRequest AlterConfigsResponse;
    alter_partition_reassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse;
    alter_replica_log_dirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse;
    api_versions ApiVersionsRequest ApiVersionsResponse;
    create_acls CreateAclsRequest CreateAclsResponse;
    create_partitions CreatePartitionsRequest CreatePartitionsResponse;
    create_topics CreateTopicsRequest CreateTopicsResponse;
    delete_acls DeleteAclsRequest DeleteAclsResponse;
    delete_groups DeleteGroupsRequest DeleteGroupsResponse;
    delete_records DeleteRecordsRequest DeleteRecordsResponse;
    delete_topics DeleteTopicsRequest DeleteTopicsResponse;
    describe_acls DescribeAclsRequest DescribeAclsResponse;
    describe_client_quotas DescribeClientQuotasRequest DescribeClientQuotasResponse;
    describe_cluster DescribeClusterRequest DescribeClusterResponse;
    describe_configs DescribeConfigsRequest DescribeConfigsResponse;
    describe_groups DescribeGroupsRequest DescribeGroupsResponse;
    describe_log_dirs DescribeLogDirsRequest DescribeLogDirsResponse not 5;
    describe_producers DescribeProducersRequest DescribeProducersResponse;
    describe_quorum DescribeQuorumRequest DescribeQuorumResponse;
    describe_topic_partitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
    elect_leaders ElectLeadersRequest ElectLeadersResponse;
    fetch FetchRequest FetchResponse;
    find_coordinator FindCoordinatorRequest FindCoordinatorResponse;
    heartbeat HeartbeatRequest HeartbeatResponse;
    incremental_alter_configs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    init_producer_id InitProducerIdRequest InitProducerIdResponse;
    join_group JoinGroupRequest JoinGroupResponse;
    leave_group LeaveGroupRequest LeaveGroupResponse;
    list_config_resources ListConfigResourcesRequest ListConfigResourcesResponse;
    list_groups ListGroupsRequest ListGroupsResponse;
    list_offsets ListOffsetsRequest ListOffsetsResponse not 11;
    list_partition_reassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
    metadata MetadataRequest MetadataResponse;
    offset_commit OffsetCommitRequest OffsetCommitResponse not 10;
    offset_delete OffsetDeleteRequest OffsetDeleteResponse;
    offset_fetch OffsetFetchRequest OffsetFetchResponse not 10;
    offset_for_leader_epoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    produce ProduceRequest ProduceResponse;
    remove_raft_voter RemoveRaftVoterRequest RemoveRaftVoterResponse;
    sync_group SyncGroupRequest SyncGroupResponse;
    unregister_broker UnregisterBrokerRequest UnregisterBrokerResponse;
    update_features UpdateFeaturesRequest UpdateFeaturesResponse;
}

#[test]
fn embedded_consumer_protocol() {
    use api::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::messages;
    proptest!(config(), |(seed: u64, version in 0..=3i16)| {
        let subscription = check::<ConsumerProtocolSubscription, messages::ConsumerProtocolSubscription>(seed, version)?;
        let assignment = check::<ConsumerProtocolAssignment, messages::ConsumerProtocolAssignment>(seed, version)?;
        prop_assert!(subscription && assignment);
    });
}

/// The oracle does not have these; [`api::offsets_topic`] itself compares them with bytes that Kafka wrote.
#[test]
fn records_of_the_offsets_topic() {
    use api::offsets_topic::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};
    proptest!(config(), |(seed: u64, version in 0..=4i16)| {
        check_alone::<OffsetCommitKey>(seed, version)?;
        check_alone::<OffsetCommitValue>(seed, version)?;
        check_alone::<GroupMetadataKey>(seed, version)?;
        check_alone::<GroupMetadataValue>(seed, version)?;
    });
}
