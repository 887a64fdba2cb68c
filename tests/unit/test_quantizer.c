/* What is in the artifacts of the bundled model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/artifact/method.h"
#include "common/quant/int8.h"
#include "tests/unit/quantizer_fixture.h"

struct weight {
    float *source, *decoded;
    int8_t *codes;
    float *scales;
    size_t rows, cols;
};

static struct weight encode_reference(const struct assay_tensor *tensor)
{
    struct weight weight = {.rows = tensor->shape[0], .cols = tensor->shape[1]};
    size_t elements = weight.rows * weight.cols;
    weight.source = malloc(elements * sizeof(float));
    weight.decoded = malloc(elements * sizeof(float));
    weight.codes = malloc(elements);
    weight.scales = malloc(weight.rows * sizeof(float));
    assert_true(assay_dtype_to_f32(tensor->dtype, tensor->data, elements, weight.source));
    assert_int_equal(assay_int8_encode(weight.source, weight.rows, weight.cols, weight.codes, weight.scales, NULL),
                     ASSAY_OK);
    assay_int8_decode(weight.codes, weight.scales, weight.rows, weight.cols, weight.decoded);
    return weight;
}

static void weight_release(struct weight *weight)
{
    free(weight->source);
    free(weight->decoded);
    free(weight->codes);
    free(weight->scales);
}

static void int8_weights_are_the_reference_encoding_and_all_else_is_copied(void **state)
{
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int8");
    assert_false(make(fixture));
    struct assay_checkpoint *source = open_checkpoint(MODEL), *artifact = open_checkpoint(fixture->wanted);
    size_t quantized = 0;
    for (size_t i = 0; i < assay_checkpoint_count(source); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(source, i);
        const struct assay_tensor *found = assay_checkpoint_find(artifact, tensor->name);
        assert_non_null(found);
        if (!strstr(tensor->name, "_proj.weight")) {
            assert_int_equal(found->dtype, tensor->dtype);
            assert_int_equal(found->bytes, tensor->bytes);
            assert_memory_equal(found->data, tensor->data, tensor->bytes);
            continue;
        }
        char scale_name[256];
        snprintf(scale_name, sizeof scale_name, "%s_scale", tensor->name);
        const struct assay_tensor *scales = assay_checkpoint_find(artifact, scale_name);
        struct weight weight = encode_reference(tensor);
        assert_non_null(scales);
        assert_true(found->dtype == ASSAY_I8 && found->rank == 2 && found->shape[0] == weight.rows &&
                    found->shape[1] == weight.cols);
        assert_true(scales->dtype == ASSAY_F32 && scales->rank == 2 && scales->shape[0] == weight.rows &&
                    scales->shape[1] == 1);
        assert_memory_equal(found->data, weight.codes, weight.rows * weight.cols);
        assert_memory_equal(scales->data, weight.scales, weight.rows * sizeof(float));
        weight_release(&weight);
        quantized++;
    }
    assert_int_equal(quantized, 6 * 7);
    assert_int_equal(assay_checkpoint_count(artifact), assay_checkpoint_count(source) + quantized);
    assay_checkpoint_close(source);
    assay_checkpoint_close(artifact);
    assert_same_file(MODEL, fixture->wanted, "tokenizer.json");
}

static void int8_config_says_compressed_tensors_per_channel(void **state)
{
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int8");
    make(fixture);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    const cJSON *config = assay_checkpoint_config(artifact);
    const cJSON *quantization = cJSON_GetObjectItem(config, "quantization_config");
    const cJSON *group = cJSON_GetObjectItem(cJSON_GetObjectItem(quantization, "config_groups"), "group_0");
    const cJSON *weights = cJSON_GetObjectItem(group, "weights");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(config, "torch_dtype")), "float32");
    assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(config, "hidden_size")), 192);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "quant_method")), "compressed-tensors");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "format")), "int-quantized");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(quantization, "quantization_status")), "compressed");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(group, "targets"), 0)), "Linear");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(weights, "strategy")), "channel");
    assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(weights, "num_bits")), 8);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(weights, "symmetric")));
    assay_checkpoint_close(artifact);
}

static void threads_do_not_change_a_byte(void **state)
{
    struct quantizer_fixture *fixture = *state;
    char other[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    make(fixture);
    join(other, fixture->root, "one-by-two-threads");
    assert_int_equal(rename(fixture->wanted, other), 0);
    assay_pool_free(fixture->pool);
    assert_int_equal(assay_pool_new(1, NULL, &fixture->pool, NULL), ASSAY_OK);
    fixture->job.pool = fixture->pool;
    assert_false(make(fixture));
    assert_same_file(fixture->wanted, other, "model.safetensors");
    assert_same_file(fixture->wanted, other, "config.json");
}

static void fp32_artifact_links_to_the_checkpoint_and_copies_nothing(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
    struct quantizer_fixture *fixture = *state;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    choose(fixture, "fp32");
    assert_false(quantize(fixture, &manifest));
    assert_int_equal(manifest.artifact_bytes, manifest.source_bytes);
    assert_int_equal(manifest.kept_bytes, manifest.source_bytes);
    assert_int_equal(manifest.errors_count, 0);
    assay_manifest_release(&manifest);
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char path[ASSAY_PATH_MAX], target[ASSAY_PATH_MAX] = "";
        join(path, fixture->wanted, files[i]);
        assert_true(readlink(path, target, sizeof target - 1) > 0);
        assert_int_equal(target[0], '/');
    }
    assert_int_equal(entries(fixture->wanted), ASSAY_COUNT(files) + 1);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    assert_int_equal(assay_checkpoint_find(artifact, "model.norm.weight")->dtype, ASSAY_BF16);
    assay_checkpoint_close(artifact);
    struct assay_model_id id;
    assert_int_equal(assay_checkpoint_id(fixture->wanted, NULL, NULL, &id, NULL), ASSAY_OK);
    assert_true(assay_digest_equal(&id.digest, &fixture->job.model_id.digest));
}

static void near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("found %.17g, wanted %.17g", got, want);
}

static void manifest_has_the_errors_and_bytes_of_the_artifact(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    choose(fixture, "int8");
    quantize(fixture, &manifest);
    struct assay_checkpoint *source = open_checkpoint(MODEL);
    assert_int_equal(manifest.errors_count, 42);
    for (size_t i = 0; i < manifest.errors_count; i++) {
        const struct assay_tensor_error *error = &manifest.errors[i];
        struct weight weight = encode_reference(assay_checkpoint_find(source, error->tensor));
        double xx = 0, yy = 0, xy = 0, dd = 0, most = 0;
        for (size_t k = 0; k < weight.rows * weight.cols; k++) {
            double x = weight.source[k], y = weight.decoded[k];
            xx += x * x, yy += y * y, xy += x * y, dd += (x - y) * (x - y);
            most = fmax(most, fabs(x - y));
        }
        near(error->cosine, xy / sqrt(xx * yy), 1e-12);
        near(error->relative_frobenius, sqrt(dd / xx), 1e-10);
        near(error->max_abs, most, 0);
        assert_true(error->cosine > 0.999 && error->cosine < 1);
        assert_int_equal(error->elements, weight.rows * weight.cols);
        assert_int_equal(error->layer, (int)strtol(error->tensor + strlen("model.layers."), NULL, 10));
        weight_release(&weight);
    }
    assay_checkpoint_close(source);
    assert_int_equal(manifest.tensors, 56);
    assert_int_equal(manifest.parameters, 3148224);
    assert_int_equal(manifest.source_bytes, 2 * 3148224);
    assert_int_equal(manifest.code_bytes + manifest.kept_bytes / 2, 3148224);
    assert_int_equal(manifest.artifact_bytes, manifest.code_bytes + manifest.scale_bytes + manifest.kept_bytes);
    assert_true(manifest.head.tied && manifest.head.vocab == 4096);
    assay_manifest_release(&manifest);
}

static void second_request_finds_the_artifact_with_the_same_figures(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_manifest first = ASSAY_MANIFEST_INIT, second = ASSAY_MANIFEST_INIT;
    choose(fixture, "int8");
    assert_false(quantize(fixture, &first));
    size_t steps = fixture->steps;
    assert_true(quantize(fixture, &second));
    assert_int_equal(fixture->steps, steps);
    assert_string_equal(first.spec, second.spec);
    assert_int_equal(first.artifact_bytes, second.artifact_bytes);
    assert_int_equal(first.parameters, second.parameters);
    assert_int_equal(first.tensors, second.tensors);
    assert_int_equal(first.errors_count, second.errors_count);
    for (size_t i = 0; i < first.errors_count; i++) {
        assert_string_equal(first.errors[i].tensor, second.errors[i].tensor);
        near(second.errors[i].cosine, first.errors[i].cosine, 0);
        near(second.errors[i].relative_frobenius, first.errors[i].relative_frobenius, 0);
        near(second.errors[i].max_abs, first.errors[i].max_abs, 0);
    }
    assay_manifest_release(&first);
    assay_manifest_release(&second);
}

static void only_matrices_of_linear_layers_are_quantized(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum assay_dtype dtype;
        size_t rank;
        bool is_linear;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_BF16, 2, true},
        {"model.layers.11.mlp.down_proj.weight", ASSAY_F32, 2, true},
        {"model.layers.0.self_attn.q_proj.bias", ASSAY_F32, 1, false},
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_F32, 1, false},
        {"model.layers.0.self_attn.q_proj.weight", ASSAY_I8, 2, false},
        {"model.layers.0.input_layernorm.weight", ASSAY_F32, 2, false},
        {"model.embed_tokens.weight", ASSAY_F32, 2, false},
        {"lm_head.weight", ASSAY_F32, 2, false},
        {"weight", ASSAY_F32, 2, false},
        {".weight", ASSAY_F32, 2, false},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        const struct assay_tensor tensor = {
            .name = cases[i].name, .dtype = cases[i].dtype, .rank = cases[i].rank, .shape = {2, 2}};
        if (assay_is_linear_weight(&tensor) != cases[i].is_linear)
            fail_msg("%s, rank %zu", cases[i].name, cases[i].rank);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUANTIZER_TEST(int8_weights_are_the_reference_encoding_and_all_else_is_copied),
        QUANTIZER_TEST(int8_config_says_compressed_tensors_per_channel),
        QUANTIZER_TEST(threads_do_not_change_a_byte),
        QUANTIZER_TEST(fp32_artifact_links_to_the_checkpoint_and_copies_nothing),
        QUANTIZER_TEST(manifest_has_the_errors_and_bytes_of_the_artifact),
        QUANTIZER_TEST(second_request_finds_the_artifact_with_the_same_figures),
        cmocka_unit_test(only_matrices_of_linear_layers_are_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
