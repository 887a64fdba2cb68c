#include "common/quant/int4.h"

#include <float.h>

#include "common/quant/bits.h"
#include "common/quant/scheme.h"

#define CODE_MIN (-8.0f)
#define CODE_MAX 7.0f
#define STEPS 15.0f
#define CODES_A_WORD ((size_t)8)
#define CHUNK ((size_t)64) /* codes between two passes over a group, a multiple of CODES_A_WORD */

size_t assay_int4_groups(const struct assay_int4_shape *shape)
{
    return (shape->cols + shape->group - 1) / shape->group;
}

size_t assay_int4_words(const struct assay_int4_shape *shape)
{
    return (shape->cols + CODES_A_WORD - 1) / CODES_A_WORD;
}

size_t assay_int4_zero_words(const struct assay_int4_shape *shape)
{
    return (shape->rows + CODES_A_WORD - 1) / CODES_A_WORD * assay_int4_groups(shape);
}

uint32_t assay_int4_group_size(const size_t *cols, size_t count)
{
    for (uint32_t group = 128; group >= 32; group /= 2) {
        size_t divided = 0;
        while (divided < count && cols[divided] % group == 0)
            divided++;
        if (divided == count)
            return group;
    }
    return ASSAY_GROUP_CHANNEL;
}

/* Integers in the order of the floats; mapped twice, a value is itself again. */
static int32_t ordered(int32_t bits)
{
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* The ends of a group, 0 included; false when it holds NaN or infinity. */
static bool group_range(const float *x, size_t n, float *lo, float *hi)
{
    int32_t least = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t key = ordered(assay_float_bits(x[i]));
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    if (most >= ASSAY_INFINITY_BITS || (ordered(least) & 0x7fffffff) >= ASSAY_INFINITY_BITS)
        return false;
    *lo = assay_float_of_bits(ordered(least));
    *hi = assay_float_of_bits(most);
    return true;
}

static float clamp(float v)
{
    v = v < CODE_MIN ? CODE_MIN : v;
    return v > CODE_MAX ? CODE_MAX : v;
}

static float rounded(float v)
{
    return (v + ASSAY_ROUNDER) - ASSAY_ROUNDER;
}

/* At most CHUNK elements, from a word's begin. */
static void encode_chunk(const float *restrict x, size_t n, float scale, float zero, uint32_t *restrict words)
{
    uint32_t codes[CHUNK] = {0};
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint32_t)(int32_t)(rounded(clamp(x[i] / scale + zero)) - CODE_MIN);
    for (size_t w = 0; w * CODES_A_WORD < n; w++) {
        const uint32_t *c = codes + w * CODES_A_WORD;
        words[w] = c[0] | c[1] << 4 | c[2] << 8 | c[3] << 12 | c[4] << 16 | c[5] << 20 | c[6] << 24 | c[7] << 28;
    }
}

static enum assay_status not_finite(const float *row, size_t r, size_t begin, struct assay_err *err)
{
    size_t c = begin;
    while (assay_magnitude_bits(row[c]) < ASSAY_INFINITY_BITS)
        c++;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "row %zu, column %zu is %g; only finite weights can be quantized",
                         r, c, (double)row[c]);
}

enum assay_status assay_int4_encode(const float *weights, const struct assay_int4_shape *shape, uint32_t *codes,
                                    float *scales, uint32_t *zeros, struct assay_err *err)
{
    size_t groups = assay_int4_groups(shape), words = assay_int4_words(shape);
    memset(zeros, 0, assay_int4_zero_words(shape) * sizeof *zeros);
    for (size_t r = 0; r < shape->rows; r++) {
        const float *row = weights + r * shape->cols;
        for (size_t g = 0; g < groups; g++) {
            size_t begin = g * shape->group, end = ASSAY_MIN(begin + shape->group, shape->cols);
            float lo, hi;
            if (!group_range(row + begin, end - begin, &lo, &hi))
                return not_finite(row, r, begin, err);
            float range = hi - lo; /* infinite for the widest groups */
            float scale = range <= FLT_MAX ? range / STEPS : hi / STEPS - lo / STEPS;
            float zero = rounded(clamp(CODE_MIN - lo / scale));
            zero = scale > 0.0f || zero > 0.0f ? zero : 0.0f;
            scale = scale > 0.0f ? scale : FLT_EPSILON;
            scales[r * groups + g] = scale;
            zeros[r / CODES_A_WORD * groups + g] |= (uint32_t)(int32_t)(zero - CODE_MIN) << 4 * (r % CODES_A_WORD);
            for (size_t c = begin; c < end; c += CHUNK)
                encode_chunk(row + c, ASSAY_MIN(CHUNK, end - c), scale, zero, codes + r * words + c / CODES_A_WORD);
        }
    }
    return ASSAY_OK;
}

static int32_t nibble(uint32_t word, size_t index)
{
    return (int32_t)(word >> 4 * index & 0xf);
}

void assay_int4_decode(const uint32_t *codes, const float *scales, const uint32_t *zeros,
                       const struct assay_int4_shape *shape, float *weights)
{
    size_t groups = assay_int4_groups(shape), words = assay_int4_words(shape);
    for (size_t r = 0; r < shape->rows; r++) {
        const uint32_t *row_codes = codes + r * words;
        for (size_t g = 0; g < groups; g++) {
            int32_t zero = zeros ? nibble(zeros[r / CODES_A_WORD * groups + g], r % CODES_A_WORD) : 8;
            float scale = scales[r * groups + g];
            for (size_t c = g * shape->group, end = ASSAY_MIN(c + shape->group, shape->cols); c < end; c++)
                weights[r * shape->cols + c] =
                    (float)(nibble(row_codes[c / CODES_A_WORD], c % CODES_A_WORD) - zero) * scale;
        }
    }
}
