/* What is in the artifacts of all schemes, and that dequantizing them gives what their codes stand for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/artifact/dequantize.h"
#include "common/artifact/method.h"
#include "common/quant/int4.h"
#include "common/quant/int8.h"
#include "common/quant/nf4.h"
#include "tests/cmocka_all.h"
#include "tests/unit/quantizer_fixture.h"

/* The values that a scheme's codes of w[rows, cols] stand for, by the reference functions alone. */
typedef void (*fake_fn)(const float *w, size_t rows, size_t cols, float *ret);

static void *room(size_t bytes)
{
    void *memory = malloc(bytes + 1);
    assert_non_null(memory);
    return memory;
}

static void fake_f16(const float *w, size_t rows, size_t cols, float *ret)
{
    for (size_t i = 0; i < rows * cols; i++)
        ret[i] = assay_f16_to_f32(assay_f32_to_f16(w[i]));
}

static void fake_bf16(const float *w, size_t rows, size_t cols, float *ret)
{
    for (size_t i = 0; i < rows * cols; i++)
        ret[i] = assay_bf16_to_f32(assay_f32_to_bf16(w[i]));
}

static void fake_int8(const float *w, size_t rows, size_t cols, float *ret)
{
    int8_t *codes = room(rows * cols);
    float *scales = room(rows * sizeof *scales);
    assert_int_equal(assay_int8_encode(w, rows, cols, codes, scales, NULL), ASSAY_OK);
    assay_int8_decode(codes, scales, rows, cols, ret);
    free(codes);
    free(scales);
}

static void fake_int4(const float *w, size_t rows, size_t cols, size_t group, float *ret)
{
    const struct assay_int4_shape shape = {rows, cols, group};
    uint32_t *codes = room(rows * assay_int4_words(&shape) * 4), *zeros = room(assay_int4_zero_words(&shape) * 4);
    float *scales = room(rows * assay_int4_groups(&shape) * sizeof *scales);
    assert_int_equal(assay_int4_encode(w, &shape, codes, scales, zeros, NULL), ASSAY_OK);
    assay_int4_decode(codes, scales, zeros, &shape, ret);
    free(codes);
    free(zeros);
    free(scales);
}

static void fake_int4_g64(const float *w, size_t rows, size_t cols, float *ret)
{
    fake_int4(w, rows, cols, 64, ret);
}

static void fake_int4_g32(const float *w, size_t rows, size_t cols, float *ret)
{
    fake_int4(w, rows, cols, 32, ret);
}

static void fake_int4_row(const float *w, size_t rows, size_t cols, float *ret)
{
    fake_int4(w, rows, cols, cols, ret);
}

static void fake_nf4_with(const float *w, size_t count, bool nested, float *ret)
{
    size_t blocks = assay_nf4_blocks(count, 64);
    uint8_t *packed = room(assay_nf4_bytes(count)), *codes = room(blocks);
    float *absmax = room(blocks * sizeof *absmax), *absmax2 = room(blocks * sizeof *absmax2), map[256], offset;
    assert_int_equal(assay_nf4_encode(w, count, 64, packed, absmax, NULL), ASSAY_OK);
    if (nested) {
        assay_nested_map(map);
        assay_nested_encode(absmax, blocks, map, codes, absmax2, &offset);
        assay_nested_decode(codes, absmax2, blocks, 256, map, offset, absmax);
    }
    assay_nf4_decode(packed, absmax, count, 64, ret);
    free(packed);
    free(codes);
    free(absmax);
    free(absmax2);
}

static void fake_nf4(const float *w, size_t rows, size_t cols, float *ret)
{
    fake_nf4_with(w, rows * cols, true, ret);
}

static void fake_nf4_plain(const float *w, size_t rows, size_t cols, float *ret)
{
    fake_nf4_with(w, rows * cols, false, ret);
}

static const struct {
    const char *spec;
    fake_fn fake;
    double bits; /* a weight: codes and scales, of the bundled model */
} schemes[] = {
    {"fp16", fake_f16, 16},
    {"bf16", fake_bf16, 16},
    {"int8", fake_int8, 8.2},
    {"nf4", fake_nf4, 4.5},
    {"nf4:double_quant=false", fake_nf4_plain, 4.8},
    {"int4", fake_int4_g64, 4.8},
    {"int4:group_size=32", fake_int4_g32, 5.5},
    {"int4:group_size=channel", fake_int4_row, 4.4},
};

static float *values_of(const struct assay_tensor *tensor)
{
    size_t elements = (size_t)assay_tensor_elements(tensor);
    float *values = room(elements * sizeof *values);
    assert_true(assay_dtype_to_f32(tensor->dtype, tensor->data, elements, values));
    return values;
}

static void expect_weight(const struct assay_tensor *source, const struct assay_tensor *found, fake_fn fake)
{
    assert_true(found && found->dtype == ASSAY_F32 && found->rank == source->rank);
    size_t elements = (size_t)assay_tensor_elements(source);
    float *w = values_of(source), *wanted = room(elements * sizeof *wanted);
    assert_memory_equal(source->shape, found->shape, source->rank * sizeof source->shape[0]);
    if (assay_is_linear_weight(source))
        fake(w, (size_t)source->shape[0], (size_t)source->shape[1], wanted);
    else
        memcpy(wanted, w, elements * sizeof *wanted);
    const float *decoded = values_of(found);
    for (size_t i = 0; i < elements; i++)
        if (!(decoded[i] == wanted[i]))
            fail_msg("%s: element %zu: found %.9g, wanted %.9g", source->name, i, (double)decoded[i],
                     (double)wanted[i]);
    free(w);
    free(wanted);
    free((void *)(uintptr_t)decoded);
}

/* Where tensors of this width begin at another place than multiples of it, torch refuses the file. */
static void expect_aligned(const struct assay_checkpoint *checkpoint)
{
    const char *least = NULL;
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++) {
        const char *data = assay_checkpoint_at(checkpoint, i)->data;
        least = !least || data < least ? data : least;
    }
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(checkpoint, i);
        if ((size_t)((const char *)tensor->data - least) % assay_dtype_bytes(tensor->dtype) != 0)
            fail_msg("%s is not aligned", tensor->name);
    }
}

static void dequantize(const char *source, const char *parent, const char *output)
{
    const struct assay_dequantize_job job = {.source_dir = source, .parent_dir = parent, .output_dir = output};
    struct assay_err err = ASSAY_ERR_INIT;
    uint64_t bytes;
    if (assay_dequantize(&job, &bytes, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static void check_scheme(struct quantizer_fixture *fixture, size_t index)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    char plain[ASSAY_PATH_MAX], name[32];
    choose(fixture, schemes[index].spec);
    assert_false(quantize(fixture, &manifest));
    size_t weights = 0;
    for (size_t i = 0; i < manifest.errors_count; i++)
        weights += manifest.errors[i].elements;
    double bits = 8 * (double)(manifest.code_bytes + manifest.scale_bytes) / (double)weights;
    assert_int_equal(manifest.errors_count, 6 * 7);
    assert_int_equal(manifest.artifact_bytes, manifest.code_bytes + manifest.scale_bytes + manifest.kept_bytes);
    if (!(bits <= schemes[index].bits && bits >= schemes[index].bits - 0.5))
        fail_msg("%s: found %f bits a weight, wanted about %f", schemes[index].spec, bits, schemes[index].bits);
    snprintf(name, sizeof name, "plain-%zu", index);
    join(plain, fixture->root, name);
    dequantize(fixture->wanted, fixture->root, plain);
    struct assay_checkpoint *source = open_checkpoint(MODEL), *artifact = open_checkpoint(fixture->wanted);
    struct assay_checkpoint *decoded = open_checkpoint(plain);
    assert_int_equal(assay_checkpoint_count(source), assay_checkpoint_count(decoded));
    for (size_t i = 0; i < assay_checkpoint_count(source); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(source, i);
        expect_weight(tensor, assay_checkpoint_find(decoded, tensor->name), schemes[index].fake);
    }
    expect_aligned(artifact);
    const cJSON *config = assay_checkpoint_config(decoded);
    assert_false(cJSON_HasObjectItem(config, "quantization_config") || cJSON_HasObjectItem(config, "assay"));
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(config, "torch_dtype")), "float32");
    assay_checkpoint_close(source);
    assay_checkpoint_close(artifact);
    assay_checkpoint_close(decoded);
    assert_same_file(MODEL, plain, "tokenizer.json");
    assay_manifest_release(&manifest);
}

static void dequantized_artifacts_are_the_reference_functions_of_the_source(void **state)
{
    struct quantizer_fixture *fixture = *state;
    for (size_t i = 0; i < ASSAY_COUNT(schemes); i++)
        check_scheme(fixture, i);
}

static const char *text_at(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(object, key));
    return text ? text : "";
}

static void expect_tensor(const struct assay_checkpoint *artifact, const char *suffix, enum assay_dtype dtype,
                          uint64_t rows, uint64_t cols)
{
    char name[256];
    snprintf(name, sizeof name, "model.layers.0.self_attn.k_proj.%s", suffix);
    const struct assay_tensor *tensor = assay_checkpoint_find(artifact, name);
    if (!tensor)
        fail_msg("%s is missing", name);
    assert_int_equal(tensor->dtype, dtype);
    assert_int_equal(tensor->shape[0], rows);
    assert_int_equal(tensor->rank, cols ? 2 : 1);
    if (cols)
        assert_int_equal(tensor->shape[1], cols);
}

static void nf4_has_the_tensors_and_words_of_bitsandbytes(void **state)
{
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "nf4");
    make(fixture);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    const cJSON *config = assay_checkpoint_config(artifact);
    const cJSON *quantization = cJSON_GetObjectItem(config, "quantization_config");
    assert_string_equal(text_at(quantization, "quant_method"), "bitsandbytes");
    assert_string_equal(text_at(quantization, "bnb_4bit_quant_type"), "nf4");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(quantization, "bnb_4bit_use_double_quant")));
    expect_tensor(artifact, "weight", ASSAY_U8, 64 * 192 / 2, 1);
    expect_tensor(artifact, "weight.absmax", ASSAY_U8, 64 * 192 / 64, 0);
    expect_tensor(artifact, "weight.quant_map", ASSAY_F32, 16, 0);
    expect_tensor(artifact, "weight.nested_absmax", ASSAY_F32, 1, 0);
    expect_tensor(artifact, "weight.nested_quant_map", ASSAY_F32, 256, 0);
    const struct assay_tensor *words =
        assay_checkpoint_find(artifact, "model.layers.0.self_attn.k_proj.weight.quant_state.bitsandbytes__nf4");
    static const char begin[] =
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [64, 192], "
        "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": ";
    assert_non_null(words);
    assert_true(words->bytes > strlen(begin));
    assert_memory_equal(words->data, begin, strlen(begin));
    cJSON *parsed = NULL;
    assert_int_equal(assay_json_parse(words->data, words->bytes, "words", &parsed, NULL), ASSAY_OK);
    cJSON_Delete(parsed);
    assay_checkpoint_close(artifact);
}

static void int4_has_the_tensors_and_words_of_compressed_tensors(void **state)
{
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int4");
    make(fixture);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    const cJSON *quantization = cJSON_GetObjectItem(assay_checkpoint_config(artifact), "quantization_config");
    const cJSON *group = cJSON_GetObjectItem(cJSON_GetObjectItem(quantization, "config_groups"), "group_0");
    const cJSON *weights = cJSON_GetObjectItem(group, "weights");
    assert_string_equal(text_at(quantization, "format"), "pack-quantized");
    assert_string_equal(text_at(weights, "strategy"), "group");
    assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(weights, "group_size")), 64);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(weights, "symmetric")));
    expect_tensor(artifact, "weight_packed", ASSAY_I32, 64, 192 / 8);
    expect_tensor(artifact, "weight_scale", ASSAY_F32, 64, 192 / 64);
    expect_tensor(artifact, "weight_zero_point", ASSAY_I32, 64 / 8, 192 / 64);
    expect_tensor(artifact, "weight_shape", ASSAY_I64, 2, 0);
    assay_checkpoint_close(artifact);
}

static const char *compute_of(const struct assay_checkpoint *artifact)
{
    return text_at(cJSON_GetObjectItem(assay_checkpoint_config(artifact), "assay"), "compute");
}

static void compute_stands_in_the_config_where_it_is_not_f32(void **state)
{
    static const char *const specs[][2] = {
        {"bf16", "bf16"}, {"bf16:compute=f32", ""}, {"int8:compute=bf16", "bf16"}, {"fp32:compute=bf16", "bf16"}};
    struct quantizer_fixture *fixture = *state;
    for (size_t i = 0; i < ASSAY_COUNT(specs); i++) {
        choose(fixture, specs[i][0]);
        make(fixture);
        struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
        assert_string_equal(compute_of(artifact), specs[i][1]);
        assay_checkpoint_close(artifact);
    }
    /* The identity of what says bf16, computed in f32, says so no more. */
    char said[ASSAY_PATH_MAX];
    memcpy(said, fixture->wanted, sizeof said);
    fixture->job.model_dir = said;
    choose(fixture, "fp32");
    make(fixture);
    struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
    assert_string_equal(compute_of(artifact), "");
    assay_checkpoint_close(artifact);
}

static void groups_that_do_not_divide_a_row_are_refused_by_tensor(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    choose(fixture, "int4:group_size=128"); /* rows of 192 */
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "_proj.weight: rows of 192 do not divide into groups of 128"));
}

static void an_artifact_is_made_wherever_a_user_wants_it_unless_something_stands_there(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    struct assay_err err = ASSAY_ERR_INIT;
    choose(fixture, "nf4");
    struct assay_variant_id follows = fixture->job.variant_id;
    make(fixture);
    char elsewhere[ASSAY_PATH_MAX];
    join(elsewhere, fixture->root, "elsewhere");
    struct assay_quantize_job job = {.artifacts_dir = fixture->root,
                                     .wanted_dir = elsewhere,
                                     .model_dir = MODEL,
                                     .spec = fixture->job.spec,
                                     .pool = fixture->pool};
    assert_int_equal(assay_quantize_to(&job, &manifest, &err), ASSAY_OK);
    assert_true(assay_digest_equal(&manifest.variant_id.digest, &follows.digest));
    assay_manifest_release(&manifest);
    assert_same_file(elsewhere, fixture->wanted, "model.safetensors");
    assert_same_file(elsewhere, fixture->wanted, "config.json");
    assert_int_equal(assay_quantize_to(&job, &manifest, &err), ASSAY_ALREADY_EXISTS);
    assert_int_equal(entries(fixture->root), 2);
}

/* Writes the tensors of an artifact again, without one of them or with one that is a row shorter. */
static void rewrite_without(const struct assay_checkpoint *artifact, size_t index, bool drops, const char *dir)
{
    char path[ASSAY_PATH_MAX];
    size_t count = assay_checkpoint_count(artifact), kept = 0;
    struct assay_tensor *tensors = room(count * sizeof *tensors);
    struct assay_safetensors_writer *writer;
    for (size_t i = 0; i < count; i++) {
        if (i == index && drops)
            continue;
        tensors[kept] = *assay_checkpoint_at(artifact, i);
        if (i == index) {
            tensors[kept].bytes -= tensors[kept].bytes / tensors[kept].shape[0];
            tensors[kept].shape[0]--;
        }
        kept++;
    }
    join(path, dir, "model.safetensors");
    assert_int_equal(assay_safetensors_create(path, tensors, kept, &writer, NULL), ASSAY_OK);
    for (size_t i = 0; i < kept; i++)
        assert_int_equal(assay_safetensors_append(writer, tensors[i].data, tensors[i].bytes, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_finish(writer, NULL), ASSAY_OK);
    char *config = cJSON_PrintUnformatted(assay_checkpoint_config(artifact));
    join(path, dir, "config.json");
    assert_int_equal(assay_file_write(path, config, strlen(config), NULL), ASSAY_OK);
    free(config);
    free(tensors);
}

static void expect_refused(struct quantizer_fixture *fixture, const struct assay_checkpoint *artifact, size_t index,
                           bool drops)
{
    char broken[ASSAY_PATH_MAX], output[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    uint64_t bytes = 0;
    join(broken, fixture->root, "broken");
    join(output, fixture->root, "output");
    assert_int_equal(assay_mkdirs(broken, 0755, NULL), ASSAY_OK);
    rewrite_without(artifact, index, drops, broken);
    const struct assay_dequantize_job job = {.source_dir = broken, .parent_dir = fixture->root, .output_dir = output};
    enum assay_status status = assay_dequantize(&job, &bytes, &err);
    if (status != ASSAY_INVALID_ARGUMENT && status != ASSAY_UNIMPLEMENTED)
        fail_msg("%s %s: found %s", assay_checkpoint_at(artifact, index)->name, drops ? "dropped" : "cut",
                 assay_status_name(status));
    assert_true(strstr(err.text, "k_proj.weight") != NULL);
    assert_int_not_equal(access(output, F_OK), 0);
}

static void a_part_that_is_missing_or_has_another_size_is_named(void **state)
{
    static const char *const specs[] = {"int8", "nf4", "nf4:double_quant=false", "int4", "int4:group_size=channel"};
    struct quantizer_fixture *fixture = *state;
    for (size_t s = 0; s < ASSAY_COUNT(specs); s++) {
        static const char module[] = "model.layers.0.self_attn.k_proj.";
        size_t broken = 0;
        choose(fixture, specs[s]);
        make(fixture);
        struct assay_checkpoint *artifact = open_checkpoint(fixture->wanted);
        for (size_t i = 0; i < assay_checkpoint_count(artifact); i++) {
            const char *name = assay_checkpoint_at(artifact, i)->name;
            if (strncmp(name, module, strlen(module)) != 0)
                continue;
            /* Words end in spaces that they can lack. */
            if (!strstr(name, "quant_state"))
                expect_refused(fixture, artifact, i, false);
            /* Without its codes there is no tensor that parts could belong to. */
            if (strcmp(name + strlen(module), "weight") != 0 && strcmp(name + strlen(module), "weight_packed") != 0)
                expect_refused(fixture, artifact, i, true);
            broken++;
        }
        assert_true(broken >= 2);
        assay_checkpoint_close(artifact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUANTIZER_TEST(dequantized_artifacts_are_the_reference_functions_of_the_source),
        QUANTIZER_TEST(nf4_has_the_tensors_and_words_of_bitsandbytes),
        QUANTIZER_TEST(int4_has_the_tensors_and_words_of_compressed_tensors),
        QUANTIZER_TEST(compute_stands_in_the_config_where_it_is_not_f32),
        QUANTIZER_TEST(groups_that_do_not_divide_a_row_are_refused_by_tensor),
        QUANTIZER_TEST(a_part_that_is_missing_or_has_another_size_is_named),
        QUANTIZER_TEST(an_artifact_is_made_wherever_a_user_wants_it_unless_something_stands_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
