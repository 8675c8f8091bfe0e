//! Every turn, the mock's included, begins with free memory that has been used a moment ago.
//!
//! A hypervisor may take free pages back within seconds, and then the first touch of each costs several times what copying
//! into it does: 1 GB of fresh pages took 2 s here, the same pages again 0.5 s. Without this, whoever comes after a pause
//! pays for it, and what is compared is the order of the turns.

/// Client, page cache and broker hold the bytes of a turn at once.
const COPIES: u64 = 3;
/// Small turns use some memory too.
const LEAST_BYTES: u64 = 256 << 20;

/// Touches as much free memory as a turn of `turn_bytes` uses, half of what is free at most.
pub fn touch(turn_bytes: u64) {
    let bytes = (turn_bytes * COPIES).max(LEAST_BYTES).min(available_bytes() / 2);
    let Ok(bytes) = usize::try_from(bytes) else { return };
    std::hint::black_box(vec![1_u8; bytes]);
}

fn available_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(0) * 1024
}
