//! InitProducerId (key 22). Gives out producer ids (KIP-98).

use crate::wire::Str;

message! {
    pub struct InitProducerIdRequest flexible 2;
    transactional_id: Option<Str> [since(0).null(0)];
    transaction_timeout_ms: i32 [since(0)];
    producer_id: i64 [since(3)] = -1;
    producer_epoch: i16 [since(3)] = -1;
    enable2_pc: bool [since(6)];
    keep_prepared_txn: bool [since(6)];
}

message! {
    pub struct InitProducerIdResponse flexible 2;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    producer_id: i64 [since(0)] = -1;
    producer_epoch: i16 [since(0)];
    ongoing_txn_producer_id: i64 [since(6)] = -1;
    ongoing_txn_producer_epoch: i16 [since(6)] = -1;
}

api!(InitProducerIdRequest => InitProducerIdResponse, key 22, versions 0..=5);
