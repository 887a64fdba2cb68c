#include <math.h>

#include "common/stats/stats.h"

static const double confidence_upper = 0.975; /* of the two-sided 95 % interval */

size_t assay_clusters_total(const struct assay_clusters *clusters)
{
    size_t total = 0;
    for (size_t c = 0; c < clusters->count; c++)
        total += clusters->sizes[c];
    return total;
}

struct assay_moments assay_stats_moments(const double *values, size_t n)
{
    struct assay_moments m = {.mean = NAN, .variance = NAN, .se = NAN, .min = NAN, .max = NAN, .n = n};
    if (n == 0)
        return m;
    struct assay_sum sum = ASSAY_SUM_INIT, squares = ASSAY_SUM_INIT;
    m.min = m.max = values[0];
    for (size_t i = 0; i < n; i++) {
        assay_sum_add(&sum, values[i]);
        m.min = values[i] < m.min ? values[i] : m.min;
        m.max = values[i] > m.max ? values[i] : m.max;
    }
    m.mean = assay_sum_value(&sum) / (double)n;
    if (isnan(m.mean))
        for (size_t i = 0; i < n; i++)
            if (isnan(values[i]))
                m.min = m.max = NAN;
    for (size_t i = 0; i < n; i++)
        assay_sum_add(&squares, (values[i] - m.mean) * (values[i] - m.mean));
    m.variance = assay_sum_value(&squares) / (double)n;
    if (n > 1)
        m.se = sqrt(m.variance / (double)(n - 1));
    return m;
}

/* What an estimate is the mean of: arrays by position. */
struct source {
    const double *a, *b;
    const uint8_t *flags;
};
typedef double (*value_fn)(const struct source *source, size_t i);

static double plain_value(const struct source *source, size_t i)
{
    return source->a[i];
}

static double difference(const struct source *source, size_t i)
{
    return source->b[i] - source->a[i];
}

static double flag_value(const struct source *source, size_t i)
{
    return source->flags[i] ? 1.0 : 0.0;
}

static double squared_delta_p(const struct source *source, size_t i)
{
    double delta = exp(-source->b[i]) - exp(-source->a[i]);
    return delta * delta;
}

/* Half the width of the interval of `mean`: t * sqrt(C / (C - 1) * sum of squared cluster residuals) / n. */
static double half_width(value_fn value, const struct source *source, const struct assay_clusters *clusters,
                         double mean, size_t n)
{
    struct assay_sum squares = ASSAY_SUM_INIT;
    size_t used = 0, at = 0;
    for (size_t c = 0; c < clusters->count; c++) {
        if (clusters->sizes[c] == 0)
            continue;
        struct assay_sum residual = ASSAY_SUM_INIT;
        for (size_t end = at + clusters->sizes[c]; at < end; at++)
            assay_sum_add(&residual, value(source, at) - mean);
        double r = assay_sum_value(&residual);
        assay_sum_add(&squares, r * r);
        used++;
    }
    if (used < 2)
        return NAN;
    double variance = (double)used / (double)(used - 1) * assay_sum_value(&squares);
    return assay_stats_t_quantile(confidence_upper, (double)(used - 1)) * sqrt(variance) / (double)n;
}

static struct assay_estimate mean_of(value_fn value, const struct source *source, const struct assay_clusters *clusters)
{
    size_t n = assay_clusters_total(clusters);
    struct assay_estimate e = {.value = NAN, .se = NAN, .low = NAN, .high = NAN, .n = n};
    if (n == 0)
        return e;
    struct assay_sum sum = ASSAY_SUM_INIT, squares = ASSAY_SUM_INIT;
    for (size_t i = 0; i < n; i++)
        assay_sum_add(&sum, value(source, i));
    e.value = assay_sum_value(&sum) / (double)n;
    for (size_t i = 0; i < n; i++) {
        double residual = value(source, i) - e.value;
        assay_sum_add(&squares, residual * residual);
    }
    if (n > 1)
        e.se = sqrt(assay_sum_value(&squares) / (double)n / (double)(n - 1));
    double half = half_width(value, source, clusters, e.value, n);
    e.low = e.value - half;
    e.high = e.value + half;
    return e;
}

struct assay_estimate assay_stats_clustered_mean(const double *values, const struct assay_clusters *clusters)
{
    return mean_of(plain_value, &(struct source){.a = values}, clusters);
}

struct assay_estimate assay_stats_perplexity(const double *nll, const struct assay_clusters *clusters)
{
    struct assay_estimate e = assay_stats_clustered_mean(nll, clusters);
    e.value = exp(e.value);
    e.se *= e.value;
    e.low = exp(e.low);
    e.high = exp(e.high);
    return e;
}

struct assay_estimate assay_stats_perplexity_increase(const double *nll_ref, const double *nll_var,
                                                      const struct assay_clusters *clusters)
{
    struct assay_estimate e = mean_of(difference, &(struct source){.a = nll_ref, .b = nll_var}, clusters);
    e.se *= 100.0 * exp(e.value);
    e.value = 100.0 * expm1(e.value);
    e.low = 100.0 * expm1(e.low);
    e.high = 100.0 * expm1(e.high);
    return e;
}

/* Comparisons with NaN are false, so that NaN stays. */
static double cut(double value, double min, double max)
{
    if (value < min)
        return min;
    return value > max ? max : value;
}

struct assay_estimate assay_stats_share_percent(const uint8_t *flags, const struct assay_clusters *clusters)
{
    struct assay_estimate e = mean_of(flag_value, &(struct source){.flags = flags}, clusters);
    e.value *= 100.0;
    e.se *= 100.0;
    e.low = cut(100.0 * e.low, 0.0, 100.0);
    e.high = cut(100.0 * e.high, 0.0, 100.0);
    return e;
}

struct assay_estimate assay_stats_delta_p_rms(const double *nll_ref, const double *nll_var,
                                              const struct assay_clusters *clusters)
{
    struct assay_estimate e = mean_of(squared_delta_p, &(struct source){.a = nll_ref, .b = nll_var}, clusters);
    double rms = sqrt(e.value);
    /* All differences 0: so is the error. */
    e.se = rms == 0.0 ? e.se : 100.0 * 0.5 * e.se / rms;
    e.value = 100.0 * rms;
    e.low = 100.0 * sqrt(cut(e.low, 0.0, INFINITY));
    e.high = 100.0 * sqrt(e.high);
    return e;
}

void assay_stats_cluster_means(const double *values, const struct assay_clusters *clusters, double *ret)
{
    size_t at = 0;
    for (size_t c = 0; c < clusters->count; c++) {
        struct assay_sum sum = ASSAY_SUM_INIT;
        for (size_t end = at + clusters->sizes[c]; at < end; at++)
            assay_sum_add(&sum, values[at]);
        ret[c] = clusters->sizes[c] ? assay_sum_value(&sum) / (double)clusters->sizes[c] : NAN;
    }
}
