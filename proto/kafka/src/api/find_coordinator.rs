//! FindCoordinator (key 10). Which broker coordinates a group or transaction.
//!
//! | version | what changed |
//! |--:|---|
//! | 1 | coordinators of transactions too; words for errors |
//! | 3 | flexible |
//! | 4 | several keys at once (KIP-699) |
//! | 5 | `TRANSACTION_ABORTABLE` (KIP-890) |
//! | 6 | coordinators of share groups (KIP-932) |

use crate::wire::Str;

message! {
    pub struct FindCoordinatorRequest flexible 3;
    key: Str [since(0).until(3)];
    key_type: i8 [since(1)];
    coordinator_keys: Vec<Str> [since(4)];
}

message! {
    pub struct FindCoordinatorResponse flexible 3;
    throttle_time_ms: i32 [since(1)];
    error_code: i16 [since(0).until(3)];
    error_message: Option<Str> [since(1).until(3).null(1)];
    node_id: i32 [since(0).until(3)];
    host: Str [since(0).until(3)];
    port: i32 [since(0).until(3)];
    coordinators: Vec<Coordinator> [since(4)];
}

message! {
    pub struct Coordinator flexible 3;
    key: Str [since(4)];
    node_id: i32 [since(4)];
    host: Str [since(4)];
    port: i32 [since(4)];
    error_code: i16 [since(4)];
    error_message: Option<Str> [since(4).null(4)];
}

api!(FindCoordinatorRequest => FindCoordinatorResponse, key 10, versions 0..=6);
