//! What must be handed back to a plug-in while one of its callbacks runs is handed back by another thread: a plug-in may
//! call back under its own locks, and entering it there would lock up.
//!
//! The same thread keeps the time in which calls must complete.

use crate::slots;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often overdue calls are looked for: their deadlines are seconds.
const LOOK_EVERY: Duration = Duration::from_millis(50);

thread_local! {
    static IN_CALLBACK: Cell<u32> = const { Cell::new(0) };
}

/// What takes back what a plug-in has handed out.
pub(crate) type Release = unsafe extern "C" fn(*mut c_void);

/// What is to be handed back.
struct Task {
    release: Release,
    token: *mut c_void,
}

// SAFETY: the token is one that only `release` interprets, and the contract lets that be called from any thread.
unsafe impl Send for Task {}

impl Task {
    fn hand_back(self) {
        // SAFETY: whoever made it vouches for both, and it is used up here.
        unsafe { (self.release)(self.token) }
    }
}

static REAPER: LazyLock<Mutex<Sender<Task>>> = LazyLock::new(|| {
    let (tasks, wait) = channel::<Task>();
    let work = move || {
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            match wait.recv_timeout(look.saturating_duration_since(Instant::now())) {
                Ok(task) => task.hand_back(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= look {
                slots::give_up_overdue(TICKS.fetch_add(1, Ordering::Relaxed) + 1);
                look = Instant::now() + LOOK_EVERY;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("plugin-reaper".into()).spawn(work) {
        tracing::error!(%error, "no thread watches over plug-ins: their buffers are not released");
    }
    Mutex::new(tasks)
});

/// Counts [`LOOK_EVERY`]s: a clock that costs a call next to nothing to read.
static TICKS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn tick() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// At least that long.
pub(crate) fn ticks_in(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / LOOK_EVERY.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Starts the thread, so that deadlines are kept.
pub(crate) fn start() {
    LazyLock::force(&REAPER);
}

/// Runs `work` as part of a callback.
pub(crate) fn in_callback<R>(work: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_CALLBACK.with(|depth| depth.set(depth.get() - 1));
        }
    }
    IN_CALLBACK.with(|depth| depth.set(depth.get() + 1));
    let _leave = Leave;
    work()
}

/// Calls into a plug-in to hand something back: here, or if a callback is running here, elsewhere.
///
/// # Safety
/// A plug-in has given both together, to be called from any thread, and this is the only time.
pub(crate) unsafe fn hand_back(release: Release, token: *mut c_void) {
    let task = Task { release, token };
    if IN_CALLBACK.with(Cell::get) == 0 {
        return task.hand_back();
    }
    let tasks = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let _gone_only_with_the_process = tasks.send(task);
}
