#include "common/base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
#define ASSAY_DTYPE_ROW(name, bytes) [ASSAY_##name] = {#name, bytes},
    ASSAY_DTYPE_MAP(ASSAY_DTYPE_ROW)
#undef ASSAY_DTYPE_ROW
};

const char *assay_dtype_name(enum assay_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t assay_dtype_bytes(enum assay_dtype dtype)
{
    return dtypes[dtype].bytes;
}

bool assay_dtype_parse(const char *name, enum assay_dtype *ret)
{
    for (size_t i = 0; i < ASSAY_COUNT(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *ret = (enum assay_dtype)i;
            return true;
        }
    }
    return false;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float assay_bf16_to_f32(uint16_t bfloat)
{
    return float_of_bits((uint32_t)bfloat << 16);
}

uint16_t assay_f32_to_bf16(float value)
{
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

float assay_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    if (exponent == 0x1f)
        return float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

uint16_t assay_f32_to_f16(float value)
{
    uint32_t bits = bits_of_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000u) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x38800000u) { /* below 2^-14: the sum rounds to a multiple of 2^-24 */
        uint32_t rounded = bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
        return (uint16_t)(sign | rounded);
    }
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}

bool assay_dtype_to_f32(enum assay_dtype dtype, const void *src, size_t n, float *dst)
{
    const unsigned char *bytes = src;
    if (dtype == ASSAY_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return true;
    }
    if (dtype != ASSAY_F16 && dtype != ASSAY_BF16)
        return false;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, bytes + 2 * i, sizeof half);
        dst[i] = dtype == ASSAY_F16 ? assay_f16_to_f32(half) : assay_bf16_to_f32(half);
    }
    return true;
}
