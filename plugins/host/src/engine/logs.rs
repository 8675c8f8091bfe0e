//! The logs of a plug-in's engine: which are open, and the calls that open, list and remove them. They may block, and take turns.

use super::Terms;
use crate::buffer;
use crate::judge;
use crate::lifecycle;
use crate::log::{Closing, Log, Opened, PluginLog};
use crate::minor::Grown;
use crate::slots;
use chronik_core::ids::{LogId, Offset, TopicId};
use chronik_core::pending::Pending;
use chronik_core::wal::{Cause, EngineError, OpenMode, OpenOptions, Wal, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{EMPTY_RESULT, ck_log_args, ck_log_id, ck_log_info, ck_result, ck_slice};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::c_void;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The plug-in's engine.
#[derive(Clone, Copy)]
pub(super) struct Handle(pub(super) *mut c_void);
// SAFETY: a token that only the plug-in interprets; the contract lets it be used from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

pub(super) struct Shared {
    pub(super) terms: Arc<Terms>,
    /// `None` once closed. Held for reading while `engine_usage` runs, which takes a moment.
    pub(super) handle: RwLock<Option<Handle>>,
    /// Lifecycle calls take turns.
    pub(super) turn: Mutex<()>,
    logs: Mutex<BTreeMap<LogId, Arc<PluginLog>>>,
}

pub(super) fn slice(bytes: &[u8]) -> ck_slice {
    ck_slice { at: bytes.as_ptr(), len: bytes.len() as u64 }
}

fn error(log: LogId, doing: &str, status: i32, result: &ck_result) -> EngineError {
    let text = judge::text(result);
    match status {
        abi::NOT_FOUND => EngineError::NotFound(log),
        abi::ALREADY_EXISTS => EngineError::AlreadyExists(log),
        abi::CORRUPT => EngineError::Corrupt { log, offset: Offset(result.offset), what: text },
        abi::FULL => EngineError::Full,
        abi::CLOSED => EngineError::Closed,
        _ => EngineError::Io { doing: doing.to_owned(), source: Cause::new(format!("{text} (status {status})")) },
    }
}

impl Shared {
    pub(super) fn new(terms: Arc<Terms>, engine: Handle) -> Self {
        Self { terms, handle: RwLock::new(Some(engine)), turn: Mutex::default(), logs: Mutex::default() }
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Arc<PluginLog>>> {
        // Changed by single inserts and removals: valid after each.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn engine(&self) -> Result<Handle, EngineError> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner).ok_or(EngineError::Closed)
    }

    /// The log, if it is open. One that is being closed is waited for; one that would not close bars the way.
    fn open_log(&self, id: LogId) -> Result<Option<Arc<PluginLog>>, EngineError> {
        let Some(log) = self.logs().get(&id).cloned() else { return Ok(None) };
        if !log.0.is_closing() {
            return Ok(Some(log));
        }
        if log.0.wait_closed() == Closing::Stuck {
            let why = "the plug-in never closed the log, and may still use it";
            return Err(EngineError::Io { doing: "opening a log".into(), source: Cause::new(why) });
        }
        self.logs().remove(&id);
        Ok(None)
    }

    /// Lets go of logs that are closed, so that the plug-in can, too: a broker that opens and closes many logs, each once,
    /// would keep them all. Looks at those alone, for a broker opens as many as it has when it starts.
    fn release_closed(&self) {
        let closed = std::mem::take(&mut *self.terms.closed.lock().unwrap_or_else(PoisonError::into_inner));
        let closed: Vec<_> = {
            let mut logs = self.logs();
            let take = |id| match logs.entry(id) {
                Entry::Occupied(log) if log.get().0.closed() => Some(log.remove()),
                // Let go of already; another of the same name may have been opened since.
                _ => None,
            };
            closed.into_iter().filter_map(take).collect()
        };
        // Outside the lock: this may be the last of whoever names them.
        drop(closed);
    }

    pub(super) fn open(self: &Arc<Self>, id: LogId, options: OpenOptions) -> Result<Arc<PluginLog>, EngineError> {
        let engine = self.engine()?;
        if let Some(log) = self.open_log(id)? {
            return if options.mode == OpenMode::CreateNew { Err(EngineError::AlreadyExists(id)) } else { Ok(log) };
        }
        self.release_closed();
        let context = slots::new_log();
        let minor = self.terms.minor;
        let args = Grown::new(ck_log_args {
            struct_size: minor.size::<ck_log_args>(),
            mode: match options.mode {
                OpenMode::Existing => abi::OPEN_EXISTING,
                OpenMode::CreateNew => abi::OPEN_CREATE_NEW,
                OpenMode::CreateIfMissing => abi::OPEN_CREATE_IF_MISSING,
            },
            id: ck_log_id { topic: id.topic.0, partition: id.partition, reserved: 0 },
            segment_bytes: options.segment_bytes,
            log_context: context,
        });
        let mut info = Grown::new(ck_log_info {
            struct_size: minor.size::<ck_log_info>(),
            appends_in_flight_max: 0,
            append_bytes_in_flight_max: 0,
            log: std::ptr::null_mut(),
        });
        let mut result = EMPTY_RESULT;
        // SAFETY: the engine is not closed, since closing takes its turn after us; the arguments outlive the call.
        let status = unsafe {
            (self.terms.functions.log_open)(engine.0, &raw const args.known, &raw mut info.known, &raw mut result)
        };
        let info = info.known;
        if status != abi::OK || info.log.is_null() {
            slots::forget_log(context);
            return Err(error(id, "opening a log", if status == abi::OK { abi::INVALID } else { status }, &result));
        }
        let log = Arc::new(PluginLog(Log::new(Opened {
            terms: self.terms.clone(),
            id,
            handle: info.log,
            context,
            appends_max: info.appends_in_flight_max,
            append_bytes_max: info.append_bytes_in_flight_max,
        })));
        self.logs().insert(id, log.clone());
        Ok(log)
    }

    /// Closes a log and waits; the plug-in's deadline for that is the log's own.
    fn close_log(log: &Arc<PluginLog>) -> Closing {
        match lifecycle::wait(Pending::start(|done| log.close(done))) {
            Ok(()) | Err(WalError::Closed) => {}
            Err(error) => log.0.complain(&format!("could not close a log: {error}")),
        }
        log.0.wait_closed()
    }

    /// Sees to it that the log is not open.
    fn let_go(&self, id: LogId, doing: &str) -> Result<(), EngineError> {
        if let Some(log) = self.open_log(id)? {
            if Self::close_log(&log) == Closing::Stuck {
                let why = "the plug-in never closed the log, and may still use it";
                return Err(EngineError::Io { doing: doing.to_owned(), source: Cause::new(why) });
            }
            self.logs().remove(&id);
        }
        Ok(())
    }

    pub(super) fn delete(&self, id: LogId) -> Result<(), EngineError> {
        let (engine, doing) = (self.engine()?, "deleting a log");
        self.let_go(id, doing)?;
        let name = ck_log_id { topic: id.topic.0, partition: id.partition, reserved: 0 };
        let mut result = EMPTY_RESULT;
        // SAFETY: the engine is not closed, and the log is not open; the arguments outlive the call.
        let status = unsafe { (self.terms.functions.log_delete)(engine.0, &raw const name, &raw mut result) };
        if status == abi::OK { Ok(()) } else { Err(error(id, doing, status, &result)) }
    }

    pub(super) fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        let (engine, doing) = (self.engine()?, "setting a log aside");
        let plugin = &self.terms.label;
        let Some(log_set_aside) = self.terms.functions.log_set_aside else {
            tracing::warn!(log = %id, plugin, "the storage plug-in cannot set logs aside (it lacks CK_CAP_SET_ASIDE)");
            return Err(EngineError::CannotSetAside);
        };
        self.let_go(id, doing)?;
        let name = ck_log_id { topic: id.topic.0, partition: id.partition, reserved: 0 };
        let mut result = EMPTY_RESULT;
        // SAFETY: the engine is not closed, and the log is not open; the arguments outlive the call.
        let status = unsafe { log_set_aside(engine.0, &raw const name, &raw mut result) };
        if status != abi::OK {
            return Err(error(id, doing, status, &result));
        }
        let place = if result.text_len == 0 { "it does not say where".to_owned() } else { judge::text(&result) };
        tracing::warn!(log = %id, plugin, place, "the storage plug-in has set a log aside");
        Ok(())
    }

    pub(super) fn list(&self) -> Result<Vec<LogId>, EngineError> {
        let engine = self.engine()?;
        let doing = "listing logs";
        let mut result = EMPTY_RESULT;
        // SAFETY: the engine is not closed; the result outlives the call.
        let status = unsafe { (self.terms.functions.engine_list)(engine.0, &raw mut result) };
        if status != abi::OK {
            return Err(error(LogId::default(), doing, status, &result));
        }
        let nonsense = |why: String| EngineError::Io { doing: doing.to_owned(), source: Cause::new(why) };
        // SAFETY: the plug-in handed out this buffer in a result, as the contract says.
        let bytes = unsafe { buffer::payload(&result.buf, &self.terms.retained_bytes) }.map_err(nonsense)?.to_bytes();
        if bytes.len() % size_of::<ck_log_id>() != 0 {
            return Err(nonsense(format!("a list of logs in {} bytes", bytes.len())));
        }
        let mut logs: Vec<_> = bytes
            .chunks_exact(size_of::<ck_log_id>())
            .map(|id| {
                let mut topic = [0; 16];
                topic.copy_from_slice(&id[..16]);
                LogId { topic: TopicId(topic), partition: i32::from_ne_bytes([id[16], id[17], id[18], id[19]]) }
            })
            .collect();
        logs.sort_unstable();
        Ok(logs)
    }

    pub(super) fn close(&self) -> Result<(), EngineError> {
        let Some(engine) = self.handle.write().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        let open = std::mem::take(&mut *self.logs());
        let closing: Vec<_> = open.values().map(|log| (log, Pending::start(|done| log.close(done)))).collect();
        let mut failure = None;
        for (log, close) in closing {
            match lifecycle::wait(close) {
                Ok(()) | Err(WalError::Closed) => {}
                Err(error) => failure = Some(Cause::new(error)),
            }
            if log.0.wait_closed() == Closing::Stuck {
                // It may still use the engine: that is not taken from under it.
                let source = Cause::new("the plug-in never closed a log; its engine is left as it is");
                return Err(EngineError::Io { doing: "closing the engine".into(), source });
            }
        }
        let mut result = EMPTY_RESULT;
        // SAFETY: the handle was taken out, so that no other call has it or will; all logs are closed.
        let status = unsafe { (self.terms.functions.engine_close)(engine.0, &raw mut result) };
        match (status, failure) {
            (abi::OK, None) => Ok(()),
            (abi::OK, Some(source)) => Err(EngineError::Io { doing: "closing a log".into(), source }),
            (status, _) => Err(error(LogId::default(), "closing the engine", status, &result)),
        }
    }
}
