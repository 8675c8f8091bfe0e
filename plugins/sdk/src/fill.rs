//! Outcomes of the Rust traits as results of the C interface.

use chronik_core::ids::{LogId, Offset};
use chronik_core::payload::Payload;
use chronik_core::wal::{Appended, Chunk, EngineError, LogState, Refused, SegmentInfo, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{TEXT_BYTES, ck_buf, ck_log_id, ck_result, ck_segment, ck_slice, ck_state};
use smallvec::SmallVec;
use std::error::Error;
use std::ffi::c_void;

/// Writes why into the result; what does not fit is cut.
pub(crate) fn text(result: &mut ck_result, why: &str) {
    let mut len = why.len().min(TEXT_BYTES);
    while !why.is_char_boundary(len) {
        len -= 1;
    }
    result.text[..len].copy_from_slice(&why.as_bytes()[..len]);
    result.text_len = len as u32;
}

/// An error with all its causes.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Bytes that the host holds until it releases them.
struct Handed {
    /// As many as one batch usually has.
    slices: SmallVec<[ck_slice; 2]>,
    payload: Payload,
}

fn hand_out(payload: Payload) -> ck_buf {
    let slices: SmallVec<_> =
        payload.parts().iter().map(|part| ck_slice { at: part.as_ptr(), len: part.len() as u64 }).collect();
    let owner = Box::into_raw(Box::new(Handed { slices, payload }));
    // SAFETY: just made; from here on nobody moves it or changes what it holds until it is released.
    let handed = unsafe { &*owner };
    ck_buf {
        slices: handed.slices.as_ptr(),
        slices_len: handed.slices.len() as u64,
        retained_bytes: handed.payload.len() as u64,
        owner: owner.cast(),
        release: Some(release),
    }
}

unsafe extern "C" fn release(owner: *mut c_void) {
    // A panic in dropping plain bytes cannot be, but must not cross if an owner of them has one.
    let _panicked = std::panic::catch_unwind(|| {
        // SAFETY: made by `hand_out`; the host releases once.
        drop(unsafe { Box::from_raw(owner.cast::<Handed>()) });
    });
}

/// What fills in a result.
pub(crate) trait Fill {
    /// The status.
    fn fill(self, result: &mut ck_result) -> i32;
}

impl<T: Fill> Fill for Result<T, WalError> {
    fn fill(self, result: &mut ck_result) -> i32 {
        let error = match self {
            Ok(outcome) => return outcome.fill(result),
            Err(error) => error,
        };
        text(result, &whole(&error));
        match error {
            WalError::OutOfRange { start, end } => {
                (result.offset, result.next_offset) = (start.0, end.0);
                abi::OUT_OF_RANGE
            }
            WalError::Corrupt { offset } => {
                result.offset = offset.0;
                abi::CORRUPT
            }
            WalError::Failed(_) => abi::FAILED,
            WalError::Closed => abi::CLOSED,
            WalError::Full => abi::FULL,
            WalError::Io(_) => abi::IO,
        }
    }
}

impl Fill for Refused {
    fn fill(self, result: &mut ck_result) -> i32 {
        match self {
            Refused::Full => abi::FULL,
            Refused::Busy => abi::BUSY,
            Refused::OutOfOrder { expected } => {
                result.offset = expected.0;
                abi::OUT_OF_ORDER
            }
            Refused::Fenced { current } => {
                result.value = current.0 as u64;
                abi::FENCED
            }
            Refused::Failed => {
                text(result, &self.to_string());
                abi::FAILED
            }
            Refused::Closed => abi::CLOSED,
            Refused::TooLarge { max } => {
                result.value = max as u64;
                abi::TOO_LARGE
            }
        }
    }
}

impl Fill for EngineError {
    fn fill(self, result: &mut ck_result) -> i32 {
        text(result, &whole(&self));
        match self {
            EngineError::NotFound(_) => abi::NOT_FOUND,
            EngineError::AlreadyExists(_) => abi::ALREADY_EXISTS,
            EngineError::Corrupt { offset, what, .. } => {
                result.offset = offset.0;
                text(result, &what);
                abi::CORRUPT
            }
            EngineError::Full => abi::FULL,
            EngineError::Closed => abi::CLOSED,
            // Of one whose author has promised that it can: told with its words.
            EngineError::CannotSetAside | EngineError::Io { .. } => abi::IO,
        }
    }
}

impl Fill for () {
    fn fill(self, _result: &mut ck_result) -> i32 {
        abi::OK
    }
}

impl Fill for Appended {
    fn fill(self, result: &mut ck_result) -> i32 {
        self.written_end.fill(result)
    }
}

impl Fill for Offset {
    fn fill(self, result: &mut ck_result) -> i32 {
        result.offset = self.0;
        abi::OK
    }
}

impl Fill for Option<Offset> {
    fn fill(self, result: &mut ck_result) -> i32 {
        self.unwrap_or(Offset(abi::NONE)).fill(result)
    }
}

impl Fill for Chunk {
    fn fill(self, result: &mut ck_result) -> i32 {
        (result.offset, result.next_offset) = (self.base.0, self.next_offset.0);
        if !self.bytes.is_empty() {
            result.buf = hand_out(self.bytes);
        }
        abi::OK
    }
}

impl Fill for Option<bytes::Bytes> {
    fn fill(self, result: &mut ck_result) -> i32 {
        if let Some(value) = self {
            result.value = 1;
            result.buf = hand_out(value.into());
        }
        abi::OK
    }
}

impl Fill for Vec<LogId> {
    fn fill(self, result: &mut ck_result) -> i32 {
        let mut bytes = Vec::with_capacity(self.len() * size_of::<ck_log_id>());
        for log in self {
            bytes.extend_from_slice(&log.topic.0);
            bytes.extend_from_slice(&log.partition.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        result.buf = hand_out(bytes::Bytes::from(bytes).into());
        abi::OK
    }
}

pub(crate) fn state(from: LogState) -> ck_state {
    ck_state {
        struct_size: size_of::<ck_state>() as u32,
        last_epoch: from.last_epoch.0,
        start: from.start.0,
        end: from.end.0,
        written_end: from.written_end.0,
        durable_end: from.durable_end.0,
        bytes: from.bytes,
        max_timestamp: from.max_timestamp.0,
    }
}

pub(crate) fn segment(from: &SegmentInfo) -> ck_segment {
    ck_segment {
        base: from.base.0,
        end: from.end.0,
        bytes: from.bytes,
        max_timestamp: from.max_timestamp.0,
        sealed: u32::from(from.sealed),
        reserved: 0,
    }
}
