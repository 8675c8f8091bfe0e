//! DeleteTopics (key 20). Deletes topics, by name or by id.
//!
//! | version | what changed |
//! |--:|---|
//! | 4 | flexible |
//! | 5 | words for errors; `THROTTLING_QUOTA_EXCEEDED` (KIP-599) |
//! | 6 | topics by id (KIP-516) |

use crate::wire::{Str, Uuid};

message! {
    pub struct DeleteTopicsRequest flexible 4;
    topics: Vec<DeleteTopicState> [since(6)];
    topic_names: Vec<Str> [since(0).until(5)];
    timeout_ms: i32 [since(0)];
}

message! {
    pub struct DeleteTopicState flexible 4;
    name: Option<Str> [since(6).null(6)];
    topic_id: Uuid [since(6)];
}

message! {
    pub struct DeleteTopicsResponse flexible 4;
    throttle_time_ms: i32 [since(1)];
    responses: Vec<DeletableTopicResult> [since(0)];
}

message! {
    pub struct DeletableTopicResult flexible 4;
    name: Option<Str> [since(0).null(6)];
    topic_id: Uuid [since(6)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(5).null(5)];
}

api!(DeleteTopicsRequest => DeleteTopicsResponse, key 20, versions 1..=6);
