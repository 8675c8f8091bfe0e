//! Making logs durable: a queue of those that wait, and a few jobs that take from it.
//!
//! **Group commit.** A log is in the queue or being synced at most once; who asks meanwhile waits for the round after, which
//! begins when the present one ends and carries all of them. What waits at once is *gathered*: rounds
//! that carry little are made durable together, by one sync of the [`crate::journal`]; the others in their own files, side
//! by side as far as there are threads. One job gathers at a time: what arrives while it is at work is its next round, and
//! the busier the logs, the more of them share a sync. Where the journal cannot take any, each log is synced by itself, or
//! when many wait at once and it is allowed, the whole file system is. Nothing here waits for anything but the device.

use crate::journal::Gathered;
use crate::log::SegmentLog;
use crate::shared::Shared;
use crate::threads::Lane;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub struct Syncer {
    threads_max: usize,
    /// After a sync that many logs shared, until what came meanwhile is gathered.
    gather_wait: Duration,
    /// From how many waiting logs on the whole file system is synced, if that is allowed.
    filesystem_from_logs: Option<usize>,
    queue: Mutex<Queue>,
}

/// Logs whose rounds are begun together.
const GATHERED_MAX: usize = 256;

/// From how many logs in one sync of the journal on the next one is waited for. Fewer are what a few writers give that
/// wait for each answer, and gain nothing.
const WAIT_FROM_LOGS: usize = 3;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<SegmentLog>>,
    /// Begun, and to be synced in their own files.
    in_place: VecDeque<Gathered>,
    /// A job gathers.
    gathering: bool,
    running: usize,
}

/// What a job does next.
enum Step {
    FileSystem(VecDeque<Arc<SegmentLog>>),
    InPlace(Gathered),
    Gather(Vec<Arc<SegmentLog>>),
    Alone(Arc<SegmentLog>),
}

impl Syncer {
    pub fn new(threads_max: usize, gather_wait: Duration, filesystem_from_logs: Option<usize>) -> Self {
        Self { threads_max, gather_wait, filesystem_from_logs, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Single pushes and pops leave the queue valid.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a log, which has made sure that it is not there already.
    pub fn add(&self, shared: &Arc<Shared>, log: Arc<SegmentLog>) {
        let mut queue = self.queue();
        queue.waiting.push_back(log);
        if !queue.gathering {
            self.start(shared, queue);
        }
    }

    /// Has one more job work, if there may be one.
    fn start(&self, shared: &Arc<Shared>, mut queue: MutexGuard<'_, Queue>) {
        if queue.running < self.threads_max {
            queue.running += 1;
            drop(queue);
            let shared = shared.clone();
            shared.clone().threads.run(Lane::Sync, Box::new(move || shared.syncer.work(&shared)));
        }
    }

    fn work(&self, shared: &Arc<Shared>) {
        while let Some(step) = self.next(shared) {
            match step {
                Step::FileSystem(logs) => Self::sync_all(shared, logs.into_iter().map(Gathered::begin).collect()),
                Step::InPlace(Gathered { log, round }) => {
                    log.begin_own_sync();
                    let outcome = round.sync_files(&*shared.disk);
                    log.end_round(round, outcome);
                }
                Step::Gather(logs) => self.gather(shared, logs),
                Step::Alone(log) => {
                    let Gathered { log, round } = Gathered::begin(log);
                    log.begin_own_sync();
                    let outcome = round.sync_files(&*shared.disk);
                    log.end_round(round, outcome);
                }
            }
        }
    }

    fn next(&self, shared: &Arc<Shared>) -> Option<Step> {
        let mut queue = self.queue();
        if let Some(gathered) = queue.in_place.pop_front() {
            return Some(Step::InPlace(gathered));
        }
        let ready = shared.journal.is_ready();
        if !ready && self.is_many(queue.waiting.len()) {
            return Some(Step::FileSystem(std::mem::take(&mut queue.waiting)));
        }
        if !queue.waiting.is_empty() && !queue.gathering && ready {
            queue.gathering = true;
            let count = queue.waiting.len().min(GATHERED_MAX);
            return Some(Step::Gather(queue.waiting.drain(..count).collect()));
        }
        let log = if queue.gathering { None } else { queue.waiting.pop_front() };
        match log {
            Some(log) => {
                let more = !queue.waiting.is_empty();
                drop(queue);
                if more && !ready {
                    shared.journal.wish(shared);
                }
                Some(Step::Alone(log))
            }
            None => {
                queue.running -= 1;
                None
            }
        }
    }

    /// Begins the rounds of all these, makes those that carry little durable together, and leaves the others to be synced
    /// in their own files.
    fn gather(&self, shared: &Arc<Shared>, logs: Vec<Arc<SegmentLog>>) {
        let (small, mut in_place): (Vec<_>, Vec<_>) =
            logs.into_iter().map(Gathered::begin).partition(|gathered| gathered.round.is_small());
        let carried = shared.journal.write(shared, small);
        let many = carried.durable.len() >= WAIT_FROM_LOGS && !self.gather_wait.is_zero();
        carried.durable.into_iter().for_each(|Gathered { log, round }| log.end_round(round, Ok(())));
        in_place.extend(carried.left);
        if self.is_many(in_place.len()) {
            Self::sync_all(shared, std::mem::take(&mut in_place));
        }
        let mut queue = self.queue();
        queue.in_place.extend(in_place);
        // Syncs in the logs' own files are a wait already.
        let waits = many && queue.in_place.is_empty();
        queue.gathering = waits;
        if waits {
            let after = shared.clone();
            let again = Box::new(move || after.syncer.gather_again(&after));
            shared.threads.run_after(self.gather_wait, Lane::Sync, again);
        }
        // This job goes on with one of them, or gathers what waits.
        let alone = if waits || shared.journal.is_ready() { 0 } else { queue.waiting.len() };
        let count = (queue.in_place.len() + alone).min(self.threads_max);
        drop(queue);
        (1..count).for_each(|_| self.start(shared, self.queue()));
    }

    /// The wait is over: this is a job of the syncer's itself.
    fn gather_again(&self, shared: &Arc<Shared>) {
        let mut queue = self.queue();
        queue.gathering = false;
        queue.running += 1;
        drop(queue);
        self.work(shared);
    }

    /// Whether so many are better served by one sync of the file system.
    fn is_many(&self, logs: usize) -> bool {
        self.filesystem_from_logs.is_some_and(|from| logs >= from)
    }

    fn sync_all(shared: &Shared, gathered: Vec<Gathered>) {
        gathered.iter().for_each(|gathered| gathered.log.begin_own_sync());
        let outcome = shared.disk.sync_filesystem().map_err(Arc::new);
        for Gathered { log, round } in gathered {
            log.end_round(round, outcome.clone());
        }
    }
}
