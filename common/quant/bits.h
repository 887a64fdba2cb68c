/* Floats by their bits: comparisons of integers are reduced in vectors, those of floats are not. Private to the layer.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define ASSAY_INFINITY_BITS 0x7f800000

static inline int32_t assay_float_bits(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float assay_float_of_bits(int32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* |value|, ordered like the magnitudes; infinity and NaN come after every number. */
static inline int32_t assay_magnitude_bits(float value)
{
    return assay_float_bits(value) & 0x7fffffff;
}

/* Added to and taken from |v| < 2^22, it leaves v rounded to an integer, half to even: the sum has no bits for
 * fractions. */
#define ASSAY_ROUNDER 12582912.0f
