//! What an execution holds in memory at most: an allocator that counts, for each thread apart.
//!
//! The binary installs [`Counting`]; without it (in a library's tests) every peak is 0 and nothing is judged. What a target
//! gives to other threads is not seen: targets work on the thread they are called on.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// What an execution may hold for each byte of its input …
pub const PER_INPUT_BYTE: usize = 4;
/// … and besides. A message of empty elements may take what the codec allows for the smallest frame (64 KiB), twice while
/// an array moves; then there are the first blocks of buffers that do not know yet how much will come.
pub const BASE_BYTES: usize = 256 * 1024;

/// The most that an execution of an input of so many bytes may hold; a target may allow itself more besides.
pub fn allowed(input_bytes: usize, more_bytes: usize) -> usize {
    input_bytes * PER_INPUT_BYTE + BASE_BYTES + more_bytes
}

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // While a thread ends its counters are gone; nothing is measured then.
    let _ = IN_USE.try_with(|in_use| {
        let now = in_use.get().saturating_add(bytes);
        in_use.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

/// The broker's own allocator, counting: what is fed spends much of its time in one.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes to the allocator below as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both exist for a moment, as far as one can know.
        count(new_size as isize);
        // SAFETY: the caller keeps to the contract, which is the same.
        let moved = unsafe { MiMalloc.realloc(memory, layout, new_size) };
        count(-(layout.size() as isize));
        moved
    }
}

/// What `work` gives, and the most bytes that this thread held at one time beyond those from before. 0 where [`Counting`]
/// is not installed.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = work();
    (result, PEAK.with(Cell::get).saturating_sub(before).unsigned_abs())
}
