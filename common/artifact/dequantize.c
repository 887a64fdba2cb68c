#include "common/artifact/dequantize.h"

#include <stdlib.h>
#include <string.h>

#include "common/artifact/method.h"
#include "common/artifact/staging.h"
#include "common/artifact/stored.h"

#define WEIGHTS_FILE "model.safetensors"

/* Codes are [outputs, inputs] everywhere, plain weights lie as the architecture has them. */
static bool is_turned(const struct assay_making *making, const struct assay_stored *stored)
{
    return stored->layout != ASSAY_STORED_PLAIN && assay_making_architecture(making)->transposed;
}

static enum assay_status append_turned(const struct assay_stored *stored, const float *values,
                                       struct assay_safetensors_writer *writer, struct assay_err *err)
{
    size_t rows = (size_t)stored->shape[0], cols = (size_t)stored->shape[1];
    assay_auto(assay_free_ptr) float *column = malloc(rows * sizeof *column);
    if (!column)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for tensor %s", stored->name);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < cols && status == ASSAY_OK; i++) {
        for (size_t r = 0; r < rows; r++)
            column[r] = values[r * cols + i];
        status = assay_safetensors_append(writer, column, rows * sizeof *column, err);
    }
    return status;
}

static enum assay_status append(const struct assay_making *making, const struct assay_stored *stored,
                                struct assay_safetensors_writer *writer, struct assay_err *err)
{
    if (stored->dtype != ASSAY_F32)
        return assay_safetensors_append(writer, stored->source->data, stored->source->bytes, err);
    struct assay_arena arena = ASSAY_ARENA_INIT;
    float *values = NULL;
    uint64_t elements = 1;
    for (size_t i = 0; i < stored->rank; i++)
        elements *= stored->shape[i];
    enum assay_status status = assay_stored_read(making->source, stored, &arena, &values, err);
    if (status == ASSAY_OK && is_turned(making, stored))
        status = append_turned(stored, values, writer, err);
    else if (status == ASSAY_OK)
        status = assay_safetensors_append(writer, values, (size_t)elements * sizeof *values, err);
    assay_arena_release(&arena);
    return status;
}

static enum assay_status write_weights(struct assay_making *making, uint64_t *ret_bytes, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct assay_stored *stored = NULL;
    size_t count = 0;
    struct assay_safetensors_writer *writer = NULL;
    enum assay_status status = assay_stored_list(making->source, &making->manifest->arena, &stored, &count, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_free_ptr) struct assay_tensor *outputs = calloc(count + 1, sizeof *outputs);
    if (!outputs)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        outputs[i] = (struct assay_tensor){.name = stored[i].name, .dtype = stored[i].dtype, .rank = stored[i].rank};
        memcpy(outputs[i].shape, stored[i].shape, sizeof outputs[i].shape);
        if (is_turned(making, &stored[i])) {
            outputs[i].shape[0] = stored[i].shape[1];
            outputs[i].shape[1] = stored[i].shape[0];
        }
        *ret_bytes += assay_tensor_elements(&outputs[i]) * assay_dtype_bytes(outputs[i].dtype);
    }
    status = assay_path_join(path, making->dir, WEIGHTS_FILE, err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, outputs, count, &writer, err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        status = assay_making_step(making, i, count, err);
        if (status == ASSAY_OK)
            status = append(making, &stored[i], writer, err);
    }
    if (status == ASSAY_OK)
        return assay_safetensors_finish(writer, err);
    assay_safetensors_abandon(writer);
    return status;
}

static enum assay_status write_all(struct assay_making *making, uint64_t *ret_bytes, struct assay_err *err)
{
    static const struct assay_config_change plain = {.dtype = "float32", .drops_quantization = true};
    enum assay_status status = write_weights(making, ret_bytes, err);
    if (status == ASSAY_OK)
        status = assay_making_write_config(making, &plain, err);
    return status == ASSAY_OK ? assay_making_add_companions(making, false, err) : status;
}

enum assay_status assay_dequantize(const struct assay_dequantize_job *job, uint64_t *ret_bytes, struct assay_err *err)
{
    const struct assay_quantize_job names = {
        .model_dir = job->source_dir, .wanted_dir = job->output_dir, .cancelled = job->cancelled, .arg = job->arg};
    const struct assay_variant_id no_id = {0};
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT; /* holds the names of files while they are made */
    struct assay_checkpoint *source = NULL;
    struct assay_staging staging = {.lock = -1};
    uint64_t bytes = 0;
    enum assay_status status = assay_checkpoint_open(job->source_dir, &source, err);
    if (status == ASSAY_OK)
        status = assay_staging_open(job->parent_dir, &no_id, &staging, err);
    if (status == ASSAY_OK) {
        struct assay_making making = {.job = &names, .source = source, .dir = staging.dir, .manifest = &manifest};
        status = write_all(&making, &bytes, err);
    }
    if (status == ASSAY_OK)
        status = assay_staging_publish(&staging, job->output_dir, err);
    assay_staging_abandon(&staging);
    assay_manifest_release(&manifest);
    assay_checkpoint_close(source);
    if (status == ASSAY_OK)
        *ret_bytes = bytes;
    return status;
}
