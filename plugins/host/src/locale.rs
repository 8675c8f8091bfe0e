//! The process's locale, which a plug-in must leave alone: text that other libraries read and write depends on it.

use std::ffi::CStr;

/// Its name, all categories together. Ask only while nobody changes it: the system's answer is not safe otherwise.
pub fn locale() -> String {
    // SAFETY: with null it only asks; the text stays until somebody changes the locale.
    let name = unsafe { libc::setlocale(libc::LC_ALL, std::ptr::null()) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: not null, and ends with a NUL, as the system says.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
