//! How an engine starts: the file is loaded, the table is checked, and what the plug-in promises makes sense.

use super::logs::{Handle, Shared, slice};
use super::{PluginEngine, Terms, Verify};
use crate::judge;
use crate::lifecycle::{self, NoAnswer};
use crate::load::{self, NotLoaded};
use crate::minor::{Grown, HostMinor};
use crate::plugin::{NotUsable, Plugin};
use crate::reaper;
use chronik_core::wal::{Capabilities, Survives};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::{EMPTY_RESULT, ck_engine_info, ck_entry, ck_start_args};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The smallest "largest run" with which Kafka's default batches fit.
const RUN_BYTES_MIN: u64 = 1 << 20;

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

impl PluginEngine {
    /// Loads the plug-in, checks it, and starts its engine. Blocks for at most the lifecycle time-out.
    pub fn start(options: PluginOptions) -> Result<Self, StartError> {
        Self::start_apart(options, |options| {
            let entry = load::load(&options.path, options.sha256)?;
            // SAFETY: the entry of a library that is never unloaded.
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
        // SAFETY: by the caller; it is never unloaded since the program is not.
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
            closed: Mutex::default(),
            call_timeout: options.call_timeout,
            lifecycle_timeout: options.lifecycle_timeout,
        });
        let capabilities = Capabilities {
            survives,
            segments: plugin.info.capabilities & abi::CAP_SEGMENTS != 0,
            run_bytes_max: usize::try_from(info.run_bytes_max).unwrap_or(usize::MAX),
        };
        let shared = Arc::new(Shared::new(terms, Handle(info.engine)));
        Ok(Self { shared, info: plugin.info, capabilities })
    }
}
