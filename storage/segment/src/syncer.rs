//! Making logs durable: a queue of those that wait, and a few jobs that take from it.
//!
//! **Group commit without a window.** A log is in the queue or being synced at most once; who asks meanwhile waits for the
//! round after, which begins when the present one ends and carries all of them. Different logs are synced side by side, as
//! far as there are threads; when many wait at once and it is allowed, one sync of the whole file system serves all of
//! them. Nothing here waits for anything but the device.

use crate::log::{Round, SegmentLog};
use crate::shared::Shared;
use crate::threads::Lane;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Syncer {
    threads_max: usize,
    /// From how many waiting logs on the whole file system is synced, if that is allowed.
    filesystem_from_logs: Option<usize>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<SegmentLog>>,
    running: usize,
}

impl Syncer {
    pub fn new(threads_max: usize, filesystem_from_logs: Option<usize>) -> Self {
        Self { threads_max, filesystem_from_logs, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Single pushes and pops leave the queue valid.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a log, which has made sure that it is not there already.
    pub fn add(&self, shared: &Arc<Shared>, log: Arc<SegmentLog>) {
        let mut queue = self.queue();
        queue.waiting.push_back(log);
        if queue.running < self.threads_max {
            queue.running += 1;
            drop(queue);
            let shared = shared.clone();
            shared.clone().threads.run(Lane::Sync, Box::new(move || shared.syncer.work(&shared)));
        }
    }

    fn work(&self, shared: &Arc<Shared>) {
        loop {
            let mut queue = self.queue();
            if self.filesystem_from_logs.is_some_and(|from| queue.waiting.len() >= from) {
                let logs = std::mem::take(&mut queue.waiting);
                drop(queue);
                Self::sync_all(shared, &logs);
                continue;
            }
            let Some(log) = queue.waiting.pop_front() else {
                queue.running -= 1;
                return;
            };
            drop(queue);
            let round = log.begin_round();
            let outcome = round.sync_files(&*shared.disk);
            log.end_round(round, outcome);
        }
    }

    fn sync_all(shared: &Shared, logs: &VecDeque<Arc<SegmentLog>>) {
        let rounds: Vec<Round> = logs.iter().map(|log| log.begin_round()).collect();
        let outcome = shared.disk.sync_filesystem().map_err(Arc::new);
        for (log, round) in logs.iter().zip(rounds) {
            log.end_round(round, outcome.clone());
        }
    }
}
