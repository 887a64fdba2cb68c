/* Tensor types of GGUF: their blocks and what these say. */
#include "common/formats/gguf_block.h"

#include <string.h>

#include "common/base/dtype.h"
#include "common/formats/gguf_impl.h"

#define BLOCK ASSAY_GGML_BLOCK

struct block_q4_0 {
    uint16_t d;
    uint8_t q[BLOCK / 2]; /* low nibble of byte j: element j; high: element j + 16 */
};
struct block_q4_1 {
    uint16_t d, m;
    uint8_t q[BLOCK / 2];
};
struct block_q5_0 {
    uint16_t d;
    uint8_t high[4]; /* fifth bit of element j: bit j, little-endian */
    uint8_t q[BLOCK / 2];
};
struct block_q5_1 {
    uint16_t d, m;
    uint8_t high[4];
    uint8_t q[BLOCK / 2];
};
struct block_q8_0 {
    uint16_t d;
    int8_t q[BLOCK];
};
_Static_assert(sizeof(struct block_q4_0) == 18, "layout of Q4_0 and IQ4_NL");
_Static_assert(sizeof(struct block_q4_1) == 20, "layout of Q4_1");
_Static_assert(sizeof(struct block_q5_0) == 22, "layout of Q5_0");
_Static_assert(sizeof(struct block_q5_1) == 24, "layout of Q5_1");
_Static_assert(sizeof(struct block_q8_0) == 34, "layout of Q8_0");

/* The fifth bits are those of `high`; NULL: none. */
static void decode_45(const uint8_t q[BLOCK / 2], const uint8_t *high, float d, int zero, float m, float *dst)
{
    for (size_t i = 0; i < BLOCK; i++) {
        int code = q[i % 16] >> i / 16 * 4 & 15;
        if (high)
            code |= (high[i / 8] >> i % 8 & 1) << 4;
        dst[i] = (float)(code - zero) * d + m;
    }
}

/* -0 leaves every sum as it is, the sign of a zero too. */
#define NO_MINIMUM (-0.0f)

static void decode_q4_0(const unsigned char *src, float *dst)
{
    struct block_q4_0 block;
    memcpy(&block, src, sizeof block);
    decode_45(block.q, NULL, assay_f16_to_f32(block.d), 8, NO_MINIMUM, dst);
}

static void decode_q4_1(const unsigned char *src, float *dst)
{
    struct block_q4_1 block;
    memcpy(&block, src, sizeof block);
    decode_45(block.q, NULL, assay_f16_to_f32(block.d), 0, assay_f16_to_f32(block.m), dst);
}

static void decode_q5_0(const unsigned char *src, float *dst)
{
    struct block_q5_0 block;
    memcpy(&block, src, sizeof block);
    decode_45(block.q, block.high, assay_f16_to_f32(block.d), 16, NO_MINIMUM, dst);
}

static void decode_q5_1(const unsigned char *src, float *dst)
{
    struct block_q5_1 block;
    memcpy(&block, src, sizeof block);
    decode_45(block.q, block.high, assay_f16_to_f32(block.d), 0, assay_f16_to_f32(block.m), dst);
}

static void decode_q8_0(const unsigned char *src, float *dst)
{
    struct block_q8_0 block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t j = 0; j < BLOCK; j++)
        dst[j] = (float)block.q[j] * d;
}

static void decode_iq4_nl(const unsigned char *src, float *dst)
{
    struct block_q4_0 block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t i = 0; i < BLOCK; i++)
        dst[i] = d * (float)assay_ggml_iq4_values[block.q[i % 16] >> i / 16 * 4 & 15];
}

/* What is read, in the order of enum assay_ggml_type. */
static const struct kind {
    uint32_t type;
    size_t elements, bytes;
    assay_ggml_decode_fn decode; /* NULL: plain values */
} kinds[] = {
    {ASSAY_GGML_F32, 1, 4, NULL},
    {ASSAY_GGML_F16, 1, 2, NULL},
    {ASSAY_GGML_Q4_0, BLOCK, sizeof(struct block_q4_0), decode_q4_0},
    {ASSAY_GGML_Q4_1, BLOCK, sizeof(struct block_q4_1), decode_q4_1},
    {ASSAY_GGML_Q5_0, BLOCK, sizeof(struct block_q5_0), decode_q5_0},
    {ASSAY_GGML_Q5_1, BLOCK, sizeof(struct block_q5_1), decode_q5_1},
    {ASSAY_GGML_Q8_0, BLOCK, sizeof(struct block_q8_0), decode_q8_0},
    {ASSAY_GGML_Q2_K, ASSAY_GGML_SUPER, ASSAY_GGML_Q2_K_BYTES, assay_ggml_decode_q2_k},
    {ASSAY_GGML_Q3_K, ASSAY_GGML_SUPER, ASSAY_GGML_Q3_K_BYTES, assay_ggml_decode_q3_k},
    {ASSAY_GGML_Q4_K, ASSAY_GGML_SUPER, ASSAY_GGML_Q4_K_BYTES, assay_ggml_decode_q4_k},
    {ASSAY_GGML_Q5_K, ASSAY_GGML_SUPER, ASSAY_GGML_Q5_K_BYTES, assay_ggml_decode_q5_k},
    {ASSAY_GGML_Q6_K, ASSAY_GGML_SUPER, ASSAY_GGML_Q6_K_BYTES, assay_ggml_decode_q6_k},
    {ASSAY_GGML_IQ4_NL, BLOCK, sizeof(struct block_q4_0), decode_iq4_nl},
    {ASSAY_GGML_IQ4_XS, ASSAY_GGML_SUPER, ASSAY_GGML_IQ4_XS_BYTES, assay_ggml_decode_iq4_xs},
    {ASSAY_GGML_BF16, 1, 2, NULL},
};

static const struct kind *kind_of(uint32_t type)
{
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
        if (kinds[i].type == type)
            return &kinds[i];
    return NULL;
}

bool assay_ggml_block(uint32_t type, size_t *ret_elements, size_t *ret_bytes)
{
    const struct kind *kind = kind_of(type);
    if (!kind)
        return false;
    *ret_elements = kind->elements;
    *ret_bytes = kind->bytes;
    return true;
}

const char *assay_ggml_name(uint32_t type)
{
    static const char *const names[] = {
        [0] = "F32",     [1] = "F16",    [2] = "Q4_0",     [3] = "Q4_1",    [6] = "Q5_0",     [7] = "Q5_1",
        [8] = "Q8_0",    [9] = "Q8_1",   [10] = "Q2_K",    [11] = "Q3_K",   [12] = "Q4_K",    [13] = "Q5_K",
        [14] = "Q6_K",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
        [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S",   [23] = "IQ4_XS", [24] = "I8",      [25] = "I16",
        [26] = "I32",    [27] = "I64",   [28] = "F64",     [29] = "IQ1_M",  [30] = "BF16",    [34] = "TQ1_0",
        [35] = "TQ2_0",  [39] = "MXFP4",
    };
    return type < ASSAY_COUNT(names) ? names[type] : NULL;
}

const char *assay_ggml_names(void)
{
    return "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS";
}

void assay_gguf_to_f32(const struct assay_gguf_tensor *tensor, uint64_t first, size_t n, float *dst)
{
    const struct kind *kind = kind_of(tensor->type);
    if (!kind || first > tensor->elements || n > tensor->elements - first || first % kind->elements != 0 ||
        n % kind->elements != 0)
        ASSAY_BUG("elements outside a GGUF tensor");
    const unsigned char *src = (const unsigned char *)tensor->data + first / kind->elements * kind->bytes;
    if (!kind->decode) {
        enum assay_dtype dtype = tensor->type == ASSAY_GGML_F32   ? ASSAY_F32
                                 : tensor->type == ASSAY_GGML_F16 ? ASSAY_F16
                                                                  : ASSAY_BF16;
        assay_dtype_to_f32(dtype, src, n, dst);
        return;
    }
    for (; n; n -= kind->elements, src += kind->bytes, dst += kind->elements)
        kind->decode(src, dst);
}
