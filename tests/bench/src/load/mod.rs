//! What a client does to a broker for a time, and what that shows: for any broker that speaks Kafka's protocol, through the same
//! client.

pub mod callers;
pub mod failover;
pub mod flow;
pub mod pace;

pub use flow::Flow;

use crate::BenchError;
use crate::client::{create_topic, delete_topic};
use std::sync::atomic::{AtomicU64, Ordering};

/// Another each time: topics of one run have names of their own, also while an earlier one is still being deleted.
pub fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A topic for one turn; gone afterwards.
pub struct OneTopic {
    bootstrap: String,
    pub name: String,
    /// The nodes that lead its partitions, when it was created.
    pub leaders: Vec<i32>,
}

impl OneTopic {
    pub fn create(bootstrap: &str, name: String, partitions: i32, replicas: i32) -> Result<Self, BenchError> {
        let leaders = create_topic(bootstrap, &name, partitions, replicas)?;
        Ok(Self { bootstrap: bootstrap.to_owned(), name, leaders })
    }

    /// Not left to a destructor: a failure is to be told.
    pub fn delete(self) -> Result<(), BenchError> {
        Ok(delete_topic(&self.bootstrap, &self.name)?)
    }
}
