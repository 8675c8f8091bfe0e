//! Signals are the broker's: a plug-in's threads must not be the ones that get them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that no signal is delivered to.
///
/// # Errors
/// When the system has no thread to give.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    blocked(|| Builder::new().name(name.to_owned()).spawn(work))
}

/// Blocks all signals meanwhile: threads started in it inherit that.
pub(crate) fn blocked<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the set is one that the system filled in.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
        }
    }
    // Miri, which has no signals, judges everything else.
    if cfg!(miri) {
        return work();
    }
    // SAFETY: a signal set is plain bits; both are filled in before they are used.
    let _restore = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        Restore(before)
    };
    work()
}
