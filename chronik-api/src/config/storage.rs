//! How logs are kept: the engine of topics that say nothing, and all engines that topics may choose.

use super::setting::{Leaf, choice, section};
use super::units::{ByteSize, Millis};
use chronik_core::metadata::topic_config::is_engine_name;
use std::fmt;
use std::path::PathBuf;

/// A storage engine, by the name that topics choose it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Files in the data directory.
    Segment,
    /// Nothing outlives the process: for tests and measurements.
    Memory,
    /// What the shared library at `storage.plugin` brings.
    Plugin,
    /// What one of `storage.plugins` brings.
    Named(String),
}

impl Engine {
    /// The word that names it in configuration and on the wire.
    pub fn word(&self) -> &str {
        match self {
            Engine::Segment => "segment",
            Engine::Memory => "memory",
            Engine::Plugin => "plugin",
            Engine::Named(name) => name,
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "segment" => Some(Engine::Segment),
            "memory" => Some(Engine::Memory),
            "plugin" => Some(Engine::Plugin),
            name if is_engine_name(name) => Some(Engine::Named(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Leaf for Engine {
    fn wanted() -> String {
        "\"segment\", \"memory\", \"plugin\", or the name of one of [[storage.plugins]]".into()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        Engine::of(text).ok_or(None)
    }
    fn json(&self) -> serde_json::Value {
        self.word().into()
    }
}

section! {
    /// How logs are kept.
    pub struct Storage {
        /// The engine of topics that do not choose one with `chronik.storage`: "segment" (files), "memory" (nothing outlives
        /// the process), "plugin" (the shared library at storage.plugin), or one of storage.plugins by its name.
        engine: Engine = Engine::Segment;
        /// Options of the engine "segment".
        segment: SegmentOptions = SegmentOptions::default();
        /// Options of the engine "memory".
        memory: MemoryOptions = MemoryOptions::default();
        /// The engine "plugin".
        plugin: PluginOptions = PluginOptions::default();
        /// More plug-ins, each an engine with a name of its own.
        plugins: Vec<NamedPlugin> = Vec::new();
    }
}

section! {
    /// A storage engine as a shared library. It is native code in the broker's process, and trusted as the broker is.
    pub struct PluginOptions {
        /// The shared library, as an absolute path. It and its directory belong to root or the broker's user, and nobody else
        /// may write them.
        path: Option<PathBuf> = None;
        /// What its engine is told: a JSON object, as text. Without it an empty one.
        options: Option<String> = None;
        /// The file's SHA-256 in hexadecimal: another file is not loaded.
        sha256: Option<String> = None;
        /// Whether the broker refuses to start if the plug-in cannot be used. If not, it starts, and the partitions that the
        /// plug-in keeps are offline.
        required: bool = true;
        /// Starting, opening and closing must end in so long.
        lifecycle_timeout_ms: Millis = Millis(60_000), 100..=3_600_000;
        /// Every other call must complete in so long, or its log is taken out of service.
        call_timeout_ms: Millis = Millis(120_000), 100..=3_600_000;
    }
}

section! {
    /// One of several storage plug-ins; the keys are those of `storage.plugin`, and the name that topics choose it by.
    pub struct NamedPlugin {
        /// What topics call it. It is its directory's name, too, so that another name means other records.
        name: String = String::new();
        /// The shared library, as an absolute path.
        path: Option<PathBuf> = None;
        /// What its engine is told: a JSON object, as text.
        options: Option<String> = None;
        /// The file's SHA-256 in hexadecimal.
        sha256: Option<String> = None;
        /// Whether the broker refuses to start if the plug-in cannot be used.
        required: bool = true;
        /// Starting, opening and closing must end in so long.
        lifecycle_timeout_ms: Millis = Millis(60_000), 100..=3_600_000;
        /// Every other call must complete in so long.
        call_timeout_ms: Millis = Millis(120_000), 100..=3_600_000;
    }
}

/// A plug-in that is configured, whichever way it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredPlugin {
    /// The key of its table.
    pub at: String,
    pub engine: Engine,
    pub options: PluginOptions,
}

impl Storage {
    /// All plug-ins that are configured: `storage.plugin` where it has a path, and `storage.plugins`.
    pub fn configured_plugins(&self) -> Vec<ConfiguredPlugin> {
        let single =
            ConfiguredPlugin { at: "storage.plugin".into(), engine: Engine::Plugin, options: self.plugin.clone() };
        let single = (self.plugin.path.is_some() || self.engine == Engine::Plugin).then_some(single);
        let named = self.plugins.iter().enumerate().map(|(index, plugin)| {
            let NamedPlugin { name, path, options, sha256, required, lifecycle_timeout_ms, call_timeout_ms } =
                plugin.clone();
            ConfiguredPlugin {
                at: format!("storage.plugins[{index}]"),
                engine: Engine::Named(name),
                options: PluginOptions { path, options, sha256, required, lifecycle_timeout_ms, call_timeout_ms },
            }
        });
        single.into_iter().chain(named).collect()
    }
}

impl PluginOptions {
    /// The pinned hash; `Err` if what is given is none.
    pub fn pin(&self) -> Result<Option<[u8; 32]>, String> {
        let Some(text) = &self.sha256 else { return Ok(None) };
        let wrong = || "is no SHA-256: 64 hexadecimal digits".to_owned();
        let mut pin = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, digits) in pin.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Some(pin))
    }
}

choice! {
    /// Whether one sync of the whole file system may stand for many of single logs. Everybody's unwritten data on that
    /// file system is then waited for.
    pub enum SyncFilesystem {
        Never = "never",
        /// Where the data directory is a file system of its own.
        IfOwn = "if-own",
        Always = "always",
    }
}

section! {
    /// Options of the engine that keeps logs in files.
    pub struct SegmentOptions {
        /// Recent bytes of all logs together that stay in memory, so that consumers at the tail never touch a file; those
        /// further behind are served from the page cache, which has these as well.
        tail_cache_bytes: ByteSize = ByteSize::mib(8), 0..=ByteSize::GIB << 10;
        /// Bytes of all logs together that may wait to be written; beyond it producers are held back, since the disk is
        /// slower than they are.
        unwritten_bytes: ByteSize = ByteSize::mib(64), ByteSize::MIB..=ByteSize::GIB << 10;
        /// Segment files kept open, all logs together; those with unsynced data stay open beyond it.
        open_files: u32 = 512, 8..=10_000_000;
        /// Room on the device that records may not take, for what must be written to go on.
        free_bytes_min: ByteSize = ByteSize::mib(16), 0..=ByteSize::GIB << 10;
        /// After so many bytes a log is synced though nobody asks: bounds what is read after a crash.
        checkpoint_bytes: ByteSize = ByteSize::mib(64), ByteSize::MIB..=ByteSize::GIB << 10;
        /// Threads for reads that wait for the device.
        read_threads: u32 = 4, 1..=1_024;
        /// Whether the kernel may send consumers what was written or read before and is still in memory, from its file:
        /// some two thirds of the processor time, and the broker looks at no checksum again. With false all is read and
        /// checked.
        send_from_files: bool = true;
        /// Logs synced at the same time, one by one.
        sync_threads: u32 = 8, 1..=1_024;
        /// From so many waiting logs on, one sync of the whole file system takes their place, where that is allowed.
        sync_filesystem_from_logs: u32 = 8, 2..=10_000_000;
        /// Where it is allowed: "never", "if-own" (the data directory is a file system of its own), "always".
        sync_filesystem: SyncFilesystem = SyncFilesystem::IfOwn;
        /// Each of the two files of the journal, which makes small writes to many logs durable with one sync; 0 for none,
        /// at least 2 MiB otherwise. Made when it is of use.
        sync_journal_bytes: ByteSize = ByteSize::mib(16), 0..=ByteSize::MIB << 8;
        /// Microseconds between a sync of the journal that many logs shared and the next one: fewer syncs where many write
        /// at once, each for more of them. Who writes alone never waits. 0 for none.
        sync_gather_us: u32 = 1_000, 0..=100_000;
    }
}

section! {
    /// Options of the engine that keeps logs in memory.
    pub struct MemoryOptions {
        /// Bytes of all logs together; beyond it producers are refused, as on a full disk.
        bytes: ByteSize = ByteSize::gib(1), ByteSize::MIB..=ByteSize::GIB << 10;
    }
}
