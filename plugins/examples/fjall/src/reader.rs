//! Reads that look into the database, on threads of their own: a call of a log must not wait for the device.

use crate::index::{Chosen, OutOfRange};
use crate::log::Log;
use crate::shared::{Read, Shared};
use crate::store::{Place, Store, StoreError};
use chronik_plugin_sdk::bytes::Bytes;
use chronik_plugin_sdk::crc32c;
use chronik_plugin_sdk::ids::Offset;
use chronik_plugin_sdk::wal::{Cause, Chunk, WalError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Reads until the engine stops.
pub fn run(shared: &Shared, store: &Store) {
    while let Some(Read { log, range, chosen, done }) = shared.wait_for_read() {
        let served = catch_unwind(AssertUnwindSafe(|| {
            let log = shared.log(log).ok_or(WalError::Closed)?;
            let mut chosen = chosen;
            loop {
                match fetch(store, log.place, &chosen) {
                    Ok(chunk) => return Ok(chunk),
                    // What was chosen may have been removed, and other runs may be in its place.
                    Err(_) if !undisturbed(&log, &chosen) => {
                        chosen = log.with_index(|index| {
                            let state = index.state();
                            index
                                .choose(range)
                                .map_err(|OutOfRange| WalError::OutOfRange { start: state.start, end: state.end })
                        })?;
                    }
                    Err(NotRead::Damaged(offset)) => return Err(WalError::Corrupt { offset }),
                    Err(NotRead::Store(error)) => return Err(WalError::Io(Cause::new(error))),
                }
            }
        }));
        done.complete(served.unwrap_or_else(|_| Err(WalError::Io(Cause::new("the database has panicked")))));
    }
}

fn undisturbed(log: &Log, chosen: &Chosen) -> bool {
    log.with_index(|index| index.undisturbed(chosen))
}

enum NotRead {
    /// The run there is gone, or other bytes are in its place.
    Damaged(Offset),
    Store(StoreError),
}

fn fetch(store: &Store, place: Place, chosen: &Chosen) -> Result<Chunk, NotRead> {
    let mut chunk = Chunk { base: chosen.base, next_offset: chosen.next, ..Chunk::default() };
    for entry in &chosen.entries {
        if let Some(body) = &entry.unwritten {
            chunk.bytes.append(body.clone());
            continue;
        }
        let body = store.body(place, entry.head.base).map_err(NotRead::Store)?;
        let right = body.filter(|body| body.len() == entry.len as usize && crc32c::crc32c(body) == entry.head.crc);
        let body = right.ok_or(NotRead::Damaged(entry.head.base))?;
        if !body.is_empty() {
            // The database's own memory, without a copy.
            chunk.bytes.push(Bytes::from_owner(body));
        }
    }
    Ok(chunk)
}
