//! One client connection: frames in, answers out, in the order of arrival.
//!
//! **Order.** A request takes effect when it is dispatched, before the next one is looked at, and answers leave in the
//! order the requests came in. Several may be pending at once (so that pipelined produces share one sync), inside a
//! bound on their number and bytes; a request whose effect comes later ([`Answer::Exclusive`]) lets nothing overtake it.
//! A parked fetch or join delays the answers of its own connection only, and is dropped when the client goes away.
//!
//! **Memory.** A frame's length is believed only as its bytes arrive: the buffer grows in steps, each paid for from the
//! broker's budget before it is allocated; while the budget is empty nothing is read.
//!
//! **Copies.** A large frame is read into one buffer of its own, from which everything is sliced. A small one is copied
//! out of the connection's read buffer (at most [`READ_BUFFER_BYTES`]), so that a record kept in memory does not keep
//! its neighbours. How answers leave is in [`super::send`].

use super::send::send_all;
use crate::metrics::Metrics;
use crate::partitions::anatomy::{Arrival, Ticket};
use bytes::{Buf, Bytes, BytesMut};
use chronik_proto_kafka::{Part, Parts};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What is read at once between large frames; also the largest frame that is copied.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// First step of a large frame's buffer on a connection that has sent nothing large yet; later steps are four times what
/// has come. A connection that has sent a large frame whole is given that much at once the next time, so that the
/// frames of an ordinary producer are read without moving.
const FRAME_STEP_BYTES: usize = 64 * 1024;
/// Answers' bytes after which no more of them are looked for before they are sent.
const ANSWERS_GATHERED_BYTES: usize = 64 * 1024;
/// The budget counts in units of this, because a semaphore counts in 32 bits.
const BUDGET_UNIT_BYTES: usize = 1024;

/// An answer's bytes, length prefix included.
pub type Encoded = Parts;
/// An answer that is still being worked out. `None` is "no answer", as acks=0 wants; an error closes the connection.
pub type Working = Pin<Box<dyn Future<Output = Result<Option<Encoded>, Close>> + Send>>;

/// What dispatching a request gave.
pub enum Answer {
    Ready(Encoded),
    /// No answer is wanted.
    Nothing,
    /// The request has taken effect; its answer comes later.
    Later(Working),
    /// The request changes nothing; it is not begun before all earlier ones are answered and their answers sent.
    InTurn(Working),
    /// The request takes effect as it is worked on: nothing after it may be dispatched before it is done.
    Exclusive(Working),
}

/// The connection must end, for this reason. Kafka closes without an answer when there is none that could be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Close(pub String);

/// What a connection asks of the broker.
pub trait Dispatch: Send + Sync + 'static {
    /// Handles one frame (without its length prefix).
    fn dispatch(&mut self, frame: Bytes, arrival: Arrival) -> Result<Answer, Close>;

    /// What is to be told when the answer to the frame that was dispatched last has gone out.
    fn take_ticket(&mut self) -> Option<Ticket> {
        None
    }
}

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    pub request_bytes_max: usize,
    pub pending_requests_max: usize,
    /// Bytes of frames whose requests are not answered yet.
    pub pending_bytes_max: usize,
    /// A connection on which nothing is pending is closed after this long without a byte.
    pub idle: Duration,
    /// A frame that has begun must have arrived after this long …
    pub frame_within: Duration,
    /// … and what its size takes at this rate.
    pub receive_bytes_per_second: u64,
    /// A client that takes none of its answers' bytes for so long is disconnected.
    pub send_stall: Duration,
}

/// A share of the broker's memory, for requests that are being read or worked on, or for answers on their way; all
/// connections draw on it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

/// Bytes taken from a [`MemoryBudget`], given back when dropped.
#[derive(Debug)]
pub struct Paid(OwnedSemaphorePermit);

impl Paid {
    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.0.split(self.0.num_permits().saturating_sub(bytes.div_ceil(BUDGET_UNIT_BYTES))));
    }

    fn merge(&mut self, other: Paid) {
        self.0.merge(other.0);
    }
}

impl MemoryBudget {
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / BUDGET_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { semaphore: Arc::new(Semaphore::new(units)), units: units as u32 }
    }

    /// Waits until `bytes` are free. Who asks for more than there is in all gets all.
    pub async fn take(&self, bytes: usize) -> Option<Paid> {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units);
        // The semaphore is never closed; were it, memory would not be bounded and nothing else would break.
        self.semaphore.clone().acquire_many_owned(units).await.ok().map(Paid)
    }

    /// Takes `bytes` if they are free now.
    pub fn try_take(&self, bytes: usize) -> Option<Paid> {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).ok()?;
        self.semaphore.clone().try_acquire_many_owned(units).ok().map(Paid)
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the client closed the connection")]
    ByClient,
    #[error("nothing came for too long")]
    Idle,
    #[error("a request stalled half-way")]
    Stalled,
    #[error("a request claims {0} bytes")]
    FrameLength(i32),
    #[error(transparent)]
    Refused(#[from] Close),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the broker is shutting down")]
    ShuttingDown,
}

struct Pending {
    work: Work,
    frame_bytes: usize,
    ticket: Option<Ticket>,
    _memory: Option<Paid>,
}

enum Work {
    Ready(Encoded),
    Later(Working),
    InTurn(Working),
}

/// Serves one connection until it ends. `shutdown` completes when no further request is to be read; what is pending is
/// still answered.
pub async fn serve(
    stream: TcpStream,
    mut dispatch: impl Dispatch,
    limits: Limits,
    memory: MemoryBudget,
    metrics: &Metrics,
    shutdown: impl Future<Output = ()>,
) -> Ended {
    let (mut read_half, write_half) = stream.into_split();
    let mut reader = FrameReader::new(limits.request_bytes_max, memory);
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let mut pending_bytes = 0;
    let mut exclusive = false;
    let mut shutting_down = false;
    tokio::pin!(shutdown);
    let mut last_byte = Instant::now();
    let mut frame_began = last_byte;
    // When the first bytes of the frame came that is cut next, and when the last bytes did that are here.
    let (mut first_read, mut last_read) = (last_byte, last_byte);
    loop {
        // Dispatch every whole frame that is here, as far as the bounds allow.
        let mut cut = false;
        while !exclusive
            && !shutting_down
            && pending.len() < limits.pending_requests_max
            && (pending.is_empty() || pending_bytes < limits.pending_bytes_max)
            && let Some((frame, permit)) = reader.next_frame()
        {
            cut = true;
            let frame_bytes = frame.len();
            let arrival = Arrival { first_byte: first_read.into_std(), last_byte: last_read.into_std() };
            // What is behind it came with the last bytes: before, there was no whole frame.
            first_read = last_read;
            let dispatched = dispatch.dispatch(frame, arrival);
            let ticket = dispatch.take_ticket();
            let work = match dispatched {
                Ok(Answer::Ready(encoded)) => Work::Ready(encoded),
                Ok(Answer::Nothing) => continue,
                Ok(Answer::Later(working)) => Work::Later(working),
                Ok(Answer::InTurn(working)) => Work::InTurn(working),
                Ok(Answer::Exclusive(working)) => {
                    exclusive = true;
                    Work::Later(working)
                }
                Err(close) => return close.into(),
            };
            pending_bytes += frame_bytes;
            pending.push_back(Pending { work, frame_bytes, ticket, _memory: permit });
        }
        if let Some(claimed) = reader.bad_length() {
            return Ended::FrameLength(claimed);
        }
        if cut {
            // What is left in the buffer is the beginning of another frame.
            frame_began = Instant::now();
        }
        let inside_frame = reader.is_inside_frame();
        // Send what is ready at the front.
        let mut out: VecDeque<Part> = VecDeque::new();
        let mut tickets: SmallVec<[Ticket; 4]> = SmallVec::new();
        let mut done = false;
        while let Some(front) = pending.pop_front_if(|front| matches!(front.work, Work::Ready(_))) {
            done = true;
            pending_bytes -= front.frame_bytes;
            tickets.extend(front.ticket);
            if let Work::Ready(encoded) = front.work {
                out.extend(encoded);
            }
        }
        if !out.is_empty() {
            match send_all(&write_half, out, limits.send_stall).await {
                Ok(sent) => {
                    metrics.sent_bytes.add(sent.bytes);
                    metrics.sent_from_files_bytes.add(sent.from_files_bytes);
                }
                Err(failure) => return failure.into(),
            }
            tickets.into_iter().for_each(Ticket::replied);
            last_byte = Instant::now();
        }
        if done {
            // There may be room for what was read already.
            continue;
        }
        if pending.is_empty() && shutting_down {
            return Ended::ShuttingDown;
        }
        let may_read = !exclusive
            && !shutting_down
            && !reader.has_frame()
            && pending.len() < limits.pending_requests_max
            && (pending.is_empty() || pending_bytes < limits.pending_bytes_max);
        let deadline = match (reader.is_inside_frame(), pending.is_empty()) {
            (true, _) => {
                let at_rate = Duration::from_secs(reader.frame_bytes() / limits.receive_bytes_per_second.max(1));
                Some((frame_began + limits.frame_within + at_rate, Ended::Stalled))
            }
            (false, true) => Some((last_byte + limits.idle, Ended::Idle)),
            (false, false) => None,
        };
        tokio::select! {
            biased;
            answered = Front(&mut pending) => {
                if let Err(close) = answered {
                    return close.into();
                }
                // An exclusive request is the last one, since nothing was dispatched after it.
                exclusive &= pending.back().is_some_and(|last| !matches!(last.work, Work::Ready(_)));
            }
            read = reader.read(&mut read_half), if may_read => match read {
                Ok(0) => return Ended::ByClient,
                Ok(bytes) => {
                    metrics.received_bytes.add(bytes as u64);
                    last_byte = Instant::now();
                    last_read = last_byte;
                    if !inside_frame {
                        (frame_began, first_read) = (last_byte, last_byte);
                    }
                }
                Err(failure) => return failure.into(),
            },
            // A client that goes away while its requests are worked on is noticed, and they are dropped.
            gone = hung_up(&write_half), if !may_read => return gone,
            () = &mut shutdown, if !shutting_down => shutting_down = true,
            ended = expire(deadline), if may_read => return ended,
        }
    }
}

/// Completes when the first pending request is answered, and looks which of those behind it are; never, if there is none.
///
/// One sync often ends the waiting of many produces. Their answers leave in one write: that is one system call instead of
/// many, and the client, who hears of all of them at once, sends what comes next in few batches instead of many.
struct Front<'a>(&'a mut VecDeque<Pending>);

impl Future for Front<'_> {
    type Output = Result<(), Close>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut answered, mut gathered_bytes) = (0, 0);
        for pending in self.0.iter_mut() {
            let outcome = match &mut pending.work {
                Work::Ready(_) => None,
                Work::InTurn(_) if answered > 0 => break,
                Work::Later(working) | Work::InTurn(working) => match working.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Some(outcome),
                    Poll::Pending => break,
                },
            };
            match outcome {
                Some(Ok(encoded)) => pending.work = Work::Ready(encoded.unwrap_or_default()),
                Some(Err(close)) if answered == 0 => return Poll::Ready(Err(close)),
                // What was answered before it is sent first; it ends the connection when it is at the front.
                Some(Err(close)) => {
                    pending.work = Work::Later(Box::pin(std::future::ready(Err(close))));
                    break;
                }
                None => {}
            }
            answered += 1;
            if let Work::Ready(encoded) = &pending.work {
                gathered_bytes += encoded.iter().map(Part::len).sum::<usize>();
            }
            if gathered_bytes >= ANSWERS_GATHERED_BYTES {
                break;
            }
        }
        if answered > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

async fn expire(deadline: Option<(Instant, Ended)>) -> Ended {
    match deadline {
        Some((at, ended)) => {
            tokio::time::sleep_until(at).await;
            ended
        }
        None => std::future::pending().await,
    }
}

/// Waits until the client has closed its end or the connection broke. Looks at the socket from time to time rather than
/// at readiness, which stays set as long as there are bytes that we are not ready to read.
async fn hung_up(write_half: &tokio::net::tcp::OwnedWriteHalf) -> Ended {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Ok(Some(failure)) = write_half.as_ref().take_error() {
            return failure.into();
        }
        let mut byte = [0u8; 1];
        match write_half.as_ref().peek(&mut byte).now_or_pending() {
            Some(Ok(0)) => return Ended::ByClient,
            Some(Err(failure)) => return failure.into(),
            Some(Ok(_)) | None => {}
        }
    }
}

/// Polls a future once.
trait NowOrPending: Future + Sized {
    fn now_or_pending(self) -> Option<Self::Output> {
        let mut future = std::pin::pin!(self);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}

impl<F: Future> NowOrPending for F {}

/// Cuts the byte stream into frames.
struct FrameReader {
    frame_bytes_max: usize,
    memory: MemoryBudget,
    /// Bytes read and not yet cut: small frames, or the beginning of a large one.
    buffer: BytesMut,
    large: Option<LargeFrame>,
    /// The largest frame that has come whole.
    earned_bytes: usize,
    bad_length: Option<i32>,
}

/// A frame that is read into a buffer of its own.
struct LargeFrame {
    length: usize,
    bytes: BytesMut,
    /// Paid for, in bytes; at least what `bytes` has room for.
    paid_bytes: usize,
    memory: Option<Paid>,
}

impl FrameReader {
    fn new(frame_bytes_max: usize, memory: MemoryBudget) -> Self {
        Self {
            frame_bytes_max,
            memory,
            buffer: BytesMut::new(),
            large: None,
            earned_bytes: FRAME_STEP_BYTES,
            bad_length: None,
        }
    }

    /// A length that no frame may have was read; nothing after it makes sense.
    fn bad_length(&self) -> Option<i32> {
        self.bad_length
    }

    /// The length that the buffer begins with, if it is there and allowed.
    fn length(&mut self) -> Option<usize> {
        let prefix = i32::from_be_bytes(*self.buffer.first_chunk::<4>()?);
        match usize::try_from(prefix) {
            Ok(length) if length <= self.frame_bytes_max => Some(length),
            _ => {
                self.bad_length = Some(prefix);
                None
            }
        }
    }

    fn has_frame(&mut self) -> bool {
        match &self.large {
            Some(large) => large.bytes.len() == large.length,
            None => self.length().is_some_and(|length| self.buffer.len() - 4 >= length),
        }
    }

    /// Bytes of the frame that has begun, as far as they are known.
    fn frame_bytes(&self) -> u64 {
        self.large.as_ref().map_or(self.buffer.len(), |large| large.length) as u64
    }

    fn is_inside_frame(&self) -> bool {
        self.large.is_some() || !self.buffer.is_empty()
    }

    /// The next whole frame, with what was paid for it.
    fn next_frame(&mut self) -> Option<(Bytes, Option<Paid>)> {
        if !self.has_frame() {
            return None;
        }
        if let Some(large) = self.large.take() {
            self.earned_bytes = self.earned_bytes.max(large.length);
            return Some((large.bytes.freeze(), large.memory));
        }
        let length = self.length()?;
        self.buffer.advance(4);
        let frame = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        if self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
        Some((frame, None))
    }

    /// Reads once. Cancelling loses nothing.
    async fn read(&mut self, read_half: &mut tokio::net::tcp::OwnedReadHalf) -> io::Result<usize> {
        if self.large.is_none() {
            // A frame that does not fit the read buffer gets its own.
            if let Some(length) = self.length().filter(|length| *length > READ_BUFFER_BYTES - 4) {
                self.buffer.advance(4);
                let have = self.buffer.len();
                let mut large = LargeFrame { length, bytes: BytesMut::new(), paid_bytes: 0, memory: None };
                large.bytes.extend_from_slice(&self.buffer[..have.min(length)]);
                self.buffer.advance(have.min(length));
                self.large = Some(large);
            }
        }
        let Some(large) = &mut self.large else {
            if self.buffer.capacity() - self.buffer.len() < READ_BUFFER_BYTES / 4 {
                // Nothing to read into yet: wait for bytes first, so that an idle connection costs no buffer.
                if self.buffer.is_empty() {
                    read_half.readable().await?;
                }
                self.buffer.reserve(READ_BUFFER_BYTES);
            }
            return read_half.read_buf(&mut self.buffer).await;
        };
        if large.bytes.len() >= large.paid_bytes {
            let step = large.length.min((large.paid_bytes * 4).max(self.earned_bytes));
            if let Some(permit) = self.memory.take(step - large.paid_bytes).await {
                match &mut large.memory {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
            }
            large.paid_bytes = step;
            large.bytes.reserve_exact_to(step);
        }
        let room = large.paid_bytes - large.bytes.len();
        let mut limited = bytes::BufMut::limit(&mut large.bytes, room);
        read_half.read_buf(&mut limited).await
    }
}

/// `BytesMut` reserves more than it is asked for unless it is new; a frame's first buffer is exact.
trait ReserveExactTo {
    fn reserve_exact_to(&mut self, capacity: usize);
}

impl ReserveExactTo for BytesMut {
    fn reserve_exact_to(&mut self, capacity: usize) {
        if self.capacity() < capacity {
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(self);
            *self = grown;
        }
    }
}
