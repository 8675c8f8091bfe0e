//! RemoveRaftVoter (key 81). Takes a participant's vote in the metadata's quorum away (KIP-853).

use crate::wire::{Str, Uuid};

message! {
    pub struct RemoveRaftVoterRequest flexible 0;
    cluster_id: Option<Str> [since(0).null(0)];
    voter_id: i32 [since(0)];
    voter_directory_id: Uuid [since(0)];
}

message! {
    pub struct RemoveRaftVoterResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(RemoveRaftVoterRequest => RemoveRaftVoterResponse, key 81, versions 0..=0);
