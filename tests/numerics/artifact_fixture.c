#include "tests/numerics/artifact_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct assay_err err = ASSAY_ERR_INIT;

void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

void draft_add(struct draft *draft, const char *name, enum assay_dtype dtype, size_t rank, const uint64_t *shape,
               const void *data)
{
    assert_true(draft->count < TENSORS_MAX);
    struct assay_tensor *t = &draft->tensors[draft->count++];
    *t = (struct assay_tensor){.name = name, .dtype = dtype, .rank = rank, .data = data};
    memcpy(t->shape, shape, rank * sizeof *shape);
    t->bytes = (size_t)assay_tensor_elements(t) * assay_dtype_bytes(dtype);
}

void draft_write(struct draft *draft, const char *quantization, const char *own)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors_writer *writer;
    strcpy(draft->dir, "/tmp/assay-artifact-XXXXXX");
    assert_non_null(mkdtemp(draft->dir));
    want_ok(assay_path_join(path, draft->dir, "model.safetensors", &err));
    want_ok(assay_safetensors_create(path, draft->tensors, draft->count, &writer, &err));
    for (size_t i = 0; i < draft->count; i++)
        want_ok(assay_safetensors_append(writer, draft->tensors[i].data, draft->tensors[i].bytes, &err));
    want_ok(assay_safetensors_finish(writer, &err));
    cJSON *config = NULL;
    want_ok(assay_json_load(ARTIFACT_SOURCE "/config.json", &config, &err));
    if (quantization)
        cJSON_AddItemToObject(config, "quantization_config", cJSON_Parse(quantization));
    if (own)
        cJSON_AddItemToObject(config, "assay", cJSON_Parse(own));
    char *text = cJSON_PrintUnformatted(config);
    assert_non_null(text);
    want_ok(assay_path_join(path, draft->dir, "config.json", &err));
    want_ok(assay_file_write(path, text, strlen(text), &err));
    free(text);
    cJSON_Delete(config);
}

void *arena_of(struct assay_arena *arena, size_t bytes)
{
    void *memory = assay_arena_alloc(arena, bytes);
    assert_non_null(memory);
    return memory;
}

enum assay_status model_load(const char *dir, struct assay_pool *pool, struct assay_model **ret)
{
    struct assay_checkpoint *checkpoint;
    want_ok(assay_checkpoint_open(dir, &checkpoint, &err));
    enum assay_status status = assay_model_load(checkpoint, pool, ret, &err);
    size_t bytes = 0;
    if (status == ASSAY_OK) { /* workers trust what is measured before */
        want_ok(assay_model_measure(checkpoint, &bytes, &err));
        assert_int_equal(bytes, assay_model_bytes(*ret));
    }
    assay_checkpoint_close(checkpoint);
    return status;
}
