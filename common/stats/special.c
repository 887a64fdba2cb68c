#include <math.h>

#include "common/stats/stats.h"

void assay_sum_add(struct assay_sum *sum, double value)
{
    double total = sum->sum + value;
    if (fabs(sum->sum) >= fabs(value))
        sum->correction += (sum->sum - total) + value;
    else
        sum->correction += (value - total) + sum->sum;
    sum->sum = total;
}

double assay_sum_value(const struct assay_sum *sum)
{
    /* Beyond the range the correction is inf - inf. */
    return isfinite(sum->sum) ? sum->sum + sum->correction : sum->sum;
}

static double away_from_zero(double x)
{
    const double tiny = 1e-300;
    return fabs(x) < tiny ? tiny : x;
}

/* The continued fraction of I_x(a, b) by Lentz's method; converges fast for x < (a + 1) / (a + b + 2).
 * Source: DLMF 8.17.22. */
static double beta_fraction(double a, double b, double x)
{
    const int terms_max = 100000; /* about sqrt(max(a, b)) are needed */
    double c = 1.0;
    double d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    double fraction = d;
    for (int m = 1; m <= terms_max; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        fraction *= d * c;
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        fraction *= d * c;
        if (fabs(d * c - 1.0) < 1e-16)
            return fraction;
    }
    return fraction;
}

/* ln gamma(x) less Stirling's (x - 1/2) ln x - x + ln(2 pi) / 2, for x >= 20. Source: DLMF 5.11.1. */
static double stirling_rest(double x)
{
    double y = 1.0 / (x * x);
    return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - y / 1680) * y) * y) / x;
}

/* ln gamma(a + b) - ln gamma(a), a > 0, b > 0; without cancellation where a is large. */
static double log_gamma_step(double a, double b)
{
    int sign;
    if (a < 20.0)
        return lgamma_r(a + b, &sign) - lgamma_r(a, &sign);
    return (a - 0.5) * log1p(b / a) + b * log(a + b) - b + (stirling_rest(a + b) - stirling_rest(a));
}

/* I_x(a, b) from x and 1 - x, both given so that neither is rounded. */
static double beta_inc_both(double a, double b, double x, double x_rest)
{
    if (x == 0.0 || x_rest == 0.0)
        return x == 0.0 ? 0.0 : 1.0;
    int sign;
    double large = a > b ? a : b, small = a > b ? b : a;
    double log_front = log_gamma_step(large, small) - lgamma_r(small, &sign) + a * log(x) + b * log(x_rest);
    if (x < (a + 1.0) / (a + b + 2.0))
        return exp(log_front) * beta_fraction(a, b, x) / a;
    return 1.0 - exp(log_front) * beta_fraction(b, a, x_rest) / b;
}

double assay_stats_beta_inc(double a, double b, double x)
{
    if (!(a > 0.0 && b > 0.0 && x >= 0.0 && x <= 1.0))
        return NAN;
    return beta_inc_both(a, b, x, 1.0 - x);
}

double assay_stats_t_sf(double t, double df)
{
    if (isnan(t) || !(df > 0.0))
        return NAN;
    if (isinf(t))
        return t > 0.0 ? 0.0 : 1.0;
    /* With |t| large the tail is a small number of its own, not 1 less a large one. */
    double tail = 0.5 * beta_inc_both(df / 2.0, 0.5, df / (df + t * t), t * t / (df + t * t));
    return t >= 0.0 ? tail : 1.0 - tail;
}

double assay_stats_t_quantile(double p, double df)
{
    if (!(p > 0.0 && p < 1.0 && df > 0.0))
        return NAN;
    if (p < 0.5)
        return -assay_stats_t_quantile(1.0 - p, df);
    double tail = 1.0 - p, low = 0.0, high = 1.0;
    while (assay_stats_t_sf(high, df) > tail && high < 1e300) {
        low = high;
        high *= 2.0;
    }
    for (;;) {
        double middle = low + (high - low) / 2.0;
        if (middle <= low || middle >= high)
            return middle;
        if (assay_stats_t_sf(middle, df) > tail)
            low = middle;
        else
            high = middle;
    }
}
