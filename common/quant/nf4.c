#include "common/quant/nf4_body.h"

const float assay_nf4_table[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

size_t assay_nf4_blocks(size_t count, size_t block)
{
    return (count + block - 1) / block;
}

size_t assay_nf4_bytes(size_t count)
{
    return (count + 1) / 2;
}

enum assay_status assay_nf4_encode(const float *weights, size_t count, size_t block, uint8_t *packed, float *absmax,
                                   struct assay_err *err)
{
    return nf4_encode(weights, count, block, packed, absmax, err);
}

void assay_nf4_decode(const uint8_t *packed, const float *absmax, size_t count, size_t block, float *weights)
{
    nf4_decode(packed, absmax, count, block, weights);
}

/* Point k of `steps` + 1 evenly spaced ones from 0.1 to 1, as torch.linspace rounds it: from the nearer end. */
static float spaced(size_t k, size_t steps)
{
    const float first = 0.1f, last = 1.0f, step = (last - first) / (float)steps;
    return k < (steps + 1) / 2 ? (float)((double)first + (double)step * (double)k)
                               : (float)((double)last - (double)step * (double)(steps - k));
}

void assay_nested_map(float map[256])
{
    /* Each has twice as many values as the one below it: the middles between evenly spaced points. */
    static const float decades[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    enum { ZERO = 127 };
    float *up = map + ZERO, *down = map + ZERO;
    *up++ = 0.0f;
    for (size_t i = 0; i < ASSAY_COUNT(decades); i++) {
        size_t steps = (size_t)1 << i;
        for (size_t k = 0; k < steps; k++) {
            float value = decades[i] * ((spaced(k, steps) + spaced(k + 1, steps)) / 2);
            *up++ = value;
            *--down = -value;
        }
    }
    *up = 1.0f;
}

/* The number of midpoints below v. */
static uint8_t nearest(const float midpoints[255], float v)
{
    size_t code = 0;
    for (size_t step = 128; step > 0; step /= 2)
        if (code + step <= 255 && v > midpoints[code + step - 1])
            code += step;
    return (uint8_t)code;
}

void assay_nested_encode(const float *absmax, size_t count, const float map[256], uint8_t *codes, float *absmax2,
                         float *ret_offset)
{
    float midpoints[255];
    nf4_middles_of(map, 256, midpoints);
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)absmax[i];
    float offset = count ? (float)(sum / (double)count) : 0.0f;
    for (size_t begin = 0, b = 0; begin < count; begin += ASSAY_NF4_NESTED_BLOCK, b++) {
        size_t end = ASSAY_MIN(begin + ASSAY_NF4_NESTED_BLOCK, count);
        float most = 0;
        for (size_t i = begin; i < end; i++) {
            float magnitude = assay_float_of_bits(assay_magnitude_bits(absmax[i] - offset));
            most = magnitude > most ? magnitude : most;
        }
        absmax2[b] = most;
        float divisor = ASSAY_MAX(most, NF4_ABSMAX_MIN);
        for (size_t i = begin; i < end; i++)
            codes[i] = nearest(midpoints, (absmax[i] - offset) * (1.0f / divisor));
    }
    *ret_offset = offset;
}

void assay_nested_decode(const uint8_t *codes, const float *absmax2, size_t count, size_t block, const float map[256],
                         float offset, float *absmax)
{
    for (size_t i = 0; i < count; i++)
        absmax[i] = map[codes[i]] * absmax2[i / block] + offset;
}
