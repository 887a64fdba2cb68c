/* Memory that is freed all at once: by message, chunk, model or process. Not thread-safe. */
#pragma once

#include "common/base/macros.h"

struct assay_arena {
    struct assay_arena_block *blocks;
};

#define ASSAY_ARENA_INIT                                                                                               \
    {                                                                                                                  \
        0                                                                                                              \
    }

/* Zeroed memory, aligned to 64 bytes. NULL when out of memory. Valid until reset or release. */
void *assay_arena_alloc(struct assay_arena *arena, size_t bytes);

/* A copy of text in the arena. NULL when out of memory. */
char *assay_arena_strdup(struct assay_arena *arena, const char *text);

void assay_arena_release(struct assay_arena *arena);
