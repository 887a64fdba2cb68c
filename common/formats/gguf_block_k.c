/* Blocks of 256 elements: parts of 16 or 32 have scales of few bits, and those a scale of their own. */
#include <string.h>

#include "common/base/dtype.h"
#include "common/base/macros.h"
#include "common/formats/gguf_block.h"

#define SUPER ASSAY_GGML_SUPER

struct block_q2_k {
    uint8_t scales[SUPER / 16]; /* low nibble: scale of 16 elements; high: their minimum */
    uint8_t q[SUPER / 4];
    uint16_t d, d_min;
};
struct block_q3_k {
    uint8_t high[SUPER / 8]; /* third bits: bit i of byte j for element 32 i + j */
    uint8_t q[SUPER / 4];
    uint8_t scales[12]; /* 16 of 6 bits */
    uint16_t d;
};
struct block_q4_k {
    uint16_t d, d_min;
    uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
    uint8_t q[SUPER / 2];
};
struct block_q5_k {
    uint16_t d, d_min;
    uint8_t scales[12];      /* as in Q4_K */
    uint8_t high[SUPER / 8]; /* fifth bits: bit i of byte j for element 32 i + j */
    uint8_t q[SUPER / 2];
};
struct block_q6_k {
    uint8_t low[SUPER / 2];
    uint8_t high[SUPER / 4];
    int8_t scales[SUPER / 16];
    uint16_t d;
};
struct block_iq4_xs {
    uint16_t d;
    uint16_t scales_high; /* 2 bits for each 32 elements */
    uint8_t scales_low[SUPER / 64];
    uint8_t q[SUPER / 2];
};
_Static_assert(sizeof(struct block_q2_k) == ASSAY_GGML_Q2_K_BYTES, "layout of Q2_K");
_Static_assert(sizeof(struct block_q3_k) == ASSAY_GGML_Q3_K_BYTES, "layout of Q3_K");
_Static_assert(sizeof(struct block_q4_k) == ASSAY_GGML_Q4_K_BYTES, "layout of Q4_K");
_Static_assert(sizeof(struct block_q5_k) == ASSAY_GGML_Q5_K_BYTES, "layout of Q5_K");
_Static_assert(sizeof(struct block_q6_k) == ASSAY_GGML_Q6_K_BYTES, "layout of Q6_K");
_Static_assert(sizeof(struct block_iq4_xs) == ASSAY_GGML_IQ4_XS_BYTES, "layout of IQ4_XS");

const int8_t assay_ggml_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Codes of 2 bits: byte 32 h + j holds elements 128 h + j, + 32, + 64 and + 96, the first in its lowest bits. */
static int code_of_2(const uint8_t q[SUPER / 4], size_t i)
{
    return q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

/* Codes of 4 bits: byte 32 h + j holds elements 64 h + j (low) and 64 h + 32 + j (high). */
static int code_of_4(const uint8_t q[SUPER / 2], size_t i)
{
    return q[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

static int high_bit(const uint8_t high[SUPER / 8], size_t i)
{
    return high[i % 32] >> i / 32 & 1;
}

void assay_ggml_decode_q2_k(const unsigned char *src, float *dst)
{
    struct block_q2_k block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d), d_min = assay_f16_to_f32(block.d_min);
    for (size_t i = 0; i < SUPER; i++) {
        uint8_t scale = block.scales[i / 16];
        dst[i] = d * (float)(scale & 15) * (float)code_of_2(block.q, i) - d_min * (float)(scale >> 4);
    }
}

void assay_ggml_decode_q3_k(const unsigned char *src, float *dst)
{
    struct block_q3_k block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t i = 0; i < SUPER; i++) {
        size_t part = i / 16;
        int low = block.scales[part % 8] >> part / 8 * 4 & 15, high = block.scales[8 + part % 4] >> part / 4 * 2 & 3;
        float scale = d * (float)((low | high << 4) - 32);
        dst[i] = scale * (float)(code_of_2(block.q, i) - (high_bit(block.high, i) ? 0 : 4));
    }
}

/* Scale and minimum of part j of 8. */
static void scale_and_minimum(const uint8_t scales[12], size_t j, int *ret_scale, int *ret_minimum)
{
    size_t k = j % 4;
    if (j < 4) {
        *ret_scale = scales[k] & 63;
        *ret_minimum = scales[k + 4] & 63;
    } else {
        *ret_scale = (scales[k + 8] & 15) | scales[k] >> 6 << 4;
        *ret_minimum = scales[k + 8] >> 4 | scales[k + 4] >> 6 << 4;
    }
}

/* Q5_K has `high`, Q4_K has not. */
static void decode_45(uint16_t half_d, uint16_t half_min, const uint8_t scales[12], const uint8_t *high,
                      const uint8_t q[SUPER / 2], float *dst)
{
    float d = assay_f16_to_f32(half_d), d_min = assay_f16_to_f32(half_min);
    for (size_t j = 0; j < SUPER / 32; j++) {
        int scale, minimum;
        scale_and_minimum(scales, j, &scale, &minimum);
        float step = d * (float)scale, offset = d_min * (float)minimum;
        for (size_t i = 32 * j; i < 32 * (j + 1); i++) {
            int code = code_of_4(q, i) | (high ? high_bit(high, i) << 4 : 0);
            dst[i] = step * (float)code - offset;
        }
    }
}

void assay_ggml_decode_q4_k(const unsigned char *src, float *dst)
{
    struct block_q4_k block;
    memcpy(&block, src, sizeof block);
    decode_45(block.d, block.d_min, block.scales, NULL, block.q, dst);
}

void assay_ggml_decode_q5_k(const unsigned char *src, float *dst)
{
    struct block_q5_k block;
    memcpy(&block, src, sizeof block);
    decode_45(block.d, block.d_min, block.scales, block.high, block.q, dst);
}

/* Byte 64 h + j of the low nibbles holds elements 128 h + j (low) and 128 h + 64 + j (high); the two upper bits lie as
 * the codes of Q2_K do. */
void assay_ggml_decode_q6_k(const unsigned char *src, float *dst)
{
    struct block_q6_k block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t i = 0; i < SUPER; i++) {
        int low = block.low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
        dst[i] = d * (float)block.scales[i / 16] * (float)((low | code_of_2(block.high, i) << 4) - 32);
    }
}

/* Codes lie within each 32 elements as in Q4_0. */
void assay_ggml_decode_iq4_xs(const unsigned char *src, float *dst)
{
    struct block_iq4_xs block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t i = 0; i < SUPER; i++) {
        size_t part = i / 32;
        int low = block.scales_low[part / 2] >> part % 2 * 4 & 15, high = block.scales_high >> part * 2 & 3;
        int code = block.q[part * 16 + i % 16] >> i % 32 / 16 * 4 & 15;
        dst[i] = d * (float)((low | high << 4) - 32) * (float)assay_ggml_iq4_values[code];
    }
}
