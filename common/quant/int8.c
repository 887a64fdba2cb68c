#include "common/quant/int8.h"

#include <float.h>

#include "common/quant/bits.h"

#define CODE_MIN (-128.0f)
#define CODE_MAX 127.0f

/* The largest |x| of a row, as bits: they order like the magnitudes, and infinity and NaN come after every number. */
static int32_t row_magnitude_bits(const float *row, size_t cols)
{
    int32_t most = 0;
    for (size_t i = 0; i < cols; i++) {
        int32_t bits = assay_magnitude_bits(row[i]);
        most = bits > most ? bits : most;
    }
    return most;
}

static void encode_row(const float *restrict row, size_t cols, float scale, int8_t *restrict codes)
{
    for (size_t i = 0; i < cols; i++) {
        float v = row[i] / scale;
        v = v < CODE_MIN ? CODE_MIN : v;
        v = v > CODE_MAX ? CODE_MAX : v;
        codes[i] = (int8_t)(int32_t)((v + ASSAY_ROUNDER) - ASSAY_ROUNDER);
    }
}

static enum assay_status not_finite(const float *row, size_t cols, size_t r, struct assay_err *err)
{
    size_t c = 0;
    while (c + 1 < cols && assay_magnitude_bits(row[c]) < ASSAY_INFINITY_BITS)
        c++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "row %zu, column %zu is %g; only finite weights can be quantized",
                         r, c, (double)row[c]);
}

enum assay_status assay_int8_encode(const float *weights, size_t rows, size_t cols, int8_t *codes, float *scales,
                                    struct assay_err *err)
{
    for (size_t r = 0; r < rows; r++) {
        const float *row = weights + r * cols;
        int32_t bits = row_magnitude_bits(row, cols);
        if (bits >= ASSAY_INFINITY_BITS)
            return not_finite(row, cols, r, err);
        float scale = assay_float_of_bits(bits) / 127.5f;
        scales[r] = scale > 0.0f ? scale : FLT_EPSILON;
        encode_row(row, cols, scales[r], codes + r * cols);
    }
    return ASSAY_OK;
}

void assay_int8_decode(const int8_t *codes, const float *scales, size_t rows, size_t cols, float *weights)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++)
            weights[r * cols + c] = (float)codes[r * cols + c] * scales[r];
    }
}
