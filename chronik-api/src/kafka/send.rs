//! An answer's way out: slices of memory are gather-written, and what lies in files the kernel sends from there.
//!
//! What must stay true: an answer leaves whole and in order, or its connection ends. A file that was cut while it was being
//! sent ends it too: the client comes again and is told what the log holds now.

use bytes::Buf;
use chronik_proto_kafka::{InFile, Part};
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// Slices handed to one gather-write; the kernel takes at most 1024.
const GATHER_SLICES_MAX: usize = 256;

/// What left, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub bytes: u64,
    /// Those of them that the kernel sent from files.
    pub from_files_bytes: u64,
}

/// Sends all parts. A client that takes none of them for `stall` is given up.
pub async fn send_all(write_half: &OwnedWriteHalf, mut out: VecDeque<Part>, stall: Duration) -> io::Result<Sent> {
    let stream: &TcpStream = write_half.as_ref();
    let mut all = Sent::default();
    while let Some(front) = out.front() {
        let sent = match front {
            Part::InFile(part) => stream.try_io(Interest::WRITABLE, || send_from_file(stream, part)),
            Part::Bytes(_) => stream.try_io(Interest::WRITABLE, || send_from_memory(stream, &out)),
        };
        match sent {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                all.bytes += sent as u64;
                if matches!(front, Part::InFile(_)) {
                    all.from_files_bytes += sent as u64;
                }
                advance(&mut out, sent);
            }
            Err(busy) if busy.kind() == io::ErrorKind::WouldBlock => {
                match tokio::time::timeout(stall, stream.writable()).await {
                    Ok(writable) => writable?,
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(all)
}

/// Takes away what was sent.
fn advance(out: &mut VecDeque<Part>, mut sent: usize) {
    while let Some(front) = out.front_mut() {
        if sent < front.len() {
            match front {
                Part::Bytes(bytes) => bytes.advance(sent),
                Part::InFile(part) => {
                    part.position += sent as u64;
                    part.bytes -= sent;
                }
            }
            return;
        }
        sent -= front.len();
        out.pop_front();
    }
}

/// Gather-writes the slices up to the first part that lies in a file. If there is one the kernel is told that more comes:
/// the few bytes before it need no packet of their own.
fn send_from_memory(stream: &TcpStream, out: &VecDeque<Part>) -> io::Result<usize> {
    let in_memory = out.iter().map_while(|part| match part {
        Part::Bytes(bytes) => Some(IoSlice::new(bytes)),
        Part::InFile(_) => None,
    });
    let slices: SmallVec<[IoSlice<'_>; 16]> = in_memory.take(GATHER_SLICES_MAX).collect();
    let flags = if slices.len() < out.len() { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    let send = || rustix::net::sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags);
    Ok(retry_on_intr(send)?)
}

fn send_from_file(stream: &TcpStream, part: &InFile) -> io::Result<usize> {
    let mut position = part.position;
    match retry_on_intr(|| rustix::fs::sendfile(stream, &*part.file, Some(&mut position), part.bytes))? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a log was cut while it was being sent")),
        sent => Ok(sent),
    }
}
