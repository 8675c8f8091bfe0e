//! A plug-in's buffer as [`Bytes`]: nothing is copied, and the plug-in hears when the last slice of it is gone.

use crate::reaper;
use bytes::Bytes;
use chronik_core::payload::Payload;
use chronik_plugin_abi::{ck_buf, ck_slice};
use std::ffi::c_void;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// More slices than any read has runs.
const SLICES_MAX: u64 = 1 << 20;

/// The right, and the duty, to release what the plug-in owns. Memory that is read through it is counted while it lives.
struct Owned {
    owner: *mut c_void,
    release: Option<reaper::Release>,
    retained_bytes: u64,
    counted_in: Arc<AtomicU64>,
}

// SAFETY: the owner is a token that only `release` interprets, and the contract lets that be called from any thread.
unsafe impl Send for Owned {}
// SAFETY: nothing can be done with a shared reference but read the bytes, which do not change until the release.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        self.counted_in.fetch_sub(self.retained_bytes, Ordering::Relaxed);
        let Some(release) = self.release else { return };
        // SAFETY: the plug-in gave both together, to be called once, from any thread; this is the only place, and runs once.
        unsafe { reaper::hand_back(release, self.owner) };
    }
}

/// One slice of an owned buffer. Most buffers have only one.
struct Part<Held> {
    at: *const u8,
    len: usize,
    _owned: Held,
}

// SAFETY: as for `Owned`, which keeps the bytes alive.
unsafe impl<Held: Send> Send for Part<Held> {}

impl<Held> AsRef<[u8]> for Part<Held> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: not null and not empty (checked below); the plug-in vouches that so many bytes are there, unchanged,
        // until the release, which this part's `Owned` holds back.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
}

/// What the buffer holds. `Err`: it cannot be what the plug-in meant, and says why. Released in either case.
///
/// # Safety
/// The slices are there, as the contract says of a buffer in a result.
pub(crate) unsafe fn payload(buf: &ck_buf, counted_in: &Arc<AtomicU64>) -> Result<Payload, String> {
    counted_in.fetch_add(buf.retained_bytes, Ordering::Relaxed);
    let owned = Owned {
        owner: buf.owner,
        release: buf.release,
        retained_bytes: buf.retained_bytes,
        counted_in: counted_in.clone(),
    };
    if buf.slices_len == 0 {
        return Ok(Payload::new());
    }
    if buf.slices.is_null() || buf.slices_len > SLICES_MAX {
        return Err(format!("gives a buffer of {} slices at {:p}", buf.slices_len, buf.slices));
    }
    // SAFETY: not null, and the caller vouches for the array.
    let slices = unsafe { slice::from_raw_parts(buf.slices, buf.slices_len as usize) };
    if let Some(wrong) =
        slices.iter().find(|slice| slice.len > 0 && (slice.at.is_null() || slice.len > isize::MAX as u64))
    {
        return Err(format!("gives a slice of {} bytes at {:p}", wrong.len, wrong.at));
    }
    if let [only] = slices
        && only.len > 0
    {
        let part = Part { at: only.at, len: only.len as usize, _owned: owned };
        return Ok(Bytes::from_owner(part).into());
    }
    let owned = Arc::new(owned);
    let part = |slice: &ck_slice| Part { at: slice.at, len: slice.len as usize, _owned: owned.clone() };
    Ok(slices.iter().filter(|slice| slice.len > 0).map(|slice| Bytes::from_owner(part(slice))).collect())
}
