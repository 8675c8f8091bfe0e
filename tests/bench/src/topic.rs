//! Each turn has a topic of its own, and the one before it is gone when it begins: the disk never holds more than one
//! turn's data, and no turn pays for writing back what an earlier one left.

use crate::client::{create_topic, delete_topic};
use crate::{BenchError, Common, Target, memory};
use std::time::{Duration, Instant};

/// A broker removes files after it has answered; so long it may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);
/// What a broker's directory takes besides the records of topics, with room to spare.
const EMPTY_BYTES: u64 = 64 << 20;

/// The topics of a run, one after another.
pub struct Topics {
    name: String,
    partitions: i32,
    replicas: i32,
    made: u32,
}

impl Topics {
    pub fn new(workload: &str, common: &Common) -> Self {
        let Common { partitions, replicas, .. } = *common;
        Self { name: format!("bench-{workload}-{}", std::process::id()), partitions, replicas, made: 0 }
    }

    fn current(&self) -> String {
        format!("{}-{}", self.name, self.made)
    }

    /// The topic of the next turn, which writes so many bytes.
    pub fn next(&mut self, target: &Target, turn_bytes: u64) -> Result<String, BenchError> {
        self.clear(target)?;
        self.made += 1;
        create_topic(target.bootstrap(), &self.current(), self.partitions, self.replicas)?;
        memory::touch(turn_bytes);
        Ok(self.current())
    }

    /// Leaves nothing behind.
    pub fn clear(&self, target: &Target) -> Result<(), BenchError> {
        if self.made == 0 {
            return Ok(());
        }
        delete_topic(target.bootstrap(), &self.current())?;
        if let Target::Local(local) = target {
            let began = Instant::now();
            while local.disk_bytes() > EMPTY_BYTES && began.elapsed() < REMOVED_WITHIN {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}
