//! Frames made to hurt: each is an error, and none makes the decoder take more than a small multiple of the frame's bytes.
//!
//! The peak of memory is measured by an allocator that counts, for each thread apart, since tests run side by side.

use bytes::{BufMut, Bytes, BytesMut};
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::decode::{MEMORY_BASE_BYTES, MEMORY_PER_FRAME_BYTE, Malformed, UNKNOWN_TAGS_MAX};
use chronik_proto_kafka::{DecodeError, Decoder, Message, Request, RequestHeader, decode_request, decode_response};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // While a thread ends its counters are gone; nothing is measured then.
    let _ = IN_USE.try_with(|in_use| {
        let now = in_use.get().saturating_add_signed(bytes);
        in_use.set(now);
        PEAK.with(|peak| peak.set(peak.get().max(now)));
    });
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both exist for a moment, as far as one can know.
        count(new_size as isize);
        // SAFETY: the caller keeps to the contract, which is the same.
        let moved = unsafe { System.realloc(memory, layout, new_size) };
        count(-(layout.size() as isize));
        moved
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `work` gives, and the most memory it held at one time.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = work();
    (result, PEAK.with(Cell::get) - before)
}

/// The documented budget, and as much again for an array that is moved as it grows.
fn memory_max(frame_bytes: usize) -> usize {
    (frame_bytes * MEMORY_PER_FRAME_BYTE + MEMORY_BASE_BYTES) * 2
}

/// Decodes a body as a request and as a response, and checks what that took; gives what is wrong with it as a request.
fn attack<R: Request>(version: i16, body: &Bytes) -> Result<(), Malformed> {
    fn decode<M: Message>(version: i16, body: &Bytes) -> Result<(), DecodeError> {
        let (result, peak) = measured(|| M::decode(&mut Decoder::new(body.clone()), version).map(drop));
        let max = memory_max(body.len());
        assert!(peak <= max, "{} bytes made {} take {peak}, more than {max}", body.len(), std::any::type_name::<M>());
        result
    }
    let _ = decode::<R::Response>(version, body);
    decode::<R>(version, body).map_err(|error| error.what)
}

/// Calls a function for every API in every version.
macro_rules! every_api {
    ($attack:ident($body:expr)) => {
        every_api!(@of $attack($body)
            add_raft_voter::AddRaftVoterRequest alter_client_quotas::AlterClientQuotasRequest alter_configs::AlterConfigsRequest
            alter_partition_reassignments::AlterPartitionReassignmentsRequest
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
            list_offsets::ListOffsetsRequest
            list_partition_reassignments::ListPartitionReassignmentsRequest metadata::MetadataRequest
            offset_commit::OffsetCommitRequest offset_delete::OffsetDeleteRequest offset_fetch::OffsetFetchRequest
            offset_for_leader_epoch::OffsetForLeaderEpochRequest produce::ProduceRequest
            remove_raft_voter::RemoveRaftVoterRequest sync_group::SyncGroupRequest
            unregister_broker::UnregisterBrokerRequest update_features::UpdateFeaturesRequest
        )
    };
    (@of $attack:ident($body:expr) $($module:ident::$request:ident)*) => {$(
        for version in $module::$request::VERSIONS {
            let _ = $attack::<$module::$request>(version, $body);
        }
    )*};
}

fn filled(byte: u8, bytes: usize) -> Bytes {
    vec![byte; bytes].into()
}

#[test]
fn whatever_one_byte_is_repeated_a_million_times_no_message_takes_much_memory() {
    // Zeroes are empty strings and nulls, ones are empty arrays and counts, and so on: the densest messages there are.
    for byte in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
        every_api!(attack(&filled(byte, 1 << 20)));
    }
}

#[test]
fn a_count_at_the_front_of_a_million_empty_elements_is_not_believed() {
    for byte in [0, 1, 2] {
        let mut old = BytesMut::new();
        old.put_i32(500_000);
        old.put_bytes(byte, 1 << 20);
        let old = old.freeze();
        every_api!(attack(&old));
        // 500,001 as a varint.
        let mut compact = BytesMut::from(&b"\xa1\xc2\x1e"[..]);
        compact.put_bytes(byte, 1 << 20);
        let compact = compact.freeze();
        every_api!(attack(&compact));
    }
}

#[test]
fn topics_of_no_name_are_refused_by_the_memory_they_would_need() {
    // Two bytes on the wire and 48 in memory for each.
    let mut body = BytesMut::new();
    body.put_i32(500_000);
    body.put_bytes(0, 1_000_000);
    assert_eq!(attack::<metadata::MetadataRequest>(0, &body.freeze()), Err(Malformed::Memory));
}

#[test]
fn requests_as_large_as_real_ones_get_have_room() {
    // The worst of real ratios: the names of very many topics, all of them short.
    let name = metadata::MetadataRequestTopic { name: Some("t123".into()), ..Default::default() };
    let request = metadata::MetadataRequest { topics: Some(vec![name; 100_000]), ..Default::default() };
    for version in [1, 9] {
        assert_eq!(attack::<metadata::MetadataRequest>(version, &request.to_bytes(version)), Ok(()));
    }
    let partition = fetch::FetchPartition::default();
    let topic = fetch::FetchTopic { topic: "t".into(), partitions: vec![partition; 100_000], ..Default::default() };
    let request = fetch::FetchRequest { topics: vec![topic], ..Default::default() };
    assert_eq!(attack::<fetch::FetchRequest>(4, &request.to_bytes(4)), Ok(()));
}

#[test]
fn counts_above_the_bytes_that_are_there_are_refused_at_once() {
    let refused = |version, body: &'static [u8]| {
        let (result, peak) = measured(|| {
            metadata::MetadataRequest::decode(&mut Decoder::new(Bytes::from_static(body)), version).map(drop)
        });
        assert!(peak <= 64, "took {peak} bytes");
        result.map_err(|error| error.what)
    };
    assert_eq!(refused(1, b"\x7f\xff\xff\xff\x00\x01a"), Err(Malformed::Count));
    assert_eq!(refused(9, b"\xff\xff\xff\xff\x0f\x02a\x00"), Err(Malformed::Count));
    assert_eq!(refused(9, b"\x80\x80\x80\x80\x10"), Err(Malformed::LongVarint));
    assert_eq!(refused(9, b"\x80\x80\x80\x80\x80\x01"), Err(Malformed::LongVarint));
}

#[test]
fn negative_lengths_and_nulls_out_of_place_are_refused() {
    let request =
        |version, body: &'static [u8]| attack::<metadata::MetadataRequest>(version, &Bytes::from_static(body));
    // An array of −2 elements; of −1, which is null, where version 0 has none; and where version 1 has it.
    assert_eq!(request(1, b"\xff\xff\xff\xfe"), Err(Malformed::NegativeLength));
    assert_eq!(request(0, b"\xff\xff\xff\xff"), Err(Malformed::Null));
    assert_eq!(request(1, b"\xff\xff\xff\xff"), Ok(()));
    // A name of −2 bytes, and one that is null.
    assert_eq!(request(1, b"\x00\x00\x00\x01\xff\xfe"), Err(Malformed::NegativeLength));
    assert_eq!(request(1, b"\x00\x00\x00\x01\xff\xff"), Err(Malformed::Null));
    // Names that are longer than the rest, and that are no text.
    assert_eq!(request(1, b"\x00\x00\x00\x01\x7f\xffabc"), Err(Malformed::Truncated));
    assert_eq!(request(1, b"\x00\x00\x00\x01\x00\x02\xc3\x28"), Err(Malformed::NotUtf8));
    // A byte too many.
    assert_eq!(request(1, b"\xff\xff\xff\xff\x00"), Err(Malformed::Trailing));
    // A produce request whose records are −2 bytes long.
    let produce =
        b"\xff\xff\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xfe";
    assert_eq!(attack::<produce::ProduceRequest>(3, &Bytes::from_static(produce)), Err(Malformed::NegativeLength));
}

/// Ever higher tags with nothing in them.
fn tags(count: u32) -> BytesMut {
    fn put_varint(out: &mut BytesMut, mut value: u32) {
        while value >= 0x80 {
            out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        out.put_u8(value as u8);
    }
    let mut out = BytesMut::new();
    put_varint(&mut out, count);
    for tag in 0..count {
        put_varint(&mut out, 1000 + tag);
        out.put_u8(0);
    }
    out
}

#[test]
fn millions_of_tagged_fields_are_refused_in_a_body_and_in_a_header_and_take_no_memory() {
    let many = tags(5_000_000).freeze();
    let few = tags(UNKNOWN_TAGS_MAX).freeze();
    let one_too_many = tags(UNKNOWN_TAGS_MAX + 1).freeze();
    // A heartbeat of version 4: group, generation, member, instance, and then the tags.
    let heartbeat = |tags: &Bytes| Bytes::from([b"\x02g\x00\x00\x00\x01\x02m\x00", &tags[..]].concat());
    for (tags, expected) in [(&many, Err(Malformed::Tags)), (&one_too_many, Err(Malformed::Tags)), (&few, Ok(()))] {
        assert_eq!(attack::<heartbeat::HeartbeatRequest>(4, &heartbeat(tags)), expected);
        let with_header = Bytes::from([&tags[..], &heartbeat(&Bytes::from_static(b"\x00"))].concat());
        let mut input = Decoder::new(with_header);
        let (result, peak) = measured(|| decode_request::<heartbeat::HeartbeatRequest>(&mut input, 4).map(drop));
        assert_eq!(result.map_err(|error| error.what), expected);
        assert!(peak <= 256, "took {peak} bytes");
    }
}

#[test]
fn nested_sections_of_tagged_fields_cannot_multiply() {
    // Each of many groups carries as many unknown fields as it may: their number is bounded for each, and their bytes by
    // the frame; nothing of them is kept.
    let tags = tags(UNKNOWN_TAGS_MAX).freeze();
    let mut body = BytesMut::new();
    // 10,001 as a varint: an OffsetFetch of 10,000 groups.
    body.put_slice(b"\x91\x4e");
    for _ in 0..10_000 {
        body.put_slice(b"\x02g\x01");
        body.put_slice(&tags);
    }
    body.put_slice(b"\x00\x00");
    let body = body.freeze();
    let decode = || offset_fetch::OffsetFetchRequest::decode(&mut Decoder::new(body.clone()), 8);
    let (result, peak) = measured(decode);
    assert_eq!(result.map(|request| request.groups.len()), Ok(10_000));
    assert!(peak < 3 * body.len(), "took {peak} of {}", body.len());
}

#[test]
fn headers_that_are_cut_or_lie_are_errors() {
    let whole = b"\x00\x12\x00\x03\x00\x00\x00\x07\x00\x03abc";
    for at in 0..whole.len() {
        assert!(RequestHeader::decode(&mut Decoder::new(Bytes::from_static(&whole[..at]))).is_err());
    }
    let lies = Bytes::from_static(b"\x00\x12\x00\x03\x00\x00\x00\x07\x7f\xffabc");
    assert_eq!(RequestHeader::decode(&mut Decoder::new(lies)).map_err(|error| error.what), Err(Malformed::Truncated));
    assert!(decode_response::<fetch::FetchRequest>(Bytes::from_static(b"\x00\x00\x00"), 12).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing that arrives makes the decoder panic or take more than its budget.
    #[test]
    fn random_bytes_are_decoded_within_the_budget(
        body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..300),
    ) {
        every_api!(attack(&body.clone().into()));
    }
}
