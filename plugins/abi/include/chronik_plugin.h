/*
 * chronik_plugin.h: a storage engine for the chronik broker, as a shared library in any language that speaks C.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * This file is the contract and stands alone: C11 or C++11, no other header of chronik. `chronik plugin check FILE.so`
 * judges an engine by it.
 *
 * THE SHAPE
 *   A plug-in exports one symbol, chronik_plugin_v1. It gets the host's table and returns its own; both live as long as
 *   the process, and a plug-in is never unloaded. It may be called again, and then returns the same table.
 *   An engine keeps logs. A log is a list of runs: bytes, with the offsets they cover. What the bytes mean is the
 *   broker's business.
 *
 * VERSIONS
 *   Tables and argument structs begin with their size and only grow at the end. A struct larger than you know: ignore
 *   the rest. Smaller than you know: what is missing is as if zero. Another major version is another contract. A bit in
 *   ck_plugin.required that the host does not know makes it refuse the plug-in. Reserved fields are zero.
 *   What a later minor version than 1.0 has brought says so: "since 1.1". A plug-in need not have it, and a host of an
 *   earlier minor version does not ask for it.
 *
 * HOW A CALL ENDS
 *   Calls that take a `context` return
 *     CK_OK        done; *result is filled in; no callback comes.
 *     CK_PENDING   host->complete(context, result) is called exactly once, from any thread, also before the call has
 *                  returned. Leave *result alone.
 *     below zero   refused or failed; *result says more where the status says so; no callback comes.
 *   `context` is a number, not a pointer: the host notices when it is used twice, late, or made up, and then takes the
 *   log out of service. complete() and ready() only enqueue: they never call back into the plug-in, so they may be
 *   called under locks.
 *   The argument struct lasts until the call returns; what it points at (slices, keys, values) until the call has
 *   completed. A result given to complete() needs to last only until complete() returns; what its ck_buf points at, until
 *   the owner is released.
 *
 * MEMORY
 *   Nothing allocated on one side is freed on the other. What the plug-in hands out it owns until the host calls
 *   release(owner): once, from any thread, also after the log and the engine are closed. retained_bytes is what that
 *   keeps in memory; the broker counts it.
 *   Slices have any alignment. A slice of length 0 may have any address.
 *
 * THREADS
 *   Every function may be called from any thread, at the same time as others. But per log the host calls append,
 *   truncate_*, reset, roll and log_close one after the other, and they take effect in that order.
 *   Functions with a log or its state return within about a millisecond: block on threads of your own. Exceptions:
 *   write_queued, and the lifecycle calls engine_*, log_open and log_delete, which the host makes on a thread of their own
 *   and gives a deadline.
 *   Threads that a plug-in starts must block all signals (pthread_sigmask before pthread_create): signals are the broker's.
 *   A plug-in must not fork, nor change the working directory, umask, locale or signal handlers.
 *   No exception, panic or longjmp may cross.
 *
 * WHAT LASTS
 *   start <= durable_end <= written_end <= end, always.
 *   end          ordered and readable.
 *   written_end  with the operating system: outlives the process (SIGKILL).
 *   durable_end  outlives a power cut; never falls, also not over a reopen (but a truncation or reset moves it).
 *   After a failed write or sync answer CK_FAILED until the log is opened again. Do not retry fsync: after one failure the
 *   kernel forgets, and the second one lies.
 */
#ifndef CHRONIK_PLUGIN_H
#define CHRONIK_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CK_MAGIC UINT64_C(0x4b494e4f52484321)
#define CK_ABI_MAJOR 1
#define CK_ABI_MINOR 1

/* ck_plugin.capabilities and ck_plugin.required */
#define CK_CAP_SEGMENTS (UINT64_C(1) << 0)     /* segments, roll and set_segment_bytes are there */
#define CK_CAP_WRITE_QUEUED (UINT64_C(1) << 1) /* write_queued is there and is to be called after appends */
#define CK_CAP_SET_ASIDE (UINT64_C(1) << 2)    /* since 1.1: log_set_aside is there */

/* ck_engine_info.survives: what the engine promises. A broker refuses configurations that ask for more. */
#define CK_SURVIVES_NOTHING 0    /* nothing outlives the process */
#define CK_SURVIVES_PROCESS 1    /* what is written outlives the process, but not a power cut */
#define CK_SURVIVES_POWER_LOSS 2 /* what is synced outlives a power cut */

/* ck_log_args.mode */
#define CK_OPEN_EXISTING 0          /* CK_NOT_FOUND if there is none */
#define CK_OPEN_CREATE_NEW 1        /* CK_ALREADY_EXISTS if there is one; durable on return */
#define CK_OPEN_CREATE_IF_MISSING 2 /* either */

/* ck_host.log */
#define CK_LOG_ERROR 1
#define CK_LOG_WARN 2
#define CK_LOG_INFO 3
#define CK_LOG_DEBUG 4

/* Statuses. Fields of the result that a status fills in are named beside it. */
#define CK_OK 0
#define CK_PENDING 1
#define CK_FULL (-1)            /* no room on the device; the log is intact */
#define CK_BUSY (-2)            /* append only, while appends of this engine are pending: nothing is kept; one ready() follows */
#define CK_OUT_OF_ORDER (-3)    /* append only; offset: where the log ends */
#define CK_FENCED (-4)          /* append only; value: the log's last epoch */
#define CK_FAILED (-5)          /* a write or sync failed, now or earlier; sticky until the log is opened again; text */
#define CK_CLOSED (-6)
#define CK_TOO_LARGE (-7)       /* append only; value: the largest run in bytes */
#define CK_OUT_OF_RANGE (-8)    /* offset, next_offset: the log's start and end */
#define CK_CORRUPT (-9)         /* the engine's own check failed; offset: where; text */
#define CK_IO (-10)             /* text */
#define CK_NOT_FOUND (-11)      /* lifecycle only */
#define CK_ALREADY_EXISTS (-12) /* lifecycle only */
#define CK_PANIC (-13)          /* the plug-in caught a panic or exception of its own; text; the log is taken out of service */
#define CK_INVALID (-14)        /* options or arguments make no sense; text */

#define CK_NONE INT64_C(-1)        /* no timestamp; no such offset */
#define CK_NO_VALUE UINT64_MAX     /* as a slice's length: no value (an empty one has length 0) */
#define CK_TEXT_BYTES 208

/* Bytes that somebody else owns. */
typedef struct ck_slice {
    const uint8_t *at;
    uint64_t len;
} ck_slice;

/* Bytes that the plug-in owns until release(owner). The slices read as one; the array belongs to the owner, too.
 * release == NULL: no bytes are handed out, or they live for ever. */
typedef struct ck_buf {
    const ck_slice *slices;
    uint64_t slices_len;
    uint64_t retained_bytes;
    void *owner;
    void (*release)(void *owner);
} ck_buf;

/* What a call gave. For complete() it is the plug-in's; otherwise the host's, with struct_size set and the rest zero. */
typedef struct ck_result {
    uint32_t struct_size;
    int32_t status; /* read in complete() only; otherwise the return value counts */
    int64_t offset;
    int64_t next_offset;
    uint64_t value;
    ck_buf buf;
    uint32_t text_len; /* bytes of text, UTF-8, at most CK_TEXT_BYTES */
    uint32_t reserved;
    uint8_t text[CK_TEXT_BYTES]; /* why, for people */
} ck_result;

typedef struct ck_log_id {
    uint8_t topic[16]; /* a UUID; not text */
    int32_t partition;
    uint32_t reserved;
} ck_log_id;

/* Where a log stands: one consistent view. */
typedef struct ck_state {
    uint32_t struct_size;
    int32_t last_epoch; /* of the last run that reaches past start; if none, of the last that began before start when
                           truncate_prefix moved it; 0 in a log that is new or was reset */
    int64_t start;
    int64_t end;
    int64_t written_end;
    int64_t durable_end;
    uint64_t bytes;        /* that the log occupies, framing included */
    int64_t max_timestamp; /* greatest of the runs that reach past start; CK_NONE if none */
} ck_state;

/* A stretch of a log that is stored, kept and dropped as one. */
typedef struct ck_segment {
    int64_t base;
    int64_t end;
    uint64_t bytes;
    int64_t max_timestamp;
    uint32_t sealed; /* 1: no append goes to it any more */
    uint32_t reserved;
} ck_segment;

typedef struct ck_usage {
    uint32_t struct_size;
    uint32_t has_device; /* 1: the device_* fields mean something */
    uint64_t logs;
    uint64_t bytes;
    uint64_t memory_bytes; /* held for logs, without what is handed out in ck_buf */
    uint64_t device_total_bytes;
    uint64_t device_free_bytes;
} ck_usage;

typedef struct ck_start_args {
    uint32_t struct_size;
    uint32_t reserved;
    ck_slice directory; /* absolute path, UTF-8, without a final NUL; the engine's own, made by the host */
    ck_slice options;   /* a JSON object, from the broker's configuration */
} ck_start_args;

typedef struct ck_engine_info {
    uint32_t struct_size;
    uint32_t survives;
    void *engine;           /* handed back in later calls; not NULL */
    uint64_t run_bytes_max; /* the largest run it takes; at least 1 MiB */
} ck_engine_info;

typedef struct ck_log_args {
    uint32_t struct_size;
    uint32_t mode;
    ck_log_id id;
    uint64_t segment_bytes; /* size at which an engine with segments begins another */
    uint64_t log_context;   /* for ready() */
} ck_log_args;

typedef struct ck_log_info {
    uint32_t struct_size;
    uint32_t appends_in_flight_max;      /* the host keeps at most so many appends pending; 0: no limit */
    uint64_t append_bytes_in_flight_max; /* … and so many bytes, unless it is only one append; 0: no limit */
    void *log;                           /* not NULL */
} ck_log_info;

typedef struct ck_append_args {
    uint32_t struct_size;
    int32_t epoch;
    int64_t base;          /* the first offset */
    int64_t next_offset;   /* after the last one */
    int64_t max_timestamp; /* CK_NONE: none */
    const ck_slice *slices;
    uint64_t slices_len;
    uint64_t bytes; /* of all slices together */
} ck_append_args;

typedef struct ck_read_args {
    uint32_t struct_size;
    uint32_t min_one; /* 1: give the first run even if it alone exceeds max_bytes */
    int64_t from;
    int64_t upto; /* only runs that end at or below this */
    uint64_t max_bytes;
} ck_read_args;

typedef struct ck_meta {
    ck_slice key;
    ck_slice value; /* len == CK_NO_VALUE: remove */
} ck_meta;

/* The host's table. */
typedef struct ck_host {
    uint64_t magic;
    uint32_t struct_size;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint64_t capabilities; /* the bits this host knows */
    /* Ends a call that returned CK_PENDING. */
    void (*complete)(uint64_t context, const ck_result *result);
    /* After an append was answered CK_BUSY: once per such answer, when it is worth trying again. It may come from another
     * thread before that answer has returned. */
    void (*ready)(uint64_t log_context);
    /* A line in the broker's log. */
    void (*log)(uint32_t level, const uint8_t *text, uint64_t len);
    /* Between an append's call and its completion: keeps the bytes of its slices (not the array) valid beyond it, without
     * a copy, until release(number). Returns the number; 0 if context is no pending append. It may be called several times,
     * and each time wants a release of its own; the numbers may be the same. */
    uint64_t (*keep)(uint64_t context);
    void (*release)(uint64_t number);
} ck_host;

/* The plug-in's table. Every function must be there, except those of capabilities that it does not have. */
typedef struct ck_plugin {
    uint64_t magic;
    uint32_t struct_size;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint64_t capabilities; /* CK_CAP_* that the plug-in has */
    uint64_t required;     /* CK_CAP_* without which it cannot be used */
    ck_slice name;
    ck_slice version;

    /* Lifecycle: may block, never CK_PENDING. */

    /* Starts an engine over a directory. Several may run at a time, over different directories. */
    int32_t (*engine_start)(const ck_start_args *args, ck_engine_info *info, ck_result *result);
    /* Ends it. The host has closed all its logs before and makes no call with this engine after. Logs and buffers that
     * are not released yet may be released later. */
    int32_t (*engine_close)(void *engine, ck_result *result);
    /* All logs, in order of topic (bytewise) and then partition: buf holds an array of ck_log_id in one slice. */
    int32_t (*engine_list)(void *engine, ck_result *result);
    void (*engine_usage)(void *engine, ck_usage *usage);
    /* Opens a log. What follows the last whole run is cut off (a torn tail); damage before it is CK_CORRUPT. The host
     * opens a log only while it is not open. */
    int32_t (*log_open)(void *engine, const ck_log_args *args, ck_log_info *info, ck_result *result);
    /* Removes a log for good, and what was set aside of it; durable on return. The host has closed it before. Without such
     * a log: CK_NOT_FOUND, but what was set aside of it is removed all the same. */
    int32_t (*log_delete)(void *engine, const ck_log_id *id, ck_result *result);

    /* Logs. */

    /* Also after log_close, until log_release. */
    void (*log_state)(void *log, ck_state *state);
    /* Orders a run after all others, readable on return. Completes when it is written (not durable); offset: the
     * written end. Refuses with CK_OUT_OF_ORDER if base < end or next_offset <= base; with CK_FENCED if epoch is less
     * than the log's last_epoch; with CK_TOO_LARGE, CK_FULL, CK_BUSY, CK_FAILED, CK_CLOSED. base > end leaves a gap. Once
     * ordered it may not be refused: if it cannot be written, the log has failed. */
    int32_t (*append)(void *log, const ck_append_args *args, uint64_t context, ck_result *result);
    /* With CK_CAP_WRITE_QUEUED: does, in the caller's context, the writing that append ordered. May block. */
    void (*write_queued)(void *log);
    /* Makes everything below `upto` (at most the end) durable; offset: the new durable end. */
    int32_t (*sync)(void *log, int64_t upto, uint64_t context, ck_result *result);
    /* Whole runs from the one that holds `from`: buf, and offset, next_offset: the base of the first run and where to
     * read on. At the end, or where nothing is allowed: no bytes, offset == next_offset == from. In a gap: from the next
     * run on. Outside the log: CK_OUT_OF_RANGE. */
    int32_t (*read)(void *log, const ck_read_args *args, uint64_t context, ck_result *result);
    /* Removes every run that reaches past `offset`; the end is then that of the last run left, or start. Durable on
     * completion, all or nothing if interrupted. Inside a run or outside the log: CK_OUT_OF_RANGE. */
    int32_t (*truncate_suffix)(void *log, int64_t offset, uint64_t context, ck_result *result);
    /* Moves start (which may come to lie inside a run); durable on completion. Below start: CK_OK and nothing is done.
     * Above end: CK_OUT_OF_RANGE. */
    int32_t (*truncate_prefix)(void *log, int64_t offset, uint64_t context, ck_result *result);
    /* Empties the log and begins again at `offset`; durable on completion, all or nothing if interrupted. */
    int32_t (*reset)(void *log, int64_t offset, uint64_t context, ck_result *result);
    /* offset: base of the first run that reaches past start with max_timestamp >= time; CK_NONE if there is none. */
    int32_t (*offset_for_timestamp)(void *log, int64_t time, uint64_t context, ck_result *result);
    /* Sets or removes small values kept beside the log: all of them or none, durable on completion. A reset keeps them. */
    int32_t (*meta_put)(void *log, const ck_meta *entries, uint64_t entries_len, uint64_t context, ck_result *result);
    /* buf: the value, and value == 1; or value == 0 if there is none. */
    int32_t (*meta_get)(void *log, const ck_slice *key, uint64_t context, ck_result *result);

    /* With CK_CAP_SEGMENTS: writes at most `room` of them, returns how many there are. */
    uint64_t (*segments)(void *log, ck_segment *into, uint64_t room);
    /* Seals the last segment, unless it is empty. */
    void (*roll)(void *log);
    void (*set_segment_bytes)(void *log, uint64_t segment_bytes);

    /* Writes and syncs what is ordered, completes everything outstanding, and lets go of the log. No call but log_state
     * and log_release follows. */
    int32_t (*log_close)(void *log, uint64_t context, ck_result *result);
    /* The host will never name this log again: free it. Once, after log_close has completed; from any thread, perhaps
     * after engine_close. */
    void (*log_release)(void *log);

    /* Lifecycle, since 1.1, with CK_CAP_SET_ASIDE: puts what is stored of a log where nobody but a person finds it, in the
     * place of what was put there before. The log is there no more, and can be created. Durable on return, whole or not at
     * all if interrupted. The host has closed the log before, or could not open it: it is asked for logs that are damaged
     * (log_open or read was answered CK_CORRUPT, or bytes came back that were never stored) and are filled anew from
     * another broker's, so it must work whatever the log's content is. text: where it is now, for people. */
    int32_t (*log_set_aside)(void *engine, const ck_log_id *id, ck_result *result);
} ck_plugin;

/* What a plug-in exports. NULL: it cannot work with this host, and has said why through host->log. */
#if defined(_WIN32)
#define CK_EXPORT __declspec(dllexport)
#else
#define CK_EXPORT __attribute__((visibility("default")))
#endif
CK_EXPORT const ck_plugin *chronik_plugin_v1(const ck_host *host);

/* The layout is the same on x86-64 and aarch64; where it is not, this does not compile. */
#if defined(__cplusplus)
#define CK_SIZE(type, bytes) static_assert(sizeof(type) == bytes, "the layout of " #type)
#else
#define CK_SIZE(type, bytes) _Static_assert(sizeof(type) == bytes, "the layout of " #type)
#endif
CK_SIZE(ck_slice, 16);
CK_SIZE(ck_buf, 40);
CK_SIZE(ck_result, 288);
CK_SIZE(ck_log_id, 24);
CK_SIZE(ck_state, 56);
CK_SIZE(ck_segment, 40);
CK_SIZE(ck_usage, 48);
CK_SIZE(ck_start_args, 40);
CK_SIZE(ck_engine_info, 24);
CK_SIZE(ck_log_args, 48);
CK_SIZE(ck_log_info, 24);
CK_SIZE(ck_append_args, 56);
CK_SIZE(ck_read_args, 32);
CK_SIZE(ck_meta, 32);
CK_SIZE(ck_host, 64);
CK_SIZE(ck_plugin, 248);

#ifdef __cplusplus
}
#endif
#endif
