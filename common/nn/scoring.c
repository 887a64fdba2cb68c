#include "common/nn/scoring.h"

#include <stdlib.h>

#include "common/nn/scoring_row.h"

/* Two tiles of logits, the reference's and a variant's, share this. */
#define TILE_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define TILE_ROWS_MAX ((size_t)64)

struct tile {
    const struct assay_score_ops *ops;
    size_t vocab;
    const float *ref, *var; /* [rows, vocab] */
    const int32_t *labels;
    struct assay_row_figures *figures; /* of the reference */
    struct assay_position *positions;
};

static void reduce_reference_row(void *arg, size_t row, size_t thread)
{
    (void)thread;
    struct tile *tile = arg;
    tile->figures[row] = assay_row_reduce(tile->ops, tile->ref + row * tile->vocab, tile->vocab);
}

static void compare_row(void *arg, size_t row, size_t thread)
{
    (void)thread;
    struct tile *tile = arg;
    tile->positions[row] = assay_row_compare(tile->ops, &tile->figures[row], tile->ref + row * tile->vocab,
                                             tile->var + row * tile->vocab, tile->vocab, tile->labels[row]);
}

static enum assay_status check_request(const struct assay_scoring_side *reference,
                                       const struct assay_scoring_side *variants, size_t variants_count,
                                       const int32_t *labels, size_t rows, struct assay_err *err)
{
    size_t vocab = assay_head_vocab(reference->head);
    for (size_t v = 0; v < variants_count; v++) {
        size_t found = assay_head_vocab(variants[v].head);
        if (found != vocab)
            return assay_err_set(
                err, ASSAY_INVALID_ARGUMENT,
                "variant %zu has a vocabulary of %zu, the reference one of %zu: they cannot be compared", v, found,
                vocab);
    }
    for (size_t t = 0; t < rows; t++)
        if (labels[t] < 0 || (size_t)labels[t] >= vocab)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "label %zu is %d, the vocabulary has %zu ids", t,
                                 (int)labels[t], vocab);
    return ASSAY_OK;
}

static const float *hidden_at(const struct assay_scoring_side *side, size_t row)
{
    return side->hidden + row * assay_head_hidden(side->head);
}

enum assay_status assay_score(struct assay_pool *pool, const struct assay_scoring_side *reference,
                              const struct assay_scoring_side *variants, size_t variants_count, const int32_t *labels,
                              size_t rows, struct assay_position *positions, struct assay_err *err)
{
    enum assay_status status = check_request(reference, variants, variants_count, labels, rows, err);
    const struct assay_kernels *kernels = NULL;
    if (status == ASSAY_OK)
        status = assay_kernels_select(&kernels, err);
    if (status != ASSAY_OK || rows == 0 || variants_count == 0)
        return status;

    size_t vocab = assay_head_vocab(reference->head);
    size_t tile_rows = TILE_BYTES_MAX / (2 * vocab * sizeof(float));
    tile_rows = ASSAY_MAX(ASSAY_MIN(tile_rows, ASSAY_MIN(rows, TILE_ROWS_MAX)), (size_t)1);
    assay_auto(assay_free_ptr) float *ref = malloc(tile_rows * vocab * sizeof *ref);
    assay_auto(assay_free_ptr) float *var = malloc(tile_rows * vocab * sizeof *var);
    if (!ref || !var)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu rows of %zu logits", 2 * tile_rows,
                             vocab);
    struct assay_row_figures figures[TILE_ROWS_MAX];
    struct tile tile = {.ops = assay_score_ops(kernels), .vocab = vocab, .ref = ref, .var = var, .figures = figures};
    for (size_t begin = 0; begin < rows; begin += tile_rows) {
        size_t count = ASSAY_MIN(tile_rows, rows - begin);
        tile.labels = labels + begin;
        assay_head_logits(reference->head, pool, hidden_at(reference, begin), count, ref);
        assay_pool_run(pool, count, reduce_reference_row, &tile);
        for (size_t v = 0; v < variants_count; v++) {
            tile.positions = positions + v * rows + begin;
            assay_head_logits(variants[v].head, pool, hidden_at(&variants[v], begin), count, var);
            assay_pool_run(pool, count, compare_row, &tile);
        }
    }
    return ASSAY_OK;
}
