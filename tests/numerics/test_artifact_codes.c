/* Artifacts of 4-bit codes must compute what the same checkpoint with its weights written out in f32 computes, to the
 * bit; with compute bf16 all paths must agree. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/quant/int4.h"
#include "common/quant/nf4.h"
#include "tests/numerics/artifact_fixture.h"
#include "tests/shared.h"

#define TOKENS 50
#define HIDDEN 96
#define BNB                                                                                                            \
    "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"load_in_8bit\":false,"                                 \
    "\"bnb_4bit_quant_type\":\"nf4\",\"bnb_4bit_use_double_quant\":true,\"bnb_4bit_quant_storage\":\"uint8\"}"
#define CT                                                                                                             \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"quantization_status\":\"compressed\","   \
    "\"ignore\":[\"lm_head\"],\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"input_activations\":null,"    \
    "\"weights\":{\"num_bits\":4,\"type\":\"int\",\"symmetric\":%s,\"dynamic\":false,\"strategy\":\"%s\","             \
    "\"group_size\":%s}}}}"

enum layout { NF4, NF4_NESTED, INT4_GROUP, INT4_CHANNEL, INT4_SYMMETRIC, LAYOUTS };

struct pair {
    struct assay_arena arena;
    struct assay_checkpoint *source;
    struct draft artifact, plain;
};

static const char *part(struct assay_arena *arena, const char *name, const char *suffix)
{
    char *full = arena_of(arena, strlen(name) + strlen(suffix) + 1);
    sprintf(full, "%s%s", name, suffix);
    return full;
}

static void add_nf4(struct pair *pair, const struct assay_tensor *t, const float *weights, bool nested, float *values)
{
    struct assay_arena *arena = &pair->arena;
    struct draft *d = &pair->artifact;
    size_t count = (size_t)assay_tensor_elements(t), blocks = assay_nf4_blocks(count, 64);
    size_t nested_blocks = (blocks + 255) / 256;
    uint8_t *packed = arena_of(arena, assay_nf4_bytes(count)), *codes = arena_of(arena, blocks);
    float *absmax = arena_of(arena, blocks * sizeof *absmax), *absmax2 = arena_of(arena, nested_blocks * 4);
    float *map = arena_of(arena, 256 * sizeof *map), offset = 0;
    want_ok(assay_nf4_encode(weights, count, 64, packed, absmax, &err));
    char *state = arena_of(arena, 512);
    int length =
        sprintf(state, "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [%d, %d]",
                (int)t->shape[0], (int)t->shape[1]);
    draft_add(d, t->name, ASSAY_U8, 2, (uint64_t[]){assay_nf4_bytes(count), 1}, packed);
    draft_add(d, part(arena, t->name, ".quant_map"), ASSAY_F32, 1, (uint64_t[]){16}, assay_nf4_table);
    if (nested) {
        assay_nested_map(map);
        assay_nested_encode(absmax, blocks, map, codes, absmax2, &offset);
        assay_nested_decode(codes, absmax2, blocks, 256, map, offset, absmax);
        length += sprintf(state + length,
                          ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
                          "\"nested_offset\": %.17g",
                          (double)offset);
        draft_add(d, part(arena, t->name, ".absmax"), ASSAY_U8, 1, (uint64_t[]){blocks}, codes);
        draft_add(d, part(arena, t->name, ".nested_absmax"), ASSAY_F32, 1, (uint64_t[]){nested_blocks}, absmax2);
        draft_add(d, part(arena, t->name, ".nested_quant_map"), ASSAY_F32, 1, (uint64_t[]){256}, map);
    } else {
        draft_add(d, part(arena, t->name, ".absmax"), ASSAY_F32, 1, (uint64_t[]){blocks}, absmax);
    }
    length += sprintf(state + length, "}");
    draft_add(d, part(arena, t->name, ".quant_state.bitsandbytes__nf4"), ASSAY_U8, 1, (uint64_t[]){(uint64_t)length},
              state);
    assay_nf4_decode(packed, absmax, count, 64, values);
}

static void add_int4(struct pair *pair, const struct assay_tensor *t, const float *weights, enum layout layout,
                     float *values)
{
    struct assay_arena *arena = &pair->arena;
    struct draft *d = &pair->artifact;
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[1];
    struct assay_int4_shape shape = {rows, columns, layout == INT4_CHANNEL ? columns : 32};
    size_t words = assay_int4_words(&shape), groups = assay_int4_groups(&shape);
    uint32_t *codes = arena_of(arena, rows * words * 4), *zeros = arena_of(arena, assay_int4_zero_words(&shape) * 4);
    float *scales = arena_of(arena, rows * groups * sizeof *scales);
    int64_t *sizes = arena_of(arena, 2 * sizeof *sizes);
    sizes[0] = (int64_t)rows;
    sizes[1] = (int64_t)columns;
    want_ok(assay_int4_encode(weights, &shape, codes, scales, zeros, &err));
    char *stem = arena_of(arena, strlen(t->name) + 1);
    sprintf(stem, "%.*s", (int)(strlen(t->name) - strlen("weight")), t->name);
    draft_add(d, part(arena, stem, "weight_packed"), ASSAY_I32, 2, (uint64_t[]){rows, words}, codes);
    draft_add(d, part(arena, stem, "weight_scale"), ASSAY_F32, 2, (uint64_t[]){rows, groups}, scales);
    draft_add(d, part(arena, stem, "weight_shape"), ASSAY_I64, 1, (uint64_t[]){2}, sizes);
    bool symmetric = layout == INT4_SYMMETRIC;
    if (!symmetric)
        draft_add(d, part(arena, stem, "weight_zero_point"), ASSAY_I32, 2, (uint64_t[]){(rows + 7) / 8, groups}, zeros);
    assay_int4_decode(codes, scales, symmetric ? NULL : zeros, &shape, values);
}

static void pair_open(struct pair *pair, enum layout layout)
{
    *pair = (struct pair){0};
    want_ok(assay_checkpoint_open(ARTIFACT_SOURCE, &pair->source, &err));
    for (size_t i = 0; i < assay_checkpoint_count(pair->source); i++) {
        const struct assay_tensor *t = assay_checkpoint_at(pair->source, i);
        if (!strstr(t->name, "_proj.weight")) {
            draft_add(&pair->artifact, t->name, t->dtype, t->rank, t->shape, t->data);
            draft_add(&pair->plain, t->name, t->dtype, t->rank, t->shape, t->data);
            continue;
        }
        size_t count = (size_t)assay_tensor_elements(t);
        float *weights = arena_of(&pair->arena, count * sizeof *weights);
        float *values = arena_of(&pair->arena, count * sizeof *values);
        assert_true(assay_dtype_to_f32(t->dtype, t->data, count, weights));
        if (layout <= NF4_NESTED)
            add_nf4(pair, t, weights, layout == NF4_NESTED, values);
        else
            add_int4(pair, t, weights, layout, values);
        draft_add(&pair->plain, t->name, ASSAY_F32, 2, t->shape, values);
    }
}

static const char *quantization_of(enum layout layout)
{
    static char text[1024];
    if (layout <= NF4_NESTED)
        return BNB;
    snprintf(text, sizeof text, CT, layout == INT4_SYMMETRIC ? "true" : "false",
             layout == INT4_CHANNEL ? "channel" : "group", layout == INT4_CHANNEL ? "null" : "32");
    return text;
}

static void pair_close(struct pair *pair)
{
    assay_checkpoint_close(pair->source);
    assay_arena_release(&pair->arena);
    want_ok(*pair->artifact.dir ? assay_remove_tree(pair->artifact.dir, &err) : ASSAY_OK);
    want_ok(*pair->plain.dir ? assay_remove_tree(pair->plain.dir, &err) : ASSAY_OK);
}

static size_t run(const char *dir, struct assay_pool *pool, float *hidden)
{
    struct assay_model *model = NULL;
    want_ok(model_load(dir, pool, &model));
    assert_int_equal(assay_model_config(model)->hidden, HIDDEN);
    want_ok(assay_model_check_rows(model, pool, &err));
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = i * 17 % 1000;
    struct assay_sequence sequence = {ids, TOKENS, 0, TOKENS, hidden, NULL};
    want_ok(assay_model_forward(model, pool, &sequence, 1, NULL, &err));
    size_t bytes = assay_model_bytes(model);
    assay_model_free(model);
    return bytes;
}

static void artifacts_of_codes_compute_what_their_decoded_weights_compute(void **state)
{
    (void)state;
    need_shared();
    struct assay_pool *pool;
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    static float hidden[2][TOKENS * HIDDEN];
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int layout = 0; layout < LAYOUTS; layout++) {
            struct pair pair;
            pair_open(&pair, (enum layout)layout);
            const char *own = bf16 ? "{\"compute\":\"bf16\"}" : NULL;
            draft_write(&pair.artifact, quantization_of((enum layout)layout), own);
            draft_write(&pair.plain, NULL, own);
            size_t packed = run(pair.artifact.dir, pool, hidden[0]), plain = run(pair.plain.dir, pool, hidden[1]);
            assert_memory_equal(hidden[0], hidden[1], sizeof hidden[0]);
            assert_true(packed < plain / 2);
            pair_close(&pair);
        }
    assay_pool_free(pool);
}

static void compute_bf16_gives_the_same_bits_on_every_path(void **state)
{
    (void)state;
    need_shared();
    static const char *const masks[] = {"scalar", "avx2", "avx512", "avx512bf16"};
    static float hidden[ASSAY_COUNT(masks)][TOKENS * HIDDEN], exact[TOKENS * HIDDEN];
    struct pair pair;
    struct assay_pool *pool;
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    pair_open(&pair, INT4_GROUP);
    draft_write(&pair.artifact, quantization_of(INT4_GROUP), "{\"compute\":\"bf16\"}");
    draft_write(&pair.plain, NULL, NULL);
    for (size_t i = 0; i < ASSAY_COUNT(masks); i++) {
        setenv("ASSAY_CPU_MASK", masks[i], 1);
        run(pair.artifact.dir, pool, hidden[i]);
        assert_memory_equal(hidden[i], hidden[0], sizeof hidden[i]);
    }
    unsetenv("ASSAY_CPU_MASK");
    /* It rounds, and no more than that. */
    run(pair.plain.dir, pool, exact);
    double difference = 0, size = 0;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) {
        difference += ((double)hidden[0][i] - (double)exact[i]) * ((double)hidden[0][i] - (double)exact[i]);
        size += (double)exact[i] * (double)exact[i];
    }
    double relative = sqrt(difference / size);
    assert_true(relative > 1e-4 && relative < 2e-2);
    assay_pool_free(pool);
    pair_close(&pair);
}

/* The tensor of the first layer's q_proj that ends so. */
static struct assay_tensor *find(struct draft *draft, const char *suffix)
{
    for (size_t i = 0; i < draft->count; i++) {
        const char *name = draft->tensors[i].name;
        if (strstr(name, "layers.0.self_attn.q_proj.") && strcmp(name + strlen(name) - strlen(suffix), suffix) == 0)
            return &draft->tensors[i];
    }
    return NULL;
}

struct fault {
    enum layout layout;
    const char *tensor;  /* whose data becomes `text`, or that is dropped (NULL) */
    const char *text;    /* of a U8 tensor */
    const char *renamed; /* suffix instead */
    enum assay_status status;
    const char *word;
};

static void want_fault(const struct fault *fault)
{
    struct pair pair;
    struct assay_pool *pool;
    struct assay_model *model = NULL;
    pair_open(&pair, fault->layout);
    struct assay_tensor *tensor = find(&pair.artifact, fault->tensor);
    assert_non_null(tensor);
    if (fault->renamed) {
        char *stem = arena_of(&pair.arena, strlen(tensor->name) + 1);
        sprintf(stem, "%.*s", (int)(strlen(tensor->name) - strlen(fault->tensor)), tensor->name);
        tensor->name = part(&pair.arena, stem, fault->renamed);
    } else if (fault->text) {
        tensor->data = (const void *)fault->text;
        tensor->bytes = strlen(fault->text);
        tensor->shape[0] = tensor->bytes;
    } else {
        *tensor = pair.artifact.tensors[--pair.artifact.count];
    }
    draft_write(&pair.artifact, quantization_of(fault->layout), NULL);
    want_ok(assay_pool_new(1, NULL, &pool, &err));
    assert_int_equal(model_load(pair.artifact.dir, pool, &model), fault->status);
    if (!strstr(err.text, fault->word))
        fail_msg("'%s' does not name %s", err.text, fault->word);
    assay_pool_free(pool);
    pair_close(&pair);
}

static void codes_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    need_shared();
    static const char shape[] = "{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[1,9216]}";
    static const char fp4[] = "{\"quant_type\":\"fp4\",\"blocksize\":64,\"shape\":[96,96]}";
    static const char zero[] = "{\"quant_type\":\"nf4\",\"blocksize\":0,\"shape\":[96,96]}";
    static const char other[] = "{\"quant_type\":\"nf4\",\"blocksize\":128,\"shape\":[96,96]}";
    static const char no_shape[] = "{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":7}";
    const char *q = ".quant_state.bitsandbytes__nf4";
    const struct fault faults[] = {
        {NF4, q, shape, NULL, ASSAY_INVALID_ARGUMENT, "shape"},
        {NF4, q, fp4, NULL, ASSAY_UNIMPLEMENTED, "fp4"},
        {NF4, q, zero, NULL, ASSAY_INVALID_ARGUMENT, "blocksize"},
        {NF4, q, other, NULL, ASSAY_INVALID_ARGUMENT, "absmax"},
        {NF4, q, no_shape, NULL, ASSAY_INVALID_ARGUMENT, "shape"},
        {NF4, q, "{\"quant_type", NULL, ASSAY_INVALID_ARGUMENT, "bitsandbytes__nf4"},
        {NF4, q, NULL, ".quant_state.bitsandbytes__fp4", ASSAY_UNIMPLEMENTED, "bitsandbytes__fp4"},
        {NF4, q, NULL, NULL, ASSAY_NOT_FOUND, "bitsandbytes__nf4"},
        {NF4, ".absmax", NULL, NULL, ASSAY_NOT_FOUND, "absmax"},
        {NF4_NESTED, ".nested_absmax", NULL, NULL, ASSAY_NOT_FOUND, "nested_absmax"},
        {NF4_NESTED, ".nested_quant_map", NULL, NULL, ASSAY_NOT_FOUND, "nested_quant_map"},
        {INT4_GROUP, "weight_scale", NULL, NULL, ASSAY_NOT_FOUND, "weight_scale"},
        {INT4_GROUP, "weight_zero_point", NULL, NULL, ASSAY_NOT_FOUND, "weight_zero_point"},
        {INT4_GROUP, "weight_shape", NULL, NULL, ASSAY_NOT_FOUND, "weight_shape"},
        {INT4_GROUP, "weight_packed", NULL, NULL, ASSAY_NOT_FOUND, "q_proj.weight"},
        {INT4_GROUP, "weight_shape", NULL, "weight_g_idx", ASSAY_UNIMPLEMENTED, "weight_g_idx"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(faults); i++)
        want_fault(&faults[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(artifacts_of_codes_compute_what_their_decoded_weights_compute),
        cmocka_unit_test(compute_bf16_gives_the_same_bits_on_every_path),
        cmocka_unit_test(codes_that_do_not_fit_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("artifacts of codes", tests, NULL, NULL);
}
