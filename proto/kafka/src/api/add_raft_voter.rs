//! AddRaftVoter (key 80). Gives a participant of the metadata's quorum a vote (KIP-853). Version 1 may be answered before the
//! change is committed (KIP-1186).

use crate::wire::{Str, Uuid};

message! {
    pub struct AddRaftVoterRequest flexible 0;
    cluster_id: Option<Str> [since(0).null(0)];
    timeout_ms: i32 [since(0)];
    voter_id: i32 [since(0)];
    voter_directory_id: Uuid [since(0)];
    listeners: Vec<Listener> [since(0)];
    ack_when_committed: bool [since(1)] = true;
}

message! {
    pub struct Listener flexible 0;
    name: Str [since(0)];
    host: Str [since(0)];
    port: u16 [since(0)];
}

message! {
    pub struct AddRaftVoterResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(AddRaftVoterRequest => AddRaftVoterResponse, key 80, versions 0..=1);
