//! AlterClientQuotas (key 49). Changes client quotas (KIP-546).

use crate::wire::Str;

message! {
    pub struct AlterClientQuotasRequest flexible 1;
    entries: Vec<EntryData> [since(0)];
    validate_only: bool [since(0)];
}

message! {
    pub struct EntryData flexible 1;
    entity: Vec<EntityData> [since(0)];
    ops: Vec<OpData> [since(0)];
}

message! {
    pub struct EntityData flexible 1;
    entity_type: Str [since(0)];
    entity_name: Option<Str> [since(0).null(0)];
}

message! {
    pub struct OpData flexible 1;
    key: Str [since(0)];
    value: f64 [since(0)];
    remove: bool [since(0)];
}

message! {
    pub struct AlterClientQuotasResponse flexible 1;
    throttle_time_ms: i32 [since(0)];
    entries: Vec<ResponseEntryData> [since(0)];
}

message! {
    pub struct ResponseEntryData flexible 1;
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    entity: Vec<ResponseEntityData> [since(0)];
}

message! {
    pub struct ResponseEntityData flexible 1;
    entity_type: Str [since(0)];
    entity_name: Option<Str> [since(0).null(0)];
}

api!(AlterClientQuotasRequest => AlterClientQuotasResponse, key 49, versions 0..=1);
