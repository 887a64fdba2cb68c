/* The encoder against transformers (golden/models/bert_tiny), and against itself: threads, batches, instruction sets.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/encoder.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define MODEL ASSAY_SHARED_DIR "/golden/models/bert_tiny"
/* golden.json: f32 of transformers is within 1e-5 of float64. */
#define HIDDEN_ATOL 5e-5

static const char *const names[] = {"text0", "text1", "rand33", "one"};
static struct assay_err err = ASSAY_ERR_INIT;

static void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

struct engine {
    struct assay_pool *pool;
    struct assay_encoder *encoder;
};

static struct engine engine_open(size_t threads, const char *path)
{
    struct engine e = {0};
    struct assay_checkpoint *checkpoint;
    if (path)
        setenv("ASSAY_CPU_MASK", path, 1);
    want_ok(assay_pool_new(threads, NULL, &e.pool, &err));
    want_ok(assay_checkpoint_open(MODEL, &checkpoint, &err));
    want_ok(assay_encoder_load(checkpoint, e.pool, &e.encoder, &err));
    assay_checkpoint_close(checkpoint);
    unsetenv("ASSAY_CPU_MASK");
    return e;
}

static void engine_close(struct engine *e)
{
    assay_encoder_free(e->encoder);
    assay_pool_free(e->pool);
}

static const struct assay_tensor *golden_tensor(const struct assay_safetensors *golden, size_t index, const char *part)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", names[index], part);
    const struct assay_tensor *tensor = assay_safetensors_find(golden, name);
    assert_non_null(tensor);
    return tensor;
}

/* Hidden states of all sequences in one batch; freed by the caller. */
static void run_all(const struct engine *e, const struct assay_safetensors *golden, size_t first, size_t count,
                    float *hidden[])
{
    struct assay_encoder_sequence sequences[ASSAY_COUNT(names)];
    size_t width = assay_encoder_config(e->encoder)->hidden;
    for (size_t i = first; i < first + count; i++) {
        const struct assay_tensor *ids = golden_tensor(golden, i, "input_ids");
        size_t tokens = ids->bytes / sizeof(int32_t);
        hidden[i] = malloc(tokens * width * sizeof *hidden[i]);
        assert_non_null(hidden[i]);
        sequences[i - first] = (struct assay_encoder_sequence){(const int32_t *)ids->data, NULL, tokens, hidden[i]};
    }
    want_ok(assay_encoder_forward(e->encoder, e->pool, sequences, count, &err));
}

static void check_close(const float *found, const struct assay_tensor *wanted, const char *what)
{
    const float *values = (const float *)wanted->data;
    for (size_t i = 0; i < wanted->bytes / sizeof *values; i++)
        if (!(fabs((double)found[i] - (double)values[i]) <= HIDDEN_ATOL))
            fail_msg("%s: element %zu is %g, wanted %g", what, i, (double)found[i], (double)values[i]);
}

static void hidden_states_and_pooler_equal_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    struct assay_safetensors *golden;
    want_ok(assay_safetensors_open(MODEL "/golden.safetensors", &golden, &err));
    struct engine e = engine_open(1, NULL);
    float *hidden[ASSAY_COUNT(names)];
    run_all(&e, golden, 0, ASSAY_COUNT(names), hidden);
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        float pooled[256];
        assert_true(assay_encoder_config(e.encoder)->hidden <= ASSAY_COUNT(pooled));
        check_close(hidden[i], golden_tensor(golden, i, "last_hidden"), names[i]);
        want_ok(assay_encoder_pooler(e.encoder, e.pool, hidden[i], 1, pooled, &err));
        check_close(pooled, golden_tensor(golden, i, "pooler"), names[i]);
        free(hidden[i]);
    }
    float none;
    assert_int_equal(assay_encoder_scores(e.encoder, e.pool, &none, 1, &none, &err), ASSAY_FAILED_PRECONDITION);
    engine_close(&e);
    assay_safetensors_close(golden);
}

static void bits_depend_on_neither_batch_nor_threads_nor_instruction_set(void **state)
{
    (void)state;
    need_shared();
    struct assay_safetensors *golden;
    want_ok(assay_safetensors_open(MODEL "/golden.safetensors", &golden, &err));
    struct engine all = engine_open(3, NULL), alone = engine_open(1, "scalar");
    float *batch[ASSAY_COUNT(names)], *single[ASSAY_COUNT(names)];
    run_all(&all, golden, 0, ASSAY_COUNT(names), batch);
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        run_all(&alone, golden, i, 1, single);
        assert_memory_equal(batch[i], single[i], golden_tensor(golden, i, "last_hidden")->bytes);
        free(batch[i]);
        free(single[i]);
    }
    engine_close(&all);
    engine_close(&alone);
    assay_safetensors_close(golden);
}

static void ids_and_lengths_beyond_the_model_are_refused(void **state)
{
    (void)state;
    need_shared();
    struct engine e = engine_open(1, NULL);
    size_t positions = assay_encoder_config(e.encoder)->positions, width = assay_encoder_config(e.encoder)->hidden;
    int32_t *ids = calloc(positions + 1, sizeof *ids);
    float *hidden = calloc((positions + 1) * width, sizeof *hidden);
    struct assay_encoder_sequence s = {ids, NULL, positions + 1, hidden};
    assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), ASSAY_OUT_OF_RANGE);
    s.tokens = 0;
    assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), ASSAY_OUT_OF_RANGE);
    s.tokens = positions;
    ids[3] = (int32_t)assay_encoder_config(e.encoder)->vocab;
    assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), ASSAY_OUT_OF_RANGE);
    ids[3] = -1;
    assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), ASSAY_OUT_OF_RANGE);
    free(ids);
    free(hidden);
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_and_pooler_equal_those_of_transformers),
        cmocka_unit_test(bits_depend_on_neither_batch_nor_threads_nor_instruction_set),
        cmocka_unit_test(ids_and_lengths_beyond_the_model_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
