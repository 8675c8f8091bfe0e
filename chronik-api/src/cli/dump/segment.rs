//! Walks the frames of a segment file from its first byte.

use bytes::Bytes;
use chronik_core::ids::{LogId, Offset};
use chronik_core::payload::Payload;
use chronik_storage_segment::frame::{self, FrameHeader, HEADER_BYTES};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of what is no frame is looked through at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A segment file, as its name and size say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub base: Offset,
    pub path: PathBuf,
    pub bytes: u64,
}

impl Segment {
    /// `None` if the file's name is not a segment's.
    pub fn at(path: &Path) -> Option<Self> {
        let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
        let base = Offset(digits.parse().ok().filter(|base| *base >= 0 && digits.len() == 20)?);
        let bytes = std::fs::metadata(path).ok()?.len();
        Some(Self { base, path: path.to_owned(), bytes })
    }

    /// The segments in a log's directory, in order; none if it is no such directory.
    pub fn of_log(dir: &Path) -> io::Result<Vec<Self>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            segments.extend(Self::at(&entry?.path()));
        }
        segments.sort_by_key(|segment| segment.base);
        Ok(segments)
    }

    pub fn frames(&self, log: LogId) -> io::Result<Frames> {
        let file = File::open(&self.path)?;
        // A running broker appends; what comes later is not looked at.
        let bytes = file.metadata()?.len();
        Ok(Frames {
            input: BufReader::with_capacity(WINDOW_BYTES, file),
            salt: frame::salt(log, self.base),
            position: 0,
            bytes,
            end_offset: self.base,
        })
    }
}

/// A run as it lies in the file.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Of the frame's header in the file.
    pub position: u64,
    pub header: FrameHeader,
    pub payload: Bytes,
    /// The payload's checksum is right.
    pub intact: bool,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last frame.
    Clean,
    /// With zeros: room that was taken in advance.
    Reserved { bytes: u64 },
    /// With what is no frame: a write that is under way, or was cut off. Opening the log cuts it off.
    Unfinished { position: u64, bytes: u64 },
    /// With what is no frame, though a later frame says that it had been promised as durable.
    Damaged { position: u64, witness: u64 },
}

pub(super) struct Frames {
    input: BufReader<File>,
    salt: u32,
    /// Of the next frame.
    position: u64,
    bytes: u64,
    end_offset: Offset,
}

impl Frames {
    /// The next frame; `None` at the end, or where what follows is none.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let left = self.bytes.saturating_sub(self.position);
        let mut bytes = [0; HEADER_BYTES];
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.input.seek(SeekFrom::Start(self.position))?;
        self.input.read_exact(&mut bytes)?;
        let Some(header) = FrameHeader::decode(&bytes, self.salt) else { return Ok(None) };
        if header.frame_bytes() > left {
            return Ok(None);
        }
        let mut payload = Vec::new();
        Read::by_ref(&mut self.input).take(header.payload_bytes.into()).read_to_end(&mut payload)?;
        let payload = Bytes::from(payload);
        let intact = frame::payload_crc(&Payload::from(payload.clone())) == header.payload_crc;
        let frame = Frame { position: self.position, header, payload, intact };
        self.position += header.frame_bytes();
        self.end_offset = header.next_offset;
        Ok(Some(frame))
    }

    /// What there is behind the last frame that [`Frames::next`] gave.
    pub fn end(&mut self) -> io::Result<End> {
        let (position, left) = (self.position, self.bytes.saturating_sub(self.position));
        if left == 0 {
            return Ok(End::Clean);
        }
        let mut only_zeros = true;
        let mut window = Vec::with_capacity(WINDOW_BYTES + HEADER_BYTES);
        let mut window_at = position;
        self.input.seek(SeekFrom::Start(position))?;
        loop {
            let room = (WINDOW_BYTES as u64).min(self.bytes.saturating_sub(window_at + window.len() as u64));
            let read = Read::by_ref(&mut self.input).take(room).read_to_end(&mut window)?;
            only_zeros = only_zeros && window.iter().all(|byte| *byte == 0);
            let mut from = 0;
            while let Some(at) = frame::find_magic(&window, from) {
                let sound = FrameHeader::decode(&window[at..], self.salt);
                if sound.is_some_and(|header| header.durable_end > self.end_offset) {
                    return Ok(End::Damaged { position, witness: window_at + at as u64 });
                }
                from = at + 1;
            }
            if read == 0 {
                break;
            }
            // A header may lie across two windows.
            let keep = window.len().min(HEADER_BYTES - 1);
            let passed = window.len() - keep;
            window.drain(..passed);
            window_at += passed as u64;
        }
        Ok(if only_zeros { End::Reserved { bytes: left } } else { End::Unfinished { position, bytes: left } })
    }
}
