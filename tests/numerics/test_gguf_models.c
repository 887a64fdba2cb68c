/* GGUF files of llama.cpp's converter, imported, compute what transformers computes with the model that they were made
 * of. tests/interop/make_gguf_models.py wrote both. */
#include <stdio.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/formats/gguf_import.h"
#include "tests/numerics/golden_engine.h"

#define VECTORS ASSAY_SOURCE_DIR "/tests/vectors/gguf/"

static const char *const models[] = {
    "llama",  "llama_factors", "llama_linear", "llama_yarn",         "mistral",   "qwen2",
    "qwen3",  "phi2",          "phi3",         "phi3_long",          "granite",   "gemma2",
    "gemma3", "gpt2",          "gptneox",      "gptneox_sequential", "deepseek2", "deepseek2_direct",
};

/* The import of a file, with its golden outputs beside it. */
static void import(const char *name, const char *dir)
{
    char source[ASSAY_PATH_MAX], target[ASSAY_PATH_MAX];
    struct assay_gguf *file = NULL;
    struct assay_gguf_summary summary;
    snprintf(source, sizeof source, VECTORS "%s.gguf", name);
    want_ok(assay_mkdirs(dir, 0755, &golden_err));
    want_ok(assay_gguf_open(source, &file, &golden_err));
    want_ok(assay_gguf_import(file, dir, NULL, NULL, &summary, &golden_err));
    assay_gguf_close(file);
    snprintf(source, sizeof source, VECTORS "%s.golden.safetensors", name);
    want_ok(assay_path_join(target, dir, "golden.safetensors", &golden_err));
    assert_int_equal(symlink(source, target), 0);
}

static void imported_files_compute_what_transformers_does(void **state)
{
    (void)state;
    char scratch[] = "/tmp/assay-gguf-models-XXXXXX", dir[ASSAY_PATH_MAX];
    assert_non_null(mkdtemp(scratch));
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        want_ok(assay_path_join(dir, scratch, models[i], &golden_err));
        import(models[i], dir);
        golden_check_outputs(dir, false);
    }
    want_ok(assay_remove_tree(scratch, &golden_err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imported_files_compute_what_transformers_does),
    };
    return cmocka_run_group_tests_name("gguf models", tests, NULL, NULL);
}
