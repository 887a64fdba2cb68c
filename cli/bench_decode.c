#include "cli/bench_decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/quant/nf4.h"

#define RUNS 9
#define GROUP 128
#define NF4_GROUP 64
#define PARTS_MAX 8 /* seven linears and the head */
#define READ_BYTES ((size_t)256 << 20)
#define READ_PIECES 64
#define TOGETHER_MAX 3 /* matrices that the rows go through at once */
#define LARGE_PAGE ((size_t)1 << 21)

enum scheme { F32, BF16, INT8, NF4, INT4, SCHEMES };

struct decode {
    struct assay_pool *pool;
    const struct assay_kernels *kernels;
    const struct assay_model_config *shape;
    size_t rows;                              /* tokens at once */
    struct assay_panels (*panels)[PARTS_MAX]; /* [layers + 1]; the last has the head alone */
    unsigned char *read;                      /* READ_BYTES */
    unsigned char *raw;                       /* random bytes for one matrix of f32 */
    float *scales, *from, *to;
    cJSON *result;
    struct assay_err *err;
};

/* Seconds of CPU a thread, which other programs on the machine disturb less than the clock. */
static double now_s(const struct decode *d)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + (double)t.tv_nsec * 1e-9) / (double)assay_pool_threads(d->pool);
}

static void put(struct decode *d, const char *scheme, const char *what, double value)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", scheme, what);
    cJSON_AddNumberToObject(d->result, key, value);
}

/* --- what the machine reads --- */

struct reading {
    const unsigned char *bytes;
    size_t piece;
    uint64_t sums[ASSAY_POOL_THREADS_MAX]; /* so that the reading is not left out */
};

static void read_piece(void *arg, size_t index, size_t thread)
{
    typedef uint64_t four __attribute__((vector_size(32)));
    struct reading *r = arg;
    four sums[8] = {{0}};
    const four *at = (const four *)(const void *)(r->bytes + index * r->piece);
    for (size_t i = 0; i < r->piece / sizeof *at; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += at[i + j];
    for (size_t j = 0; j < 8; j++)
        r->sums[thread] += sums[j][0] ^ sums[j][1] ^ sums[j][2] ^ sums[j][3];
}

/* Bytes a second. */
static double measure_read(struct decode *d)
{
    struct reading r = {.bytes = d->read, .piece = READ_BYTES / READ_PIECES};
    double begin = now_s(d);
    assay_pool_run(d->pool, READ_PIECES, read_piece, &r);
    return (double)READ_BYTES / (now_s(d) - begin);
}

/* In large pages, as weights are. */
static enum assay_status read_new(struct decode *d)
{
    d->read = aligned_alloc(LARGE_PAGE, READ_BYTES);
    if (!d->read)
        return assay_err_set(d->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu bytes to read", READ_BYTES);
    madvise(d->read, READ_BYTES, MADV_HUGEPAGE);
    memset(d->read, 1, READ_BYTES);
    return ASSAY_OK;
}

/* --- a model's weights --- */

static enum assay_status pack(struct decode *d, enum scheme scheme, size_t n, size_t k, struct assay_panels *ret)
{
    static uint8_t zeros[1 << 20];
    if (scheme == F32 || scheme == BF16 || scheme == INT8) {
        static const enum assay_dtype dtypes[] = {[F32] = ASSAY_F32, [BF16] = ASSAY_BF16, [INT8] = ASSAY_I8};
        return assay_panels_pack(d->pool, dtypes[scheme], d->raw, d->scales, n, k, ret, d->err);
    }
    size_t group = scheme == NF4 ? NF4_GROUP : GROUP;
    struct assay_codes src = {.codes = d->raw,
                              .high_first = scheme == NF4,
                              .row_codes = (k + 7) / 8 * 8,
                              .group = group,
                              .row_span = (k + group - 1) / group * group,
                              .scales = d->scales};
    src.groups = n * src.row_span / group;
    if (scheme == NF4)
        src.table = assay_nf4_table;
    else if (src.groups <= sizeof zeros)
        src.zeros = zeros;
    else
        return assay_err_set(d->err, ASSAY_UNIMPLEMENTED, "a matrix of %zu x %zu is too large for this bench", n, k);
    return assay_panels_pack_codes(d->pool, &src, n, k, ret, d->err);
}

static size_t linears_of(const struct assay_model_config *c, size_t sizes[PARTS_MAX][2])
{
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    const size_t all[][2] = {{query, c->hidden},
                             {key, c->hidden},
                             {key, c->hidden},
                             {c->hidden, query},
                             {c->intermediate, c->hidden},
                             {c->intermediate, c->hidden},
                             {c->hidden, c->intermediate}};
    memcpy(sizes, all, sizeof all);
    return ASSAY_COUNT(all);
}

static enum assay_status pack_model(struct decode *d, enum scheme scheme)
{
    size_t sizes[PARTS_MAX][2], count = linears_of(d->shape, sizes);
    enum assay_status status =
        pack(d, scheme == F32 ? F32 : BF16, d->shape->vocab, d->shape->hidden, &d->panels[d->shape->layers][0]);
    for (size_t layer = 0; layer < d->shape->layers && status == ASSAY_OK; layer++)
        for (size_t i = 0; i < count && status == ASSAY_OK; i++)
            status = pack(d, scheme, sizes[i][0], sizes[i][1], &d->panels[layer][i]);
    return status;
}

static void release_model(struct decode *d)
{
    for (size_t layer = 0; layer <= d->shape->layers; layer++)
        for (size_t i = 0; i < PARTS_MAX; i++)
            assay_panels_release(&d->panels[layer][i]);
}

/* The rows through `count` matrices of one width, at once as in a layer; returns the bytes of the weights. */
static double run_products(struct decode *d, const struct assay_panels *panels, size_t count)
{
    struct assay_product products[TOGETHER_MAX];
    double bytes = 0;
    float *to = d->to;
    for (size_t i = 0; i < count; i++) {
        products[i] = (struct assay_product){&panels[i], NULL, to, panels[i].n};
        to += d->rows * panels[i].n;
        bytes += (double)panels[i].bytes;
    }
    assay_gemm_several(d->kernels, d->pool, d->rows, d->from, panels->k, products, count, false);
    return bytes;
}

/* The rows through all of them. */
static double run_token(struct decode *d)
{
    static const size_t together[] = {3, 1, 2, 1}; /* see linears_of */
    double bytes = 0;
    assay_pool_quick_begin(d->pool);
    for (size_t layer = 0; layer < d->shape->layers; layer++) {
        const struct assay_panels *panels = d->panels[layer];
        for (size_t i = 0; i < ASSAY_COUNT(together); panels += together[i++])
            bytes += run_products(d, panels, together[i]);
    }
    bytes += run_products(d, d->panels[d->shape->layers], 1);
    assay_pool_quick_end(d->pool);
    return bytes;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Reading and decoding take turns, so that others on the machine disturb both alike. */
static enum assay_status measure_scheme(struct decode *d, enum scheme scheme)
{
    static const char *const names[] = {"f32", "bf16", "int8", "nf4", "int4"};
    enum assay_status status = pack_model(d, scheme);
    double read[RUNS], decoded[RUNS], share[RUNS], bytes = 0;
    for (int i = 0; i < RUNS && status == ASSAY_OK; i++) {
        read[i] = measure_read(d);
        double begin = now_s(d);
        bytes = run_token(d);
        decoded[i] = bytes / (now_s(d) - begin);
        share[i] = decoded[i] / read[i];
    }
    release_model(d);
    if (status != ASSAY_OK)
        return status;
    qsort(read, RUNS, sizeof *read, by_size);
    qsort(decoded, RUNS, sizeof *decoded, by_size);
    qsort(share, RUNS, sizeof *share, by_size);
    put(d, names[scheme], "_read_gb_per_second", read[RUNS / 2] * 1e-9);
    put(d, names[scheme], "_gb_per_second", decoded[RUNS / 2] * 1e-9);
    put(d, names[scheme], "_share_of_read", share[RUNS / 2]);
    put(d, names[scheme], "_tokens_per_second", (double)d->rows * decoded[RUNS / 2] / bytes);
    return ASSAY_OK;
}

static enum assay_status run(struct decode *d)
{
    const struct assay_model_config *c = d->shape;
    size_t widest = ASSAY_MAX(ASSAY_MAX(c->vocab, c->intermediate), c->hidden), bytes = widest * c->hidden * 4;
    bytes = ASSAY_MAX(bytes, c->intermediate * ASSAY_MAX(c->hidden, c->heads * c->head_dim) * 4);
    size_t scales = ASSAY_MAX(widest, bytes / 4 / NF4_GROUP + widest);
    d->panels = calloc(c->layers + 1, sizeof *d->panels);
    d->raw = malloc(bytes);
    d->scales = malloc(scales * sizeof *d->scales);
    d->from = malloc(d->rows * widest * sizeof *d->from);
    d->to = malloc(d->rows * TOGETHER_MAX * widest * sizeof *d->to);
    if (!d->panels || !d->raw || !d->scales || !d->from || !d->to)
        return assay_err_set(d->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model's weights");
    for (size_t i = 0; i < bytes; i++)
        d->raw[i] = (unsigned char)(i * 7 % 61); /* as f32 and bf16 small, normal numbers */
    for (size_t i = 0; i < scales; i++)
        d->scales[i] = 0.01f;
    for (size_t i = 0; i < d->rows * widest; i++)
        d->from[i] = 0.5f;
    enum assay_status status = read_new(d);
    for (size_t scheme = 0; scheme < SCHEMES && status == ASSAY_OK; scheme++)
        status = measure_scheme(d, (enum scheme)scheme);
    return status;
}

enum assay_status bench_decode(struct assay_pool *pool, const struct assay_kernels *kernels,
                               const struct assay_model_config *shape, size_t rows, cJSON *result,
                               struct assay_err *err)
{
    struct decode d = {.pool = pool, .kernels = kernels, .shape = shape, .rows = rows, .result = result, .err = err};
    enum assay_status status = run(&d);
    free(d.panels);
    free(d.raw);
    free(d.scales);
    free(d.from);
    free(d.to);
    free(d.read);
    return status;
}
