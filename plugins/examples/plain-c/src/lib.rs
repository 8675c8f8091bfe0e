//! Builds the storage plug-in in plain C, `plain.c` beside this, for tests and for whoever wants to try it: no code of the
//! engine is Rust.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the plug-in into the directory and gives its path.
///
/// # Errors
/// Where there is no C compiler named `cc`, or it does not accept the source; its own message goes to standard error.
pub fn build(directory: &Path) -> io::Result<PathBuf> {
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plain.c"), directory)
}

/// Compiles one C source into a plug-in of its name.
///
/// # Errors
/// As for [`build`].
pub fn compile(source: &Path, directory: &Path) -> io::Result<PathBuf> {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../abi/include");
    let into = directory.join(source.file_name().unwrap_or_default()).with_extension("so");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-I"])
        .arg(include)
        .arg(source)
        .args(["-pthread", "-o"])
        .arg(&into)
        .status()?;
    if compiled.success() {
        Ok(into)
    } else {
        Err(io::Error::other(format!("cc does not compile {}", source.display())))
    }
}
