#include "common/quant/int8_body.h"

enum assay_status assay_int8_encode(const float *weights, size_t rows, size_t cols, int8_t *codes, float *scales,
                                    struct assay_err *err)
{
    return int8_encode(weights, rows, cols, codes, scales, err);
}

void assay_int8_decode(const int8_t *codes, const float *scales, size_t rows, size_t cols, float *weights)
{
    int8_decode(codes, scales, rows, cols, weights);
}
