/* Embeddings and classes over the wire: the bits of the same in one process; ceilings; what is refused. */
#include <stdlib.h>
#include <string.h>

#include "services/inference/embed.h"
#include "tests/unit/respond_fixture.h"

static char *const texts[] = {(char *)"you are so kind", (char *)"this is rude", (char *)"neither of them, and longer",
                              (char *)"kind", (char *)"a day"};

static Assay__V1__Variant classifier;

static Assay__V1__EmbedRequest embed_request(void)
{
    Assay__V1__EmbedRequest request = ASSAY__V1__EMBED_REQUEST__INIT;
    classifier = respond_variant(RESPOND_CLASSIFIER);
    request.model = &classifier;
    request.n_texts = ASSAY_COUNT(texts);
    request.texts = (char **)(uintptr_t)texts;
    return request;
}

/* The values of a tensor in attachment 0. */
static const float *values_of(const struct assay_reply *reply, const Assay__V1__Tensor *tensor, size_t width)
{
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, ASSAY__V1__DTYPE__DTYPE_F32);
    assert_int_equal(tensor->n_shape, 2);
    assert_int_equal(tensor->shape[0], ASSAY_COUNT(texts));
    assert_int_equal(tensor->shape[1], width);
    assert_int_equal(assay_reply_attachments(reply), 1);
    struct assay_bytes bytes = assay_reply_attachment(reply, tensor->attachment);
    assert_int_equal(bytes.bytes, ASSAY_COUNT(texts) * width * sizeof(float));
    return bytes.data;
}

static void embeddings_and_classes_have_the_bits_of_one_process(void **state)
{
    struct respond_fixture *f = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_sentences *sentences;
    struct assay_text plain[ASSAY_COUNT(texts)];
    Assay__V1__EmbedRequest embed = embed_request();
    Assay__V1__ClassifyRequest classify = ASSAY__V1__CLASSIFY_REQUEST__INIT;
    classify.model = embed.model;
    classify.n_texts = embed.n_texts;
    classify.texts = embed.texts;
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++)
        plain[i] = (struct assay_text){texts[i], strlen(texts[i])};
    respond_ok(assay_sentences_open(RESPOND_CLASSIFIER, f->pool, &sentences, &err), &err);
    size_t hidden = assay_sentences_hidden(sentences), labels = assay_sentences_labels(sentences);
    float *wanted = malloc(ASSAY_COUNT(texts) * ASSAY_MAX(hidden, labels) * sizeof *wanted);

    struct assay_reply *reply = NULL;
    respond_ok(
        assay_call_unary(f->client, &assay__v1__respond__descriptor, METHOD_EMBED, &embed.base, NULL, &reply, &err),
        &err);
    const Assay__V1__EmbedReply *embedded = assay_reply_message(reply);
    respond_ok(assay_sentences_embed(sentences, plain, ASSAY_COUNT(texts), wanted, &err), &err);
    assert_memory_equal(values_of(reply, embedded->embeddings, hidden), wanted,
                        ASSAY_COUNT(texts) * hidden * sizeof *wanted);
    assay_reply_free(reply);

    respond_ok(assay_call_unary(f->client, &assay__v1__respond__descriptor, METHOD_CLASSIFY, &classify.base, NULL,
                                &reply, &err),
               &err);
    const Assay__V1__ClassifyReply *classes = assay_reply_message(reply);
    assert_int_equal(classes->n_labels, labels);
    for (size_t i = 0; i < labels; i++)
        assert_string_equal(classes->labels[i], assay_sentences_label(sentences, i));
    respond_ok(assay_sentences_classify(sentences, plain, NULL, ASSAY_COUNT(texts), wanted, &err), &err);
    assert_memory_equal(values_of(reply, classes->probabilities, labels), wanted,
                        ASSAY_COUNT(texts) * labels * sizeof *wanted);
    assay_reply_free(reply);

    struct assay_text others[ASSAY_COUNT(texts)];
    char *pairs[ASSAY_COUNT(texts)];
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++) {
        pairs[i] = texts[ASSAY_COUNT(texts) - 1 - i];
        others[i] = plain[ASSAY_COUNT(texts) - 1 - i];
    }
    classify.n_pairs = ASSAY_COUNT(pairs);
    classify.pairs = pairs;
    respond_ok(assay_call_unary(f->client, &assay__v1__respond__descriptor, METHOD_CLASSIFY, &classify.base, NULL,
                                &reply, &err),
               &err);
    classes = assay_reply_message(reply);
    const float *found = values_of(reply, classes->probabilities, labels);
    assert_memory_not_equal(found, wanted, ASSAY_COUNT(texts) * labels * sizeof *wanted);
    respond_ok(assay_sentences_classify(sentences, plain, others, ASSAY_COUNT(texts), wanted, &err), &err);
    assert_memory_equal(found, wanted, ASSAY_COUNT(texts) * labels * sizeof *wanted);
    assay_reply_free(reply);
    assert_int_equal(atomic_load(&f->respond->texts), 3 * ASSAY_COUNT(texts));
    free(wanted);
    assay_sentences_close(sentences);
    respond_await_quiet(f);
}

static void a_decoder_embeds_as_its_modules_say(void **state)
{
    static const char dir[] = ASSAY_SOURCE_DIR "/tests/vectors/encoders/qwen3_sentences";
    struct respond_fixture *f = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_sentences *sentences;
    struct assay_text plain[ASSAY_COUNT(texts)];
    struct assay_reply *reply = NULL;
    float wanted[ASSAY_COUNT(texts) * 8];
    Assay__V1__EmbedRequest embed = embed_request();
    Assay__V1__Variant decoder = respond_variant(dir);
    embed.model = &decoder;
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++)
        plain[i] = (struct assay_text){texts[i], strlen(texts[i])};
    respond_ok(assay_sentences_open(dir, f->pool, &sentences, &err), &err);
    assert_int_equal(assay_sentences_hidden(sentences), 8);
    respond_ok(assay_sentences_embed(sentences, plain, ASSAY_COUNT(texts), wanted, &err), &err);
    respond_ok(
        assay_call_unary(f->client, &assay__v1__respond__descriptor, METHOD_EMBED, &embed.base, NULL, &reply, &err),
        &err);
    const Assay__V1__EmbedReply *embedded = assay_reply_message(reply);
    assert_memory_equal(values_of(reply, embedded->embeddings, 8), wanted, sizeof wanted);
    assay_reply_free(reply);
    assay_sentences_close(sentences);
    respond_await_quiet(f);
}

static void want_status(struct respond_fixture *f, unsigned method, const ProtobufCMessage *request,
                        enum assay_status status, const char *part)
{
    struct assay_reply *reply = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status found =
        assay_call_unary(f->client, &assay__v1__respond__descriptor, method, request, NULL, &reply, &err);
    assay_reply_free(reply);
    if (found != status || !strstr(err.text, part))
        fail_msg("found %s \"%s\", wanted %s with \"%s\"", assay_status_name(found), err.text,
                 assay_status_name(status), part);
}

static void what_cannot_be_answered_is_refused(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__EmbedRequest bad = embed_request();
    bad.n_texts = 0;
    want_status(f, METHOD_EMBED, &bad.base, ASSAY_INVALID_ARGUMENT, "no texts");
    char **many = calloc(ASSAY_EMBED_TEXTS_MAX + 1, sizeof *many);
    for (size_t i = 0; i <= ASSAY_EMBED_TEXTS_MAX; i++)
        many[i] = (char *)"a";
    bad.texts = many;
    bad.n_texts = ASSAY_EMBED_TEXTS_MAX + 1;
    want_status(f, METHOD_EMBED, &bad.base, ASSAY_RESOURCE_EXHAUSTED, "4097 texts");
    char *huge = calloc(1, ASSAY_EMBED_BYTES_MAX + 2);
    memset(huge, 'a', ASSAY_EMBED_BYTES_MAX + 1);
    bad.texts = &huge;
    bad.n_texts = 1;
    want_status(f, METHOD_EMBED, &bad.base, ASSAY_RESOURCE_EXHAUSTED, "bytes");
    free(huge);
    free(many);
    Assay__V1__Variant decoder = respond_variant(RESPOND_MODEL), nowhere = respond_variant("/nowhere");
    Assay__V1__ClassifyRequest classify = ASSAY__V1__CLASSIFY_REQUEST__INIT;
    classify.n_texts = ASSAY_COUNT(texts);
    classify.texts = (char **)(uintptr_t)texts;
    classify.model = &decoder;
    want_status(f, METHOD_CLASSIFY, &classify.base, ASSAY_FAILED_PRECONDITION, "modules.json");
    classify.n_pairs = 2;
    classify.pairs = classify.texts;
    want_status(f, METHOD_CLASSIFY, &classify.base, ASSAY_INVALID_ARGUMENT, "2 pairs beside 5 texts");
    classify.n_pairs = 0;
    classify.model = &nowhere;
    want_status(f, METHOD_CLASSIFY, &classify.base, ASSAY_NOT_FOUND, "/nowhere");
    respond_await_quiet(f);
}

static void many_calls_for_one_model_are_answered(void **state)
{
    enum { CALLS = 24 };
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest generate = respond_request("The birds", 12);
    Assay__V1__EmbedRequest request = embed_request();
    struct assay_stream *streams[CALLS];
    struct answer *wanted = respond_alone(&generate);
    for (size_t i = 0; i < CALLS; i++) {
        struct assay_reply *reply = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        streams[i] = respond_open(f, &generate, 2);
        respond_ok(assay_call_unary(f->client, &assay__v1__respond__descriptor, METHOD_EMBED, &request.base, NULL,
                                    &reply, &err),
                   &err);
        assay_reply_free(reply);
    }
    for (size_t i = 0; i < CALLS; i++) {
        struct answer *found = respond_finish(streams[i]);
        respond_same(found, wanted);
        respond_answer_free(found);
    }
    respond_answer_free(wanted);
    respond_await_quiet(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESPOND_TEST(embeddings_and_classes_have_the_bits_of_one_process),
        RESPOND_TEST(a_decoder_embeds_as_its_modules_say),
        RESPOND_TEST(what_cannot_be_answered_is_refused),
        RESPOND_TEST(many_calls_for_one_model_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
