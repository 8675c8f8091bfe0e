/*
 * A storage engine in plain C: one file of runs per log, and a small file beside it that says what they mean.
 *
 *   NAME.meta            where the log starts, which data file is current, small values; replaced as a whole
 *   NAME.GENERATION.log  frames, one per run: a header with a CRC-32C, then the bytes
 *   NAME.damaged.*       what was set aside of the log, last: files as above, which nobody here reads
 *
 * What must stay true:
 *   - A run is written in the call that appends it: written_end follows end, except behind a reset that is not committed.
 *   - Everything that waits for the disk is a job of the writer thread, and jobs run in the order they were given: so
 *     changes take effect in call order, and many syncs share one fdatasync.
 *   - Reads are jobs of the reader thread.
 *   - .meta is committed by write, fsync, rename, fsync of the directory: all or nothing.
 *   - A log is there if its .meta is. What is set aside has other names before that one goes: all or nothing, too.
 *   - Callbacks are made without a lock held.
 */
#define _GNU_SOURCE
#include "chronik_plugin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define RUN_BYTES_MAX (UINT64_C(64) << 20)
#define READ_BYTES_MAX (UINT64_C(4) << 20) /* one read's, unless its first run is larger */
#define NAME_BYTES 64
#define PARTS_MAX 64 /* slices written at a time */
#define META_MAGIC 0x4154454d
#define FRAME_MAGIC 0x4d415246

static const ck_host *host;

/* ---- CRC-32C (RFC 3720), by table ---- */

static uint32_t crc_table[256];

static void crc_prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
        crc_table[byte] = crc;
    }
}

static uint32_t crc_add(uint32_t crc, const void *bytes, size_t len) {
    const uint8_t *at = bytes;
    crc = ~crc;
    while (len--) crc = crc >> 8 ^ crc_table[(uint8_t)crc ^ *at++];
    return ~crc;
}

/* ---- What is stored ---- */

typedef struct frame {
    uint32_t magic;
    uint32_t crc; /* of the header from len on, and the bytes */
    uint32_t len;
    int32_t epoch;
    int64_t base;
    int64_t next;
    int64_t max_timestamp;
} frame;

#define CRC_FROM offsetof(frame, len)

typedef struct run {
    int64_t base, next, max_timestamp;
    uint64_t at; /* of its frame in the file */
    uint32_t len;
    int32_t epoch;
} run;

typedef struct value {
    struct value *after;
    uint8_t *key, *bytes;
    uint64_t key_len, len;
} value;

/* The head of .meta; the values follow, each as two lengths and the bytes. */
typedef struct meta_head {
    uint32_t magic;
    uint32_t crc; /* of the rest of the file, with this zero */
    int64_t start;
    uint64_t generation;
    uint64_t first_at; /* where the first run's frame lies */
    uint64_t clean_at; /* up to here the file was whole when the log was last closed */
    int32_t start_epoch;
    uint32_t values;
} meta_head;

/* ---- What runs ---- */

typedef struct engine engine;
typedef struct entry entry;

typedef struct plain_log {
    pthread_mutex_t lock;
    engine *engine;
    entry *entry;
    char name[NAME_BYTES];
    int fd;
    run *runs; /* those that reach past start, in order */
    size_t count, room;
    uint64_t end_at, first_at, clean_at, generation;
    int64_t start, end, written_end, durable_end, max_timestamp;
    int32_t start_epoch;
    uint64_t cuts;      /* truncations and resets: what a sync began with may be gone */
    uint64_t meta_wanted, meta_committed;
    unsigned uncommitted_resets;
    value *values;
    bool closed;
    bool failed;
    char why[CK_TEXT_BYTES];
} plain_log;

/* A log there is, open or not. */
struct entry {
    entry *after;
    ck_log_id id;
    char name[NAME_BYTES];
    uint64_t bytes;
};

typedef enum job_kind { JOB_SYNC, JOB_COMMIT, JOB_WRITTEN, JOB_CLOSE, JOB_READ } job_kind;

typedef struct job {
    struct job *after;
    job_kind kind;
    plain_log *log;
    uint64_t context;
    int64_t upto;
    uint64_t meta; /* JOB_COMMIT: at least this version */
    int old_fd;    /* JOB_COMMIT of a reset: closed and removed after it; -1: none */
    uint64_t old_generation;
    bool flush; /* JOB_COMMIT: the file's length has changed, too */
    bool is_reset;
    ck_read_args range;
} job;

typedef struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    job *first, **last;
    bool stop;
    void (*run)(job *);
} worker;

struct engine {
    char *directory;
    int directory_fd, lock_fd;
    pthread_mutex_t lock; /* of entries */
    entry *entries;
    worker writer, reader;
};

static void say_why(ck_result *result, const char *what, int error) {
    char text[CK_TEXT_BYTES];
    int len = error ? snprintf(text, sizeof text, "%s: %s", what, strerror(error)) : snprintf(text, sizeof text, "%s", what);
    if (len > (int)sizeof text - 1) len = sizeof text - 1;
    memcpy(result->text, text, (size_t)len);
    result->text_len = (uint32_t)len;
}

static int status_of(int error) { return error == ENOSPC || error == EDQUOT ? CK_FULL : CK_IO; }

/* With the lock held: the log serves no more changes until it is opened again. */
static void log_fail(plain_log *log, const char *what, int error) {
    if (log->failed) return;
    log->failed = true;
    snprintf(log->why, sizeof log->why, "%s: %s", what, strerror(error));
}

static int failed(plain_log *log, ck_result *result) {
    say_why(result, log->why, 0);
    return CK_FAILED;
}

static int out_of_range(plain_log *log, ck_result *result) {
    result->offset = log->start;
    result->next_offset = log->end;
    return CK_OUT_OF_RANGE;
}

/* ---- Jobs ---- */

static void complete(uint64_t context, int status, ck_result *result) {
    result->struct_size = sizeof *result;
    result->status = status;
    host->complete(context, result);
}

static bool give(worker *to, job given) {
    job *mine = malloc(sizeof *mine);
    if (!mine) return false;
    *mine = given;
    mine->after = NULL;
    pthread_mutex_lock(&to->lock);
    *to->last = mine;
    to->last = &mine->after;
    pthread_cond_signal(&to->changed);
    pthread_mutex_unlock(&to->lock);
    return true;
}

static void *work(void *of) {
    worker *self = of;
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (!self->first && !self->stop) pthread_cond_wait(&self->changed, &self->lock);
        job *next = self->first;
        if (!next) break;
        self->first = next->after;
        if (!self->first) self->last = &self->first;
        pthread_mutex_unlock(&self->lock);
        self->run(next);
        free(next);
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static bool worker_start(worker *self, void (*run)(job *)) {
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    self->last = &self->first;
    self->run = run;
    /* Signals are the broker's: the thread inherits a mask that blocks all. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&self->thread, NULL, work, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0;
}

static void worker_end(worker *self) {
    pthread_mutex_lock(&self->lock);
    self->stop = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
}

/* ---- .meta ---- */

static void data_name(char *into, size_t room, const char *name, uint64_t generation) {
    snprintf(into, room, "%s.%llu.log", name, (unsigned long long)generation);
}

static bool write_all(int fd, const uint8_t *bytes, size_t len) {
    while (len) {
        ssize_t wrote = write(fd, bytes, len);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return false;
        bytes += wrote;
        len -= (size_t)wrote;
    }
    return true;
}

/* With the log's lock held: what .meta should hold now. */
static uint8_t *meta_bytes(plain_log *log, size_t *len) {
    meta_head head = {.magic = META_MAGIC, .start = log->start, .generation = log->generation, .first_at = log->first_at,
                      .clean_at = log->clean_at, .start_epoch = log->start_epoch};
    *len = sizeof head;
    for (value *each = log->values; each; each = each->after) {
        head.values++;
        *len += 16 + each->key_len + each->len;
    }
    uint8_t *bytes = malloc(*len), *at = bytes + sizeof head;
    if (!bytes) return NULL;
    for (value *each = log->values; each; each = each->after) {
        memcpy(at, &each->key_len, 8);
        memcpy(at + 8, &each->len, 8);
        memcpy(at + 16, each->key, each->key_len);
        if (each->len) memcpy(at + 16 + each->key_len, each->bytes, each->len);
        at += 16 + each->key_len + each->len;
    }
    memcpy(bytes, &head, sizeof head);
    head.crc = crc_add(0, bytes, *len);
    memcpy(bytes, &head, sizeof head);
    return bytes;
}

/* Commits what .meta should hold, as of now. Returns errno. Only the writer thread, or nobody else at all. */
static int meta_commit(plain_log *log) {
    engine *engine = log->engine;
    pthread_mutex_lock(&log->lock);
    size_t len;
    uint64_t version = log->meta_wanted;
    uint8_t *bytes = meta_bytes(log, &len);
    pthread_mutex_unlock(&log->lock);
    if (!bytes) return ENOMEM;
    char name[NAME_BYTES + 8], fresh[NAME_BYTES + 8];
    snprintf(name, sizeof name, "%s.meta", log->name);
    snprintf(fresh, sizeof fresh, "%s.new", log->name);
    int fd = openat(engine->directory_fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640), error = 0;
    if (fd < 0 || !write_all(fd, bytes, len) || fsync(fd) || renameat(engine->directory_fd, fresh, engine->directory_fd, name) ||
        fsync(engine->directory_fd))
        error = errno ? errno : EIO;
    if (fd >= 0) close(fd);
    free(bytes);
    if (!error) {
        pthread_mutex_lock(&log->lock);
        if (log->meta_committed < version) log->meta_committed = version;
        pthread_mutex_unlock(&log->lock);
    }
    return error;
}

static value **value_at(plain_log *log, const uint8_t *key, uint64_t len) {
    value **at = &log->values;
    while (*at && !((*at)->key_len == len && memcmp((*at)->key, key, len) == 0)) at = &(*at)->after;
    return at;
}

static void value_free(value *gone) {
    free(gone->key);
    free(gone->bytes);
    free(gone);
}

static bool value_set(plain_log *log, ck_slice key, ck_slice to) {
    value **at = value_at(log, key.at, key.len), *old = *at;
    if (old) {
        *at = old->after;
        value_free(old);
    }
    if (to.len == CK_NO_VALUE) return true;
    value *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return false;
    *fresh = (value){.after = log->values, .key = malloc(key.len + 1), .bytes = malloc(to.len + 1), .key_len = key.len, .len = to.len};
    if (!fresh->key || !fresh->bytes) return value_free(fresh), false;
    if (key.len) memcpy(fresh->key, key.at, key.len);
    if (to.len) memcpy(fresh->bytes, to.at, to.len);
    log->values = fresh;
    return true;
}

/* ---- The index ---- */

static bool index_add(plain_log *log, run one) {
    if (log->count == log->room) {
        size_t room = log->room ? log->room * 2 : 64;
        run *runs = realloc(log->runs, room * sizeof *runs);
        if (!runs) return false;
        log->runs = runs;
        log->room = room;
    }
    log->runs[log->count++] = one;
    return true;
}

static void find_greatest_timestamp(plain_log *log) {
    log->max_timestamp = CK_NONE;
    for (size_t i = 0; i < log->count; i++)
        if (log->runs[i].max_timestamp > log->max_timestamp) log->max_timestamp = log->runs[i].max_timestamp;
}

/* The first run that reaches past the offset; count if none does. */
static size_t index_find(plain_log *log, int64_t offset) {
    size_t low = 0, high = log->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].next > offset) high = middle;
        else low = middle + 1;
    }
    return low;
}

static int32_t last_epoch(plain_log *log) { return log->count ? log->runs[log->count - 1].epoch : log->start_epoch; }

static void occupies(plain_log *log) {
    pthread_mutex_lock(&log->engine->lock);
    if (log->entry) log->entry->bytes = log->end_at - log->first_at;
    pthread_mutex_unlock(&log->engine->lock);
}

/* ---- The writer's jobs ---- */

static void do_sync(job *of) {
    plain_log *log = of->log;
    ck_result result = {0};
    int status = CK_OK;
    pthread_mutex_lock(&log->lock);
    for (;;) {
        int64_t wanted = of->upto < log->end ? of->upto : log->end;
        if (log->failed) {
            status = failed(log, &result);
            break;
        }
        if (log->durable_end >= wanted) {
            result.offset = log->durable_end;
            break;
        }
        int64_t end = log->end;
        uint64_t cuts = log->cuts;
        int fd = log->fd; /* only this thread closes it */
        pthread_mutex_unlock(&log->lock);
        int error = fdatasync(fd) ? errno : 0;
        pthread_mutex_lock(&log->lock);
        if (error) log_fail(log, "fdatasync", error);
        /* If something was cut off meanwhile, nobody knows which of it was synced: once more. */
        /* Moving the start may have made more durable: what was cut away needs no disk. */
        else if (log->cuts == cuts && log->durable_end < end) log->durable_end = end;
    }
    pthread_mutex_unlock(&log->lock);
    complete(of->context, status, &result);
}

static void do_commit(job *of) {
    plain_log *log = of->log;
    ck_result result = {0};
    pthread_mutex_lock(&log->lock);
    bool committed = log->meta_committed >= of->meta, broken = log->failed;
    int fd = log->fd;
    pthread_mutex_unlock(&log->lock);
    int error = 0;
    if (!broken && of->flush && fdatasync(fd)) error = errno;
    if (!broken && !error && !committed) error = meta_commit(log);
    pthread_mutex_lock(&log->lock);
    if (error) log_fail(log, "committing a change", error);
    if (of->is_reset) log->uncommitted_resets--;
    int status = log->failed ? failed(log, &result) : CK_OK;
    uint64_t first_at = log->first_at;
    fd = log->fd;
    pthread_mutex_unlock(&log->lock);
    if (of->old_fd >= 0) {
        char name[NAME_BYTES + 32];
        data_name(name, sizeof name, log->name, of->old_generation);
        close(of->old_fd);
        if (status == CK_OK) unlinkat(log->engine->directory_fd, name, 0);
    }
#ifdef FALLOC_FL_PUNCH_HOLE
    /* Space before the first run goes back to the file system; it is only space if that cannot be. */
    if (status == CK_OK && first_at) (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)first_at);
#endif
    complete(of->context, status, &result);
}

/* An append behind a reset: it is written once the reset is. */
static void do_written(job *of) {
    plain_log *log = of->log;
    ck_result result = {0};
    pthread_mutex_lock(&log->lock);
    int status = log->failed ? failed(log, &result) : CK_OK;
    if (!log->uncommitted_resets) log->written_end = log->end;
    result.offset = log->written_end > of->upto ? log->written_end : of->upto;
    pthread_mutex_unlock(&log->lock);
    complete(of->context, status, &result);
}

static void do_close(job *of) {
    plain_log *log = of->log;
    ck_result result = {0};
    int status = CK_OK;
    pthread_mutex_lock(&log->lock);
    if (!log->failed && fdatasync(log->fd)) log_fail(log, "fdatasync", errno);
    if (!log->failed) {
        log->written_end = log->durable_end = log->end;
        log->clean_at = log->end_at;
        log->meta_wanted++;
    }
    bool broken = log->failed;
    pthread_mutex_unlock(&log->lock);
    int error = broken ? 0 : meta_commit(log);
    pthread_mutex_lock(&log->lock);
    if (error) log_fail(log, "committing the close", error);
    if (log->failed) status = failed(log, &result);
    pthread_mutex_unlock(&log->lock);
    complete(of->context, status, &result);
}

static void writer_run(job *of) {
    switch (of->kind) {
    case JOB_SYNC: do_sync(of); break;
    case JOB_COMMIT: do_commit(of); break;
    case JOB_WRITTEN: do_written(of); break;
    case JOB_CLOSE: do_close(of); break;
    case JOB_READ: break;
    }
}

/* A log closes when it has no reads any more: the close goes through the reader's jobs, behind them, to the writer's. */
static void pass_close(job *of) {
    ck_result result = {0};
    if (give(&of->log->engine->writer, *of)) return;
    say_why(&result, "no memory for closing the log", 0);
    complete(of->context, CK_FAILED, &result);
}

/* ---- The reader's ---- */

typedef struct handed {
    ck_slice *slices;
    uint8_t *bytes;
} handed;

static void handed_release(void *owner) {
    handed *gone = owner;
    free(gone->slices);
    free(gone->bytes);
    free(gone);
}

static void do_read(job *of) {
    plain_log *log = of->log;
    ck_result result = {0};
    int status = CK_OK, fd = -1;
    run *wanted = NULL;
    handed *out = calloc(1, sizeof *out);
    size_t count = 0;

    pthread_mutex_lock(&log->lock);
    int64_t from = of->range.from;
    size_t first = index_find(log, from);
    if (from < log->start || from > log->end) {
        status = out_of_range(log, &result);
    } else {
        uint64_t bytes = 0;
        for (size_t i = first; i < log->count && log->runs[i].next <= of->range.upto; i++, count++) {
            bytes += log->runs[i].len;
            bool alone = count == 0 && of->range.min_one;
            if (!alone && (bytes > of->range.max_bytes || (count && bytes > READ_BYTES_MAX))) break;
        }
        wanted = malloc((count + 1) * sizeof *wanted);
        if (wanted && count) memcpy(wanted, log->runs + first, count * sizeof *wanted);
        if (!wanted || !out) status = CK_IO;
        /* A reset may close the file meanwhile: a descriptor of our own. */
        else if (count && (fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 3)) < 0) status = CK_IO;
        result.offset = count ? log->runs[first].base : from;
        result.next_offset = count ? log->runs[first + count - 1].next : from;
    }
    pthread_mutex_unlock(&log->lock);

    if (status == CK_OK && count) {
        uint64_t at = wanted[0].at, len = wanted[count - 1].at + sizeof(frame) + wanted[count - 1].len - at;
        out->bytes = malloc(len);
        out->slices = malloc(count * sizeof *out->slices);
        uint64_t got = 0;
        while (out->bytes && out->slices && got < len) {
            ssize_t some = pread(fd, out->bytes + got, len - got, (off_t)(at + got));
            if (some < 0 && errno == EINTR) continue;
            if (some <= 0) break;
            got += (uint64_t)some;
        }
        if (got < len) status = CK_IO, say_why(&result, "reading", errno);
        for (size_t i = 0; status == CK_OK && i < count; i++) {
            uint8_t *here = out->bytes + (wanted[i].at - at);
            frame head;
            memcpy(&head, here, sizeof head);
            if (head.base != wanted[i].base || head.len != wanted[i].len ||
                head.crc != crc_add(0, here + CRC_FROM, sizeof head - CRC_FROM + head.len)) {
                /* Or it was cut off while we read, and overwritten. */
                pthread_mutex_lock(&log->lock);
                size_t now = index_find(log, wanted[i].base);
                bool still = now < log->count && log->runs[now].base == wanted[i].base && log->runs[now].at == wanted[i].at;
                if (still) {
                    status = CK_CORRUPT;
                    say_why(&result, "a run's checksum is wrong", 0);
                    result.offset = wanted[i].base;
                } else {
                    status = out_of_range(log, &result);
                }
                pthread_mutex_unlock(&log->lock);
            }
            out->slices[i] = (ck_slice){here + sizeof head, wanted[i].len};
        }
        if (status == CK_OK) {
            result.buf = (ck_buf){out->slices, count, len, out, handed_release};
            out = NULL;
        }
    }
    if (fd >= 0) close(fd);
    free(wanted);
    if (out) handed_release(out);
    complete(of->context, status, &result);
}

static void reader_run(job *of) {
    if (of->kind == JOB_CLOSE) pass_close(of);
    else do_read(of);
}

/* ---- Calls on a log ---- */

static void log_state(void *handle, ck_state *state) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    *state = (ck_state){sizeof *state, last_epoch(log), log->start, log->end, log->written_end, log->durable_end,
                        log->end_at - log->first_at, log->max_timestamp};
    pthread_mutex_unlock(&log->lock);
}

/* Writes a frame at the end of the file. Returns errno. */
static int write_frame(plain_log *log, const frame *head, const ck_append_args *args) {
    struct iovec parts[PARTS_MAX];
    uint64_t at = log->end_at, next = 0;
    bool head_done = false;
    size_t skip = 0; /* bytes of the first part that are written already */
    while (!head_done || next < args->slices_len) {
        int count = 0;
        if (!head_done) parts[count++] = (struct iovec){(void *)head, sizeof *head};
        for (uint64_t i = next; i < args->slices_len && count < PARTS_MAX; i++)
            parts[count++] = (struct iovec){(void *)args->slices[i].at, args->slices[i].len};
        parts[0].iov_base = (uint8_t *)parts[0].iov_base + skip;
        parts[0].iov_len -= skip;
        ssize_t wrote = pwritev(log->fd, parts, count, (off_t)at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        at += (uint64_t)wrote;
        size_t left = (size_t)wrote;
        for (int i = 0; i < count; i++) {
            if (left < parts[i].iov_len) {
                skip = i ? left : skip + left;
                break;
            }
            left -= parts[i].iov_len;
            skip = 0;
            if (!head_done) head_done = true;
            else next++;
        }
    }
    return 0;
}

static int32_t append(void *handle, const ck_append_args *args, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    if (args->bytes > RUN_BYTES_MAX) {
        result->value = RUN_BYTES_MAX;
        return CK_TOO_LARGE;
    }
    pthread_mutex_lock(&log->lock);
    int status = CK_OK;
    if (log->failed) {
        status = failed(log, result);
    } else if (args->base < log->end || args->next_offset <= args->base) {
        result->offset = log->end;
        status = CK_OUT_OF_ORDER;
    } else if (args->epoch < last_epoch(log)) {
        result->value = (uint64_t)last_epoch(log);
        status = CK_FENCED;
    } else {
        frame head = {FRAME_MAGIC, 0, (uint32_t)args->bytes, args->epoch, args->base, args->next_offset, args->max_timestamp};
        head.crc = crc_add(0, (uint8_t *)&head + CRC_FROM, sizeof head - CRC_FROM);
        for (uint64_t i = 0; i < args->slices_len; i++) head.crc = crc_add(head.crc, args->slices[i].at, args->slices[i].len);
        run one = {args->base, args->next_offset, args->max_timestamp, log->end_at, head.len, args->epoch};
        int error = index_add(log, one) ? 0 : ENOMEM;
        if (!error && (error = write_frame(log, &head, args))) {
            log->count--;
            /* What was half written must not be taken for a run later. */
            if (ftruncate(log->fd, (off_t)log->end_at)) log_fail(log, "taking back a half written run", errno);
        }
        if (error == ENOSPC || error == EDQUOT) {
            status = log->failed ? failed(log, result) : CK_FULL;
        } else if (error) {
            log_fail(log, "writing", error);
            status = failed(log, result);
        } else {
            log->end_at += sizeof head + head.len;
            log->end = args->next_offset;
            if (args->max_timestamp > log->max_timestamp) log->max_timestamp = args->max_timestamp;
            if (log->uncommitted_resets) {
                job later = {.kind = JOB_WRITTEN, .log = log, .context = context, .upto = log->end, .old_fd = -1};
                status = CK_PENDING;
                if (!give(&log->engine->writer, later)) {
                    log_fail(log, "queueing", ENOMEM);
                    status = failed(log, result);
                }
            } else {
                log->written_end = log->end;
                result->offset = log->end;
            }
        }
    }
    pthread_mutex_unlock(&log->lock);
    occupies(log);
    return status;
}

/* With the lock held: gives the writer a job for this call. */
static int later(plain_log *log, worker *to, job given, ck_result *result) {
    if (give(to, given)) return CK_PENDING;
    log_fail(log, "queueing", ENOMEM);
    return failed(log, result);
}

static int32_t sync_log(void *handle, int64_t upto, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    job given = {.kind = JOB_SYNC, .log = log, .context = context, .upto = upto, .old_fd = -1};
    int status = log->failed ? failed(log, result) : later(log, &log->engine->writer, given, result);
    pthread_mutex_unlock(&log->lock);
    return status;
}

static int32_t read_log(void *handle, const ck_read_args *args, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    job given = {.kind = JOB_READ, .log = log, .context = context, .range = *args, .old_fd = -1};
    if (give(&log->engine->reader, given)) return CK_PENDING;
    say_why(result, "queueing", ENOMEM);
    return CK_IO;
}

static int32_t truncate_suffix(void *handle, int64_t from, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    int status;
    size_t first = index_find(log, from);
    bool inside = first < log->count && log->runs[first].base < from && from != log->start;
    if (log->failed) {
        status = failed(log, result);
    } else if (from < log->start || from > log->end || inside) {
        status = out_of_range(log, result);
    } else {
        if (first < log->count) {
            uint64_t at = log->runs[first].at;
            if (ftruncate(log->fd, (off_t)at)) {
                log_fail(log, "ftruncate", errno);
            } else {
                log->count = first;
                log->end_at = at;
                log->end = first && log->runs[first - 1].next > log->start ? log->runs[first - 1].next : log->start;
                if (log->written_end > log->end) log->written_end = log->end;
                if (log->durable_end > log->end) log->durable_end = log->end;
                log->cuts++;
                find_greatest_timestamp(log);
            }
        }
        job given = {.kind = JOB_COMMIT, .log = log, .context = context, .meta = log->meta_wanted, .old_fd = -1, .flush = true};
        status = log->failed ? failed(log, result) : later(log, &log->engine->writer, given, result);
    }
    pthread_mutex_unlock(&log->lock);
    occupies(log);
    return status;
}

static int32_t truncate_prefix(void *handle, int64_t upto, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    int status;
    if (log->failed) {
        status = failed(log, result);
    } else if (upto > log->end) {
        status = out_of_range(log, result);
    } else {
        if (upto > log->start) {
            size_t first = index_find(log, upto);
            for (size_t i = log->count; i-- > 0;)
                if (log->runs[i].base < upto) {
                    log->start_epoch = log->runs[i].epoch;
                    break;
                }
            log->first_at = first < log->count ? log->runs[first].at : log->end_at;
            if (first) memmove(log->runs, log->runs + first, (log->count - first) * sizeof *log->runs);
            log->count -= first;
            log->start = upto;
            if (log->written_end < upto) log->written_end = upto;
            if (log->durable_end < upto) log->durable_end = upto;
            find_greatest_timestamp(log);
            log->meta_wanted++;
        }
        job given = {.kind = JOB_COMMIT, .log = log, .context = context, .meta = log->meta_wanted, .old_fd = -1};
        status = later(log, &log->engine->writer, given, result);
    }
    pthread_mutex_unlock(&log->lock);
    occupies(log);
    return status;
}

static int open_data(engine *engine, const char *name, uint64_t generation, int flags) {
    char file[NAME_BYTES + 32];
    data_name(file, sizeof file, name, generation);
    return openat(engine->directory_fd, file, O_RDWR | O_CLOEXEC | flags, 0640);
}

static int32_t reset(void *handle, int64_t start, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    int status;
    int fd = log->failed ? -1 : open_data(log->engine, log->name, log->generation + 1, O_CREAT | O_TRUNC);
    if (log->failed) {
        status = failed(log, result);
    } else if (fd < 0) {
        status = status_of(errno);
        say_why(result, "making a file", errno);
    } else {
        job given = {.kind = JOB_COMMIT, .log = log, .context = context, .old_fd = log->fd, .old_generation = log->generation,
                     .is_reset = true};
        log->fd = fd;
        log->generation++;
        log->count = 0;
        log->end_at = log->first_at = log->clean_at = 0;
        log->start = log->end = log->written_end = log->durable_end = start;
        log->start_epoch = 0;
        log->max_timestamp = CK_NONE;
        log->cuts++;
        log->uncommitted_resets++;
        given.meta = ++log->meta_wanted;
        status = later(log, &log->engine->writer, given, result);
    }
    pthread_mutex_unlock(&log->lock);
    occupies(log);
    return status;
}

static int32_t offset_for_timestamp(void *handle, int64_t time, uint64_t context, ck_result *result) {
    (void)context;
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    result->offset = CK_NONE;
    for (size_t i = 0; i < log->count; i++)
        if (log->runs[i].max_timestamp >= time) {
            result->offset = log->runs[i].base;
            break;
        }
    pthread_mutex_unlock(&log->lock);
    return CK_OK;
}

static int32_t meta_put(void *handle, const ck_meta *entries, uint64_t len, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    for (uint64_t i = 0; i < len && !log->failed; i++)
        if (!value_set(log, entries[i].key, entries[i].value)) log_fail(log, "keeping a value", ENOMEM);
    job given = {.kind = JOB_COMMIT, .log = log, .context = context, .meta = ++log->meta_wanted, .old_fd = -1};
    int status = log->failed ? failed(log, result) : later(log, &log->engine->writer, given, result);
    pthread_mutex_unlock(&log->lock);
    return status;
}

static int32_t meta_get(void *handle, const ck_slice *key, uint64_t context, ck_result *result) {
    (void)context;
    plain_log *log = handle;
    pthread_mutex_lock(&log->lock);
    value *found = *value_at(log, key->at, key->len);
    int status = CK_OK;
    if (found) {
        handed *out = calloc(1, sizeof *out);
        ck_slice *slices = malloc(sizeof *slices);
        uint8_t *bytes = malloc(found->len + 1);
        if (!out || !slices || !bytes) {
            free(out), free(slices), free(bytes);
            status = CK_IO;
        } else {
            memcpy(bytes, found->bytes, found->len);
            *slices = (ck_slice){bytes, found->len};
            *out = (handed){slices, bytes};
            result->value = 1;
            result->buf = (ck_buf){slices, 1, found->len, out, handed_release};
        }
    }
    pthread_mutex_unlock(&log->lock);
    return status;
}

static int32_t log_close(void *handle, uint64_t context, ck_result *result) {
    plain_log *log = handle;
    job given = {.kind = JOB_CLOSE, .log = log, .context = context, .old_fd = -1};
    pthread_mutex_lock(&log->lock);
    int status = later(log, &log->engine->reader, given, result);
    pthread_mutex_unlock(&log->lock);
    return status;
}

/* Perhaps after the engine: touches nothing of it. */
static void log_release(void *handle) {
    plain_log *log = handle;
    if (log->fd >= 0) close(log->fd);
    while (log->values) {
        value *gone = log->values;
        log->values = gone->after;
        value_free(gone);
    }
    free(log->runs);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* ---- Opening ---- */

static uint8_t *slurp(engine *engine, const char *name, size_t *len) {
    int fd = openat(engine->directory_fd, name, O_RDONLY | O_CLOEXEC);
    struct stat is;
    uint8_t *bytes = NULL;
    if (fd >= 0 && fstat(fd, &is) == 0 && (bytes = malloc((size_t)is.st_size + 1))) {
        *len = (size_t)is.st_size;
        if (pread(fd, bytes, *len, 0) != (ssize_t)*len) free(bytes), bytes = NULL;
    }
    if (fd >= 0) close(fd);
    return bytes;
}

static bool meta_load(plain_log *log) {
    char name[NAME_BYTES + 8];
    snprintf(name, sizeof name, "%s.meta", log->name);
    size_t len = 0;
    uint8_t *bytes = slurp(log->engine, name, &len);
    meta_head head;
    bool good = bytes && len >= sizeof head;
    if (good) {
        memcpy(&head, bytes, sizeof head);
        uint32_t crc = head.crc;
        memset(bytes + offsetof(meta_head, crc), 0, sizeof crc);
        good = head.magic == META_MAGIC && crc == crc_add(0, bytes, len);
    }
    if (good) {
        log->start = head.start;
        log->generation = head.generation;
        log->first_at = head.first_at;
        log->clean_at = head.clean_at;
        log->start_epoch = head.start_epoch;
        size_t at = sizeof head;
        /* In the order in which they are pushed to the front, they come out reversed: that does not matter. */
        for (uint32_t i = 0; good && i < head.values; i++) {
            uint64_t key_len, value_len;
            good = len - at >= 16;
            if (!good) break;
            memcpy(&key_len, bytes + at, 8);
            memcpy(&value_len, bytes + at + 8, 8);
            at += 16;
            good = key_len <= len - at && value_len <= len - at - key_len &&
                   value_set(log, (ck_slice){bytes + at, key_len}, (ck_slice){bytes + at + key_len, value_len});
            at += key_len + value_len;
        }
    }
    free(bytes);
    return good;
}

/* Reads the data file, and cuts off what follows the last whole run. */
static int data_load(plain_log *log, ck_result *result) {
    struct stat is;
    if (fstat(log->fd, &is)) return CK_IO;
    uint64_t at = log->first_at, size = (uint64_t)is.st_size;
    uint8_t *bytes = NULL;
    int status = CK_OK;
    log->end = log->start;
    while (at < size) {
        frame head;
        bool whole = size - at >= sizeof head && pread(log->fd, &head, sizeof head, (off_t)at) == (ssize_t)sizeof head &&
                     head.magic == FRAME_MAGIC && head.len <= RUN_BYTES_MAX && head.len <= size - at - sizeof head;
        if (whole) {
            uint8_t *larger = realloc(bytes, head.len + 1);
            if (!larger) {
                status = CK_IO;
                break;
            }
            bytes = larger;
            uint32_t crc = crc_add(0, (uint8_t *)&head + CRC_FROM, sizeof head - CRC_FROM);
            whole = pread(log->fd, bytes, head.len, (off_t)(at + sizeof head)) == (ssize_t)head.len &&
                    crc_add(crc, bytes, head.len) == head.crc && head.next > head.base && (!log->count || head.base >= log->end);
        }
        if (!whole) {
            if (at < log->clean_at) {
                status = CK_CORRUPT;
                result->offset = log->end;
                say_why(result, "a run is damaged that was whole when the log was closed", 0);
            } else if (ftruncate(log->fd, (off_t)at) || fdatasync(log->fd)) {
                status = CK_IO;
                say_why(result, "cutting off a torn tail", errno);
            }
            break;
        }
        if (head.next > log->start) {
            run one = {head.base, head.next, head.max_timestamp, at, head.len, head.epoch};
            if (!index_add(log, one)) {
                status = CK_IO;
                break;
            }
            log->end = head.next;
        }
        at += sizeof head + head.len;
    }
    free(bytes);
    if (log->first_at > at) log->first_at = at;
    log->end_at = at;
    find_greatest_timestamp(log);
    /* What is there may only be with the operating system: a sync makes it what we say it is. */
    if (status == CK_OK && fdatasync(log->fd)) status = CK_IO;
    log->written_end = log->durable_end = log->end;
    return status;
}

static void name_of(const ck_log_id *id, char *into) {
    for (int i = 0; i < 16; i++) sprintf(into + 2 * i, "%02x", id->topic[i]);
    snprintf(into + 32, NAME_BYTES - 32, "-%d", (int)id->partition);
}

/* With the engine's lock held. In the order that engine_list gives: as ids compare, not as names do. */
static entry **entry_at(engine *engine, const ck_log_id *id) {
    entry **at = &engine->entries;
    for (; *at; at = &(*at)->after) {
        int topics = memcmp((*at)->id.topic, id->topic, 16);
        if (topics > 0 || (topics == 0 && (*at)->id.partition >= id->partition)) break;
    }
    return at;
}

static bool is_entry(entry *one, const ck_log_id *id) {
    return one && one->id.partition == id->partition && memcmp(one->id.topic, id->topic, 16) == 0;
}

static entry *entry_add(engine *engine, const ck_log_id *id) {
    pthread_mutex_lock(&engine->lock);
    entry **at = entry_at(engine, id), *one = *at;
    if (!is_entry(one, id)) {
        one = calloc(1, sizeof *one);
        if (one) {
            one->after = *at;
            one->id = *id;
            name_of(id, one->name);
            *at = one;
        }
    }
    pthread_mutex_unlock(&engine->lock);
    return one;
}

/* What is done to a data file of a log. Returns errno. */
typedef int data_act(engine *of, const char *file, const char *name, uint64_t generation, uint64_t but);

/* Does something to each data file of a log. Returns errno, the first if there are several. */
static int each_data(engine *engine, const char *name, data_act *act, uint64_t but) {
    DIR *files = opendir(engine->directory);
    if (!files) return errno;
    size_t len = strlen(name);
    int error = 0;
    for (struct dirent *file; (file = readdir(files));) {
        unsigned long long generation;
        char after[8];
        if (strncmp(file->d_name, name, len) || file->d_name[len] != '.') continue;
        if (sscanf(file->d_name + len, ".%llu.%7s", &generation, after) != 2 || strcmp(after, "log")) continue;
        int failure = act(engine, file->d_name, name, generation, but);
        if (!error) error = failure;
    }
    closedir(files);
    return error;
}

static int remove_one(engine *engine, const char *file, const char *name, uint64_t generation, uint64_t but) {
    (void)name;
    return generation != but && unlinkat(engine->directory_fd, file, 0) ? errno : 0;
}

static int link_aside(engine *engine, const char *file, const char *name, uint64_t generation, uint64_t but) {
    (void)but;
    char aside[NAME_BYTES + 40];
    snprintf(aside, sizeof aside, "%s.damaged.%llu.log", name, (unsigned long long)generation);
    return linkat(engine->directory_fd, file, engine->directory_fd, aside, 0) ? errno : 0;
}

/* Removes data files of a log, but for one generation's; all if it is UINT64_MAX. */
static int remove_data(engine *engine, const char *name, uint64_t but) { return each_data(engine, name, remove_one, but); }

/* Removes what was set aside of a log. Returns errno. */
static int remove_aside(engine *engine, const char *name) {
    char aside[NAME_BYTES + 16], meta[NAME_BYTES + 24];
    snprintf(aside, sizeof aside, "%s.damaged", name);
    snprintf(meta, sizeof meta, "%s.meta", aside);
    int error = remove_data(engine, aside, UINT64_MAX);
    return !error && unlinkat(engine->directory_fd, meta, 0) && errno != ENOENT ? errno : error;
}

static int32_t log_open(void *of, const ck_log_args *args, ck_log_info *info, ck_result *result) {
    engine *engine = of;
    pthread_mutex_lock(&engine->lock);
    bool there = is_entry(*entry_at(engine, &args->id), &args->id);
    pthread_mutex_unlock(&engine->lock);
    if (!there && args->mode == CK_OPEN_EXISTING) return CK_NOT_FOUND;
    if (there && args->mode == CK_OPEN_CREATE_NEW) return CK_ALREADY_EXISTS;

    plain_log *log = calloc(1, sizeof *log);
    if (!log) return CK_IO;
    pthread_mutex_init(&log->lock, NULL);
    log->engine = engine;
    log->fd = -1;
    log->max_timestamp = CK_NONE;
    name_of(&args->id, log->name);
    int status = CK_OK;
    if (there && !meta_load(log)) {
        status = CK_CORRUPT;
        say_why(result, "the log's .meta is damaged", 0);
    }
    if (status == CK_OK) {
        remove_data(engine, log->name, there ? log->generation : UINT64_MAX);
        log->fd = open_data(engine, log->name, log->generation, there ? 0 : O_CREAT | O_EXCL);
        if (log->fd < 0) {
            status = there ? CK_CORRUPT : status_of(errno);
            say_why(result, "opening the data file", errno);
        }
    }
    if (status == CK_OK && there) status = data_load(log, result);
    if (status == CK_OK && there && log->clean_at) {
        /* From now on the file may grow and shrink: what was whole at the last close says nothing any more. */
        log->clean_at = 0;
        int error = meta_commit(log);
        if (error) {
            status = status_of(error);
            say_why(result, "committing the opening", error);
        }
    }
    if (status == CK_OK && !there) {
        int error = fsync(log->fd) ? errno : meta_commit(log);
        if (error) {
            status = status_of(error);
            say_why(result, "making a log", error);
        }
    }
    if (status == CK_OK && !(log->entry = entry_add(engine, &args->id))) status = CK_IO;
    if (status != CK_OK) {
        log_release(log);
        return status;
    }
    occupies(log);
    info->log = log;
    return CK_OK;
}

static int32_t log_delete(void *of, const ck_log_id *id, ck_result *result) {
    engine *engine = of;
    pthread_mutex_lock(&engine->lock);
    entry **at = entry_at(engine, id), *gone = is_entry(*at, id) ? *at : NULL;
    if (gone) *at = gone->after;
    pthread_mutex_unlock(&engine->lock);
    char name[NAME_BYTES], meta[NAME_BYTES + 8];
    name_of(id, name);
    snprintf(meta, sizeof meta, "%s.meta", name);
    int error = 0;
    if (gone) {
        if (unlinkat(engine->directory_fd, meta, 0) && errno != ENOENT) error = errno;
        remove_data(engine, name, UINT64_MAX);
        free(gone);
    }
    int aside = remove_aside(engine, name);
    if (!error) error = aside;
    if (!error && fsync(engine->directory_fd)) error = errno;
    if (error) say_why(result, "deleting a log", error);
    return error ? status_of(error) : gone ? CK_OK : CK_NOT_FOUND;
}

static int32_t log_set_aside(void *of, const ck_log_id *id, ck_result *result) {
    engine *engine = of;
    pthread_mutex_lock(&engine->lock);
    bool there = is_entry(*entry_at(engine, id), id);
    pthread_mutex_unlock(&engine->lock);
    if (!there) return CK_NOT_FOUND;
    char name[NAME_BYTES], meta[NAME_BYTES + 8], aside[NAME_BYTES + 16];
    name_of(id, name);
    snprintf(meta, sizeof meta, "%s.meta", name);
    snprintf(aside, sizeof aside, "%s.damaged.meta", name);
    /* Second names first; with its .meta the log goes, and then the first names only take room. */
    int error = remove_aside(engine, name);
    if (!error) error = each_data(engine, name, link_aside, 0);
    if (!error && fsync(engine->directory_fd)) error = errno;
    if (!error && renameat(engine->directory_fd, meta, engine->directory_fd, aside)) error = errno;
    if (error) {
        say_why(result, "setting a log aside", error);
        return status_of(error);
    }
    pthread_mutex_lock(&engine->lock);
    entry **at = entry_at(engine, id), *gone = *at;
    *at = gone->after;
    pthread_mutex_unlock(&engine->lock);
    free(gone);
    remove_data(engine, name, UINT64_MAX);
    if (fsync(engine->directory_fd)) {
        say_why(result, "setting a log aside", errno);
        return CK_IO;
    }
    char text[CK_TEXT_BYTES];
    snprintf(text, sizeof text, "%s/%s.damaged.*", engine->directory, name);
    say_why(result, text, 0);
    return CK_OK;
}

static int32_t engine_list(void *of, ck_result *result) {
    engine *engine = of;
    pthread_mutex_lock(&engine->lock);
    uint64_t count = 0;
    for (entry *each = engine->entries; each; each = each->after) count++;
    handed *out = calloc(1, sizeof *out);
    ck_slice *slices = malloc(sizeof *slices);
    ck_log_id *ids = malloc((count + 1) * sizeof *ids);
    int status = CK_OK;
    if (!out || !slices || !ids) {
        free(out), free(slices), free(ids);
        status = CK_IO;
    } else {
        uint64_t i = 0;
        for (entry *each = engine->entries; each; each = each->after) ids[i++] = each->id;
        *slices = (ck_slice){(uint8_t *)ids, count * sizeof *ids};
        *out = (handed){slices, (uint8_t *)ids};
        result->buf = (ck_buf){slices, 1, slices->len, out, handed_release};
    }
    pthread_mutex_unlock(&engine->lock);
    return status;
}

static void engine_usage(void *of, ck_usage *usage) {
    engine *engine = of;
    pthread_mutex_lock(&engine->lock);
    for (entry *each = engine->entries; each; each = each->after) {
        usage->logs++;
        usage->bytes += each->bytes;
    }
    pthread_mutex_unlock(&engine->lock);
    struct statvfs device;
    if (statvfs(engine->directory, &device) == 0) {
        usage->has_device = 1;
        usage->device_total_bytes = (uint64_t)device.f_blocks * device.f_frsize;
        usage->device_free_bytes = (uint64_t)device.f_bavail * device.f_frsize;
    }
}

/* The logs there are, by their .meta files. */
static bool find_logs(engine *engine) {
    DIR *files = opendir(engine->directory);
    if (!files) return false;
    for (struct dirent *file; (file = readdir(files));) {
        ck_log_id id = {0};
        int partition, used = 0, digits = 0;
        unsigned byte;
        while (digits < 16 && sscanf(file->d_name + 2 * digits, "%2x", &byte) == 1) id.topic[digits++] = (uint8_t)byte;
        if (digits != 16 || sscanf(file->d_name + 32, "-%d.meta%n", &partition, &used) != 1 || used == 0 || file->d_name[32 + used])
            continue;
        id.partition = partition;
        entry *one = entry_add(engine, &id);
        plain_log probe = {.engine = engine};
        struct stat is;
        int fd = -1;
        if (one) snprintf(probe.name, sizeof probe.name, "%s", one->name);
        if (one && meta_load(&probe) && (fd = open_data(engine, one->name, probe.generation, 0)) >= 0 && fstat(fd, &is) == 0)
            one->bytes = (uint64_t)is.st_size > probe.first_at ? (uint64_t)is.st_size - probe.first_at : 0;
        if (fd >= 0) close(fd);
        while (probe.values) {
            value *gone = probe.values;
            probe.values = gone->after;
            value_free(gone);
        }
    }
    closedir(files);
    return true;
}

static int32_t engine_start(const ck_start_args *args, ck_engine_info *info, ck_result *result) {
    engine *fresh = calloc(1, sizeof *fresh);
    if (!fresh || !(fresh->directory = strndup((const char *)args->directory.at, args->directory.len))) return free(fresh), CK_IO;
    pthread_mutex_init(&fresh->lock, NULL);
    fresh->lock_fd = -1;
    fresh->directory_fd = open(fresh->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fresh->directory_fd >= 0) fresh->lock_fd = openat(fresh->directory_fd, "LOCK", O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    const char *trouble = NULL;
    if (fresh->lock_fd < 0) trouble = "opening the directory";
    else if (flock(fresh->lock_fd, LOCK_EX | LOCK_NB)) trouble = "another engine uses the directory";
    else if (!find_logs(fresh)) trouble = "looking for logs";
    else if (!worker_start(&fresh->writer, writer_run)) trouble = "starting a thread";
    else if (!worker_start(&fresh->reader, reader_run)) {
        trouble = "starting a thread";
        worker_end(&fresh->writer);
    }
    if (trouble) {
        say_why(result, trouble, errno);
        if (fresh->lock_fd >= 0) close(fresh->lock_fd);
        if (fresh->directory_fd >= 0) close(fresh->directory_fd);
        free(fresh->directory);
        free(fresh);
        return CK_IO;
    }
    info->engine = fresh;
    info->survives = CK_SURVIVES_POWER_LOSS;
    info->run_bytes_max = RUN_BYTES_MAX;
    return CK_OK;
}

static int32_t engine_close(void *of, ck_result *result) {
    (void)result;
    engine *gone = of;
    worker_end(&gone->reader);
    worker_end(&gone->writer);
    while (gone->entries) {
        entry *one = gone->entries;
        gone->entries = one->after;
        free(one);
    }
    close(gone->lock_fd);
    close(gone->directory_fd);
    free(gone->directory);
    free(gone);
    return CK_OK;
}

static ck_plugin table = {
    .magic = CK_MAGIC,
    .struct_size = sizeof table,
    .abi_major = CK_ABI_MAJOR,
    .abi_minor = CK_ABI_MINOR,
    .capabilities = CK_CAP_SET_ASIDE,
    .name = {(const uint8_t *)"plain-c", 7},
    .version = {(const uint8_t *)"1.0.0", 5},
    .engine_start = engine_start,
    .engine_close = engine_close,
    .engine_list = engine_list,
    .engine_usage = engine_usage,
    .log_open = log_open,
    .log_delete = log_delete,
    .log_state = log_state,
    .append = append,
    .sync = sync_log,
    .read = read_log,
    .truncate_suffix = truncate_suffix,
    .truncate_prefix = truncate_prefix,
    .reset = reset,
    .offset_for_timestamp = offset_for_timestamp,
    .meta_put = meta_put,
    .meta_get = meta_get,
    .log_close = log_close,
    .log_release = log_release,
    .log_set_aside = log_set_aside,
};

const ck_plugin *chronik_plugin_v1(const ck_host *of) {
    if (of->magic != CK_MAGIC || of->abi_major != CK_ABI_MAJOR) return NULL;
    host = of;
    crc_prepare();
    return &table;
}
