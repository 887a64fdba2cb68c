#include "cli/partial.h"

#include <inttypes.h>

#include "cli/report_cells.h"
#include "cli/words.h"

void assay_partial_table(const Assay__V1__Job *job, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    char hex[33];
    assay_buf_printf(out,
                     "PARTIAL RESULT of job %s, which was cancelled: figures are of the chunks that were scored; there "
                     "is no verdict\n",
                     assay_word_hex(job->job_id, 16, hex));
    assay_grid_head(&grid, "<variant|scored of planned|PPL ± SE|dPPL % [95 %]|KL mean (nats) [95 %]|same top-1 %");
    for (size_t i = 0; i < job->n_results; i++) {
        const Assay__V1__VariantResult *result = job->results[i];
        const Assay__V1__VariantScore *score = result->score;
        const Assay__V1__Distribution *kl = score && i > 0 ? score->kl_nats : NULL;
        assay_grid_cell(&grid, "%s", assay_result_label(result));
        assay_grid_cell(&grid, "%" PRIu64 "/%" PRIu64 " (%.1f %%)", result->chunks_scored, job->chunks,
                        job->chunks ? 100.0 * (double)result->chunks_scored / (double)job->chunks : 0.0);
        assay_cell_estimate(&grid, score ? score->perplexity : NULL, 4);
        assay_cell_change(&grid, score && i > 0 ? score->perplexity_increase_percent : NULL, 3);
        if (kl && kl->has_mean && kl->has_interval_low && kl->has_interval_high)
            assay_grid_cell(&grid, "%.3g [%.3g, %.3g]", kl->mean, kl->interval_low, kl->interval_high);
        else
            assay_cell_small(&grid, kl && kl->has_mean, kl ? kl->mean : 0);
        assay_cell_figure(&grid, assay_estimate_figure(score && i > 0 ? score->same_top1_percent : NULL), 2);
    }
    assay_grid_text(&grid, out);
    assay_grid_release(&grid);
}

static void add_estimate(cJSON *object, const char *name, const Assay__V1__Estimate *estimate)
{
    cJSON *figure = cJSON_AddObjectToObject(object, name);
    if (!estimate || !estimate->has_value) {
        cJSON_AddNullToObject(figure, "value");
        cJSON_AddStringToObject(figure, "missing", estimate && estimate->missing ? estimate->missing : "not scored");
        return;
    }
    cJSON_AddNumberToObject(figure, "value", estimate->value);
    if (estimate->has_interval_low)
        cJSON_AddNumberToObject(figure, "interval_low", estimate->interval_low);
    if (estimate->has_interval_high)
        cJSON_AddNumberToObject(figure, "interval_high", estimate->interval_high);
}

static void add_kl(cJSON *object, const Assay__V1__Distribution *kl)
{
    cJSON *figure = cJSON_AddObjectToObject(object, "kl_mean_nats");
    if (!kl || !kl->has_mean) {
        cJSON_AddNullToObject(figure, "value");
        cJSON_AddStringToObject(figure, "missing", "not scored");
        return;
    }
    cJSON_AddNumberToObject(figure, "value", kl->mean);
    if (kl->has_interval_low)
        cJSON_AddNumberToObject(figure, "interval_low", kl->interval_low);
    if (kl->has_interval_high)
        cJSON_AddNumberToObject(figure, "interval_high", kl->interval_high);
}

cJSON *assay_partial_json(const Assay__V1__Job *job)
{
    cJSON *object = assay_job_json(job);
    cJSON_AddTrueToObject(object, "partial");
    cJSON *results = cJSON_AddArrayToObject(object, "results");
    for (size_t i = 0; i < job->n_results; i++) {
        const Assay__V1__VariantResult *result = job->results[i];
        const Assay__V1__VariantScore *score = result->score;
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "variant", assay_result_label(result));
        cJSON_AddBoolToObject(row, "reference", i == 0);
        cJSON_AddNumberToObject(row, "chunks_scored", (double)result->chunks_scored);
        cJSON_AddNumberToObject(row, "chunks_planned", (double)job->chunks);
        add_estimate(row, "perplexity", score ? score->perplexity : NULL);
        if (i > 0) {
            add_estimate(row, "perplexity_increase_percent", score ? score->perplexity_increase_percent : NULL);
            add_kl(row, score ? score->kl_nats : NULL);
            add_estimate(row, "same_top1_percent", score ? score->same_top1_percent : NULL);
        }
        cJSON_AddItemToArray(results, row);
    }
    return object;
}
