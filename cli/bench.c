/* Speed and memory of the engine, of scoring, of generating and of quantizing, beside the machine's own peak. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/bench_decode.h"
#include "cli/bench_model.h"
#include "cli/bench_quantize.h"
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/say.h"
#include "common/base/limits.h"
#include "common/kernels/kernels.h"
#include "common/nn/scoring.h"

#define NAME "bench"
#define CHUNK_TOKENS ((size_t)512)
#define RUNS 5
#define SCORE_ROWS ((size_t)168)
#define SCORE_CHECKED ((size_t)16)

struct bench {
    struct assay_pool *pool;
    const struct assay_kernels *kernels;
    struct assay_model_config shape;
    struct assay_spec spec;
    size_t threads, rows;
    cJSON *result;
    const char *parent;       /* where files are written; NULL: TMPDIR or /tmp */
    char dir[ASSAY_PATH_MAX]; /* of the model, "" before it is there */
    struct assay_err *err;
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of CPU a thread, which other programs on the machine disturb less than the clock. */
static double core_seconds(const struct bench *b)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID) / (double)b->threads;
}

static double median(double *values, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && values[j] < values[j - 1]; j--) {
            double swapped = values[j];
            values[j] = values[j - 1];
            values[j - 1] = swapped;
        }
    return values[n / 2];
}

static double resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return NAN;
    if (fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Forgets the largest resident memory so far, so that peak_bytes() is about what comes now. */
static void peak_forget(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

static double peak_bytes(void)
{
    char line[128];
    double kb = NAN;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtod(line + 6, NULL);
    if (file)
        fclose(file);
    return kb * 1024;
}

static void put(struct bench *b, const char *key, double value)
{
    cJSON_AddNumberToObject(b->result, key, value);
}

static float noise(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static enum assay_status noise_new(struct bench *b, size_t n, float scale, float **ret)
{
    float *x = malloc(n * sizeof *x);
    if (!x)
        return assay_err_set(b->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu numbers", n);
    for (size_t i = 0; i < n; i++)
        x[i] = noise() * scale;
    *ret = x;
    return ASSAY_OK;
}

static enum assay_status make_dir(struct bench *b)
{
    const char *parent = getenv("TMPDIR");
    parent = b->parent ? b->parent : parent && *parent ? parent : "/tmp";
    int length = snprintf(b->dir, sizeof b->dir, "%s/assay-bench-XXXXXX", parent);
    if (length < 0 || length >= (int)sizeof b->dir || !mkdtemp(b->dir)) {
        b->dir[0] = '\0';
        return assay_err_set(b->err, ASSAY_UNAVAILABLE, "cannot make a directory in %.200s", parent);
    }
    return ASSAY_OK;
}

static enum assay_status write_model(struct bench *b)
{
    enum assay_status status = make_dir(b);
    return status == ASSAY_OK ? bench_model_write(b->dir, &b->shape, &b->spec, b->err) : status;
}

/* Multiplications and additions of one chunk of tokens: the linears and both products of causal attention. */
static double chunk_operations(const struct assay_model_config *c)
{
    double query = (double)(c->heads * c->head_dim), key = (double)(c->kv_heads * c->head_dim),
           t = (double)CHUNK_TOKENS;
    double hidden = (double)c->hidden, weights = 2 * hidden * (query + key) + 3 * hidden * (double)c->intermediate;
    return (double)c->layers * (2 * t * weights + 2 * t * t * query);
}

static enum assay_status time_forward(struct bench *b, const struct assay_model *model, double *ret_core,
                                      double *ret_wall)
{
    static int32_t ids[CHUNK_TOKENS];
    for (size_t i = 0; i < CHUNK_TOKENS; i++)
        ids[i] = (int32_t)(i * 7919 % b->shape.vocab);
    float *hidden = NULL;
    enum assay_status status = noise_new(b, CHUNK_TOKENS * b->shape.hidden, 1, &hidden);
    if (status != ASSAY_OK)
        return status;
    const struct assay_sequence sequence = {ids, CHUNK_TOKENS, 0, CHUNK_TOKENS, hidden, NULL};
    double core[RUNS], wall[RUNS];
    for (size_t i = 0; i < RUNS && status == ASSAY_OK; i++) {
        double core_begin = core_seconds(b), wall_begin = seconds(CLOCK_MONOTONIC);
        status = assay_model_forward(model, b->pool, &sequence, 1, NULL, b->err);
        core[i] = core_seconds(b) - core_begin;
        wall[i] = seconds(CLOCK_MONOTONIC) - wall_begin;
    }
    free(hidden);
    if (status == ASSAY_OK) {
        *ret_core = median(core, RUNS);
        *ret_wall = median(wall, RUNS);
    }
    return status;
}

static enum assay_status bench_engine(struct bench *b)
{
    struct assay_model *model = NULL;
    double core = 0, wall = 0, resident = NAN, peak_f32 = assay_kernels_peak(b->kernels, false);
    double peak = b->spec.compute == ASSAY_COMPUTE_BF16 ? assay_kernels_peak(b->kernels, true) : peak_f32;
    enum assay_status status = write_model(b);
    if (status == ASSAY_OK)
        status = assay_load(b->dir, b->pool, &model, NULL, b->err);
    if (status == ASSAY_OK)
        status = time_forward(b, model, &core, &wall);
    resident = resident_bytes();
    if (status == ASSAY_OK) {
        double packed = (double)assay_model_bytes(model), operations = chunk_operations(&b->shape);
        put(b, "peak_f32_gops_per_core", peak_f32 * 1e-9);
        put(b, "peak_gops_per_core", peak * 1e-9);
        put(b, "chunk_tokens", (double)CHUNK_TOKENS);
        put(b, "tokens_per_second", (double)CHUNK_TOKENS / wall);
        put(b, "tokens_per_core_second", (double)CHUNK_TOKENS / core / (double)b->threads);
        put(b, "gops_per_core", operations / core / (double)b->threads * 1e-9);
        put(b, "share_of_peak", operations / core / (double)b->threads / peak);
        put(b, "packed_bytes", packed);
        put(b, "resident_bytes", resident);
        put(b, "resident_beyond_packed_bytes", resident - packed);
    }
    assay_model_free(model);
    return status;
}

/* Worst relative error of KL over the first rows, against float64 from the same logits. */
static enum assay_status check_score(struct bench *b, const struct assay_head *head, const float *ref, const float *var,
                                     const struct assay_position *positions)
{
    size_t vocab = assay_head_vocab(head);
    assay_auto(assay_free_ptr) float *logits = malloc(2 * SCORE_CHECKED * vocab * sizeof *logits);
    if (!logits)
        return assay_err_set(b->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu rows of logits",
                             2 * SCORE_CHECKED);
    float *other = logits + SCORE_CHECKED * vocab;
    double worst = 0, kl = 0;
    assay_head_logits(head, b->pool, ref, SCORE_CHECKED, logits);
    assay_head_logits(head, b->pool, var, SCORE_CHECKED, other);
    for (size_t row = 0; row < SCORE_CHECKED; row++) {
        double want = assay_score_row_f64(logits + row * vocab, other + row * vocab, vocab, 0).kl;
        worst = fmax(worst, fabs(positions[row].kl / want - 1));
        kl += want / (double)SCORE_CHECKED;
    }
    put(b, "kl_mean", kl);
    put(b, "kl_worst_relative_error", worst);
    return ASSAY_OK;
}

static enum assay_status run_score(struct bench *b, const struct assay_head *head, const float *ref, float *var)
{
    static struct assay_position positions[SCORE_ROWS];
    static const int32_t labels[SCORE_ROWS];
    double products[RUNS], reductions[RUNS], resident = 0;
    for (size_t i = 0; i < SCORE_ROWS * assay_head_hidden(head); i++)
        var[i] = ref[i] + var[i];
    const struct assay_scoring_side reference = {head, ref}, variant = {head, var};
    enum assay_status status = ASSAY_OK;
    peak_forget();
    for (size_t i = 0; i < RUNS && status == ASSAY_OK; i++) {
        struct assay_scoring_cost cost;
        status = assay_score_measured(b->pool, &reference, &variant, 1, labels, SCORE_ROWS, positions, &cost, b->err);
        products[i] = cost.products_s * 1e3 / (double)SCORE_ROWS;
        reductions[i] = cost.reductions_s * 1e3 / (double)SCORE_ROWS;
    }
    if (status != ASSAY_OK)
        return status;
    resident = peak_bytes();
    double packed = (double)assay_head_bytes(head), operations = 4 * (double)assay_head_hidden(head);
    put(b, "vocabulary", (double)assay_head_vocab(head));
    double spent = median(products, RUNS);
    put(b, "ms_head_products", spent);
    put(b, "head_products_share_of_peak",
        operations * (double)assay_head_vocab(head) / spent * 1e3 / assay_kernels_peak(b->kernels, false));
    put(b, "ms_beyond_head_products", median(reductions, RUNS));
    put(b, "packed_heads_bytes", packed);
    put(b, "resident_bytes_at_most", resident);
    put(b, "resident_beyond_packed_bytes", resident - packed);
    return check_score(b, head, ref, var, positions);
}

static enum assay_status bench_score(struct bench *b)
{
    struct assay_head *head = NULL;
    assay_auto(assay_free_ptr) float *ref = NULL, *var = NULL;
    size_t d = b->shape.hidden, layers = b->shape.layers;
    b->shape.layers = 1; /* the head is all that is read */
    enum assay_status status = write_model(b);
    b->shape.layers = layers;
    if (status == ASSAY_OK)
        status = assay_load(b->dir, b->pool, NULL, &head, b->err);
    if (status == ASSAY_OK)
        status = noise_new(b, SCORE_ROWS * d, 10, &ref);
    if (status == ASSAY_OK)
        status = noise_new(b, SCORE_ROWS * d, 0.3f, &var);
    if (status == ASSAY_OK)
        status = run_score(b, head, ref, var);
    assay_head_free(head);
    return status;
}

static enum assay_status quantize(struct bench *b)
{
    enum assay_status status = make_dir(b);
    return status == ASSAY_OK ? bench_quantize(b->pool, &b->shape, b->dir, b->result, b->err) : status;
}

static enum assay_status decode(struct bench *b)
{
    return bench_decode(b->pool, b->kernels, &b->shape, b->rows, b->result, b->err);
}

static const struct {
    const char *name;
    enum assay_status (*run)(struct bench *b);
} benches[] = {{"engine", bench_engine}, {"score", bench_score}, {"decode", decode}, {"quantize", quantize}};

static enum assay_status read_shape(const char *text, struct assay_model_config *ret, struct assay_err *err)
{
    struct assay_checkpoint *checkpoint;
    *ret = bench_shape_qwen;
    if (strcmp(text, "qwen2.5-0.5b") == 0)
        return ASSAY_OK;
    enum assay_status status = assay_checkpoint_open(text, &checkpoint, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_model_config_read(assay_checkpoint_config(checkpoint), text, ret, err);
    assay_checkpoint_close(checkpoint);
    ret->positions_max = ASSAY_MAX(ret->positions_max, CHUNK_TOKENS);
    return status;
}

static void print_result(const struct bench *b, bool json)
{
    const cJSON *item;
    if (json) {
        char *text = cJSON_Print(b->result);
        puts(text ? text : "{}");
        free(text);
        return;
    }
    cJSON_ArrayForEach(item, b->result)
    {
        if (cJSON_IsString(item))
            printf("%-44s %s\n", item->string, item->valuestring);
        else
            printf("%-44s %.6g\n", item->string, item->valuedouble);
    }
}

static enum assay_status run(struct bench *b, const char *what, const char *shape, const char *scheme, bool json)
{
    char text[ASSAY_SPEC_TEXT_MAX];
    enum assay_status status = assay_spec_parse(scheme, &b->spec, b->err);
    if (status == ASSAY_OK)
        status = read_shape(shape, &b->shape, b->err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&b->kernels, b->err);
    if (status == ASSAY_OK)
        status = assay_pool_new(b->threads, NULL, &b->pool, b->err);
    if (status != ASSAY_OK)
        return status;
    b->result = cJSON_CreateObject();
    cJSON_AddStringToObject(b->result, "bench", what);
    cJSON_AddStringToObject(b->result, "shape", shape);
    cJSON_AddStringToObject(b->result, "scheme", assay_spec_format(&b->spec, text));
    cJSON_AddStringToObject(b->result, "path", b->kernels->name);
    put(b, "threads", (double)b->threads);
    for (size_t i = 0; i < ASSAY_COUNT(benches) && status == ASSAY_OK; i++)
        if (strcmp(benches[i].name, what) == 0)
            status = benches[i].run(b);
    if (status == ASSAY_OK)
        print_result(b, json);
    struct assay_err ignored = ASSAY_ERR_INIT;
    if (b->dir[0] && assay_remove_tree(b->dir, &ignored) != ASSAY_OK)
        assay_say_failure(NAME, &ignored);
    cJSON_Delete(b->result);
    assay_pool_free(b->pool);
    return status;
}

int assay_command_bench(int argc, char **argv)
{
    const char *what = NULL, *shape = "qwen2.5-0.5b", *scheme = "fp32", *dir = NULL;
    bool json = false;
    int64_t threads = 1, rows = 1;
    const struct assay_setting settings[] = {
        {.name = "shape",
         .type = ASSAY_SETTING_STRING,
         .target = &shape,
         .argument = "SHAPE",
         .help = "qwen2.5-0.5b, or a model directory whose sizes to take; weights are random"},
        {.name = "scheme",
         .type = ASSAY_SETTING_STRING,
         .target = &scheme,
         .argument = "SCHEME",
         .help = "how the weights of `engine` are stored and multiplied, as nf4:compute=bf16"},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads to compute with"},
        {.name = "rows",
         .type = ASSAY_SETTING_INT,
         .target = &rows,
         .min = 1,
         .max = 64,
         .argument = "N",
         .help = "sequences that `decode` goes on with at once, a token each"},
        {.name = "dir",
         .type = ASSAY_SETTING_STRING,
         .target = &dir,
         .argument = "DIR",
         .help = "where to write models of random weights, which are removed; TMPDIR or /tmp unless given"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print JSON"},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " engine|score|decode|quantize [OPTIONS]",
        .summary = "Measures speed and memory beside this machine's own peak; times are medians of CPU time.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &what,
        .positional_min = 1,
        .positional_max = 1,
    };
    int exit_code;
    if (!assay_say_parse(NAME, &command, argc, argv, &exit_code))
        return exit_code;
    struct assay_err err = ASSAY_ERR_INIT;
    bool known = false;
    for (size_t i = 0; i < ASSAY_COUNT(benches); i++)
        known |= strcmp(benches[i].name, what) == 0;
    if (!known) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "found '%.40s', wanted engine, score, decode or quantize", what);
        return assay_say_setting_failure(NAME, &err);
    }
    struct bench bench = {.threads = (size_t)threads, .rows = (size_t)rows, .parent = dir, .err = &err};
    return run(&bench, what, shape, scheme, json) == ASSAY_OK ? 0 : assay_say_failure(NAME, &err);
}
