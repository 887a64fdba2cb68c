#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/stats/stats.h"

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Interpolates from the nearer end, so that a percentile never leaves its two neighbours; equal neighbours may be
 * infinite. */
static double percentile_of_sorted(const double *sorted, size_t n, double fraction)
{
    double position = fraction * (double)(n - 1);
    size_t below = (size_t)position;
    size_t above = below + 1 < n ? below + 1 : below;
    double share = position - (double)below;
    double low = sorted[below], high = sorted[above];
    if (share == 0.0 || low == high)
        return low;
    return share < 0.5 ? low + (high - low) * share : high - (high - low) * (1.0 - share);
}

enum assay_status assay_stats_percentiles(const double *values, size_t n, const double *fractions, size_t count,
                                          double *ret, struct assay_err *err)
{
    bool missing = n == 0;
    for (size_t i = 0; i < n && !missing; i++)
        missing = isnan(values[i]);
    if (missing) {
        for (size_t i = 0; i < count; i++)
            ret[i] = NAN;
        return ASSAY_OK;
    }
    double *sorted = n <= SIZE_MAX / sizeof *sorted ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the percentiles of %zu values", n);
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    for (size_t i = 0; i < count; i++)
        ret[i] = fractions[i] >= 0.0 && fractions[i] <= 1.0 ? percentile_of_sorted(sorted, n, fractions[i]) : NAN;
    free(sorted);
    return ASSAY_OK;
}

enum assay_status assay_stats_distribution(const double *values, const struct assay_clusters *clusters,
                                           struct assay_distribution *ret, struct assay_err *err)
{
    static const double fractions[] = {0.5, 0.9, 0.95, 0.99, 0.0, 1.0};
    double at[ASSAY_COUNT(fractions)];
    enum assay_status status =
        assay_stats_percentiles(values, assay_clusters_total(clusters), fractions, ASSAY_COUNT(fractions), at, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_estimate mean = assay_stats_clustered_mean(values, clusters);
    *ret = (struct assay_distribution){
        .mean = mean.value,
        .se = mean.se,
        .low = mean.low,
        .high = mean.high,
        .median = at[0],
        .p90 = at[1],
        .p95 = at[2],
        .p99 = at[3],
        .min = at[4],
        .max = at[5],
        .n = mean.n,
    };
    return ASSAY_OK;
}

enum assay_status assay_stats_pair(const struct assay_pair_series *series, double *chunk_kl,
                                   struct assay_pair_summary *ret, struct assay_err *err)
{
    struct assay_pair_summary summary;
    enum assay_status status = assay_stats_distribution(series->kl, &series->chunks, &summary.kl, err);
    if (status != ASSAY_OK)
        return status;
    summary.perplexity = assay_stats_perplexity(series->nll_var, &series->chunks);
    summary.perplexity_increase_percent =
        assay_stats_perplexity_increase(series->nll_ref, series->nll_var, &series->chunks);
    summary.same_top1_percent = assay_stats_share_percent(series->same_top, &series->chunks);
    summary.delta_p_rms_percent = assay_stats_delta_p_rms(series->nll_ref, series->nll_var, &series->chunks);
    summary.mean_nll = assay_stats_clustered_mean(series->nll_var, &series->chunks);
    if (chunk_kl)
        assay_stats_cluster_means(series->kl, &series->chunks, chunk_kl);
    *ret = summary;
    return ASSAY_OK;
}
