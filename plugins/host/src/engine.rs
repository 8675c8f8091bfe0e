//! A plug-in's engine as a [`WalEngine`]: calls that may block, each on a thread of its own.
//!
//! [`start`] is how it begins, [`logs`] what it does with its logs.

mod logs;
mod start;

pub use start::{PluginOptions, StartError};

use crate::lifecycle::{self, NoAnswer};
use crate::log::Asked;
use crate::minor::HostMinor;
use crate::plugin::{Functions, PluginInfo};
use crate::reaper;
use async_trait::async_trait;
use chronik_core::ids::LogId;
use chronik_core::wal::{Capabilities, Cause, Chunk, EngineError, OpenOptions, Usage, Wal, WalEngine};
use chronik_plugin_abi::ck_usage;
use logs::Shared;
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Looks at what a read gave, before anyone else does; the error says what is wrong with it.
pub type Verify = Arc<dyn Fn(&Chunk) -> Result<(), String> + Send + Sync>;

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
    /// Logs that have closed and were not let go of since; each is in it once in its life.
    pub closed: Mutex<Vec<LogId>>,
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

/// An engine that a plug-in brought.
pub struct PluginEngine {
    shared: Arc<Shared>,
    info: PluginInfo,
    capabilities: Capabilities,
}

fn no_answer(doing: &str, why: NoAnswer) -> EngineError {
    EngineError::Io { doing: doing.to_owned(), source: Cause::new(why) }
}

impl PluginEngine {
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
