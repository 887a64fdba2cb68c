/* Values of a checkpoint's tensor from those of a GGUF file. */
#include <string.h>

#include "common/formats/gguf_model.h"

/* Elements of the tensor that are decoded at once: all of it where rows of the checkpoint are not rows of the file. */
static uint64_t whole_elements(const struct assay_gguf_part *part)
{
    bool vector = part->rank == 1;
    switch (part->order) {
    case ASSAY_GGUF_ROTARY:
    case ASSAY_GGUF_BY_HEAD:
        return vector ? part->tensor->elements : 0;
    case ASSAY_GGUF_TRANSPOSED:
    case ASSAY_GGUF_LATENT:
        return part->tensor->elements;
    default:
        return 0;
    }
}

size_t assay_gguf_part_scratch(const struct assay_gguf_part *part)
{
    return (size_t)whole_elements(part);
}

/* Where row `row` of `rows` of the checkpoint stands in the file. */
static uint64_t source_row(const struct assay_gguf_part *part, uint64_t rows, uint64_t row)
{
    if (part->order == ASSAY_GGUF_ROTARY) {
        uint64_t head_dim = rows / part->heads, head = row / head_dim, in_head = row % head_dim;
        uint64_t half = in_head / (head_dim / 2), pair = in_head % (head_dim / 2);
        return head * head_dim + 2 * pair + half;
    }
    if (part->order == ASSAY_GGUF_BY_HEAD) {
        uint64_t head_dim = rows / 3 / part->heads, head = row / (3 * head_dim), third = row / head_dim % 3;
        return third * (rows / 3) + head * head_dim + row % head_dim;
    }
    return row;
}

/* A row of kv_b_proj: the head's columns of attn_k_b first, then its rows of attn_v_b. */
static void latent_row(const struct assay_gguf_part *part, const float *keys, uint64_t row, float *dst)
{
    const uint64_t key_dim = part->tensor->shape[2], value_dim = part->values->shape[1];
    const uint64_t head = row / (key_dim + value_dim), in_head = row % (key_dim + value_dim);
    if (in_head >= key_dim) {
        assay_gguf_to_f32(part->values, (head * value_dim + in_head - key_dim) * part->columns, (size_t)part->columns,
                          dst);
        return;
    }
    for (uint64_t i = 0; i < part->columns; i++)
        dst[i] = keys[(head * part->columns + i) * key_dim + in_head];
}

static void one_row(const struct assay_gguf_part *part, const float *whole, uint64_t row, float *dst)
{
    const uint64_t columns = part->columns;
    switch (part->order) {
    case ASSAY_GGUF_LATENT:
        latent_row(part, whole, row, dst);
        return;
    case ASSAY_GGUF_TRANSPOSED:
        for (uint64_t i = 0; i < columns; i++)
            dst[i] = whole[i * part->rows + row];
        return;
    case ASSAY_GGUF_ROTARY:
    case ASSAY_GGUF_BY_HEAD:
        if (part->rank == 2)
            assay_gguf_to_f32(part->tensor, source_row(part, part->rows, row) * columns, (size_t)columns, dst);
        for (uint64_t i = 0; i < columns && part->rank == 1; i++)
            dst[i] = whole[source_row(part, columns, i)];
        return;
    case ASSAY_GGUF_MINUS_ONE:
    case ASSAY_GGUF_EXPERTS:
    case ASSAY_GGUF_AS_IT_IS:
        assay_gguf_to_f32(part->tensor, part->first + row * columns, (size_t)columns, dst);
        for (uint64_t i = 0; i < columns && part->order == ASSAY_GGUF_MINUS_ONE; i++)
            dst[i] -= 1;
        return;
    }
}

void assay_gguf_part_rows(const struct assay_gguf_part *part, uint64_t row, uint64_t count, float *scratch,
                          bool *filled, float *dst)
{
    const size_t whole = assay_gguf_part_scratch(part);
    if (whole && !*filled)
        assay_gguf_to_f32(part->tensor, 0, whole, scratch);
    *filled = true;
    for (uint64_t i = 0; i < count; i++)
        one_row(part, scratch, row + i, dst + i * part->columns);
}
