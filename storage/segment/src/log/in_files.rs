//! Telling where a read would find its runs, so that the kernel sends them from there.
//!
//! What must stay true: only bytes that are known to be whole ([`super::whole`]) and that memory still holds are told of.
//! Who asks for others reads them, which checks them and makes them known. So the second of several readers, and whoever
//! reads what was just written but is no longer in the tail, is served for the price of a send.
//!
//! Frame headers lie between the runs, so each run is a part of its own. A small one costs more to find and to send by itself
//! than to copy: the answer ends before it, and the next one is read.

use super::SegmentLog;
use super::read::takes;
use crate::disk::{DiskFile, Wait};
use crate::frame::{FrameHeader, HEADER_BYTES};
use chronik_core::wal::{ChunkInFiles, InFile, ReadRange};
use std::ops::Range;

/// Runs smaller than this are read. Finding, looking for and sending one by itself takes three or four system calls, about
/// what copying and checking half of this takes.
const RUN_BYTES_MIN: usize = 32 << 10;

/// Memory is looked into this often. The kernel reads ahead, and lets go, in pieces of about this size.
const LOOK_EVERY_BYTES: usize = 128 << 10;

impl SegmentLog {
    pub(super) fn locate(&self, range: ReadRange) -> Option<ChunkInFiles> {
        if !self.shared.options.send_from_files {
            return None;
        }
        let from = range.from;
        let piece = {
            let inner = self.inner();
            let is_here = inner.start <= from && from < range.upto && !inner.tail.covers(from);
            (inner.check_open().is_ok() && is_here).then(|| inner.piece(from))??
        };
        let handle = self.handle(&piece.file, Wait::No).ok()?;
        let file = handle.file.clone().descriptor()?;
        let mut position = self.position_of(&piece, &handle, from, Wait::No).ok()?;
        let known_end = self.inner().whole.reach(piece.file.number, position).min(piece.end);
        let mut chunk = ChunkInFiles { base: from, next_offset: from, parts: Vec::new() };
        let mut room = range.max_bytes;
        while position + HEADER_BYTES as u64 <= known_end
            && let Some(header) = header_at(&*handle.file, position, piece.file.salt)
        {
            let bytes = header.payload_bytes as usize;
            let end = position + header.frame_bytes();
            let follows = chunk.next_offset < header.next_offset && header.next_offset <= piece.log_end;
            let first = chunk.parts.is_empty();
            if !follows
                || bytes < RUN_BYTES_MIN
                || end > known_end
                || !takes(&range, room, first, header.next_offset, bytes)
            {
                break;
            }
            let payload = position + HEADER_BYTES as u64;
            if !is_in_memory(&*handle.file, payload..end) {
                break;
            }
            if first {
                chunk.base = header.base;
            }
            chunk.next_offset = header.next_offset;
            chunk.parts.push(InFile { file: file.clone(), position: payload, bytes });
            room = room.saturating_sub(bytes);
            position = end;
        }
        let mut inner = self.inner();
        // What was cut meanwhile is not there to be sent.
        if chunk.parts.is_empty() || inner.era != piece.era {
            return None;
        }
        inner.put_bookmark(chunk.next_offset, piece.file.number, position);
        Some(chunk)
    }
}

fn header_at(file: &dyn DiskFile, position: u64, salt: u32) -> Option<FrameHeader> {
    let mut bytes = [0; HEADER_BYTES];
    let read = file.read_at(&mut bytes, position, Wait::No).ok()?;
    FrameHeader::decode(&bytes[..read], salt)
}

fn is_in_memory(file: &dyn DiskFile, range: Range<u64>) -> bool {
    let looks = range.clone().step_by(LOOK_EVERY_BYTES).chain([range.end - 1]);
    looks.into_iter().all(|position| matches!(file.read_at(&mut [0], position, Wait::No), Ok(1)))
}
