//! A real job's worth of text: lines of documentation, headers and sources that every machine for this project has.
//!
//! Made once per cache, in the order of sorted paths, so that the same machine always makes the same corpus. Lines are as
//! they are, but for carriage returns (client programs differ in what ends a line) and for length.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A job of real size: more than two million records.
pub const LINES_MIN: usize = 2_200_000;
/// Files beyond this are data rather than text.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A record is a line, not a book.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The corpus in as many parts as there are producers.
pub struct Corpus {
    pub parts: [PathBuf; 2],
    pub lines: usize,
}

fn roots() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let fixed = ["/usr/share/doc", "/usr/include", "/usr/local/go/src", "/usr/lib/go/src", "/usr/share/perl"];
    let mut roots: Vec<_> = fixed.into_iter().map(PathBuf::from).collect();
    roots.extend([
        cargo.join("registry/src"),
        PathBuf::from("/usr/lib/python3"),
        home.join("go/pkg/mod"),
        home.join(".pyenv"),
    ]);
    roots
}

fn walk(at: &Path, each: &mut impl FnMut(&Path) -> io::Result<bool>) -> io::Result<bool> {
    let Ok(entries) = fs::read_dir(at) else { return Ok(true) };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(kind) = entry.file_type() else { continue };
        let goes_on = if kind.is_dir() {
            walk(&entry.path(), each)?
        } else if kind.is_file() {
            each(&entry.path())?
        } else {
            true
        };
        if !goes_on {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Corpus {
    /// The corpus in this directory, made if it is not there yet.
    pub fn in_directory(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let parts = ["a.txt", "b.txt"].map(|name| directory.join(name));
        let stamp = directory.join("lines");
        if let Some(lines) = fs::read_to_string(&stamp).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(Self { parts, lines });
        }
        let mut files =
            parts.iter().map(|part| File::create(part).map(BufWriter::new)).collect::<io::Result<Vec<_>>>()?;
        let mut lines = 0;
        for root in roots() {
            walk(&root, &mut |path| {
                let is_text = fs::metadata(path).is_ok_and(|m| m.len() <= FILE_BYTES_MAX);
                if let Some(text) = is_text.then(|| fs::read(path).ok()).flatten().filter(|bytes| !bytes.contains(&0)) {
                    for line in text.split(|&byte| byte == b'\n') {
                        let line: Vec<u8> = line.iter().copied().filter(|&b| b != b'\r').take(LINE_BYTES_MAX).collect();
                        files[lines % 2].write_all(&line)?;
                        files[lines % 2].write_all(b"\n")?;
                        lines += 1;
                    }
                }
                Ok(lines < LINES_MIN)
            })?;
        }
        for mut file in files {
            file.flush()?;
        }
        assert!(lines >= LINES_MIN, "this machine has only {lines} lines of text");
        fs::write(stamp, lines.to_string())?;
        Ok(Self { parts, lines })
    }
}
