/* The loops of nf4, written once and compiled for each instruction set; the results are the same bits. */
#pragma once

#include "common/quant/bits.h"
#include "common/quant/nf4.h"

#define NF4_CHUNK ((size_t)64) /* codes between two passes over a block, even */
#define NF4_THRESHOLDS 15
#define NF4_CODE_OF_ZERO 7
/* What bitsandbytes divides by in a block of zeros. */
#define NF4_ABSMAX_MIN 1e-38f

/* Middles between neighbours: a value above middle k is nearer to k + 1. */
static void nf4_middles_of(const float *values, size_t count, float *middles)
{
    for (size_t k = 0; k + 1 < count; k++)
        middles[k] = (values[k] + values[k + 1]) / 2;
}

static int32_t nf4_largest_magnitude_bits(const float *x, size_t n)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits = assay_magnitude_bits(x[i]);
        most = bits > most ? bits : most;
    }
    return most;
}

#ifndef NF4_OWN_CODES
/* The number of thresholds below each of n <= NF4_CHUNK values of [-1, 1]. */
static void nf4_codes_of(const float thresholds[NF4_THRESHOLDS], const float *restrict v, size_t n,
                         int32_t *restrict codes)
{
    for (size_t i = 0; i < n; i++) {
        int32_t code = 0;
        for (size_t k = 0; k < NF4_THRESHOLDS; k++)
            code += v[i] > thresholds[k];
        codes[i] = code;
    }
}
#endif

static void nf4_encode_chunk(const float thresholds[NF4_THRESHOLDS], const float *v, size_t n, uint8_t *packed)
{
    int32_t codes[NF4_CHUNK + 1];
    nf4_codes_of(thresholds, v, n, codes);
    codes[n] = NF4_CODE_OF_ZERO; /* pads an odd count */
    for (size_t i = 0; i < (n + 1) / 2; i++)
        packed[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
}

static void nf4_encode_block(const float thresholds[NF4_THRESHOLDS], const float *x, size_t n, float absmax,
                             bool is_whole, uint8_t *packed)
{
    float reciprocal = 1.0f / absmax, v[NF4_CHUNK];
    for (size_t begin = 0; begin < n; begin += NF4_CHUNK) {
        size_t len = ASSAY_MIN(NF4_CHUNK, n - begin);
        if (is_whole)
            for (size_t i = 0; i < len; i++)
                v[i] = x[begin + i] * reciprocal;
        else
            for (size_t i = 0; i < len; i++)
                v[i] = x[begin + i] / absmax;
        nf4_encode_chunk(thresholds, v, len, packed + begin / 2);
    }
}

static enum assay_status nf4_not_finite(const float *weights, size_t begin, struct assay_err *err)
{
    size_t i = begin;
    while (assay_magnitude_bits(weights[i]) < ASSAY_INFINITY_BITS)
        i++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "element %zu is %g; only finite weights can be quantized", i,
                         (double)weights[i]);
}

static enum assay_status nf4_encode(const float *weights, size_t count, size_t block, uint8_t *packed, float *absmax,
                                    struct assay_err *err)
{
    float thresholds[NF4_THRESHOLDS];
    nf4_middles_of(assay_nf4_table, 16, thresholds);
    for (size_t begin = 0, b = 0; begin < count; begin += block, b++) {
        size_t n = ASSAY_MIN(block, count - begin);
        int32_t bits = nf4_largest_magnitude_bits(weights + begin, n);
        if (bits >= ASSAY_INFINITY_BITS)
            return nf4_not_finite(weights, begin, err);
        absmax[b] = assay_float_of_bits(bits);
        nf4_encode_block(thresholds, weights + begin, n, ASSAY_MAX(absmax[b], NF4_ABSMAX_MIN), n == block,
                         packed + begin / 2);
    }
    return ASSAY_OK;
}

/* The two values of each byte. */
struct nf4_pair {
    float x[2];
};

static void nf4_pairs_of(struct nf4_pair pairs[256])
{
    for (size_t byte = 0; byte < 256; byte++)
        pairs[byte] = (struct nf4_pair){{assay_nf4_table[byte >> 4], assay_nf4_table[byte & 0xf]}};
}

static void nf4_decode(const uint8_t *packed, const float *absmax, size_t count, size_t block, float *weights)
{
    struct nf4_pair pairs[256];
    nf4_pairs_of(pairs);
    size_t even = count - count % 2;
    for (size_t i = 0; i < even; i += 2)
        memcpy(weights + i, &pairs[packed[i / 2]], sizeof *pairs);
    if (even < count)
        weights[even] = pairs[packed[even / 2]].x[0];
    for (size_t begin = 0, b = 0; begin < count; begin += block, b++) {
        float scale = absmax[b];
        for (size_t i = begin, end = begin + ASSAY_MIN(block, count - begin); i < end; i++)
            weights[i] *= scale;
    }
}
