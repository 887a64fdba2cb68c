/* Two files of logits of the same ids against each other, in float64. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/ids.h"
#include "cli/say.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"
#include "common/nn/scoring.h"
#include "common/stats/stats.h"

#define NAME "compare-logits"

static void close_file(struct assay_safetensors **file)
{
    assay_safetensors_close(*file);
}

/* One side: row t predicts ids[t + 1]. */
struct side {
    const char *path;
    const struct assay_tensor *logits; /* [T, V] */
    float *row;
};

static enum assay_status find_logits(const struct assay_safetensors *file, struct side *side, size_t ids_count,
                                     struct assay_err *err)
{
    const struct assay_tensor *t = assay_safetensors_find(file, "logits");
    if (!t)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: has no tensor 'logits'", side->path);
    if (t->dtype != ASSAY_F32 && t->dtype != ASSAY_F16 && t->dtype != ASSAY_BF16)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: logits are %s, wanted F32, F16 or BF16", side->path,
                             assay_dtype_name(t->dtype));
    if (t->rank != 2 || t->shape[1] == 0 || t->shape[1] > INT32_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: logits have rank %zu, wanted [tokens, vocabulary]",
                             side->path, t->rank);
    if (t->shape[0] != ids_count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: logits have %llu rows for %zu ids", side->path,
                             (unsigned long long)t->shape[0], ids_count);
    side->logits = t;
    return ASSAY_OK;
}

static void load_row(struct side *side, size_t t)
{
    size_t vocab = side->logits->shape[1];
    const unsigned char *row = side->logits->data;
    row += t * vocab * assay_dtype_bytes(side->logits->dtype);
    if (!assay_dtype_to_f32(side->logits->dtype, row, vocab, side->row))
        ASSAY_BUG("a dtype that was checked before");
}

/* What is kept of each scored position. */
struct columns {
    double *nll_ref, *nll_var, *kl;
    uint8_t *same_top;
};

static void release_columns(struct columns *c)
{
    free(c->nll_ref);
    free(c->nll_var);
    free(c->kl);
    free(c->same_top);
}

static enum assay_status score_rows(struct side *ref, struct side *var, const int32_t *ids, size_t rows,
                                    struct columns *columns, struct assay_err *err)
{
    size_t vocab = ref->logits->shape[1];
    for (size_t t = 0; t < rows; t++) {
        load_row(ref, t);
        load_row(var, t);
        struct assay_position p = assay_score_row_f64(ref->row, var->row, vocab, ids[t + 1]);
        if (isnan(p.kl) || isnan(p.nll_ref) || isnan(p.nll_var))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: row %zu is no distribution (NaN, +inf, or -inf alone)",
                                 p.top_ref == ASSAY_TOP_NONE_REF ? ref->path : var->path, t);
        columns->nll_ref[t] = p.nll_ref;
        columns->nll_var[t] = p.nll_var;
        columns->kl[t] = p.kl;
        columns->same_top[t] = p.top_ref == p.top_var;
    }
    return ASSAY_OK;
}

struct result {
    struct assay_pair_summary pair;
    double perplexity_ref;
};

static enum assay_status compare(struct side *ref, struct side *var, const int32_t *ids, size_t ids_count,
                                 struct result *ret, struct assay_err *err)
{
    size_t vocab = ref->logits->shape[1], rows = ids_count - 1;
    if (var->logits->shape[1] != vocab)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s has a vocabulary of %zu, %s one of %llu", ref->path,
                             vocab, var->path, (unsigned long long)var->logits->shape[1]);
    for (size_t t = 0; t < ids_count; t++)
        if ((size_t)ids[t] >= vocab)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "id %zu is %d, the vocabulary has %zu ids", t, (int)ids[t],
                                 vocab);
    assay_auto(release_columns) struct columns columns = {
        .nll_ref = malloc(rows * sizeof(double)),
        .nll_var = malloc(rows * sizeof(double)),
        .kl = malloc(rows * sizeof(double)),
        .same_top = malloc(rows),
    };
    assay_auto(assay_free_ptr) float *buffer = malloc(2 * vocab * sizeof *buffer);
    if (!columns.nll_ref || !columns.nll_var || !columns.kl || !columns.same_top || !buffer)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu rows of %zu logits", rows, vocab);
    ref->row = buffer;
    var->row = buffer + vocab;
    enum assay_status status = score_rows(ref, var, ids, rows, &columns, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_pair_series series = {
        columns.nll_ref, columns.nll_var, columns.kl, columns.same_top, {&rows, 1}};
    ret->perplexity_ref = assay_stats_perplexity(columns.nll_ref, &series.chunks).value;
    return assay_stats_pair(&series, NULL, &ret->pair, err);
}

/* Infinity has no JSON; it becomes null. */
static enum assay_status print_json(const struct result *result, struct assay_err *err)
{
    const struct {
        const char *key;
        double value;
    } rows[] = {
        {"ppl", result->pair.perplexity.value}, {"kl_mean", result->pair.kl.mean},
        {"kl_median", result->pair.kl.median},  {"kl_p99", result->pair.kl.p99},
        {"kl_max", result->pair.kl.max},        {"same_top1", result->pair.same_top1_percent.value / 100.0},
        {"ppl_ref", result->perplexity_ref},    {"n", (double)result->pair.kl.n},
    };
    assay_auto(assay_json_delete) cJSON *json = cJSON_CreateObject();
    bool complete = json != NULL;
    for (size_t i = 0; i < ASSAY_COUNT(rows) && complete; i++)
        complete = cJSON_AddNumberToObject(json, rows[i].key, rows[i].value) != NULL;
    assay_auto(assay_free_ptr) char *text = complete ? cJSON_Print(json) : NULL;
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the result");
    puts(text);
    return ASSAY_OK;
}

static void print_table(const struct result *result)
{
    const struct assay_pair_summary *pair = &result->pair;
    printf("perplexity, reference      %.6f\n", result->perplexity_ref);
    printf("perplexity, variant        %.6f  (%+.4f %%)\n", pair->perplexity.value,
           pair->perplexity_increase_percent.value);
    printf("KL mean +- standard error  %.6g +- %.2g nats\n", pair->kl.mean, pair->kl.se);
    printf("KL median, p99, max        %.6g  %.6g  %.6g\n", pair->kl.median, pair->kl.p99, pair->kl.max);
    printf("same top-1                 %.3f %%\n", pair->same_top1_percent.value);
    printf("positions                  %zu\n", pair->kl.n);
}

static enum assay_status run(const char *const paths[2], const char *ids_path, struct result *ret,
                             struct assay_err *err)
{
    assay_auto(assay_free_ptr) int32_t *ids = NULL;
    size_t ids_count = 0;
    enum assay_status status = assay_ids_load(ids_path, &ids, &ids_count, err);
    if (status != ASSAY_OK)
        return status;
    if (ids_count < 2)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: holds one id, at least 2 are needed to score", ids_path);
    assay_auto(close_file) struct assay_safetensors *ref_file = NULL, *var_file = NULL;
    struct side ref = {.path = paths[0]}, var = {.path = paths[1]};
    if ((status = assay_safetensors_open(ref.path, &ref_file, err)) != ASSAY_OK ||
        (status = assay_safetensors_open(var.path, &var_file, err)) != ASSAY_OK ||
        (status = find_logits(ref_file, &ref, ids_count, err)) != ASSAY_OK ||
        (status = find_logits(var_file, &var, ids_count, err)) != ASSAY_OK)
        return status;
    return compare(&ref, &var, ids, ids_count, ret, err);
}

int assay_command_compare_logits(int argc, char **argv)
{
    const char *ids_path = NULL, *paths[2] = {NULL, NULL};
    bool as_json = false;
    const struct assay_setting settings[] = {
        {.name = "ids",
         .type = ASSAY_SETTING_STRING,
         .target = &ids_path,
         .argument = "FILE",
         .help = "JSON array of token ids; row t predicts ids[t + 1]",
         .required = true},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &as_json, .help = "the result as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " REF.safetensors VAR.safetensors --ids FILE [--json]",
        .summary = "Perplexity and KL divergence from two files with a tensor logits [tokens, vocabulary].",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = paths,
        .positional_min = 2,
        .positional_max = 2,
    };
    int exit_code;
    if (!assay_say_parse(NAME, &command, argc, argv, &exit_code))
        return exit_code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct result result;
    enum assay_status status = run(paths, ids_path, &result, &err);
    if (status == ASSAY_OK && as_json)
        status = print_json(&result, &err);
    else if (status == ASSAY_OK)
        print_table(&result);
    return status == ASSAY_OK ? 0 : assay_say_failure(NAME, &err);
}
