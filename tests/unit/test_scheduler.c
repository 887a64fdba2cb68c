#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "services/coordinator/registry.h"
#include "services/coordinator/scheduler.h"

enum { CHUNKS = 10 };

static struct assay_chunk_key keys[CHUNKS];
static const uint8_t have_none[CHUNKS];
static const struct assay_variant_id variant_a = {{{1}}}, variant_b = {{{2}}};

static struct assay_run *add(struct assay_scheduler *s, const struct assay_variant_id *id, const uint8_t *have)
{
    struct assay_run *run = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    for (size_t i = 0; i < CHUNKS; i++)
        keys[i].digest.bytes[0] = (uint8_t)i;
    assert_int_equal(assay_scheduler_add(s, "int8", id, keys, have, CHUNKS, NULL, &run, &err), ASSAY_OK);
    return run;
}

static bool lease(struct assay_scheduler *s, uint64_t service, size_t max, size_t workers, int64_t now_ms,
                  struct assay_lease *ret)
{
    struct assay_err err = ASSAY_ERR_INIT;
    return assay_scheduler_lease(s, service, "int8", "n1", NULL, max, workers, now_ms, ret, &err);
}

/* Completes the first `count` chunks of a lease. */
static bool complete(struct assay_scheduler *s, uint64_t service, uint64_t lease_id, const size_t *chunks, size_t count,
                     size_t *ret_newly)
{
    struct assay_chunk_key done[CHUNKS];
    struct assay_run *run;
    for (size_t i = 0; i < count; i++)
        done[i] = keys[chunks[i]];
    return assay_scheduler_complete(s, service, lease_id, done, count, 0, &run, ret_newly);
}

static void every_chunk_is_leased_once_and_done_once(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    size_t leased = 0, newly;
    struct assay_lease got;
    bool seen[CHUNKS] = {false};
    while (lease(s, 7, 3, 1, 0, &got)) {
        size_t chunks[CHUNKS];
        memcpy(chunks, got.chunks, got.count * sizeof *chunks);
        for (size_t i = 0; i < got.count; i++) {
            assert_false(seen[chunks[i]]);
            seen[chunks[i]] = true;
        }
        leased += got.count;
        assert_true(complete(s, 7, got.id, chunks, got.count, &newly));
        assert_int_equal(newly, got.count);
        assert_false(complete(s, 7, got.id, chunks, got.count, &newly)); /* the lease is over */
    }
    assert_int_equal(leased, CHUNKS);
    assert_int_equal(assay_run_done(run), CHUNKS);
    assay_scheduler_free(s);
}

static void a_silent_workers_chunks_go_to_another_and_its_late_answer_is_lost(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    struct assay_lease first, second;
    assert_true(lease(s, 1, CHUNKS, 1, 0, &first));
    size_t chunk = first.chunks[0], newly;
    uint64_t first_id = first.id;
    assert_int_equal(assay_scheduler_drop_service(s, 1), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS);
    assert_true(lease(s, 2, CHUNKS, 1, 0, &second));
    assert_int_equal(second.count, CHUNKS);
    assert_false(complete(s, 1, first_id, &chunk, 1, &newly));
    assert_int_equal(assay_run_done(run), 0);
    assay_scheduler_free(s);
}

static void a_lease_ends_at_its_deadline_not_before(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    struct assay_lease got;
    assert_true(lease(s, 1, CHUNKS, 1, 1000, &got));
    assert_int_equal(assay_scheduler_expire(s, 1000 + ASSAY_LEASE_MS - 1), 0);
    assert_int_equal(assay_scheduler_expire(s, 1000 + ASSAY_LEASE_MS), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS);
    assay_scheduler_free(s);
}

static void a_chunk_that_fails_too_often_is_dead_with_the_reason(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    for (int i = 0; i < ASSAY_CHUNK_ATTEMPTS_MAX; i++) {
        assert_null(assay_run_dead_reason(run));
        struct assay_lease got;
        assert_true(lease(s, 1, 1, 1, 0, &got));
        assert_int_equal(got.chunks[0], 0);
        assert_true(assay_scheduler_return(s, 1, got.id, true, "out of cheese"));
    }
    assert_non_null(assay_run_dead_reason(run));
    assert_non_null(strstr(assay_run_dead_reason(run), "out of cheese"));
    assert_int_equal(assay_run_pending(run), CHUNKS - 1);
    assay_scheduler_free(s);
}

static void a_return_that_does_not_count_never_kills(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    for (int i = 0; i < 3 * ASSAY_CHUNK_ATTEMPTS_MAX; i++) {
        struct assay_lease got;
        assert_true(lease(s, 1, CHUNKS, 1, 0, &got));
        assert_true(assay_scheduler_return(s, 1, got.id, false, "shutting down"));
    }
    assert_null(assay_run_dead_reason(run));
    assert_int_equal(assay_run_pending(run), CHUNKS);
    assay_scheduler_free(s);
}

static void cached_chunks_are_never_leased_and_lost_ones_are(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    uint8_t have[CHUNKS];
    memset(have, 1, sizeof have);
    struct assay_run *run = add(s, &variant_a, have);
    struct assay_lease got;
    assert_false(lease(s, 1, CHUNKS, 1, 0, &got));
    assert_int_equal(assay_run_done(run), CHUNKS);
    have[4] = 0;
    assay_run_reconcile(run, have);
    assert_true(lease(s, 1, CHUNKS, 1, 0, &got));
    assert_int_equal(got.count, 1);
    assert_int_equal(got.chunks[0], 4);
    assay_scheduler_free(s);
}

static void workers_of_other_numerics_or_precision_get_nothing(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_lease got;
    add(s, &variant_a, have_none);
    assert_false(assay_scheduler_lease(s, 1, "fp32", "n1", NULL, 1, 1, 0, &got, &err));
    assert_true(assay_scheduler_lease(s, 1, "int8", "n1", NULL, 1, 1, 0, &got, &err));
    assert_false(assay_scheduler_lease(s, 2, "int8", "n2", NULL, 1, 1, 0, &got, &err));
    assay_scheduler_free(s);
}

static void the_loaded_model_is_preferred_and_the_oldest_run_otherwise(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_lease got;
    struct assay_run *a = add(s, &variant_a, have_none), *b = add(s, &variant_b, have_none);
    assert_true(assay_scheduler_lease(s, 1, "int8", "n1", &variant_b, 1, 1, 0, &got, &err));
    assert_ptr_equal(got.run, b);
    assert_true(assay_scheduler_lease(s, 1, "int8", "n1", NULL, 1, 1, 0, &got, &err));
    assert_ptr_equal(got.run, a);
    assay_scheduler_free(s);
}

static void what_is_left_is_shared_among_the_workers(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    add(s, &variant_a, have_none);
    assert_true(lease(s, 1, CHUNKS, 2, 0, &got));
    assert_int_equal(got.count, CHUNKS / 2);
    assay_scheduler_free(s);
}

static void removing_a_run_ends_its_leases(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, have_none);
    struct assay_lease got;
    const char *precisions[4];
    assert_int_equal(assay_scheduler_wanted(s, precisions, 4), 1);
    assert_true(lease(s, 1, CHUNKS, 1, 0, &got));
    assert_true(assay_scheduler_has_lease(s, 1));
    assay_scheduler_remove(s, run);
    assert_false(assay_scheduler_has_lease(s, 1));
    assert_int_equal(assay_scheduler_wanted(s, precisions, 4), 0);
    assay_scheduler_free(s);
}

static void count_silent(void *arg, const struct assay_service *service)
{
    (void)service;
    ++*(int *)arg;
}

static void a_service_is_silent_then_gone_and_a_heartbeat_brings_it_back(void **state)
{
    (void)state;
    struct assay_registry registry = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_service service = {.id = 5, .kind = ASSAY_SERVICE_INFERENCE, .precision = "int8"};
    int silent = 0;
    assert_int_equal(assay_registry_add(&registry, &service, 100, &err), ASSAY_OK);
    assay_registry_tick(&registry, 100 + ASSAY_SILENT_MS - 1, count_silent, &silent);
    assert_int_equal(silent, 0);
    assert_int_equal(assay_registry_workers(&registry, "int8"), 1);
    assay_registry_tick(&registry, 100 + ASSAY_SILENT_MS, count_silent, &silent);
    assay_registry_tick(&registry, 101 + ASSAY_SILENT_MS, count_silent, &silent);
    assert_int_equal(silent, 1);
    assert_int_equal(assay_registry_workers(&registry, "int8"), 0);
    assert_null(assay_registry_pick(&registry, ASSAY_SERVICE_INFERENCE));
    assert_true(assay_registry_seen(&registry, 5, NULL, 200 + ASSAY_SILENT_MS));
    assert_int_equal(assay_registry_workers(&registry, "int8"), 1);
    assay_registry_tick(&registry, 200 + ASSAY_SILENT_MS + ASSAY_GONE_MS, count_silent, &silent);
    assert_false(assay_registry_seen(&registry, 5, NULL, 0));
    assay_registry_release(&registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_chunk_is_leased_once_and_done_once),
        cmocka_unit_test(a_silent_workers_chunks_go_to_another_and_its_late_answer_is_lost),
        cmocka_unit_test(a_lease_ends_at_its_deadline_not_before),
        cmocka_unit_test(a_chunk_that_fails_too_often_is_dead_with_the_reason),
        cmocka_unit_test(a_return_that_does_not_count_never_kills),
        cmocka_unit_test(cached_chunks_are_never_leased_and_lost_ones_are),
        cmocka_unit_test(workers_of_other_numerics_or_precision_get_nothing),
        cmocka_unit_test(the_loaded_model_is_preferred_and_the_oldest_run_otherwise),
        cmocka_unit_test(what_is_left_is_shared_among_the_workers),
        cmocka_unit_test(removing_a_run_ends_its_leases),
        cmocka_unit_test(a_service_is_silent_then_gone_and_a_heartbeat_brings_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
