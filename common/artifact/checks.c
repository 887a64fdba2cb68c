#include "common/artifact/checks.h"

#include <string.h>

#define LANES 4

void assay_widen(enum assay_dtype dtype, const void *src, size_t n, float *dst)
{
    const unsigned char *restrict bytes = src;
    float *restrict out = dst;
    if (dtype != ASSAY_BF16) {
        if (!assay_dtype_to_f32(dtype, src, n, dst))
            ASSAY_BUG("a linear weight is F32, F16 or BF16");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t high;
        memcpy(&high, bytes + 2 * i, sizeof high);
        uint32_t bits = (uint32_t)high << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

bool assay_all_finite(const float *weights, size_t n)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000;
}

struct lanes {
    double xx[LANES], yy[LANES], xy[LANES], squared[LANES], most[LANES];
};

static void add(struct lanes *sums, size_t lane, double x, double y)
{
    double difference = x - y, magnitude = difference < 0 ? -difference : difference;
    sums->xx[lane] += x * x;
    sums->yy[lane] += y * y;
    sums->xy[lane] += x * y;
    sums->squared[lane] += difference * difference;
    sums->most[lane] = magnitude > sums->most[lane] ? magnitude : sums->most[lane];
}

void assay_block_sums(const float *source, const float *decoded, size_t n, struct assay_block_sums *ret)
{
    struct lanes sums = {0};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            add(&sums, lane, (double)source[i + lane], (double)decoded[i + lane]);
    for (size_t i = whole; i < n; i++)
        add(&sums, i - whole, (double)source[i], (double)decoded[i]);
    struct assay_block_sums all = {0};
    for (size_t lane = 0; lane < LANES; lane++) {
        all.xx += sums.xx[lane];
        all.yy += sums.yy[lane];
        all.xy += sums.xy[lane];
        all.difference_squared += sums.squared[lane];
        all.difference_max = sums.most[lane] > all.difference_max ? sums.most[lane] : all.difference_max;
    }
    *ret = all;
}
