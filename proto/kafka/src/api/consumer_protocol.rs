//! What members of a consumer group put into JoinGroup and SyncGroup for each other: the broker passes it on unread, and
//! tools read it. On the wire two bytes of version stand before each.

use crate::wire::Str;
use bytes::Bytes;

message! {
    pub struct ConsumerProtocolSubscription flexible never;
    topics: Vec<Str> [since(0)];
    user_data: Option<Bytes> [since(0).null(0)];
    owned_partitions: Vec<TopicPartition> [since(1)];
    generation_id: i32 [since(2)] = -1;
    rack_id: Option<Str> [since(3).null(3)];
}

message! {
    pub struct TopicPartition flexible never;
    topic: Str [since(1)];
    partitions: Vec<i32> [since(1)];
}

message! {
    pub struct ConsumerProtocolAssignment flexible never;
    assigned_partitions: Vec<ResponseTopicPartition> [since(0)];
    user_data: Option<Bytes> [since(0).null(0)];
}

message! {
    pub struct ResponseTopicPartition flexible never;
    topic: Str [since(0)];
    partitions: Vec<i32> [since(0)];
}
