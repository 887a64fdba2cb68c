/* Classifiers against transformers (tests/vectors/bert_classifier), the files that say how texts become embeddings, and
 * what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/formats/json.h"
#include "common/nn/pooling.h"
#include "common/nn/sentences.h"
#include "tests/cmocka_all.h"

#define MODEL ASSAY_SOURCE_DIR "/tests/vectors/bert_classifier"
#define LABELS 3
#define PROBABILITY_ATOL 1e-6

static struct assay_err err = ASSAY_ERR_INIT;

static void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

static int make_dir(void **state)
{
    static char dir[] = "/tmp/assay-sentences-XXXXXX";
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    *state = mkdtemp(dir);
    return *state ? 0 : -1;
}

static int remove_dir(void **state)
{
    return assay_remove_tree(*state, &err) == ASSAY_OK ? 0 : -1;
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[ASSAY_PATH_MAX];
    want_ok(assay_path_join(path, dir, name, &err));
    want_ok(assay_file_write(path, text, strlen(text), &err));
}

/* The classifier with another config.json: `to` where `from` first stands. */
static void derive(const char *dir, const char *from, const char *to)
{
    static const char *const files[] = {"model.safetensors", "tokenizer.json"};
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char target[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
        want_ok(assay_path_join(target, MODEL, files[i], &err));
        want_ok(assay_path_join(path, dir, files[i], &err));
        if (access(path, F_OK) != 0)
            assert_int_equal(symlink(target, path), 0);
    }
    char *config, text[4096];
    size_t len;
    want_ok(assay_file_read(MODEL "/config.json", sizeof text, &config, &len, &err));
    const char *at = strstr(config, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    put(dir, "config.json", text);
    free(config);
}

static void check_probabilities(const char *dir, const char *key)
{
    cJSON *expected;
    want_ok(assay_json_load(MODEL "/expected.json", &expected, &err));
    size_t count = (size_t)cJSON_GetArraySize(expected);
    struct assay_text *texts = calloc(count, sizeof *texts);
    float *found = calloc(count * LABELS, sizeof *found);
    for (size_t i = 0; i < count; i++) {
        const char *text =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(expected, (int)i), "text"));
        texts[i] = (struct assay_text){text, strlen(text)};
    }
    struct assay_pool *pool;
    struct assay_sentences *sentences;
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    want_ok(assay_sentences_open(dir, pool, &sentences, &err));
    assert_int_equal(assay_sentences_labels(sentences), LABELS);
    assert_string_equal(assay_sentences_label(sentences, 1), "rude");
    want_ok(assay_sentences_classify(sentences, texts, NULL, count, found, &err));
    for (size_t i = 0; i < count * LABELS; i++) {
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(expected, (int)(i / LABELS)), key);
        double wanted = cJSON_GetArrayItem(row, (int)(i % LABELS))->valuedouble;
        if (!(fabs((double)found[i] - wanted) <= PROBABILITY_ATOL))
            fail_msg("text %zu, label %zu: %.9g, wanted %.9g", i / LABELS, i % LABELS, (double)found[i], wanted);
    }
    assay_sentences_close(sentences);
    assay_pool_free(pool);
    cJSON_Delete(expected);
    free(texts);
    free(found);
}

static void probabilities_equal_those_of_transformers(void **state)
{
    check_probabilities(MODEL, "softmax");
    derive(*state, "{", "{\"problem_type\": \"multi_label_classification\",");
    check_probabilities(*state, "sigmoid");
}

static void refuses(const char *dir, enum assay_status wanted, const char *words)
{
    struct assay_pool *pool;
    struct assay_sentences *sentences = NULL;
    want_ok(assay_pool_new(1, NULL, &pool, &err));
    assert_int_equal(assay_sentences_open(dir, pool, &sentences, &err), wanted);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assay_pool_free(pool);
}

static void options_that_are_not_implemented_are_refused_by_name(void **state)
{
    static const char *const changes[][3] = {
        {"\"is_decoder\": false", "\"is_decoder\": true", "is_decoder"},
        {"\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", "mish"},
        {"BertForSequenceClassification", "BertForTokenClassification", "BertForTokenClassification"},
        {"BertForSequenceClassification", "ElectraForSequenceClassification", "Electra"},
        {"\"add_cross_attention\": false", "\"add_cross_attention\": true", "add_cross_attention"},
        {"{", "{\"pruned_heads\": {\"1\": [0]},", "pruned_heads"},
        {"{", "{\"position_embedding_type\": \"relative_key\",", "relative_key"},
        {"{", "{\"quantization_config\": {},", "quantized"},
        {"{", "{\"problem_type\": \"regression\",", "regression"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(changes); i++) {
        derive(*state, changes[i][0], changes[i][1]);
        refuses(*state, ASSAY_UNIMPLEMENTED, changes[i][2]);
    }
    derive(*state, "{", "{");
    put(*state, "modules.json", "[{\"type\": \"sentence_transformers.models.Dense\", \"path\": \"2_Dense\"}]");
    refuses(*state, ASSAY_UNIMPLEMENTED, "Dense");
    put(*state, "modules.json", "[{\"type\": \"a.Pooling\", \"path\": \"../1_Pooling\"}]");
    refuses(*state, ASSAY_INVALID_ARGUMENT, "not the name of a folder");
    put(*state, "modules.json", "{}");
    refuses(*state, ASSAY_INVALID_ARGUMENT, "not a list");
}

static void read_pooling(const char *dir, const char *config, struct assay_pooling *ret)
{
    char folder[ASSAY_PATH_MAX];
    want_ok(assay_path_join(folder, dir, "1_Pooling", &err));
    mkdir(folder, 0700);
    put(folder, "config.json", config);
    want_ok(assay_pooling_read(dir, 512, ret, &err));
}

static void pooling_is_what_the_modules_say(void **state)
{
    static const float hidden[] = {3, 0, 0, 4, 0, 8};
    struct assay_pooling pooling;
    float out[2];
    want_ok(assay_pooling_read(*state, 512, &pooling, &err));
    assert_true(pooling.kind == ASSAY_POOLING_MEAN && pooling.normalize && pooling.tokens_max == 512);
    assay_pooling_apply(&pooling, hidden, 3, 2, out);
    assert_true(fabs((double)out[0] - 1 / sqrt(17)) < 1e-7 && fabs((double)out[1] - 4 / sqrt(17)) < 1e-7);
    put(*state, "modules.json",
        "[{\"type\": \"m.Transformer\", \"path\": \"\"}, {\"type\": \"m.Pooling\", \"path\": \"1_Pooling\"}]");
    put(*state, "sentence_bert_config.json", "{\"max_seq_length\": 64}");
    read_pooling(*state, "{\"pooling_mode_cls_token\": true}", &pooling);
    assert_true(pooling.kind == ASSAY_POOLING_FIRST && !pooling.normalize && pooling.tokens_max == 64);
    assay_pooling_apply(&pooling, hidden, 3, 2, out);
    assert_true(out[0] == 3 && out[1] == 0);
    read_pooling(*state, "{\"pooling_mode\": \"mean\"}", &pooling);
    assert_true(pooling.kind == ASSAY_POOLING_MEAN);
    read_pooling(*state, "{\"pooling_mode_lasttoken\": true}", &pooling);
    assert_true(pooling.kind == ASSAY_POOLING_LAST && !pooling.normalize);
    assay_pooling_apply(&pooling, hidden, 3, 2, out);
    assert_memory_equal(out, hidden + 4, 2 * sizeof *out);
    char folder[ASSAY_PATH_MAX];
    want_ok(assay_path_join(folder, *state, "1_Pooling", &err));
    put(folder, "config.json", "{\"pooling_mode\": \"median\"}");
    assert_int_equal(assay_pooling_read(*state, 512, &pooling, &err), ASSAY_UNIMPLEMENTED);
    put(folder, "config.json", "{\"pooling_mode_mean_tokens\": true, \"pooling_mode_cls_token\": true}");
    assert_int_equal(assay_pooling_read(*state, 512, &pooling, &err), ASSAY_UNIMPLEMENTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(probabilities_equal_those_of_transformers, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(options_that_are_not_implemented_are_refused_by_name, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(pooling_is_what_the_modules_say, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
