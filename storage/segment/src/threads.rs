//! The seam between the engine and threads: work that waits for a device is a job put on a lane.
//!
//! **Why it exists.** Nothing in this crate starts a thread or sleeps but [`ThreadPools`]; a simulator runs the same jobs
//! one at a time, in the order its seed says.
//!
//! **What must stay true.** A job never waits for another job: whatever must come after is put on a lane when it is due.
//! So one thread per lane, or one for all, is enough to finish everything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub type Job = Box<dyn FnOnce() + Send>;

/// Jobs of different lanes do not hold each other up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Reads that wait for the device.
    Read,
    /// Making logs durable.
    Sync,
    /// Everything else: truncations, small values, opening, deleting, writing that was handed over.
    Work,
}

pub trait Threads: Send + Sync {
    fn run(&self, lane: Lane, job: Job);

    /// Runs a job on [`Lane::Work`] after `wait`.
    fn run_after(&self, wait: Duration, job: Job);
}

/// How long a thread without work stays: long enough to serve steady traffic, short enough that an idle broker is small.
const IDLE_STAY: Duration = Duration::from_secs(10);

/// Threads for ordered work other than syncs and reads. Rarely busy: two, so that one slow device operation does not hold
/// up every other log's.
const WORK_THREADS: usize = 2;

/// A few threads per lane, started when there is work.
pub struct ThreadPools {
    read: Arc<Pool>,
    sync: Arc<Pool>,
    work: Arc<Pool>,
}

impl ThreadPools {
    pub fn new(read_threads: usize, sync_threads: usize) -> Self {
        Self {
            read: Pool::new("wal-read", read_threads),
            sync: Pool::new("wal-sync", sync_threads),
            work: Pool::new("wal-work", WORK_THREADS),
        }
    }

    fn pool(&self, lane: Lane) -> &Arc<Pool> {
        match lane {
            Lane::Read => &self.read,
            Lane::Sync => &self.sync,
            Lane::Work => &self.work,
        }
    }
}

impl Threads for ThreadPools {
    fn run(&self, lane: Lane, job: Job) {
        self.pool(lane).add(None, job);
    }

    fn run_after(&self, wait: Duration, job: Job) {
        self.work.add(Some(Instant::now() + wait), job);
    }
}

impl Drop for ThreadPools {
    fn drop(&mut self) {
        for pool in [&self.read, &self.sync, &self.work] {
            pool.jobs().ending = true;
            pool.wake.notify_all();
        }
    }
}

struct Pool {
    name: &'static str,
    threads_max: usize,
    jobs: Mutex<Jobs>,
    wake: Condvar,
}

#[derive(Default)]
struct Jobs {
    due: VecDeque<Job>,
    /// By when they are due, then in order of arrival.
    later: BTreeMap<(Instant, u64), Job>,
    arrivals: u64,
    threads: usize,
    idle: usize,
    ending: bool,
}

impl Pool {
    fn new(name: &'static str, threads_max: usize) -> Arc<Self> {
        Arc::new(Self { name, threads_max, jobs: Mutex::default(), wake: Condvar::new() })
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // No job runs under this lock, and single pushes and pops leave the queues valid.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, when: Option<Instant>, job: Job) {
        let mut jobs = self.jobs();
        match when {
            None => jobs.due.push_back(job),
            Some(when) => {
                jobs.arrivals += 1;
                let arrival = jobs.arrivals;
                jobs.later.insert((when, arrival), job);
            }
        }
        if jobs.idle > 0 {
            drop(jobs);
            self.wake.notify_one();
        } else if jobs.threads < self.threads_max {
            jobs.threads += 1;
            drop(jobs);
            let pool = Presence(self.clone());
            let started = thread::Builder::new().name(self.name.into()).spawn(move || pool.0.serve());
            if started.is_err() && self.jobs().threads == 0 {
                // The system gives no thread, and nobody else will take the job: slow is better than never.
                Presence::enter(self).0.serve();
            }
        }
    }

    fn serve(&self) {
        let mut jobs = self.jobs();
        loop {
            let now = Instant::now();
            while let Some(first) = jobs.later.first_entry().filter(|first| first.key().0 <= now) {
                let job = first.remove();
                jobs.due.push_back(job);
            }
            if let Some(job) = jobs.due.pop_front() {
                drop(jobs);
                job();
                jobs = self.jobs();
                continue;
            }
            if jobs.ending {
                return;
            }
            let wait = jobs.later.first_key_value().map_or(IDLE_STAY, |(&(when, _), _)| when - now);
            jobs.idle += 1;
            let (woken, outcome) = self.wake.wait_timeout(jobs, wait).unwrap_or_else(PoisonError::into_inner);
            jobs = woken;
            jobs.idle -= 1;
            if outcome.timed_out() && jobs.due.is_empty() && jobs.later.is_empty() {
                return;
            }
        }
    }
}

/// Counts a thread out when it ends, however it ends.
struct Presence(Arc<Pool>);

impl Presence {
    fn enter(pool: &Arc<Pool>) -> Self {
        pool.jobs().threads += 1;
        Self(pool.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.jobs().threads -= 1;
    }
}
