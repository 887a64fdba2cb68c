/* The passes, written once in loops that compilers turn into vectors. The including file defines OPS. */
#include "common/kernels/codec/ops.h"
#include "common/quant/int4_body.h"
#include "common/quant/int8_body.h"
#include "common/quant/nf4_body.h"

static void widen(enum assay_dtype dtype, const void *src, size_t n, float *dst)
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

/* Four lanes, in whatever registers there are. */
typedef float four_f32 __attribute__((vector_size(4 * sizeof(float))));
typedef double four_f64 __attribute__((vector_size(4 * sizeof(double))));
typedef int64_t four_i64 __attribute__((vector_size(4 * sizeof(int64_t))));

struct lanes {
    four_f64 xx, yy, xy, squared, most;
};
_Static_assert(sizeof(struct lanes) == sizeof(struct assay_error_sums), "the lanes are those of the sums, in order");

static inline __attribute__((always_inline)) void add_four(struct lanes *lanes, const float *source,
                                                           const float *decoded)
{
    const four_i64 not_sign = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    four_f32 narrow_x, narrow_y;
    memcpy(&narrow_x, source, sizeof narrow_x);
    memcpy(&narrow_y, decoded, sizeof narrow_y);
    four_f64 x = __builtin_convertvector(narrow_x, four_f64), y = __builtin_convertvector(narrow_y, four_f64);
    four_f64 difference = x - y;
    four_i64 magnitude = (four_i64)difference & not_sign;
    four_i64 is_more = (four_f64)magnitude > lanes->most;
    lanes->xx += x * x;
    lanes->yy += y * y;
    lanes->xy += x * y;
    lanes->squared += difference * difference;
    lanes->most = (four_f64)((magnitude & is_more) | ((four_i64)lanes->most & ~is_more));
}

static void add_errors(const float *source, const float *decoded, size_t n, struct assay_error_sums *sums)
{
    struct lanes lanes;
    size_t whole = n - n % ASSAY_ERROR_LANES;
    memcpy(&lanes, sums, sizeof lanes);
    for (size_t i = 0; i < whole; i += ASSAY_ERROR_LANES)
        add_four(&lanes, source + i, decoded + i);
    if (whole < n) {
        /* Adding 0 changes no sum: all of them begin with 0 and are never -0. */
        float x[ASSAY_ERROR_LANES] = {0}, y[ASSAY_ERROR_LANES] = {0};
        memcpy(x, source + whole, (n - whole) * sizeof *x);
        memcpy(y, decoded + whole, (n - whole) * sizeof *y);
        add_four(&lanes, x, y);
    }
    memcpy(sums, &lanes, sizeof lanes);
}

const struct assay_codec_ops OPS = {int8_encode, int8_decode, int4_encode, int4_decode,
                                    nf4_encode,  nf4_decode,  widen,       add_errors};
