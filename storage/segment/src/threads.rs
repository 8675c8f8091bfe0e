//! The seam between the engine and threads: work that waits for a device is a job put on a lane.
//!
//! **Why it exists.** Nothing in this crate starts a thread or sleeps but [`ThreadPools`]; a simulator runs the same jobs
//! one at a time, in the order its seed says.
//!
//! **What must stay true.** A job never waits for another job: whatever must come after is put on a lane when it is due.
//! So one thread per lane, or one for all, is enough to finish everything.

use std::collections::{BTreeMap, VecDeque};
use std::io;
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

    /// Runs a job after `wait`, or as soon then as a thread of the lane is free.
    fn run_after(&self, wait: Duration, lane: Lane, job: Job);
}

/// How long a thread without work stays: long enough to serve steady traffic, short enough that an idle broker is small.
const IDLE_STAY: Duration = Duration::from_secs(10);

/// Threads for ordered work other than syncs and reads. Rarely busy: two, so that one slow device operation does not hold
/// up every other log's.
const WORK_THREADS: usize = 2;

/// Starts a thread of that name. Who embeds the engine may have rules of its own for threads, as that they take no signals.
pub type StartThread = fn(&'static str, Job) -> io::Result<()>;

fn start_thread(name: &'static str, work: Job) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// A few threads per lane, started when there is work.
pub struct ThreadPools {
    read: Arc<Pool>,
    sync: Arc<Pool>,
    work: Arc<Pool>,
}

impl ThreadPools {
    pub fn new(read_threads: usize, sync_threads: usize) -> Self {
        Self::started_by(start_thread, read_threads, sync_threads)
    }

    pub fn started_by(start: StartThread, read_threads: usize, sync_threads: usize) -> Self {
        Self {
            read: Pool::new("wal-read", read_threads, start),
            sync: Pool::new("wal-sync", sync_threads, start),
            work: Pool::new("wal-work", WORK_THREADS, start),
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

    fn run_after(&self, wait: Duration, lane: Lane, job: Job) {
        self.pool(lane).add(Some(Instant::now() + wait), job);
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
    start: StartThread,
    jobs: Mutex<Jobs>,
    wake: Condvar,
}

#[derive(Default)]
struct Jobs {
    due: VecDeque<Job>,
    /// By when they are due, then in order of arrival.
    later: BTreeMap<(Instant, u64), Job>,
    arrivals: u64,
    /// When a thread without work looks next for what has become due: one of them keeps the time for all.
    looks_at: Option<Instant>,
    threads: usize,
    idle: usize,
    ending: bool,
}

impl Pool {
    fn new(name: &'static str, threads_max: usize, start: StartThread) -> Arc<Self> {
        Arc::new(Self { name, threads_max, start, jobs: Mutex::default(), wake: Condvar::new() })
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
                // Whoever is at work, often the one who asks, looks for it when it is done.
                if jobs.looks_at.is_some_and(|at| at <= when) || jobs.threads > jobs.idle {
                    return;
                }
            }
        }
        if jobs.idle > 0 {
            drop(jobs);
            self.wake.notify_one();
        } else if jobs.threads < self.threads_max {
            jobs.threads += 1;
            drop(jobs);
            let pool = Presence(self.clone());
            let started = (self.start)(self.name, Box::new(move || pool.0.serve()));
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
                // What became due with it need not wait for it.
                if !jobs.due.is_empty() && jobs.idle > 0 {
                    self.wake.notify_one();
                }
                drop(jobs);
                job();
                jobs = self.jobs();
                continue;
            }
            if jobs.ending {
                return;
            }
            let first = jobs.later.first_key_value().map(|(&(when, _), _)| when);
            let looks_at = first.filter(|first| jobs.looks_at.is_none_or(|at| at > *first));
            if looks_at.is_some() {
                jobs.looks_at = looks_at;
            }
            let wait = looks_at.map_or(IDLE_STAY, |at| at - now);
            jobs.idle += 1;
            let (woken, outcome) = self.wake.wait_timeout(jobs, wait).unwrap_or_else(PoisonError::into_inner);
            jobs = woken;
            jobs.idle -= 1;
            if looks_at.is_some() && jobs.looks_at == looks_at {
                jobs.looks_at = None;
            }
            let kept = jobs.later.is_empty() || jobs.looks_at.is_some();
            if outcome.timed_out() && jobs.due.is_empty() && kept {
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

#[cfg(test)]
mod tests {
    use super::{Lane, ThreadPools, Threads};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    /// Only a hang takes as long.
    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_due_later_is_done_by_a_thread_that_was_idle_one_that_was_busy_and_one_that_was_not_there() {
        let threads = Arc::new(ThreadPools::new(1, 4));
        let (done, told) = mpsc::channel();
        let tell = |what: &'static str| {
            let done = done.clone();
            Box::new(move || done.send(what).expect("the test waits"))
        };
        threads.run_after(Duration::from_millis(1), Lane::Sync, tell("nobody was there"));
        assert_eq!(told.recv_timeout(SOON), Ok("nobody was there"));
        // By now it is idle, or about to be.
        threads.run_after(100 * SOON, Lane::Sync, tell("much later"));
        threads.run_after(Duration::from_millis(1), Lane::Sync, tell("idle"));
        assert_eq!(told.recv_timeout(SOON), Ok("idle"));
        let (pool, later) = (threads.clone(), tell("busy"));
        threads.run(Lane::Sync, Box::new(move || pool.run_after(Duration::from_millis(1), Lane::Sync, later)));
        assert_eq!(told.recv_timeout(SOON), Ok("busy"));
    }

    #[test]
    fn what_becomes_due_beside_a_slow_job_does_not_wait_for_it() {
        let threads = ThreadPools::new(1, 2);
        let (go, slow) = mpsc::channel::<()>();
        let (done, told) = mpsc::channel();
        // Two threads are there, and idle.
        let (meet, met) = mpsc::sync_channel(0);
        threads.run(Lane::Sync, Box::new(move || meet.send(()).expect("the other one comes")));
        threads.run(Lane::Sync, Box::new(move || met.recv().expect("the other one comes")));
        let waits = move || assert_eq!(slow.recv(), Err(mpsc::RecvError), "nobody sends");
        threads.run_after(Duration::from_millis(5), Lane::Sync, Box::new(waits));
        threads.run_after(
            Duration::from_millis(5),
            Lane::Sync,
            Box::new(move || done.send(()).expect("the test waits")),
        );
        assert_eq!(told.recv_timeout(SOON), Ok(()));
        drop(go);
    }
}
