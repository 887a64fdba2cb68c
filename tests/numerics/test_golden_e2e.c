/* Models whose linear weights are those that a scheme's codes stand for, as PyTorch computes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/artifact/method.h"
#include "common/base/arena.h"
#include "common/nn/model.h"
#include "common/quant/int4.h"
#include "common/quant/nf4.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define MODELS ASSAY_SHARED_DIR "/golden/models/"
#define E2E ASSAY_SHARED_DIR "/golden/quant/e2e/"
#define LOGITS_BOUND 5e-4

static struct assay_err err = ASSAY_ERR_INIT;

static void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

static void *room(struct assay_arena *arena, size_t bytes)
{
    void *memory = assay_arena_alloc(arena, bytes + 1);
    assert_non_null(memory);
    return memory;
}

/* --- schemes: w[rows, cols] becomes what its codes stand for --- */

typedef void (*fake_fn)(struct assay_arena *arena, float *w, size_t rows, size_t cols);

static void fake_f16(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    (void)arena;
    for (size_t i = 0; i < rows * cols; i++)
        w[i] = assay_f16_to_f32(assay_f32_to_f16(w[i]));
}

static void fake_bf16(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    (void)arena;
    for (size_t i = 0; i < rows * cols; i++)
        w[i] = assay_bf16_to_f32(assay_f32_to_bf16(w[i]));
}

/* On CPUs the package looks codes up in a table of 65536 places, which sends a few of them to a neighbour of the
 * nearest; the goldens were made so. */
static void look_up(const float *absmax, size_t count, float offset, const float *absmax2, const float map[256],
                    uint8_t *codes)
{
    for (size_t i = 0; i < count; i++) {
        float scaled = fminf(fmaxf((absmax[i] - offset) * (1.0f / absmax2[i / 256]), -1.0f), 1.0f);
        float place = truncf((scaled + 1.0f) * 0.5f * 65535.0f + 0.5f) / 65535.0f * 2.0f - 1.0f;
        size_t code = 0;
        while (code < 255 && place > (map[code] + map[code + 1]) / 2)
            code++;
        codes[i] = (uint8_t)code;
    }
}

static void fake_nf4_with(struct assay_arena *arena, float *w, size_t count, bool nested)
{
    size_t blocks = assay_nf4_blocks(count, 64);
    uint8_t *packed = room(arena, assay_nf4_bytes(count)), *codes = room(arena, blocks);
    float *absmax = room(arena, blocks * sizeof *absmax), *absmax2 = room(arena, blocks * sizeof *absmax2);
    float map[256], offset;
    want_ok(assay_nf4_encode(w, count, 64, packed, absmax, &err));
    if (nested) {
        assay_nested_map(map);
        assay_nested_encode(absmax, blocks, map, codes, absmax2, &offset);
        look_up(absmax, blocks, offset, absmax2, map, codes);
        assay_nested_decode(codes, absmax2, blocks, 256, map, offset, absmax);
    }
    assay_nf4_decode(packed, absmax, count, 64, w);
}

static void fake_nf4(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    fake_nf4_with(arena, w, rows * cols, false);
}

static void fake_nf4_dq(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    fake_nf4_with(arena, w, rows * cols, true);
}

/* compressed-tensors, as our scheme has it. */
static void fake_int4(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    const struct assay_int4_shape shape = {rows, cols, 128};
    uint32_t *codes = room(arena, rows * assay_int4_words(&shape) * sizeof *codes);
    uint32_t *zeros = room(arena, assay_int4_zero_words(&shape) * sizeof *zeros);
    float *scales = room(arena, rows * assay_int4_groups(&shape) * sizeof *scales);
    want_ok(assay_int4_encode(w, &shape, codes, scales, zeros, &err));
    assay_int4_decode(codes, scales, zeros, &shape, w);
}

/* The goldens of int4 are torchao's: it multiplies with the reciprocal of the scale and rounds before it adds the zero
 * point. Other codes, same scales and zero points: ours with the codes exchanged. */
static void fake_int4_torchao(struct assay_arena *arena, float *w, size_t rows, size_t cols)
{
    float *source = room(arena, rows * cols * sizeof *source);
    memcpy(source, w, rows * cols * sizeof *source);
    const struct assay_int4_shape shape = {rows, cols, 128};
    size_t groups = assay_int4_groups(&shape), words = assay_int4_words(&shape);
    uint32_t *codes = room(arena, rows * words * sizeof *codes);
    uint32_t *zeros = room(arena, assay_int4_zero_words(&shape) * sizeof *zeros);
    float *scales = room(arena, rows * groups * sizeof *scales);
    want_ok(assay_int4_encode(source, &shape, codes, scales, zeros, &err));
    memset(codes, 0, rows * words * sizeof *codes);
    for (size_t i = 0; i < rows * cols; i++) {
        size_t r = i / cols, c = i % cols, g = c / shape.group;
        float zero = (float)(zeros[r / 8 * groups + g] >> 4 * (r % 8) & 15);
        float q = rintf(source[i] * (1.0f / scales[r * groups + g])) + zero;
        codes[r * words + c / 8] |= (uint32_t)fminf(fmaxf(q, 0.0f), 15.0f) << 4 * (c % 8);
    }
    assay_int4_decode(codes, scales, zeros, &shape, w);
}

/* --- running --- */

/* A sequence of a golden model, and the logits [tokens, vocab] of the model as it is and of a fake-quantized one. */
struct pair {
    struct assay_arena arena;
    struct assay_pool *pool;
    int32_t *ids;
    size_t tokens, vocab;
    float *reference, *variant;
};

static float *run_model(struct pair *pair, const char *dir)
{
    struct assay_checkpoint *checkpoint;
    struct assay_model *model;
    struct assay_head *head;
    want_ok(assay_checkpoint_open(dir, &checkpoint, &err));
    want_ok(assay_model_load(checkpoint, pair->pool, &model, &err));
    want_ok(assay_head_load(checkpoint, pair->pool, &head, &err));
    pair->vocab = assay_head_vocab(head);
    float *hidden = room(&pair->arena, pair->tokens * assay_head_hidden(head) * sizeof *hidden);
    float *logits = room(&pair->arena, pair->tokens * pair->vocab * sizeof *logits);
    const struct assay_sequence sequence = {pair->ids, pair->tokens, 0, pair->tokens, hidden, NULL};
    want_ok(assay_model_forward(model, pair->pool, &sequence, 1, NULL, &err));
    assay_head_logits(head, pair->pool, hidden, pair->tokens, logits);
    assay_head_free(head);
    assay_model_free(model);
    assay_checkpoint_close(checkpoint);
    return logits;
}

static void pair_open(struct pair *pair, const char *name)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors *golden;
    *pair = (struct pair){0};
    want_ok(assay_pool_new(1, NULL, &pair->pool, &err));
    snprintf(path, sizeof path, MODELS "%s/golden.safetensors", name);
    want_ok(assay_safetensors_open(path, &golden, &err));
    const struct assay_tensor *ids = assay_safetensors_find(golden, "text0.input_ids");
    assert_true(ids && ids->dtype == ASSAY_I32);
    pair->tokens = ids->bytes / sizeof *pair->ids;
    pair->ids = room(&pair->arena, ids->bytes);
    memcpy(pair->ids, ids->data, ids->bytes);
    assay_safetensors_close(golden);
    snprintf(path, sizeof path, MODELS "%s", name);
    pair->reference = run_model(pair, path);
}

static void pair_close(struct pair *pair)
{
    assay_pool_free(pair->pool);
    assay_arena_release(&pair->arena);
}

static void turn(const float *from, size_t rows, size_t cols, float *to)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            to[j * rows + i] = from[i * cols + j];
}

/* Rows are outputs for every scheme, whichever way the file has them. */
static void fake_one(struct assay_arena *arena, fake_fn fake, bool transposed, float *w,
                     const struct assay_tensor *tensor)
{
    size_t rows = (size_t)tensor->shape[0], cols = (size_t)tensor->shape[1];
    if (!transposed) {
        fake(arena, w, rows, cols);
        return;
    }
    float *turned = room(arena, rows * cols * sizeof *turned);
    turn(w, rows, cols, turned);
    fake(arena, turned, cols, rows);
    turn(turned, cols, rows, w);
}

/* A copy of the model in dir with F32 weights, linear ones through `fake`. */
static void write_variant(const char *name, fake_fn fake, const char *dir)
{
    char path[ASSAY_PATH_MAX];
    struct assay_arena arena = ASSAY_ARENA_INIT;
    struct assay_checkpoint *source;
    struct assay_safetensors_writer *writer;
    snprintf(path, sizeof path, MODELS "%s", name);
    want_ok(assay_checkpoint_open(path, &source, &err));
    size_t count = assay_checkpoint_count(source);
    struct assay_tensor *outputs = room(&arena, count * sizeof *outputs);
    for (size_t i = 0; i < count; i++) {
        outputs[i] = *assay_checkpoint_at(source, i);
        outputs[i].dtype = ASSAY_F32;
        outputs[i].bytes = (size_t)assay_tensor_elements(&outputs[i]) * sizeof(float);
    }
    want_ok(assay_path_join(path, dir, "model.safetensors", &err));
    want_ok(assay_safetensors_create(path, outputs, count, &writer, &err));
    for (size_t i = 0; i < count; i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(source, i);
        float *w = room(&arena, outputs[i].bytes);
        assert_true(assay_dtype_to_f32(tensor->dtype, tensor->data, (size_t)assay_tensor_elements(tensor), w));
        if (assay_is_linear_weight(tensor))
            fake_one(&arena, fake, assay_architecture_of(assay_checkpoint_config(source))->transposed, w, tensor);
        want_ok(assay_safetensors_append(writer, w, outputs[i].bytes, &err));
    }
    want_ok(assay_safetensors_finish(writer, &err));
    char *config = cJSON_PrintUnformatted(assay_checkpoint_config(source));
    want_ok(assay_path_join(path, dir, "config.json", &err));
    want_ok(assay_file_write(path, config, strlen(config), &err));
    free(config);
    assay_checkpoint_close(source);
    assay_arena_release(&arena);
}

static void run_variant(struct pair *pair, const char *name, fake_fn fake)
{
    char dir[] = "/tmp/assay-e2e-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_variant(name, fake, dir);
    pair->variant = run_model(pair, dir);
    want_ok(assay_remove_tree(dir, &err));
}

/* --- comparing --- */

static double log_sum_exp(const float *x, size_t n)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

static double kl_of(const float *x, const float *y, size_t n)
{
    double x_sum = log_sum_exp(x, n), y_sum = log_sum_exp(y, n), kl = 0;
    for (size_t i = 0; i < n; i++) {
        double log_p = (double)x[i] - x_sum;
        kl += exp(log_p) * (log_p - ((double)y[i] - y_sum));
    }
    return kl;
}

static size_t largest(const float *x, size_t n)
{
    size_t at = 0;
    for (size_t i = 1; i < n; i++)
        at = x[i] > x[at] ? i : at;
    return at;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void expect(const char *what, double found, const cJSON *results, const char *key, double bound, double relative)
{
    const cJSON *wanted = cJSON_GetObjectItem(results, key);
    assert_true(cJSON_IsNumber(wanted));
    if (!(fabs(found - wanted->valuedouble) <= bound + relative * fabs(wanted->valuedouble)))
        fail_msg("%s %s: found %.9g, wanted %.9g", what, key, found, wanted->valuedouble);
}

static void expect_figures(const struct pair *pair, const char *what, const cJSON *results)
{
    size_t scored = pair->tokens - 1, v = pair->vocab;
    double *kl = calloc(scored, sizeof *kl), sum = 0, nll = 0, same = 0;
    assert_non_null(kl);
    for (size_t t = 0; t < scored; t++) {
        const float *x = pair->reference + t * v, *y = pair->variant + t * v;
        kl[t] = kl_of(x, y, v);
        sum += kl[t];
        nll += log_sum_exp(y, v) - (double)y[pair->ids[t + 1]];
        same += largest(x, v) == largest(y, v);
    }
    qsort(kl, scored, sizeof *kl, by_value);
    double n = (double)scored, middle = (kl[(scored - 1) / 2] + kl[scored / 2]) / 2;
    expect(what, sum / n, results, "kl_mean", 1e-6, 1e-4);
    expect(what, middle, results, "kl_median", 1e-6, 1e-4);
    expect(what, kl[scored - 1], results, "kl_max", 1e-6, 1e-4);
    expect(what, nll / n, results, "mean_nll", LOGITS_BOUND, 0);
    expect(what, same / n, results, "top1", 1e-9, 0);
    free(kl);
}

/* The last positions' logits, where they are kept. True when they are. */
static bool expect_logits(const struct pair *pair, const char *model, const char *scheme)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors *file;
    snprintf(path, sizeof path, E2E "%s.safetensors", model);
    want_ok(assay_safetensors_open(path, &file, &err));
    const struct assay_tensor *wanted = assay_safetensors_find(file, scheme);
    if (wanted) {
        assert_true(wanted->dtype == ASSAY_F32 && wanted->rank == 2 && wanted->shape[1] == pair->vocab);
        size_t count = wanted->bytes / sizeof(float), at = pair->tokens * pair->vocab - count;
        for (size_t i = 0; i < count; i++) {
            float value;
            memcpy(&value, (const char *)wanted->data + i * sizeof value, sizeof value);
            if (!(fabs((double)pair->variant[at + i] - (double)value) <= LOGITS_BOUND))
                fail_msg("%s %s: logit %zu: found %.9g, wanted %.9g", model, scheme, i, (double)pair->variant[at + i],
                         (double)value);
        }
    }
    assay_safetensors_close(file);
    return wanted != NULL;
}

static void fake_quantized_models_answer_as_those_of_pytorch(void **state)
{
    (void)state;
    static const char *const models[] = {"llama2_mha",       "llama31_gqa_sharded", "llama31_rope_strong",
                                         "smollm_tied",      "mistral_swa16",       "qwen2_tied_bias",
                                         "r1_distill_qwen",  "phi3_fused_swa",      "phi3_longrope",
                                         "gptneox_parallel", "gpt2_small"};
    static const struct {
        const char *name;
        fake_fn fake;
    } schemes[] = {{"fp16", fake_f16},
                   {"bf16", fake_bf16},
                   {"nf4_b64", fake_nf4},
                   {"nf4_b64_dq", fake_nf4_dq},
                   {"int4_asym_g128", fake_int4_torchao}};
    need_shared();
    assay_auto(assay_json_delete) cJSON *index = NULL;
    want_ok(assay_json_load(E2E "e2e.json", &index, &err));
    size_t logits = 0;
    for (size_t m = 0; m < ASSAY_COUNT(models); m++) {
        const cJSON *results = cJSON_GetObjectItem(cJSON_GetObjectItem(index, "results"), models[m]);
        struct pair pair;
        pair_open(&pair, models[m]);
        for (size_t s = 0; s < ASSAY_COUNT(schemes); s++) {
            char what[128];
            snprintf(what, sizeof what, "%s %s", models[m], schemes[s].name);
            run_variant(&pair, models[m], schemes[s].fake);
            expect_figures(&pair, what, cJSON_GetObjectItem(results, schemes[s].name));
            logits += expect_logits(&pair, models[m], schemes[s].name);
        }
        pair_close(&pair);
    }
    print_message("%zu sets of logits agree\n", logits);
    assert_int_equal(logits, 2 * ASSAY_COUNT(models));
}

static double mean_kl(const struct pair *pair)
{
    double sum = 0;
    for (size_t t = 0; t + 1 < pair->tokens; t++)
        sum += kl_of(pair->reference + t * pair->vocab, pair->variant + t * pair->vocab, pair->vocab);
    return sum / (double)(pair->tokens - 1);
}

/* Neither rounding is the better one: the two differ by less than a fifth of what either costs these random models. */
static void dividing_by_the_scale_costs_what_multiplying_by_its_reciprocal_costs(void **state)
{
    (void)state;
    need_shared();
    struct pair pair;
    pair_open(&pair, "llama2_mha");
    run_variant(&pair, "llama2_mha", fake_int4_torchao);
    double multiplied = mean_kl(&pair);
    run_variant(&pair, "llama2_mha", fake_int4);
    double divided = mean_kl(&pair);
    print_message("mean KL: multiplied %g, divided %g\n", multiplied, divided);
    assert_true(fabs(divided - multiplied) <= 0.2 * multiplied);
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fake_quantized_models_answer_as_those_of_pytorch),
        cmocka_unit_test(dividing_by_the_scale_costs_what_multiplying_by_its_reciprocal_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
