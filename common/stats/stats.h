/* Estimates with their errors. Pure functions over arrays of float64; any thread; the same bits whatever the threads.
 * What cannot be computed is NaN, never 0: a mean of nothing, an error of one value, an interval of one chunk, anything
 * of a series that holds a NaN.
 *
 * Two errors, which differ on purpose:
 *   se         standard error with all values taken as independent: sqrt(population variance / (n - 1)), as llama.cpp
 * prints it (but not set to 0 for few values); low, high  95 % interval of the mean of clustered values: Student t over
 * clusters, the variance from the clusters' summed residuals (ratio estimator), for clusters of equal or unequal size.
 * Tokens of one chunk depend on each other, chunks hardly. */
#pragma once

#include "common/base/status.h"

/* --- sums, special functions, order statistics --- */

/* A compensated sum: the error does not grow with the number of terms. Start with ASSAY_SUM_INIT. Infinities and NaN
 * come through as in a plain sum. */
struct assay_sum {
    double sum, correction;
};

#define ASSAY_SUM_INIT                                                                                                 \
    {                                                                                                                  \
        0.0, 0.0                                                                                                       \
    }

void assay_sum_add(struct assay_sum *sum, double value);
double assay_sum_value(const struct assay_sum *sum);

/* Regularized incomplete beta function I_x(a, b), a > 0, b > 0, 0 <= x <= 1; NaN outside. */
double assay_stats_beta_inc(double a, double b, double x);
/* P(T > t) of Student's t with df > 0 degrees of freedom. */
double assay_stats_t_sf(double t, double df);
/* The t with P(T <= t) = p; 0 < p < 1, df > 0, NaN outside. */
double assay_stats_t_quantile(double p, double df);

/* ret[i] = the percentile of values[n] at fractions[i] in [0, 1]: linear interpolation at position f * (n - 1) of the
 * sorted values. NaN for n == 0 and when a value is NaN. Sorts a copy: RESOURCE_EXHAUSTED when out of memory. */
enum assay_status assay_stats_percentiles(const double *values, size_t n, const double *fractions, size_t count,
                                          double *ret, struct assay_err *err) ASSAY_MUST_USE;

/* --- estimates --- */

struct assay_estimate {
    double value;
    double se;        /* values independent */
    double low, high; /* 95 %, by clusters */
    size_t n;         /* values */
};

struct assay_moments {
    double mean, variance; /* population variance: mean squared deviation */
    double se;             /* sqrt(variance / (n - 1)) */
    double min, max;
    size_t n;
};

struct assay_moments assay_stats_moments(const double *values, size_t n);

/* Values lie cluster after cluster: sizes[0] of the first, sizes[1] of the second, ... An empty cluster counts as none.
 */
struct assay_clusters {
    const size_t *sizes;
    size_t count;
};

size_t assay_clusters_total(const struct assay_clusters *clusters); /* sum of the sizes */

/* The mean of all values. */
struct assay_estimate assay_stats_clustered_mean(const double *values, const struct assay_clusters *clusters);
/* exp(mean(nll)). se = value * se(mean nll); the interval is exp of the mean's. */
struct assay_estimate assay_stats_perplexity(const double *nll, const struct assay_clusters *clusters);
/* (exp(mean(nll_var - nll_ref)) - 1) * 100, in percent, errors from the paired differences. */
struct assay_estimate assay_stats_perplexity_increase(const double *nll_ref, const double *nll_var,
                                                      const struct assay_clusters *clusters);
/* 100 * share of nonzero flags. se = 100 * sqrt(p (1 - p) / (n - 1)); the interval is cut to [0, 100]. */
struct assay_estimate assay_stats_share_percent(const uint8_t *flags, const struct assay_clusters *clusters);
/* Root mean square of p_var - p_ref of the labels, p = exp(-nll), in percent. se = se(mean square) / (2 RMS); the
 * interval is the root of the mean square's, cut at 0. */
struct assay_estimate assay_stats_delta_p_rms(const double *nll_ref, const double *nll_var,
                                              const struct assay_clusters *clusters);
/* ret[c] = mean of cluster c; NaN for an empty one. */
void assay_stats_cluster_means(const double *values, const struct assay_clusters *clusters, double *ret);

struct assay_distribution {
    double mean, se, low, high;
    double median, p90, p95, p99, min, max;
    size_t n;
};

/* RESOURCE_EXHAUSTED when out of memory. */
enum assay_status assay_stats_distribution(const double *values, const struct assay_clusters *clusters,
                                           struct assay_distribution *ret, struct assay_err *err) ASSAY_MUST_USE;

/* --- a variant against its reference --- */

/* Scored positions in chunk order; all arrays hold assay_clusters_total(&chunks) values. */
struct assay_pair_series {
    const double *nll_ref, *nll_var; /* nats */
    const double *kl;                /* KL(ref || var), nats */
    const uint8_t *same_top;         /* 1 where both argmax agree, else 0 */
    struct assay_clusters chunks;
};

struct assay_pair_summary {
    struct assay_estimate perplexity; /* of the variant */
    struct assay_estimate perplexity_increase_percent;
    struct assay_estimate same_top1_percent;
    struct assay_estimate delta_p_rms_percent;
    struct assay_estimate mean_nll; /* of the variant, nats */
    struct assay_distribution kl;   /* nats */
};

/* All figures of one variant. chunk_kl[chunks] gets the mean KL by chunk; it may be NULL. RESOURCE_EXHAUSTED when out
 * of memory. */
enum assay_status assay_stats_pair(const struct assay_pair_series *series, double *chunk_kl,
                                   struct assay_pair_summary *ret, struct assay_err *err) ASSAY_MUST_USE;
