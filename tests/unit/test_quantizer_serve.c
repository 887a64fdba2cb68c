/* Service assay.v1.Quantizer over its socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/artifact/job.h"
#include "common/formats/checkpoint.h"
#include "common/wire/client.h"
#include "proto/variant.pb-c.h"
#include "services/quantizer/serve.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"

struct fixture {
    char root[ASSAY_PATH_MAX], artifacts[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_quantizer *quantizer;
    struct assay_client *client;
    struct assay_model_id model_id;
};

/* A request and what it points to. */
struct request {
    Assay__V1__QuantizeRequest message;
    Assay__V1__Variant variant;
    Assay__V1__VariantSpec spec;
    struct assay_variant_id variant_id;
    char scheme[32], dir[ASSAY_PATH_MAX];
};

/* How a call ended. */
struct outcome {
    enum assay_status status;
    struct assay_err err;
    size_t progress_count;
    struct assay_reply *last; /* has the summary; NULL when the call failed */
};

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct assay_err err = ASSAY_ERR_INIT;
    char endpoint[ASSAY_PATH_MAX];
    strcpy(fixture->root, "/tmp/assay-quantizer-serve-XXXXXX");
    if (!mkdtemp(fixture->root))
        return -1;
    must(assay_path_join(fixture->artifacts, fixture->root, "artifacts", &err), &err);
    assert_int_equal(mkdir(fixture->artifacts, 0755), 0);
    snprintf(endpoint, sizeof endpoint, "ipc://%.100s/quantizer.sock", fixture->root);
    must(assay_pool_new(2, NULL, &fixture->pool, &err), &err);
    must(assay_loop_new(&fixture->loop, &err), &err);
    must(assay_server_new(fixture->loop, endpoint, &fixture->server, &err), &err);
    must(assay_quantizer_start(fixture->loop, fixture->server, fixture->artifacts, fixture->pool, &fixture->quantizer,
                               &err),
         &err);
    must(assay_client_new(fixture->loop, endpoint, &fixture->client, &err), &err);
    must(assay_loop_start(fixture->loop, &err), &err);
    must(assay_checkpoint_id(MODEL, NULL, NULL, &fixture->model_id, &err), &err);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    assay_quantizer_stop(fixture->quantizer);
    assay_client_free(fixture->client);
    assay_loop_stop_join(fixture->loop);
    assay_server_free(fixture->server);
    assay_quantizer_free(fixture->quantizer);
    assay_loop_free(fixture->loop);
    assay_pool_free(fixture->pool);
    enum assay_status status = assay_remove_tree(fixture->root, NULL);
    free(fixture);
    return status == ASSAY_OK ? 0 : -1;
}

static void request_init(const struct fixture *fixture, const char *scheme, struct request *request)
{
    struct assay_spec spec;
    struct assay_err err = ASSAY_ERR_INIT;
    char hex[ASSAY_DIGEST_HEX];
    must(assay_spec_parse(scheme, &spec, &err), &err);
    request->variant_id = assay_variant_id_of(&fixture->model_id, &spec);
    must(assay_path_join(request->dir, fixture->artifacts, assay_digest_hex(&request->variant_id.digest, hex), &err),
         &err);
    snprintf(request->scheme, sizeof request->scheme, "%s", scheme);
    assay__v1__quantize_request__init(&request->message);
    assay__v1__variant__init(&request->variant);
    assay__v1__variant_spec__init(&request->spec);
    request->message.variant = &request->variant;
    request->message.model_dir = (char *)(uintptr_t)MODEL;
    request->variant.has_variant_id = request->variant.has_model_id = true;
    request->variant.variant_id = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, request->variant_id.digest.bytes};
    request->variant.model_id =
        (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)fixture->model_id.digest.bytes};
    request->variant.spec = &request->spec;
    request->variant.artifact_dir = request->dir;
    request->spec.scheme = request->scheme;
    request->spec.compute = (char *)(uintptr_t) "f32";
}

static struct assay_stream *open_stream(struct fixture *fixture, const struct request *request)
{
    struct assay_stream *stream = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    must(assay_stream_open(fixture->client, &assay__v1__quantizer__descriptor, 0, &request->message.base, NULL, 16,
                           &stream, &err),
         &err);
    return stream;
}

static struct outcome read_stream(struct assay_stream *stream)
{
    struct outcome outcome = {0};
    for (;;) {
        struct assay_reply *reply = NULL;
        outcome.status = assay_stream_next(stream, 20000, &reply, &outcome.err);
        if (outcome.status != ASSAY_OK || !reply)
            break;
        const Assay__V1__QuantizeReply *message = assay_reply_message(reply);
        assert_true(message->tensors_total == 56 && message->tensors_done <= 56);
        if (message->summary) {
            assert_null(outcome.last);
            outcome.last = reply;
            continue;
        }
        assert_null(outcome.last);
        outcome.progress_count++;
        assay_reply_free(reply);
    }
    assay_stream_close(stream);
    return outcome;
}

static const Assay__V1__ArtifactSummary *summary_of(const struct outcome *outcome)
{
    must(outcome->status, &outcome->err);
    assert_non_null(outcome->last);
    return ((const Assay__V1__QuantizeReply *)assay_reply_message(outcome->last))->summary;
}

static void a_call_streams_progress_and_ends_with_the_summary(void **state)
{
    struct fixture *fixture = *state;
    struct request request;
    request_init(fixture, "int8", &request);
    struct outcome first = read_stream(open_stream(fixture, &request));
    struct outcome second = read_stream(open_stream(fixture, &request));
    const Assay__V1__ArtifactSummary *made = summary_of(&first), *found = summary_of(&second);
    assert_true(first.progress_count >= 1);
    assert_true(!made->was_cached && made->wall_us > 0);
    assert_true(found->was_cached && found->wall_us == 0);
    assert_int_equal(made->parameters, 3148224);
    assert_int_equal(made->fp16_bytes, 2 * 3148224);
    assert_int_equal(made->artifact_bytes, made->code_bytes + made->scale_bytes + made->kept_bytes);
    assert_int_equal(made->artifact_bytes, found->artifact_bytes);
    assert_int_equal(made->n_layer_errors, 42);
    assert_int_equal(found->n_layer_errors, 42);
    for (size_t i = 0; i < 42; i++) {
        assert_string_equal(made->layer_errors[i]->tensor, found->layer_errors[i]->tensor);
        assert_true(made->layer_errors[i]->has_cosine && made->layer_errors[i]->cosine > 0.999);
        assert_true(made->layer_errors[i]->cosine == found->layer_errors[i]->cosine);
    }
    assay_reply_free(first.last);
    assay_reply_free(second.last);
}

static void a_second_call_for_the_same_artifact_waits_and_finds_it(void **state)
{
    enum { CALLS = 4 };
    struct fixture *fixture = *state;
    struct request request;
    struct assay_stream *streams[CALLS];
    size_t cached = 0;
    request_init(fixture, "int8", &request);
    for (size_t i = 0; i < CALLS; i++)
        streams[i] = open_stream(fixture, &request);
    for (size_t i = 0; i < CALLS; i++) {
        struct outcome outcome = read_stream(streams[i]);
        cached += summary_of(&outcome)->was_cached;
        assay_reply_free(outcome.last);
    }
    assert_int_equal(cached, CALLS - 1);
}

static void assert_refused(struct fixture *fixture, const struct request *request, const char *words)
{
    struct outcome outcome = read_stream(open_stream(fixture, request));
    assert_int_equal(outcome.status, ASSAY_INVALID_ARGUMENT);
    if (!strstr(outcome.err.text, words))
        fail_msg("'%s' has no '%s'", outcome.err.text, words);
}

static void a_request_that_is_not_whole_or_leads_elsewhere_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct request request;
    request_init(fixture, "int8", &request);
    request.variant.artifact_dir = fixture->root;
    assert_refused(fixture, &request, "artifact_dir");
    request_init(fixture, "int8", &request);
    request.message.variant = NULL;
    assert_refused(fixture, &request, "variant");
    request_init(fixture, "int8", &request);
    request.variant.variant_id.len = 31;
    assert_refused(fixture, &request, "variant_id");
    request_init(fixture, "int8", &request);
    request.spec.scheme = (char *)(uintptr_t) "int9";
    assert_refused(fixture, &request, "int9");
    request_init(fixture, "int8", &request);
    request.variant.spec = NULL;
    assert_refused(fixture, &request, "scheme");
}

static void a_stop_ends_every_call_and_leaves_no_half_made_artifact(void **state)
{
    enum { CALLS = 6 };
    struct fixture *fixture = *state;
    struct request request, link;
    struct assay_stream *streams[CALLS];
    request_init(fixture, "int8", &request);
    request_init(fixture, "fp32", &link);
    for (size_t i = 0; i < CALLS; i++)
        streams[i] = open_stream(fixture, i % 2 ? &link : &request);
    usleep(15000);
    assay_quantizer_stop(fixture->quantizer);
    for (size_t i = 0; i < CALLS; i++) {
        struct outcome outcome = read_stream(streams[i]);
        assert_true(outcome.status == ASSAY_OK || outcome.status == ASSAY_UNAVAILABLE);
        assay_reply_free(outcome.last);
    }
    char command[ASSAY_PATH_MAX + 64];
    snprintf(command, sizeof command, "test -z \"$(find %s -name '.tmp-*')\"", fixture->artifacts);
    assert_int_equal(system(command), 0);
    struct outcome late = read_stream(open_stream(fixture, &request));
    assert_int_equal(late.status, ASSAY_UNAVAILABLE);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_call_streams_progress_and_ends_with_the_summary),
        T(a_second_call_for_the_same_artifact_waits_and_finds_it),
        T(a_request_that_is_not_whole_or_leads_elsewhere_is_refused),
        T(a_stop_ends_every_call_and_leaves_no_half_made_artifact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
