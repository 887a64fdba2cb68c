/* Encoders of every family against transformers (tests/vectors/encoders): hidden states, poolers and heads, texts and
 * their embeddings and probabilities, those of decoders too; and what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/formats/json.h"
#include "common/nn/encoder.h"
#include "common/nn/sentences.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"

#define VECTORS ASSAY_SOURCE_DIR "/tests/vectors/encoders/"
#define ATOL 1e-5
#define SEQUENCES 5
#define TEXTS_MAX 16

static const char *const models[] = {"mpnet_sentences", "mpnet_labels",      "bert_pairs",
                                     "roberta_labels",  "roberta_sentences", "xlmr_score",
                                     "xlmr_sentences",  "distilbert_labels", "distilbert_sentences"};
static const char *const names[SEQUENCES] = {"one", "most", "some", "padded", "pair"};
static struct assay_err err = ASSAY_ERR_INIT;

static void want_ok(enum assay_status status)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err.text);
}

static int make_dir(void **state)
{
    static char dir[] = "/tmp/assay-encoders-XXXXXX";
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    *state = mkdtemp(dir);
    return *state ? 0 : -1;
}

static int remove_dir(void **state)
{
    return assay_remove_tree(*state, &err) == ASSAY_OK ? 0 : -1;
}

static const char *vectors_of(const char *model)
{
    static char dir[ASSAY_PATH_MAX];
    snprintf(dir, sizeof dir, VECTORS "%s", model);
    return dir;
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[ASSAY_PATH_MAX];
    want_ok(assay_path_join(path, dir, name, &err));
    want_ok(assay_file_write(path, text, strlen(text), &err));
}

static void close_to(const char *what, const float *found, const float *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)found[i] - (double)wanted[i]) <= ATOL))
            fail_msg("%s: element %zu is %.9g, wanted %.9g", what, i, (double)found[i], (double)wanted[i]);
}

/* --- sequences --- */

struct engine {
    struct assay_pool *pool;
    struct assay_encoder *encoder;
};

static void engine_open(struct engine *e, const char *dir, size_t threads, const char *path)
{
    struct assay_checkpoint *checkpoint;
    size_t bytes = 0;
    if (path)
        setenv("ASSAY_CPU_MASK", path, 1);
    want_ok(assay_pool_new(threads, NULL, &e->pool, &err));
    want_ok(assay_checkpoint_open(dir, &checkpoint, &err));
    want_ok(assay_encoder_load(checkpoint, e->pool, &e->encoder, &err));
    want_ok(assay_encoder_measure(checkpoint, &bytes, &err));
    assert_int_equal(bytes, assay_encoder_bytes(e->encoder));
    assert_true(assay_encoder_is(assay_checkpoint_config(checkpoint)));
    assay_checkpoint_close(checkpoint);
    unsetenv("ASSAY_CPU_MASK");
}

static void engine_close(struct engine *e)
{
    assay_encoder_free(e->encoder);
    assay_pool_free(e->pool);
}

static const struct assay_tensor *part_of(const struct assay_safetensors *golden, size_t index, const char *part)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", names[index], part);
    return assay_safetensors_find(golden, name);
}

/* The sequences that the file has; their hidden states are freed by the caller. */
static size_t read_sequences(const struct assay_safetensors *golden, size_t width,
                             struct assay_encoder_sequence sequences[SEQUENCES])
{
    size_t count = 0;
    for (; count < SEQUENCES && part_of(golden, count, "input_ids"); count++) {
        const struct assay_tensor *ids = part_of(golden, count, "input_ids");
        const struct assay_tensor *types = part_of(golden, count, "types");
        size_t tokens = ids->bytes / sizeof(int32_t);
        float *hidden = calloc(tokens * width, sizeof *hidden);
        assert_non_null(hidden);
        sequences[count] = (struct assay_encoder_sequence){.ids = (const int32_t *)ids->data,
                                                           .types = (const int32_t *)types->data,
                                                           .tokens = tokens,
                                                           .hidden = hidden};
    }
    return count;
}

static void free_sequences(struct assay_encoder_sequence *sequences, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(sequences[i].hidden);
}

static void check_heads(const struct engine *e, const struct assay_safetensors *golden, size_t index,
                        const float *first)
{
    const struct assay_tensor *pooler = part_of(golden, index, "pooler"), *logits = part_of(golden, index, "logits");
    float pooled[64], scores[64];
    size_t labels = assay_encoder_config(e->encoder)->labels;
    assert_true(assay_encoder_config(e->encoder)->hidden <= ASSAY_COUNT(pooled) && labels <= ASSAY_COUNT(scores));
    if (!pooler && !logits) {
        assert_int_equal(assay_encoder_pooler(e->encoder, e->pool, first, 1, pooled, &err), ASSAY_FAILED_PRECONDITION);
        return;
    }
    want_ok(assay_encoder_pooler(e->encoder, e->pool, first, 1, pooled, &err));
    if (pooler)
        close_to("pooler", pooled, (const float *)pooler->data, pooler->bytes / sizeof(float));
    if (!logits)
        return;
    assert_int_equal(logits->bytes, labels * sizeof(float));
    want_ok(assay_encoder_scores(e->encoder, e->pool, pooled, 1, scores, &err));
    close_to("logits", scores, (const float *)logits->data, labels);
}

static void check_sequences(const char *model)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors *golden;
    struct assay_encoder_sequence batch[SEQUENCES], single[SEQUENCES];
    struct engine all, alone;
    want_ok(assay_path_join(path, vectors_of(model), "golden.safetensors", &err));
    want_ok(assay_safetensors_open(path, &golden, &err));
    engine_open(&all, vectors_of(model), 3, NULL);
    engine_open(&alone, vectors_of(model), 1, "scalar");
    size_t width = assay_encoder_config(all.encoder)->hidden, count = read_sequences(golden, width, batch);
    assert_true(count >= 4);
    assert_int_equal(read_sequences(golden, width, single), count);
    want_ok(assay_encoder_forward(all.encoder, all.pool, batch, count, &err));
    for (size_t i = 0; i < count; i++) {
        const struct assay_tensor *wanted = part_of(golden, i, "last_hidden");
        assert_int_equal(wanted->bytes, batch[i].tokens * width * sizeof(float));
        close_to(names[i], batch[i].hidden, (const float *)wanted->data, batch[i].tokens * width);
        want_ok(assay_encoder_forward(alone.encoder, alone.pool, &single[i], 1, &err));
        assert_memory_equal(single[i].hidden, batch[i].hidden, wanted->bytes);
        check_heads(&all, golden, i, batch[i].hidden);
    }
    free_sequences(batch, count);
    free_sequences(single, count);
    engine_close(&all);
    engine_close(&alone);
    assay_safetensors_close(golden);
}

static void sequences_give_what_transformers_gives_and_the_same_bits_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        print_message("%s\n", models[i]);
        check_sequences(models[i]);
    }
}

static void lengths_and_types_beyond_the_model_are_refused(void **state)
{
    (void)state;
    struct engine e;
    int32_t ids[131] = {0}, types[131] = {0};
    float hidden[131 * 8];
    struct assay_encoder_sequence s = {ids, types, 0, hidden};
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        engine_open(&e, vectors_of(models[i]), 1, NULL);
        size_t positions = assay_encoder_config(e.encoder)->positions;
        assert_int_equal(positions, strcmp(models[i], "mpnet_sentences") == 0 ? 130 : 24);
        assert_int_equal(assay_encoder_config(e.encoder)->hidden, 8);
        s.tokens = positions + 1;
        assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), ASSAY_OUT_OF_RANGE);
        s.tokens = positions;
        want_ok(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err));
        types[20] = 2;
        enum assay_status wanted = assay_encoder_config(e.encoder)->types > 0 ? ASSAY_OUT_OF_RANGE : ASSAY_OK;
        assert_int_equal(assay_encoder_forward(e.encoder, e.pool, &s, 1, &err), wanted);
        types[20] = 0;
        engine_close(&e);
    }
}

/* --- texts --- */

struct expected {
    cJSON *rows;
    size_t count, paired; /* rows from `paired` on are pairs */
    struct assay_text texts[TEXTS_MAX], pairs[TEXTS_MAX];
};

static struct assay_text text_of(const cJSON *item)
{
    assert_true(cJSON_IsString(item));
    return (struct assay_text){item->valuestring, strlen(item->valuestring)};
}

static void read_expected(const char *model, struct expected *ret)
{
    char path[ASSAY_PATH_MAX];
    const cJSON *row;
    *ret = (struct expected){.paired = SIZE_MAX};
    want_ok(assay_path_join(path, vectors_of(model), "expected.json", &err));
    want_ok(assay_json_load(path, &ret->rows, &err));
    cJSON_ArrayForEach(row, ret->rows)
    {
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(row, "text");
        assert_true(ret->count < TEXTS_MAX);
        if (cJSON_IsArray(text)) {
            ret->paired = ASSAY_MIN(ret->paired, ret->count);
            ret->pairs[ret->count] = text_of(text->child->next);
            text = text->child;
        }
        ret->texts[ret->count++] = text_of(text);
    }
    ret->paired = ASSAY_MIN(ret->paired, ret->count);
    assert_true(ret->paired >= 5);
}

static void check_row(const char *model, const struct expected *expected, size_t index, const char *key,
                      const char *kind, const float *found, size_t width)
{
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(expected->rows, (int)index), key);
    char what[128];
    float wanted[64];
    values = kind ? cJSON_GetObjectItemCaseSensitive(values, kind) : values;
    assert_true(width <= ASSAY_COUNT(wanted));
    assert_int_equal(cJSON_GetArraySize(values), width);
    for (size_t i = 0; i < width; i++)
        wanted[i] = (float)cJSON_GetArrayItem(values, (int)i)->valuedouble;
    snprintf(what, sizeof what, "%s, text %zu, %s %s", model, index, key, kind ? kind : "");
    close_to(what, found, wanted, width);
}

static void check_probabilities(const char *model)
{
    struct expected expected;
    struct assay_pool *pool;
    struct assay_sentences *sentences;
    float found[TEXTS_MAX * 8];
    read_expected(model, &expected);
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    want_ok(assay_sentences_open(vectors_of(model), pool, &sentences, &err));
    size_t labels = assay_sentences_labels(sentences);
    assert_true(labels >= 1 && labels <= 8);
    size_t paired = expected.paired;
    assert_true(expected.count > paired);
    want_ok(assay_sentences_classify(sentences, expected.texts, NULL, paired, found, &err));
    want_ok(assay_sentences_classify(sentences, expected.texts + paired, expected.pairs + paired,
                                     expected.count - paired, found + paired * labels, &err));
    for (size_t i = 0; i < expected.count; i++)
        check_row(model, &expected, i, "probabilities", NULL, found + i * labels, labels);
    assay_sentences_close(sentences);
    assay_pool_free(pool);
    cJSON_Delete(expected.rows);
}

static void probabilities_are_those_of_transformers(void **state)
{
    (void)state;
    check_probabilities("bert_pairs");
    check_probabilities("roberta_labels");
    check_probabilities("xlmr_score");
    check_probabilities("distilbert_labels");
    check_probabilities("mpnet_labels");
}

static void same_integers(const cJSON *row, const char *key, const int32_t *found, size_t count)
{
    const cJSON *wanted = cJSON_GetObjectItemCaseSensitive(row, key);
    assert_int_equal(cJSON_GetArraySize(wanted), count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(cJSON_GetArrayItem(wanted, (int)i)->valueint, found[i]);
}

static void ids_and_types_are_those_of_the_tokenizers(void **state)
{
    (void)state;
    for (size_t m = 0; m < ASSAY_COUNT(models); m++) {
        struct expected expected;
        struct assay_tokenizer *tokenizer;
        read_expected(models[m], &expected);
        size_t most = strcmp(models[m], "mpnet_sentences") == 0 ? 130 : 24;
        want_ok(assay_tokenizer_open(vectors_of(models[m]), &tokenizer, &err));
        for (size_t i = 0; i < expected.count; i++) {
            const cJSON *row = cJSON_GetArrayItem(expected.rows, (int)i);
            const struct assay_text *text = &expected.texts[i], *pair = &expected.pairs[i];
            int32_t *ids, *types;
            size_t count;
            want_ok(assay_tokenizer_encode_within(tokenizer, text->text, text->len, pair->text, pair->len, most, &ids,
                                                  &types, &count, &err));
            same_integers(row, "ids", ids, count);
            same_integers(row, "types", types, count);
            free(ids);
            free(types);
            assert_int_equal(assay_tokenizer_encode_within(tokenizer, "kind dogs", 9, pair->text, pair->len,
                                                           pair->text ? 3 : 2, &ids, &types, &count, &err),
                             ASSAY_INVALID_ARGUMENT);
        }
        assay_tokenizer_close(tokenizer);
        cJSON_Delete(expected.rows);
    }
}

/* Links to a model's files under `dir`, beside a folder for what its pooling says. */
static void link_model(const char *dir, const char *model)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "modules.json"};
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char target[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
        want_ok(assay_path_join(target, vectors_of(model), files[i], &err));
        want_ok(assay_path_join(path, dir, files[i], &err));
        unlink(path);
        if (access(target, F_OK) == 0)
            assert_int_equal(symlink(target, path), 0);
    }
}

static void check_embeddings(const char *dir, const char *model, const char *kind)
{
    struct expected expected;
    struct assay_pool *pool;
    struct assay_sentences *sentences;
    float found[TEXTS_MAX * 8];
    read_expected(model, &expected);
    want_ok(assay_pool_new(2, NULL, &pool, &err));
    want_ok(assay_sentences_open(dir, pool, &sentences, &err));
    size_t width = assay_sentences_hidden(sentences);
    assert_int_equal(width, 8);
    want_ok(assay_sentences_embed(sentences, expected.texts, expected.count, found, &err));
    for (size_t i = 0; i < expected.count; i++)
        check_row(model, &expected, i, "embeddings", kind, found + i * width, width);
    assert_int_equal(assay_sentences_classify(sentences, expected.texts, NULL, 1, found, &err),
                     ASSAY_FAILED_PRECONDITION);
    assay_sentences_close(sentences);
    assay_pool_free(pool);
    cJSON_Delete(expected.rows);
}

static void embeddings_are_those_that_the_modules_ask_for(void **state)
{
    static const char *const of[] = {"roberta_sentences", "xlmr_sentences",  "distilbert_sentences",
                                     "qwen3_sentences",   "mpnet_sentences", "llama_sentences"};
    static const char *const own[] = {"mean_tokens", "cls_token",   "mean_tokens",
                                      "lasttoken",   "mean_tokens", "mean_tokens"};
    static const char *const kinds[] = {"cls_token",           "mean_tokens", "max_tokens", "mean_sqrt_len_tokens",
                                        "weightedmean_tokens", "lasttoken"};
    char folder[ASSAY_PATH_MAX], text[128];
    want_ok(assay_path_join(folder, *state, "1_Pooling", &err));
    assert_int_equal(mkdir(folder, 0700), 0);
    for (size_t i = 0; i < ASSAY_COUNT(of); i++) {
        check_embeddings(vectors_of(of[i]), of[i], own[i]);
        link_model(*state, of[i]);
        for (size_t k = 0; k < ASSAY_COUNT(kinds); k++) {
            snprintf(text, sizeof text, "{\"pooling_mode_%s\": true}", kinds[k]);
            put(folder, "config.json", text);
            check_embeddings(*state, of[i], kinds[k]);
        }
    }
}

static void refuses(const char *dir, enum assay_status wanted, const char *words)
{
    struct assay_pool *pool;
    struct assay_sentences *sentences = NULL;
    want_ok(assay_pool_new(1, NULL, &pool, &err));
    enum assay_status status = assay_sentences_open(dir, pool, &sentences, &err);
    if (status != wanted || !strstr(err.text, words))
        fail_msg("status %d, \"%s\", wanted \"%s\"", (int)status, err.text, words);
    assay_pool_free(pool);
}

static void sentences_that_would_be_others_are_refused(void **state)
{
    char path[ASSAY_PATH_MAX];
    link_model(*state, "qwen3_sentences");
    want_ok(assay_path_join(path, *state, "modules.json", &err));
    assert_int_equal(unlink(path), 0);
    refuses(*state, ASSAY_FAILED_PRECONDITION, "no modules.json");
    put(*state, "modules.json", "[{\"type\": \"a.Transformer\"}, {\"type\": \"a.Normalize\"}]");
    put(*state, "config_sentence_transformers.json", "{\"default_prompt_name\": \"query\"}");
    refuses(*state, ASSAY_UNIMPLEMENTED, "default_prompt_name \"query\"");
    put(*state, "config_sentence_transformers.json", "{\"default_prompt_name\": null}");
    want_ok(assay_path_join(path, *state, "config.json", &err));
    assert_int_equal(unlink(path), 0);
    put(*state, "config.json",
        "{\"architectures\": [\"Qwen3Model\"], \"vocab_size\": 88, \"hidden_size\": 8, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 4, \"intermediate_size\": 12, "
        "\"max_position_embeddings\": 24, \"is_causal\": false}");
    refuses(*state, ASSAY_UNIMPLEMENTED, "is_causal");
    unlink(path);
    put(*state, "config.json", "{\"architectures\": [\"T5EncoderModel\"]}");
    refuses(*state, ASSAY_UNIMPLEMENTED, "T5EncoderModel");
}

/* --- config.json --- */

/* config.json of a model with `to` where `from` first stands; to be freed. */
static char *changed_config(const char *model, const char *from, const char *to)
{
    char path[ASSAY_PATH_MAX], *config, *text = malloc(4096);
    size_t len;
    assert_non_null(text);
    want_ok(assay_path_join(path, vectors_of(model), "config.json", &err));
    want_ok(assay_file_read(path, 2048, &config, &len, &err));
    const char *at = strstr(config, from);
    assert_non_null(at);
    snprintf(text, 4096, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    free(config);
    return text;
}

static void derive(const char *model, const char *from, const char *to, struct assay_encoder_config *ret,
                   enum assay_status wanted, const char *words)
{
    cJSON *object;
    char *text = changed_config(model, from, to);
    want_ok(assay_json_parse(text, strlen(text), "config.json", &object, &err));
    enum assay_status status = assay_encoder_config_read(object, "config.json", ret, &err);
    if (status != wanted || (words && !strstr(err.text, words)))
        fail_msg("%s with %s: status %d, \"%s\"", model, to, (int)status, err.text);
    cJSON_Delete(object);
    free(text);
}

/* Model, what is replaced by what, words of the refusal. */
static void derive_all(const char *const changes[][4], size_t count, enum assay_status wanted)
{
    struct assay_encoder_config config;
    for (size_t i = 0; i < count; i++)
        derive(changes[i][0], changes[i][1], changes[i][2], &config, wanted, changes[i][3]);
}

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const changes[][4] = {
        {"roberta_labels", "\"is_decoder\": false", "\"is_decoder\": true", "is_decoder"},
        {"roberta_labels", "\"add_cross_attention\": false", "\"add_cross_attention\": true", "add_cross_attention"},
        {"roberta_labels", "{", "{\"position_embedding_type\": \"relative_key_query\",", "relative_key_query"},
        {"roberta_labels", "RobertaFor", "RobertaPreLayerNormFor", "RobertaPreLayerNormFor"},
        {"roberta_labels", "ForSequenceClassification", "ForQuestionAnswering", "RobertaForQuestionAnswering"},
        {"xlmr_score", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"laplace\"", "laplace"},
        {"xlmr_score", "XLMRobertaFor", "XLMRobertaXLFor", "XLMRobertaXLFor"},
        {"xlmr_score", "{", "{\"is_encoder_decoder\": true,", "is_encoder_decoder"},
        {"distilbert_labels", "{", "{\"pruned_heads\": {\"0\": [1]},", "pruned_heads"},
        {"distilbert_labels", "\"activation\": \"relu\"", "\"activation\": \"mish\"", "mish"},
        {"distilbert_labels", "DistilBertFor", "AlbertFor", "AlbertFor"},
        {"distilbert_labels", "{", "{\"num_experts\": 8,", "num_experts"},
    };
    derive_all(changes, ASSAY_COUNT(changes), ASSAY_UNIMPLEMENTED);
}

static void members_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const changes[][4] = {
        {"roberta_labels", "\"pad_token_id\": 1", "\"pad_token_id\": null", "pad_token_id"},
        {"roberta_labels", "\"pad_token_id\": 1", "\"pad_token_id\": 25", "pad_token_id"},
        {"roberta_labels", "\"pad_token_id\": 1", "\"pad_token_id\": -1", "pad_token_id"},
        {"roberta_labels", "\"type_vocab_size\": 1", "\"type_vocab_size\": 0", "type_vocab_size"},
        {"roberta_labels", "\"layer_norm_eps\": 1e-05", "\"layer_norm_eps\": 2", "layer_norm_eps"},
        {"roberta_labels", "\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "num_attention_heads"},
        {"distilbert_labels", "\"n_heads\": 4", "\"n_heads\": 3", "n_heads"},
        {"mpnet_labels", "\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 31",
         "relative_attention_num_buckets is 31"},
        {"distilbert_labels", "\"dim\": 8", "\"hidden_size\": 8", "dim"},
        {"distilbert_labels", "\"hidden_dim\": 20", "\"hidden_dim\": \"20\"", "hidden_dim"},
    };
    struct assay_encoder_config config;
    derive_all(changes, ASSAY_COUNT(changes), ASSAY_INVALID_ARGUMENT);
    derive("roberta_labels", "\"pad_token_id\": 1", "\"pad_token_id\": 24", &config, ASSAY_OK, NULL);
    assert_true(config.positions == 1 && config.pad == 24);
    derive("roberta_labels", "\"pad_token_id\": 1,", "", &config, ASSAY_OK, NULL);
    assert_true(config.positions == 24 && config.pad == 1 && config.labels == 3);
    derive("roberta_sentences", "RobertaModel", "CamembertForMaskedLM", &config, ASSAY_OK, NULL);
    assert_true(config.labels == 0 && config.pad == 4);
}

static void tensors_that_are_missing_or_do_not_fit_are_named(void **state)
{
    static const struct {
        const char *model, *from, *to, *words;
        enum assay_status status;
    } cases[] = {
        {"roberta_sentences", "RobertaModel", "RobertaForSequenceClassification", "classifier.dense.weight",
         ASSAY_NOT_FOUND},
        {"distilbert_sentences", "DistilBertModel", "DistilBertForSequenceClassification", "pre_classifier.weight",
         ASSAY_NOT_FOUND},
        {"roberta_labels", "RobertaFor", "BertFor", "embeddings.word_embeddings.weight", ASSAY_NOT_FOUND},
        {"roberta_labels", "\"threat\"", "\"threat\", \"3\": \"more\"", "classifier.out_proj.weight",
         ASSAY_INVALID_ARGUMENT},
        {"xlmr_score", "\"max_position_embeddings\": 26", "\"max_position_embeddings\": 24",
         "roberta.embeddings.position_embeddings.weight", ASSAY_INVALID_ARGUMENT},
        {"mpnet_labels", "\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 33",
         "mpnet.encoder.relative_attention_bias.weight", ASSAY_INVALID_ARGUMENT},
        {"distilbert_labels", "\"hidden_dim\": 20", "\"hidden_dim\": 24",
         "distilbert.transformer.layer.0.ffn.lin1.weight", ASSAY_INVALID_ARGUMENT},
    };
    struct assay_pool *pool;
    want_ok(assay_pool_new(1, NULL, &pool, &err));
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_checkpoint *checkpoint;
        struct assay_encoder *encoder = NULL;
        char path[ASSAY_PATH_MAX], *text = changed_config(cases[i].model, cases[i].from, cases[i].to);
        size_t bytes = 0;
        link_model(*state, cases[i].model);
        want_ok(assay_path_join(path, *state, "config.json", &err));
        unlink(path);
        put(*state, "config.json", text);
        want_ok(assay_checkpoint_open(*state, &checkpoint, &err));
        assert_int_equal(assay_encoder_measure(checkpoint, &bytes, &err), cases[i].status);
        enum assay_status status = assay_encoder_load(checkpoint, pool, &encoder, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].words))
            fail_msg("%s with %s: status %d, \"%s\"", cases[i].model, cases[i].to, (int)status, err.text);
        assay_checkpoint_close(checkpoint);
        free(text);
    }
    assay_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_give_what_transformers_gives_and_the_same_bits_alone),
        cmocka_unit_test(lengths_and_types_beyond_the_model_are_refused),
        cmocka_unit_test(ids_and_types_are_those_of_the_tokenizers),
        cmocka_unit_test(probabilities_are_those_of_transformers),
        cmocka_unit_test_setup_teardown(embeddings_are_those_that_the_modules_ask_for, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(sentences_that_would_be_others_are_refused, make_dir, remove_dir),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(members_out_of_range_are_refused_by_name),
        cmocka_unit_test_setup_teardown(tensors_that_are_missing_or_do_not_fit_are_named, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
