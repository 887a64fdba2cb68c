/* nf4, int4 and casts, as the Python packages bitsandbytes, compressed-tensors and torch compute them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"
#include "common/quant/int4.h"
#include "common/quant/nf4.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define GOLDEN ASSAY_SHARED_DIR "/golden/quant/"

struct golden {
    struct assay_arena arena;
    struct assay_safetensors *file;
    const cJSON *schemes; /* of this matrix */
    enum assay_dtype dtype;
    size_t rows, cols, count;
    float *weights, *decoded;
};

static void *room(struct golden *g, size_t bytes)
{
    void *memory = assay_arena_alloc(&g->arena, bytes + 8);
    assert_non_null(memory);
    return memory;
}

static void golden_open(struct golden *g, const char *name, const cJSON *matrix)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    *g = (struct golden){.schemes = cJSON_GetObjectItem(matrix, "schemes")};
    snprintf(path, sizeof path, GOLDEN "%s.safetensors", name);
    if (assay_safetensors_open(path, &g->file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const struct assay_tensor *w = assay_safetensors_find(g->file, "W");
    assert_true(w && w->rank == 2);
    g->dtype = w->dtype;
    g->rows = (size_t)w->shape[0];
    g->cols = (size_t)w->shape[1];
    g->count = g->rows * g->cols;
    g->weights = room(g, g->count * sizeof *g->weights);
    g->decoded = room(g, g->count * sizeof *g->decoded);
    assert_true(assay_dtype_to_f32(w->dtype, w->data, g->count, g->weights));
}

static void golden_close(struct golden *g)
{
    assay_safetensors_close(g->file);
    assay_arena_release(&g->arena);
}

static const struct assay_tensor *part(const struct golden *g, const char *scheme, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", scheme, suffix);
    const struct assay_tensor *tensor = assay_safetensors_find(g->file, name);
    if (!tensor)
        fail_msg("%s is missing", name);
    return tensor;
}

static void expect_bytes(const struct golden *g, const char *scheme, const char *suffix, const void *found,
                         size_t bytes)
{
    const struct assay_tensor *wanted = part(g, scheme, suffix);
    assert_int_equal(wanted->bytes, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)found)[i] != ((const uint8_t *)wanted->data)[i])
            fail_msg("%s%s: byte %zu of %zu: found %02x, wanted %02x", scheme, suffix, i, bytes,
                     ((const uint8_t *)found)[i], ((const uint8_t *)wanted->data)[i]);
}

/* The decoded weights, rounded to the dtype of the golden. */
static void expect_decoded(const struct golden *g, const char *scheme)
{
    const struct assay_tensor *wanted = part(g, scheme, ".deq");
    for (size_t i = 0; i < g->count; i++) {
        float x = g->decoded[i], y;
        if (wanted->dtype == ASSAY_F16)
            x = assay_f16_to_f32(assay_f32_to_f16(x));
        else if (wanted->dtype == ASSAY_BF16)
            x = assay_bf16_to_f32(assay_f32_to_bf16(x));
        assert_true(assay_dtype_to_f32(wanted->dtype, (const char *)wanted->data + i * assay_dtype_bytes(wanted->dtype),
                                       1, &y));
        if (!(x == y))
            fail_msg("%s: element %zu: found %.9g, wanted %.9g", scheme, i, (double)x, (double)y);
    }
}

static void expect_near(const char *scheme, const char *what, double found, const cJSON *wanted)
{
    if (!cJSON_IsNumber(wanted))
        return; /* a figure that has no meaning there */
    if (!(fabs(found - wanted->valuedouble) <= 1e-9 * fabs(wanted->valuedouble)))
        fail_msg("%s %s: found %.17g, wanted %.17g", scheme, what, found, wanted->valuedouble);
}

/* The figures of index.json, in double: of the weights rounded to the matrix's dtype where the package rounds them. */
static void expect_errors(const struct golden *g, const char *scheme, enum assay_dtype dtype)
{
    const cJSON *wanted = cJSON_GetObjectItem(g->schemes, scheme);
    assert_non_null(wanted);
    double squares = 0, most = 0, dot = 0, norm = 0, norm_decoded = 0;
    for (size_t i = 0; i < g->count; i++) {
        float rounded = g->decoded[i];
        if (dtype == ASSAY_F16)
            rounded = assay_f16_to_f32(assay_f32_to_f16(rounded));
        else if (dtype == ASSAY_BF16)
            rounded = assay_bf16_to_f32(assay_f32_to_bf16(rounded));
        double x = (double)g->weights[i], y = (double)rounded, d = y - x;
        squares += d * d;
        most = fmax(most, fabs(d));
        dot += x * y;
        norm += x * x;
        norm_decoded += y * y;
    }
    expect_near(scheme, "mse", squares / (double)g->count, cJSON_GetObjectItem(wanted, "mse"));
    expect_near(scheme, "max_abs", most, cJSON_GetObjectItem(wanted, "max_abs"));
    expect_near(scheme, "cosine", dot / sqrt(norm * norm_decoded), cJSON_GetObjectItem(wanted, "cosine"));
    expect_near(scheme, "rel_fro", sqrt(squares / norm), cJSON_GetObjectItem(wanted, "rel_fro"));
}

/* --- one scheme each --- */

static void check_nf4(struct golden *g, const char *scheme, size_t block)
{
    size_t blocks = assay_nf4_blocks(g->count, block);
    uint8_t *packed = room(g, assay_nf4_bytes(g->count));
    float *absmax = room(g, blocks * sizeof *absmax);
    assert_int_equal(assay_nf4_encode(g->weights, g->count, block, packed, absmax, NULL), ASSAY_OK);
    expect_bytes(g, scheme, ".packed", packed, assay_nf4_bytes(g->count));
    expect_bytes(g, scheme, ".absmax", absmax, blocks * sizeof *absmax);
    assay_nf4_decode(packed, absmax, g->count, block, g->decoded);
}

static void check_nf4_b64(struct golden *g, const char *scheme)
{
    check_nf4(g, scheme, 64);
    expect_decoded(g, scheme);
    expect_errors(g, scheme, g->dtype);
}

static void check_nf4_b128(struct golden *g, const char *scheme)
{
    check_nf4(g, scheme, 128);
    expect_errors(g, scheme, g->dtype);
}

static void check_nf4_dq(struct golden *g, const char *scheme)
{
    const struct assay_tensor *blocks_of = part(g, "bnb_nf4_b64", ".absmax");
    size_t blocks = blocks_of->bytes / sizeof(float), nested = assay_nf4_blocks(blocks, ASSAY_NF4_NESTED_BLOCK);
    float *absmax = room(g, blocks * sizeof *absmax), *absmax2 = room(g, nested * sizeof *absmax2), map[256], offset;
    uint8_t *codes = room(g, blocks);
    memcpy(absmax, blocks_of->data, blocks * sizeof *absmax);
    assay_nested_map(map);
    assay_nested_encode(absmax, blocks, map, codes, absmax2, &offset);
    float wanted_offset;
    memcpy(&wanted_offset, part(g, scheme, ".offset")->data, sizeof wanted_offset);
    float ulp = nextafterf(fabsf(wanted_offset), INFINITY) - fabsf(wanted_offset);
    if (!(fabsf(offset - wanted_offset) <= 2 * ulp))
        fail_msg("offset: found %.9g, wanted %.9g", (double)offset, (double)wanted_offset);
    expect_bytes(g, scheme, ".absmax_q_nearest", codes, blocks);

    /* What the package wrote, decoded by us. */
    const uint8_t *theirs = part(g, scheme, ".absmax_q")->data;
    memcpy(absmax2, part(g, scheme, ".absmax2")->data, nested * sizeof *absmax2);
    assay_nested_decode(theirs, absmax2, blocks, ASSAY_NF4_NESTED_BLOCK, map, wanted_offset, absmax);
    expect_bytes(g, scheme, ".absmax_deq", absmax, blocks * sizeof *absmax);
    assay_nf4_decode(part(g, "bnb_nf4_b64", ".packed")->data, absmax, g->count, 64, g->decoded);
    expect_decoded(g, scheme);
    expect_errors(g, scheme, g->dtype);
}

static void check_int4(struct golden *g, const char *scheme)
{
    const struct assay_int4_shape shape = {g->rows, g->cols, 128};
    size_t groups = assay_int4_groups(&shape), words = assay_int4_words(&shape);
    uint32_t *codes = room(g, g->rows * words * sizeof *codes);
    uint32_t *zeros = room(g, assay_int4_zero_words(&shape) * sizeof *zeros);
    float *scales = room(g, g->rows * groups * sizeof *scales);
    int8_t *q = room(g, g->count), *z = room(g, g->rows * groups);
    assert_int_equal(assay_int4_encode(g->weights, &shape, codes, scales, zeros, NULL), ASSAY_OK);
    for (size_t i = 0; i < g->count; i++)
        q[i] = (int8_t)((codes[i / g->cols * words + i % g->cols / 8] >> 4 * (i % g->cols % 8) & 15) - 8);
    for (size_t i = 0; i < g->rows * groups; i++)
        z[i] = (int8_t)((zeros[i / groups / 8 * groups + i % groups] >> 4 * (i / groups % 8) & 15) - 8);
    expect_bytes(g, scheme, ".scale", scales, g->rows * groups * sizeof *scales);
    expect_bytes(g, scheme, ".zero", z, g->rows * groups);
    expect_bytes(g, scheme, ".q", q, g->count);
    expect_bytes(g, scheme, ".packed", codes, g->rows * words * sizeof *codes);
    assay_int4_decode(codes, scales, zeros, &shape, g->decoded);
    expect_errors(g, scheme, ASSAY_F32);
}

static void check_int4_sym(struct golden *g, const char *scheme)
{
    const struct assay_int4_shape shape = {g->rows, g->cols, 128};
    const struct assay_tensor *packed = part(g, scheme, ".packed"), *scale = part(g, scheme, ".scale");
    uint32_t *codes = room(g, packed->bytes);
    float *scales = room(g, scale->bytes);
    memcpy(codes, packed->data, packed->bytes);
    memcpy(scales, scale->data, scale->bytes);
    assay_int4_decode(codes, scales, NULL, &shape, g->decoded);
    expect_errors(g, scheme, ASSAY_F32);
}

static void check_f16(struct golden *g, const char *scheme)
{
    for (size_t i = 0; i < g->count; i++)
        g->decoded[i] = assay_f16_to_f32(assay_f32_to_f16(g->weights[i]));
    expect_errors(g, scheme, ASSAY_F32);
}

static void check_bf16(struct golden *g, const char *scheme)
{
    for (size_t i = 0; i < g->count; i++)
        g->decoded[i] = assay_bf16_to_f32(assay_f32_to_bf16(g->weights[i]));
    expect_errors(g, scheme, ASSAY_F32);
}

static void each_matrix(const char *scheme, void (*check)(struct golden *g, const char *scheme))
{
    need_shared();
    struct assay_err err = ASSAY_ERR_INIT;
    assay_auto(assay_json_delete) cJSON *index = NULL;
    if (assay_json_load(GOLDEN "index.json", &index, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    size_t checked = 0;
    const cJSON *matrix;
    cJSON_ArrayForEach(matrix, cJSON_GetObjectItem(index, "matrices"))
    {
        if (!cJSON_GetObjectItem(cJSON_GetObjectItem(matrix, "schemes"), scheme))
            continue;
        struct golden golden;
        golden_open(&golden, matrix->string, matrix);
        print_message("%s\n", matrix->string);
        check(&golden, scheme);
        golden_close(&golden);
        checked++;
    }
    print_message("%s: %zu matrices agree\n", scheme, checked);
    assert_true(checked > 0);
}

#define GOLDEN_TEST(scheme, check, name)                                                                               \
    static void name(void **state)                                                                                     \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        each_matrix(scheme, check);                                                                                    \
    }

GOLDEN_TEST("bnb_nf4_b64", check_nf4_b64, nf4_in_blocks_of_64_is_exactly_that_of_bitsandbytes)
GOLDEN_TEST("bnb_nf4_b128", check_nf4_b128, nf4_in_blocks_of_128_is_exactly_that_of_bitsandbytes)
GOLDEN_TEST("bnb_nf4_b64_dq", check_nf4_dq, quantized_scales_are_the_nearest_and_theirs_are_decoded_exactly)
GOLDEN_TEST("ct_int4_asym_g128", check_int4, int4_is_exactly_that_of_compressed_tensors)
GOLDEN_TEST("ct_int4_sym_g128", check_int4_sym, symmetric_int4_of_compressed_tensors_is_decoded)
GOLDEN_TEST("cast_f16", check_f16, half_is_rounded_as_torch_rounds)
GOLDEN_TEST("cast_bf16", check_bf16, bfloat_is_rounded_as_torch_rounds)

static void tables_are_those_of_bitsandbytes(void **state)
{
    (void)state;
    need_shared();
    struct golden golden = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_safetensors_open(GOLDEN "codebooks.safetensors", &golden.file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    float map[256];
    assay_nested_map(map);
    expect_bytes(&golden, "nf4_code", "", assay_nf4_table, sizeof assay_nf4_table);
    expect_bytes(&golden, "dynamic_map_signed8", "", map, sizeof map);
    golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_of_bitsandbytes),
        cmocka_unit_test(nf4_in_blocks_of_64_is_exactly_that_of_bitsandbytes),
        cmocka_unit_test(nf4_in_blocks_of_128_is_exactly_that_of_bitsandbytes),
        cmocka_unit_test(quantized_scales_are_the_nearest_and_theirs_are_decoded_exactly),
        cmocka_unit_test(int4_is_exactly_that_of_compressed_tensors),
        cmocka_unit_test(symmetric_int4_of_compressed_tensors_is_decoded),
        cmocka_unit_test(half_is_rounded_as_torch_rounds),
        cmocka_unit_test(bfloat_is_rounded_as_torch_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
