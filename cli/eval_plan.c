#include "cli/eval_plan.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cli/grid.h"
#include "cli/words.h"
#include "common/base/clock.h"
#include "common/kernels/kernels.h"

/* Rows of the head that are timed; the rest costs as much a row. */
#define HEAD_ROWS 4096
#define TRIES 3

/* A buffer of small numbers of both signs; NULL when out of memory. */
static float *random_floats(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    uint32_t seed = 12345;
    for (size_t i = 0; x && i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed * 0x1p-34f;
    }
    return x;
}

/* Fastest of some tries of one product, in microseconds. */
static enum assay_status time_product(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, size_t n,
                                      size_t k, double *ret_us, struct assay_err *err)
{
    assay_auto(assay_free_ptr) float *a = random_floats(m * k), *w = random_floats(n * k), *c = random_floats(m * n);
    struct assay_panels panels = {0};
    if (!a || !w || !c)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a product of %zu x %zu x %zu", m, n, k);
    enum assay_status status = assay_panels_pack(pool, ASSAY_F32, w, NULL, n, k, &panels, err);
    if (status != ASSAY_OK)
        return status;
    for (int i = 0; i < TRIES; i++) {
        int64_t begin_us = assay_now_us();
        assay_gemm(kernels, pool, m, a, k, &panels, NULL, c, n);
        double us = (double)(assay_now_us() - begin_us);
        *ret_us = i == 0 ? us : ASSAY_MIN(*ret_us, us);
    }
    assay_panels_release(&panels);
    return ASSAY_OK;
}

static enum assay_status time_attention(const struct assay_kernels *kernels, struct assay_pool *pool,
                                        const struct assay_model_config *config, size_t tokens, double *ret_us,
                                        struct assay_err *err)
{
    const struct assay_attention_shape shape = {
        .heads = config->heads, .kv_heads = config->kv_heads, .head_dim = config->head_dim, .scale = 0.125f};
    const struct assay_attention_span span = {0, tokens};
    size_t q_floats = tokens * config->heads * config->head_dim,
           kv_floats = tokens * config->kv_heads * config->head_dim;
    size_t workspace_floats = assay_attention_workspace(&shape, &span, 1, assay_pool_threads(pool));
    assay_auto(assay_free_ptr) float *q = random_floats(q_floats), *k = random_floats(kv_floats),
                                     *v = random_floats(kv_floats);
    assay_auto(assay_free_ptr) float *out = random_floats(q_floats), *workspace = random_floats(workspace_floats);
    if (!q || !k || !v || !out || !workspace)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for attention over %zu tokens", tokens);
    for (int i = 0; i < TRIES; i++) {
        int64_t begin_us = assay_now_us();
        assay_attention(kernels, pool, &shape, &span, 1, q, k, v, out, workspace);
        double us = (double)(assay_now_us() - begin_us);
        *ret_us = i == 0 ? us : ASSAY_MIN(*ret_us, us);
    }
    return ASSAY_OK;
}

enum assay_status assay_speed_measure(const struct assay_model_config *config, size_t window_tokens,
                                      struct assay_pool *pool, struct assay_speed *ret, struct assay_err *err)
{
    const struct assay_kernels *kernels = NULL;
    size_t q = config->heads * config->head_dim, kv = config->kv_heads * config->head_dim;
    const size_t shapes[][2] = {{q, config->hidden},
                                {kv, config->hidden},
                                {kv, config->hidden},
                                {config->hidden, q},
                                {config->intermediate, config->hidden},
                                {config->intermediate, config->hidden},
                                {config->hidden, config->intermediate}};
    double layer_us = 0, attention_us = 0, head_us = 0;
    enum assay_status status = assay_kernels_select(&kernels, err);
    for (size_t i = 0; i < ASSAY_COUNT(shapes) && status == ASSAY_OK; i++) {
        double us = 0;
        status = time_product(kernels, pool, window_tokens, shapes[i][0], shapes[i][1], &us, err);
        layer_us += us;
    }
    if (status == ASSAY_OK)
        status = time_attention(kernels, pool, config, window_tokens, &attention_us, err);
    size_t head_rows = ASSAY_MIN(config->vocab, (size_t)HEAD_ROWS);
    if (status == ASSAY_OK)
        status = time_product(kernels, pool, window_tokens, head_rows, config->hidden, &head_us, err);
    if (status != ASSAY_OK)
        return status;
    ret->us_per_chunk = (layer_us + attention_us) * (double)config->layers;
    ret->us_per_position = head_us / (double)window_tokens * (double)config->vocab / (double)head_rows;
    return ASSAY_OK;
}

struct assay_plan_cost assay_plan_cost_of(const Assay__V1__JobPlan *plan, const struct assay_speed *speed)
{
    struct assay_plan_cost cost = {0};
    for (size_t i = 0; i < plan->n_variants; i++) {
        const Assay__V1__PlannedVariant *variant = plan->variants[i];
        uint64_t to_run = variant->has_chunks_to_run ? variant->chunks_to_run : plan->chunks;
        double us = variant->has_us_per_chunk ? variant->us_per_chunk : speed->us_per_chunk;
        cost.run_seconds += (double)to_run * us / 1e6;
        cost.chunks_to_run += to_run;
        cost.chunks_cached += variant->chunks_cached;
        if (plan->chunks)
            cost.record_bytes += variant->record_bytes / plan->chunks * to_run;
    }
    cost.score_seconds = (double)plan->scored_positions * speed->us_per_position * (double)plan->n_variants / 1e6;
    return cost;
}

static void print_json(const Assay__V1__JobPlan *plan, const struct assay_speed *speed, struct assay_buf *out)
{
    struct assay_plan_cost cost = assay_plan_cost_of(plan, speed);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "schema", "assay.plan/1");
    cJSON_AddStringToObject(object, "architecture", assay_word_or(plan->architecture, "?"));
    cJSON_AddNumberToObject(object, "parameters", (double)plan->parameters);
    cJSON_AddNumberToObject(object, "corpus_tokens", (double)plan->tokens);
    cJSON_AddNumberToObject(object, "chunks", (double)plan->chunks);
    cJSON_AddNumberToObject(object, "window_tokens", (double)plan->window_tokens);
    cJSON_AddNumberToObject(object, "scored_positions", (double)plan->scored_positions);
    cJSON *variants = cJSON_AddArrayToObject(object, "variants");
    for (size_t i = 0; i < plan->n_variants; i++) {
        const Assay__V1__PlannedVariant *variant = plan->variants[i];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "label", assay_word_or(variant->variant ? variant->variant->label : NULL, "?"));
        cJSON_AddBoolToObject(row, "artifact_ready", variant->artifact_ready);
        if (variant->has_chunks_cached)
            cJSON_AddNumberToObject(row, "chunks_cached", (double)variant->chunks_cached);
        else
            cJSON_AddNullToObject(row, "chunks_cached");
        if (variant->has_us_per_chunk)
            cJSON_AddNumberToObject(row, "measured_us_per_chunk", variant->us_per_chunk);
        else
            cJSON_AddNullToObject(row, "measured_us_per_chunk");
        cJSON_AddNumberToObject(row, "record_bytes", (double)variant->record_bytes);
        cJSON_AddItemToArray(variants, row);
    }
    cJSON_AddNumberToObject(object, "chunks_to_run", (double)cost.chunks_to_run);
    cJSON_AddNumberToObject(object, "new_record_bytes", (double)cost.record_bytes);
    cJSON_AddNumberToObject(object, "expected_run_seconds", cost.run_seconds);
    cJSON_AddNumberToObject(object, "expected_score_seconds", cost.score_seconds);
    char *text = cJSON_Print(object);
    if (text)
        assay_buf_printf(out, "%s\n", text);
    else
        out->failed = true;
    cJSON_free(text);
    cJSON_Delete(object);
}

static void print_table(const Assay__V1__JobPlan *plan, const struct assay_speed *speed, struct assay_buf *out)
{
    struct assay_plan_cost cost = assay_plan_cost_of(plan, speed);
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_printf(out,
                     "%s, %" PRIu64 " parameters; corpus of %" PRIu64 " tokens: %" PRIu64 " chunks of %" PRIu64
                     ", %" PRIu64 " scored positions\n",
                     assay_word_or(plan->architecture, "?"), plan->parameters, plan->tokens, plan->chunks,
                     plan->window_tokens, plan->scored_positions);
    assay_grid_head(&grid, "<variant|<artifact|chunks cached|chunks to run|new records MB|expected s|<time from");
    for (size_t i = 0; i < plan->n_variants; i++) {
        const Assay__V1__PlannedVariant *variant = plan->variants[i];
        uint64_t to_run = variant->has_chunks_to_run ? variant->chunks_to_run : plan->chunks;
        double us = variant->has_us_per_chunk ? variant->us_per_chunk : speed->us_per_chunk;
        assay_grid_cell(&grid, "%s", assay_word_or(variant->variant ? variant->variant->label : NULL, "?"));
        assay_grid_cell(&grid, "%s", variant->artifact_ready ? "ready" : "to make");
        assay_grid_cell(&grid, variant->has_chunks_cached ? "%" PRIu64 : "unknown", variant->chunks_cached);
        assay_grid_cell(&grid, "%" PRIu64, to_run);
        assay_grid_cell(&grid, "%.1f",
                        plan->chunks ? (double)variant->record_bytes / (double)plan->chunks * (double)to_run / 1e6
                                     : 0.0);
        assay_grid_cell(&grid, "%.1f", (double)to_run * us / 1e6);
        assay_grid_cell(&grid, "%s", variant->has_us_per_chunk ? "an earlier job" : "a short measurement");
    }
    assay_grid_text(&grid, out);
    assay_grid_release(&grid);
    assay_buf_printf(
        out,
        "expected: %.1f s of forward passes, %.1f s of scoring at most; %.1f MB of new records; nothing was started\n",
        cost.run_seconds, cost.score_seconds, (double)cost.record_bytes / 1e6);
}

void assay_plan_print(const Assay__V1__JobPlan *plan, const struct assay_speed *speed, bool json, struct assay_buf *out)
{
    if (json)
        print_json(plan, speed, out);
    else
        print_table(plan, speed, out);
}
