//! Zeros written ahead of the log's end, while its syncs carry little.
//!
//! A sync of a file that grew must also make its new length and blocks durable, through the file system's journal; one of
//! blocks that exist need not. Measured, 1 to 64 KiB per sync: 130 to 200 µs where the file grows, 80 to 125 µs where
//! zeros lay before. Writing them costs as much as writing data, so it is done only for logs that sync often and little,
//! where one window serves many syncs, and only for some at a time: with a thousand it made syncs slower.
//!
//! Nothing depends on the zeros: recovery takes them for the end, and closing, sealing and cutting take them away.

use crate::disk::DiskFile;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Logs of an engine that have zeros ahead at the same time. At 64 logs they neither help nor harm any more.
const LOGS_MAX: usize = 64;

/// How many logs have zeros ahead.
#[derive(Clone, Debug, Default)]
pub struct AheadLogs(Arc<AtomicUsize>);

impl AheadLogs {
    fn enter(&self) -> Option<Permit> {
        let more = |logs| (logs < LOGS_MAX).then_some(logs + 1);
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Permit(self.clone()))
    }
}

/// One log's part of [`LOGS_MAX`].
#[derive(Debug)]
struct Permit(AheadLogs);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A sync that carries no more than this counts as a small one.
const SMALL_BYTES: u64 = 64 << 10;

/// Small syncs in a row after which zeros are written ahead.
const SMALL_ROUNDS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The number of the segment whose file has zeros, and how far they reach.
    reach: Option<(u64, u64)>,
    small_rounds: u32,
    permit: Option<Permit>,
}

impl Ahead {
    /// A sync begins that carries so much.
    pub(super) fn note_round(&mut self, bytes: u64) {
        self.small_rounds = match bytes {
            0 => self.small_rounds,
            1..=SMALL_BYTES => self.small_rounds.saturating_add(1),
            _ => 0,
        };
    }

    /// What to fill with zeros once the segment's file reaches to `end`.
    pub(super) fn due(
        &mut self,
        logs: &AheadLogs,
        segment: u64,
        end: u64,
        window_bytes: u64,
        segment_bytes: u64,
    ) -> Option<Range<u64>> {
        let there = self.reach.is_some_and(|(number, upto)| number == segment && end < upto);
        let upto = segment_bytes.min(end + window_bytes);
        if self.small_rounds < SMALL_ROUNDS || there || end >= upto {
            return None;
        }
        self.permit = self.permit.take().or_else(|| logs.enter());
        self.permit.is_some().then_some(end..upto)
    }

    pub(super) fn wrote(&mut self, segment: u64, upto: u64) {
        self.reach = Some((segment, upto));
    }

    /// Whether zeros lie after the segment's end.
    pub(super) fn is_in(&self, segment: u64) -> bool {
        self.reach.is_some_and(|(number, _)| number == segment)
    }

    /// They were taken away, or belong to a segment that no longer is the last.
    pub(super) fn forget(&mut self) {
        self.reach = None;
        self.permit = None;
    }
}

static ZEROS: [u8; 32 << 10] = [0; 32 << 10];

/// Writes zeros over a range of the file.
pub fn write_zeros(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut position = range.start;
    while position < range.end {
        let mut left = (range.end - position) as usize;
        let mut slices = Vec::new();
        while left > 0 {
            let part = &ZEROS[..left.min(ZEROS.len())];
            slices.push(IoSlice::new(part));
            left -= part.len();
        }
        match file.write_at(&slices, position)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => position += written as u64,
        }
    }
    Ok(())
}
