#include "common/quant/int4_body.h"
#include "common/quant/scheme.h"

size_t assay_int4_groups(const struct assay_int4_shape *shape)
{
    return (shape->cols + shape->group - 1) / shape->group;
}

size_t assay_int4_words(const struct assay_int4_shape *shape)
{
    return (shape->cols + INT4_WORD_CODES - 1) / INT4_WORD_CODES;
}

size_t assay_int4_zero_words(const struct assay_int4_shape *shape)
{
    return (shape->rows + INT4_WORD_CODES - 1) / INT4_WORD_CODES * assay_int4_groups(shape);
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

enum assay_status assay_int4_encode(const float *weights, const struct assay_int4_shape *shape, uint32_t *codes,
                                    float *scales, uint32_t *zeros, struct assay_err *err)
{
    return int4_encode(weights, shape, codes, scales, zeros, err);
}

void assay_int4_decode(const uint32_t *codes, const float *scales, const uint32_t *zeros,
                       const struct assay_int4_shape *shape, float *weights)
{
    int4_decode(codes, scales, zeros, shape, weights);
}
