/* A small checkpoint, plain or quantized: config.json and model.safetensors, parted by a line "---". What loads, runs;
 * what can be decoded, is. */
#include <stdlib.h>

#include "common/artifact/stored.h"
#include "common/nn/model.h"
#include "tests/fuzz/directory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TOKENS ((size_t)3)
/* Larger models are loaded and not run: a run takes as long as its sizes say. */
#define RUN_MAX ((size_t)4096)

static void want(bool good)
{
    if (!good)
        abort();
}

static void run(const struct assay_model *model, struct assay_pool *pool)
{
    const struct assay_model_config *c = assay_model_config(model);
    static const int32_t ids[TOKENS] = {0, 0, 0};
    if (c->hidden > RUN_MAX || c->positions_max < TOKENS)
        return;
    float *hidden = malloc(TOKENS * c->hidden * sizeof *hidden);
    want(hidden);
    const struct assay_sequence sequence = {ids, TOKENS, 0, TOKENS, hidden, NULL};
    struct assay_err err = ASSAY_ERR_INIT;
    want(assay_model_forward(model, pool, &sequence, 1, NULL, &err) == ASSAY_OK || err.text[0]);
    free(hidden);
}

static void load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool)
{
    struct assay_model *model = NULL;
    struct assay_head *head = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_model_load(checkpoint, pool, &model, &err) == ASSAY_OK)
        run(model, pool);
    else
        want(err.text[0] && !model);
    assay_model_free(model);
    err = (struct assay_err)ASSAY_ERR_INIT;
    want(assay_head_load(checkpoint, pool, &head, &err) == ASSAY_OK || (err.text[0] && !head));
    assay_head_free(head);
}

static void decode(const struct assay_checkpoint *checkpoint)
{
    struct assay_arena arena = ASSAY_ARENA_INIT;
    struct assay_stored *stored = NULL;
    size_t count = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = assay_stored_list(checkpoint, &arena, &stored, &count, &err);
    want(status == ASSAY_OK || err.text[0]);
    for (size_t i = 0; status == ASSAY_OK && i < count; i++) {
        float *values;
        if (stored[i].dtype != ASSAY_F32)
            continue;
        status = assay_stored_read(checkpoint, &stored[i], &arena, &values, &err);
        want(status == ASSAY_OK || err.text[0]);
    }
    assay_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    static struct assay_pool *pool;
    if (!pool)
        want(assay_pool_new(1, NULL, &pool, NULL) == ASSAY_OK);
    const char *dir = fuzz_directory_fill(names, ASSAY_COUNT(names), data, size);
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK) {
        want(err.text[0] && !checkpoint);
        return 0;
    }
    load(checkpoint, pool);
    decode(checkpoint);
    assay_checkpoint_close(checkpoint);
    return 0;
}
