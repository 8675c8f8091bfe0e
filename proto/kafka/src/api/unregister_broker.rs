//! UnregisterBroker (key 64). Takes a broker out for good (KIP-500).

use crate::wire::Str;

message! {
    pub struct UnregisterBrokerRequest flexible 0;
    broker_id: i32 [since(0)];
}

message! {
    pub struct UnregisterBrokerResponse flexible 0;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
}

api!(UnregisterBrokerRequest => UnregisterBrokerResponse, key 64, versions 0..=0);
