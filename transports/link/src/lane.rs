//! What waits to be sent on a lane, and the task that sends it.
//!
//! Whoever has something to send only puts it here and goes on. **Bounded**: one frame too many, or too many bytes, is
//! refused, and what that means is for the owner to say.
//!
//! **Only the latest of news.** News of a stream takes the place of news of the same kind that still waits, so what waits does
//! not grow with how often it changes. It does so where the earlier stands, not at the end, or a lane that is always full
//! would put off what changes often for ever; unless the stream has said something else since: nothing is overtaken
//! *within* a stream.
//!
//! **What waits together travels together.** Of a stream's records that come one after the other while the lane is busy, one
//! frame is made: the busier the lane, the fewer frames, and no record waits for another that is not there yet.

use crate::link::{Frame, LaneSender, LinkError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Frames handed to the network at once.
const GATHER_FRAMES: usize = 64;

/// What is joined to a frame that waits makes it no larger than this: frames of other streams wait behind it.
const JOINED_BYTES_MAX: usize = 1 << 20;
/// … and of no more parts than what some network layers hand over in one call.
const JOINED_PARTS_MAX: usize = 512;

/// What may wait on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub frames: usize,
    pub bytes: usize,
}

/// What a frame must not overtake, and whose place it takes. `S` tells streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<S> {
    /// It belongs to no stream.
    Alone,
    /// It goes behind all else of its stream.
    Each(S),
    /// News, of this kind, of its stream.
    Latest(S, u8),
    /// It goes behind all else of its stream, too, and with the frame before it if that is of this kind and still waits: then
    /// its first part takes the place of the other's, and its other parts follow the other's. News of this kind that wait
    /// are told by it.
    Joined(S, u8),
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("too much waits to be sent")]
    Full,
    #[error("a frame of {bytes} bytes is more than the {max} that a peer takes")]
    TooLarge { bytes: usize, max: usize },
}

/// See the module's head.
#[derive(Debug)]
pub struct Outbox<S> {
    queue: Mutex<Queue<S>>,
    /// There is something to send, or nothing will come any more.
    changed: Notify,
    bound: Bound,
    frame_bytes_max: usize,
}

#[derive(Debug)]
struct Queue<S> {
    next: u64,
    /// In the order of their numbers.
    waiting: BTreeMap<u64, Waiting<S>>,
    /// Where news stands.
    latest: HashMap<(S, u8), u64>,
    /// Where the last of what else a stream has said stands.
    last: HashMap<S, u64>,
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<S> {
    frame: Frame,
    bytes: usize,
    order: Order<S>,
}

impl<S: Copy + Eq + Hash> Outbox<S> {
    pub fn new(bound: Bound, frame_bytes_max: usize) -> Self {
        let queue = Queue {
            next: 0,
            waiting: BTreeMap::new(),
            latest: HashMap::new(),
            last: HashMap::new(),
            bytes: 0,
            closed: false,
        };
        Self { queue: Mutex::new(queue), changed: Notify::new(), bound, frame_bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame into the row. What is not taken changes nothing. Once closed, it goes nowhere.
    pub fn push(&self, frame: Frame, order: Order<S>) -> Result<(), NotTaken> {
        let bytes = frame.body_bytes();
        if bytes > self.frame_bytes_max {
            return Err(NotTaken::TooLarge { bytes, max: self.frame_bytes_max });
        }
        let mut queue = self.lock();
        if queue.closed {
            return Ok(());
        }
        let frame = match order {
            Order::Joined(stream, kind) => match queue.join(frame, bytes, stream, kind, self.bound.bytes) {
                Some(frame) => frame,
                // The task that sends has been told of the frame that it joined.
                None => return Ok(()),
            },
            _ => frame,
        };
        let earlier = match order {
            Order::Latest(stream, kind) | Order::Joined(stream, kind) => queue.latest.get(&(stream, kind)).copied(),
            Order::Alone | Order::Each(_) => None,
        };
        let instead_of = earlier.and_then(|number| queue.waiting.get(&number)).map(|waiting| waiting.bytes);
        let before = queue.bytes - instead_of.unwrap_or(0);
        let frames = queue.waiting.len() - usize::from(instead_of.is_some());
        // A single large frame must be able to go.
        if frames >= self.bound.frames || (before > 0 && before + bytes > self.bound.bytes) {
            return Err(NotTaken::Full);
        }
        let overtakes = |number: u64| match order {
            Order::Latest(stream, _) => queue.last.get(&stream).is_some_and(|last| *last > number),
            // It goes to the end, as it would without those news.
            Order::Joined(..) => true,
            Order::Alone | Order::Each(_) => false,
        };
        let number = match earlier {
            Some(number) if !overtakes(number) => number,
            _ => {
                queue.next += 1;
                queue.next
            }
        };
        if let Some(earlier) = earlier {
            queue.waiting.remove(&earlier);
        }
        match order {
            Order::Alone => {}
            Order::Each(stream) => drop(queue.last.insert(stream, number)),
            Order::Joined(stream, kind) => {
                queue.latest.remove(&(stream, kind));
                queue.last.insert(stream, number);
            }
            Order::Latest(stream, kind) => drop(queue.latest.insert((stream, kind), number)),
        }
        queue.bytes = before + bytes;
        queue.waiting.insert(number, Waiting { frame, bytes, order });
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// What waits goes nowhere any more.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.waiting.clear();
        queue.latest.clear();
        queue.last.clear();
        queue.bytes = 0;
        drop(queue);
        self.changed.notify_one();
    }

    /// Takes what waits, some of it; false once closed.
    fn take(&self, into: &mut VecDeque<Frame>) -> bool {
        let mut queue = self.lock();
        while into.len() < GATHER_FRAMES
            && let Some((number, Waiting { frame, bytes, order })) = queue.waiting.pop_first()
        {
            queue.bytes -= bytes;
            match order {
                Order::Alone => {}
                Order::Each(stream) | Order::Joined(stream, _) => {
                    if queue.last.get(&stream) == Some(&number) {
                        queue.last.remove(&stream);
                    }
                }
                Order::Latest(stream, kind) => drop(queue.latest.remove(&(stream, kind))),
            }
            into.push_back(frame);
        }
        !queue.closed
    }

    /// Sends what comes until it is closed, or the lane breaks.
    pub async fn send_all(&self, lane: &mut dyn LaneSender) -> Result<(), LinkError> {
        let mut frames = VecDeque::new();
        while self.take(&mut frames) {
            if frames.is_empty() {
                self.changed.notified().await;
            } else {
                lane.send(&mut frames).await?;
            }
        }
        Ok(())
    }
}

impl<S: Copy + Eq + Hash> Queue<S> {
    /// Joins a frame to the last of its stream, if that is of its kind; else gives it back.
    fn join(&mut self, frame: Frame, bytes: usize, stream: S, kind: u8, bytes_max: usize) -> Option<Frame> {
        let is_its_kind = |order| matches!(order, Order::Joined(_, of) if of == kind);
        let last = self.last.get(&stream).and_then(|number| self.waiting.get_mut(number));
        let Some(last) = last.filter(|last| is_its_kind(last.order)) else { return Some(frame) };
        let fits = last.bytes + bytes <= JOINED_BYTES_MAX
            && last.frame.body.len() + frame.body.len() <= JOINED_PARTS_MAX
            && self.bytes + bytes <= bytes_max;
        if !fits {
            return Some(frame);
        }
        let mut parts = frame.body.into_iter();
        if let (Some(first), Some(new)) = (last.frame.body.first_mut(), parts.next()) {
            let before = first.len();
            *first = new;
            last.frame.body.extend(parts);
            let bytes = bytes + last.bytes - before;
            self.bytes = self.bytes - last.bytes + bytes;
            last.bytes = bytes;
        }
        if let Some(told) = self.latest.remove(&(stream, kind)).and_then(|number| self.waiting.remove(&number)) {
            self.bytes -= told.bytes;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(number: u64, bytes: usize) -> Frame {
        Frame::new(1, number).with(Bytes::from(vec![0; bytes]))
    }

    fn numbers(outbox: &Outbox<char>) -> Vec<u64> {
        let mut frames = VecDeque::new();
        outbox.take(&mut frames);
        frames.iter().map(|frame| frame.number).collect()
    }

    fn outbox(frames: usize, bytes: usize) -> Outbox<char> {
        Outbox::new(Bound { frames, bytes }, 1_000)
    }

    #[test]
    fn later_news_takes_the_place_of_earlier_news_where_that_stands() {
        use Order::{Alone, Each, Latest};
        let outbox = outbox(10, 1_000);
        // Others' frames do not put off what changes often.
        let row = [(1, Latest('a', 0)), (2, Each('b')), (3, Alone), (4, Latest('b', 0)), (5, Latest('a', 0))];
        for (number, order) in row {
            outbox.push(frame(number, 10), order).expect("there is room");
        }
        assert_eq!(numbers(&outbox), [5, 2, 3, 4]);
        outbox.push(frame(6, 10), Latest('a', 0)).expect("there is room");
        assert_eq!(numbers(&outbox), [6], "what was taken is not replaced");
    }

    #[test]
    fn news_overtakes_nothing_of_its_stream() {
        use Order::{Each, Latest};
        let outbox = outbox(10, 1_000);
        let row = [(1, Latest('a', 0)), (2, Latest('a', 1)), (3, Each('a')), (4, Latest('a', 0)), (5, Latest('a', 0))];
        for (number, order) in row {
            outbox.push(frame(number, 10), order).expect("there is room");
        }
        assert_eq!(numbers(&outbox), [2, 3, 5], "behind what was said between, and each kind by itself");
        // What has gone is in nobody's way.
        for (number, order) in [(6, Latest('a', 0)), (7, Each('b')), (8, Latest('a', 0))] {
            outbox.push(frame(number, 10), order).expect("there is room");
        }
        assert_eq!(numbers(&outbox), [8, 7]);
    }

    #[test]
    fn records_that_wait_together_are_one_frame() {
        use Order::{Each, Joined, Latest};
        let of = |parts: [&'static str; 2]| Frame::new(1, 0).with(parts[0].into()).with(parts[1].into());
        let outbox = outbox(10, 1_000);
        let row = [
            (of(["1", "a"]), Joined('x', 1)),
            (of(["2", "b"]), Joined('y', 1)),
            (of(["3", "news"]), Latest('x', 1)),
            (of(["4", "cd"]), Joined('x', 1)),
            (of(["5", "asks"]), Each('x')),
            (of(["6", "e"]), Joined('x', 1)),
            (of(["7", "news"]), Latest('y', 1)),
            (of(["8", "news"]), Latest('y', 2)),
            (of(["9", "f"]), Joined('y', 1)),
        ];
        for (frame, order) in row {
            outbox.push(frame, order).expect("there is room");
        }
        let mut frames = VecDeque::new();
        outbox.take(&mut frames);
        let texts = |frames: &VecDeque<Frame>| -> Vec<String> {
            frames.iter().map(|frame| String::from_utf8_lossy(&frame.clone().into_body()).into_owned()).collect()
        };
        assert_eq!(texts(&frames), ["4acd", "9bf", "5asks", "6e", "8news"], "never past what else a stream has said");
        assert_eq!(outbox.lock().bytes, 0);
        outbox.push(of(["1", "a"]), Joined('x', 1)).expect("there is room");
        outbox.push(of(["2", "news"]), Latest('x', 1)).expect("there is room");
        outbox.push(of(["3", "asks"]), Each('x')).expect("there is room");
        outbox.push(of(["4", "b"]), Joined('x', 1)).expect("there is room");
        frames.clear();
        outbox.take(&mut frames);
        assert_eq!(texts(&frames), ["1a", "3asks", "4b"], "records tell the news");
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn a_frame_that_others_join_has_a_bound() {
        let outbox = Outbox::new(Bound { frames: 10, bytes: usize::MAX }, JOINED_BYTES_MAX * 2);
        for _ in 0..3 {
            let half = Frame::new(1, 0).with("1".into()).with(vec![0; JOINED_BYTES_MAX / 2 - 1].into());
            outbox.push(half, Order::Joined('x', 1)).expect("there is room");
        }
        let mut frames = VecDeque::new();
        outbox.take(&mut frames);
        let bytes: Vec<_> = frames.iter().map(Frame::body_bytes).collect();
        assert_eq!(bytes, [JOINED_BYTES_MAX - 1, JOINED_BYTES_MAX / 2]);
        for _ in 0..JOINED_PARTS_MAX {
            let small = Frame::new(1, 0).with("1".into()).with("a".into());
            outbox.push(small, Order::Joined('x', 1)).expect("there is room");
        }
        frames.clear();
        outbox.take(&mut frames);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn there_is_a_bound_and_one_large_frame_may_always_go() {
        let outbox = outbox(3, 100);
        outbox.push(frame(1, 500), Order::Alone).expect("it is alone");
        assert_eq!(outbox.push(frame(2, 1), Order::Alone), Err(NotTaken::Full));
        assert_eq!(numbers(&outbox), [1]);
        for number in 2..5 {
            outbox.push(frame(number, 0), Order::Latest('a', number as u8)).expect("there is room");
        }
        assert_eq!(outbox.push(frame(5, 0), Order::Alone), Err(NotTaken::Full));
        outbox.push(frame(6, 0), Order::Latest('a', 3)).expect("it needs no more room");
        assert_eq!(outbox.push(frame(7, 101), Order::Latest('a', 3)), Ok(()), "nothing else counts");
        assert_eq!(outbox.push(frame(8, 1), Order::Latest('a', 2)), Err(NotTaken::Full));
        assert_eq!(numbers(&outbox), [2, 7, 4], "what was not taken has changed nothing");
        assert_eq!(outbox.push(frame(9, 1_001), Order::Alone), Err(NotTaken::TooLarge { bytes: 1_001, max: 1_000 }));
        outbox.push(frame(10, 0), Order::Alone).expect("there is room");
        outbox.close();
        assert_eq!(numbers(&outbox), Vec::<u64>::new());
    }
}
