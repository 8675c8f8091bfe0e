//! The Kafka listener: connections, requests, handlers.

pub mod connection;
pub mod fetch_sessions;
pub mod listener;
