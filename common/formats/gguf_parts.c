/* Which tensors of a GGUF file become which of the checkpoint. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_model.h"

#define ROWS_MAX 32 /* of one table */

/* What is being filled. */
struct filling {
    const struct assay_gguf *file;
    struct assay_gguf_model *m;
    const struct assay_gguf_tensor **used; /* in the order of the parts, with attn_v_b behind */
    size_t used_count;
    struct assay_err *err;
};

static uint64_t size_of(const struct assay_gguf_model *m, enum assay_gguf_dim dim)
{
    const bool latent = m->arch->options & ASSAY_GGUF_LATENT_ATTENTION;
    const uint64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    switch (dim) {
    case ASSAY_GGUF_DIM_NONE:
        return 0;
    case ASSAY_GGUF_DIM_HIDDEN:
        return m->hidden;
    case ASSAY_GGUF_DIM_INTERMEDIATE:
        return m->intermediate;
    case ASSAY_GGUF_DIM_GATE_UP:
        return 2 * m->intermediate;
    case ASSAY_GGUF_DIM_Q:
        return q;
    case ASSAY_GGUF_DIM_KV:
        return latent ? m->heads * (m->head_dim - m->rotated + m->latent.value_dim) : kv;
    case ASSAY_GGUF_DIM_QKV:
        return q + 2 * kv;
    case ASSAY_GGUF_DIM_HEAD:
        return m->head_dim;
    case ASSAY_GGUF_DIM_VOCAB:
        return m->vocab;
    case ASSAY_GGUF_DIM_POSITIONS:
        return m->positions;
    case ASSAY_GGUF_DIM_Q_RANK:
        return m->latent.q_rank;
    case ASSAY_GGUF_DIM_KV_RANK:
        return m->latent.kv_rank;
    case ASSAY_GGUF_DIM_KV_DOWN:
        return m->latent.kv_rank + m->rotated;
    case ASSAY_GGUF_DIM_VALUES:
        return m->heads * m->latent.value_dim;
    case ASSAY_GGUF_DIM_EXPERTS:
        return m->latent.experts;
    case ASSAY_GGUF_DIM_EXPERT:
        return m->latent.intermediate;
    case ASSAY_GGUF_DIM_SHARED:
        return m->latent.shared * m->latent.intermediate;
    }
    return 0;
}

static bool applies(const struct assay_gguf_model *m, enum assay_gguf_when when, uint64_t layer)
{
    const bool mixed = m->latent.experts > 0 && layer >= m->latent.dense_layers;
    switch (when) {
    case ASSAY_GGUF_ALWAYS:
        return true;
    case ASSAY_GGUF_ATTENTION_BIAS:
        return m->attention_bias;
    case ASSAY_GGUF_MLP_BIAS:
        return m->mlp_bias;
    case ASSAY_GGUF_UNTIED:
        return !m->tied_head;
    case ASSAY_GGUF_DENSE:
        return !mixed;
    case ASSAY_GGUF_MIXED:
        return mixed;
    case ASSAY_GGUF_Q_DIRECT:
        return m->latent.q_rank == 0;
    case ASSAY_GGUF_Q_LATENT:
        return m->latent.q_rank > 0;
    case ASSAY_GGUF_KV_JOINED:
        return m->latent.joined;
    case ASSAY_GGUF_KV_SPLIT:
        return !m->latent.joined;
    }
    return false;
}

/* "[3, 8]" */
static const char *print_shape(const uint64_t *shape, size_t rank, char text[96])
{
    size_t len = 0;
    for (size_t i = 0; i < rank && len < 90; i++)
        len += (size_t)snprintf(text + len, 96 - len, "%s%" PRIu64, i ? ", " : "[", shape[i]);
    snprintf(text + len, 96 - len, "]");
    return text;
}

/* The tensor of that name and shape. */
static enum assay_status take(struct filling *f, const char *name, const uint64_t *shape, size_t rank,
                              const struct assay_gguf_tensor **ret)
{
    const struct assay_gguf_tensor *tensor = assay_gguf_find(f->file, name);
    char found[96], wanted[96];
    if (!tensor)
        return assay_err_set(f->err, ASSAY_INVALID_ARGUMENT, "%s: the tensor '%s' is missing", assay_gguf_what(f->file),
                             name);
    if (tensor->rank != rank || memcmp(tensor->shape, shape, rank * sizeof *shape) != 0)
        return assay_err_set(f->err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%s' is %s, wanted %s",
                             assay_gguf_what(f->file), name, print_shape(tensor->shape, tensor->rank, found),
                             print_shape(shape, rank, wanted));
    f->used[f->used_count++] = tensor;
    *ret = tensor;
    return ASSAY_OK;
}

static struct assay_gguf_part *new_part(struct filling *f, const struct assay_gguf_row *row, const char *prefix)
{
    const struct assay_gguf_model *m = f->m;
    const bool keys = strncmp(row->source, "attn_k.", 7) == 0;
    struct assay_gguf_part *part = &f->m->parts[f->m->parts_count++];
    uint64_t rows = size_of(m, row->rows), columns = size_of(m, row->columns);
    *part = (struct assay_gguf_part){.order = row->order,
                                     .rank = rows ? 2 : 1,
                                     .rows = rows ? rows : 1,
                                     .columns = columns,
                                     .heads = keys ? m->kv_heads : m->heads};
    if (row->order == ASSAY_GGUF_TRANSPOSED) {
        part->rows = columns;
        part->columns = rows;
    }
    snprintf(part->name, sizeof part->name, "%s%s", prefix, row->target);
    return part;
}

/* One tensor of the file holds all experts' matrices. */
static enum assay_status add_experts(struct filling *f, const struct assay_gguf_row *row, const char *source,
                                     const char *prefix)
{
    const uint64_t shape[] = {f->m->latent.experts, size_of(f->m, row->rows), size_of(f->m, row->columns)};
    const char *mark = strstr(row->target, "%u");
    const struct assay_gguf_tensor *tensor = NULL;
    enum assay_status status = take(f, source, shape, 3, &tensor);
    for (uint64_t i = 0; i < shape[0] && status == ASSAY_OK; i++) {
        struct assay_gguf_part *part = new_part(f, row, prefix);
        part->tensor = tensor;
        part->first = i * shape[1] * shape[2];
        snprintf(part->name, sizeof part->name, "%s%.*s%" PRIu64 "%s", prefix, (int)(mark - row->target), row->target,
                 i, mark + 2);
    }
    return status;
}

/* Keys' and values' halves of kv_b_proj; the first has the columns of a head as rows. */
static enum assay_status add_latent(struct filling *f, const struct assay_gguf_row *row, const char *source,
                                    const char *prefix, uint64_t layer)
{
    const struct assay_gguf_model *m = f->m;
    const uint64_t keys[] = {m->heads, m->latent.kv_rank, m->head_dim - m->rotated};
    const uint64_t values[] = {m->heads, m->latent.value_dim, m->latent.kv_rank};
    char name[ASSAY_GGUF_NAME_MAX];
    struct assay_gguf_part *part = new_part(f, row, prefix);
    snprintf(name, sizeof name, "blk.%" PRIu64 ".attn_v_b.weight", layer);
    enum assay_status status = take(f, source, keys, 3, &part->tensor);
    return status == ASSAY_OK ? take(f, name, values, 3, &part->values) : status;
}

static enum assay_status add_rows(struct filling *f, const struct assay_gguf_row *rows, const char *block,
                                  const char *prefix, uint64_t layer)
{
    enum assay_status status = ASSAY_OK;
    for (const struct assay_gguf_row *row = rows; row->source && status == ASSAY_OK; row++) {
        char source[ASSAY_GGUF_NAME_MAX];
        if (!applies(f->m, row->when, layer))
            continue;
        snprintf(source, sizeof source, "%s%s", block, row->source);
        if (row->order == ASSAY_GGUF_EXPERTS) {
            status = add_experts(f, row, source, prefix);
        } else if (row->order == ASSAY_GGUF_LATENT) {
            status = add_latent(f, row, source, prefix, layer);
        } else {
            struct assay_gguf_part *part = new_part(f, row, prefix);
            const uint64_t shape[] = {size_of(f->m, row->rows), size_of(f->m, row->columns)};
            status = take(f, source, part->rank == 2 ? shape : shape + 1, part->rank, &part->tensor);
        }
    }
    return status;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct assay_gguf_tensor *one = *(const struct assay_gguf_tensor *const *)a;
    const struct assay_gguf_tensor *two = *(const struct assay_gguf_tensor *const *)b;
    return (one > two) - (one < two);
}

/* A tensor that no part came from would change what the model computes. */
static enum assay_status refuse_further(struct filling *f)
{
    const struct assay_gguf_rope *rope = &f->m->rope;
    qsort(f->used, f->used_count, sizeof *f->used, compare_tensors);
    for (size_t i = 0; i < assay_gguf_count(f->file); i++) {
        const struct assay_gguf_tensor *tensor = assay_gguf_at(f->file, i);
        bool used = bsearch(&tensor, f->used, f->used_count, sizeof *f->used, compare_tensors) ||
                    (assay_gguf_rope_has(tensor) && !(f->m->arch->options & ASSAY_GGUF_NO_ROPE) &&
                     (rope->kind != ASSAY_GGUF_ROPE_YARN && rope->kind != ASSAY_GGUF_ROPE_LINEAR));
        if (!used)
            return assay_err_set(f->err, ASSAY_UNIMPLEMENTED,
                                 "%s: the tensor '%s' has no place in a %s of %" PRIu64 " layers",
                                 assay_gguf_what(f->file), tensor->name, f->m->arch->name, f->m->layers);
    }
    return ASSAY_OK;
}

enum assay_status assay_gguf_read_parts(const struct assay_gguf *file, struct assay_gguf_model *m,
                                        struct assay_err *err)
{
    struct filling f = {.file = file, .m = m, .err = err};
    assay_auto(assay_free_ptr) const struct assay_gguf_tensor **used = NULL;
    /* A file that lacks tensors ends the loop before the room does: every part but an expert's has one of its own. */
    size_t room = assay_gguf_count(file) + ROWS_MAX + assay_gguf_count(file) * m->latent.experts;
    if (room > ASSAY_MODEL_TENSORS_MAX)
        room = ASSAY_MODEL_TENSORS_MAX + ROWS_MAX + 3 * ASSAY_MODEL_EXPERTS_MAX;
    f.used = used = calloc(assay_gguf_count(file) + ROWS_MAX, sizeof(*used));
    m->parts = calloc(room, sizeof *m->parts);
    if (!used || !m->parts)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(file));
    enum assay_status status = add_rows(&f, m->arch->outer, "", "", 0);
    for (uint64_t i = 0; i < m->layers && status == ASSAY_OK; i++) {
        char block[32], prefix[64];
        snprintf(block, sizeof block, "blk.%" PRIu64 ".", i);
        snprintf(prefix, sizeof prefix, "%s%" PRIu64 ".", m->arch->layers, i);
        status = add_rows(&f, m->arch->inner, block, prefix, i);
        if (status == ASSAY_OK && m->parts_count > ASSAY_MODEL_TENSORS_MAX)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: more than %u tensors", assay_gguf_what(file),
                                   ASSAY_MODEL_TENSORS_MAX);
    }
    return status == ASSAY_OK ? refuse_further(&f) : status;
}
