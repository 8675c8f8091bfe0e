/* The engine in plain C with one fault, which its options name: for each class of rules one that must notice. */
#define chronik_plugin_v1 plain_entry
#define fdatasync forgetful_fdatasync
#define fsync forgetful_fsync
#include "plain.c"
#undef chronik_plugin_v1
#undef fdatasync
#undef fsync

#include <locale.h>
#include <time.h>

static char fault[48];
static int running;
static void *first_engine;
static const ck_plugin *right;

static bool is(const char *what) { return strstr(fault, what) != NULL; }

extern int fsync(int), fdatasync(int);
int forgetful_fsync(int fd) { return is("leaves to the kernel") ? 0 : fsync(fd); }
int forgetful_fdatasync(int fd) { return is("leaves to the kernel") ? 0 : fdatasync(fd); }

static void *waits(void *nothing) {
    (void)nothing;
    for (;;) pause();
}

static void handles(int signal) { (void)signal; }

static int32_t wrong_start(const ck_start_args *args, ck_engine_info *info, ck_result *result) {
    snprintf(fault, sizeof fault, "%.*s", (int)args->options.len, (const char *)args->options.at);
    if (is("needs its own sizes") && args->struct_size != sizeof *args) return CK_INVALID;
    if (is("needs a newer host") && host->abi_minor < CK_ABI_MINOR) return CK_INVALID;
    if (is("one engine only") && running++) {
        info->survives = CK_SURVIVES_POWER_LOSS;
        info->engine = first_engine;
        info->run_bytes_max = RUN_BYTES_MAX;
        return CK_OK;
    }
    if (is("takes signals")) {
        sigset_t none;
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        pthread_t thread;
        pthread_create(&thread, NULL, waits, NULL);
    }
    if (is("changes directory") && chdir("/tmp") != 0) return CK_IO;
    if (is("changes the umask")) umask(0);
    if (is("changes the locale")) setlocale(LC_ALL, "C.UTF-8");
    if (is("handles signals")) signal(SIGUSR1, handles);
    if (is("forks")) {
        pid_t child = fork();
        /* Long enough to be seen. */
        if (child == 0) sleep(5), _exit(0);
    }
    if (is("ends the process")) exit(0);
    int32_t status = right->engine_start(args, info, result);
    first_engine = info->engine;
    return status;
}

static int32_t wrong_delete(void *engine, const ck_log_id *id, ck_result *result) {
    return is("deletes nothing") ? CK_OK : right->log_delete(engine, id, result);
}

static int32_t wrong_set_aside(void *engine, const ck_log_id *id, ck_result *result) {
    if (is("sets nothing aside")) return CK_OK;
    if (is("throws away what it sets aside")) return right->log_delete(engine, id, result);
    if (is("opens what it sets aside")) {
        ck_log_args args = {.struct_size = sizeof args, .mode = CK_OPEN_EXISTING, .id = *id};
        ck_log_info info = {.struct_size = sizeof info};
        int32_t status = right->log_open(engine, &args, &info, result);
        if (status != CK_OK) return status;
        right->log_release(info.log);
    }
    if (is("forgets what was set aside")) {
        /* Out of the list, but its files are as they were. */
        struct engine *of = engine;
        pthread_mutex_lock(&of->lock);
        entry **at = entry_at(of, id), *gone = is_entry(*at, id) ? *at : NULL;
        if (gone) *at = gone->after;
        pthread_mutex_unlock(&of->lock);
        free(gone);
        return gone ? CK_OK : CK_NOT_FOUND;
    }
    return right->log_set_aside(engine, id, result);
}

static int32_t wrong_open(void *engine, const ck_log_args *args, ck_log_info *info, ck_result *result) {
    if (is("leaks files")) (void)!open("/dev/null", O_RDONLY);
    int32_t status = right->log_open(engine, args, info, result);
    if (status == CK_OK && is("forgets on opening")) {
        /* In the past of the log that the host is about to see. */
        ck_state state = {.struct_size = sizeof state};
        right->log_state(info->log, &state);
        ck_result none = {.struct_size = sizeof none};
        uint64_t nobody = 0;
        if (state.end > state.start) right->truncate_suffix(info->log, state.start, nobody, &none);
    }
    return status;
}

static int32_t wrong_append(void *log, const ck_append_args *args, uint64_t context, ck_result *result) {
    int32_t status = right->append(log, args, context, result);
    if (status == CK_OUT_OF_ORDER && is("tells a wrong end")) result->offset++;
    if (status == CK_OK && is("crashes")) raise(SIGSEGV);
    if ((status == CK_FAILED || status == CK_FULL) && is("ignores failed writes")) {
        return *result = (ck_result){.struct_size = sizeof *result, .offset = args->next_offset}, CK_OK;
    }
    return status;
}

static int32_t wrong_sync(void *log, int64_t upto, uint64_t context, ck_result *result) {
    if (is("syncs nothing")) return result->offset = 0, CK_OK;
    if (is("waits in calls")) usleep(1500);
    return right->sync(log, upto, context, result);
}

/* What reads give is one buffer, which closing an engine overwrites: whoever still reads, reads that. */
static uint8_t one_buffer[1 << 20];
static ck_slice one_slice = {one_buffer, 0};

/* Reads that are put off, and room for few of them. */
typedef struct put_off {
    void *log;
    ck_read_args args;
    uint64_t context;
} put_off;
static int waiting;

static void *read_later(void *of) {
    put_off *read = of;
    usleep(20000);
    ck_result result = {.struct_size = sizeof result};
    result.status = right->read(read->log, &read->args, read->context, &result);
    if (result.status != CK_PENDING) host->complete(read->context, &result);
    __atomic_sub_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    free(read);
    return NULL;
}

static int32_t read_if_there_is_room(void *log, const ck_read_args *args, uint64_t context) {
    put_off *read = malloc(sizeof *read);
    pthread_t thread;
    if (!read || __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST) > 8) {
        /* It is only one of many. */
        __atomic_sub_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
        free(read);
        return CK_PENDING;
    }
    *read = (put_off){log, *args, context};
    if (pthread_create(&thread, NULL, read_later, read) || pthread_detach(thread)) abort();
    return CK_PENDING;
}

static int32_t wrong_read(void *log, const ck_read_args *args, uint64_t context, ck_result *result) {
    if (is("forgets reads when many wait")) return read_if_there_is_room(log, args, context);
    if (is("reads from the start") && args->from > 0) {
        ck_read_args other = *args;
        other.from = 0;
        return right->read(log, &other, context, result);
    }
    if (is("reads into one buffer") && args->from == 0) {
        memset(one_buffer, running++, sizeof one_buffer);
        ck_state state = {.struct_size = sizeof state};
        right->log_state(log, &state);
        one_slice.len = 64;
        *result = (ck_result){.struct_size = result->struct_size, .offset = 0, .next_offset = state.end};
        result->buf = (ck_buf){&one_slice, 1, 64, NULL, NULL};
        return CK_OK;
    }
    return right->read(log, args, context, result);
}

static int32_t wrong_suffix(void *log, int64_t offset, uint64_t context, ck_result *result) {
    return is("keeps the suffix") ? CK_OK : right->truncate_suffix(log, offset, context, result);
}

/* Small values that are set only when somebody asks for one, or the log is closed. */
static struct { char bytes[4][4096]; ck_meta entries[2]; uint64_t count; } unset;

static void set_later(void *log) {
    ck_result none = {.struct_size = sizeof none};
    if (unset.count) right->meta_put(log, unset.entries, unset.count, 0, &none);
    unset.count = 0;
}

static int32_t wrong_put(void *log, const ck_meta *entries, uint64_t count, uint64_t context, ck_result *result) {
    bool fits = count == 2;
    for (uint64_t i = 0; fits && i < count; i++) {
        fits = entries[i].key.len < 4096 && entries[i].value.len < 4096;
    }
    if (!fits || !is("sets values later")) return right->meta_put(log, entries, count, context, result);
    for (uint64_t i = 0; i < count; i++) {
        memcpy(unset.bytes[i], entries[i].key.at, entries[i].key.len);
        memcpy(unset.bytes[2 + i], entries[i].value.at, entries[i].value.len);
        unset.entries[i] = (ck_meta){{(uint8_t *)unset.bytes[i], entries[i].key.len},
                                     {(uint8_t *)unset.bytes[2 + i], entries[i].value.len}};
    }
    unset.count = count;
    return CK_OK;
}

static int32_t wrong_get(void *log, const ck_slice *key, uint64_t context, ck_result *result) {
    set_later(log);
    return right->meta_get(log, key, context, result);
}

static int32_t wrong_close(void *log, uint64_t context, ck_result *result) {
    set_later(log);
    while (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST)) usleep(1000);
    return right->log_close(log, context, result);
}

CK_EXPORT const ck_plugin *chronik_plugin_v1(const ck_host *of) {
    static ck_plugin wrong;
    right = plain_entry(of);
    wrong = *right;
    wrong.engine_start = wrong_start;
    wrong.log_open = wrong_open;
    wrong.log_delete = wrong_delete;
    wrong.append = wrong_append;
    wrong.sync = wrong_sync;
    wrong.read = wrong_read;
    wrong.truncate_suffix = wrong_suffix;
    wrong.meta_put = wrong_put;
    wrong.meta_get = wrong_get;
    wrong.log_close = wrong_close;
    wrong.log_set_aside = wrong_set_aside;
    return &wrong;
}
