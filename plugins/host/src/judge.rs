//! What a plug-in answered, checked against what was asked. An answer that cannot be true takes the log out of service:
//! the broker must never acknowledge, serve or delete by it.

use crate::log::{Asked, Op};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, Offset};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Appended, Cause, Chunk, LogState, Refused, SegmentInfo, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{TEXT_BYTES, ck_append_args, ck_result, ck_segment, ck_state};

/// The text that came with an error.
pub(crate) fn text(result: &ck_result) -> String {
    let len = (result.text_len as usize).min(TEXT_BYTES);
    match String::from_utf8_lossy(&result.text[..len]).trim() {
        "" => "no reason given".to_owned(),
        text => text.to_owned(),
    }
}

/// What an error of a call means. Nothing that changes a log may end in mere trouble: whether it happened is then unknown,
/// and the log has failed.
fn error(op: &Op, status: i32, result: &ck_result) -> WalError {
    let changes = !matches!(op.asked, Asked::Read(_) | Asked::Find | Asked::Get);
    let name = op.asked.name();
    match status {
        abi::OUT_OF_RANGE if (0..=result.next_offset).contains(&result.offset) => {
            WalError::OutOfRange { start: Offset(result.offset), end: Offset(result.next_offset) }
        }
        abi::CORRUPT => WalError::Corrupt { offset: Offset(result.offset) },
        abi::CLOSED => WalError::Closed,
        abi::FULL => WalError::Full,
        abi::IO if !changes => WalError::Io(Cause::new(text(result))),
        abi::FAILED | abi::IO => WalError::Failed(op.log.fail(&format!("failed in `{name}`: {}", text(result)))),
        abi::PANIC => WalError::Failed(op.log.fail_for(&format!("panicked in `{name}`: {}", text(result)))),
        _ => WalError::Failed(op.log.fail_for(&format!("answered `{name}` with status {status}: {}", text(result)))),
    }
}

fn lie(op: &Op, what: String) -> WalError {
    WalError::Failed(op.log.fail_for(&what))
}

pub(crate) fn appended(op: &Op, status: i32, result: &ck_result) -> Result<Appended, WalError> {
    let Asked::Append { next_offset, .. } = op.asked else { return Err(error(op, abi::INVALID, result)) };
    if status != abi::OK {
        // It was ordered, and others may have read it: now it is lost, and so is the log.
        let why = format!("could not write what it had taken (status {status}): {}", text(result));
        let cause = if status == abi::FAILED { op.log.fail(&why) } else { op.log.fail_for(&why) };
        return Err(WalError::Failed(cause));
    }
    let written_end = Offset(result.offset);
    if op.undisturbed() && (written_end < next_offset || written_end.0 > op.log.highest()) {
        return Err(lie(op, format!("completed an append up to {next_offset} with the written end {written_end}")));
    }
    Ok(Appended { written_end })
}

/// Why an append was refused; nothing was ordered.
pub(crate) fn refused(op: &Op, status: i32, result: &ck_result, args: &ck_append_args) -> Refused {
    match status {
        abi::FULL => Refused::Full,
        abi::BUSY => Refused::Busy,
        abi::OUT_OF_ORDER if result.offset > args.base || args.next_offset <= args.base => {
            Refused::OutOfOrder { expected: Offset(result.offset) }
        }
        abi::FENCED if i64::from(args.epoch) < result.value as i64 => {
            Refused::Fenced { current: LeaderEpoch(i32::try_from(result.value).unwrap_or(i32::MAX)) }
        }
        abi::TOO_LARGE if result.value < args.bytes => {
            Refused::TooLarge { max: usize::try_from(result.value).unwrap_or(usize::MAX) }
        }
        abi::CLOSED => Refused::Closed,
        abi::FAILED => {
            op.log.fail(&format!("failed: {}", text(result)));
            Refused::Failed
        }
        abi::PANIC => {
            op.log.fail_for(&format!("panicked in `append`: {}", text(result)));
            Refused::Failed
        }
        _ => {
            op.log
                .fail_for(&format!("refused an append for no reason it may have (status {status}): {}", text(result)));
            Refused::Failed
        }
    }
}

pub(crate) fn synced(op: &Op, status: i32, result: &ck_result) -> Result<Offset, WalError> {
    let Asked::Sync { at_least } = op.asked else { return Err(error(op, abi::INVALID, result)) };
    if status != abi::OK {
        return Err(error(op, status, result));
    }
    let durable_end = result.offset;
    if op.undisturbed() && (durable_end < at_least || durable_end > op.log.highest()) {
        return Err(lie(op, format!("was asked to sync up to {at_least} and says that {durable_end} is durable")));
    }
    Ok(Offset(durable_end))
}

pub(crate) fn unit(op: &Op, status: i32, result: &ck_result) -> Result<(), WalError> {
    if status == abi::OK { Ok(()) } else { Err(error(op, status, result)) }
}

pub(crate) fn chunk(op: &Op, status: i32, result: &ck_result) -> Result<Chunk, WalError> {
    let Asked::Read(range) = op.asked else { return Err(error(op, abi::INVALID, result)) };
    if status != abi::OK {
        return Err(error(op, status, result));
    }
    let bytes = op.log.payload(result)?;
    let chunk = Chunk { base: Offset(result.offset), next_offset: Offset(result.next_offset), bytes };
    let nothing = chunk.bytes.is_empty() && chunk.base == range.from && chunk.next_offset == range.from;
    let something = chunk.base < chunk.next_offset
        && chunk.base.0 >= 0
        && chunk.next_offset > range.from
        && chunk.next_offset <= range.upto
        && (chunk.next_offset.0 <= op.log.highest() || !op.undisturbed())
        && (range.min_one || chunk.bytes.len() <= range.max_bytes);
    if !nothing && !something {
        let (base, next) = (chunk.base, chunk.next_offset);
        let bytes = chunk.bytes.len();
        return Err(lie(op, format!("answered a read of {range:?} with {bytes} bytes from {base} up to {next}")));
    }
    if let Some(verify) = &op.log.terms().verify
        && let Err(why) = verify(&chunk)
    {
        op.log.fail_for(&format!("returned damaged records at offset {}: {why}", chunk.base));
        return Err(WalError::Corrupt { offset: chunk.base });
    }
    Ok(chunk)
}

pub(crate) fn found(op: &Op, status: i32, result: &ck_result) -> Result<Option<Offset>, WalError> {
    match result.offset {
        _ if status != abi::OK => Err(error(op, status, result)),
        abi::NONE => Ok(None),
        offset if (0..op.log.highest()).contains(&offset) => Ok(Some(Offset(offset))),
        offset => Err(lie(op, format!("found a time at offset {offset}, which the log has never held"))),
    }
}

pub(crate) fn value(op: &Op, status: i32, result: &ck_result) -> Result<Option<Bytes>, WalError> {
    if status != abi::OK {
        return Err(error(op, status, result));
    }
    let bytes = op.log.payload(result)?.to_bytes();
    Ok((result.value != 0).then_some(bytes))
}

/// `highest` and `at_least` bound the end.
pub(crate) fn state(given: &ck_state, highest: i64, at_least: i64) -> Result<LogState, String> {
    let ordered = 0 <= given.start
        && given.start <= given.durable_end
        && given.durable_end <= given.written_end
        && given.written_end <= given.end;
    if !ordered || given.end > highest || given.end < at_least {
        return Err(format!(
            "says that a log starts at {}, is durable up to {}, written up to {} and ends at {}",
            given.start, given.durable_end, given.written_end, given.end
        ));
    }
    Ok(LogState {
        start: Offset(given.start),
        end: Offset(given.end),
        written_end: Offset(given.written_end),
        durable_end: Offset(given.durable_end),
        bytes: given.bytes,
        last_epoch: LeaderEpoch(given.last_epoch),
        max_timestamp: Timestamp(given.max_timestamp),
    })
}

pub(crate) fn segment(given: &ck_segment) -> SegmentInfo {
    SegmentInfo {
        base: Offset(given.base),
        end: Offset(given.end),
        bytes: given.bytes,
        max_timestamp: Timestamp(given.max_timestamp),
        sealed: given.sealed != 0,
    }
}
