/* The engine against the outputs of transformers, and against itself: threads, batches and instruction sets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/model.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

/* docs/NUMERICS.md: f32 against float64 is within 3e-5 on these models, the smallest wrong feature moves logits by
 * 1e-3. */
#define LOGIT_ATOL 2e-4

static const char *const models[] = {
    ASSAY_SHARED_DIR "/golden/models/llama2_mha",          ASSAY_SHARED_DIR "/golden/models/llama31_gqa_sharded",
    ASSAY_SHARED_DIR "/golden/models/llama31_rope_strong", ASSAY_SHARED_DIR "/golden/models/smollm_tied",
    ASSAY_SHARED_DIR "/golden/models/mistral_swa16",       ASSAY_SHARED_DIR "/golden/models/qwen2_tied_bias",
    ASSAY_SHARED_DIR "/golden/models/r1_distill_qwen",     ASSAY_SHARED_DIR "/golden/models/phi3_fused_swa",
    ASSAY_SHARED_DIR "/golden/models/phi3_longrope",       ASSAY_SHARED_DIR "/golden/models/gptneox_parallel",
    ASSAY_SHARED_DIR "/golden/models/gpt2_small",          ASSAY_SHARED_DIR "/models/assay-tiny",
};

static struct assay_err err = ASSAY_ERR_INIT;

/* A model with its head, loaded for one path and number of threads. */
struct engine {
    struct assay_pool *pool;
    struct assay_model *model;
    struct assay_head *head;
};

static void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

static struct engine engine_open(const char *dir, size_t threads, const char *path)
{
    struct engine e = {0};
    struct assay_checkpoint *checkpoint;
    if (path)
        setenv("ASSAY_CPU_MASK", path, 1);
    want_ok(assay_pool_new(threads, NULL, &e.pool, &err));
    want_ok(assay_checkpoint_open(dir, &checkpoint, &err));
    want_ok(assay_model_load(checkpoint, e.pool, &e.model, &err));
    want_ok(assay_head_load(checkpoint, e.pool, &e.head, &err));
    assay_checkpoint_close(checkpoint);
    unsetenv("ASSAY_CPU_MASK");
    return e;
}

static void engine_close(struct engine *e)
{
    assay_head_free(e->head);
    assay_model_free(e->model);
    assay_pool_free(e->pool);
}

static struct assay_safetensors *golden_open(const char *dir)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors *golden;
    want_ok(assay_path_join(path, dir, "golden.safetensors", &err));
    want_ok(assay_safetensors_open(path, &golden, &err));
    return golden;
}

static void *copy_of(const struct assay_tensor *tensor)
{
    void *copy = malloc(tensor->bytes + 1);
    assert_non_null(copy);
    memcpy(copy, tensor->data, tensor->bytes);
    return copy;
}

/* "text0.input_ids" -> the tensor "text0.SUFFIX", or NULL. */
static const struct assay_tensor *sibling(const struct assay_safetensors *golden, const char *ids_name,
                                          const char *suffix)
{
    char name[256];
    int stem = (int)(strrchr(ids_name, '.') - ids_name);
    snprintf(name, sizeof name, "%.*s.%s", stem, ids_name, suffix);
    return assay_safetensors_find(golden, name);
}

static bool is_ids(const struct assay_tensor *tensor)
{
    const char *dot = strrchr(tensor->name, '.');
    return dot && strcmp(dot, ".input_ids") == 0;
}

/* Hidden states of one sequence, to be freed. */
static float *hidden_of(const struct engine *e, const int32_t *ids, size_t tokens)
{
    float *hidden = malloc(tokens * assay_head_hidden(e->head) * sizeof *hidden);
    assert_non_null(hidden);
    struct assay_sequence sequence = {ids, tokens, 0, tokens, hidden};
    want_ok(assay_model_forward(e->model, e->pool, &sequence, 1, NULL, &err));
    return hidden;
}

static void want_close(const float *got, const struct assay_tensor *want, const char *dir)
{
    size_t n = (size_t)assay_tensor_elements(want);
    float *expected = copy_of(want);
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)got[i] - (double)expected[i]);
        if (!(difference <= LOGIT_ATOL))
            fail_msg("%s: %s[%zu] is %g, wanted %g", dir, want->name, i, (double)got[i], (double)expected[i]);
        worst = fmax(worst, difference);
    }
    print_message("%s %s: largest difference %.2e of %zu\n", strrchr(dir, '/') + 1, want->name, worst, n);
    free(expected);
}

/* What each layer begins with, where the golden outputs have it. Returns how many layers were compared. */
static size_t compare_layers(const struct engine *e, const struct assay_safetensors *golden,
                             const struct assay_tensor *t, const int32_t *ids, const char *dir)
{
    size_t layers = assay_model_config(e->model)->layers, tokens = (size_t)assay_tensor_elements(t), compared = 0;
    size_t each = tokens * assay_head_hidden(e->head);
    float *inputs = malloc((layers + 1) * each * sizeof *inputs);
    assert_non_null(inputs);
    struct assay_sequence sequence = {ids, tokens, 0, tokens, inputs + layers * each};
    want_ok(assay_model_forward_layers(e->model, e->pool, &sequence, inputs, &err));
    for (size_t i = 0; i < layers; i++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "hidden.%zu", i);
        const struct assay_tensor *want = sibling(golden, t->name, suffix);
        if (!want)
            continue;
        assert_int_equal(assay_tensor_elements(want), each);
        want_close(inputs + i * each, want, dir);
        compared++;
    }
    free(inputs);
    assert_true(compared == 0 || compared == layers);
    return compared;
}

/* Returns how many tensors were compared. */
static size_t compare_sequence(const struct engine *e, const struct assay_safetensors *golden,
                               const struct assay_tensor *t, const char *dir, size_t *layers)
{
    size_t tokens = (size_t)assay_tensor_elements(t), vocab = assay_head_vocab(e->head), compared = 0;
    size_t width = assay_head_hidden(e->head);
    int32_t *ids = copy_of(t);
    *layers += compare_layers(e, golden, t, ids, dir);
    float *hidden = hidden_of(e, ids, tokens), *logits = malloc(tokens * vocab * sizeof *logits);
    assert_non_null(logits);
    assay_head_logits(e->head, e->pool, hidden, tokens, logits);
    const struct assay_tensor *want = sibling(golden, t->name, "last_hidden");
    if (want) {
        assert_int_equal(want->shape[1], width);
        want_close(hidden, want, dir);
        compared++;
    }
    static const char *const suffixes[] = {"logits", "logits_tail40"};
    for (size_t i = 0; i < ASSAY_COUNT(suffixes); i++) {
        want = sibling(golden, t->name, suffixes[i]);
        if (!want)
            continue;
        assert_int_equal(want->shape[1], vocab);
        assert_true(want->shape[0] <= tokens);
        want_close(logits + (tokens - (size_t)want->shape[0]) * vocab, want, dir);
        compared++;
    }
    free(logits);
    free(hidden);
    free(ids);
    return compared;
}

static void hidden_states_and_logits_are_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        struct engine e = engine_open(models[i], 2, NULL);
        struct assay_safetensors *golden = golden_open(models[i]);
        size_t compared = 0, layers = 0;
        for (size_t j = 0; j < assay_safetensors_count(golden); j++) {
            const struct assay_tensor *tensor = assay_safetensors_at(golden, j);
            if (is_ids(tensor))
                compared += compare_sequence(&e, golden, tensor, models[i], &layers);
        }
        assert_true(compared >= 2);
        assert_true(layers > 0 || strstr(models[i], "assay-tiny"));
        assay_safetensors_close(golden);
        engine_close(&e);
    }
}

/* Pseudo-random ids. */
static void fill_ids(int32_t *ids, size_t n, size_t vocab)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)((x >> 8) % vocab);
    }
}

#define TOKENS 70

static float *hidden_by(const char *dir, size_t threads, const char *path, size_t *ret_bytes)
{
    struct engine e = engine_open(dir, threads, path);
    int32_t ids[TOKENS];
    fill_ids(ids, TOKENS, assay_head_vocab(e.head));
    float *hidden = hidden_of(&e, ids, TOKENS);
    *ret_bytes = TOKENS * assay_head_hidden(e.head) * sizeof *hidden;
    engine_close(&e);
    return hidden;
}

static void threads_and_instruction_sets_do_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    static const struct {
        size_t threads;
        const char *path;
    } ways[] = {{1, NULL}, {2, NULL}, {3, "avx2"}, {1, "avx512"}};
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        size_t bytes;
        float *want = hidden_by(models[i], 2, "scalar", &bytes);
        for (size_t j = 0; j < ASSAY_COUNT(ways); j++) {
            float *got = hidden_by(models[i], ways[j].threads, ways[j].path, &bytes);
            assert_memory_equal(got, want, bytes);
            free(got);
        }
        free(want);
    }
}

static void the_company_in_a_batch_does_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        struct engine e = engine_open(models[i], 2, NULL);
        size_t width = assay_head_hidden(e.head);
        int32_t ids[4 * TOKENS];
        fill_ids(ids, ASSAY_COUNT(ids), assay_head_vocab(e.head));
        float *together = malloc(4 * TOKENS * width * sizeof *together);
        assert_non_null(together);
        static const size_t lengths[] = {1, 7, 200, 47};
        struct assay_sequence batch[4];
        for (size_t s = 0, at = 0; s < 4; at += lengths[s++])
            batch[s] = (struct assay_sequence){ids + at, lengths[s], 0, lengths[s], together + at * width};
        want_ok(assay_model_forward(e.model, e.pool, batch, 4, NULL, &err));
        for (size_t s = 0; s < 4; s++) {
            float *alone = hidden_of(&e, batch[s].ids, lengths[s]);
            assert_memory_equal(alone, batch[s].hidden, lengths[s] * width * sizeof *alone);
            free(alone);
        }
        free(together);
        engine_close(&e);
    }
}

static void tokens_behind_a_row_and_the_rows_asked_for_do_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    struct engine e = engine_open(models[0], 2, NULL);
    size_t width = assay_head_hidden(e.head);
    int32_t ids[2 * TOKENS];
    fill_ids(ids, ASSAY_COUNT(ids), assay_head_vocab(e.head));
    float *whole = hidden_of(&e, ids, 2 * TOKENS), *rows = malloc(2 * TOKENS * width * sizeof *rows);
    assert_non_null(rows);
    static const size_t cuts[][3] = {{1, 0, 1}, {31, 30, 31}, {48, 5, 48}, {49, 0, 49}, {97, 60, 90}, {140, 139, 140}};
    for (size_t i = 0; i < ASSAY_COUNT(cuts); i++) {
        struct assay_sequence s = {ids, cuts[i][0], cuts[i][1], cuts[i][2], rows};
        want_ok(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err));
        assert_memory_equal(rows, whole + cuts[i][1] * width, (cuts[i][2] - cuts[i][1]) * width * sizeof *rows);
    }
    free(rows);
    free(whole);
    engine_close(&e);
}

static void products_are_equal_by_rows_on_these_models(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        struct engine e = engine_open(models[i], 2, NULL);
        want_ok(assay_model_check_rows(e.model, e.pool, &err));
        engine_close(&e);
    }
}

/* The same weights as separate and as fused matrices. */
static void fused_projections_are_the_same_bits(void **state)
{
    (void)state;
    need_shared();
    size_t bytes;
    float *want = hidden_by(ASSAY_SHARED_DIR "/models/stories260K", 2, NULL, &bytes);
    float *got = hidden_by(ASSAY_SHARED_DIR "/models/stories260K-as-phi3", 2, NULL, &bytes);
    assert_memory_equal(got, want, bytes);
    free(got);
    free(want);
}

static void what_a_model_cannot_run_is_refused(void **state)
{
    (void)state;
    need_shared();
    struct engine e = engine_open(models[0], 1, NULL);
    int32_t ids[4] = {0, 1, 2, 3};
    float hidden[4 * 64];
    struct assay_sequence s = {ids, 4, 0, 4, hidden};
    ids[2] = -1;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err), ASSAY_OUT_OF_RANGE);
    ids[2] = 1400;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err), ASSAY_OUT_OF_RANGE);
    ids[2] = 1399;
    volatile bool cancel = true;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, &cancel, &err), ASSAY_CANCELLED);
    s.tokens = 0;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err), ASSAY_OUT_OF_RANGE);
    s.tokens = 4;
    s.end = 5;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err), ASSAY_OUT_OF_RANGE);
    s.end = 4;
    want_ok(assay_model_forward(e.model, e.pool, &s, 1, NULL, &err));
    want_ok(assay_model_forward(e.model, e.pool, &s, 0, NULL, &err));
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_and_logits_are_those_of_transformers),
        cmocka_unit_test(threads_and_instruction_sets_do_not_change_a_bit),
        cmocka_unit_test(the_company_in_a_batch_does_not_change_a_bit),
        cmocka_unit_test(tokens_behind_a_row_and_the_rows_asked_for_do_not_change_a_bit),
        cmocka_unit_test(products_are_equal_by_rows_on_these_models),
        cmocka_unit_test(fused_projections_are_the_same_bits),
        cmocka_unit_test(what_a_model_cannot_run_is_refused),
    };
    return cmocka_run_group_tests_name("golden models", tests, NULL, NULL);
}
