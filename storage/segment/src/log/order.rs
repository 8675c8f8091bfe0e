//! Ordering an append: all checks, then the run's place, under the log's lock and nothing else.

use super::{Answer, Op, QueuedRun, SegmentLog};
use crate::frame::HEADER_BYTES;
use crate::room::NoRoom;
use crate::segment::{Ordered, Segment, SegmentFile};
use crate::tail::TailRun;
use chronik_core::pending::Done;
use chronik_core::wal::{Appended, Refused, Rejected, Run};
use std::sync::Arc;

impl QueuedRun {
    pub(super) fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES + self.payload.len()) as u64
    }
}

impl SegmentLog {
    pub(super) fn order_append(&self, run: Run, done: Done<Answer<Appended>>) -> Result<(), Box<Rejected>> {
        let frame_bytes = (HEADER_BYTES + run.bytes.len()) as u64;
        let run_bytes_max = self.shared.options.run_bytes_max as usize;
        let mut inner = self.inner();
        let why = if inner.closed {
            Some(Refused::Closed)
        } else if inner.failed.is_some() {
            Some(Refused::Failed)
        } else if run.base < inner.end || run.next_offset <= run.base {
            Some(Refused::OutOfOrder { expected: inner.end })
        } else if run.epoch < inner.last_epoch {
            Some(Refused::Fenced { current: inner.last_epoch })
        } else if run.bytes.len() > run_bytes_max {
            Some(Refused::TooLarge { max: run_bytes_max })
        } else {
            match self.shared.room.take(frame_bytes) {
                Ok(()) => None,
                Err(NoRoom::Memory) => Some(Refused::Busy),
                Err(NoRoom::Device) => {
                    self.shared.probe_room();
                    Some(Refused::Full)
                }
            }
        };
        if let Some(why) = why {
            return Err(Box::new(Rejected { why, run }));
        }

        let (previous_end, era, segment_bytes) = (inner.end, inner.era, inner.segment_bytes);
        let fits = |last: &Segment| !last.sealed && (last.bytes == 0 || last.bytes + frame_bytes <= segment_bytes);
        if !inner.segments.back().is_some_and(fits) {
            if let Some(last) = inner.segments.back_mut() {
                last.sealed = true;
            }
            let number = self.shared.next_segment_number();
            let file = SegmentFile::new(number, self.id, run.base, self.dir.clone());
            inner.segments.push_back(Segment::new(Arc::new(file), previous_end));
        }
        let ordered = Ordered {
            base: run.base,
            next_offset: run.next_offset,
            max_timestamp: run.max_timestamp,
            epoch: run.epoch,
            frame_bytes,
        };
        let Some(last) = inner.segments.back_mut() else {
            unreachable!("a segment was added above if there was none");
        };
        let position = last.push(ordered);
        let segment = last.file.clone();
        inner.end = run.next_offset;
        inner.last_epoch = run.epoch;
        inner.tail.push(TailRun {
            base: run.base,
            next_offset: run.next_offset,
            max_timestamp: run.max_timestamp,
            epoch: run.epoch,
            payload: run.bytes.clone(),
            segment: segment.number,
            position,
            era,
        });
        inner.queue.push_back(Op::Append(QueuedRun {
            segment,
            position,
            base: run.base,
            next_offset: run.next_offset,
            previous_end,
            max_timestamp: run.max_timestamp,
            epoch: run.epoch,
            payload: run.bytes,
            era,
            done,
        }));
        Ok(())
    }
}
