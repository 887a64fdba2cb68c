/* Blocks of GGUF's tensor types: the values of an independent implementation, what each bit of a block means, and sizes
 * that no file can have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_impl.h"
#include "common/formats/safetensors.h"
#include "tests/cmocka_all.h"
#include "tests/unit/gguf_writer.h"

/* tests/interop/make_gguf_blocks.py */
#define VECTORS ASSAY_SOURCE_DIR "/tests/vectors/gguf/blocks.safetensors"

#define ELEMENTS_MAX 256
#define BYTES_MAX 256

static const struct kind {
    uint32_t type;
    size_t elements, bytes;
    size_t code_bits; /* of an element */
    size_t halves[2]; /* where d, and m or d_min, stand; equal: d alone */
    size_t scales[2]; /* bytes [first, end) that say scales of parts; equal: none */
} kinds[] = {
    {ASSAY_GGML_Q4_0, 32, 18, 4, {0, 0}, {0, 0}},          {ASSAY_GGML_Q4_1, 32, 20, 4, {0, 2}, {0, 0}},
    {ASSAY_GGML_Q5_0, 32, 22, 5, {0, 0}, {0, 0}},          {ASSAY_GGML_Q5_1, 32, 24, 5, {0, 2}, {0, 0}},
    {ASSAY_GGML_Q8_0, 32, 34, 8, {0, 0}, {0, 0}},          {ASSAY_GGML_Q2_K, 256, 84, 2, {80, 82}, {0, 16}},
    {ASSAY_GGML_Q3_K, 256, 110, 3, {108, 108}, {96, 108}}, {ASSAY_GGML_Q4_K, 256, 144, 4, {0, 2}, {4, 16}},
    {ASSAY_GGML_Q5_K, 256, 176, 5, {0, 2}, {4, 16}},       {ASSAY_GGML_Q6_K, 256, 210, 6, {208, 208}, {192, 208}},
    {ASSAY_GGML_IQ4_NL, 32, 18, 4, {0, 0}, {0, 0}},        {ASSAY_GGML_IQ4_XS, 256, 136, 4, {0, 0}, {2, 8}},
};

static uint32_t random_state = 20261121;

static uint8_t random_byte(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return (uint8_t)(random_state >> 24);
}

static void decode(const struct kind *kind, const unsigned char *bytes, float *values)
{
    const struct assay_gguf_tensor tensor = {.name = "t",
                                             .type = (enum assay_ggml_type)kind->type,
                                             .rank = 1,
                                             .shape = {kind->elements},
                                             .data = bytes,
                                             .bytes = kind->bytes,
                                             .elements = kind->elements};
    assay_gguf_to_f32(&tensor, 0, kind->elements, values);
}

/* Codes are random; scales of parts are not 0, d is 1 and the minimum 0, so that each code shows. */
static void fill_plain(const struct kind *kind, unsigned char *bytes)
{
    for (size_t i = 0; i < kind->bytes; i++)
        bytes[i] = random_byte();
    for (size_t i = kind->scales[0]; i < kind->scales[1]; i++)
        bytes[i] = 0x11;
    memcpy(bytes + kind->halves[1], (const unsigned char[]){0, 0}, 2);
    memcpy(bytes + kind->halves[0], (const unsigned char[]){0x00, 0x3c}, 2);
}

static bool within(size_t at, const size_t range[2])
{
    return at >= range[0] && at < range[1];
}

static void every_value_is_that_of_the_gguf_package(void **state)
{
    (void)state;
    struct assay_safetensors *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_safetensors_open(VECTORS, &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(assay_safetensors_count(file), 2 * ASSAY_COUNT(kinds));
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++) {
        const struct kind *kind = &kinds[i];
        char name[32];
        snprintf(name, sizeof name, "%s.blocks", assay_ggml_name(kind->type));
        const struct assay_tensor *blocks = assay_safetensors_find(file, name);
        snprintf(name, sizeof name, "%s.values", assay_ggml_name(kind->type));
        const struct assay_tensor *values = assay_safetensors_find(file, name);
        assert_true(blocks && values && blocks->shape[1] == kind->bytes && values->shape[1] == kind->elements);
        assert_true(blocks->shape[0] == values->shape[0] && blocks->shape[0] >= 10);
        for (size_t block = 0; block < blocks->shape[0]; block++) {
            float got[ELEMENTS_MAX];
            decode(kind, (const unsigned char *)blocks->data + block * kind->bytes, got);
            if (memcmp(got, (const char *)values->data + block * sizeof *got * kind->elements,
                       sizeof *got * kind->elements) != 0)
                fail_msg("block %zu of %s differs", block, assay_ggml_name(kind->type));
        }
    }
    assay_safetensors_close(file);
}

/* Each bit of a code changes one element and no other; each element has its number of bits. */
static void each_bit_of_a_code_belongs_to_one_element(void **state)
{
    (void)state;
    for (size_t k = 0; k < ASSAY_COUNT(kinds); k++) {
        const struct kind *kind = &kinds[k];
        unsigned char bytes[BYTES_MAX];
        float before[ELEMENTS_MAX], after[ELEMENTS_MAX];
        size_t bits[ELEMENTS_MAX] = {0};
        fill_plain(kind, bytes);
        decode(kind, bytes, before);
        for (size_t bit = 0; bit < 8 * kind->bytes; bit++) {
            if (within(bit / 8, kind->scales) ||
                within(bit / 8, (const size_t[]){kind->halves[0], kind->halves[0] + 2}) ||
                within(bit / 8, (const size_t[]){kind->halves[1], kind->halves[1] + 2}))
                continue;
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            decode(kind, bytes, after);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            size_t changed = 0;
            for (size_t i = 0; i < kind->elements; i++) {
                changed += before[i] != after[i];
                bits[i] += before[i] != after[i];
            }
            if (changed != 1)
                fail_msg("bit %zu of %s changes %zu elements", bit, assay_ggml_name(kind->type), changed);
        }
        for (size_t i = 0; i < kind->elements; i++)
            if (bits[i] != kind->code_bits)
                fail_msg("element %zu of %s has %zu bits", i, assay_ggml_name(kind->type), bits[i]);
    }
}

/* Each bit of a scale changes the 16 or 32 elements of its part, next to each other (but those whose code is zero). */
static void each_bit_of_a_scale_belongs_to_one_part(void **state)
{
    (void)state;
    for (size_t k = 0; k < ASSAY_COUNT(kinds); k++) {
        const struct kind *kind = &kinds[k];
        unsigned char bytes[BYTES_MAX];
        float before[ELEMENTS_MAX], after[ELEMENTS_MAX];
        fill_plain(kind, bytes);
        if (kind->halves[1] != kind->halves[0]) /* minima show */
            memcpy(bytes + kind->halves[1], (const unsigned char[]){0x00, 0x3c}, 2);
        decode(kind, bytes, before);
        for (size_t bit = 8 * kind->scales[0]; bit < 8 * kind->scales[1]; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            decode(kind, bytes, after);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            size_t first = kind->elements, last = 0, changed = 0;
            for (size_t i = 0; i < kind->elements; i++) {
                if (before[i] == after[i])
                    continue;
                first = ASSAY_MIN(first, i);
                last = i;
                changed++;
            }
            if (changed < 4 || first / 32 != last / 32)
                fail_msg("bit %zu of %s changes %zu elements, %zu to %zu", bit, assay_ggml_name(kind->type), changed,
                         first, last);
        }
    }
}

/* Twice the scale is twice each value, exactly; and blocks do not depend on their neighbours. */
static void values_grow_with_the_scale_and_ranges_are_parts_of_the_whole(void **state)
{
    (void)state;
    for (size_t round = 0; round < 200; round++) {
        const struct kind *kind = &kinds[round % ASSAY_COUNT(kinds)];
        unsigned char bytes[4 * BYTES_MAX];
        float one[ELEMENTS_MAX], two[ELEMENTS_MAX], all[4 * ELEMENTS_MAX], part[2 * ELEMENTS_MAX];
        fill_plain(kind, bytes);
        decode(kind, bytes, one);
        memcpy(bytes + kind->halves[0], (const unsigned char[]){0x00, 0x40}, 2);
        decode(kind, bytes, two);
        for (size_t i = 0; i < kind->elements; i++)
            assert_true(two[i] == 2 * one[i]);
        for (size_t i = 0; i < 4 * kind->bytes; i++)
            bytes[i] = random_byte();
        const struct assay_gguf_tensor tensor = {.name = "t",
                                                 .type = (enum assay_ggml_type)kind->type,
                                                 .rank = 1,
                                                 .shape = {4 * kind->elements},
                                                 .data = bytes,
                                                 .bytes = 4 * kind->bytes,
                                                 .elements = 4 * kind->elements};
        assay_gguf_to_f32(&tensor, 0, 4 * kind->elements, all);
        assay_gguf_to_f32(&tensor, kind->elements, 2 * kind->elements, part);
        assert_memory_equal(part, all + kind->elements, 2 * kind->elements * sizeof *part);
    }
}

static void refused(uint32_t type, uint64_t columns, uint64_t rows, enum assay_status wanted, const char *words)
{
    struct gguf_writer writer = {0};
    size_t len;
    struct assay_gguf *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    gguf_put_description(&writer, "t", 2, (const uint64_t[]){columns, rows}, type, 0);
    unsigned char *bytes = gguf_image(&writer, &len);
    enum assay_status status = assay_gguf_parse(bytes, len, "file", &file, &err);
    free(bytes);
    gguf_writer_release(&writer);
    assert_null(file);
    if (status != wanted || !strstr(err.text, words))
        fail_msg("status %s, '%s'; wanted %s, '%s'", assay_status_name(status), err.text, assay_status_name(wanted),
                 words);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++) {
        const struct kind *kind = &kinds[i];
        const uint64_t most = UINT64_MAX / kind->elements * kind->elements;
        refused(kind->type, kind->elements / 2, 2, ASSAY_INVALID_ARGUMENT, "whole blocks");
        refused(kind->type, kind->elements + 1, 1, ASSAY_INVALID_ARGUMENT, "whole blocks");
        refused(kind->type, kind->elements, 1, ASSAY_INVALID_ARGUMENT, "beyond the file");
        refused(kind->type, kind->elements, UINT64_MAX, ASSAY_INVALID_ARGUMENT, "too many elements");
        if (kind->bytes > kind->elements)
            refused(kind->type, most, 1, ASSAY_INVALID_ARGUMENT, "too many elements");
        else
            refused(kind->type, most, 1, ASSAY_INVALID_ARGUMENT, "beyond the file");
    }
    refused(9, 32, 1, ASSAY_UNIMPLEMENTED, "Q8_1 (9)");
    refused(15, 256, 1, ASSAY_UNIMPLEMENTED, "Q8_K (15)");
    refused(16, 256, 1, ASSAY_UNIMPLEMENTED, "IQ2_XXS (16)");
    refused(39, 32, 1, ASSAY_UNIMPLEMENTED, "MXFP4 (39)");
    refused(UINT32_MAX, 32, 1, ASSAY_UNIMPLEMENTED, "unknown name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_that_of_the_gguf_package),
        cmocka_unit_test(each_bit_of_a_code_belongs_to_one_element),
        cmocka_unit_test(each_bit_of_a_scale_belongs_to_one_part),
        cmocka_unit_test(values_grow_with_the_scale_and_ranges_are_parts_of_the_whole),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
