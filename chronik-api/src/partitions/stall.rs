//! Watches over writes that are done inside tasks, so that one slow write does not hold up every connection.
//!
//! A worker of the runtime that blocks in a write may be the one that was to look at the sockets next, while the others
//! sleep. Waking one of them before each write would cost more than most writes; so a thread looks every
//! [`STALL`], and wakes a worker (by an empty task) only where a write has lasted that long. With no writes for
//! [`QUIET`] it sleeps until there is one again.
//!
//! Where there is no other worker to wake, or all are blocked, that does not help. So for [`SLOW_FOR`] after a write that has
//! lasted [`SLOW`], those that follow hand their worker's other work to another thread first: a disk that was slow once mostly
//! is for a while. Not after a shorter one: on a busy machine a thread waits some milliseconds for its core, and a broker that
//! took that for the disk's doing would hand over at every write.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A write that lasts longer than this holds others up noticeably.
const STALL: Duration = Duration::from_millis(2);
/// No wait for a core takes so long, and no disk that is well.
const SLOW: Duration = Duration::from_millis(100);
/// So long after one that did, writes are expected to last.
const SLOW_FOR: Duration = Duration::from_secs(1);
/// After so long without a write, looking for them stops.
const QUIET: Duration = Duration::from_millis(100);
/// How soon the thread notices that nobody needs it any more.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Threads that may write at the same time; more share places, and a shared place may hide a stall from view.
const PLACES: usize = 64;

/// See the module's head.
pub struct StallWatch {
    start: Instant,
    /// When the write of each thread began, in microseconds since `start`; zero while it does not write.
    began_us: [AtomicU64; PLACES],
    asleep: AtomicBool,
    /// Until when writes are expected to last, in microseconds since `start`.
    slow_until_us: AtomicU64,
    thread: Thread,
}

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

impl StallWatch {
    /// Starts watching on behalf of this runtime.
    pub fn start(runtime: tokio::runtime::Handle) -> std::io::Result<Arc<Self>> {
        let (give, take) = std::sync::mpsc::channel::<Weak<Self>>();
        let thread = std::thread::Builder::new().name("stall-watch".into()).spawn(move || {
            if let Ok(watch) = take.recv() {
                look(&watch, &runtime);
            }
        })?;
        let watch = Arc::new(Self {
            start: Instant::now(),
            began_us: [const { AtomicU64::new(0) }; PLACES],
            asleep: AtomicBool::new(false),
            slow_until_us: AtomicU64::new(0),
            thread: thread.thread().clone(),
        });
        // The thread waits for just this; it cannot have gone.
        let _ = give.send(Arc::downgrade(&watch));
        Ok(watch)
    }

    /// Does `write`, watched.
    pub fn during<R>(&self, write: impl FnOnce() -> R) -> R {
        let place = PLACE.with(|place| &self.began_us[*place]);
        let now_us = self.now_us();
        place.store(now_us.max(1), Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        let result = match now_us < self.slow_until_us.load(Ordering::Relaxed) && has_workers() {
            true => tokio::task::block_in_place(write),
            false => write(),
        };
        place.store(0, Ordering::SeqCst);
        result
    }

    /// A write lasts: those that follow may, too.
    fn expect_slow_writes(&self) {
        let until = self.start.elapsed() + SLOW_FOR;
        self.slow_until_us.store(u64::try_from(until.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The longest that any write under way has lasted.
    fn longest(&self) -> Option<Duration> {
        let now = self.now_us();
        let began = self.began_us.iter().map(|began| began.load(Ordering::SeqCst)).filter(|began| *began > 0);
        began.map(|began| Duration::from_micros(now.saturating_sub(began))).max()
    }
}

/// Whether this thread is one of a runtime that can go on with its work on another.
fn has_workers() -> bool {
    let here = tokio::runtime::Handle::try_current();
    here.is_ok_and(|runtime| runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
}

fn look(watch: &Weak<StallWatch>, runtime: &tokio::runtime::Handle) {
    let mut last_write = Instant::now();
    loop {
        let Some(watch) = watch.upgrade() else { return };
        match watch.longest() {
            Some(lasted) => {
                last_write = Instant::now();
                if lasted >= SLOW {
                    watch.expect_slow_writes();
                }
                if lasted >= STALL {
                    drop(runtime.spawn(async {}));
                }
            }
            None if last_write.elapsed() > QUIET => {
                watch.asleep.store(true, Ordering::SeqCst);
                // A write that began just before may not have seen that.
                if watch.longest().is_none() {
                    drop(watch);
                    std::thread::park_timeout(LEAVE_WITHIN);
                }
                continue;
            }
            None => {}
        }
        drop(watch);
        std::thread::sleep(STALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_write_gets_another_worker_to_look_at_what_is_ready() {
        // One worker is blocked in a write; a timer that only the runtime's driver can fire must fire all the same.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let watch = StallWatch::start(runtime.handle().clone()).unwrap();
        let fired = Arc::new(AtomicBool::new(false));
        let seen = fired.clone();
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            seen.store(true, Ordering::SeqCst);
        });
        let writing = runtime.spawn(async move {
            let patience = Instant::now();
            watch.during(|| {
                while !fired.load(Ordering::SeqCst) {
                    assert!(patience.elapsed() < Duration::from_secs(60), "the timer never fires");
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        });
        runtime.block_on(writing).unwrap();
    }

    #[test]
    fn where_a_write_has_lasted_the_next_one_leaves_its_only_worker_to_others() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let watch = StallWatch::start(runtime.handle().clone()).unwrap();
        let writing = runtime.spawn(async move {
            let patience = Instant::now();
            let impatient = |what| {
                assert!(patience.elapsed() < Duration::from_secs(60), "{what}");
                std::thread::sleep(Duration::from_millis(1));
            };
            watch.during(|| {
                while watch.slow_until_us.load(Ordering::SeqCst) == 0 {
                    impatient("nobody sees that it lasts");
                }
            });
            let served = Arc::new(AtomicBool::new(false));
            let other = served.clone();
            tokio::spawn(async move { other.store(true, Ordering::SeqCst) });
            // As it stands by now, but for longer: this machine may be slow, too.
            watch.slow_until_us.store(u64::MAX, Ordering::SeqCst);
            watch.during(|| {
                while !served.load(Ordering::SeqCst) {
                    impatient("nothing else is served");
                }
            });
        });
        runtime.block_on(writing).unwrap();
    }
}
