#include "tests/cmocka_all.h"

#include <string.h>

#include "services/coordinator/scheduler.h"

enum { CHUNKS = 10 };

static struct assay_chunk_key keys[CHUNKS];
static const uint8_t have_none[CHUNKS];
static const struct assay_variant_id variant_a = {{{1}}}, variant_b = {{{2}}};

static struct assay_run_options options_of(const struct assay_variant_id *id, uint64_t job)
{
    for (size_t i = 0; i < CHUNKS; i++)
        keys[i].digest.bytes[0] = (uint8_t)i;
    return (struct assay_run_options){.precision = "int8",
                                      .variant = *id,
                                      .numerics = "",
                                      .keys = keys,
                                      .have = have_none,
                                      .count = CHUNKS,
                                      .job = job};
}

static struct assay_run *add_with(struct assay_scheduler *s, const struct assay_run_options *options)
{
    struct assay_run *run = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_scheduler_add(s, options, &run, &err), ASSAY_OK);
    return run;
}

static struct assay_run *add(struct assay_scheduler *s, const struct assay_variant_id *id, uint64_t job)
{
    struct assay_run_options options = options_of(id, job);
    return add_with(s, &options);
}

static bool lease_as(struct assay_scheduler *s, uint64_t service, const char *precision, const char *numerics,
                     const struct assay_variant_id *loaded, size_t max, int64_t now_ms, struct assay_lease *ret)
{
    const struct assay_ask ask = {.service_id = service,
                                  .precision = precision,
                                  .numerics_id = numerics,
                                  .loaded = loaded,
                                  .loaded_count = loaded != NULL,
                                  .chunks_max = max,
                                  .workers = 1};
    struct assay_err err = ASSAY_ERR_INIT;
    return assay_scheduler_lease(s, &ask, now_ms, ret, &err);
}

static bool lease(struct assay_scheduler *s, uint64_t service, size_t max, int64_t now_ms, struct assay_lease *ret)
{
    return lease_as(s, service, "int8", "n1", NULL, max, now_ms, ret);
}

/* A lease with its chunks, which stay. */
struct taken {
    uint64_t id;
    struct assay_run *run;
    size_t chunks[CHUNKS], count;
    bool is_copy;
};

static struct taken take(struct assay_scheduler *s, uint64_t service, size_t max, int64_t now_ms)
{
    struct assay_lease got;
    assert_true(lease(s, service, max, now_ms, &got));
    struct taken taken = {.id = got.id, .run = got.run, .count = got.count, .is_copy = got.is_copy};
    memcpy(taken.chunks, got.chunks, got.count * sizeof got.chunks[0]);
    return taken;
}

/* Completes chunks of a lease in 1 ms each; false when the lease is lost. */
static bool complete_at(struct assay_scheduler *s, uint64_t service, uint64_t lease_id, const size_t *chunks,
                        size_t count, int64_t now_ms, size_t *ret_newly)
{
    struct assay_chunk_key done[CHUNKS];
    struct assay_run *run;
    for (size_t i = 0; i < count; i++)
        done[i] = keys[chunks[i]];
    return assay_scheduler_complete(s, service, lease_id, done, count, 1000 * count, now_ms, &run, ret_newly);
}

static bool complete(struct assay_scheduler *s, uint64_t service, const struct taken *taken, size_t *ret_newly)
{
    return complete_at(s, service, taken->id, taken->chunks, taken->count, 0, ret_newly);
}

static struct assay_scheduler_stats stats_of(const struct assay_scheduler *s)
{
    struct assay_scheduler_stats stats;
    assay_scheduler_stats(s, &stats);
    return stats;
}

static void every_chunk_is_leased_once_and_done_once(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    size_t newly;
    bool seen[CHUNKS] = {false};
    while (assay_scheduler_has_work(s, "int8", "n1", 0)) {
        struct taken taken = take(s, 7, 3, 0);
        for (size_t i = 0; i < taken.count; i++) {
            assert_false(seen[taken.chunks[i]]);
            seen[taken.chunks[i]] = true;
        }
        assert_true(complete(s, 7, &taken, &newly));
        assert_int_equal(newly, taken.count);
        assert_false(complete(s, 7, &taken, &newly)); /* the lease is over */
    }
    struct assay_lease got;
    assert_false(lease(s, 7, 3, 0, &got));
    assert_int_equal(assay_run_done(run), CHUNKS);
    assert_int_equal(assay_run_ran(run), CHUNKS);
    assert_int_equal(stats_of(s).chunks_done, CHUNKS);
    assert_int_equal(stats_of(s).leases, stats_of(s).leases_completed);
    assay_scheduler_free(s);
}

static void a_dead_workers_chunks_go_to_another_and_its_late_answer_is_lost(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    struct taken first = take(s, 1, CHUNKS, 0);
    size_t newly;
    assert_int_equal(assay_scheduler_drop_service(s, 1), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS);
    assert_int_equal(take(s, 2, CHUNKS, 0).count, 1); /* what came back goes with fewer others */
    assert_false(complete(s, 1, &first, &newly));
    assert_int_equal(assay_run_done(run), 0);
    assay_scheduler_free(s);
}

/* A lease whose reply was lost must not wait for its deadline. */
static void leases_that_a_worker_does_not_have_go_back_uncounted(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    struct taken held = take(s, 1, 2, 0), others = take(s, 2, 2, 0);
    size_t newly;
    assert_int_equal(assay_scheduler_keep_leases(s, 3, NULL, 0), 0); /* who never had one */
    for (int i = 0; i < 2 * ASSAY_CHUNK_ATTEMPTS_MAX; i++) {
        struct taken lost = take(s, 1, CHUNKS, 0);
        const uint64_t ids[] = {held.id, others.id};
        assert_int_equal(assay_scheduler_keep_leases(s, 1, ids, 2), 1);
        assert_int_equal(assay_run_pending(run), CHUNKS - held.count - others.count);
        assert_false(complete(s, 1, &lost, &newly));
    }
    assert_null(assay_run_dead_reason(run));
    assert_true(complete(s, 1, &held, &newly));
    assert_int_equal(newly, held.count);
    assert_int_equal(assay_scheduler_keep_leases(s, 2, NULL, 0), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS - held.count);
    assay_scheduler_free(s);
}

static void a_lease_ends_at_its_deadline_not_before(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    struct assay_lease got;
    assert_true(lease(s, 1, CHUNKS, 1000, &got));
    assert_int_equal(got.lease_ms, ASSAY_LEASE_MS);
    assert_int_equal(assay_scheduler_expire(s, 1000 + ASSAY_LEASE_MS - 1), 0);
    assert_int_equal(assay_scheduler_expire(s, 1000 + ASSAY_LEASE_MS), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS);
    assay_scheduler_free(s);
}

static void progress_renews_a_lease_and_a_known_speed_shortens_it(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    struct taken taken = take(s, 1, 4, 0);
    size_t newly;
    assert_true(complete_at(s, 1, taken.id, taken.chunks, 1, 5000, &newly));
    assert_int_equal(assay_scheduler_expire(s, 5000 + ASSAY_LEASE_MIN_MS - 1), 0);
    assert_int_equal(assay_scheduler_expire(s, 5000 + ASSAY_LEASE_MIN_MS), 1);
    assert_int_equal(assay_run_done(run), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS - 1);
    assay_scheduler_free(s);
}

static void a_lease_takes_about_the_target_at_the_speed_measured(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run;
    add(s, &variant_a, 1);
    struct taken taken = take(s, 1, 1, 0);
    size_t newly;
    struct assay_chunk_key key = keys[taken.chunks[0]];
    uint64_t third_us = ASSAY_LEASE_TARGET_MS * 1000 / 3;
    assert_true(assay_scheduler_complete(s, 1, taken.id, &key, 1, third_us, 10, &run, &newly));
    assert_int_equal(take(s, 1, CHUNKS, 10).count, 3);
    assay_scheduler_free(s);
}

static void a_chunk_that_fails_too_often_is_dead_with_the_reason(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    for (int i = 0; i < ASSAY_CHUNK_ATTEMPTS_MAX; i++) {
        assert_null(assay_run_dead_reason(run));
        struct taken taken = take(s, 1, 1, 0);
        assert_int_equal(taken.chunks[0], 0);
        assert_true(assay_scheduler_return(s, 1, taken.id, true, "out of cheese"));
    }
    assert_non_null(assay_run_dead_reason(run));
    assert_non_null(strstr(assay_run_dead_reason(run), "out of cheese"));
    assert_int_equal(assay_run_pending(run), CHUNKS - 1);
    assert_int_equal(stats_of(s).chunks_dead, 1);
    assay_scheduler_free(s);
}

/* Chunk 3 takes down every worker that holds it. */
static void a_chunk_that_kills_workers_does_not_take_others_along(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    size_t newly;
    for (uint64_t worker = 1; assay_scheduler_has_work(s, "int8", "n1", 0) && worker < 100; worker++) {
        struct taken taken = take(s, worker, CHUNKS, 0);
        bool kills = false;
        for (size_t i = 0; i < taken.count; i++)
            kills |= taken.chunks[i] == 3;
        if (kills)
            assay_scheduler_drop_service(s, worker);
        else
            assert_true(complete(s, worker, &taken, &newly));
    }
    assert_int_equal(assay_run_done(run), CHUNKS - 1);
    assert_int_equal(stats_of(s).chunks_dead, 1);
    assert_non_null(assay_run_dead_reason(run));
    assay_scheduler_free(s);
}

static void a_return_that_does_not_count_never_kills(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    for (int i = 0; i < 3 * ASSAY_CHUNK_ATTEMPTS_MAX; i++) {
        struct taken taken = take(s, 1, CHUNKS, 0);
        assert_true(assay_scheduler_return(s, 1, taken.id, false, "shutting down"));
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
    struct assay_run_options options = options_of(&variant_a, 1);
    options.have = have;
    struct assay_run *run = add_with(s, &options);
    struct assay_lease got;
    assert_false(lease(s, 1, CHUNKS, 0, &got));
    assert_int_equal(assay_run_done(run), CHUNKS);
    assert_int_equal(assay_run_ran(run), 0);
    have[4] = 0;
    assay_run_reconcile(run, have);
    struct taken taken = take(s, 1, CHUNKS, 0);
    assert_int_equal(taken.count, 1);
    assert_int_equal(taken.chunks[0], 4);
    assay_scheduler_free(s);
}

static void records_that_came_another_way_are_not_run_again(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    uint8_t have[CHUNKS] = {[2] = 1};
    assay_run_reconcile(run, have);
    assert_int_equal(assay_run_done(run), 1);
    assert_int_equal(assay_run_pending(run), CHUNKS - 1);
    assert_int_equal(take(s, 1, CHUNKS, 0).count, CHUNKS - 1);
    assay_scheduler_free(s);
}

static void workers_of_other_numerics_or_precision_get_nothing(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    struct assay_run *run = add(s, &variant_a, 1);
    assert_false(lease_as(s, 1, "fp32", "n1", NULL, 1, 0, &got));
    assert_true(lease_as(s, 1, "int8", "n1", NULL, 1, 0, &got));
    assert_string_equal(assay_run_numerics(run), "n1");
    assert_false(lease_as(s, 2, "int8", "n2", NULL, 1, 0, &got));
    assert_false(assay_scheduler_has_work(s, "int8", "n2", 0));
    assert_true(assay_scheduler_has_work(s, "int8", "n1", 0));
    assay_scheduler_free(s);
}

static void the_loaded_model_is_preferred_and_the_oldest_run_otherwise(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    struct assay_run *a = add(s, &variant_a, 1), *b = add(s, &variant_b, 1);
    assert_true(lease_as(s, 1, "int8", "n1", &variant_b, 1, 0, &got));
    assert_ptr_equal(got.run, b);
    assert_true(lease_as(s, 1, "int8", "n1", NULL, 1, 0, &got));
    assert_ptr_equal(got.run, a);
    assay_scheduler_free(s);
}

static void what_is_left_is_shared_among_the_workers(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    struct assay_err err = ASSAY_ERR_INIT;
    add(s, &variant_a, 1);
    struct assay_ask ask = {
        .service_id = 1, .precision = "int8", .numerics_id = "n1", .chunks_max = CHUNKS, .workers = 2};
    assert_true(assay_scheduler_lease(s, &ask, 0, &got, &err));
    assert_int_equal(got.count, 3); /* two leases for each worker */
    ask.batch_chunks = 4;           /* but no less than a batch */
    assert_true(assay_scheduler_lease(s, &ask, 0, &got, &err));
    assert_int_equal(got.count, 4);
    assay_scheduler_free(s);
}

static void removing_a_run_ends_its_leases(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    const char *precisions[4];
    size_t newly;
    assert_int_equal(assay_scheduler_wanted(s, precisions, 4), 1);
    struct taken taken = take(s, 1, CHUNKS, 0);
    assert_true(assay_scheduler_has_lease(s, 1));
    assay_scheduler_remove(s, run);
    assert_false(assay_scheduler_has_lease(s, 1));
    assert_false(complete(s, 1, &taken, &newly));
    assert_int_equal(assay_scheduler_wanted(s, precisions, 4), 0);
    assert_int_equal(stats_of(s).chunks_on_loan, 0);
    assert_int_equal(stats_of(s).chunks_pending, 0);
    assay_scheduler_free(s);
}

/* --- jobs that share --- */

static void two_jobs_run_a_record_once_and_both_have_it(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *a = add(s, &variant_a, 1);
    struct taken first = take(s, 1, 4, 0);
    struct assay_run *b = add(s, &variant_a, 2);
    assert_int_equal(assay_run_pending(b), CHUNKS - 4); /* four are on loan: waited for */
    struct taken second = take(s, 2, CHUNKS, 0);
    assert_int_equal(second.count, CHUNKS - 4);
    size_t newly;
    assert_true(complete(s, 1, &first, &newly));
    assert_true(complete(s, 2, &second, &newly));
    assert_int_equal(assay_run_done(a), CHUNKS);
    assert_int_equal(assay_run_done(b), CHUNKS);
    assert_int_equal(assay_run_ran(a) + assay_run_ran(b), CHUNKS);
    assert_int_equal(stats_of(s).chunks_done, CHUNKS);
    assay_scheduler_free(s);
}

static void records_of_another_dtype_are_not_shared(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    add(s, &variant_a, 1);
    take(s, 1, CHUNKS, 0);
    struct assay_run_options options = options_of(&variant_a, 2);
    options.f16 = true;
    assert_int_equal(assay_run_pending(add_with(s, &options)), CHUNKS);
    assay_scheduler_free(s);
}

static void a_cancelled_jobs_leases_go_on_for_those_who_wait(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run_options half = options_of(&variant_a, 2);
    half.count = CHUNKS / 2;
    struct assay_run *a = add(s, &variant_a, 1), *b = add_with(s, &half);
    struct taken taken = take(s, 1, CHUNKS, 0);
    assert_int_equal(taken.count, CHUNKS);
    assay_scheduler_remove(s, a);
    assert_int_equal(stats_of(s).chunks_on_loan, CHUNKS / 2);
    size_t newly;
    assert_true(complete(s, 1, &taken, &newly));
    assert_int_equal(newly, CHUNKS / 2);
    assert_int_equal(assay_run_done(b), CHUNKS / 2);
    assay_scheduler_free(s);
}

static void jobs_take_turns_by_weight(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run_options options[2] = {options_of(&variant_a, 1), options_of(&variant_b, 2)};
    options[1].priority = 1;
    add_with(s, &options[0]);
    struct assay_run *preferred = add_with(s, &options[1]);
    size_t of_preferred = 0;
    for (int i = 0; i < 9; i++)
        of_preferred += take(s, 1, 1, 0).run == preferred;
    assert_int_equal(of_preferred, 6);
    assay_scheduler_free(s);
}

static void a_new_job_does_not_wait_for_an_old_one_to_end(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    add(s, &variant_a, 1);
    for (int i = 0; i < 5; i++)
        take(s, 1, 1, 0);
    struct assay_run *fresh = add(s, &variant_b, 2);
    size_t of_fresh = 0;
    for (int i = 0; i < 4; i++)
        of_fresh += take(s, 1, 1, 0).run == fresh;
    assert_int_equal(of_fresh, 2);
    assay_scheduler_free(s);
}

static void a_loaded_model_goes_first_only_so_long(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_lease got;
    struct assay_run *run, *other = add(s, &variant_b, 2);
    add(s, &variant_a, 1);
    size_t newly, turns = 0;
    uint64_t chunk_us = ASSAY_LOADED_SLACK_US / 4;
    do {
        assert_true(lease_as(s, 1, "int8", "n1", &variant_a, 1, 0, &got));
        struct assay_chunk_key key = keys[got.chunks[0]];
        run = got.run;
        assert_true(assay_scheduler_complete(s, 1, got.id, &key, 1, chunk_us, 0, &(struct assay_run *){0}, &newly));
    } while (run != other && ++turns < CHUNKS);
    assert_in_range(turns, 4, 7);
    assay_scheduler_free(s);
}

static void a_paused_run_gets_no_leases_and_goes_on(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    const char *precisions[4];
    size_t newly;
    struct assay_lease got;
    struct taken taken = take(s, 1, 2, 0);
    assay_run_set_paused(run, true);
    assert_false(lease(s, 1, 2, 0, &got));
    assert_int_equal(assay_scheduler_wanted(s, precisions, 4), 0);
    assert_true(complete(s, 1, &taken, &newly)); /* what is on loan is taken */
    assay_run_set_paused(run, false);
    assert_true(lease(s, 1, 2, 0, &got));
    assay_scheduler_free(s);
}

/* --- stragglers --- */

/* Worker 1 has the last chunks and says no more; the speed is known. */
static struct taken late_lease(struct assay_scheduler *s, int64_t now_ms)
{
    struct taken first = take(s, 1, 4, now_ms);
    size_t newly;
    assert_true(complete_at(s, 1, first.id, first.chunks, 4, now_ms, &newly));
    return take(s, 1, CHUNKS, now_ms);
}

static void a_late_lease_is_lent_again_and_the_first_answer_counts(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    struct assay_lease got;
    size_t newly;
    struct taken late = late_lease(s, 0);
    assert_false(lease(s, 2, CHUNKS, 100, &got));     /* not late yet */
    assert_false(lease(s, 1, CHUNKS, 1000000, &got)); /* not to the same worker */
    struct taken copy = take(s, 2, CHUNKS, 3000);
    assert_true(copy.is_copy);
    assert_int_equal(copy.count, late.count);
    assert_false(lease(s, 3, CHUNKS, 3000, &got)); /* two are enough */
    assert_true(complete_at(s, 1, late.id, late.chunks, 1, 3100, &newly));
    assert_int_equal(newly, 1);
    assert_true(complete_at(s, 2, copy.id, copy.chunks, copy.count, 3200, &newly));
    assert_int_equal(newly, late.count - 1);
    assert_false(complete_at(s, 1, late.id, late.chunks, late.count, 3300, &newly)); /* told that it is lost */
    assert_int_equal(assay_run_done(run), CHUNKS);
    assert_int_equal(stats_of(s).chunks_done, CHUNKS);
    assert_int_equal(stats_of(s).leases_outrun, 1);
    assay_scheduler_free(s);
}

static void a_copy_that_fails_leaves_the_chunks_with_the_other(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    size_t newly;
    struct taken late = late_lease(s, 0), copy = take(s, 2, CHUNKS, 3000);
    assert_true(assay_scheduler_return(s, 2, copy.id, true, "no"));
    assert_int_equal(assay_run_pending(run), 0);
    assert_true(take(s, 3, CHUNKS, 3000).is_copy); /* a third one helps */
    assert_true(complete_at(s, 1, late.id, late.chunks, late.count, 3300, &newly));
    assert_int_equal(newly, late.count);
    assert_int_equal(stats_of(s).leases_open, 0);
    assay_scheduler_free(s);
}

static void a_dead_stragglers_chunks_stay_with_the_copy(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *run = add(s, &variant_a, 1);
    size_t newly;
    late_lease(s, 0);
    struct taken copy = take(s, 2, CHUNKS, 3000);
    assay_scheduler_drop_service(s, 1);
    assert_int_equal(assay_run_pending(run), 0);
    assert_true(complete_at(s, 2, copy.id, copy.chunks, copy.count, 3100, &newly));
    assert_int_equal(assay_run_done(run), CHUNKS);
    assay_scheduler_free(s);
}

static void changed_runs_are_handed_out_once(void **state)
{
    (void)state;
    struct assay_scheduler *s = assay_scheduler_new();
    struct assay_run *a = add(s, &variant_a, 1), *b = add(s, &variant_a, 2);
    size_t newly, count = 0;
    struct taken taken = take(s, 1, 2, 0);
    assert_true(complete(s, 1, &taken, &newly));
    for (struct assay_run *run; (run = assay_scheduler_next_changed(s)); count++)
        assert_true(run == a || run == b);
    assert_int_equal(count, 2);
    assay_scheduler_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_chunk_is_leased_once_and_done_once),
        cmocka_unit_test(a_dead_workers_chunks_go_to_another_and_its_late_answer_is_lost),
        cmocka_unit_test(leases_that_a_worker_does_not_have_go_back_uncounted),
        cmocka_unit_test(a_lease_ends_at_its_deadline_not_before),
        cmocka_unit_test(progress_renews_a_lease_and_a_known_speed_shortens_it),
        cmocka_unit_test(a_lease_takes_about_the_target_at_the_speed_measured),
        cmocka_unit_test(a_chunk_that_fails_too_often_is_dead_with_the_reason),
        cmocka_unit_test(a_chunk_that_kills_workers_does_not_take_others_along),
        cmocka_unit_test(a_return_that_does_not_count_never_kills),
        cmocka_unit_test(cached_chunks_are_never_leased_and_lost_ones_are),
        cmocka_unit_test(records_that_came_another_way_are_not_run_again),
        cmocka_unit_test(workers_of_other_numerics_or_precision_get_nothing),
        cmocka_unit_test(the_loaded_model_is_preferred_and_the_oldest_run_otherwise),
        cmocka_unit_test(what_is_left_is_shared_among_the_workers),
        cmocka_unit_test(removing_a_run_ends_its_leases),
        cmocka_unit_test(two_jobs_run_a_record_once_and_both_have_it),
        cmocka_unit_test(records_of_another_dtype_are_not_shared),
        cmocka_unit_test(a_cancelled_jobs_leases_go_on_for_those_who_wait),
        cmocka_unit_test(jobs_take_turns_by_weight),
        cmocka_unit_test(a_new_job_does_not_wait_for_an_old_one_to_end),
        cmocka_unit_test(a_loaded_model_goes_first_only_so_long),
        cmocka_unit_test(a_paused_run_gets_no_leases_and_goes_on),
        cmocka_unit_test(a_late_lease_is_lent_again_and_the_first_answer_counts),
        cmocka_unit_test(a_copy_that_fails_leaves_the_chunks_with_the_other),
        cmocka_unit_test(a_dead_stragglers_chunks_stay_with_the_copy),
        cmocka_unit_test(changed_runs_are_handed_out_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
