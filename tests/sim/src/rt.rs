//! Time and turns: one thread, a clock that only jumps, and tasks that belong to processes.
//!
//! **Why its own.** What production leaves to an operating system and a runtime is here one queue, ordered by time and then
//! by number, so that the same seed gives the same turns. A task waits with ordinary `async`; what ends a wait is a timed
//! event or another task, never a thread.
//!
//! **Processes.** Everything that happens belongs to a process. One that is paused has its turns kept until it is resumed,
//! its clock running on, as with SIGSTOP; one that is dead has none any more, and its tasks are dropped where they wait.
//!
//! **Jobs of a dead engine are done nevertheless.** Its disk leads nowhere by then, so nothing comes of them; but an engine
//! has logs wait for a job that was put on a lane, and would hold itself for ever if that were never done.

use crate::dice::Dice;
use crate::trace::Trace;
use chronik_core::time::{Monotonic, Now, Timestamp};
use chronik_storage_segment::threads::{Job, Lane};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// One life of a process; the world itself is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u64);

pub const WORLD: Process = Process(0);

/// Wall time at the beginning of every story.
const WALL_BEGIN_MS: i64 = 1_700_000_000_000;

/// What the jobs of dead engines put on lanes at the end of a story is done as often. Some try again and again.
const LAST_JOBS_ROUNDS: usize = 10;

/// A task's number, and its place among those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId {
    number: u64,
    place: usize,
}

enum What {
    /// Unless whoever waits has gone on meanwhile.
    Wake(Waker, Rc<Cell<bool>>),
    Call(Box<dyn FnOnce()>),
    /// An engine's.
    Job(Job),
}

struct Event {
    of: Process,
    what: What,
}

/// When, in which order of those, and the event's place among those that will be. Small, since a heap moves what it holds.
type Due = (u64, u64, usize);

/// Things in places of their own, which are used again.
struct Places<T> {
    things: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Places<T> {
    /// Where the next thing will be.
    fn next(&self) -> usize {
        self.free.last().copied().unwrap_or(self.things.len())
    }

    fn put(&mut self, thing: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.things[place] = Some(thing);
                place
            }
            None => {
                self.things.push(Some(thing));
                self.things.len() - 1
            }
        }
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.things.get_mut(place)?.as_mut()
    }

    fn take(&mut self, place: usize) -> Option<T> {
        let thing = self.things.get_mut(place)?.take()?;
        self.free.push(place);
        Some(thing)
    }
}

struct Task {
    number: u64,
    of: Process,
    waker: Waker,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// How a process's clock runs beside the true one.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Parts of a million that its monotonic clock gains; negative ones it loses.
    drift_ppm: i64,
    wall_offset_ms: i64,
}

struct State {
    clock: Clock,
    is_paused: bool,
    kept_events: Vec<What>,
    kept_tasks: Vec<TaskId>,
}

/// Work that an engine has put on a lane, from within whatever called it.
struct Put {
    of: Process,
    lane: Lane,
    wait: Option<Duration>,
    job: Job,
}

/// What must be reachable from `Send` types; only ever locked by the one thread.
#[derive(Default)]
struct Shared {
    ready: Mutex<VecDeque<TaskId>>,
    put: Mutex<Vec<Put>>,
}

/// How long an engine's jobs take, per process.
#[derive(Clone, Copy, Debug)]
pub struct DiskPace {
    pub least: Duration,
    pub most: Duration,
}

struct Inner {
    now_us: Cell<u64>,
    numbers: Cell<u64>,
    turns: Cell<u64>,
    due: RefCell<BinaryHeap<Reverse<Due>>>,
    events: RefCell<Places<Event>>,
    tasks: RefCell<Places<Task>>,
    processes: RefCell<BTreeMap<Process, State>>,
    paces: RefCell<BTreeMap<Process, DiskPace>>,
    shared: Arc<Shared>,
    dice: RefCell<Dice>,
    trace: RefCell<Trace>,
}

/// A handle on the world's time.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

struct TaskWaker {
    shared: Arc<Shared>,
    id: TaskId,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.shared.ready).push_back(self.id);
    }
}

/// Where an engine of a process puts its jobs.
pub struct Lanes {
    shared: Arc<Shared>,
    of: Process,
}

impl chronik_storage_segment::threads::Threads for Lanes {
    fn run(&self, lane: Lane, job: Job) {
        lock(&self.shared.put).push(Put { of: self.of, lane, wait: None, job });
    }
    fn run_after(&self, wait: Duration, lane: Lane, job: Job) {
        lock(&self.shared.put).push(Put { of: self.of, lane, wait: Some(wait), job });
    }
}

impl Sim {
    pub fn new(dice: Dice, trace: Trace) -> Self {
        let sim = Self(Rc::new(Inner {
            now_us: Cell::new(0),
            numbers: Cell::new(0),
            turns: Cell::new(0),
            due: RefCell::default(),
            events: RefCell::default(),
            tasks: RefCell::default(),
            processes: RefCell::default(),
            paces: RefCell::default(),
            shared: Arc::default(),
            dice: RefCell::new(dice),
            trace: RefCell::new(trace),
        }));
        sim.begin(WORLD, 0, 0);
        sim
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.now_us.get())
    }

    /// How much has happened.
    pub fn turns(&self) -> u64 {
        self.0.turns.get()
    }

    /// The clocks as a process reads them.
    pub fn now(&self, of: Process) -> Now {
        let clock = self.clock(of);
        let us = i64::try_from(self.0.now_us.get()).unwrap_or(i64::MAX);
        let own = us + us / 1_000 * clock.drift_ppm / 1_000;
        Now {
            monotonic: Monotonic(Duration::from_micros(own.unsigned_abs())),
            wall: Timestamp(WALL_BEGIN_MS + own / 1_000 + clock.wall_offset_ms),
        }
    }

    fn clock(&self, of: Process) -> Clock {
        let processes = self.0.processes.borrow();
        processes.get(&of).map_or(Clock { drift_ppm: 0, wall_offset_ms: 0 }, |state| state.clock)
    }

    /// A span on a process's clock, in true time.
    fn true_span(&self, of: Process, span: Duration) -> Duration {
        let drift = self.clock(of).drift_ppm;
        let us = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Duration::from_micros((us - us / 1_000 * drift / 1_000).unsigned_abs())
    }

    pub fn roll<R>(&self, with: impl FnOnce(&mut Dice) -> R) -> R {
        with(&mut self.0.dice.borrow_mut())
    }

    /// A line of the story.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.0.trace.borrow_mut().tell(self.elapsed(), line);
    }

    /// What makes two stories different, without words for it.
    pub fn mark(&self, what: u64) {
        self.0.trace.borrow_mut().mark(what);
    }

    pub fn trace(&self) -> std::cell::RefMut<'_, Trace> {
        self.0.trace.borrow_mut()
    }

    pub fn begin(&self, of: Process, drift_ppm: i64, wall_offset_ms: i64) {
        let clock = Clock { drift_ppm, wall_offset_ms };
        let state = State { clock, is_paused: false, kept_events: Vec::new(), kept_tasks: Vec::new() };
        self.0.processes.borrow_mut().insert(of, state);
    }

    /// Wall time jumps; the monotonic clock does not.
    pub fn jump_wall(&self, of: Process, by_ms: i64) {
        if let Some(state) = self.0.processes.borrow_mut().get_mut(&of) {
            state.clock.wall_offset_ms += by_ms;
        }
    }

    /// Its tasks are dropped, and nothing of it happens any more. Must not be called from within one of its own.
    pub fn end(&self, of: Process) {
        let state = self.0.processes.borrow_mut().remove(&of);
        for what in state.into_iter().flat_map(|state| state.kept_events) {
            if matches!(what, What::Job(_)) {
                self.push(of, Duration::ZERO, what);
            }
        }
        let mut gone: Vec<(u64, usize)> = {
            let tasks = self.0.tasks.borrow();
            let all = tasks.things.iter().enumerate().filter_map(|(place, task)| Some((place, task.as_ref()?)));
            all.filter(|(_, task)| task.of == of).map(|(place, task)| (task.number, place)).collect()
        };
        // In the order in which they began, which their places do not tell.
        gone.sort_unstable();
        for (number, place) in gone {
            // Dropped outside of the borrow: a task's end may wake others.
            let task = self.take_task(TaskId { number, place });
            drop(task);
        }
    }

    pub fn is_alive(&self, of: Process) -> bool {
        self.0.processes.borrow().contains_key(&of)
    }

    pub fn is_running(&self, of: Process) -> bool {
        self.0.processes.borrow().get(&of).is_some_and(|state| !state.is_paused)
    }

    pub fn pause(&self, of: Process) {
        if let Some(state) = self.0.processes.borrow_mut().get_mut(&of) {
            state.is_paused = true;
        }
    }

    /// Everything that became due meanwhile happens now, in order.
    pub fn resume(&self, of: Process) {
        let (events, tasks) = match self.0.processes.borrow_mut().get_mut(&of) {
            Some(state) if state.is_paused => {
                state.is_paused = false;
                (std::mem::take(&mut state.kept_events), std::mem::take(&mut state.kept_tasks))
            }
            _ => return,
        };
        for what in events {
            self.push(of, Duration::ZERO, what);
        }
        lock(&self.0.shared.ready).extend(tasks);
    }

    pub fn set_pace(&self, of: Process, pace: DiskPace) {
        self.0.paces.borrow_mut().insert(of, pace);
    }

    pub fn lanes(&self, of: Process) -> Arc<Lanes> {
        Arc::new(Lanes { shared: self.0.shared.clone(), of })
    }

    fn number(&self) -> u64 {
        self.0.numbers.set(self.0.numbers.get() + 1);
        self.0.numbers.get()
    }

    fn push(&self, of: Process, after: Duration, what: What) {
        let at_us = self.0.now_us.get() + u64::try_from(after.as_micros()).unwrap_or(u64::MAX / 2);
        let number = self.number();
        let place = self.0.events.borrow_mut().put(Event { of, what });
        self.0.due.borrow_mut().push(Reverse((at_us, number, place)));
    }

    /// The task, if it is still the one that is there.
    fn take_task(&self, id: TaskId) -> Option<Task> {
        let mut tasks = self.0.tasks.borrow_mut();
        tasks.get_mut(id.place).filter(|task| task.number == id.number)?;
        tasks.take(id.place)
    }

    /// Calls after a true span of time, if the process lives then.
    pub fn after(&self, of: Process, span: Duration, call: impl FnOnce() + 'static) {
        self.push(of, span, What::Call(Box::new(call)));
    }

    pub fn spawn(&self, of: Process, future: impl Future<Output = ()> + 'static) {
        if !self.is_alive(of) {
            return;
        }
        let number = self.number();
        let mut tasks = self.0.tasks.borrow_mut();
        let id = TaskId { number, place: tasks.next() };
        let waker = Waker::from(Arc::new(TaskWaker { shared: self.0.shared.clone(), id }));
        tasks.put(Task { number, of, waker, future: Some(Box::pin(future)) });
        lock(&self.0.shared.ready).push_back(id);
    }

    /// Waits on a process's own clock.
    pub fn sleep(&self, of: Process, span: Duration) -> Sleep {
        let span = self.true_span(of, span);
        let until_us = self.0.now_us.get() + u64::try_from(span.as_micros()).unwrap_or(u64::MAX / 2);
        Sleep { sim: self.clone(), of, until_us, waits: None }
    }

    /// Until a process's own clock shows that.
    pub fn sleep_until(&self, of: Process, at: Monotonic) -> Sleep {
        let now = self.now(of).monotonic;
        self.sleep(of, at.0.saturating_sub(now.0))
    }

    /// The outcome, or `None` if it takes longer.
    pub async fn within<T>(&self, of: Process, span: Duration, future: impl Future<Output = T>) -> Option<T> {
        let future = std::pin::pin!(future);
        match futures::future::select(future, self.sleep(of, span)).await {
            futures::future::Either::Left((outcome, _)) => Some(outcome),
            futures::future::Either::Right(_) => None,
        }
    }

    fn take_jobs(&self) {
        let put = std::mem::take(&mut *lock(&self.0.shared.put));
        for Put { of, lane, wait, job } in put {
            let pace = self.0.paces.borrow().get(&of).copied();
            let pace = pace.unwrap_or(DiskPace { least: Duration::ZERO, most: Duration::from_micros(100) });
            let mut after = self.roll(|dice| dice.span(pace.least, pace.most));
            if lane != Lane::Sync {
                after /= 4;
            }
            self.push(of, wait.unwrap_or_default() + after, What::Job(job));
        }
    }

    fn poll(&self, id: TaskId) {
        let (of, waker, mut future) = {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(id.place).filter(|task| task.number == id.number) else { return };
            if let Some(state) = self.0.processes.borrow_mut().get_mut(&task.of)
                && state.is_paused
            {
                if !state.kept_tasks.contains(&id) {
                    state.kept_tasks.push(id);
                }
                return;
            }
            let Some(future) = task.future.take() else { return };
            (task.of, task.waker.clone(), future)
        };
        let outcome = future.as_mut().poll(&mut Context::from_waker(&waker));
        let is_over = outcome.is_ready() || !self.is_alive(of);
        if is_over {
            drop(self.take_task(id));
        } else if let Some(task) = self.0.tasks.borrow_mut().get_mut(id.place).filter(|task| task.number == id.number) {
            task.future = Some(future);
        }
    }

    /// Drops everything that would still happen, and whatever that holds. All processes are dead.
    pub fn forget(&self) {
        let due = std::mem::take(&mut *self.0.due.borrow_mut());
        let mut events = std::mem::take(&mut *self.0.events.borrow_mut());
        drop(std::mem::take(&mut *self.0.tasks.borrow_mut()));
        let mut jobs: Vec<Job> = Vec::new();
        // In the order of time, which is the reverse of the heap's.
        for Reverse((_, _, place)) in due.into_sorted_vec().into_iter().rev() {
            if let Some(Event { what: What::Job(job), .. }) = events.take(place) {
                jobs.push(job);
            }
        }
        for _ in 0..LAST_JOBS_ROUNDS {
            jobs.into_iter().for_each(|job| job());
            jobs = std::mem::take(&mut *lock(&self.0.shared.put)).into_iter().map(|put| put.job).collect();
        }
    }

    /// Does what is due now; then the next event, if it is not later than that. Whether anything happened.
    pub fn step(&self, until: Duration) -> bool {
        self.take_jobs();
        let ready = lock(&self.0.shared.ready).pop_front();
        if let Some(id) = ready {
            self.0.turns.set(self.0.turns.get() + 1);
            self.poll(id);
            return true;
        }
        let until_us = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        let due = {
            let mut due = self.0.due.borrow_mut();
            due.peek_mut().filter(|first| first.0.0 <= until_us).map(PeekMut::pop)
        };
        let event = due.and_then(|Reverse((at_us, _, place))| Some((at_us, self.0.events.borrow_mut().take(place)?)));
        let Some((at_us, event)) = event else {
            self.0.now_us.set(self.0.now_us.get().max(until_us));
            return false;
        };
        if matches!(&event.what, What::Wake(_, waits) if !waits.get()) {
            return true;
        }
        self.0.turns.set(self.0.turns.get() + 1);
        self.0.now_us.set(at_us);
        let of = event.of;
        {
            let mut processes = self.0.processes.borrow_mut();
            match processes.get_mut(&of) {
                None => {
                    drop(processes);
                    if let What::Job(job) = event.what {
                        job();
                    }
                    return true;
                }
                Some(state) if state.is_paused => {
                    state.kept_events.push(event.what);
                    return true;
                }
                Some(_) => {}
            }
        }
        match event.what {
            What::Wake(waker, _) => waker.wake(),
            What::Call(call) => call(),
            What::Job(job) => job(),
        }
        true
    }
}

/// See [`Sim::sleep`].
pub struct Sleep {
    sim: Sim,
    of: Process,
    until_us: u64,
    waits: Option<Rc<Cell<bool>>>,
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(waits) = &self.waits {
            waits.set(false);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.sim.0.now_us.get();
        if now >= self.until_us {
            return Poll::Ready(());
        }
        if self.waits.is_none() {
            let waits = Rc::new(Cell::new(true));
            let span = Duration::from_micros(self.until_us - now);
            self.sim.push(self.of, span, What::Wake(cx.waker().clone(), waits.clone()));
            self.waits = Some(waits);
        }
        Poll::Pending
    }
}

/// Wakes tasks of one process when something has changed. A change before the wait is not missed.
#[derive(Clone, Default)]
pub struct Changes(Rc<RefCell<(u64, Vec<Waker>)>>);

impl Changes {
    pub fn tell(&self) {
        let wakers = {
            let mut inner = self.0.borrow_mut();
            inner.0 += 1;
            std::mem::take(&mut inner.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Until `look` gives something; it is asked now, and after every change.
    pub async fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        std::future::poll_fn(move |cx| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                self.0.borrow_mut().1.push(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
