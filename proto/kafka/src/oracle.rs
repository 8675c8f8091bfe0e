//! Every API in every version, both ways, against the public `kafka-protocol` crate as the oracle.
//!
//! A message is drawn at random, encoded by us, decoded and encoded again by the oracle, and must come back byte for byte;
//! then we decode that, and must get the message we drew. The versions that the oracle does not cover are named in the
//! table below.

use crate::encode::Encoder;
use crate::message::{Message, Request};
use crate::wire::{Form, Records, Spec, Str, Uuid, Wire};
use crate::{Decoder, api};
use bytes::{Bytes, BytesMut};
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

fn encoded(message: &impl Message, version: i16) -> Bytes {
    let mut out = Encoder::new();
    message.encode(&mut out, version);
    out.finish().concat().into()
}

/// One message in one version; gives whether the oracle covers it.
fn check<Ours, Theirs>(seed: u64, version: i16) -> Result<bool, TestCaseError>
where
    Ours: Message + Sample + PartialEq + std::fmt::Debug,
    Theirs: Encodable + Decodable + OracleMessage,
{
    let drawn = Ours::sample(&mut Draw::new(seed), Ours::form(version));
    let ours = encoded(&drawn, version);
    let decode = |bytes: Bytes| Ours::decode(&mut Decoder::new(bytes), version);
    let covered = (Theirs::VERSIONS.min..=Theirs::VERSIONS.max).contains(&version);
    if covered {
        let mut input = ours.clone();
        let theirs = Theirs::decode(&mut input, version)
            .map_err(|why| TestCaseError::fail(format!("the oracle cannot read version {version}: {why}")))?;
        prop_assert!(input.is_empty(), "the oracle leaves {} bytes of version {}", input.len(), version);
        let mut again = BytesMut::new();
        theirs
            .encode(&mut again, version)
            .map_err(|why| TestCaseError::fail(format!("the oracle cannot write version {version}: {why}")))?;
        prop_assert_eq!(&ours[..], &again[..], "version {}", version);
    }
    let back = decode(ours.clone()).map_err(|why| TestCaseError::fail(format!("version {version}: {why}")))?;
    prop_assert_eq!(&back, &drawn, "version {}", version);
    // Cut anywhere, it is an error and no panic.
    for at in 0..ours.len().min(200) {
        prop_assert!(decode(ours.slice(..at)).is_err(), "version {} cut at {} is accepted", version, at);
    }
    Ok(covered)
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
    proptest!(|(seed: u64)| {
        for version in R::VERSIONS {
            let request = check::<R, TheirRequest>(seed, version)?;
            let response = check::<R::Response, TheirResponse>(seed, version)?;
            prop_assert_eq!(
                request && response,
                !uncovered_expected.contains(&version),
                "whether the oracle covers version {} has changed", version
            );
        }
    });
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
    sync_group SyncGroupRequest SyncGroupResponse;
    update_features UpdateFeaturesRequest UpdateFeaturesResponse;
}
