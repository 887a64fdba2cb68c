/* Artifacts of every family under every scheme: fused, transposed, biased matrices, and heads under a cap. */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "common/artifact/dequantize.h"
#include "common/artifact/job.h"
#include "tests/numerics/family_list.h"
#include "tests/numerics/golden_engine.h"

#define TOKENS 32

struct logits {
    float *x;
    size_t count;
    struct assay_digest head;
};

static struct logits logits_of(const char *dir)
{
    struct engine e = engine_open(dir, 2, NULL);
    int32_t ids[TOKENS];
    fill_ids(ids, TOKENS, assay_head_vocab(e.head));
    want_ok(assay_model_check_rows(e.model, e.pool, &golden_err));
    float *hidden = hidden_of(&e, ids, TOKENS);
    struct logits logits = {.count = TOKENS * assay_head_vocab(e.head), .head = assay_head_digest(e.head)};
    logits.x = malloc(logits.count * sizeof *logits.x);
    assert_non_null(logits.x);
    assay_head_logits(e.head, e.pool, hidden, TOKENS, logits.x);
    free(hidden);
    engine_close(&e);
    return logits;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over rows of the largest difference: where a model has experts, a rounding may send a row to others. */
static double difference(const struct logits *a, const struct logits *b)
{
    double rows[TOKENS] = {0};
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        double here = fabs((double)a->x[i] - (double)b->x[i]), *row = &rows[i / (a->count / TOKENS)];
        assert_true(here >= 0); /* no NaN */
        *row = fmax(*row, here);
    }
    qsort(rows, TOKENS, sizeof *rows, by_value);
    return rows[TOKENS / 2];
}

/* The artifact of `model` in dir/NAME, its logits; the head's digest is that of the manifest. */
static struct logits quantized(const char *model, const char *text, const char *dir, const char *name)
{
    char path[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    want_ok(assay_path_join(path, dir, name, &golden_err));
    want_ok(assay_pool_new(2, NULL, &pool, &golden_err));
    struct assay_quantize_job job = {.artifacts_dir = dir, .wanted_dir = path, .model_dir = model, .pool = pool};
    want_ok(assay_spec_parse(text, &job.spec, &golden_err));
    want_ok(assay_quantize_to(&job, &manifest, &golden_err));
    struct logits logits = logits_of(path);
    assert_true(assay_digest_equal(&logits.head, &manifest.head.digest));
    assay_manifest_release(&manifest);
    assay_pool_free(pool);
    return logits;
}

static struct logits dequantized(const char *dir, const char *name, const char *plain)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    uint64_t bytes;
    want_ok(assay_path_join(from, dir, name, &golden_err));
    want_ok(assay_path_join(to, dir, plain, &golden_err));
    const struct assay_dequantize_job job = {.source_dir = from, .parent_dir = dir, .output_dir = to};
    want_ok(assay_dequantize(&job, &bytes, &golden_err));
    return logits_of(to);
}

static void check_family(const char *model, const char *dir)
{
    static const struct {
        const char *spec;
        double low, high; /* how far logits of the source move, as a part of the largest; 0: not at all */
    } schemes[] = {
        {"fp32", 0, 0},
        {"bf16:compute=f32", 0, 0}, /* the vectors are bf16 */
        {"fp16:compute=f32", 0, 1e-2},
        {"int8:compute=f32", 1e-6, 0.2},
        {"nf4:compute=f32", 1e-4, 1.5},
        {"int4:compute=f32", 1e-4, 1.5},
    };
    struct logits source = logits_of(model);
    double largest = 0;
    for (size_t i = 0; i < source.count; i++)
        largest = fmax(largest, fabs((double)source.x[i]));
    for (size_t i = 0; i < ASSAY_COUNT(schemes); i++) {
        char name[32], plain[32];
        snprintf(name, sizeof name, "artifact-%zu", i);
        snprintf(plain, sizeof plain, "plain-%zu", i);
        struct logits variant = quantized(model, schemes[i].spec, dir, name);
        struct logits again = dequantized(dir, name, plain);
        double moved = difference(&source, &variant) / largest;
        if (!(moved >= schemes[i].low && moved <= schemes[i].high))
            fail_msg("%s %s: logits move by %g of the largest", model, schemes[i].spec, moved);
        assert_memory_equal(again.x, variant.x, variant.count * sizeof *variant.x);
        free(again.x);
        free(variant.x);
    }
    struct logits rounded = quantized(model, "bf16:compute=bf16", dir, "rounded");
    double moved = difference(&source, &rounded) / largest;
    assert_true(moved > 1e-6 && moved < 0.3);
    free(rounded.x);
    free(source.x);
}

/* What an artifact's codes stand for is what it computes with: written out as plain weights, the bits are the same. */
static void artifacts_of_every_family_compute_what_their_codes_stand_for(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++) {
        char dir[] = "/tmp/assay-families-XXXXXX";
        assert_non_null(mkdtemp(dir));
        check_family(family_models[i], dir);
        want_ok(assay_remove_tree(dir, &golden_err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(artifacts_of_every_family_compute_what_their_codes_stand_for),
    };
    return cmocka_run_group_tests_name("family artifacts", tests, NULL, NULL);
}
