/* A worker whose memory holds several models, or too few. */
#include <string.h>

#include "tests/unit/worker_fixture.h"

/* Leases of two variants by turns, as two jobs cause them. */
static uint64_t run_by_turns(struct fixture *fixture, uint64_t bytes_max)
{
    struct fake_lease leases[6];
    assay_models_free(fixture->models);
    fixture->models = assay_models_new(&(struct assay_models_options){.pool = fixture->pool, .bytes_max = bytes_max});
    for (size_t i = 0; i < ASSAY_COUNT(leases); i++) {
        leases[i] = make_lease(1 + i % 2, MODEL, i, 1);
        fakes_add_lease(fixture->fakes, &leases[i]);
    }
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, completed_chunks, ASSAY_COUNT(leases));
    wait_until(fixture, was_asked_again, ASSAY_COUNT(leases) + 1); /* after the last one */
    stop_worker(fixture);
    for (size_t i = 0; i < ASSAY_COUNT(leases); i++)
        assert_records(fixture, &leases[i]);
    struct assay_models_stats stats = assay_worker_counts(fixture->worker).models;
    assert_int_equal(stats.loads - stats.unloads, stats.resident);
    assert_true(stats.bytes <= bytes_max);
    return stats.loads;
}

static size_t model_bytes(void)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    size_t bytes = 0;
    must(assay_checkpoint_open(MODEL, &checkpoint, &err), &err);
    must(assay_model_measure(checkpoint, &bytes, &err), &err);
    assay_checkpoint_close(checkpoint);
    return bytes;
}

static void two_jobs_by_turns_load_each_model_once(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(run_by_turns(fixture, 2 * model_bytes()), 2);
    /* The last Lease said what is loaded, the one used last first. */
    assert_int_equal(fixture->fakes->loaded_count, 2);
    assert_int_equal(fixture->fakes->loaded[0][0], 2);
    assert_int_equal(fixture->fakes->loaded[1][0], 1);
}

static void without_room_for_two_models_one_replaces_the_other(void **state)
{
    assert_int_equal(run_by_turns(*state, 2 * model_bytes() - 1), 6);
}

static void a_model_beyond_the_memory_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct fake_lease lease = make_lease(1, MODEL, 0, 2);
    assay_models_free(fixture->models);
    fixture->models =
        assay_models_new(&(struct assay_models_options){.pool = fixture->pool, .bytes_max = model_bytes() - 1});
    fakes_add_lease(fixture->fakes, &lease);
    start_worker(fixture, "fp32", 4096, 1000);
    wait_until(fixture, has_failure, 0);
    stop_worker(fixture);
    assert_int_equal(last_complete(fixture)->failure_status, ASSAY_RESOURCE_EXHAUSTED);
    assert_true(last_complete(fixture)->too_large);
    assert_non_null(strstr(last_complete(fixture)->failure, "assay-tiny"));
    assert_non_null(strstr(last_complete(fixture)->failure, "--memory-gb"));
    assert_int_equal(assay_worker_counts(fixture->worker).models.loads, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(two_jobs_by_turns_load_each_model_once),
        T(without_room_for_two_models_one_replaces_the_other),
        T(a_model_beyond_the_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
