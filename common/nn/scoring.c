#include "common/nn/scoring.h"

#include <stdlib.h>
#include <time.h>

#include "common/nn/scoring_row.h"

/* Rows of a block. More read the head's weights less often, fewer leave the logits in the cache. A multiple of the tile
 * rows of every path. */
#define BLOCK_ROWS ((size_t)42)
/* Blocks of a tile: their pieces of one part run one after another and find the head's weights in the cache. */
#define TILE_BLOCKS ((size_t)8)
#define TILE_ROWS (BLOCK_ROWS * TILE_BLOCKS)
#define BLOCK_FLOATS (BLOCK_ROWS * ASSAY_SCORE_PART)
/* Variants whose logits are held at once; the reference's part is reduced once for all of them. */
#define ABREAST_MAX ((size_t)8)

/* What one thread works with: a block of rows of one part, of the reference and of some variants. */
struct room {
    float *logits; /* [1 + abreast, BLOCK_ROWS, ASSAY_SCORE_PART] */
    /* One row's, [parts_count]. */
    struct assay_score_part *parts;
    struct assay_score_gap *gaps;
    double *shares, *middles;
    struct assay_scoring_cost cost;
};

struct tile {
    const struct assay_score_ops *ops;
    const struct assay_scoring_side *reference, *variants;
    size_t variants_count, abreast, vocab, parts_count;
    size_t begin, rows; /* of the request */
    size_t rows_all;
    struct room *rooms;             /* by thread */
    struct assay_score_part *parts; /* [parts_count, TILE_ROWS]: a piece writes to one place */
    struct assay_score_gap *gaps;   /* [variants_count, parts_count, TILE_ROWS] */
    float *label_logits;            /* [1 + variants_count, TILE_ROWS] */
    const int32_t *labels;
    struct assay_position *positions;
};

static const float *hidden_at(const struct assay_scoring_side *side, size_t row)
{
    return side->hidden + row * assay_head_hidden(side->head);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Adds the time since `begin` to *account; returns the time now. */
static double spend(double begin, double *account)
{
    double now = cpu_seconds();
    *account += now - begin;
    return now;
}

struct piece {
    size_t part, first, count; /* columns */
    size_t row, rows;
    float *logits;
};

/* The logits of side `side` (0 is the reference) to slot `slot` of the room. */
static void multiply_side(const struct tile *tile, const struct piece *piece, size_t side, size_t slot)
{
    const struct assay_scoring_side *of = side == 0 ? tile->reference : &tile->variants[side - 1];
    float *logits = piece->logits + slot * BLOCK_FLOATS;
    assay_head_logits_part(of->head, hidden_at(of, tile->begin + piece->row), piece->rows, piece->first, piece->count,
                           logits, ASSAY_SCORE_PART);
    for (size_t r = piece->row; r < piece->row + piece->rows; r++) {
        size_t label = (size_t)tile->labels[tile->begin + r];
        if (label >= piece->first && label - piece->first < piece->count)
            tile->label_logits[side * TILE_ROWS + r] =
                logits[(r - piece->row) * ASSAY_SCORE_PART + label - piece->first];
    }
}

/* Row r of the piece: the reference and variants [begin, end), whose logits are in slots 1, 2, .. */
static void reduce_row(const struct tile *tile, const struct piece *piece, size_t r, size_t begin, size_t end)
{
    _Alignas(64) float weights[ASSAY_SCORE_PART];
    const float *ref = piece->logits + r * ASSAY_SCORE_PART;
    size_t row = piece->row + r;
    struct assay_score_part *part = &tile->parts[piece->part * TILE_ROWS + row];
    tile->ops->reduce(ref, piece->count, weights, part);
    for (size_t v = begin; v < end; v++)
        tile->ops->compare(ref, ref + (v - begin + 1) * BLOCK_FLOATS, piece->count, weights, part,
                           &tile->gaps[(v * tile->parts_count + piece->part) * TILE_ROWS + row]);
}

static void score_piece(void *arg, size_t index, size_t thread)
{
    struct tile *tile = arg;
    struct room *room = &tile->rooms[thread];
    size_t blocks = (tile->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    struct piece piece = {.part = index / blocks, .row = index % blocks * BLOCK_ROWS, .logits = room->logits};
    piece.first = piece.part * ASSAY_SCORE_PART;
    piece.count = ASSAY_MIN(tile->vocab - piece.first, (size_t)ASSAY_SCORE_PART);
    piece.rows = ASSAY_MIN(tile->rows - piece.row, BLOCK_ROWS);
    double now = cpu_seconds();
    multiply_side(tile, &piece, 0, 0);
    for (size_t begin = 0, end; begin < tile->variants_count; begin = end) {
        end = ASSAY_MIN(begin + tile->abreast, tile->variants_count);
        for (size_t v = begin; v < end; v++)
            multiply_side(tile, &piece, v + 1, v - begin + 1);
        now = spend(now, &room->cost.products_s);
        for (size_t r = 0; r < piece.rows; r++)
            reduce_row(tile, &piece, r, begin, end);
        now = spend(now, &room->cost.reductions_s);
    }
}

static void join_row(void *arg, size_t row, size_t thread)
{
    struct tile *tile = arg;
    struct room *room = &tile->rooms[thread];
    size_t count = tile->parts_count;
    double begin = cpu_seconds();
    for (size_t i = 0; i < count; i++)
        room->parts[i] = tile->parts[i * TILE_ROWS + row];
    struct assay_row_figures figures = assay_row_join(room->parts, count, room->shares);
    for (size_t v = 0; v < tile->variants_count; v++) {
        for (size_t i = 0; i < count; i++)
            room->gaps[i] = tile->gaps[(v * count + i) * TILE_ROWS + row];
        tile->positions[v * tile->rows_all + tile->begin + row] =
            assay_row_compare(tile->ops, &figures, room->parts, room->shares, room->gaps, count,
                              tile->label_logits[row], tile->label_logits[(v + 1) * TILE_ROWS + row], room->middles);
    }
    spend(begin, &room->cost.reductions_s);
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

static void release(struct tile *tile, size_t threads)
{
    for (size_t i = 0; tile->rooms && i < threads; i++) {
        free(tile->rooms[i].logits);
        free(tile->rooms[i].parts);
        free(tile->rooms[i].gaps);
        free(tile->rooms[i].shares);
    }
    free(tile->rooms);
    free(tile->parts);
    free(tile->gaps);
    free(tile->label_logits);
}

static bool allocate_room(const struct tile *tile, struct room *room)
{
    room->logits = aligned_alloc(64, (1 + tile->abreast) * BLOCK_FLOATS * sizeof *room->logits);
    room->parts = malloc(tile->parts_count * sizeof *room->parts);
    room->gaps = malloc(tile->parts_count * sizeof *room->gaps);
    room->shares = malloc(2 * tile->parts_count * sizeof *room->shares);
    if (!room->logits || !room->parts || !room->gaps || !room->shares)
        return false;
    room->middles = room->shares + tile->parts_count;
    return true;
}

static enum assay_status allocate(struct tile *tile, size_t threads, struct assay_err *err)
{
    tile->rooms = calloc(threads, sizeof *tile->rooms);
    tile->parts = malloc(TILE_ROWS * tile->parts_count * sizeof *tile->parts);
    tile->gaps = malloc(tile->variants_count * TILE_ROWS * tile->parts_count * sizeof *tile->gaps);
    tile->label_logits = malloc((1 + tile->variants_count) * TILE_ROWS * sizeof *tile->label_logits);
    bool made = tile->rooms && tile->parts && tile->gaps && tile->label_logits;
    for (size_t i = 0; made && i < threads; i++)
        made = allocate_room(tile, &tile->rooms[i]);
    if (made)
        return ASSAY_OK;
    release(tile, threads);
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                         "out of memory to score %zu variants over a vocabulary of %zu with %zu threads",
                         tile->variants_count, tile->vocab, threads);
}

enum assay_status assay_score_measured(struct assay_pool *pool, const struct assay_scoring_side *reference,
                                       const struct assay_scoring_side *variants, size_t variants_count,
                                       const int32_t *labels, size_t rows, struct assay_position *positions,
                                       struct assay_scoring_cost *cost, struct assay_err *err)
{
    *cost = (struct assay_scoring_cost){0};
    enum assay_status status = check_request(reference, variants, variants_count, labels, rows, err);
    const struct assay_kernels *kernels = NULL;
    if (status == ASSAY_OK)
        status = assay_kernels_select(&kernels, err);
    if (status != ASSAY_OK || rows == 0 || variants_count == 0)
        return status;

    size_t vocab = assay_head_vocab(reference->head), threads = assay_pool_threads(pool);
    struct tile tile = {.ops = assay_score_ops(kernels),
                        .reference = reference,
                        .variants = variants,
                        .variants_count = variants_count,
                        .abreast = ASSAY_MIN(variants_count, ABREAST_MAX),
                        .vocab = vocab,
                        .parts_count = assay_row_parts(vocab),
                        .rows_all = rows,
                        .labels = labels,
                        .positions = positions};
    status = allocate(&tile, threads, err);
    if (status != ASSAY_OK)
        return status;
    for (; tile.begin < rows; tile.begin += tile.rows) {
        tile.rows = ASSAY_MIN(rows - tile.begin, TILE_ROWS);
        size_t blocks = (tile.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
        assay_pool_run(pool, tile.parts_count * blocks, score_piece, &tile);
        assay_pool_run(pool, tile.rows, join_row, &tile);
    }
    for (size_t i = 0; i < threads; i++) {
        cost->products_s += tile.rooms[i].cost.products_s;
        cost->reductions_s += tile.rooms[i].cost.reductions_s;
    }
    release(&tile, threads);
    return ASSAY_OK;
}

enum assay_status assay_score(struct assay_pool *pool, const struct assay_scoring_side *reference,
                              const struct assay_scoring_side *variants, size_t variants_count, const int32_t *labels,
                              size_t rows, struct assay_position *positions, struct assay_err *err)
{
    struct assay_scoring_cost cost;
    return assay_score_measured(pool, reference, variants, variants_count, labels, rows, positions, &cost, err);
}
