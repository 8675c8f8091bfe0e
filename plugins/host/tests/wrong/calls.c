/* The engine in plain C with one fault, which the engine's options name. */
#define chronik_plugin_v1 plain_entry
#include "plain.c"
#undef chronik_plugin_v1

static char fault[32];
static uint64_t kept_context, busy_log;
static int busy_times;

static bool is(const char *what) { return strcmp(fault, what) == 0; }

static int32_t wrong_start(const ck_start_args *args, ck_engine_info *info, ck_result *result) {
    snprintf(fault, sizeof fault, "%.*s", (int)args->options.len, (const char *)args->options.at);
    busy_times = 0;
    kept_context = 0;
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
    return status;
}

static int32_t wrong_append(void *log, const ck_append_args *args, uint64_t context, ck_result *result) {
    if (is("is busy") && kept_context && busy_times++ == 0) {
        return CK_BUSY;
    }
    int status = append(log, args, context, result);
    if (status != CK_OK) return status;
    ck_result answer = {.struct_size = sizeof answer, .offset = result->offset};
    if (is("is busy") && !kept_context) {
        kept_context = context;
        return CK_PENDING;
    }
    if (is("appends never")) return CK_PENDING;
    if (is("appends twice")) {
        host->complete(context, &answer);
        host->complete(context, &answer);
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
    if (is("is busy") && kept_context) {
        ck_result answer = {.struct_size = sizeof answer, .offset = upto};
        host->complete(kept_context, &answer);
        host->ready(busy_log);
    }
    if (is("syncs nothing")) return result->offset = 0, CK_OK;
    if (is("fails to sync")) return say_why(result, "the disk says no", 0), CK_FAILED;
    if (is("panics")) return say_why(result, "index out of bounds", 0), CK_PANIC;
    if (is("answers oddly")) return -99;
    if (is("syncs never") || is("syncs late")) {
        kept_context = context;
        return CK_PENDING;
    }
    return sync_log(log, upto, context, result);
}

static int32_t wrong_read(void *log, const ck_read_args *args, uint64_t context, ck_result *result) {
    static uint8_t junk[64];
    static const ck_slice slice = {junk, 64};
    static const ck_slice nowhere = {NULL, 64};
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
    log_state(log, state);
    if (is("says durable too much") && state->end) state->durable_end = state->end + 5;
    if (is("says too short an end") && state->end) state->end = state->written_end = state->durable_end = 0;
}

static int32_t wrong_close(void *log, uint64_t context, ck_result *result) {
    if (is("closes never")) return CK_PENDING;
    return log_close(log, context, result);
}

static int32_t wrong_engine_close(void *engine, ck_result *result) {
    /* Long given up. */
    ck_result answer = {.struct_size = sizeof answer, .offset = 1};
    if (is("syncs late")) host->complete(kept_context, &answer);
    return engine_close(engine, result);
}

CK_EXPORT const ck_plugin *chronik_plugin_v1(const ck_host *of) {
    static ck_plugin wrong;
    wrong = *plain_entry(of);
    wrong.engine_start = wrong_start;
    wrong.engine_close = wrong_engine_close;
    wrong.log_open = wrong_open;
    wrong.append = wrong_append;
    wrong.sync = wrong_sync;
    wrong.read = wrong_read;
    wrong.log_state = wrong_state;
    wrong.log_close = wrong_close;
    return &wrong;
}
