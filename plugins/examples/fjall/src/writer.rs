//! The one thread that changes the database. Whatever waits, of all logs, goes into one batch, and one sync carries all who
//! wait for one: that is what an embedded store is good at, since all its logs share one journal.

use crate::log::Log;
use crate::shared::{Shared, Work};
use crate::store::{Changes, Place, REMOVED_PER_BATCH, Record, Store, StoreError};
use chronik_plugin_sdk::bytes::Bytes;
use chronik_plugin_sdk::ids::{LogId, Offset};
use chronik_plugin_sdk::pending::Done;
use chronik_plugin_sdk::wal::{Appended, Cause, WalError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes that go into one batch: enough that a sync is shared, few enough that nobody waits long for others.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Writes until the engine stops.
pub fn run(shared: &Shared, store: &Store) {
    while let Some(works) = shared.wait_for_work() {
        // A panic of the database costs the logs that it met, and calls whose deadline then ends them.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut round = Round::new(shared, store);
            works.into_iter().for_each(|work| round.take(work));
            round.finish();
        }));
        if done.is_err() {
            let cause = Cause::new("the thread that writes has panicked");
            shared.logs().values().for_each(|log| log.fail(&cause));
        }
        shared.ask_device();
    }
}

struct Append {
    log: Arc<Log>,
    number: u64,
    next: Offset,
    bytes: u64,
    done: Done<Result<Appended, WalError>>,
}

/// Who waits for a sync, or for values to be set.
type Waiting<T> = (Arc<Log>, Done<Result<T, WalError>>);

/// What is committed together.
struct Round<'a> {
    shared: &'a Shared,
    store: &'a Store,
    changes: Changes<'a>,
    bytes: u64,
    appends: Vec<Append>,
    syncs: Vec<Waiting<Offset>>,
    puts: Vec<Waiting<()>>,
}

fn failed(error: &StoreError) -> Cause {
    Cause::new(error.clone())
}

impl<'a> Round<'a> {
    fn new(shared: &'a Shared, store: &'a Store) -> Self {
        let changes = store.changes();
        Self { shared, store, changes, bytes: 0, appends: Vec::new(), syncs: Vec::new(), puts: Vec::new() }
    }

    /// The log, unless it has failed; it is open as long as work of it waits.
    fn log(&self, id: LogId) -> Result<Arc<Log>, WalError> {
        let log = self.shared.log(id).ok_or(WalError::Closed)?;
        match log.failure() {
            Some(cause) => Err(WalError::Failed(cause)),
            None => Ok(log),
        }
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Append { log, number, head, body, done } => {
                let bytes = body.len() as u64;
                match self.log(log) {
                    Err(error) => {
                        self.shared.give_back(bytes);
                        done.complete(Err(error));
                    }
                    Ok(of) => {
                        // The one copy on the way: the database wants a value in one piece.
                        self.changes.run(of.place, &head, body.parts().concat());
                        self.appends.push(Append { log: of, number, next: head.next, bytes, done });
                        self.bytes += bytes;
                        if self.bytes >= BATCH_BYTES_MAX {
                            self.finish();
                        }
                    }
                }
            }
            Work::Sync { log, done } => match self.log(log) {
                Ok(log) => self.syncs.push((log, done)),
                Err(error) => done.complete(Err(error)),
            },
            Work::Put { log, entries, done } => match self.log(log) {
                Ok(of) => {
                    entries.iter().for_each(|(name, value)| self.changes.value(of.place, name, value.as_deref()));
                    self.puts.push((of, done));
                }
                Err(error) => done.complete(Err(error)),
            },
            Work::Get { log, key, done } => {
                if !self.puts.is_empty() {
                    self.finish();
                }
                let value = self.shared.log(log).ok_or(WalError::Closed).and_then(|of| {
                    let value = self.store.value(of.place, &key);
                    value.map(|value| value.map(Bytes::from_owner)).map_err(|error| WalError::Io(failed(&error)))
                });
                done.complete(value);
            }
            Work::Remove { log, removal, done } => {
                self.finish();
                let removed = self.log(log).and_then(|of| {
                    self.remove(of.place, &removal.record, &removal.bases).map_err(|error| {
                        of.fail(&failed(&error));
                        WalError::Failed(failed(&error))
                    })
                });
                done.complete(removed);
            }
            Work::Close { log, done } => {
                self.finish();
                let closed = self.close(log);
                if let Some(done) = done {
                    done.complete(closed);
                }
            }
        }
    }

    fn remove(&self, place: Place, record: &Record, bases: &[Offset]) -> Result<(), StoreError> {
        let log = place.log;
        let settled = Record { cut: None, ..*record };
        let mut changes = self.store.changes();
        if bases.len() <= REMOVED_PER_BATCH {
            changes.record(log, &settled);
            bases.iter().for_each(|base| changes.remove_run(place, *base));
            return changes.commit(true);
        }
        changes.record(log, record);
        changes.commit(true)?;
        self.store.remove_runs(place, bases)?;
        // Not synced: if this is lost, so is whatever was appended after it, and the removal is finished once more.
        let mut changes = self.store.changes();
        changes.record(log, &settled);
        changes.commit(false)
    }

    fn close(&self, id: LogId) -> Result<(), WalError> {
        let log = self.shared.log(id).ok_or(WalError::Closed)?;
        let synced = match log.failure() {
            Some(cause) => Err(WalError::Failed(cause)),
            None => self.store.sync().map_err(|error| WalError::Failed(failed(&error))),
        };
        if synced.is_ok() {
            log.with_index(crate::index::Index::durable);
        }
        self.shared.logs().remove(&id);
        log.finish_closing();
        synced
    }

    /// Commits, and tells everybody.
    fn finish(&mut self) {
        let done = std::mem::replace(self, Round::new(self.shared, self.store));
        let Round { shared, changes, appends, syncs, puts, .. } = done;
        let durable = !syncs.is_empty() || !puts.is_empty();
        let outcome = changes.commit(durable).map_err(|error| failed(&error));
        if let Err(cause) = &outcome {
            let appended = appends.iter().map(|append| &append.log);
            let others = syncs.iter().map(|(log, _)| log).chain(puts.iter().map(|(log, _)| log));
            appended.chain(others).for_each(|log| log.fail(cause));
        }
        for append in &appends {
            shared.give_back(append.bytes);
            if outcome.is_ok() {
                append.log.with_index(|index| {
                    index.written(append.number);
                    if durable {
                        index.durable();
                    }
                });
            }
        }
        let answer = |cause: &Cause| WalError::Failed(cause.clone());
        for Append { next, done, .. } in appends {
            done.complete(outcome.as_ref().map(|()| Appended { written_end: next }).map_err(answer));
        }
        for (log, done) in syncs {
            let synced = outcome.as_ref().map(|()| {
                log.with_index(|index| {
                    index.durable();
                    index.state().durable_end
                })
            });
            done.complete(synced.map_err(answer));
        }
        for (_, done) in puts {
            done.complete(outcome.clone().map_err(|cause| answer(&cause)));
        }
    }
}
