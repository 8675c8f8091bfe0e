/* The engine in plain C with one fault, which the engine's options name. */
#define chronik_plugin_v1 plain_entry
#include "plain.c"
#undef chronik_plugin_v1

static char fault[32];
static uint64_t kept_context, busy_log;
static int busy_times;

static bool is(const char *what) { return strcmp(fault, what) == 0; }

/* The host's callbacks, watched: while one runs, the host must not come back in on its thread. */
static ck_host watched;
static const ck_host *real_host;
static _Thread_local bool in_callback;
static bool came_back;

static void look(void) {
    if (in_callback) __atomic_store_n(&came_back, true, __ATOMIC_SEQ_CST);
}

typedef struct watched_owner {
    void *owner;
    void (*release)(void *owner);
} watched_owner;

static void watched_release(void *of) {
    watched_owner *watch = of;
    look();
    watch->release(watch->owner);
    free(watch);
}

static void watched_complete(uint64_t context, const ck_result *result) {
    ck_result copy;
    if (result && result->buf.release) {
        copy = *result;
        watched_owner *watch = malloc(sizeof *watch);
        if (!watch) abort();
        *watch = (watched_owner){copy.buf.owner, copy.buf.release};
        copy.buf.owner = watch;
        copy.buf.release = watched_release;
        result = &copy;
    }
    in_callback = true;
    real_host->complete(context, result);
    in_callback = false;
}

static void watched_ready(uint64_t log_context) {
    in_callback = true;
    real_host->ready(log_context);
    in_callback = false;
}

/* Reads for which somebody else answers, later. */
static struct { pthread_t thread; void *log; ck_read_args args; uint64_t context; bool begun; } postponed;

static void *read_later(void *nothing) {
    (void)nothing;
    usleep(50000);
    ck_result result = {.struct_size = sizeof result};
    result.status = read_log(postponed.log, &postponed.args, postponed.context, &result);
    if (result.status != CK_PENDING) host->complete(postponed.context, &result);
    return NULL;
}

static int32_t wrong_start(const ck_start_args *args, ck_engine_info *info, ck_result *result) {
    snprintf(fault, sizeof fault, "%.*s", (int)args->options.len, (const char *)args->options.at);
    busy_times = 0;
    kept_context = 0;
    __atomic_store_n(&came_back, false, __ATOMIC_SEQ_CST);
    postponed.begun = false;
    if (is("hangs on start")) pause();
    if (is("declines")) return say_why(result, "the moon is in the wrong phase", 0), CK_INVALID;
    int status = engine_start(args, info, result);
    if (is("promises the moon")) info->survives = 77;
    return status;
}

static int32_t wrong_open(void *engine, const ck_log_args *args, ck_log_info *info, ck_result *result) {
    if (is("hangs on open")) pause();
    busy_log = args->log_context;
    int status = log_open(engine, args, info, result);
    info->appends_in_flight_max = 8;
    if (is("takes few bytes")) info->append_bytes_in_flight_max = 40;
    return status;
}

static int32_t wrong_append(void *log, const ck_append_args *args, uint64_t context, ck_result *result) {
    look();
    if (is("is busy alone for ever")) return CK_BUSY;
    if (is("is busy for ever")) {
        if (kept_context) return CK_BUSY;
        kept_context = context;
        int status = append(log, args, context, result);
        return status == CK_OK ? CK_PENDING : status;
    }
    bool says_busy = is("is busy") || is("is ready twice") || is("is ready early");
    if (says_busy && kept_context && busy_times++ == 0) {
        if (is("is ready early")) host->ready(busy_log);
        return CK_BUSY;
    }
    int status = append(log, args, context, result);
    if (status != CK_OK) return status;
    ck_result answer = {.struct_size = sizeof answer, .offset = result->offset};
    if (says_busy && !kept_context) {
        kept_context = context;
        return CK_PENDING;
    }
    if (is("appends never") || is("takes few bytes")) return CK_PENDING;
    if (is("appends twice")) {
        host->complete(context, &answer);
        host->complete(context, &answer);
        return CK_PENDING;
    }
    if (is("keeps and appends twice")) {
        uint64_t kept = host->keep(context), again = host->keep(context);
        host->complete(context, &answer);
        /* It is no pending append any more. */
        if (!kept || !again || host->keep(context)) abort();
        host->complete(context, &answer);
        host->release(kept);
        host->release(again);
        host->release(again);
        return CK_PENDING;
    }
    if (is("answers both ways")) host->complete(context, &answer);
    if (is("makes contexts up")) host->complete(UINT64_C(0xdeadbeefdeadbeef), &answer);
    if (is("writes less")) result->offset = args->base;
    if (is("writes more")) result->offset = args->next_offset + 100;
    if (is("refuses for nothing")) return CK_NOT_FOUND;
    if (is("completes with nothing")) {
        host->complete(context, NULL);
        return CK_PENDING;
    }
    if (is("is ready unasked")) host->ready(busy_log);
    return status;
}

static int32_t wrong_sync(void *log, int64_t upto, uint64_t context, ck_result *result) {
    look();
    bool was_busy = is("is busy") || is("is ready twice") || is("is ready early");
    if (was_busy && kept_context) {
        ck_result answer = {.struct_size = sizeof answer, .offset = upto};
        host->complete(kept_context, &answer);
        if (!is("is ready early")) host->ready(busy_log);
        if (is("is ready twice")) host->ready(busy_log);
    }
    if (is("completes again when closed")) {
        kept_context = context;
        ck_result answer = {.struct_size = sizeof answer, .offset = upto};
        int status = sync_log(log, upto, context, result);
        if (status == CK_OK) host->complete(context, &answer);
        return CK_PENDING;
    }
    if (is("syncs nothing")) return result->offset = 0, CK_OK;
    if (is("fails to sync")) return say_why(result, "the disk says no", 0), CK_FAILED;
    if (is("panics")) return say_why(result, "index out of bounds", 0), CK_PANIC;
    if (is("answers oddly")) return -99;
    if (is("syncs never") || is("syncs late") || is("closes over a call")) {
        kept_context = context;
        return CK_PENDING;
    }
    return sync_log(log, upto, context, result);
}

static int32_t wrong_read(void *log, const ck_read_args *args, uint64_t context, ck_result *result) {
    static uint8_t junk[64];
    static const ck_slice slice = {junk, 64};
    static const ck_slice nowhere = {NULL, 64};
    look();
    if (is("reads later")) {
        postponed.log = log, postponed.args = *args, postponed.context = context, postponed.begun = true;
        if (pthread_create(&postponed.thread, NULL, read_later, NULL) != 0) abort();
        return CK_PENDING;
    }
    result->offset = args->from;
    result->next_offset = args->from + 1;
    result->buf = (ck_buf){&slice, 1, 64, NULL, NULL};
    if (is("reads junk")) return CK_OK;
    if (is("reads beyond")) return result->next_offset = 1000000, CK_OK;
    if (is("reads backwards")) return result->next_offset = args->from - 5, CK_OK;
    if (is("reads nowhere")) return result->buf.slices = &nowhere, CK_OK;
    *result = (ck_result){.struct_size = sizeof *result};
    return read_log(log, args, context, result);
}

static void wrong_state(void *log, ck_state *state) {
    look();
    log_state(log, state);
    if (is("says durable too much") && state->end) state->durable_end = state->end + 5;
    if (is("says too short an end") && state->end) state->end = state->written_end = state->durable_end = 0;
}

static int32_t wrong_close(void *log, uint64_t context, ck_result *result) {
    look();
    if (is("closes never")) return CK_PENDING;
    /* The read is answered while its log is open. */
    if (postponed.begun) pthread_join(postponed.thread, NULL);
    postponed.begun = false;
    return log_close(log, context, result);
}

static int32_t wrong_engine_close(void *engine, ck_result *result) {
    /* Long given up. */
    ck_result answer = {.struct_size = sizeof answer, .offset = 1};
    if (is("syncs late") || is("completes again when closed")) host->complete(kept_context, &answer);
    int status = engine_close(engine, result);
    if (status == CK_OK && __atomic_load_n(&came_back, __ATOMIC_SEQ_CST)) {
        return say_why(result, "the host came back from a callback", 0), CK_IO;
    }
    return status;
}

static int32_t wrong_set_aside(void *engine, const ck_log_id *id, ck_result *result) {
    if (is("cannot set aside")) return say_why(result, "the moon is full", 0), CK_IO;
    return log_set_aside(engine, id, result);
}

static void wrong_log_release(void *log) {
    look();
    log_release(log);
}

CK_EXPORT const ck_plugin *chronik_plugin_v1(const ck_host *of) {
    static ck_plugin wrong;
    real_host = of;
    watched = *of;
    watched.complete = watched_complete;
    watched.ready = watched_ready;
    wrong = *plain_entry(&watched);
    wrong.log_release = wrong_log_release;
    wrong.engine_start = wrong_start;
    wrong.engine_close = wrong_engine_close;
    wrong.log_open = wrong_open;
    wrong.append = wrong_append;
    wrong.sync = wrong_sync;
    wrong.read = wrong_read;
    wrong.log_state = wrong_state;
    wrong.log_close = wrong_close;
    wrong.log_set_aside = wrong_set_aside;
#ifdef OF_1_0
    /* As it was built then; what lies behind its table is none of its functions. */
    wrong.struct_size = offsetof(ck_plugin, log_set_aside);
    wrong.abi_minor = 0;
    wrong.capabilities = 0;
    wrong.log_set_aside = (void *)abort;
#endif
    return &wrong;
}
