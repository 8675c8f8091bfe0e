//! Producer ids for this broker's clients, from blocks that are reserved durably before the first of them is given out.
//!
//! What is left of a block when the process ends is lost, never given out again.

use super::{MetadataLog, ProposeError};
use crate::cluster::asks::Asks;
use chronik_core::ids::{Offset, ProducerId};
use chronik_core::metadata::controller::{self, ProducerIdsExhausted};
use chronik_core::metadata::requests::{Answer, Refusal, Request};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a client may wait for the controller; it asks again.
const ASK_FOR: Duration = Duration::from_secs(5);

/// Why there is no id.
pub type NoProducerId = ProposeError<ProducerIdsExhausted>;

/// See the module's head.
pub struct ProducerIds {
    log: MetadataLog,
    /// Where the controller decides, which may be another node.
    asks: Option<(Arc<Asks>, Offset)>,
    /// Asynchronous, since whoever finds it empty holds it while the next block is written, so that all who wait share it.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// `asks`: the way to the controller, and this process's broker epoch, in a cluster.
    pub fn new(log: MetadataLog, asks: Option<(Arc<Asks>, Offset)>) -> Self {
        Self { log, asks, block: Mutex::new(0..0) }
    }

    /// One that nobody has had.
    pub async fn next(&self) -> Result<ProducerId, NoProducerId> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let reserved = match &self.asks {
                None => self.log.propose(controller::reserve_producer_ids).await?,
                Some((asks, broker_epoch)) => {
                    let request = Request::AllocateProducerIds { broker_epoch: *broker_epoch };
                    match asks.ask(&request, ASK_FOR).await {
                        Ok(Answer::ProducerIds(block)) => block,
                        Ok(Answer::Refused(Refusal::ProducerIdsExhausted)) => {
                            return Err(ProposeError::Refused(ProducerIdsExhausted));
                        }
                        Ok(other) => return Err(ProposeError::NotNow(format!("{other:?}"))),
                        Err(why) => return Err(ProposeError::NotNow(why.to_string())),
                    }
                }
            };
            *block = reserved.first.0..reserved.first.0 + reserved.count;
        }
        let id = block.start;
        block.start += 1;
        Ok(ProducerId(id))
    }
}
