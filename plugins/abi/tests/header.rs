//! The header and the Rust side mean the same bytes: a C compiler says how it lays out what the header declares.

use chronik_plugin_abi as abi;
use std::fmt::Write;
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

/// Each field's offset, as C source that prints it and as Rust sees it.
macro_rules! layouts {
    ($($name:ident { $($field:ident),* })*) => {{
        let (mut source, mut expected) = (String::new(), String::new());
        $(
            let _ = writeln!(source, "P({}, sizeof({}));", stringify!($name), stringify!($name));
            let _ = writeln!(expected, "{} {}", stringify!($name), size_of::<abi::$name>());
            $(
                let field = concat!(stringify!($name), "_", stringify!($field));
                let _ = writeln!(source, "P({field}, offsetof({}, {}));", stringify!($name), stringify!($field));
                let _ = writeln!(expected, "{field} {}", offset_of!(abi::$name, $field));
            )*
        )*
        (source, expected)
    }};
}

macro_rules! numbers {
    ($($c:ident = $rust:expr),* $(,)?) => {{
        let (mut source, mut expected) = (String::new(), String::new());
        $(
            let _ = writeln!(source, "P({}, {});", stringify!($c), stringify!($c));
            let _ = writeln!(expected, "{} {}", stringify!($c), $rust as i64);
        )*
        (source, expected)
    }};
}

#[test]
fn the_header_and_the_rust_side_agree() {
    let layouts = layouts! {
        ck_slice { at, len }
        ck_buf { slices, slices_len, retained_bytes, owner, release }
        ck_result { struct_size, status, offset, next_offset, value, buf, text_len, reserved, text }
        ck_log_id { topic, partition, reserved }
        ck_state { struct_size, last_epoch, start, end, written_end, durable_end, bytes, max_timestamp }
        ck_segment { base, end, bytes, max_timestamp, sealed, reserved }
        ck_usage { struct_size, has_device, logs, bytes, memory_bytes, device_total_bytes, device_free_bytes }
        ck_start_args { struct_size, reserved, directory, options }
        ck_engine_info { struct_size, survives, engine, run_bytes_max }
        ck_log_args { struct_size, mode, id, segment_bytes, log_context }
        ck_log_info { struct_size, appends_in_flight_max, append_bytes_in_flight_max, log }
        ck_append_args { struct_size, epoch, base, next_offset, max_timestamp, slices, slices_len, bytes }
        ck_read_args { struct_size, min_one, from, upto, max_bytes }
        ck_meta { key, value }
        ck_host { magic, struct_size, abi_major, abi_minor, capabilities, complete, ready, log, keep, release }
        ck_plugin {
            magic, struct_size, abi_major, abi_minor, capabilities, required, name, version, engine_start, engine_close,
            engine_list, engine_usage, log_open, log_delete, log_state, append, write_queued, sync, read, truncate_suffix,
            truncate_prefix, reset, offset_for_timestamp, meta_put, meta_get, segments, roll, set_segment_bytes,
            log_close, log_release, log_set_aside
        }
    };
    let numbers = numbers! {
        CK_MAGIC = abi::MAGIC, CK_ABI_MAJOR = abi::ABI_MAJOR, CK_ABI_MINOR = abi::ABI_MINOR,
        CK_CAP_SEGMENTS = abi::CAP_SEGMENTS, CK_CAP_WRITE_QUEUED = abi::CAP_WRITE_QUEUED,
        CK_CAP_SET_ASIDE = abi::CAP_SET_ASIDE,
        CK_SURVIVES_NOTHING = abi::SURVIVES_NOTHING, CK_SURVIVES_PROCESS = abi::SURVIVES_PROCESS,
        CK_SURVIVES_POWER_LOSS = abi::SURVIVES_POWER_LOSS, CK_OPEN_EXISTING = abi::OPEN_EXISTING,
        CK_OPEN_CREATE_NEW = abi::OPEN_CREATE_NEW, CK_OPEN_CREATE_IF_MISSING = abi::OPEN_CREATE_IF_MISSING,
        CK_LOG_ERROR = abi::LOG_ERROR, CK_LOG_WARN = abi::LOG_WARN, CK_LOG_INFO = abi::LOG_INFO,
        CK_LOG_DEBUG = abi::LOG_DEBUG, CK_OK = abi::OK, CK_PENDING = abi::PENDING, CK_FULL = abi::FULL,
        CK_BUSY = abi::BUSY, CK_OUT_OF_ORDER = abi::OUT_OF_ORDER, CK_FENCED = abi::FENCED, CK_FAILED = abi::FAILED,
        CK_CLOSED = abi::CLOSED, CK_TOO_LARGE = abi::TOO_LARGE, CK_OUT_OF_RANGE = abi::OUT_OF_RANGE,
        CK_CORRUPT = abi::CORRUPT, CK_IO = abi::IO, CK_NOT_FOUND = abi::NOT_FOUND,
        CK_ALREADY_EXISTS = abi::ALREADY_EXISTS, CK_PANIC = abi::PANIC, CK_INVALID = abi::INVALID,
        CK_NONE = abi::NONE, CK_NO_VALUE = abi::NO_VALUE, CK_TEXT_BYTES = abi::TEXT_BYTES,
    };
    let source = format!(
        "#include \"chronik_plugin.h\"\n#include <stdio.h>\n#define P(name, value) printf(#name \" %lld\\n\", (long long)(value))\n\
         int main(void) {{\n{}{}return 0; }}\n",
        layouts.0, numbers.0
    );
    let expected = layouts.1 + &numbers.1;

    let place = tempfile::tempdir().expect("a directory for temporary files");
    let (file, program) = (place.path().join("layout.c"), place.path().join("layout"));
    fs::write(&file, source).expect("written");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .args([&include, &file])
        .arg("-o")
        .arg(&program)
        .status()
        .expect("a C compiler named cc");
    assert!(compiled.success(), "the header compiles alone and without a warning");
    let said = Command::new(&program).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
}

#[test]
fn the_header_is_also_cplusplus() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/chronik_plugin.h");
    // A machine without a C++ compiler has nothing to check here.
    let Ok(status) = Command::new("c++")
        .args(["-std=c++11", "-Wall", "-Werror", "-fsyntax-only", "-x", "c++"])
        .arg(include)
        .status()
    else {
        return;
    };
    assert!(status.success());
}
