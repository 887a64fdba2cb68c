/* The worker against a coordinator and an evaluator that do as they are told. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/artifact/job.h"
#include "common/base/clock.h"
#include "common/nn/model.h"
#include "services/inference/execute.h"
#include "services/inference/serve.h"
#include "tests/unit/worker_fixture.h"

/* --- conditions to wait for --- */

static bool has_registered(const struct fakes *fakes, const void *arg)
{
    return fakes->registrations >= *(const size_t *)arg;
}

static bool counts_chunks(const struct fakes *fakes, const void *arg)
{
    return fakes->counters.chunks_run == *(const size_t *)arg;
}

static bool holds_puts(const struct fakes *fakes, const void *arg)
{
    return fakes->held_count >= *(const size_t *)arg;
}

static bool beat_tells_loaded(const struct fakes *fakes, const void *arg)
{
    return fakes->beat_loaded_count == *(const size_t *)arg;
}

/* --- records --- */

static void records_have_the_bits_of_the_forward_pass_and_chunks_complete_after_them(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease first = make_lease(1, MODEL, 0, 5), second = make_lease(1, MODEL, 5, 4);
    fakes_add_lease(fixture->fakes, &first);
    fakes_add_lease(fixture->fakes, &second);
    start_worker(fixture, "fp32", 2 * CHUNK_TOKENS, 1000);
    wait_until(fixture, completed_chunks, 9);
    wait_until(fixture, counts_chunks, 9);
    stop_worker(fixture);
    assert_records(fixture, &first);
    assert_records(fixture, &second);
    uint64_t tokens = 0, wanted = 0;
    for (size_t i = 0; i < fixture->fakes->completes_count; i++) {
        const struct fake_complete *complete = &fixture->fakes->completes[i];
        assert_true(complete->acknowledged);
        assert_string_equal(complete->failure, "");
        assert_int_equal(complete->service_id, 1);
        assert_int_equal(complete->lease_id, i < 3 ? 1 : 2);
        tokens += complete->tokens;
    }
    for (size_t i = 0; i < 9; i++)
        wanted += i < 5 ? first.chunks[i].tokens : second.chunks[i - 5].tokens;
    assert_int_equal(tokens, wanted);
    struct assay_worker_counts counts = assay_worker_counts(fixture->worker);
    assert_true(counts.chunks_run == 9 && counts.tokens_run == wanted && counts.records_sent == 9 &&
                counts.models.loads == 1 && counts.compute_us > 0);
}

static void an_int8_artifact_of_the_quantizer_runs(void **state)
{
    struct fixture *fixture = *state;
    char artifacts[ASSAY_PATH_MAX], dir[ASSAY_PATH_MAX], hex[ASSAY_DIGEST_HEX];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached;
    struct assay_quantize_job job = {
        .artifacts_dir = artifacts, .wanted_dir = dir, .model_dir = MODEL, .pool = fixture->pool};
    must(assay_path_join(artifacts, fixture->root, "artifacts", &err), &err);
    assert_int_equal(mkdir(artifacts, 0755), 0);
    must(assay_spec_parse("int8", &job.spec, &err), &err);
    must(assay_checkpoint_id(MODEL, NULL, NULL, &job.model_id, &err), &err);
    job.variant_id = assay_variant_id_of(&job.model_id, &job.spec);
    must(assay_path_join(dir, artifacts, assay_digest_hex(&job.variant_id.digest, hex), &err), &err);
    must(assay_quantize(&job, &manifest, &was_cached, &err), &err);
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_head *head = NULL;
    must(assay_checkpoint_open(dir, &checkpoint, &err), &err);
    must(assay_head_load(checkpoint, fixture->pool, &head, &err), &err);
    struct assay_digest digest = assay_head_digest(head);
    assert_true(assay_digest_equal(&digest, &manifest.head.digest));
    assay_head_free(head);
    assay_checkpoint_close(checkpoint);
    assay_manifest_release(&manifest);
    struct fake_lease lease = make_lease(3, dir, 0, 3);
    lease.scheme = "int8";
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "int8", 4096, 1000);
    wait_until(fixture, completed_chunks, 3);
    stop_worker(fixture);
    assert_records(fixture, &lease);
}

/* --- leases that end badly --- */

static void a_lost_lease_is_dropped_and_the_next_one_taken(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lost = make_lease(1, MODEL, 0, 8), next = make_lease(1, MODEL, 8, 1);
    fixture->fakes->lost_lease_id = 1;
    fakes_add_lease(fixture->fakes, &lost);
    fakes_add_lease(fixture->fakes, &next);
    start_worker(fixture, "fp32", 1, 1000);
    wait_until(fixture, completed_chunks, 2);
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->completes_count, 2);
    assert_int_equal(fixture->fakes->completes[0].lease_id, 1);
    assert_int_equal(fixture->fakes->completes[1].lease_id, 2);
    assert_int_equal(fixture->fakes->records_count, 2);
    assert_records(fixture, &next);
}

static void a_put_that_may_pass_is_tried_again(void **state)
{
    static const enum assay_status passing[] = {ASSAY_UNAVAILABLE, ASSAY_RESOURCE_EXHAUSTED, ASSAY_DEADLINE_EXCEEDED};
    struct fixture *fixture = *state;
    start_worker(fixture, "fp32", 4096, 1000);
    for (size_t i = 0; i < ASSAY_COUNT(passing); i++) {
        struct fake_lease lease = make_lease(1, MODEL, 3 * i, 3);
        pthread_mutex_lock(&fixture->fakes->lock);
        fixture->fakes->puts_to_fail = 3;
        fixture->fakes->put_failure = passing[i];
        pthread_mutex_unlock(&fixture->fakes->lock);
        fakes_add_lease(fixture->fakes, &lease);
        wait_until(fixture, completed_chunks, 3 * i + 3);
        assert_string_equal(last_complete(fixture)->failure, "");
        assert_records(fixture, &lease);
    }
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->puts, 4 * ASSAY_COUNT(passing));
}

static void a_put_that_keeps_failing_gives_the_lease_back(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 3);
    fixture->fakes->puts_to_fail = 1000;
    fixture->fakes->put_failure = ASSAY_UNAVAILABLE;
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_failure, 0);
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->puts, 4);
    assert_int_equal(fixture->fakes->completes_count, 1);
    assert_int_equal(last_complete(fixture)->count, 0);
    assert_int_equal(last_complete(fixture)->failure_status, ASSAY_UNAVAILABLE);
    assert_non_null(strstr(last_complete(fixture)->failure, "no room at the inn"));
    struct assay_worker_counts counts = assay_worker_counts(fixture->worker);
    assert_true(counts.chunks_run == 3 && counts.records_sent == 0);
}

static void a_put_is_not_tried_again_after_its_time(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 3);
    fixture->retry_ms = 0;
    fixture->fakes->puts_to_fail = 1000;
    fixture->fakes->put_failure = ASSAY_UNAVAILABLE;
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_failure, 0);
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->puts, 1);
    assert_int_equal(last_complete(fixture)->failure_status, ASSAY_UNAVAILABLE);
}

static void a_put_that_is_refused_is_not_tried_again(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 3);
    fixture->fakes->puts_to_fail = 1000;
    fixture->fakes->put_failure = ASSAY_INVALID_ARGUMENT;
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_failure, 0);
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->puts, 1);
    assert_int_equal(last_complete(fixture)->failure_status, ASSAY_INVALID_ARGUMENT);
}

/* A lease that comes back with this status and a sentence that has these words. */
static void assert_given_back(struct fixture *fixture, const struct fake_lease *lease, enum assay_status status,
                              const char *words)
{
    fakes_add_lease(fixture->fakes, lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_failure, 0);
    stop_worker(fixture);
    assert_int_equal(fixture->fakes->completes_count, 1);
    assert_int_equal(last_complete(fixture)->lease_id, 1);
    assert_int_equal(last_complete(fixture)->count, 0);
    assert_int_equal(last_complete(fixture)->failure_status, status);
    if (!strstr(last_complete(fixture)->failure, words))
        fail_msg("'%s' has no '%s'", last_complete(fixture)->failure, words);
    assert_int_equal(assay_worker_counts(fixture->worker).chunks_run, 0);
}

static void a_model_that_is_not_there_is_reported_by_name(void **state)
{
    struct fake_lease lease = make_lease(1, "/nowhere/at/all", 0, 2);
    assert_given_back(*state, &lease, ASSAY_NOT_FOUND, "/nowhere/at/all");
}

static void an_id_beyond_the_vocabulary_is_reported(void **state)
{
    static const int32_t ids[CHUNK_TOKENS] = {1, 2, 4096};
    struct fake_lease lease = make_lease(1, MODEL, 0, 1);
    lease.chunks[0].ids = ids;
    assert_given_back(*state, &lease, ASSAY_OUT_OF_RANGE, "4096");
}

static void a_lease_of_another_scheme_goes_back(void **state)
{
    struct fake_lease lease = make_lease(1, MODEL, 0, 1);
    lease.scheme = "int8";
    assert_given_back(*state, &lease, ASSAY_FAILED_PRECONDITION, "int8");
}

static void a_lease_that_contradicts_itself_goes_back(void **state)
{
    struct fake_lease lease = make_lease(1, MODEL, 0, 2);
    lease.is_broken = true;
    assert_given_back(*state, &lease, ASSAY_INTERNAL, "differ in length");
}

static void a_chunk_scored_beyond_its_end_goes_back(void **state)
{
    struct fake_lease lease = make_lease(1, MODEL, 0, 2);
    lease.chunks[1].end = lease.chunks[1].tokens + 1;
    assert_given_back(*state, &lease, ASSAY_INTERNAL, "scored in");
}

/* --- coming and going --- */

static void *release_puts(void *fakes)
{
    usleep(20000); /* most likely, the stop comes first */
    fakes_release_puts(fakes);
    return NULL;
}

static void at_most_two_batches_wait_and_a_stop_completes_them_and_gives_the_rest_back(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 8);
    fixture->fakes->hold_puts = true;
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 1, 1000);
    wait_until(fixture, holds_puts, 1);
    wait_until(fixture, counts_chunks, 3); /* one on its way, one behind it, one that waits for its place */
    usleep(100000);
    assert_int_equal(assay_worker_counts(fixture->worker).chunks_run, 3);
    pthread_t releaser;
    assert_int_equal(pthread_create(&releaser, NULL, release_puts, fixture->fakes), 0);
    stop_worker(fixture);
    pthread_join(releaser, NULL);
    size_t completed = 0;
    for (size_t i = 0; i < fixture->fakes->completes_count; i++) {
        completed += fixture->fakes->completes[i].count;
        assert_true(fixture->fakes->completes[i].acknowledged);
    }
    assert_int_equal(completed, assay_worker_counts(fixture->worker).chunks_run);
    assert_true(completed >= 3);
    assert_true(completed == 8 || last_complete(fixture)->failure_status == ASSAY_UNAVAILABLE);
}

static void a_stop_breaks_the_long_poll_off(void **state)
{
    struct fixture *fixture = *state;
    fixture->fakes->park_ms = 60000;
    start_worker(fixture, "fp32", 4096, 60000);
    wait_until(fixture, was_asked_again, 1);
    int64_t started_ms = assay_now_ms();
    stop_worker(fixture);
    assert_true(assay_now_ms() - started_ms < 2000);
}

static void a_forgotten_worker_registers_again(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 1);
    fixture->fakes->forgotten_service_id = 1;
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_registered, 2);
    wait_until(fixture, completed_chunks, 1);
    stop_worker(fixture);
    assert_int_equal(last_complete(fixture)->service_id, 2);
}

static void a_worker_that_was_first_waits_for_the_coordinator(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 1);
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    usleep(150000);
    fakes_start_coordinator(fixture->fakes);
    wait_until(fixture, completed_chunks, 1);
}

static void the_service_registers_with_its_precision_and_numerics_and_stops(void **state)
{
    struct fixture *fixture = *state;
    struct assay_inference *inference = NULL;
    struct assay_member *member = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct fake_lease lease = make_lease(1, MODEL, 0, 3);
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    const struct assay_inference_options options = {
        .coordinator = fixture->fakes->coordinator_endpoint,
        .precision = "fp32",
        .device = "cpu",
        .pool = fixture->pool,
        .batch_tokens = 4096,
    };
    fixture->is_stopped = true; /* the fixture's own worker never started */
    fakes_add_lease(fixture->fakes, &lease);
    must(assay_inference_new(fixture->loop, &options, &inference, &err), &err);
    assay_inference_describe(inference, &registration);
    must(assay_member_start(assay_link_coordinator(fixture->link), &registration, assay_inference_count, inference,
                            &member, &err),
         &err);
    must(assay_inference_start(inference, member, &err), &err);
    wait_until(fixture, completed_chunks, 3);
    wait_until(fixture, beat_tells_loaded, 1);
    assay_inference_stop(inference);
    struct assay_worker_counts counts = assay_inference_counts(inference);
    assay_member_stop(member);
    assay_inference_free(inference);
    assert_true(counts.chunks_run == 3 && counts.records_sent == 3);
    assert_true(fixture->fakes->memory_bytes > 0);
    assert_string_equal(fixture->fakes->precision, "fp32");
    assert_string_equal(fixture->fakes->numerics_id, assay_numerics_id());
    assert_records(fixture, &lease);
}

/* --- pure parts --- */

static void batches_take_what_fits_and_at_least_one_chunk(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {100, 200, 300, 5000, 1};
    assert_int_equal(assay_batch_length(tokens, 0, 1000), 0);
    assert_int_equal(assay_batch_length(tokens, 5, 1), 1);
    assert_int_equal(assay_batch_length(tokens, 5, 299), 1);
    assert_int_equal(assay_batch_length(tokens, 5, 300), 2);
    assert_int_equal(assay_batch_length(tokens, 5, 1000), 3);
    assert_int_equal(assay_batch_length(tokens + 3, 2, 1000), 1);
    assert_int_equal(assay_batch_length(tokens, 2, 1000), 2);
}

static void two_batches_of_chunks_are_asked_for(void **state)
{
    (void)state;
    assert_int_equal(assay_worker_chunks_max(4096, 512), 16);
    assert_int_equal(assay_worker_chunks_max(100, 512), 1);
    assert_int_equal(assay_worker_chunks_max(1 << 20, 1), 4096);
    assert_int_equal(assay_worker_chunks_max(4096, 0), 4096);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(records_have_the_bits_of_the_forward_pass_and_chunks_complete_after_them),
        T(an_int8_artifact_of_the_quantizer_runs),
        T(a_lost_lease_is_dropped_and_the_next_one_taken),
        T(a_put_that_may_pass_is_tried_again),
        T(a_put_that_keeps_failing_gives_the_lease_back),
        T(a_put_is_not_tried_again_after_its_time),
        T(a_put_that_is_refused_is_not_tried_again),
        T(a_model_that_is_not_there_is_reported_by_name),
        T(an_id_beyond_the_vocabulary_is_reported),
        T(a_lease_of_another_scheme_goes_back),
        T(a_lease_that_contradicts_itself_goes_back),
        T(a_chunk_scored_beyond_its_end_goes_back),
        T(at_most_two_batches_wait_and_a_stop_completes_them_and_gives_the_rest_back),
        T(a_stop_breaks_the_long_poll_off),
        T(a_forgotten_worker_registers_again),
        cmocka_unit_test_setup_teardown(a_worker_that_was_first_waits_for_the_coordinator, set_up_without_coordinator,
                                        tear_down),
        T(the_service_registers_with_its_precision_and_numerics_and_stops),
        cmocka_unit_test(batches_take_what_fits_and_at_least_one_chunk),
        cmocka_unit_test(two_batches_of_chunks_are_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
