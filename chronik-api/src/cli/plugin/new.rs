//! `chronik plugin new`: the example in C, or the reference engine in Rust, as a project of one's own.
//!
//! What must stay true: what is written builds with `make`, without anything but what the language needs, and keeps every
//! rule of `chronik plugin check`. So it is no skeleton, but an engine that works, to be changed step by step.

use super::super::output::Failure;
use clap::{Args, ValueEnum};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A name is a file's, a crate's and part of messages.
const NAME_CHARS_MAX: usize = 64;

const HEADER: &str = include_str!("../../../../plugins/abi/include/chronik_plugin.h");
const PLAIN_C: &str = include_str!("../../../../plugins/examples/plain-c/plain.c");
/// Where `plain.c` says how it is called.
const PLAIN_C_NAME: &str = "{(const uint8_t *)\"plain-c\", 7}";
const MEMORY_ENGINE: &str = include_str!("../../../../storage/memory/src/engine.rs");
const MEMORY_LOG: &str = include_str!("../../../../storage/memory/src/log.rs");
const MEMORY_RUNS: &str = include_str!("../../../../storage/memory/src/runs.rs");

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// An engine on files that survives power cuts; needs a C compiler and make
    C,
    /// An engine that keeps logs in memory, over the traits that the built-in engines implement; needs cargo and make
    Rust,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct NewArgs {
    /// Of the engine: letters, digits and hyphens
    name: String,
    /// What to write it in
    #[arg(long, value_enum, default_value_t = Language::C)]
    lang: Language,
    /// With --lang rust: the directory plugins/sdk of chronik's source
    #[arg(long, value_name = "DIRECTORY")]
    sdk: Option<PathBuf>,
}

pub(super) fn run(args: &NewArgs) -> Result<(), Failure> {
    let name = &args.name;
    let fits = name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !fits {
        let what = "is no name for an engine: write small letters, digits and hyphens, a letter first";
        return Err(Failure::usage(format!("{name:?} {what}")));
    }
    let files = match args.lang {
        Language::C => in_c(name),
        Language::Rust => in_rust(name, args.sdk.as_deref())?,
    };
    let failed =
        |doing: &str, path: &Path, why: io::Error| Failure::failed(format!("cannot {doing} {}: {why}", path.display()));
    // Others may not write what a broker is to load, whatever the umask.
    let make = |path: &Path| DirBuilder::new().mode(0o755).create(path).map_err(|why| failed("make", path, why));
    let root = Path::new(name);
    make(root)?;
    for (file, content) in &files {
        let path = root.join(file);
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            make(directory)?;
        }
        fs::write(&path, content).map_err(|why| failed("write", &path, why))?;
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{name}/ holds an engine that works. Next:\n\n  make -C {name}\n  chronik plugin check {name}/{name}.so"
    )?;
    Ok(())
}

fn readme(name: &str, about: &str) -> String {
    format!(
        "# {name}\n\nA storage engine for chronik, as a plug-in. {about}\n\n```sh\nmake\nchronik plugin check {name}.so\n\
         chronik --set storage.engine=plugin --set storage.plugin.path=$PWD/{name}.so\n```\n"
    )
}

fn in_c(name: &str) -> Vec<(String, String)> {
    let named = format!("{{(const uint8_t *)\"{name}\", {}}}", name.len());
    let makefile = format!(
        "# Builds the plug-in; nothing but a C compiler and make is needed.\nCFLAGS ?= -O2 -g\n\
         {name}.so: {name}.c chronik_plugin.h\n\
         \t$(CC) -std=c11 -Wall -Wextra $(CFLAGS) -fPIC -shared -fvisibility=hidden -o $@ {name}.c -pthread\n\
         \t@# A broker loads nothing that others may change.\n\tchmod go-w $@ .\n"
    );
    let about = "One C file on files: begin with the comment at its head; the contract is `chronik_plugin.h`.";
    vec![
        (format!("{name}.c"), PLAIN_C.replace(PLAIN_C_NAME, &named)),
        ("chronik_plugin.h".to_owned(), HEADER.to_owned()),
        ("Makefile".to_owned(), makefile),
        ("README.md".to_owned(), readme(name, about)),
        (".gitignore".to_owned(), "*.so\n".to_owned()),
    ]
}

fn in_rust(name: &str, sdk: Option<&Path>) -> Result<Vec<(String, String)>, Failure> {
    let missing = "say where chronik's source has its directory plugins/sdk, with --sdk: it is on no registry yet";
    let sdk = sdk.ok_or_else(|| Failure::usage(missing))?;
    let is_sdk = fs::read_to_string(sdk.join("Cargo.toml")).is_ok_and(|text| text.contains("chronik-plugin-sdk"));
    let sdk = fs::canonicalize(sdk).ok().filter(|_| is_sdk);
    let sdk = sdk.ok_or_else(|| Failure::usage(missing))?;
    // A TOML string as JSON writes it: the same escapes.
    let sdk = serde_json::Value::from(sdk.display().to_string());
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\nname = \"engine\"\n\
         crate-type = [\"cdylib\"]\n\n\
         [dependencies]\nasync-trait = \"0.1\"\nchronik-plugin-sdk = {{ path = {sdk} }}\n\n\
         # A project of its own, wherever it lies.\n[workspace]\n"
    );
    let makefile = format!(
        "# Builds the plug-in. Never with panic = \"abort\": panics are caught and cost one log instead of the broker.\n\
         .PHONY: {name}.so\n{name}.so:\n\tcargo build --release --target-dir target\n\
         \tcp target/release/libengine.so $@\n\
         \t@# A broker loads nothing that others may change.\n\tchmod go-w $@ .\n"
    );
    let lib = format!(
        "//! A storage engine that keeps logs in memory, as a plug-in for chronik.\n\n\
         mod engine;\nmod log;\nmod runs;\n\n\
         use chronik_plugin_sdk::{{Author, export_engine}};\nuse engine::MemoryEngine;\nuse std::path::Path;\n\n\
         /// All logs together may hold so much.\nconst BYTES_MAX: u64 = 1 << 30;\n\n\
         struct Engine;\n\n\
         impl Author for Engine {{\n    const NAME: &'static str = \"{name}\";\n\
         \x20   const VERSION: &'static str = env!(\"CARGO_PKG_VERSION\");\n    const SEGMENTS: bool = true;\n\
         \x20   type Engine = MemoryEngine;\n\n\
         \x20   /// The directory is the engine's own, and this one needs none.\n\
         \x20   fn start(_directory: &Path, _options: &str) -> Result<MemoryEngine, String> {{\n\
         \x20       Ok(MemoryEngine::new(BYTES_MAX))\n    }}\n}}\n\nexport_engine!(Engine);\n"
    );
    // The names that the SDK gives to the broker's own types.
    let of_sdk = |source: &str| {
        source
            .replace("chronik_core::", "chronik_plugin_sdk::")
            .replace("use bytes::", "use chronik_plugin_sdk::bytes::")
    };
    let about =
        "In Rust, in memory: begin with `src/lib.rs`; the contract is what `wal::Wal` and `wal::WalEngine` say.";
    Ok(vec![
        ("Cargo.toml".to_owned(), manifest),
        ("Makefile".to_owned(), makefile),
        ("README.md".to_owned(), readme(name, about)),
        (".gitignore".to_owned(), "*.so\n/target\n".to_owned()),
        ("src/lib.rs".to_owned(), lib),
        ("src/engine.rs".to_owned(), of_sdk(MEMORY_ENGINE)),
        ("src/log.rs".to_owned(), of_sdk(MEMORY_LOG)),
        ("src/runs.rs".to_owned(), of_sdk(MEMORY_RUNS)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_says_its_name_once_so_that_a_project_can_have_another() {
        assert_eq!(PLAIN_C.matches(PLAIN_C_NAME).count(), 1);
        let files = in_c("my-engine");
        assert!(files.iter().any(|(file, content)| file == "my-engine.c" && content.contains("\"my-engine\", 9}")));
    }
}
