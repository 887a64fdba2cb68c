/* int8 per row, symmetric, as the Python package compressed-tensors computes it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/json.h"
#include "common/formats/safetensors.h"
#include "common/quant/int8.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define GOLDEN ASSAY_SHARED_DIR "/golden/quant/"
#define SCHEME "ct_int8_sym_row"

struct matrix {
    size_t rows, cols;
    float *weights, *scales, *decoded;
    int8_t *codes;
};

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    assert_non_null(memory);
    return memory;
}

static struct matrix encode(const struct assay_tensor *w)
{
    assert_int_equal(w->rank, 2);
    struct matrix m = {.rows = (size_t)w->shape[0], .cols = (size_t)w->shape[1]};
    size_t n = m.rows * m.cols;
    m.weights = allocate(n * sizeof *m.weights);
    m.decoded = allocate(n * sizeof *m.decoded);
    m.scales = allocate(m.rows * sizeof *m.scales);
    m.codes = allocate(n);
    assert_true(assay_dtype_to_f32(w->dtype, w->data, n, m.weights));
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_int8_encode(m.weights, m.rows, m.cols, m.codes, m.scales, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assay_int8_decode(m.codes, m.scales, m.rows, m.cols, m.decoded);
    return m;
}

static void release(struct matrix *m)
{
    free(m->weights);
    free(m->decoded);
    free(m->scales);
    free(m->codes);
}

static void expect_near(const char *what, double found, const cJSON *wanted)
{
    assert_true(cJSON_IsNumber(wanted));
    if (!(fabs(found - wanted->valuedouble) <= 1e-9 * fabs(wanted->valuedouble)))
        fail_msg("%s: found %.17g, wanted %.17g", what, found, wanted->valuedouble);
}

/* The figures of index.json, in double from the float weights. */
static void expect_errors(const struct matrix *m, const cJSON *wanted)
{
    double squares = 0, most = 0, dot = 0, norm = 0, norm_decoded = 0;
    size_t n = m->rows * m->cols;
    for (size_t i = 0; i < n; i++) {
        double x = m->weights[i], y = m->decoded[i], d = y - x;
        squares += d * d;
        most = fmax(most, fabs(d));
        dot += x * y;
        norm += x * x;
        norm_decoded += y * y;
    }
    expect_near("mse", squares / (double)n, cJSON_GetObjectItem(wanted, "mse"));
    expect_near("max_abs", most, cJSON_GetObjectItem(wanted, "max_abs"));
    expect_near("cosine", dot / sqrt(norm * norm_decoded), cJSON_GetObjectItem(wanted, "cosine"));
    expect_near("rel_fro", sqrt(squares / norm), cJSON_GetObjectItem(wanted, "rel_fro"));
}

static void check_matrix(const char *name, const cJSON *errors)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_safetensors *file = NULL;
    snprintf(path, sizeof path, GOLDEN "%s.safetensors", name);
    if (assay_safetensors_open(path, &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const struct assay_tensor *w = assay_safetensors_find(file, "W");
    const struct assay_tensor *codes = assay_safetensors_find(file, SCHEME ".q");
    const struct assay_tensor *scales = assay_safetensors_find(file, SCHEME ".scale");
    assert_true(w && codes && scales && scales->dtype == ASSAY_F32);
    struct matrix m = encode(w);
    assert_int_equal(codes->bytes, m.rows * m.cols);
    assert_int_equal(scales->bytes, m.rows * sizeof(float));
    assert_memory_equal(m.codes, codes->data, codes->bytes);
    assert_memory_equal(m.scales, scales->data, scales->bytes);
    expect_errors(&m, errors);
    release(&m);
    assay_safetensors_close(file);
}

static void codes_and_scales_are_exactly_those_of_compressed_tensors(void **state)
{
    (void)state;
    need_shared();
    struct assay_err err = ASSAY_ERR_INIT;
    assay_auto(assay_json_delete) cJSON *index = NULL;
    if (assay_json_load(GOLDEN "index.json", &index, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    size_t checked = 0;
    const cJSON *matrix;
    cJSON_ArrayForEach(matrix, cJSON_GetObjectItem(index, "matrices"))
    {
        const cJSON *errors = cJSON_GetObjectItem(cJSON_GetObjectItem(matrix, "schemes"), SCHEME);
        if (!errors)
            continue;
        check_matrix(matrix->string, errors);
        checked++;
    }
    print_message("%zu matrices agree\n", checked);
    assert_true(checked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_and_scales_are_exactly_those_of_compressed_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
