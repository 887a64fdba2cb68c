/* The loops of int4, written once and compiled for each instruction set; the results are the same bits. */
#pragma once

#include <float.h>

#include "common/quant/bits.h"
#include "common/quant/int4.h"

#define INT4_MIN_CODE (-8.0f)
#define INT4_MAX_CODE 7.0f
#define INT4_STEPS 15.0f
#define INT4_WORD_CODES ((size_t)8)
#define INT4_CHUNK ((size_t)64) /* codes between two passes over a group, a multiple of INT4_WORD_CODES */

/* Integers in the order of the floats; mapped twice, a value is itself again. */
static int32_t int4_ordered(int32_t bits)
{
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* The ends of a group, 0 included; false when it holds NaN or infinity. */
static bool int4_group_range(const float *x, size_t n, float *lo, float *hi)
{
    int32_t least = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t key = int4_ordered(assay_float_bits(x[i]));
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    if (most >= ASSAY_INFINITY_BITS || (int4_ordered(least) & 0x7fffffff) >= ASSAY_INFINITY_BITS)
        return false;
    *lo = assay_float_of_bits(int4_ordered(least));
    *hi = assay_float_of_bits(most);
    return true;
}

static float int4_clamp(float v)
{
    v = v < INT4_MIN_CODE ? INT4_MIN_CODE : v;
    return v > INT4_MAX_CODE ? INT4_MAX_CODE : v;
}

static float int4_rounded(float v)
{
    return (v + ASSAY_ROUNDER) - ASSAY_ROUNDER;
}

/* At most INT4_CHUNK elements, from a word's begin. */
static void int4_encode_chunk(const float *restrict x, size_t n, float scale, float zero, uint32_t *restrict words)
{
    uint32_t codes[INT4_CHUNK] = {0};
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint32_t)(int32_t)(int4_rounded(int4_clamp(x[i] / scale + zero)) - INT4_MIN_CODE);
    for (size_t w = 0; w * INT4_WORD_CODES < n; w++) {
        const uint32_t *c = codes + w * INT4_WORD_CODES;
        words[w] = c[0] | c[1] << 4 | c[2] << 8 | c[3] << 12 | c[4] << 16 | c[5] << 20 | c[6] << 24 | c[7] << 28;
    }
}

static enum assay_status int4_not_finite(const float *row, size_t r, size_t begin, struct assay_err *err)
{
    size_t c = begin;
    while (assay_magnitude_bits(row[c]) < ASSAY_INFINITY_BITS)
        c++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "row %zu, column %zu is %g; only finite weights can be quantized",
                         r, c, (double)row[c]);
}

static enum assay_status int4_encode(const float *weights, const struct assay_int4_shape *shape, uint32_t *codes,
                                     float *scales, uint32_t *zeros, struct assay_err *err)
{
    size_t groups = assay_int4_groups(shape), words = assay_int4_words(shape);
    memset(zeros, 0, assay_int4_zero_words(shape) * sizeof *zeros);
    for (size_t r = 0; r < shape->rows; r++) {
        const float *row = weights + r * shape->cols;
        for (size_t g = 0; g < groups; g++) {
            size_t begin = g * shape->group, end = ASSAY_MIN(begin + shape->group, shape->cols);
            float lo, hi;
            if (!int4_group_range(row + begin, end - begin, &lo, &hi))
                return int4_not_finite(row, r, begin, err);
            float range = hi - lo; /* infinite for the widest groups */
            float scale = range <= FLT_MAX ? range / INT4_STEPS : hi / INT4_STEPS - lo / INT4_STEPS;
            float zero = int4_rounded(int4_clamp(INT4_MIN_CODE - lo / scale));
            zero = scale > 0.0f || zero > 0.0f ? zero : 0.0f;
            scale = scale > 0.0f ? scale : FLT_EPSILON;
            scales[r * groups + g] = scale;
            zeros[r / INT4_WORD_CODES * groups + g] |= (uint32_t)(int32_t)(zero - INT4_MIN_CODE)
                                                       << 4 * (r % INT4_WORD_CODES);
            for (size_t c = begin; c < end; c += INT4_CHUNK)
                int4_encode_chunk(row + c, ASSAY_MIN(INT4_CHUNK, end - c), scale, zero,
                                  codes + r * words + c / INT4_WORD_CODES);
        }
    }
    return ASSAY_OK;
}

/* A group that begins with a word. */
static void int4_decode_group(const uint32_t *restrict words, size_t n, int32_t zero, float scale, float *restrict x)
{
    size_t whole = n / INT4_WORD_CODES;
    for (size_t w = 0; w < whole; w++)
        for (size_t i = 0; i < INT4_WORD_CODES; i++)
            x[w * INT4_WORD_CODES + i] = (float)((int32_t)(words[w] >> 4 * i & 0xf) - zero) * scale;
    for (size_t i = whole * INT4_WORD_CODES; i < n; i++)
        x[i] = (float)((int32_t)(words[whole] >> 4 * (i % INT4_WORD_CODES) & 0xf) - zero) * scale;
}

static void int4_decode(const uint32_t *codes, const float *scales, const uint32_t *zeros,
                        const struct assay_int4_shape *shape, float *weights)
{
    size_t groups = assay_int4_groups(shape), words = assay_int4_words(shape);
    for (size_t r = 0; r < shape->rows; r++)
        for (size_t g = 0; g < groups; g++) {
            size_t begin = g * shape->group, end = ASSAY_MIN(begin + shape->group, shape->cols);
            uint32_t zero_word = zeros ? zeros[r / INT4_WORD_CODES * groups + g] : 0x88888888u;
            int4_decode_group(codes + r * words + begin / INT4_WORD_CODES, end - begin,
                              (int32_t)(zero_word >> 4 * (r % INT4_WORD_CODES) & 0xf), scales[r * groups + g],
                              weights + r * shape->cols + begin);
        }
}
