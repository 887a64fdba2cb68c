/* Artifacts made in a temporary directory from a small golden model, for tests of what loading them computes. */
#pragma once

#include "common/base/arena.h"
#include "common/nn/model.h"
#include "tests/cmocka_all.h"

#define ARTIFACT_SOURCE ASSAY_SHARED_DIR "/golden/models/smollm_tied"
#define TENSORS_MAX 512

extern struct assay_err err;

void want_ok(enum assay_status status);

/* A directory of the test, with the tensors to write into it. */
struct draft {
    char dir[64];
    struct assay_tensor tensors[TENSORS_MAX];
    size_t count;
};

void draft_add(struct draft *draft, const char *name, enum assay_dtype dtype, size_t rank, const uint64_t *shape,
               const void *data);
/* Writes the tensors and a config.json that is the source's with this quantization_config and member "assay" (NULL:
 * none). */
void draft_write(struct draft *draft, const char *quantization, const char *own);
void *arena_of(struct assay_arena *arena, size_t bytes);
enum assay_status model_load(const char *dir, struct assay_pool *pool, struct assay_model **ret);
