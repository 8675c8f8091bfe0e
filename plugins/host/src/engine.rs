//! A plug-in's engine as a [`WalEngine`]: which logs are open, and calls that may block, each on a thread of its own.

use crate::buffer;
use crate::judge;
use crate::lifecycle::{self, NoAnswer};
use crate::load::{self, NotLoaded};
use crate::log::{Asked, Closing, Log, Opened, PluginLog};
use crate::minor::{Grown, HostMinor};
use crate::plugin::{Functions, NotUsable, Plugin, PluginInfo};
use crate::reaper;
use crate::slots;
use async_trait::async_trait;
use chronik_core::ids::{LogId, Offset, TopicId};
use chronik_core::pending::Pending;
use chronik_core::wal::{
    Capabilities, Cause, Chunk, EngineError, OpenMode, OpenOptions, Survives, Usage, Wal, WalEngine, WalError,
};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{
    EMPTY_RESULT, ck_engine_info, ck_entry, ck_log_args, ck_log_id, ck_log_info, ck_result, ck_slice, ck_start_args,
    ck_usage,
};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::size_of;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The smallest "largest run" with which Kafka's default batches fit.
const RUN_BYTES_MIN: u64 = 1 << 20;

/// Looks at what a read gave, before anyone else does; the error says what is wrong with it.
pub type Verify = Arc<dyn Fn(&Chunk) -> Result<(), String> + Send + Sync>;

/// Which plug-in, and how patient to be with it.
#[derive(Clone)]
pub struct PluginOptions {
    /// Absolute.
    pub path: PathBuf,
    /// Where the engine keeps its logs; made if it is not there.
    pub directory: PathBuf,
    /// A JSON object for the plug-in.
    pub options: String,
    /// The file's hash must be this.
    pub sha256: Option<[u8; 32]>,
    /// For starting, opening, listing, deleting and closing.
    pub lifecycle_timeout: Duration,
    /// For everything else: a disk may stall for long, a plug-in that never answers does so for ever.
    pub call_timeout: Duration,
    pub verify: Option<Verify>,
    /// Pose as a host of another minor version, to see that the plug-in can do with it.
    pub minor: HostMinor,
}

impl PluginOptions {
    pub fn new(path: PathBuf, directory: PathBuf) -> Self {
        Self {
            path,
            directory,
            options: "{}".to_owned(),
            sha256: None,
            lifecycle_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(120),
            verify: None,
            minor: HostMinor::Own,
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    NotLoaded(#[from] NotLoaded),
    #[error("the plug-in {path} cannot be used")]
    NotUsable { path: PathBuf, source: NotUsable },
    #[error("the directory {path} for a plug-in's logs cannot be made")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the directory {0} for a plug-in's logs is not absolute and in UTF-8")]
    DirectoryName(PathBuf),
    #[error("the plug-in {plugin} did not start (status {status}): {why}")]
    Declined { plugin: String, status: i32, why: String },
    #[error("the plug-in {plugin} started, but {what}")]
    Nonsense { plugin: String, what: &'static str },
    #[error("the plug-in {path} has not started within {waited:?}")]
    Late { path: PathBuf, waited: Duration },
    #[error("no thread for the plug-in")]
    NoThread(#[source] std::io::Error),
}

/// What all logs of an engine share.
pub(crate) struct Terms {
    /// Name and version, for messages.
    pub label: String,
    pub functions: Functions,
    /// What the plug-in keeps in memory for buffers that it has handed out.
    pub retained_bytes: Arc<AtomicU64>,
    pub verify: Option<Verify>,
    /// See [`PluginOptions::minor`].
    pub minor: HostMinor,
    call_timeout: Duration,
    lifecycle_timeout: Duration,
}

impl Terms {
    pub fn patience(&self, asked: Asked) -> Duration {
        if matches!(asked, Asked::Close) { self.lifecycle_timeout } else { self.call_timeout }
    }

    pub fn ticks(&self, asked: Asked) -> u64 {
        reaper::ticks_in(self.patience(asked))
    }

    /// For a `ready` that is owed.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    pub fn call_ticks(&self) -> u64 {
        reaper::ticks_in(self.call_timeout)
    }
}

/// The plug-in's engine.
#[derive(Clone, Copy)]
struct Handle(*mut c_void);
// SAFETY: a token that only the plug-in interprets; the contract lets it be used from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

struct Shared {
    terms: Arc<Terms>,
    /// `None` once closed. Held for reading while `engine_usage` runs, which takes a moment.
    handle: RwLock<Option<Handle>>,
    /// Lifecycle calls take turns.
    turn: Mutex<()>,
    logs: Mutex<BTreeMap<LogId, Arc<PluginLog>>>,
}

/// An engine that a plug-in brought.
pub struct PluginEngine {
    shared: Arc<Shared>,
    info: PluginInfo,
    capabilities: Capabilities,
}

fn slice(bytes: &[u8]) -> ck_slice {
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

fn no_answer(doing: &str, why: NoAnswer) -> EngineError {
    EngineError::Io { doing: doing.to_owned(), source: Cause::new(why) }
}

impl PluginEngine {
    /// Loads the plug-in, checks it, and starts its engine. Blocks for at most the lifecycle time-out.
    pub fn start(options: PluginOptions) -> Result<Self, StartError> {
        Self::start_apart(options, |options| {
            let entry = load::load(&options.path, options.sha256)?;
            // SAFETY: the address is that of the entry symbol, in a library that is never unloaded.
            Ok(unsafe { Plugin::enter(entry, options.minor) })
        })
    }

    /// As [`PluginEngine::start`], with a plug-in that is part of this program and needs no loading: of the options the path
    /// is only its name, and there is no file whose hash could be looked at.
    ///
    /// # Safety
    /// `entry`, and every function of the table that it gives, keeps the contract as far as memory goes: what its pointers
    /// point at is there for as long as the contract says.
    pub unsafe fn start_linked(entry: ck_entry, options: PluginOptions) -> Result<Self, StartError> {
        let entry = entry as usize;
        // SAFETY: the address is that of an entry, which is never unloaded since the program is not.
        Self::start_apart(options, move |options| Ok(unsafe { Plugin::enter(entry, options.minor) }))
    }

    /// Calls the entry that `enter` finds, and starts the engine, on a thread of their own.
    fn start_apart(
        options: PluginOptions,
        enter: impl FnOnce(&PluginOptions) -> Result<Result<Plugin, NotUsable>, NotLoaded> + Send + 'static,
    ) -> Result<Self, StartError> {
        let (path, waited) = (options.path.clone(), options.lifecycle_timeout);
        reaper::start();
        let work = move || {
            let plugin = enter(&options)?;
            let plugin = plugin.map_err(|source| StartError::NotUsable { path: options.path.clone(), source })?;
            Self::start_here(plugin, options)
        };
        lifecycle::wait(lifecycle::run("engine_start", waited, work, drop)).map_err(|why| match why {
            NoAnswer::Late { waited, .. } => StartError::Late { path, waited },
            NoAnswer::NoThread(error) => StartError::NoThread(error),
        })?
    }

    fn start_here(plugin: Plugin, options: PluginOptions) -> Result<Self, StartError> {
        let minor = options.minor;
        let label = format!("{} {}", plugin.info.name, plugin.info.version);

        let directory = &options.directory;
        std::fs::create_dir_all(directory)
            .map_err(|source| StartError::Directory { path: directory.clone(), source })?;
        let name = directory.to_str().filter(|_| directory.is_absolute());
        let name = name.ok_or_else(|| StartError::DirectoryName(directory.clone()))?;
        let args = Grown::new(ck_start_args {
            struct_size: minor.size::<ck_start_args>(),
            reserved: 0,
            directory: slice(name.as_bytes()),
            options: slice(options.options.as_bytes()),
        });
        let mut info = Grown::new(ck_engine_info {
            struct_size: minor.size::<ck_engine_info>(),
            survives: abi::SURVIVES_NOTHING,
            engine: std::ptr::null_mut(),
            run_bytes_max: 0,
        });
        let mut result = EMPTY_RESULT;
        // SAFETY: the function is there (checked), and what the arguments point at outlives the call.
        let status =
            unsafe { (plugin.functions.engine_start)(&raw const args.known, &raw mut info.known, &raw mut result) };
        let info = info.known;
        if status != abi::OK {
            return Err(StartError::Declined { plugin: label, status, why: judge::text(&result) });
        }
        let nonsense = |what| StartError::Nonsense { plugin: label.clone(), what };
        let survives = match info.survives {
            abi::SURVIVES_NOTHING => Survives::Nothing,
            abi::SURVIVES_PROCESS => Survives::Process,
            abi::SURVIVES_POWER_LOSS => Survives::PowerLoss,
            _ => return Err(nonsense("does not say what its logs survive")),
        };
        if info.engine.is_null() {
            return Err(nonsense("gave no engine"));
        }
        if info.run_bytes_max < RUN_BYTES_MIN {
            return Err(nonsense("takes only runs of less than 1 MiB"));
        }
        tracing::info!(plugin = %label, abi_minor = plugin.info.abi_minor, ?survives, "a storage plug-in has started");
        let terms = Arc::new(Terms {
            label,
            functions: plugin.functions,
            retained_bytes: Arc::default(),
            verify: options.verify,
            minor,
            call_timeout: options.call_timeout,
            lifecycle_timeout: options.lifecycle_timeout,
        });
        let capabilities = Capabilities {
            survives,
            segments: plugin.info.capabilities & abi::CAP_SEGMENTS != 0,
            run_bytes_max: usize::try_from(info.run_bytes_max).unwrap_or(usize::MAX),
        };
        let shared = Shared {
            terms,
            handle: RwLock::new(Some(Handle(info.engine))),
            turn: Mutex::default(),
            logs: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), info: plugin.info, capabilities })
    }

    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Bytes that the plug-in keeps in memory for what it has handed out and is still in use here.
    pub fn retained_bytes(&self) -> u64 {
        self.shared.terms.retained_bytes.load(Ordering::Relaxed)
    }

    /// Runs `work` in turn, on a thread of its own.
    async fn in_turn<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let shared = self.shared.clone();
        let in_turn = move || {
            let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
            work(&shared)
        };
        match lifecycle::run(doing, self.shared.terms.lifecycle_timeout, in_turn, drop).await {
            Ok(outcome) => outcome,
            Err(why) => Err(no_answer(doing, why)),
        }
    }
}

impl Shared {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Arc<PluginLog>>> {
        // Changed by single inserts and removals: valid after each.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<Handle, EngineError> {
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
    /// would keep them all.
    fn release_closed(&self) {
        let closed: Vec<_> = self.logs().extract_if(.., |_, log| log.0.closed()).collect();
        // Outside the lock: this may be the last of whoever names them.
        drop(closed);
    }

    fn open(self: &Arc<Self>, id: LogId, options: OpenOptions) -> Result<Arc<PluginLog>, EngineError> {
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

    fn delete(&self, id: LogId) -> Result<(), EngineError> {
        let (engine, doing) = (self.engine()?, "deleting a log");
        self.let_go(id, doing)?;
        let name = ck_log_id { topic: id.topic.0, partition: id.partition, reserved: 0 };
        let mut result = EMPTY_RESULT;
        // SAFETY: the engine is not closed, and the log is not open; the arguments outlive the call.
        let status = unsafe { (self.terms.functions.log_delete)(engine.0, &raw const name, &raw mut result) };
        if status == abi::OK { Ok(()) } else { Err(error(id, doing, status, &result)) }
    }

    fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
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

    fn list(&self) -> Result<Vec<LogId>, EngineError> {
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

    fn close(&self) -> Result<(), EngineError> {
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

#[async_trait]
impl WalEngine for PluginEngine {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn open(&self, id: LogId, options: OpenOptions) -> Result<Arc<dyn Wal>, EngineError> {
        let log = self.in_turn("log_open", move |shared| shared.open(id, options)).await?;
        Ok(log)
    }

    async fn list(&self) -> Result<Vec<LogId>, EngineError> {
        self.in_turn("engine_list", |shared| shared.list()).await
    }

    async fn delete(&self, id: LogId) -> Result<(), EngineError> {
        self.in_turn("log_delete", move |shared| shared.delete(id)).await
    }

    async fn set_aside(&self, id: LogId) -> Result<(), EngineError> {
        self.in_turn("log_set_aside", move |shared| shared.set_aside(id)).await
    }

    fn usage(&self) -> Usage {
        let handle = self.shared.handle.read().unwrap_or_else(PoisonError::into_inner);
        let mut given = ck_usage {
            struct_size: size_of::<ck_usage>() as u32,
            has_device: 0,
            logs: 0,
            bytes: 0,
            memory_bytes: 0,
            device_total_bytes: 0,
            device_free_bytes: 0,
        };
        if let Some(engine) = *handle {
            // SAFETY: the engine is not closed while the lock is held.
            unsafe { (self.shared.terms.functions.engine_usage)(engine.0, &raw mut given) };
        }
        Usage {
            logs: given.logs,
            bytes: given.bytes,
            memory_bytes: given.memory_bytes.saturating_add(self.retained_bytes()),
            device_total_bytes: (given.has_device != 0).then_some(given.device_total_bytes),
            device_free_bytes: (given.has_device != 0).then_some(given.device_free_bytes),
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.in_turn("engine_close", |shared| shared.close()).await
    }
}

impl Drop for PluginEngine {
    /// One that was not closed is, but nobody waits for it.
    fn drop(&mut self) {
        let shared = self.shared.clone();
        let open = self.shared.handle.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if open {
            let close = move || {
                let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = shared.close() {
                    tracing::error!(%error, "a storage plug-in's engine was dropped and did not close");
                }
            };
            drop(lifecycle::run("engine_close", self.shared.terms.lifecycle_timeout, close, drop));
        }
    }
}
