//! From a path to mapped code: what is checked while none of it has run.
//!
//! One descriptor is opened, examined, hashed and loaded, so that what was checked is what runs, whatever happens to the
//! path meanwhile. It stays open for good: the loader knows a library by its name, and that name is the descriptor's.

use chronik_plugin_abi::{ENTRY_SYMBOL, ck_entry};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use ring::digest::{SHA256, digest};
use std::ffi::c_void;
use std::fmt::Write;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A storage engine is some megabytes; what is larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Permission bits with which others than the owner may change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a directory with this bit only a file's owner may replace it.
const STICKY: u32 = 0o1000;

/// Why a file was not loaded. None of its code has run, unless the loader itself failed half way.
#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    #[error("the plug-in's path {0} is not absolute: say where it is from the root on")]
    NotAbsolute(PathBuf),
    #[error("the plug-in {path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the plug-in {0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("the plug-in {path} is {bytes} bytes large, which no plug-in is")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{path} belongs to user {owner}: a plug-in and its directory must belong to root or to the broker's user")]
    Owner { path: PathBuf, owner: u32 },
    #[error("{path} may be written by others (mode {mode:o}): take that away from it, as with `chmod go-w`")]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("the plug-in {path} has SHA-256 {found}, but {pinned} is configured")]
    Hash { path: PathBuf, found: String, pinned: String },
    #[error("the plug-in {0} is not a shared library (an ELF file of type DYN)")]
    NotALibrary(PathBuf),
    #[error("the plug-in {path} is built for another machine (ELF machine {found}, this is {here})")]
    WrongMachine { path: PathBuf, found: u16, here: u16 },
    #[error("the plug-in {0} is cut off: parts that its header names are not in the file")]
    CutOff(PathBuf),
    #[error("the plug-in {path} cannot be loaded: {why}")]
    Loader { path: PathBuf, why: String },
    #[error("the plug-in {path} has no symbol {ENTRY_SYMBOL}: it is not a chronik plug-in")]
    NoSymbol { path: PathBuf },
}

/// Of this machine, in an ELF header.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// A loaded library's entry, and what identifies the file it came from.
struct Loaded {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    entry: ck_entry,
    // Never closed, never unloaded: see the module's head.
    _descriptor: File,
    _library: Library,
}

static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// A file that was looked at, and may be loaded.
struct Verified<'a> {
    path: &'a Path,
    file: File,
    is: Metadata,
    /// Where it was when it was looked at.
    place: PathBuf,
}

/// Checks the file and loads it. Gives its entry; loading the same file again gives the same.
pub(crate) fn load(path: &Path, pinned: Option<[u8; 32]>) -> Result<ck_entry, NotLoaded> {
    Verified::of(path, pinned)?.load()
}

/// The name that a descriptor has.
fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl<'a> Verified<'a> {
    fn of(path: &'a Path, pinned: Option<[u8; 32]>) -> Result<Self, NotLoaded> {
        if !path.is_absolute() {
            return Err(NotLoaded::NotAbsolute(path.to_owned()));
        }
        let unreadable = |source| NotLoaded::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let is = file.metadata().map_err(unreadable)?;
        if !is.is_file() {
            return Err(NotLoaded::NotAFile(path.to_owned()));
        }
        if is.len() > FILE_BYTES_MAX {
            return Err(NotLoaded::TooLarge { path: path.to_owned(), bytes: is.len() });
        }
        trusted(path, &is)?;
        // Who may write the directory may put another file in the place of this one. The path may be a link: what counts is
        // where the file is that was opened.
        let place = std::fs::read_link(by_descriptor(&file)).or_else(|_| path.canonicalize()).map_err(unreadable)?;
        if let Some(directory) = place.parent() {
            let is = directory.metadata().map_err(unreadable)?;
            if is.mode() & STICKY == 0 {
                trusted(directory, &is)?;
            }
        }
        let mut content = Vec::new();
        Read::take(&mut file, FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
        if let Some(pinned) = pinned {
            let found = digest(&SHA256, &content);
            if found.as_ref() != pinned {
                let (found, pinned) = (hex(found.as_ref()), hex(&pinned));
                return Err(NotLoaded::Hash { path: path.to_owned(), found, pinned });
            }
        }
        is_library(path, &content)?;
        Ok(Self { path, file, is, place })
    }

    fn load(self) -> Result<ck_entry, NotLoaded> {
        let Self { path, file, is, place } = self;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let (device, inode, changed) = (is.dev(), is.ino(), (is.ctime(), is.ctime_nsec()));
        if let Some(known) = loaded.iter().find(|one| (one.device, one.inode, one.changed) == (device, inode, changed))
        {
            return Ok(known.entry);
        }
        // By its descriptor where the system can; elsewhere by the path, and the permissions above must suffice.
        let by_descriptor = by_descriptor(&file);
        let name = if by_descriptor.exists() { by_descriptor } else { place };
        let loader = |why: libloading::Error| NotLoaded::Loader { path: path.to_owned(), why: why.to_string() };
        // SAFETY: loading runs the library's initialisers. That is what loading a plug-in means: its file was checked to
        // belong to who runs the broker, and it is trusted as the broker is.
        let library = unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_LOCAL) }.map_err(loader)?;
        // SAFETY: only the address is taken, nothing is called through this type.
        let symbol = unsafe { library.get::<*const ()>(ENTRY_SYMBOL.as_bytes()) };
        let entry = symbol.map_or(std::ptr::null_mut(), |symbol| symbol.into_raw());
        if entry.is_null() {
            // Kept all the same: what its initialisers have begun may still run.
            std::mem::forget(library);
            std::mem::forget(file);
            return Err(NotLoaded::NoSymbol { path: path.to_owned() });
        }
        // SAFETY: not null; the symbol's type is the contract, and that the library follows it is what its author vouches for.
        let entry = unsafe { std::mem::transmute::<*mut c_void, ck_entry>(entry) };
        loaded.push(Loaded { device, inode, changed, entry, _descriptor: file, _library: library });
        Ok(entry)
    }
}

fn trusted(path: &Path, is: &Metadata) -> Result<(), NotLoaded> {
    let owner = is.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(NotLoaded::Owner { path: path.to_owned(), owner });
    }
    let mode = is.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(NotLoaded::WritableByOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Whether the content of a file is a shared library for this machine, all of it. The loader would say so, too, but less
/// plainly ("invalid ELF header", "wrong ELF class"), or not at all.
pub fn is_library(path: &Path, content: &[u8]) -> Result<(), NotLoaded> {
    let half = |at: usize| content.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    const SIXTY_FOUR_BIT_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const DYN: u16 = 3;
    if !content.starts_with(b"\x7fELF") {
        return Err(NotLoaded::NotALibrary(path.to_owned()));
    }
    let machine = half(18).unwrap_or(0);
    if machine != MACHINE || !content.starts_with(SIXTY_FOUR_BIT_LITTLE_ENDIAN) {
        return Err(NotLoaded::WrongMachine { path: path.to_owned(), found: machine, here: MACHINE });
    }
    if half(16) != Some(DYN) {
        return Err(NotLoaded::NotALibrary(path.to_owned()));
    }
    if segments_are_there(content) { Ok(()) } else { Err(NotLoaded::CutOff(path.to_owned())) }
}

/// Whether the file reaches as far as its program headers say. The loader maps what they name without looking, and touching
/// what is not there ends the process.
fn segments_are_there(content: &[u8]) -> bool {
    let number = |at: u64, bytes: usize| {
        let at = usize::try_from(at).ok()?;
        let field = content.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let all = || {
        let (headers, each, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for header in 0..count {
            let at = headers.checked_add(header * each)?;
            let (offset, len) = (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?);
            if offset.checked_add(len)? > content.len() as u64 {
                return None;
            }
        }
        Some(count > 0)
    };
    all().unwrap_or(false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _writing_to_a_string_succeeds = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// A library whose entry returns this number.
    fn library(directory: &Path, number: u8) -> PathBuf {
        let (source, library) = (directory.join(format!("{number}.c")), directory.join(format!("{number}.so")));
        fs::write(&source, format!("long {ENTRY_SYMBOL}(void) {{ return {number}; }}\n")).expect("written");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler named cc builds it");
        library
    }

    /// What an entry returns.
    fn says(entry: ck_entry) -> i64 {
        // SAFETY: the entries of this module's libraries are such functions, and stay loaded.
        let entry = unsafe { std::mem::transmute::<ck_entry, extern "C" fn() -> i64>(entry) };
        entry()
    }

    fn is_mapped(library: &str) -> bool {
        fs::read_to_string("/proc/self/maps").expect("the system says").contains(library)
    }

    #[test]
    fn what_was_verified_is_what_is_loaded_whatever_comes_to_its_place() {
        let place = tempfile::tempdir().expect("a directory");
        let sum = |path: &Path| {
            let sum = digest(&SHA256, &fs::read(path).expect("it is there"));
            <[u8; 32]>::try_from(sum.as_ref()).expect("of that length")
        };
        for (number, swap) in [(11, "renamed over it"), (21, "removed"), (31, "a link elsewhere")] {
            let (right, wrong) = (library(place.path(), number), library(place.path(), number + 1));
            let pinned = sum(&right);
            let verified = Verified::of(&right, Some(pinned)).expect("it is what it should be");
            match swap {
                "removed" => fs::remove_file(&right).expect("removed"),
                "a link elsewhere" => {
                    fs::remove_file(&right).expect("removed");
                    std::os::unix::fs::symlink(&wrong, &right).expect("linked");
                }
                _ => fs::rename(&wrong, &right).expect("renamed"),
            }
            let entry = verified.load().unwrap_or_else(|why| panic!("{swap}: {why}"));
            assert_eq!(
                says(entry),
                i64::from(number),
                "{swap}: another file was loaded than the one that was verified"
            );
            // Whoever looks again sees the other one, and refuses it.
            assert!(load(&right, Some(pinned)).is_err(), "{swap}: the other file has another sum");
        }
    }

    #[test]
    fn a_library_is_loaded_once_and_stays_for_good() {
        let place = tempfile::tempdir().expect("a directory");
        let library = library(place.path(), 41);
        let name = fs::canonicalize(&library).expect("it is there").display().to_string();
        assert!(!is_mapped(&name));
        let entry = load(&library, None).expect("loaded");
        assert_eq!(load(&library, None).ok().map(|again| again as usize), Some(entry as usize));
        assert!(is_mapped(&name) && says(entry) == 41);
    }
}
