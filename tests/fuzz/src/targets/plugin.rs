//! The host's side of the boundary to storage plug-ins: a table with anything in it, answers and callbacks with any values,
//! and files that pretend to be libraries.
//!
//! The plug-in ([`scripted`]) does whatever the input says. The host refuses it, or takes the log out of service, with a
//! reason; every call is answered once; and what a read gives lies within what was asked for and was ever appended.

mod scripted;

use crate::target::{Seen, Target, about};
use bytes::Bytes;
use chronik_core::ids::{LeaderEpoch, LogId, Offset, TopicId};
use chronik_core::payload::Payload;
use chronik_core::pending::{Done, Inbox, Started};
use chronik_core::time::Timestamp;
use chronik_core::wal::{Chunk, OpenMode, OpenOptions, ReadRange, Run, Wal, WalEngine, WalError};
use chronik_plugin_abi as abi;
use chronik_plugin_abi::ck_slice;
use chronik_plugin_host::is_library;
use futures::executor::block_on;
use scripted::{SCRIPTS, SHOWN, Script, Start, Table, call_complete, complete, engine, host, lock, start, table, with};
use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// See the module's head.
pub struct Plugins;

/// Steps of one story: each may leave a call that waits.
const STEPS_MAX: usize = 64;

/// Tables: the fields' bytes come from the input, but for pointers, of which it chooses whether they are there.
fn tables(input: &[u8]) -> Seen {
    let mut script = Script { bytes: input.to_vec(), ..Script::default() };
    let mut made = table();
    for _ in 0..script.byte() % 8 {
        match script.byte() % 11 {
            0 => made.magic = script.number() as u64,
            // Smaller than it is, or as large as one of a later version says.
            1 => made.struct_size = script.number() as u32,
            2 => made.abi_major = script.number() as u16,
            3 => made.abi_minor = script.number() as u16,
            4 => made.capabilities = script.number() as u64,
            5 => made.required = script.number() as u64,
            6 => made.name = ck_slice { at: std::ptr::null(), len: script.number() as u64 },
            7 => made.version = ck_slice { at: SHOWN.as_ptr(), len: script.number() as u64 },
            8 => {
                const NO_TEXT: &[u8] = &[0xff; 128];
                made.name = ck_slice { at: NO_TEXT.as_ptr(), len: script.number() as u64 };
            }
            9 => made.segments = None,
            _ => match script.byte() % 12 {
                0 => made.engine_start = None,
                1 => made.engine_close = None,
                2 => made.engine_list = None,
                3 => made.log_open = None,
                4 => made.append = None,
                5 => made.sync = None,
                6 => made.read = None,
                7 => made.meta_get = None,
                8 => made.roll = None,
                9 => made.write_queued = None,
                10 => made.log_close = None,
                _ => made.log_release = None,
            },
        }
    }
    let (as_newer, is_none) = (script.byte() % 2 == 1, script.byte() == 255);
    let rest = script.bytes.split_off(script.at.min(script.bytes.len()));
    let told = Start { script: (!rest.is_empty()).then(|| Script { bytes: rest, ..Script::default() }) };
    let table = Table(made);
    match start((!is_none).then_some(&table), told, as_newer) {
        Ok(engine) => {
            let _outcome = block_on(engine.close());
            Seen::taken(("table", engine.info().name.len(), engine.info().capabilities))
        }
        Err(why) => {
            assert!(!why.is_empty());
            let words: String = why.chars().filter(|c| c.is_ascii_alphabetic()).take(120).collect();
            Seen::refused(("table", words), None)
        }
    }
}

/// Where answers arrive; each of them once.
#[derive(Default)]
struct Answers(Mutex<Vec<u32>>);

impl Answers {
    fn tell(&self, token: u64) {
        let mut told = lock(&self.0);
        if let Some(count) = told.get_mut(token as usize) {
            *count += 1;
        }
    }

    fn ask<T>(self: &Arc<Self>) -> (Done<T>, usize)
    where
        Self: Inbox<T>,
    {
        let mut told = lock(&self.0);
        told.push(0);
        let token = told.len() - 1;
        (Done::new(self.clone(), token as u64), token)
    }
}

macro_rules! takes {
    ($($what:ty),*) => {
        $(impl Inbox<Result<$what, WalError>> for Answers {
            fn deliver(&self, token: u64, _: Result<$what, WalError>) {
                self.tell(token);
            }
        })*
    };
}
takes!(chronik_core::wal::Appended, Offset, (), Option<Offset>, Option<Bytes>);

/// What was asked for, by token: a chunk that comes is held against it.
struct Reads {
    answers: Arc<Answers>,
    range: ReadRange,
}

impl Inbox<Result<Chunk, WalError>> for Reads {
    fn deliver(&self, token: u64, outcome: Result<Chunk, WalError>) {
        if let Ok(chunk) = outcome {
            look_at(&chunk, &self.range);
        }
        self.answers.tell(token);
    }
}

fn look_at(chunk: &Chunk, range: &ReadRange) {
    let is_none = chunk.bytes.is_empty() && chunk.base == range.from && chunk.next_offset == range.from;
    let is_within = chunk.base < chunk.next_offset
        && range.from < chunk.next_offset
        && chunk.next_offset <= range.upto
        && (range.min_one || chunk.bytes.len() <= range.max_bytes);
    assert!(is_none || is_within, "a read of {range:?} gave {chunk:?}");
    for part in chunk.bytes.parts() {
        assert!(part.iter().all(|byte| *byte == 7), "it gave bytes that are not the plug-in's");
    }
}

/// A log's life: the broker's calls by the first half of the input, what the plug-in says to them by the rest.
fn story(input: &[u8]) -> Seen {
    static NEXT: AtomicUsize = AtomicUsize::new(2);
    let steps = input.len().div_ceil(3).min(STEPS_MAX);
    let (steps, script) = input.split_at(steps.min(input.len()));
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
    let handle = std::ptr::without_provenance_mut::<c_void>(number);
    lock(&SCRIPTS).insert(number, Script { bytes: script.to_vec(), ..Script::default() });
    let id = LogId { topic: TopicId([7; 16]), partition: number as i32 };
    let options = OpenOptions { mode: OpenMode::CreateIfMissing, segment_bytes: 1 << 20 };
    let engine = engine();
    let log = match block_on(engine.open(id, options)) {
        Ok(log) => log,
        Err(why) => {
            lock(&SCRIPTS).remove(&number);
            let words: String = format!("{why:?}").chars().filter(|c| c.is_ascii_alphabetic()).take(60).collect();
            return Seen::refused(("open", words), None);
        }
    };
    let answers = Arc::<Answers>::default();
    let mut end = log.state().end.0;
    let mut said = 0u32;
    for step in steps {
        said |= 1 << (step % 20).min(19);
        take_step(*step, &*log, handle, &answers, &mut end);
    }
    let state = log.state();
    // However it was, it can be closed, and then everything has been answered.
    let (done, token) = answers.ask::<Result<(), WalError>>();
    if let Started::Now(_) = log.close(done) {
        answers.tell(token as u64);
    }
    for _ in 0..2 * STEPS_MAX {
        if with(handle, |script| script.pending.is_empty()) {
            break;
        }
        // What a plug-in completes at last, after whatever it has done before, is a result.
        let context = with(handle, |script| script.pending.pop());
        if let Some(context) = context {
            call_complete(context, &abi::EMPTY_RESULT);
        }
    }
    for kept in with(handle, |script| std::mem::take(&mut script.kept)) {
        // SAFETY: takes any number.
        unsafe { (host().release)(kept) };
    }
    let told = lock(&answers.0).clone();
    assert!(told.iter().all(|count| *count == 1), "calls were answered {told:?} times");
    let has_failed = log.append(one_run(end), Done::new(Arc::new(Ignored), 0)).is_err();
    drop(log);
    Seen::taken(("story", said.count_ones(), has_failed, about(state.end.0 as usize), told.len().min(8)))
}

struct Ignored;

impl Inbox<Result<chronik_core::wal::Appended, WalError>> for Ignored {
    fn deliver(&self, _: u64, _: Result<chronik_core::wal::Appended, WalError>) {}
}

fn one_run(base: i64) -> Run {
    Run {
        base: Offset(base),
        next_offset: Offset(base) + 1,
        epoch: LeaderEpoch(1),
        max_timestamp: Timestamp(1),
        bytes: Payload::from(Bytes::from_static(&[9; 70])),
    }
}

fn take_step(step: u8, log: &dyn Wal, handle: *mut c_void, answers: &Arc<Answers>, end: &mut i64) {
    /// One that was answered in the call.
    fn now<T>(started: Started<T>, answers: &Answers, token: usize) {
        if let Started::Now(_) = started {
            answers.tell(token as u64);
        }
    }
    match step % 20 {
        0..=3 => {
            let (done, token) = answers.ask();
            match log.append(one_run(*end), done) {
                Ok(started) => {
                    *end = end.saturating_add(1);
                    now(started, answers, token);
                }
                Err(_) => answers.tell(token as u64),
            }
        }
        4 | 5 => {
            let (done, token) = answers.ask();
            now(log.sync(Offset(*end), done), answers, token);
        }
        6..=8 => {
            let upto = Offset(if step >= 128 { i64::MAX } else { *end });
            let from = Offset(i64::from(step / 20));
            let range = ReadRange { from, upto, max_bytes: 100, min_one: step & 64 == 0 };
            let (_, token) = answers.ask::<Result<(), WalError>>();
            let reads = Reads { answers: answers.clone(), range };
            match log.read(range, Done::new(Arc::new(reads), token as u64)) {
                Started::Now(outcome) => {
                    if let Ok(chunk) = outcome {
                        look_at(&chunk, &range);
                    }
                    answers.tell(token as u64);
                }
                Started::Later => {}
            }
        }
        9 => {
            let (done, token) = answers.ask();
            now(log.truncate_suffix(Offset(i64::from(step)), done), answers, token);
            *end = log.state().end.0;
        }
        10 => {
            let (done, token) = answers.ask();
            now(log.truncate_prefix(Offset(i64::from(step)), done), answers, token);
        }
        11 => {
            let (done, token) = answers.ask();
            now(log.reset(Offset(i64::from(step)), done), answers, token);
            *end = log.state().end.0;
        }
        12 => {
            let (done, token) = answers.ask();
            now(log.offset_for_timestamp(Timestamp(i64::from(step)), done), answers, token);
        }
        13 => {
            let (done, token) = answers.ask();
            let values = vec![("key".to_owned(), Some(Bytes::from_static(b"value"))), ("none".to_owned(), None)];
            now(log.meta_put(values, done), answers, token);
        }
        14 => {
            let (done, token) = answers.ask();
            now(log.meta_get("key", done), answers, token);
        }
        15 => {
            log.write_queued();
            if let Some(segmented) = log.segmented() {
                segmented.segments();
                segmented.roll();
                segmented.set_segment_bytes(1 << 20);
            }
        }
        16 => complete(handle, usize::from(step / 20)),
        17 => {
            let (past, result) = with(handle, |script| {
                let context = script.past.last().copied().unwrap_or(0);
                (context, script.result(abi::OK))
            });
            // Of a call that is over, of a later generation of its slot, of none.
            let context = [past, 0, u64::MAX, past ^ 1 << 63][usize::from(step / 20) % 4];
            call_complete(context, &result);
        }
        18 => {
            let (context, pending) = with(handle, |script| (script.log_context, script.pending.last().copied()));
            let wrong = context ^ 1 << 62;
            // SAFETY: takes any number.
            unsafe { (host().ready)(if step >= 128 { wrong } else { context }) };
            // SAFETY: as above.
            let kept = unsafe { (host().keep)(pending.unwrap_or(wrong)) };
            if kept != 0 {
                with(handle, |script| script.kept.push(kept));
            }
        }
        _ => {
            let kept = with(handle, |script| script.kept.pop()).unwrap_or(u64::from(step) << 40);
            // SAFETY: takes any number; the text is there.
            unsafe {
                (host().release)(kept);
                (host().release)(kept);
                (host().log)(u32::from(step), SHOWN.as_ptr(), SHOWN.len() as u64);
                (host().log)(4, std::ptr::null(), u64::MAX);
            }
            log.state();
        }
    }
}

/// The least that an object file of this machine needs to be taken for a library.
fn library() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16] = 3;
    file[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    file[32] = 64;
    (file[54], file[56]) = (56, 2);
    (file[64 + 8], file[64 + 32]) = (10, 100);
    file
}

impl Target for Plugins {
    fn name(&self) -> &'static str {
        "plugin"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = vec![[vec![0], library()].concat(), vec![1, 0], vec![1, 0, 1, 0]];
        for step in 0..20 {
            seeds.push([vec![2], vec![step; 4], vec![0; 60]].concat());
            // Everything waits, and is completed.
            let script = [vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![100; 60]].concat();
            seeds.push([vec![2], vec![0, step, 16, step, 16, 16], script].concat());
        }
        seeds.push([vec![2], (0..20).collect(), (0..40).collect()].concat());
        seeds
    }

    fn feed(&self, input: &[u8]) -> Seen {
        let Some((kind, rest)) = input.split_first() else { return Seen::refused("short", None) };
        match kind % 8 {
            0 => match is_library(Path::new("/library"), rest) {
                Ok(()) => Seen::taken(("library", about(rest.len()))),
                Err(why) => {
                    let words: String = why.to_string().chars().filter(|c| c.is_ascii_alphabetic()).collect();
                    Seen::refused(words, None)
                }
            },
            1 => tables(rest),
            _ => story(rest),
        }
    }

    fn input_bytes_max(&self) -> usize {
        512
    }

    /// A plug-in that claims thousands of segments is given room for them.
    fn more_memory_bytes(&self) -> usize {
        1 << 20
    }
}
