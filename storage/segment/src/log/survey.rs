//! Looking at runs without reading them: the headers of a block, from the tail or the file.

use super::{Answer, SegmentLog};
use crate::disk::{DiskFile, Wait};
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::handles::Handle;
use crate::index::{Entry, block_of};
use crate::segment::{Ordered, Segment, SegmentFile};
use crate::shared::read_buffer;
use crate::tail::TailRun;
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Cause, WalError};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Bytes read at once while walking headers: several small frames, or one header of a large one.
const WALK_BYTES: usize = 16 << 10;

/// Why looking gave nothing.
#[derive(Debug)]
pub(super) enum Blind {
    /// It would have to wait for the device, and must not.
    WouldBlock,
    /// What was looked at has been cut off or dropped meanwhile: look again.
    Stale,
    /// The integrity check failed at the first run that reaches past this offset.
    Damaged(Offset),
    Io(io::Error),
}

impl From<io::Error> for Blind {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock { Blind::WouldBlock } else { Blind::Io(error) }
    }
}

impl From<Blind> for WalError {
    fn from(blind: Blind) -> Self {
        match blind {
            Blind::Damaged(offset) => WalError::Corrupt { offset },
            Blind::Io(error) => WalError::Io(Cause::new(error)),
            // Callers that may wait, and those who look again, do not come here.
            Blind::WouldBlock | Blind::Stale => WalError::Io(Cause::new("the log changed while it was looked at")),
        }
    }
}

/// A run's place and header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub position: u64,
    pub frame_bytes: u64,
    pub base: Offset,
    pub next_offset: Offset,
    pub max_timestamp: Timestamp,
    pub epoch: LeaderEpoch,
}

impl Seen {
    fn in_tail(run: &TailRun) -> Self {
        Self {
            position: run.position,
            frame_bytes: (HEADER_BYTES + run.payload.len()) as u64,
            base: run.base,
            next_offset: run.next_offset,
            max_timestamp: run.max_timestamp,
            epoch: run.epoch,
        }
    }

    fn on_disk(position: u64, header: &FrameHeader) -> Self {
        Self {
            position,
            frame_bytes: header.frame_bytes(),
            base: header.base,
            next_offset: header.next_offset,
            max_timestamp: header.max_timestamp,
            epoch: header.epoch,
        }
    }
}

/// Visits the headers of the frames between two positions of a file, which must be where frames begin and end.
pub fn walk(
    file: &dyn DiskFile,
    salt: u32,
    range: Range<u64>,
    wait: Wait,
    mut visit: impl FnMut(u64, &FrameHeader) -> ControlFlow<()>,
) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a frame's header is damaged");
    let (mut window, mut window_at, mut position) = (Vec::new(), range.start, range.start);
    while position < range.end {
        let within = |window: &Vec<u8>| position + HEADER_BYTES as u64 <= window_at + window.len() as u64;
        if !within(&window) {
            let bytes = (range.end - position).min(WALK_BYTES as u64) as usize;
            window = read_buffer(file, bytes, position, wait)?;
            window_at = position;
            if window.len() < HEADER_BYTES {
                // Memory holds less than a header of it, or the file does.
                return Err(if wait == Wait::No { io::ErrorKind::WouldBlock.into() } else { damaged() });
            }
        }
        let at = (position - window_at) as usize;
        let header = FrameHeader::decode(&window[at..], salt).ok_or_else(damaged)?;
        if visit(position, &header).is_break() {
            break;
        }
        position += header.frame_bytes();
    }
    Ok(())
}

/// What finding blocks needs of a segment; taken under the lock, used without.
pub(super) struct View {
    pub file: Arc<SegmentFile>,
    pub bytes: u64,
    covered_bytes: u64,
    recent: Vec<Entry>,
}

impl From<&Segment> for View {
    fn from(segment: &Segment) -> Self {
        Self {
            file: segment.file.clone(),
            bytes: segment.bytes,
            covered_bytes: segment.covered_bytes,
            recent: segment.recent.clone(),
        }
    }
}

/// What a cut leaves.
pub(super) struct Kept {
    /// Segments that stay, the one cut within included.
    pub segments: usize,
    /// What becomes of the last of them, if it is cut within.
    pub part: Option<Segment>,
    pub end: Offset,
    pub last_epoch: LeaderEpoch,
}

/// What moving the start changes.
pub(super) struct Advanced {
    /// Segments that lie wholly below the new start.
    pub dropped: usize,
    pub epoch_before_start: LeaderEpoch,
    /// Of the segment that the new start lies in, if it lies within one.
    pub live_max_timestamp: Option<Timestamp>,
}

fn greatest(timestamps: impl Iterator<Item = Timestamp>) -> Timestamp {
    timestamps.max().unwrap_or(Timestamp::NONE)
}

/// Where the block lies whose entry is at `place` among all of a segment's.
pub(super) fn block_range(entries: &[Entry], place: usize, bytes: u64) -> Range<u64> {
    entries[place].position..entries.get(place + 1).map_or(bytes, |next| next.position)
}

impl SegmentLog {
    /// The entries that the segment's index file holds, or what they must have been.
    pub(super) fn entries(
        &self,
        file: &SegmentFile,
        handle: &Handle,
        covered_bytes: u64,
        wait: Wait,
    ) -> Result<Arc<[Entry]>, Blind> {
        match self.shared.entries(file, handle, wait) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            outcome => return Ok(outcome?),
        }
        // The file vanished or was damaged under us: what it said can be read off the frames, slowly.
        let mut again = Segment::new(Arc::new(SegmentFile::new(0, self.id, file.base, self.dir.clone())), file.base);
        let walked = walk(&*handle.file, file.salt, 0..covered_bytes, wait, |_, header| {
            again.push(Ordered {
                base: header.base,
                next_offset: header.next_offset,
                max_timestamp: header.max_timestamp,
                epoch: header.epoch,
                frame_bytes: header.frame_bytes(),
            });
            ControlFlow::Continue(())
        });
        match walked {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Neither the index nor the frames say what is there; unless a cut has taken it away meanwhile.
                let is_there =
                    self.inner().segment_of(file.number).is_some_and(|now| now.covered_bytes >= covered_bytes);
                return Err(if is_there { Blind::Damaged(again.end) } else { Blind::Stale });
            }
            outcome => outcome?,
        }
        Ok(self.shared.handles.put_entries(file.number, again.recent.into()))
    }

    /// All entries of a segment.
    pub(super) fn all_entries(&self, view: &View, wait: Wait) -> Result<Vec<Entry>, Blind> {
        let mut entries = match view.covered_bytes {
            0 => Vec::new(),
            covered => {
                let handle = self.handle(&view.file, wait)?;
                self.entries(&view.file, &handle, covered, wait)?.to_vec()
            }
        };
        entries.retain(|entry| entry.position < view.covered_bytes);
        entries.extend_from_slice(&view.recent);
        Ok(entries)
    }

    /// The segment's open file; opening one counts as waiting.
    pub(super) fn handle(&self, file: &SegmentFile, wait: Wait) -> Result<Arc<Handle>, Blind> {
        match wait {
            Wait::No => self.shared.handles.get(file.number).ok_or(Blind::WouldBlock),
            Wait::Yes => self.shared.open_segment(file).map_err(|error| match error.kind() {
                // Its name went with a truncation that this reader was overtaken by.
                io::ErrorKind::NotFound => Blind::Stale,
                _ => Blind::Io(error),
            }),
        }
    }

    /// The runs whose frames lie between two positions.
    pub(super) fn seen_in(&self, file: &SegmentFile, range: Range<u64>, wait: Wait) -> Result<Vec<Seen>, Blind> {
        let (disk_end, in_tail, era) = {
            let inner = self.inner();
            let segment = inner.segment_of(file.number).ok_or(Blind::Stale)?;
            let disk_end = inner.on_disk_bytes(segment).clamp(range.start, range.end);
            let there = disk_end..range.end;
            let in_tail = inner.tail.past(file.base).take_while(|run| run.segment <= file.number);
            let in_tail = in_tail.filter(|run| run.segment == file.number && there.contains(&run.position));
            (disk_end, in_tail.map(Seen::in_tail).collect::<Vec<_>>(), inner.era)
        };
        let mut seen = Vec::new();
        if range.start < disk_end {
            let handle = self.handle(file, wait)?;
            let walked = walk(&*handle.file, file.salt, range.start..disk_end, wait, |position, header| {
                seen.push(Seen::on_disk(position, header));
                ControlFlow::Continue(())
            });
            match walked {
                // A cut may have taken the place of what was there.
                Err(_) if self.inner().era != era => return Err(Blind::Stale),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Blind::Damaged(seen.last().map_or(file.base, |run| run.next_offset)));
                }
                outcome => outcome?,
            }
        }
        seen.extend(in_tail);
        Ok(seen)
    }

    /// What a cut at `from` would leave; `None` if there is nothing to cut.
    pub(super) fn survey_cut(&self, from: Offset) -> Answer<Option<Kept>> {
        let inner = self.inner();
        inner.check_open()?;
        let out_of_range = inner.out_of_range();
        if from < inner.start || from > inner.end {
            return Err(out_of_range);
        }
        if from == inner.end {
            return Ok(None);
        }
        let start = inner.start;
        let nothing = Kept { segments: 0, part: None, end: start, last_epoch: inner.epoch_before_start };
        let segments = inner.segments.partition_point(|segment| segment.file.base < from);
        let Some(last) = segments.checked_sub(1).map(|last| &inner.segments[last]).filter(|_| from > start) else {
            return Ok(Some(nothing));
        };
        if last.end <= from {
            let whole = Kept { segments, part: None, end: last.end, last_epoch: last.last_epoch };
            return Ok(Some(if last.end > start { whole } else { nothing }));
        }
        let (view, first_previous_end) = (View::from(last), last.first_previous_end);
        drop(inner);

        let mut entries = self.all_entries(&view, Wait::Yes)?;
        let place = block_of(&entries, from + -1).unwrap_or(0);
        let seen = self.seen_in(&view.file, block_range(&entries, place, view.bytes), Wait::Yes)?;
        let kept: Vec<_> = seen.into_iter().take_while(|run| run.base < from).collect();
        let Some(last) = kept.last().filter(|last| last.next_offset > start) else {
            return Ok(Some(nothing));
        };
        if last.next_offset > from {
            return Err(out_of_range);
        }
        let live =
            |runs: &[Seen]| greatest(runs.iter().filter(|run| run.next_offset > start).map(|run| run.max_timestamp));
        let first_live = block_of(&entries, start).unwrap_or(0).min(place);
        let between = greatest(entries[..place].iter().skip(first_live + 1).map(|entry| entry.max_timestamp));
        let mut live_max_timestamp = live(&kept).max(between);
        if first_live < place {
            let range = block_range(&entries, first_live, view.bytes);
            live_max_timestamp = live_max_timestamp.max(live(&self.seen_in(&view.file, range, Wait::Yes)?));
        }
        entries.truncate(place + 1);
        entries[place].max_timestamp = greatest(kept.iter().map(|run| run.max_timestamp));
        let part = Segment {
            file: view.file,
            end: last.next_offset,
            bytes: last.position + last.frame_bytes,
            first_previous_end,
            last_position: last.position,
            last_epoch: last.epoch,
            max_timestamp: greatest(entries.iter().map(|entry| entry.max_timestamp)),
            live_max_timestamp,
            sealed: false,
            covered_bytes: 0,
            recent: entries,
        };
        Ok(Some(Kept { segments, end: part.end, last_epoch: part.last_epoch, part: Some(part) }))
    }

    /// What moving the start to `upto` would change; `None` if it is there or beyond.
    pub(super) fn survey_advance(&self, upto: Offset) -> Answer<Option<Advanced>> {
        let inner = self.inner();
        inner.check_open()?;
        if upto > inner.end {
            return Err(inner.out_of_range());
        }
        if upto <= inner.start {
            return Ok(None);
        }
        let dropped = inner.segments.partition_point(|segment| segment.end <= upto);
        let Some(first) = inner.segments.get(dropped) else {
            let epoch_before_start = inner.last_epoch;
            return Ok(Some(Advanced { dropped, epoch_before_start, live_max_timestamp: None }));
        };
        if first.file.base >= upto {
            let before = dropped.checked_sub(1).map(|last| inner.segments[last].last_epoch);
            let epoch_before_start = before.unwrap_or(inner.epoch_before_start);
            return Ok(Some(Advanced { dropped, epoch_before_start, live_max_timestamp: None }));
        }
        let view = View::from(first);
        let epoch_otherwise = inner.epoch_before_start;
        drop(inner);

        let (epoch, live) = self.look_at_start(&view, upto)?;
        let epoch_before_start = epoch.unwrap_or(epoch_otherwise);
        Ok(Some(Advanced { dropped, epoch_before_start, live_max_timestamp: Some(live) }))
    }

    /// In the segment that `start` lies in: the epoch of the last run that begins before it, and the greatest timestamp
    /// of those that reach past it.
    pub(super) fn look_at_start(&self, view: &View, start: Offset) -> Result<(Option<LeaderEpoch>, Timestamp), Blind> {
        let entries = self.all_entries(view, Wait::Yes)?;
        let place = block_of(&entries, start + -1).unwrap_or(0);
        let seen = self.seen_in(&view.file, block_range(&entries, place, view.bytes), Wait::Yes)?;
        let epoch = seen.iter().take_while(|run| run.base < start).last().map(|run| run.epoch);
        let rest = entries[place + 1..].iter().map(|entry| entry.max_timestamp);
        let live = seen.iter().filter(|run| run.next_offset > start).map(|run| run.max_timestamp);
        Ok((epoch, greatest(live.chain(rest))))
    }
}
