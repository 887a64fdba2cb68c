/* An int8 artifact must compute what the same checkpoint with its weights written out in f32 computes, to the bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/numerics/artifact_fixture.h"
#include "tests/shared.h"

#define TOKENS 50

#define QUANTIZATION                                                                                                   \
    "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"quantization_status\":\"compressed\","    \
    "\"ignore\":[\"lm_head\"],\"kv_cache_scheme\":null,\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],"      \
    "\"input_activations\":null,\"weights\":{\"num_bits\":8,\"type\":\"int\",\"symmetric\":true,\"dynamic\":false,"    \
    "\"strategy\":\"channel\",\"group_size\":null}}}}"

/* Codes and scales that need not be the best, only there: every row has its own scale, all codes occur. */
static void quantize(struct assay_arena *arena, const struct assay_tensor *t, int seed, struct draft *artifact,
                     struct draft *plain)
{
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[1];
    int8_t *codes = arena_of(arena, rows * columns);
    float *scales = arena_of(arena, rows * sizeof *scales), *values = arena_of(arena, rows * columns * sizeof *values);
    for (size_t r = 0; r < rows; r++) {
        scales[r] = 3e-4f + 1e-6f * (float)((r * 37 + (size_t)seed) % 101);
        for (size_t c = 0; c < columns; c++) {
            codes[r * columns + c] = (int8_t)((int)((r * 131 + c * 57 + (size_t)seed * 11) % 256) - 128);
            values[r * columns + c] = (float)codes[r * columns + c] * scales[r];
        }
    }
    char *name = arena_of(arena, strlen(t->name) + 16);
    sprintf(name, "%s_scale", t->name);
    draft_add(artifact, t->name, ASSAY_I8, 2, t->shape, codes);
    draft_add(artifact, name, ASSAY_F32, 2, (const uint64_t[]){rows, 1}, scales);
    draft_add(plain, t->name, ASSAY_F32, 2, t->shape, values);
}

struct pair {
    struct assay_arena arena;
    struct assay_checkpoint *source;
    struct draft artifact, plain;
};

static void pair_open(struct pair *pair)
{
    *pair = (struct pair){0};
    want_ok(assay_checkpoint_open(ARTIFACT_SOURCE, &pair->source, &err));
    for (size_t i = 0; i < assay_checkpoint_count(pair->source); i++) {
        const struct assay_tensor *t = assay_checkpoint_at(pair->source, i);
        if (strstr(t->name, "_proj.weight")) {
            quantize(&pair->arena, t, (int)i, &pair->artifact, &pair->plain);
            continue;
        }
        draft_add(&pair->artifact, t->name, t->dtype, t->rank, t->shape, t->data);
        draft_add(&pair->plain, t->name, t->dtype, t->rank, t->shape, t->data);
    }
}

static void pair_close(struct pair *pair)
{
    assay_checkpoint_close(pair->source);
    assay_arena_release(&pair->arena);
    want_ok(*pair->artifact.dir ? assay_remove_tree(pair->artifact.dir, &err) : ASSAY_OK);
    want_ok(*pair->plain.dir ? assay_remove_tree(pair->plain.dir, &err) : ASSAY_OK);
}

static void an_int8_artifact_computes_what_its_decoded_weights_compute(void **state)
{
    (void)state;
    need_shared();
    struct pair pair;
    struct assay_pool *pool;
    pair_open(&pair);
    draft_write(&pair.artifact, QUANTIZATION, NULL);
    draft_write(&pair.plain, NULL, NULL);
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    static float hidden[2][TOKENS * 96];
    const char *dirs[2] = {pair.artifact.dir, pair.plain.dir};
    size_t bytes[2];
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = i * 17 % 1000;
    for (int i = 0; i < 2; i++) {
        struct assay_model *model;
        want_ok(model_load(dirs[i], pool, &model));
        assert_int_equal(assay_model_config(model)->hidden, 96);
        struct assay_sequence sequence = {ids, TOKENS, 0, TOKENS, hidden[i], NULL};
        want_ok(assay_model_forward(model, pool, &sequence, 1, NULL, &err));
        bytes[i] = assay_model_bytes(model);
        assay_model_free(model);
    }
    assert_memory_equal(hidden[0], hidden[1], sizeof hidden[0]);
    assert_true(bytes[0] < bytes[1] / 2);
    assay_pool_free(pool);
    pair_close(&pair);
}

static void want_refused(const char *quantization, enum assay_status status, const char *word)
{
    struct pair pair;
    struct assay_pool *pool;
    struct assay_model *model = NULL;
    pair_open(&pair);
    draft_write(&pair.artifact, quantization, NULL);
    want_ok(assay_pool_new(1, NULL, &pool, &err));
    assert_int_equal(model_load(pair.artifact.dir, pool, &model), status);
    assert_null(model);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not name %s", err.text, word);
    assay_pool_free(pool);
    pair_close(&pair);
}

/* QUANTIZATION with one piece of text replaced. */
static const char *with(const char *from, const char *to)
{
    static char text[2048];
    const char *at = strstr(QUANTIZATION, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - QUANTIZATION), QUANTIZATION, to, at + strlen(from));
    return text;
}

static void other_quantizations_are_refused_by_name(void **state)
{
    (void)state;
    need_shared();
    want_refused(NULL, ASSAY_INVALID_ARGUMENT, "quantization_config");
    want_refused(with("compressed-tensors", "gptq"), ASSAY_UNIMPLEMENTED, "gptq");
    want_refused(with("int-quantized", "pack-quantized"), ASSAY_UNIMPLEMENTED, "pack-quantized");
    want_refused(with("\"num_bits\":8", "\"num_bits\":4"), ASSAY_UNIMPLEMENTED, "num_bits");
    want_refused(with("\"symmetric\":true", "\"symmetric\":false"), ASSAY_UNIMPLEMENTED, "asymmetric");
    want_refused(with("\"strategy\":\"channel\"", "\"strategy\":\"group\""), ASSAY_UNIMPLEMENTED, "group");
    want_refused(with("\"input_activations\":null", "\"input_activations\":{\"num_bits\":8}"), ASSAY_UNIMPLEMENTED,
                 "input_activations");
    want_refused(with("\"kv_cache_scheme\":null", "\"kv_cache_scheme\":{\"num_bits\":8}"), ASSAY_UNIMPLEMENTED,
                 "kv_cache_scheme");
}

static void tensors_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    need_shared();
    static const struct {
        const char *name;
        enum assay_status status;
        bool drop;
    } faults[] = {{"model.layers.1.mlp.up_proj.weight", ASSAY_NOT_FOUND, true},
                  {"model.layers.0.self_attn.k_proj.weight_scale", ASSAY_NOT_FOUND, true},
                  {"model.norm.weight", ASSAY_NOT_FOUND, true},
                  {"model.layers.2.mlp.down_proj.weight", ASSAY_INVALID_ARGUMENT, false},
                  {"model.embed_tokens.weight", ASSAY_INVALID_ARGUMENT, false}};
    for (size_t i = 0; i < ASSAY_COUNT(faults); i++) {
        struct pair pair;
        struct assay_pool *pool;
        struct assay_model *model = NULL;
        pair_open(&pair);
        struct draft *draft = &pair.artifact;
        for (size_t j = 0; j < draft->count; j++) {
            if (strcmp(draft->tensors[j].name, faults[i].name) != 0)
                continue;
            if (faults[i].drop)
                draft->tensors[j] = draft->tensors[--draft->count];
            else /* the other way round */
                draft->tensors[j].shape[0] = draft->tensors[j].shape[1] * draft->tensors[j].shape[0] / 2,
                draft->tensors[j].shape[1] = 2;
        }
        draft_write(draft, QUANTIZATION, NULL);
        want_ok(assay_pool_new(1, NULL, &pool, &err));
        assert_int_equal(model_load(draft->dir, pool, &model), faults[i].status);
        if (!strstr(err.text, faults[i].name))
            fail_msg("'%s' does not name %s", err.text, faults[i].name);
        assay_pool_free(pool);
        pair_close(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_int8_artifact_computes_what_its_decoded_weights_compute),
        cmocka_unit_test(other_quantizations_are_refused_by_name),
        cmocka_unit_test(tensors_that_do_not_fit_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("int8 artifacts", tests, NULL, NULL);
}
