#include "common/formats/gguf_import.h"

#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_model.h"
#include "common/formats/gguf_tokenizer.h"
#include "common/formats/safetensors.h"

/* Values decoded at a time, unless one row has more. */
#define VALUES_AT_ONCE (256u * 1024)

struct import {
    const struct assay_gguf *file;
    struct assay_gguf_model model;
    enum assay_dtype *dtypes; /* by part */
    float *values;            /* `room` of them; narrowed in place */
    size_t room;
    float *scratch; /* of the part at hand */
    assay_gguf_progress_fn progress;
    void *arg;
};

static void import_release(struct import *import)
{
    assay_gguf_model_release(&import->model);
    free(import->dtypes);
    free(import->scratch);
    free(import->values);
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Takes away from *f16 and *bf16 what cannot hold all n values. */
static void narrow_choice(const float *values, size_t n, bool *f16, bool *bf16)
{
    for (size_t i = 0; i < n && (*f16 || *bf16); i++) {
        uint32_t bits = bits_of(values[i]);
        *f16 = *f16 && bits_of(assay_f16_to_f32(assay_f32_to_f16(values[i]))) == bits;
        *bf16 = *bf16 && (bits & 0xffff) == 0;
    }
}

static enum assay_dtype choose_dtype(const struct import *import, const struct assay_gguf_part *part)
{
    bool f16 = true, bf16 = true, filled = false;
    for (uint64_t row = 0; row < part->rows && (f16 || bf16); row++) {
        assay_gguf_part_rows(part, row, 1, import->scratch, &filled, import->values);
        narrow_choice(import->values, (size_t)part->columns, &f16, &bf16);
    }
    return f16 ? ASSAY_F16 : bf16 ? ASSAY_BF16 : ASSAY_F32;
}

static void narrow_values(enum assay_dtype dtype, float *values, size_t n)
{
    unsigned char *out = (unsigned char *)values;
    for (size_t i = 0; i < n && dtype != ASSAY_F32; i++) {
        uint16_t narrow = dtype == ASSAY_F16 ? assay_f32_to_f16(values[i]) : assay_f32_to_bf16(values[i]);
        memcpy(out + 2 * i, &narrow, sizeof narrow);
    }
}

static enum assay_status write_part(const struct import *import, size_t index, struct assay_safetensors_writer *writer,
                                    struct assay_err *err)
{
    const struct assay_gguf_part *part = &import->model.parts[index];
    const uint64_t columns = part->columns, at_once = import->room / columns;
    bool filled = false;
    enum assay_status status = ASSAY_OK;
    for (uint64_t row = 0; row < part->rows && status == ASSAY_OK;) {
        uint64_t count = ASSAY_MIN(at_once, part->rows - row);
        assay_gguf_part_rows(part, row, count, import->scratch, &filled, import->values);
        narrow_values(import->dtypes[index], import->values, (size_t)(count * columns));
        status = assay_safetensors_append(writer, import->values,
                                          (size_t)(count * columns) * assay_dtype_bytes(import->dtypes[index]), err);
        row += count;
    }
    return status;
}

/* Indices of the parts, those in F32 first, so that each tensor is aligned to its own size. */
static void order_parts(const struct import *import, size_t *order)
{
    size_t filled = 0;
    for (size_t wide = 2; wide-- > 0;)
        for (size_t i = 0; i < import->model.parts_count; i++)
            if ((import->dtypes[i] == ASSAY_F32) == (wide == 1))
                order[filled++] = i;
}

static enum assay_status write_parts(const struct import *import, const size_t *order,
                                     struct assay_safetensors_writer *writer, struct assay_err *err)
{
    size_t count = import->model.parts_count;
    for (size_t i = 0; i < count; i++) {
        enum assay_status status = write_part(import, order[i], writer, err);
        if (status != ASSAY_OK)
            return status;
        if (import->progress && !import->progress(import->arg, i + 1, count))
            return assay_err_set(err, ASSAY_CANCELLED, "%s: stopped after %zu of %zu tensors",
                                 assay_gguf_what(import->file), i + 1, count);
    }
    return ASSAY_OK;
}

static enum assay_status write_weights(const struct import *import, const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    size_t count = import->model.parts_count;
    assay_auto(assay_free_ptr) struct assay_tensor *tensors = calloc(count, sizeof *tensors);
    assay_auto(assay_free_ptr) size_t *order = calloc(count, sizeof *order);
    if (!tensors || !order)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(import->file));
    order_parts(import, order);
    for (size_t i = 0; i < count; i++) {
        const struct assay_gguf_part *part = &import->model.parts[order[i]];
        tensors[i] = (struct assay_tensor){.name = part->name, .dtype = import->dtypes[order[i]], .rank = part->rank};
        tensors[i].shape[0] = part->rank == 2 ? part->rows : part->columns;
        tensors[i].shape[1] = part->columns;
    }
    struct assay_safetensors_writer *writer = NULL;
    enum assay_status status = assay_path_join(path, dir, "model.safetensors", err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, tensors, count, &writer, err);
    if (status != ASSAY_OK)
        return status;
    status = write_parts(import, order, writer, err);
    if (status == ASSAY_OK)
        return assay_safetensors_finish(writer, err);
    assay_safetensors_abandon(writer);
    return status;
}

static enum assay_status choose_dtypes(struct import *import, struct assay_gguf_summary *summary, struct assay_err *err)
{
    size_t count = import->model.parts_count;
    size_t scratch = 1;
    import->room = VALUES_AT_ONCE;
    for (size_t i = 0; i < count; i++) {
        import->room = ASSAY_MAX(import->room, (size_t)import->model.parts[i].columns);
        scratch = ASSAY_MAX(scratch, assay_gguf_part_scratch(&import->model.parts[i]));
    }
    import->values = malloc(import->room * sizeof *import->values);
    import->scratch = calloc(scratch, sizeof *import->scratch);
    import->dtypes = calloc(count, sizeof *import->dtypes);
    if (!import->values || !import->scratch || !import->dtypes)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(import->file));
    for (size_t i = 0; i < count; i++) {
        const struct assay_gguf_part *part = &import->model.parts[i];
        enum assay_dtype dtype = choose_dtype(import, part);
        import->dtypes[i] = dtype;
        summary->tensors++;
        summary->bytes += part->rows * part->columns * assay_dtype_bytes(dtype);
        *(dtype == ASSAY_F32 ? &summary->f32 : dtype == ASSAY_F16 ? &summary->f16 : &summary->bf16) += 1;
    }
    return ASSAY_OK;
}

static enum assay_status write_text(const char *dir, const char *name, const struct assay_buf *text,
                                    struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, name, err);
    return status == ASSAY_OK ? assay_file_write(path, text->data, text->len, err) : status;
}

enum assay_status assay_gguf_import(const struct assay_gguf *file, const char *dir, assay_gguf_progress_fn progress,
                                    void *arg, struct assay_gguf_summary *ret, struct assay_err *err)
{
    assay_auto(import_release) struct import import = {.file = file, .progress = progress, .arg = arg};
    assay_auto(assay_buf_release) struct assay_buf config = ASSAY_BUF_INIT, vocabulary = ASSAY_BUF_INIT,
                                                   tokenizer_config = ASSAY_BUF_INIT;
    struct assay_gguf_summary summary = {0};
    const char *name = NULL; /* of the vocabulary's file */
    enum assay_status status = assay_gguf_model_read(file, &import.model, err);
    if (status == ASSAY_OK)
        status = assay_gguf_tokenizer(file, import.model.vocab, &name, &vocabulary, &tokenizer_config, err);
    if (status == ASSAY_OK)
        status = choose_dtypes(&import, &summary, err);
    if (status != ASSAY_OK)
        return status;
    for (size_t i = 0; i < assay_gguf_count(file); i++)
        summary.source_bytes += assay_gguf_at(file, i)->bytes;
    const char *dtype = summary.f32 ? "float32" : summary.f16 ? "float16" : "bfloat16";
    status = assay_gguf_config(file, &import.model, dtype, &config, err);
    if (status == ASSAY_OK)
        status = write_text(dir, name, &vocabulary, err);
    if (status == ASSAY_OK)
        status = write_text(dir, "tokenizer_config.json", &tokenizer_config, err);
    if (status == ASSAY_OK)
        status = write_text(dir, "config.json", &config, err);
    if (status == ASSAY_OK)
        status = write_weights(&import, dir, err);
    if (status == ASSAY_OK)
        *ret = summary;
    return status;
}
