//! Reading: from the tail where it reaches, else from files by position, checked against each frame's checksum.
//!
//! A read first tries what needs no waiting for the device, in the caller's own context; only when that gives nothing it
//! goes to a thread. Several pieces, from files and then the tail, make one answer. Frame headers are cut out of what was
//! read: the payloads are slices of one buffer.

use super::survey::{Blind, View, block_range};
use super::{Answer, BOOKMARKS_MAX, Bookmark, SegmentLog};
use crate::disk::Wait;
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::handles::Handle;
use crate::index::block_of;
use crate::segment::{Segment, SegmentFile};
use crate::shared::read_buffer;
use crate::threads::Lane;
use bytes::Bytes;
use chronik_core::crc32c;
use chronik_core::ids::Offset;
use chronik_core::pending::{Done, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Chunk, ReadRange, WalError};
use std::ops::Range;
use std::sync::Arc;

/// Read in addition to what was asked for, so that the frames' headers do not push the last run out.
const HEADERS_BYTES: u64 = 4 << 10;

/// How often a read looks again because the log was cut under it, before it says so.
const LOOKS_MAX: usize = 16;

/// What came of a try.
pub(super) enum Try<T> {
    Answer(Answer<T>),
    WouldBlock,
}

impl<T> From<Result<T, Blind>> for Try<T> {
    fn from(outcome: Result<T, Blind>) -> Self {
        match outcome {
            Ok(answer) => Try::Answer(Ok(answer)),
            Err(Blind::WouldBlock) => Try::WouldBlock,
            Err(blind) => Try::Answer(Err(blind.into())),
        }
    }
}

/// The answer as it grows.
struct Gathered {
    range: ReadRange,
    chunk: Chunk,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.chunk.base == self.chunk.next_offset
    }

    fn room(&self) -> u64 {
        self.range.max_bytes.saturating_sub(self.chunk.bytes.len()) as u64
    }

    /// Whether a run may be added.
    fn takes(&self, next_offset: Offset, bytes: usize) -> bool {
        takes(&self.range, self.room() as usize, self.is_empty(), next_offset, bytes)
    }

    /// Notes that a run was added.
    fn advance(&mut self, base: Offset, next_offset: Offset) {
        if self.is_empty() {
            self.chunk.base = base;
        }
        self.chunk.next_offset = next_offset;
    }
}

/// Whether an answer with so much room left takes a run.
pub(super) fn takes(range: &ReadRange, room: usize, is_first: bool, next_offset: Offset, bytes: usize) -> bool {
    next_offset <= range.upto && (bytes <= room || is_first && range.min_one)
}

/// Where in a segment a run is.
enum Place {
    At(u64),
    /// In the block between these.
    Within(Range<u64>),
    /// In a block that the index file knows.
    Covered(u64),
}

/// What to read from a file; taken under the lock, used without.
pub(super) struct Piece {
    pub file: Arc<SegmentFile>,
    place: Place,
    /// How far the file holds frames …
    pub end: u64,
    /// … and where the last of them ends in the log.
    pub log_end: Offset,
    pub era: u64,
}

/// What a look at the log says to do next.
enum Step {
    Finished,
    Read(Piece),
}

impl SegmentLog {
    /// Answers at once if that needs no waiting for the device, else from a thread.
    pub(super) fn inline_or_later<T: Send + 'static>(
        &self,
        done: Done<Answer<T>>,
        attempt: impl Fn(&SegmentLog, Wait) -> Try<T> + Send + 'static,
    ) -> Started<Answer<T>> {
        if let Try::Answer(answer) = attempt(self, Wait::No) {
            return Started::Now(answer);
        }
        let Some(log) = self.arc() else { return Started::Now(Err(WalError::Closed)) };
        let job = move || {
            done.complete(match attempt(&log, Wait::Yes) {
                Try::Answer(answer) => answer,
                Try::WouldBlock => Err(Blind::WouldBlock.into()),
            });
        };
        self.shared.threads.run(Lane::Read, Box::new(job));
        Started::Later
    }

    pub(super) fn try_read(&self, range: ReadRange, wait: Wait) -> Try<Chunk> {
        let chunk = Chunk { base: range.from, next_offset: range.from, ..Chunk::default() };
        let mut gathered = Gathered { range, chunk };
        for _ in 0..LOOKS_MAX {
            let piece = match self.look(&mut gathered) {
                Ok(Step::Finished) => return Try::Answer(Ok(gathered.chunk)),
                Ok(Step::Read(piece)) => piece,
                Err(_) if !gathered.is_empty() => return Try::Answer(Ok(gathered.chunk)),
                Err(error) => return Try::Answer(Err(error)),
            };
            match self.read_piece(&piece, &mut gathered, wait) {
                Ok(true) => {}
                Ok(false) => return Try::Answer(Ok(gathered.chunk)),
                // Whatever is wrong, what was gathered before it is whole.
                Err(_) if !gathered.is_empty() => return Try::Answer(Ok(gathered.chunk)),
                Err(Blind::Stale) => {}
                Err(blind) => return Err(blind).into(),
            }
        }
        if gathered.is_empty() { Err(Blind::Stale).into() } else { Try::Answer(Ok(gathered.chunk)) }
    }

    /// Takes what the tail has, or says what to read before that.
    fn look(&self, gathered: &mut Gathered) -> Answer<Step> {
        let inner = self.inner();
        if inner.closed {
            return Err(WalError::Closed);
        }
        let from = gathered.chunk.next_offset;
        if from < inner.start || from > inner.end {
            return Err(inner.out_of_range());
        }
        if from == inner.end || from >= gathered.range.upto || !gathered.is_empty() && gathered.room() == 0 {
            return Ok(Step::Finished);
        }
        if inner.failed.is_some() && from >= inner.written_end {
            // Ordered once, but it will never be written, and is not kept.
            return inner.check_open().map(|()| Step::Finished);
        }
        if inner.tail.covers(from) {
            for run in inner.tail.past(from) {
                if !gathered.takes(run.next_offset, run.payload.len()) {
                    break;
                }
                gathered.advance(run.base, run.next_offset);
                gathered.chunk.bytes.append(run.payload.clone());
            }
            return Ok(Step::Finished);
        }
        Ok(inner.piece(from).map_or(Step::Finished, Step::Read))
    }

    /// Adds what the file has; whether to look for more.
    fn read_piece(&self, piece: &Piece, gathered: &mut Gathered, wait: Wait) -> Result<bool, Blind> {
        let handle = self.handle(&piece.file, wait)?;
        let position = self.position_of(piece, &handle, gathered.chunk.next_offset, wait)?;
        self.read_frames(piece, &handle, position, gathered, wait)
    }

    /// Where the first frame is that reaches past `from`.
    pub(super) fn position_of(&self, piece: &Piece, handle: &Handle, from: Offset, wait: Wait) -> Result<u64, Blind> {
        let file = &piece.file;
        let within = |range: Range<u64>| -> Result<Option<u64>, Blind> {
            let seen = self.seen_in(file, range, wait)?;
            Ok(seen.into_iter().find(|run| run.next_offset > from).map(|run| run.position))
        };
        let found = match &piece.place {
            Place::At(position) => Some(*position),
            Place::Within(range) => within(range.clone())?,
            &Place::Covered(bytes) => {
                let entries = self.entries(file, handle, bytes, wait)?;
                let place = block_of(&entries, from).unwrap_or(0);
                match within(block_range(&entries, place, bytes))? {
                    None if place + 1 < entries.len() => within(block_range(&entries, place + 1, bytes))?,
                    found => found,
                }
            }
        };
        // The block ended with a gap that `from` lies in: the next one begins with the run.
        Ok(match (found, &piece.place) {
            (Some(position), _) => position,
            (None, Place::Within(range)) => range.end,
            (None, Place::Covered(bytes)) => *bytes,
            (None, Place::At(position)) => *position,
        })
    }

    /// Adds the frames from `position` on, as far as they fit.
    fn read_frames(
        &self,
        piece: &Piece,
        handle: &Handle,
        position: u64,
        gathered: &mut Gathered,
        wait: Wait,
    ) -> Result<bool, Blind> {
        if position >= piece.end {
            return Err(Blind::Stale);
        }
        let file = &piece.file;
        let mut bytes = (gathered.room() + gathered.room() / 16 + HEADERS_BYTES).min(piece.end - position);
        loop {
            let buffer = Bytes::from(read_buffer(&*handle.file, bytes as usize, position, wait)?);
            let (added, more) = self.take_frames(piece, &buffer, gathered)?;
            if added > 0 {
                let mut inner = self.inner();
                if inner.era == piece.era {
                    inner.put_bookmark(gathered.chunk.next_offset, file.number, position + added);
                    inner.whole.add(file.number, position..position + added);
                }
                return Ok(more);
            }
            // Not even one whole frame: the buffer was too small for it, or the file holds less than it should, or
            // memory does.
            let Some(header) = FrameHeader::decode(&buffer, file.salt) else {
                return Err(self.short(piece, gathered, wait));
            };
            if !gathered.takes(header.next_offset, header.payload_bytes as usize) {
                return Ok(false);
            }
            // Also one that claims more than the file has: no room is made for that.
            if bytes >= header.frame_bytes() || header.frame_bytes() > piece.end - position {
                return Err(self.short(piece, gathered, wait));
            }
            bytes = header.frame_bytes();
        }
    }

    /// Less was read than the file must hold.
    fn short(&self, piece: &Piece, gathered: &Gathered, wait: Wait) -> Blind {
        match wait {
            Wait::No => Blind::WouldBlock,
            Wait::Yes if self.inner().era != piece.era => Blind::Stale,
            Wait::Yes => Blind::Damaged(gathered.chunk.next_offset),
        }
    }

    /// Adds the whole frames in `buffer` that fit, checked; says how many bytes they are, and whether to look for more.
    fn take_frames(&self, piece: &Piece, buffer: &Bytes, gathered: &mut Gathered) -> Result<(u64, bool), Blind> {
        let mut at = 0;
        while at + HEADER_BYTES <= buffer.len() {
            let header = FrameHeader::decode(&buffer[at..], piece.file.salt);
            // One that reaches beyond them all would never be asked for, and hide what comes after it.
            let follows = gathered.chunk.next_offset.0 + 1..=piece.log_end.0;
            let sound = header.filter(|header| follows.contains(&header.next_offset.0));
            let Some(header) = sound else { return Err(self.damaged(piece, gathered)) };
            let payload = at + HEADER_BYTES..at + header.frame_bytes() as usize;
            if payload.end > buffer.len() {
                break;
            }
            if !gathered.takes(header.next_offset, payload.len()) {
                return Ok((at as u64, false));
            }
            at = payload.end;
            let payload = buffer.slice(payload);
            if crc32c::crc32c(&payload) != header.payload_crc {
                return Err(self.damaged(piece, gathered));
            }
            gathered.advance(header.base, header.next_offset);
            gathered.chunk.bytes.push(payload);
        }
        Ok((at as u64, true))
    }

    /// What was read is not what was written, unless the log was cut there meanwhile.
    fn damaged(&self, piece: &Piece, gathered: &Gathered) -> Blind {
        if self.inner().era == piece.era { Blind::Damaged(gathered.chunk.next_offset) } else { Blind::Stale }
    }

    pub(super) fn try_offset_for_timestamp(&self, time: Timestamp, wait: Wait) -> Try<Option<Offset>> {
        for _ in 0..LOOKS_MAX {
            let inner = self.inner();
            if inner.closed {
                return Try::Answer(Err(WalError::Closed));
            }
            let holds = |segment: &&Segment| segment.live_max_timestamp >= time;
            let Some(view) = inner.segments.iter().find(holds).map(View::from) else {
                return Try::Answer(Ok(None));
            };
            let start = inner.start;
            drop(inner);
            match self.first_at(&view, start, time, wait) {
                Err(Blind::Stale) | Ok(None) => {}
                outcome => return outcome.into(),
            }
        }
        Err(Blind::Stale).into()
    }

    /// The first run in the segment that reaches past `start` and has a timestamp at or after `time`.
    fn first_at(&self, view: &View, start: Offset, time: Timestamp, wait: Wait) -> Result<Option<Offset>, Blind> {
        let entries = self.all_entries(view, wait)?;
        for place in block_of(&entries, start).unwrap_or(0)..entries.len() {
            if entries[place].max_timestamp >= time {
                let seen = self.seen_in(&view.file, block_range(&entries, place, view.bytes), wait)?;
                let hit = seen.iter().find(|run| run.next_offset > start && run.max_timestamp >= time);
                if let Some(run) = hit {
                    return Ok(Some(run.base));
                }
            }
        }
        Ok(None)
    }
}

/// Where in a segment the first run is that reaches past `from`.
fn place_of(segment: &Segment, from: Offset) -> Place {
    match block_of(&segment.recent, from) {
        Some(place) => Place::Within(block_range(&segment.recent, place, segment.bytes)),
        None if segment.covered_bytes > 0 => Place::Covered(segment.covered_bytes),
        None => Place::At(0),
    }
}

impl super::Inner {
    /// What to read to find the run at `from`, where that is not in the tail.
    pub(super) fn piece(&self, from: Offset) -> Option<Piece> {
        let place = self.segments.partition_point(|segment| segment.end <= from);
        let segment = self.segments.get(place)?;
        Some(Piece {
            file: segment.file.clone(),
            place: self.bookmark(segment, from).map_or_else(|| place_of(segment, from), Place::At),
            end: self.on_disk_bytes(segment),
            log_end: segment.end,
            era: self.era,
        })
    }

    fn bookmark(&self, segment: &Segment, from: Offset) -> Option<u64> {
        let here = |mark: &&Bookmark| mark.offset == from && mark.segment == segment.file.number;
        self.bookmarks.iter().find(here).map(|mark| mark.position)
    }

    /// Remembers where a reader left off; of a place that has not been cut since it was found.
    pub(super) fn put_bookmark(&mut self, offset: Offset, segment: u64, position: u64) {
        self.bookmarks.retain(|mark| mark.offset != offset);
        if self.bookmarks.len() == BOOKMARKS_MAX {
            self.bookmarks.pop_front();
        }
        self.bookmarks.push_back(Bookmark { offset, segment, position });
    }
}
