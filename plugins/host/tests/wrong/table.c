/* A plug-in whose table is wrong in one way, chosen at compile time. None of its functions may ever be called. */
#include "chronik_plugin.h"
#include <stdlib.h>

static int32_t never_start(const ck_start_args *a, ck_engine_info *b, ck_result *c) { (void)a, (void)b, (void)c; abort(); }
#define NEVER(field) .field = (void *)never_start

static ck_plugin table = {
    .magic = CK_MAGIC, .struct_size = sizeof table, .abi_major = CK_ABI_MAJOR, .abi_minor = CK_ABI_MINOR,
    .name = {(const uint8_t *)"wrong", 5}, .version = {(const uint8_t *)"1", 1},
    .engine_start = never_start, NEVER(engine_close), NEVER(engine_list), NEVER(engine_usage), NEVER(log_open),
    NEVER(log_delete), NEVER(log_state), NEVER(append), NEVER(sync), NEVER(read), NEVER(truncate_suffix),
    NEVER(truncate_prefix), NEVER(reset), NEVER(offset_for_timestamp), NEVER(meta_put), NEVER(meta_get), NEVER(log_close),
    NEVER(log_release),
};

#ifndef NO_SYMBOL
const ck_plugin *chronik_plugin_v1(const ck_host *host) {
    (void)host;
    WRONG;
    return &table;
}
#endif
