//! DescribeClientQuotas (key 48). Lists client quotas (KIP-546).

use crate::wire::Str;

message! {
    pub struct DescribeClientQuotasRequest flexible 1;
    components: Vec<ComponentData> [since(0)];
    strict: bool [since(0)];
}

message! {
    pub struct ComponentData flexible 1;
    entity_type: Str [since(0)];
    match_type: i8 [since(0)];
    matching: Option<Str> [since(0).null(0)];
}

message! {
    pub struct DescribeClientQuotasResponse flexible 1;
    throttle_time_ms: i32 [since(0)];
    error_code: i16 [since(0)];
    error_message: Option<Str> [since(0).null(0)];
    entries: Option<Vec<EntryData>> [since(0).null(0)];
}

message! {
    pub struct EntryData flexible 1;
    entity: Vec<EntityData> [since(0)];
    values: Vec<ValueData> [since(0)];
}

message! {
    pub struct EntityData flexible 1;
    entity_type: Str [since(0)];
    entity_name: Option<Str> [since(0).null(0)];
}

message! {
    pub struct ValueData flexible 1;
    key: Str [since(0)];
    value: f64 [since(0)];
}

api!(DescribeClientQuotasRequest => DescribeClientQuotasResponse, key 48, versions 0..=1);
