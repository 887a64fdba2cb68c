/* Tensor types of GGUF: their blocks and what these say. */
#include <string.h>

#include "common/base/dtype.h"
#include "common/formats/gguf_impl.h"

#define BLOCK 32

struct block_q4_0 {
    uint16_t d;
    uint8_t q[BLOCK / 2]; /* low nibble of byte j: element j; high: element j + 16 */
};
struct block_q4_1 {
    uint16_t d, m;
    uint8_t q[BLOCK / 2];
};
struct block_q8_0 {
    uint16_t d;
    int8_t q[BLOCK];
};
_Static_assert(sizeof(struct block_q4_0) == 18, "layout of Q4_0");
_Static_assert(sizeof(struct block_q4_1) == 20, "layout of Q4_1");
_Static_assert(sizeof(struct block_q8_0) == 34, "layout of Q8_0");

bool assay_ggml_block(uint32_t type, size_t *ret_elements, size_t *ret_bytes)
{
    static const struct {
        uint32_t type;
        size_t elements, bytes;
    } rows[] = {
        {ASSAY_GGML_F32, 1, 4},
        {ASSAY_GGML_F16, 1, 2},
        {ASSAY_GGML_BF16, 1, 2},
        {ASSAY_GGML_Q4_0, BLOCK, sizeof(struct block_q4_0)},
        {ASSAY_GGML_Q4_1, BLOCK, sizeof(struct block_q4_1)},
        {ASSAY_GGML_Q8_0, BLOCK, sizeof(struct block_q8_0)},
    };
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        if (rows[i].type == type) {
            *ret_elements = rows[i].elements;
            *ret_bytes = rows[i].bytes;
            return true;
        }
    }
    return false;
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

static void decode_q4(const uint8_t q[BLOCK / 2], float d, int zero, float m, float *dst)
{
    for (size_t j = 0; j < BLOCK / 2; j++) {
        dst[j] = (float)((q[j] & 15) - zero) * d + m;
        dst[j + BLOCK / 2] = (float)((q[j] >> 4) - zero) * d + m;
    }
}

static void decode_q4_0(const unsigned char *src, float *dst)
{
    struct block_q4_0 block;
    memcpy(&block, src, sizeof block);
    /* -0 leaves every sum as it is, the sign of a zero too. */
    decode_q4(block.q, assay_f16_to_f32(block.d), 8, -0.0f, dst);
}

static void decode_q4_1(const unsigned char *src, float *dst)
{
    struct block_q4_1 block;
    memcpy(&block, src, sizeof block);
    decode_q4(block.q, assay_f16_to_f32(block.d), 0, assay_f16_to_f32(block.m), dst);
}

static void decode_q8_0(const unsigned char *src, float *dst)
{
    struct block_q8_0 block;
    memcpy(&block, src, sizeof block);
    float d = assay_f16_to_f32(block.d);
    for (size_t j = 0; j < BLOCK; j++)
        dst[j] = (float)block.q[j] * d;
}

void assay_gguf_to_f32(const struct assay_gguf_tensor *tensor, uint64_t first, size_t n, float *dst)
{
    size_t elements, bytes;
    if (first > tensor->elements || n > tensor->elements - first ||
        !assay_ggml_block(tensor->type, &elements, &bytes) || first % elements != 0 || n % elements != 0)
        ASSAY_BUG("elements outside a GGUF tensor");
    const unsigned char *src = (const unsigned char *)tensor->data + first / elements * bytes;
    enum assay_dtype dtype = tensor->type == ASSAY_GGML_F32   ? ASSAY_F32
                             : tensor->type == ASSAY_GGML_F16 ? ASSAY_F16
                                                              : ASSAY_BF16;
    if (elements == 1) {
        assay_dtype_to_f32(dtype, src, n, dst);
        return;
    }
    void (*decode)(const unsigned char *, float *) = tensor->type == ASSAY_GGML_Q4_0   ? decode_q4_0
                                                     : tensor->type == ASSAY_GGML_Q4_1 ? decode_q4_1
                                                                                       : decode_q8_0;
    for (; n; n -= elements, src += bytes, dst += elements)
        decode(src, dst);
}
