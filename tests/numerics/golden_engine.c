#include "tests/numerics/golden_engine.h"

#include <math.h>
#include <stdio.h>

#include "common/nn/cache.h"

/* docs/NUMERICS.md: f32 against float64 is within 3e-5 on these models, the smallest wrong feature moves logits by
 * 1e-3. */
#define LOGIT_ATOL 2e-4

struct assay_err golden_err = ASSAY_ERR_INIT;

void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", golden_err.text);
}

struct engine engine_open(const char *dir, size_t threads, const char *path)
{
    struct engine e = {0};
    struct assay_checkpoint *checkpoint;
    if (path)
        setenv("ASSAY_CPU_MASK", path, 1);
    want_ok(assay_pool_new(threads, NULL, &e.pool, &golden_err));
    want_ok(assay_checkpoint_open(dir, &checkpoint, &golden_err));
    want_ok(assay_model_load(checkpoint, e.pool, &e.model, &golden_err));
    want_ok(assay_head_load(checkpoint, e.pool, &e.head, &golden_err));
    size_t model_bytes = 0, head_bytes = 0; /* workers trust what is measured before */
    want_ok(assay_model_measure(checkpoint, &model_bytes, &golden_err));
    want_ok(assay_head_measure(checkpoint, &head_bytes, &golden_err));
    assert_int_equal(model_bytes, assay_model_bytes(e.model));
    assert_int_equal(head_bytes, assay_head_bytes(e.head));
    assay_checkpoint_close(checkpoint);
    unsetenv("ASSAY_CPU_MASK");
    return e;
}

void engine_close(struct engine *e)
{
    assay_head_free(e->head);
    assay_model_free(e->model);
    assay_pool_free(e->pool);
}

static struct assay_safetensors *golden_open(const char *dir)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors *golden;
    want_ok(assay_path_join(path, dir, "golden.safetensors", &golden_err));
    want_ok(assay_safetensors_open(path, &golden, &golden_err));
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
float *hidden_of(const struct engine *e, const int32_t *ids, size_t tokens)
{
    float *hidden = malloc(tokens * assay_head_hidden(e->head) * sizeof *hidden);
    assert_non_null(hidden);
    struct assay_sequence sequence = {ids, tokens, 0, tokens, hidden, NULL};
    want_ok(assay_model_forward(e->model, e->pool, &sequence, 1, NULL, &golden_err));
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
    struct assay_sequence sequence = {ids, tokens, 0, tokens, inputs + layers * each, NULL};
    want_ok(assay_model_forward_layers(e->model, e->pool, &sequence, inputs, &golden_err));
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

/* Pseudo-random ids. */
void fill_ids(int32_t *ids, size_t n, size_t vocab)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)((x >> 8) % vocab);
    }
}

float *hidden_by(const char *dir, size_t threads, const char *path, size_t *ret_bytes)
{
    struct engine e = engine_open(dir, threads, path);
    int32_t ids[GOLDEN_TOKENS];
    size_t tokens = ASSAY_MIN((size_t)GOLDEN_TOKENS, assay_model_config(e.model)->positions_max);
    fill_ids(ids, tokens, assay_head_vocab(e.head));
    float *hidden = hidden_of(&e, ids, tokens);
    *ret_bytes = tokens * assay_head_hidden(e.head) * sizeof *hidden;
    engine_close(&e);
    return hidden;
}

void golden_check_outputs(const char *dir, bool layers_wanted)
{
    struct engine e = engine_open(dir, 2, NULL);
    struct assay_safetensors *golden = golden_open(dir);
    size_t compared = 0, layers = 0;
    for (size_t i = 0; i < assay_safetensors_count(golden); i++) {
        const struct assay_tensor *tensor = assay_safetensors_at(golden, i);
        if (is_ids(tensor))
            compared += compare_sequence(&e, golden, tensor, dir, &layers);
    }
    assert_true(compared >= 2);
    assert_true(layers > 0 || !layers_wanted);
    assay_safetensors_close(golden);
    engine_close(&e);
}

void golden_check_bits(const char *dir)
{
    static const struct {
        size_t threads;
        const char *path;
    } ways[] = {{1, NULL}, {2, NULL}, {3, "avx2"}, {1, "avx512"}};
    size_t bytes;
    float *want = hidden_by(dir, 2, "scalar", &bytes);
    for (size_t j = 0; j < ASSAY_COUNT(ways); j++) {
        float *got = hidden_by(dir, ways[j].threads, ways[j].path, &bytes);
        assert_memory_equal(got, want, bytes);
        free(got);
    }
    free(want);
}

void golden_check_company(const char *dir)
{
    struct engine e = engine_open(dir, 2, NULL);
    size_t width = assay_head_hidden(e.head), most = assay_model_config(e.model)->positions_max;
    int32_t ids[4 * GOLDEN_TOKENS];
    fill_ids(ids, ASSAY_COUNT(ids), assay_head_vocab(e.head));
    float *together = malloc(4 * GOLDEN_TOKENS * width * sizeof *together);
    assert_non_null(together);
    const size_t lengths[] = {1, 7, ASSAY_MIN((size_t)200, most), ASSAY_MIN((size_t)47, most)};
    struct assay_sequence batch[4];
    for (size_t s = 0, at = 0; s < 4; at += lengths[s++])
        batch[s] = (struct assay_sequence){ids + at, lengths[s], 0, lengths[s], together + at * width, NULL};
    want_ok(assay_model_forward(e.model, e.pool, batch, 4, NULL, &golden_err));
    for (size_t s = 0; s < 4; s++) {
        float *alone = hidden_of(&e, batch[s].ids, lengths[s]);
        assert_memory_equal(alone, batch[s].hidden, lengths[s] * width * sizeof *alone);
        free(alone);
    }
    free(together);
    engine_close(&e);
}

void golden_check_rows(const char *dir)
{
    struct engine e = engine_open(dir, 2, NULL);
    want_ok(assay_model_check_rows(e.model, e.pool, &golden_err));
    engine_close(&e);
}

/* Tokens up to which every position rotates the same whatever follows. */
static size_t steady_tokens(const struct assay_model_config *config)
{
    bool depends = config->rope.kind == ASSAY_ROPE_DYNAMIC || config->rope.kind == ASSAY_ROPE_LONGROPE;
    size_t most = ASSAY_MIN((size_t)GOLDEN_TOKENS, config->positions_max);
    return config->rotary_dim > 0 && depends ? ASSAY_MIN(most, config->rope.original_positions) : most;
}

void golden_check_growth(const char *dir)
{
    static const size_t steps[] = {1, 33, 1, 1, 7, 20, 2};
    struct engine e = engine_open(dir, 2, NULL);
    const struct assay_model_config *config = assay_model_config(e.model);
    size_t tokens = steady_tokens(config), width = config->hidden;
    int32_t ids[GOLDEN_TOKENS];
    fill_ids(ids, tokens, config->vocab);
    float *whole = hidden_of(&e, ids, tokens), *grown = malloc(2 * tokens * width * sizeof *grown);
    struct assay_cache *caches[2];
    assert_non_null(grown);
    for (size_t i = 0; i < 2; i++)
        want_ok(assay_cache_new(e.model, ASSAY_F32, tokens, &caches[i], &golden_err));
    /* The second sequence begins later, so that steps of both kinds share a batch. */
    for (size_t turn = 0; assay_cache_tokens(caches[1]) < tokens; turn++) {
        struct assay_sequence batch[2];
        size_t count = 0;
        for (size_t i = 0; i < ASSAY_MIN(turn + 1, (size_t)2); i++) {
            size_t past = assay_cache_tokens(caches[i]);
            size_t step = ASSAY_MIN(steps[(turn + 3 * i) % ASSAY_COUNT(steps)], tokens - past);
            if (step > 0)
                batch[count++] =
                    (struct assay_sequence){ids + past, step, 0, step, grown + (i * tokens + past) * width, caches[i]};
        }
        want_ok(assay_model_forward(e.model, e.pool, batch, count, NULL, &golden_err));
    }
    assert_memory_equal(grown, whole, tokens * width * sizeof *whole);
    assert_memory_equal(grown + tokens * width, whole, tokens * width * sizeof *whole);
    struct assay_sequence more = {ids, 1, 0, 1, grown, caches[0]};
    assert_int_equal(assay_model_forward(e.model, e.pool, &more, 1, NULL, &golden_err), ASSAY_OUT_OF_RANGE);
    /* What is forgotten can be said anew. */
    assay_cache_truncate(caches[0], tokens / 2);
    more = (struct assay_sequence){ids + tokens / 2, tokens - tokens / 2, 0, tokens - tokens / 2, grown, caches[0]};
    want_ok(assay_model_forward(e.model, e.pool, &more, 1, NULL, &golden_err));
    assert_memory_equal(grown, whole + tokens / 2 * width, (tokens - tokens / 2) * width * sizeof *whole);
    assay_cache_free(caches[0]);
    assay_cache_free(caches[1]);
    free(whole);
    free(grown);
    engine_close(&e);
}
