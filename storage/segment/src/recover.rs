//! Opening a log: what its files say, repaired where a crash left them torn.
//!
//! What an index file covers was durable when that was written, and is taken as it is but for its last frame; reads check
//! the rest. What none covers is read and checked whole. At the first frame that is not sound there are two cases:
//!
//! - a sound frame after it says that the log had promised durability beyond it: what is bad here *was* good, so it is
//!   damage, and opening refuses, since to cut could lose acknowledged records;
//! - otherwise it is a torn tail: the crash came before a sync. It is cut off, with whatever lies behind it.
//!
//! Whatever is kept that was not known to be durable is synced before opening returns. Doing all this twice gives the same
//! as doing it once, wherever it was interrupted.

use crate::control::{Control, Intent};
use crate::disk::{DiskFile, Wait, read_full, remove_if_there};
use crate::frame::{FrameHeader, HEADER_BYTES, find_magic};
use crate::index::{self, Covered};
use crate::log::Found;
use crate::segment::{Ordered, Segment, SegmentFile};
use crate::shared::{Shared, read_buffer};
use chronik_core::crc32c;
use chronik_core::ids::{LogId, Offset};
use chronik_core::wal::{Cause, EngineError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes read at once while scanning.
const SCAN_BYTES: usize = 1 << 20;

/// How much opening may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Only what takes a few small reads: a log that was closed, or synced and not appended to since.
    Quick,
    Full,
    /// The log failed: believe nothing that memory holds of it and no index file covers.
    Distrustful,
}

/// Why opening gave no log.
pub enum Refusal {
    /// It takes more than [`Effort::Quick`].
    NeedsEffort,
    Error(EngineError),
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Refusal::Error(error)
    }
}

pub fn recover(shared: &Shared, id: LogId, dir: &Arc<Path>, effort: Effort) -> Result<Found, Refusal> {
    Recovery { shared, id, dir, effort }.run()
}

struct Recovery<'a> {
    shared: &'a Shared,
    id: LogId,
    dir: &'a Arc<Path>,
    effort: Effort,
}

/// What follows the sound frames of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scanned {
    /// The end of the file.
    Whole,
    /// Nothing but zeros, written ahead. If frames were lost among them, the next segment does not follow.
    Padded,
    /// Something that is not sound.
    Torn,
}

impl Recovery<'_> {
    fn run(&self) -> Result<Found, Refusal> {
        let disk = &*self.shared.disk;
        let mut control = match Control::load(disk, self.dir) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.corrupt(Offset::ZERO, error.to_string()).into());
            }
            outcome => outcome.map_err(|error| self.io("reading the control file", error))?,
        };
        let (mut files, mut indexes) = (BTreeMap::new(), BTreeSet::new());
        for entry in disk.entries(self.dir).map_err(|error| self.io("listing the segments", error))? {
            if let Some(base) = SegmentFile::base_of(&entry.name) {
                files.insert(base, entry.bytes);
            } else if let Some(base) = SegmentFile::base_of_index(&entry.name) {
                indexes.insert(base);
            }
        }
        for base in indexes.into_iter().filter(|base| !files.contains_key(base)) {
            self.explain_lone_index(base, &control, &files)?;
        }
        if control.intent.is_some() {
            self.needs_effort()?;
            self.finish(&control, &mut files).map_err(|error| self.io("finishing a truncation", error))?;
        }
        self.drop_below(control.start, &mut files).map_err(|error| self.io("dropping old segments", error))?;

        let cut_at = match control.intent {
            Some(Intent::Cut(from)) => Some(from),
            Some(Intent::Reset) | None => None,
        };
        let mut segments = self.load(&files, cut_at)?;
        // The start may lie beyond what a crash has left.
        while segments.back().is_some_and(|last| last.end <= control.start) {
            self.needs_effort()?;
            segments.pop_back();
        }
        if segments.len() < files.len() {
            let kept: BTreeSet<_> = segments.iter().map(|segment| segment.file.base).collect();
            let gone = files.keys().rev().filter(|base| !kept.contains(base));
            gone.copied().try_for_each(|base| self.remove(base)).map_err(|error| self.io("cutting segments", error))?;
            disk.sync_dir(self.dir).map_err(|error| self.io("cutting segments", error))?;
        }
        if control.intent.take().is_some() {
            control.store(disk, self.dir).map_err(|error| self.io("finishing a truncation", error))?;
        }
        if let Some(last) = segments.back_mut() {
            last.sealed = false;
        }
        let end = segments.back().map_or(control.start, |last| last.end);
        let last_epoch = segments.back().map_or(control.epoch_before_start, |last| last.last_epoch);
        Ok(Found { control, segments, end, last_epoch })
    }

    /// An index file is removed before its segment is. One without a segment stands for a segment that has vanished, unless
    /// that was to go. It is then removed: it would be taken for the index of the next segment that begins there.
    fn explain_lone_index(
        &self,
        base: Offset,
        control: &Control,
        files: &BTreeMap<Offset, u64>,
    ) -> Result<(), Refusal> {
        use std::ops::Bound::{Excluded, Included};
        let is_below = base < control.start && files.range((Excluded(base), Included(control.start))).next().is_some();
        if control.intent.is_none() && !is_below {
            return Err(self.corrupt(base, format!("segment {base} is missing, and its index is there")).into());
        }
        self.needs_effort()?;
        remove_if_there(&*self.shared.disk, &self.dir.join(SegmentFile::index_name(base)))
            .map_err(|error| self.io("removing an index", error).into())
    }

    /// The length of a segment's file now.
    fn bytes_of(&self, base: Offset) -> io::Result<u64> {
        let name = SegmentFile::name(base);
        let entries = self.shared.disk.entries(self.dir)?;
        Ok(entries.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.bytes))
    }

    fn needs_effort(&self) -> Result<(), Refusal> {
        if self.effort == Effort::Quick { Err(Refusal::NeedsEffort) } else { Ok(()) }
    }

    /// Removes what a truncation that was interrupted had doomed; the segment it cuts within is left to the scan.
    fn finish(&self, control: &Control, files: &mut BTreeMap<Offset, u64>) -> io::Result<()> {
        let doomed: Vec<_> = match control.intent {
            Some(Intent::Cut(from)) if from > control.start => files.range(from..).map(|(&base, _)| base).collect(),
            _ => files.keys().copied().collect(),
        };
        for base in doomed.into_iter().rev() {
            files.remove(&base);
            self.remove(base)?;
        }
        if let Some(&last) = files.keys().next_back() {
            remove_if_there(&*self.shared.disk, &self.dir.join(SegmentFile::index_name(last)))?;
        }
        self.shared.disk.sync_dir(self.dir)
    }

    /// Removes segments that lie wholly below the start: those whose successor begins at or below it.
    fn drop_below(&self, start: Offset, files: &mut BTreeMap<Offset, u64>) -> io::Result<()> {
        while let Some((&first, _)) = files.iter().next()
            && files.keys().nth(1).is_some_and(|&second| second <= start)
        {
            files.remove(&first);
            self.remove(first)?;
        }
        Ok(())
    }

    fn remove(&self, base: Offset) -> io::Result<()> {
        remove_if_there(&*self.shared.disk, &self.dir.join(SegmentFile::index_name(base)))?;
        remove_if_there(&*self.shared.disk, &self.dir.join(SegmentFile::name(base)))
    }

    /// The segments up to where the log is whole.
    fn load(&self, files: &BTreeMap<Offset, u64>, cut_at: Option<Offset>) -> Result<VecDeque<Segment>, Refusal> {
        let mut segments: VecDeque<Segment> = VecDeque::new();
        let mut names_to_sync = false;
        for (&base, &listed_bytes) in files {
            let mut bytes = listed_bytes;
            let number = self.shared.next_segment_number();
            let file = Arc::new(SegmentFile::new(number, self.id, base, self.dir.clone()));
            let open = self.shared.disk.open(&file.path()).map_err(|error| self.io("opening a segment", error))?;
            let (mut segment, covered) = self.load_covered(file, &*open, bytes)?;
            let previous_end = segments.back().map(|last| last.end);
            if covered.is_some() && previous_end.is_some_and(|end| end != segment.first_previous_end) {
                let end = previous_end.unwrap_or(base);
                return Err(self.corrupt(end, format!("what comes before segment {base} is missing")).into());
            }
            if segment.bytes == bytes && bytes > 0 {
                segments.push_back(segment);
                continue;
            }
            self.needs_effort()?;
            names_to_sync = true;
            if self.effort == Effort::Distrustful {
                // What the device failed to write may look fine in memory, and be gone from the queue of what to write.
                open.sync_data().map_err(|error| self.io("syncing a segment", error))?;
                open.forget_cached();
                bytes = self.bytes_of(base).map_err(|error| self.io("listing the segments", error))?;
            }
            let scanned = self.scan(&mut segment, &*open, bytes, previous_end, cut_at)?;
            if scanned == Scanned::Torn {
                self.check_torn(&segment, &*open, bytes, files, previous_end, cut_at)?;
            }
            if scanned != Scanned::Whole {
                open.set_len(segment.bytes).map_err(|error| self.io("cutting a torn tail", error))?;
            }
            open.sync_data().map_err(|error| self.io("syncing a segment", error))?;
            if segment.bytes > 0 {
                segments.push_back(segment);
            }
            if scanned == Scanned::Torn {
                break;
            }
        }
        if names_to_sync {
            self.shared.disk.sync_dir(self.dir).map_err(|error| self.io("syncing the log's directory", error))?;
        }
        Ok(segments)
    }

    /// A segment as far as its index file covers it.
    fn load_covered(
        &self,
        file: Arc<SegmentFile>,
        open: &dyn DiskFile,
        bytes: u64,
    ) -> Result<(Segment, Option<Covered>), Refusal> {
        let mut segment = Segment::new(file, Offset::ZERO);
        segment.sealed = true;
        let Some(covered) = self.summary(&segment.file) else { return Ok((segment, None)) };
        let mut header = [0; HEADER_BYTES];
        let read = read_full(open, &mut header, covered.last_position, Wait::Yes);
        let read = read.map_err(|error| self.io("reading a segment", error))?;
        let last = FrameHeader::decode(&header[..read], segment.file.salt);
        let whole = |last: &FrameHeader| covered.last_position + last.frame_bytes() == covered.bytes;
        match last.filter(whole) {
            Some(last) if FrameHeader::crc(&header) == covered.last_crc => {
                if bytes < covered.bytes {
                    return Err(self.corrupt(last.next_offset, "a segment is shorter than it was".into()).into());
                }
                segment.bytes = covered.bytes;
                segment.covered_bytes = covered.bytes;
                segment.first_previous_end = covered.first_previous_end;
                segment.last_position = covered.last_position;
                segment.end = last.next_offset;
                segment.last_epoch = last.epoch;
                segment.max_timestamp = covered.max_timestamp;
                segment.live_max_timestamp = covered.max_timestamp;
                Ok((segment, Some(covered)))
            }
            // An index file is removed, durably, before what it covers is: this is no other life of the segment.
            _ => {
                let what = format!("the frame at byte {} is not sound any more", covered.last_position);
                Err(self.corrupt(segment.file.base, what).into())
            }
        }
    }

    /// What the segment's index file says, if it is there and sound.
    fn summary(&self, file: &SegmentFile) -> Option<Covered> {
        let open = self.shared.disk.open(&file.index_path()).ok()?;
        let mut summary = [0; index::SUMMARY_READ_BYTES];
        let read = read_full(&*open, &mut summary, 0, Wait::Yes).ok()?;
        index::decode_summary(&summary[..read])
    }

    /// Adds the sound frames after what is covered.
    fn scan(
        &self,
        segment: &mut Segment,
        open: &dyn DiskFile,
        bytes: u64,
        previous_end: Option<Offset>,
        cut_at: Option<Offset>,
    ) -> Result<Scanned, Refusal> {
        let mut window: Vec<u8> = Vec::new();
        let mut window_at = segment.bytes;
        let mut wanted = SCAN_BYTES;
        while segment.bytes < bytes {
            let at = (segment.bytes - window_at) as usize;
            let header = window.get(at..).and_then(|rest| FrameHeader::decode(rest, segment.file.salt));
            let frame_bytes = header.as_ref().map_or(HEADER_BYTES as u64, FrameHeader::frame_bytes);
            if segment.bytes + frame_bytes > bytes {
                return self.end_at(segment, open, bytes);
            }
            if at as u64 + frame_bytes > window.len() as u64 {
                // Also the first time round: the window does not reach.
                wanted = wanted.max(frame_bytes as usize);
                window_at = segment.bytes;
                window = read_buffer(open, wanted.min((bytes - window_at) as usize), window_at, Wait::Yes)
                    .map_err(|error| self.io("reading a segment", error))?;
                if (window.len() as u64) < frame_bytes {
                    return Ok(Scanned::Torn);
                }
                continue;
            }
            let before = if segment.bytes > 0 { Some(segment.end) } else { previous_end };
            let sound = header.filter(|header| {
                let payload = &window[at + HEADER_BYTES..at + frame_bytes as usize];
                before.is_none_or(|end| header.previous_end == end)
                    && header.base >= segment.file.base
                    && cut_at.is_none_or(|from| header.next_offset <= from)
                    && crc32c::crc32c(payload) == header.payload_crc
            });
            let Some(header) = sound else {
                return self.end_at(segment, open, bytes);
            };
            if segment.bytes == 0 {
                segment.first_previous_end = header.previous_end;
            }
            segment.push(Ordered {
                base: header.base,
                next_offset: header.next_offset,
                max_timestamp: header.max_timestamp,
                epoch: header.epoch,
                frame_bytes,
            });
        }
        // An empty file is a segment whose first write never came.
        Ok(if bytes == 0 { Scanned::Torn } else { Scanned::Whole })
    }

    /// What it means that no sound frame follows.
    fn end_at(&self, segment: &Segment, open: &dyn DiskFile, bytes: u64) -> Result<Scanned, Refusal> {
        let mut from = segment.bytes;
        while segment.bytes > 0 && from < bytes {
            let window = read_buffer(open, SCAN_BYTES.min((bytes - from) as usize), from, Wait::Yes)
                .map_err(|error| self.io("reading a segment", error))?;
            if window.is_empty() || window.iter().any(|&byte| byte != 0) {
                return Ok(Scanned::Torn);
            }
            from += window.len() as u64;
        }
        Ok(if segment.bytes > 0 { Scanned::Padded } else { Scanned::Torn })
    }

    /// Refuses if what is not sound had been promised to be durable.
    fn check_torn(
        &self,
        segment: &Segment,
        open: &dyn DiskFile,
        bytes: u64,
        files: &BTreeMap<Offset, u64>,
        previous_end: Option<Offset>,
        cut_at: Option<Offset>,
    ) -> Result<(), Refusal> {
        if cut_at.is_some() {
            return Ok(());
        }
        let end = if segment.bytes > 0 { segment.end } else { previous_end.unwrap_or(segment.file.base) };
        let reading = |error| self.io("reading a segment", error);
        let knows = |header: &FrameHeader| header.durable_end > end;
        if self.find_frame(open, segment.bytes..bytes, segment.file.salt, knows).map_err(reading)? {
            let what = format!("what was durable there is not sound any more, at byte {}", segment.bytes);
            return Err(self.corrupt(end, what).into());
        }
        for (&base, _) in files.range((std::ops::Bound::Excluded(segment.file.base), std::ops::Bound::Unbounded)) {
            let file = SegmentFile::new(0, self.id, base, self.dir.clone());
            let mut header = [0; HEADER_BYTES];
            let later = self.shared.disk.open(&file.path()).map_err(reading)?;
            let read = read_full(&*later, &mut header, 0, Wait::Yes).map_err(reading)?;
            if FrameHeader::decode(&header[..read], file.salt).is_some_and(|header| knows(&header)) {
                let what = format!("segment {base} knows as durable what is not sound any more");
                return Err(self.corrupt(end, what).into());
            }
        }
        Ok(())
    }

    /// Whether anywhere in the range a sound header lies that satisfies `is`.
    fn find_frame(
        &self,
        open: &dyn DiskFile,
        range: std::ops::Range<u64>,
        salt: u32,
        is: impl Fn(&FrameHeader) -> bool,
    ) -> io::Result<bool> {
        let mut from = range.start;
        while from + (HEADER_BYTES as u64) <= range.end {
            let bytes = ((range.end - from) as usize).min(SCAN_BYTES);
            let window = read_buffer(open, bytes, from, Wait::Yes)?;
            let mut at = 0;
            while let Some(candidate) = find_magic(&window, at) {
                if FrameHeader::decode(&window[candidate..], salt).is_some_and(|header| is(&header)) {
                    return Ok(true);
                }
                at = candidate + 1;
            }
            if window.len() < HEADER_BYTES {
                break;
            }
            // A header may straddle two windows.
            from += (window.len() - HEADER_BYTES + 1) as u64;
        }
        Ok(false)
    }

    fn corrupt(&self, offset: Offset, what: String) -> EngineError {
        EngineError::Corrupt { log: self.id, offset, what }
    }

    fn io(&self, doing: &str, error: io::Error) -> EngineError {
        io_error(format!("{doing} of log {}", self.id), error)
    }
}

pub fn io_error(doing: String, error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Full,
        _ => EngineError::Io { doing, source: Cause::new(error) },
    }
}
