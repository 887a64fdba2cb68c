/* The loops of int8, written once and compiled for each instruction set; the results are the same bits. */
#pragma once

#include <float.h>

#include "common/quant/bits.h"
#include "common/quant/int8.h"

#define INT8_CHUNK ((size_t)64) /* codes between two passes over a row */

/* The largest |x| of a row, as bits: they order like the magnitudes, and infinity and NaN come after every number. */
static int32_t int8_row_magnitude(const float *row, size_t cols)
{
    int32_t most = 0;
    for (size_t i = 0; i < cols; i++) {
        int32_t bits = assay_magnitude_bits(row[i]);
        most = bits > most ? bits : most;
    }
    return most;
}

/* Rounded first and then held to the range, which is the same for ends that are integers: |v| < 2^22. */
static void int8_encode_row(const float *restrict row, size_t cols, float scale, int8_t *restrict codes)
{
    for (size_t begin = 0; begin < cols; begin += INT8_CHUNK) {
        int32_t wide[INT8_CHUNK];
        size_t n = ASSAY_MIN(INT8_CHUNK, cols - begin);
        for (size_t i = 0; i < n; i++)
            wide[i] = (int32_t)((row[begin + i] / scale + ASSAY_ROUNDER) - ASSAY_ROUNDER);
        for (size_t i = 0; i < n; i++) {
            int32_t code = wide[i] < INT8_MIN ? INT8_MIN : wide[i];
            codes[begin + i] = (int8_t)(code > INT8_MAX ? INT8_MAX : code);
        }
    }
}

static enum assay_status int8_not_finite(const float *row, size_t cols, size_t r, struct assay_err *err)
{
    size_t c = 0;
    while (c + 1 < cols && assay_magnitude_bits(row[c]) < ASSAY_INFINITY_BITS)
        c++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "row %zu, column %zu is %g; only finite weights can be quantized",
                         r, c, (double)row[c]);
}

static enum assay_status int8_encode(const float *weights, size_t rows, size_t cols, int8_t *codes, float *scales,
                                     struct assay_err *err)
{
    for (size_t r = 0; r < rows; r++) {
        const float *row = weights + r * cols;
        int32_t bits = int8_row_magnitude(row, cols);
        if (bits >= ASSAY_INFINITY_BITS)
            return int8_not_finite(row, cols, r, err);
        float scale = assay_float_of_bits(bits) / 127.5f;
        scales[r] = scale > 0.0f ? scale : FLT_EPSILON;
        int8_encode_row(row, cols, scales[r], codes + r * cols);
    }
    return ASSAY_OK;
}

static void int8_decode(const int8_t *codes, const float *scales, size_t rows, size_t cols, float *weights)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++)
            weights[r * cols + c] = (float)codes[r * cols + c] * scales[r];
    }
}
