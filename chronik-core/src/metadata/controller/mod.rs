//! What a controller decides: pure functions from an image and a request to facts and a reply.
//!
//! Nothing changes here. A decision's records take effect when they are applied, after they are durable, and the reply is
//! given then. A decision is made against the newest image, in which everything that was decided before it already shows.
//!
//! Requests with several parts are answered part by part: one bad topic does not stop the others, as in Kafka. Errors name
//! their reason in words that are meant for the person who asked.

mod alter_configs;
mod alter_partitions;
mod bootstrap;
mod brokers;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod draft;
mod elect_leaders;
mod liveness;
mod placement;
mod reassign;
mod settle;
mod update_features;

pub use alter_configs::{
    AlterConfigError, AlterConfigsReply, AlterOp, AlterResource, ResourceAlteration, alter_configs, replace_configs,
};
pub use alter_partitions::{
    AlterPartitionError, AlterPartitions, AlterPartitionsReply, AlteredPartition, WantedInSync, alter_partitions,
};
pub use bootstrap::{
    FirstStart, Lost, PRODUCER_ID_BLOCK, ProducerIdBlock, ProducerIdsExhausted, Registration, bootstrap,
    register_broker, reserve_producer_ids, supported_features,
};
pub use brokers::{
    AdmitError, LEADER_MOVES_PER_ROUND, NotRegistered, act_on_heartbeats, admit_broker, balance_leaders,
    registered_epoch, unregister_broker,
};
pub use create_partitions::{CreatePartitionsError, MorePartitions, create_partitions};
pub use create_topics::{CreateTopicError, CreatedTopic, NewTopic, create_topics};
pub use delete_topics::{DeleteTopicError, DeletedTopic, TopicRef, delete_topics};
pub use elect_leaders::{ElectLeaderError, ElectionKind, elect_all_leaders, elect_leaders};
pub use liveness::{
    HEARTBEATS_PER_SESSION, Heartbeat, HeartbeatAnswer, HeartbeatError, Liveness, OFFLINE_LOGS_MAX, SESSION_DEFAULT,
    Verdict,
};
pub use placement::{BadAssignment, BadReplication};
pub use reassign::{ReassignError, ReassignReply, Reassigning, Reassignment, reassign_partitions, reassignments};
pub use update_features::{FeatureUpdate, UpdateFeaturesError, UpdateKind, update_features};

use super::image::Image;
use super::records::Record;

/// Partitions that one request may make (Kafka's own bound): what one run of records holds, and what the log opening
/// behind it can be asked to do at once.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// Facts to be written, and what to answer once they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    pub records: Vec<Record>,
    pub reply: R,
}

impl<R> Decision<R> {
    pub fn new(records: Vec<Record>, reply: R) -> Self {
        Self { records, reply }
    }

    /// The same reply without the deed, for requests that only want to know.
    pub fn without_records(self) -> Self {
        Self { records: Vec::new(), reply: self.reply }
    }
}

/// Why there are too many partitions, for people: one of the two bounds behind [`Image::partitions_left`].
fn no_room(image: &Image) -> String {
    let max = image.defaults().partitions_max;
    if image.partitions_left() == PARTITIONS_PER_REQUEST_MAX {
        "Excessively large number of partitions per request.".into()
    } else {
        format!("The cluster has {} of at most {max} partitions.", image.partitions_count())
    }
}
