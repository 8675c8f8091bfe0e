//! Watches over writes that are done inside tasks, so that one slow write does not hold up every connection.
//!
//! A worker of the runtime that blocks in a write may be the one that was to look at the sockets next, while the others
//! sleep. Waking one of them before each write would cost more than most writes; so a thread looks every
//! [`STALL`], and wakes a worker (by an empty task) only where a write has lasted that long. With no writes for
//! [`QUIET`] it sleeps until there is one again.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A write that lasts longer than this holds others up noticeably.
const STALL: Duration = Duration::from_millis(2);
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
            thread: thread.thread().clone(),
        });
        // The thread waits for just this; it cannot have gone.
        let _ = give.send(Arc::downgrade(&watch));
        Ok(watch)
    }

    /// Does `write`, watched.
    pub fn during<R>(&self, write: impl FnOnce() -> R) -> R {
        let place = PLACE.with(|place| &self.began_us[*place]);
        place.store(self.now_us().max(1), Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        let result = write();
        place.store(0, Ordering::SeqCst);
        result
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

fn look(watch: &Weak<StallWatch>, runtime: &tokio::runtime::Handle) {
    let mut last_write = Instant::now();
    loop {
        let Some(watch) = watch.upgrade() else { return };
        match watch.longest() {
            Some(lasted) => {
                last_write = Instant::now();
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
}
