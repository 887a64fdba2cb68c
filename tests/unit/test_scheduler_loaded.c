/* Models that workers have loaded or have no room for, and whose turn it is. */
#include "tests/cmocka_all.h"

#include "services/coordinator/scheduler.h"

enum { CHUNKS = 10 };

static struct assay_chunk_key keys[CHUNKS];
static const uint8_t have_none[CHUNKS];
static const struct assay_variant_id variant_a = {{{1}}}, variant_b = {{{2}}};

static struct assay_run *add(struct assay_scheduler *s, const struct assay_variant_id *id, uint64_t job)
{
    struct assay_run *run = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_run_options options = {.precision = "int8",
                                              .variant = *id,
                                              .numerics = "",
                                              .keys = keys,
                                              .have = have_none,
                                              .count = CHUNKS,
                                              .job = job};
    for (size_t i = 0; i < CHUNKS; i++)
        keys[i].digest.bytes[0] = (uint8_t)i;
    assert_int_equal(assay_scheduler_add(s, &options, &run, &err), ASSAY_OK);
    return run;
}

/* One chunk for a worker with these models. */
static struct assay_ask ask_of(const struct assay_variant_id *loaded, size_t count)
{
    return (struct assay_ask){.service_id = 1,
                              .precision = "int8",
                              .numerics_id = "n1",
                              .loaded = loaded,
                              .loaded_count = count,
                              .chunks_max = 1,
                              .workers = 1};
}

/* Two jobs whose models are both loaded take turns as if there were nothing to load. */
static void among_loaded_models_the_job_that_had_least_goes_first(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run, *a = add(s, &variant_a, 1), *b = add(s, &variant_b, 2);
    const struct assay_variant_id both[] = {variant_a, variant_b};
    const struct assay_ask ask = ask_of(both, ASSAY_COUNT(both));
    struct assay_lease got;
    struct assay_err err = ASSAY_ERR_INIT;
    size_t newly, turns[2] = {0, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_true(assay_scheduler_lease(s, &ask, 0, &got, &err));
        turns[got.run == b]++;
        assert_true(got.run == a || got.run == b);
        struct assay_chunk_key key = keys[got.chunks[0]];
        assert_true(assay_scheduler_complete(s, 1, got.id, &key, 1, 1000000, 0, &run, &newly));
    }
    assert_int_equal(turns[0], 2);
    assert_int_equal(turns[1], 2);
    assay_scheduler_free(s);
}

static bool lease(struct assay_scheduler *s, uint64_t service, int64_t now_ms, struct assay_lease *ret)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_ask ask = ask_of(NULL, 0);
    ask.service_id = service;
    ask.chunks_max = CHUNKS;
    return assay_scheduler_lease(s, &ask, now_ms, ret, &err);
}

static void a_worker_gets_nothing_of_a_model_that_does_not_fit_there(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run, *large = add(s, &variant_a, 1), *small = add(s, &variant_b, 1);
    struct assay_lease got;
    size_t newly;
    assert_true(lease(s, 1, 0, &got));
    assert_ptr_equal(got.run, large);
    assert_true(assay_scheduler_refuse(s, 1, got.id, "too large"));
    assert_false(assay_scheduler_refuse(s, 1, got.id, "too large")); /* the lease is over */
    assert_string_equal(assay_run_refusal(large, 1), "too large");
    assert_null(assay_run_refusal(large, 2));
    assert_null(assay_run_refusal(small, 1));
    while (lease(s, 1, 0, &got)) {
        assert_ptr_equal(got.run, small);
        struct assay_chunk_key keys_done[CHUNKS];
        for (size_t i = 0; i < got.count; i++)
            keys_done[i] = keys[got.chunks[i]];
        assert_true(assay_scheduler_complete(s, 1, got.id, keys_done, got.count, 1000, 0, &run, &newly));
    }
    assert_int_equal(assay_run_done(small), CHUNKS);
    assert_true(lease(s, 2, 0, &got));
    assert_ptr_equal(got.run, large);
    assert_int_equal(got.count, CHUNKS);                 /* with all others: it was not counted */
    assert_false(lease(s, 1, ASSAY_LEASE_MS - 1, &got)); /* late as it is */
    assert_int_equal(assay_scheduler_drop_service(s, 1), 0);
    assert_null(assay_run_refusal(large, 1)); /* another worker by now */
    assert_true(lease(s, 1, ASSAY_LEASE_MS - 1, &got));
    assert_true(got.is_copy);
    assay_scheduler_free(s);
}

static void the_next_variant_is_what_a_worker_with_nothing_loaded_gets(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_null(assay_scheduler_next_variant(s, "int8", "n1"));
    struct assay_run *a = add(s, &variant_a, 1);
    add(s, &variant_b, 2);
    const struct assay_variant_id *next = assay_scheduler_next_variant(s, "int8", "n1");
    assert_non_null(next);
    assert_true(assay_digest_equal(&next->digest, &variant_a.digest));
    assert_null(assay_scheduler_next_variant(s, "int4", "n1"));
    const struct assay_ask ask = ask_of(NULL, 0);
    assert_true(assay_scheduler_lease(s, &ask, 0, &got, &err));
    assert_ptr_equal(got.run, a);
    next = assay_scheduler_next_variant(s, "int8", "n1");
    assert_true(next && assay_digest_equal(&next->digest, &variant_b.digest));
    assay_scheduler_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(among_loaded_models_the_job_that_had_least_goes_first),
        cmocka_unit_test(a_worker_gets_nothing_of_a_model_that_does_not_fit_there),
        cmocka_unit_test(the_next_variant_is_what_a_worker_with_nothing_loaded_gets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
