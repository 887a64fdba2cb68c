/* The program assay-evaluator over its socket. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/formats/checkpoint.h"
#include "common/wire/client.h"
#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"

#define MODEL_DIR ASSAY_SHARED_DIR "/golden/models/smollm_tied"

enum { RECORDS_PUT, RECORDS_HAVE };
enum { EVALUATOR_SCORE };
enum { CACHE_STAT, CACHE_LIST, CACHE_VERIFY, CACHE_PRUNE };
enum { TOKENS = 512, BEGIN = 256, END = 511, ROWS = END - BEGIN, HIDDEN = 96, CALL_MS = 20000 };

static const char *program;

struct stack {
    char dir[64], endpoint[128];
    pid_t pid;
    struct assay_loop *loop;
    struct assay_client *client;
    float hidden[2][ROWS * HIDDEN];
    int32_t ids[TOKENS];
    struct assay_digest chunk, variants[2];
};

static void start(struct stack *stack)
{
    stack->pid = fork();
    assert_true(stack->pid >= 0);
    if (stack->pid == 0) {
        execl(program, program, "--data", stack->dir, "--listen", stack->endpoint, "--threads", "1", "--quota-gb",
              "0.1", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(assay_client_new(stack->loop, stack->endpoint, &stack->client, NULL), ASSAY_OK);
}

static int end(struct stack *stack, int signal_number)
{
    int how = 0;
    kill(stack->pid, signal_number);
    assert_int_equal(waitpid(stack->pid, &how, 0), stack->pid);
    assay_client_free(stack->client);
    stack->client = NULL;
    stack->pid = 0;
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

static int make_stack(void **state)
{
    struct stack *stack = calloc(1, sizeof *stack);
    struct assay_hash hash;
    strcpy(stack->dir, "/tmp/assay-evaluator-XXXXXX");
    if (!mkdtemp(stack->dir))
        return -1;
    snprintf(stack->endpoint, sizeof stack->endpoint, "ipc://%s/run/e.sock", stack->dir);
    for (size_t v = 0; v < 2; v++) {
        assay_hash_init(&hash, "test.variant");
        assay_hash_u64(&hash, v);
        stack->variants[v] = assay_hash_final(&hash);
        for (size_t i = 0; i < ROWS * HIDDEN; i++)
            stack->hidden[v][i] = sinf((float)(i * 7 % 1000)) * 3 + (float)v * 0.1f * cosf((float)i);
    }
    for (int i = 0; i < TOKENS; i++)
        stack->ids[i] = i % 200;
    assay_hash_init(&hash, "test.chunk");
    stack->chunk = assay_hash_final(&hash);
    assert_int_equal(assay_loop_new(&stack->loop, NULL), ASSAY_OK);
    assert_int_equal(assay_loop_start(stack->loop, NULL), ASSAY_OK);
    start(stack);
    *state = stack;
    return 0;
}

static int remove_stack(void **state)
{
    struct stack *stack = *state;
    if (stack->pid)
        end(stack, SIGKILL);
    assay_loop_stop_join(stack->loop);
    assay_loop_free(stack->loop);
    enum assay_status status = assay_remove_tree(stack->dir, NULL);
    free(stack);
    return status == ASSAY_OK ? 0 : -1;
}

/* --- calls --- */

static ProtobufCBinaryData bytes_of(const struct assay_digest *digest)
{
    return (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)digest->bytes};
}

static enum assay_status put(struct stack *stack, size_t variant, const float *hidden, uint64_t rows, size_t key_bytes,
                             struct assay_err *err)
{
    uint64_t shape[] = {rows, HIDDEN};
    Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
    tensor.has_dtype = tensor.has_attachment = true;
    tensor.dtype = ASSAY__V1__DTYPE__DTYPE_F32;
    tensor.n_shape = 2;
    tensor.shape = shape;
    Assay__V1__Record record = ASSAY__V1__RECORD__INIT, *records[] = {&record};
    record.has_chunk_key = record.has_variant_id = true;
    record.chunk_key = bytes_of(&stack->chunk);
    record.chunk_key.len = key_bytes;
    record.variant_id = bytes_of(&stack->variants[variant]);
    record.numerics_id = "test-1";
    record.hidden = &tensor;
    Assay__V1__PutRecordsRequest request = ASSAY__V1__PUT_RECORDS_REQUEST__INIT;
    request.n_records = 1;
    request.records = records;
    const struct assay_attachment attachment = {.data = hidden, .bytes = sizeof stack->hidden[0]};
    const struct assay_call_options options = {
        .deadline_ms = CALL_MS, .wait_for_ready = true, .attachments = &attachment, .attachments_count = 1};
    struct assay_reply *reply = NULL;
    enum assay_status status = assay_call_unary(stack->client, &assay__v1__records__descriptor, RECORDS_PUT,
                                                &request.base, &options, &reply, err);
    if (status == ASSAY_OK)
        assert_int_equal(((const Assay__V1__PutRecordsReply *)assay_reply_message(reply))->stored, 1);
    assay_reply_free(reply);
    return status;
}

static void put_well(struct stack *stack, size_t variant)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (put(stack, variant, stack->hidden[variant], ROWS, ASSAY_DIGEST_BYTES, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static bool have(struct stack *stack, size_t variant)
{
    ProtobufCBinaryData keys[] = {bytes_of(&stack->chunk)};
    Assay__V1__HaveRecordsRequest request = ASSAY__V1__HAVE_RECORDS_REQUEST__INIT;
    request.has_variant_id = true;
    request.variant_id = bytes_of(&stack->variants[variant]);
    request.n_chunk_keys = 1;
    request.chunk_keys = keys;
    const struct assay_call_options options = {.deadline_ms = CALL_MS, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_call_unary(stack->client, &assay__v1__records__descriptor, RECORDS_HAVE, &request.base, &options, &reply,
                         &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const Assay__V1__HaveRecordsReply *message = assay_reply_message(reply);
    assert_int_equal(message->have.len, 1);
    bool there = message->have.data[0];
    assert_string_equal(message->numerics_id, there ? "test-1" : "");
    assay_reply_free(reply);
    return there;
}

static struct assay_stream *score(struct stack *stack, const char *protocol)
{
    uint32_t tokens = TOKENS, begin = BEGIN, row_end = END;
    uint64_t shape = TOKENS;
    ProtobufCBinaryData keys[] = {bytes_of(&stack->chunk)};
    Assay__V1__Variant reference = ASSAY__V1__VARIANT__INIT, variant = ASSAY__V1__VARIANT__INIT;
    Assay__V1__Variant *variants[] = {&variant, &reference};
    reference.has_variant_id = variant.has_variant_id = true;
    reference.variant_id = bytes_of(&stack->variants[0]);
    variant.variant_id = bytes_of(&stack->variants[1]);
    reference.artifact_dir = variant.artifact_dir = MODEL_DIR;
    reference.label = "fp32";
    variant.label = "int8";
    Assay__V1__Tensor ids = ASSAY__V1__TENSOR__INIT;
    ids.has_dtype = ids.has_attachment = true;
    ids.dtype = ASSAY__V1__DTYPE__DTYPE_I32;
    ids.n_shape = 1;
    ids.shape = &shape;
    Assay__V1__ScoreRequest request = ASSAY__V1__SCORE_REQUEST__INIT;
    request.reference = &reference;
    request.n_variants = 2;
    request.variants = variants;
    request.protocol = (char *)(uintptr_t)protocol;
    request.n_chunk_keys = request.n_chunk_tokens = request.n_score_begin = request.n_score_end = 1;
    request.chunk_keys = keys;
    request.chunk_tokens = &tokens;
    request.score_begin = &begin;
    request.score_end = &row_end;
    request.ids = &ids;
    const struct assay_attachment attachment = {.data = stack->ids, .bytes = sizeof stack->ids};
    const struct assay_call_options options = {
        .deadline_ms = CALL_MS, .wait_for_ready = true, .attachments = &attachment, .attachments_count = 1};
    struct assay_stream *stream = NULL;
    assert_int_equal(assay_stream_open(stack->client, &assay__v1__evaluator__descriptor, EVALUATOR_SCORE, &request.base,
                                       &options, 4, &stream, NULL),
                     ASSAY_OK);
    return stream;
}

/* Reads to the end; *ret gets the last message with scores. */
static enum assay_status follow(struct assay_stream *stream, struct assay_reply **ret, struct assay_err *err)
{
    for (;;) {
        struct assay_reply *reply = NULL;
        enum assay_status status = assay_stream_next(stream, -1, &reply, err);
        if (status != ASSAY_OK || !reply)
            return status;
        if (((const Assay__V1__ScoreReply *)assay_reply_message(reply))->n_scores > 0)
            *ret = reply;
        else
            assay_reply_free(reply);
    }
}

static void need_model(void)
{
    const char *ci = getenv("CI");
    if (access(MODEL_DIR, F_OK) == 0)
        return;
    if (ci && strcmp(ci, "true") == 0)
        fail_msg("%s is missing", MODEL_DIR);
    skip();
}

/* --- promises --- */

static void acknowledged_records_outlive_an_end_and_a_kill(void **state)
{
    struct stack *stack = *state;
    assert_false(have(stack, 0));
    put_well(stack, 0);
    assert_true(have(stack, 0));
    assert_int_equal(end(stack, SIGKILL), 128 + SIGKILL);
    start(stack);
    assert_true(have(stack, 0));
    put_well(stack, 1);
    assert_int_equal(end(stack, SIGTERM), 0);
    start(stack);
    assert_true(have(stack, 0));
    assert_true(have(stack, 1));
}

static void a_put_that_is_wrong_is_refused_and_the_reason_told(void **state)
{
    struct stack *stack = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char hex[ASSAY_DIGEST_HEX];
    assert_int_equal(put(stack, 0, stack->hidden[0], ROWS, 31, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "chunk_key"));
    assert_int_equal(put(stack, 0, stack->hidden[0], ROWS + 1, ASSAY_DIGEST_BYTES, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "shape"));
    assert_int_equal(put(stack, 0, stack->hidden[0], UINT64_MAX / 4, ASSAY_DIGEST_BYTES, &err), ASSAY_INVALID_ARGUMENT);
    stack->hidden[0][5 * HIDDEN + 1] = NAN;
    assert_int_equal(put(stack, 0, stack->hidden[0], ROWS, ASSAY_DIGEST_BYTES, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, assay_digest_hex(&stack->chunk, hex)));
    assert_false(have(stack, 0));
}

static void a_score_waits_for_records_and_ends_with_all_figures(void **state)
{
    struct stack *stack = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *last = NULL;
    need_model();
    put_well(stack, 0);
    struct assay_stream *stream = score(stack, "llamacpp-512");
    put_well(stack, 1);
    if (follow(stream, &last, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_non_null(last);
    const Assay__V1__ScoreReply *reply = assay_reply_message(last);
    assert_int_equal(reply->n_scores, 3);
    assert_int_equal(reply->chunks_done, 1);
    assert_int_equal(reply->tokens_scored, ROWS);
    const Assay__V1__VariantScore *reference = reply->scores[0], *variant = reply->scores[1],
                                  *itself = reply->scores[2];
    assert_true(reference->perplexity->has_value && reference->perplexity->value > 1);
    assert_true(reference->perplexity->has_standard_error && reference->perplexity->standard_error > 0);
    assert_false(reference->perplexity->has_interval_low); /* of one chunk there is none */
    assert_non_null(strstr(reference->perplexity->missing, "two chunks"));
    assert_null(reference->kl_nats);
    assert_string_equal(reference->numerics_id, "test-1");
    assert_memory_equal(variant->variant_id.data, stack->variants[1].bytes, ASSAY_DIGEST_BYTES);
    assert_true(variant->kl_nats->mean > 0 && variant->kl_nats->p99 <= variant->kl_nats->max);
    assert_int_equal(variant->kl_nats->n, ROWS);
    assert_int_equal(variant->n_chunk_kl_nats, 1);
    assert_true(variant->perplexity_increase_percent->has_value && variant->same_top1_percent->has_value &&
                variant->delta_p_rms_percent->has_value && variant->mean_nll_nats->has_value);
    assert_true(itself->kl_nats->has_max && itself->kl_nats->max == 0 && itself->kl_nats->mean == 0);
    assert_true(itself->perplexity->value == reference->perplexity->value);
    assay_reply_free(last);
    assay_stream_close(stream);
}

static void a_score_under_way_ends_as_unavailable_on_sigterm(void **state)
{
    struct stack *stack = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *last = NULL, *first = NULL;
    put_well(stack, 0);
    struct assay_stream *stream = score(stack, "llamacpp-512");
    assert_int_equal(assay_stream_next(stream, CALL_MS, &first, &err), ASSAY_OK);
    assay_reply_free(first);
    kill(stack->pid, SIGTERM);
    assert_int_equal(follow(stream, &last, &err), ASSAY_UNAVAILABLE);
    assert_null(last);
    assay_stream_close(stream);
    assert_int_equal(end(stack, SIGTERM), 0);
}

static void an_unknown_protocol_is_refused(void **state)
{
    struct stack *stack = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *last = NULL;
    struct assay_stream *stream = score(stack, "made-up-7");
    assert_int_equal(follow(stream, &last, &err), ASSAY_UNIMPLEMENTED);
    assert_non_null(strstr(err.text, "llamacpp-512"));
    assay_stream_close(stream);
}

static void a_second_evaluator_on_the_same_data_is_refused(void **state)
{
    struct stack *stack = *state;
    int how = 0;
    assert_false(have(stack, 0)); /* the first one is up */
    pid_t second = fork();
    if (second == 0) {
        fclose(stderr);
        execl(program, program, "--data", stack->dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(second, &how, 0), second);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 6);
}

static struct assay_reply *cache_call(struct stack *stack, unsigned method, const ProtobufCMessage *request)
{
    const struct assay_call_options options = {.deadline_ms = CALL_MS, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_call_unary(stack->client, &assay__v1__cache__descriptor, method, request, &options, &reply, &err) !=
        ASSAY_OK)
        fail_msg("%s", err.text);
    return reply;
}

/* The last message of a stream. */
static struct assay_reply *cache_stream(struct stack *stack, unsigned method, const ProtobufCMessage *request)
{
    struct assay_stream *stream = NULL;
    struct assay_reply *last = NULL, *reply = NULL;
    assert_int_equal(
        assay_stream_open(stack->client, &assay__v1__cache__descriptor, method, request, NULL, 4, &stream, NULL),
        ASSAY_OK);
    while (assay_stream_next(stream, -1, &reply, NULL) == ASSAY_OK && reply) {
        assay_reply_free(last);
        last = reply;
    }
    assay_stream_close(stream);
    assert_non_null(last);
    return last;
}

static void the_cache_is_listed_verified_and_pruned(void **state)
{
    struct stack *stack = *state;
    Assay__V1__CacheStatRequest stat = ASSAY__V1__CACHE_STAT_REQUEST__INIT;
    Assay__V1__CacheListRequest list = ASSAY__V1__CACHE_LIST_REQUEST__INIT;
    Assay__V1__CacheVerifyRequest verify = ASSAY__V1__CACHE_VERIFY_REQUEST__INIT;
    Assay__V1__CachePruneRequest prune = ASSAY__V1__CACHE_PRUNE_REQUEST__INIT;
    put_well(stack, 0);
    put_well(stack, 1);
    struct assay_reply *reply = cache_call(stack, CACHE_STAT, &stat.base);
    const Assay__V1__CacheStatReply *stats = assay_reply_message(reply);
    assert_int_equal(stats->records, 2);
    assert_int_equal(stats->n_variants, 2);
    assert_true(stats->record_bytes >= 2 * sizeof stack->hidden[0]);
    assert_true(stats->quota_bytes == 100000000);
    assay_reply_free(reply);
    reply = cache_stream(stack, CACHE_LIST, &list.base);
    const Assay__V1__CacheListReply *page = assay_reply_message(reply);
    assert_int_equal(page->n_records, 2);
    assert_memory_equal(page->records[0]->chunk_key.data, stack->chunk.bytes, ASSAY_DIGEST_BYTES);
    assay_reply_free(reply);
    reply = cache_stream(stack, CACHE_VERIFY, &verify.base);
    const Assay__V1__CacheVerifyReply *verified = assay_reply_message(reply);
    assert_int_equal(verified->checked, 2);
    assert_int_equal(verified->damaged, 0);
    assay_reply_free(reply);
    char hex[ASSAY_DIGEST_HEX];
    prune.variant_prefix = assay_digest_hex(&stack->variants[1], hex);
    reply = cache_call(stack, CACHE_PRUNE, &prune.base);
    assert_int_equal(((const Assay__V1__CachePruneReply *)assay_reply_message(reply))->records, 1);
    assay_reply_free(reply);
    assert_true(have(stack, 0));
    assert_false(have(stack, 1));
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    program = argv[1];
    signal(SIGPIPE, SIG_IGN);
#define T(f) cmocka_unit_test_setup_teardown(f, make_stack, remove_stack)
    const struct CMUnitTest tests[] = {
        T(acknowledged_records_outlive_an_end_and_a_kill),
        T(a_put_that_is_wrong_is_refused_and_the_reason_told),
        T(a_score_waits_for_records_and_ends_with_all_figures),
        T(a_score_under_way_ends_as_unavailable_on_sigterm),
        T(an_unknown_protocol_is_refused),
        T(the_cache_is_listed_verified_and_pruned),
        T(a_second_evaluator_on_the_same_data_is_refused),
    };
#undef T
    return cmocka_run_group_tests_name("evaluator", tests, NULL, NULL);
}
