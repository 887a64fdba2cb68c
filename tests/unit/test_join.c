#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/evaluator/join.h"

enum { A = 1, B = 2 };

static struct assay_join *new_join(size_t chunks, size_t sources)
{
    struct assay_join *join = NULL;
    assert_int_equal(assay_join_new(chunks, sources, &join, NULL), ASSAY_OK);
    return join;
}

static void arrive(struct assay_join *join, size_t chunk, size_t source, uint32_t numerics)
{
    assert_int_equal(assay_join_arrived(join, chunk, source, numerics, NULL), ASSAY_OK);
}

static bool settle(struct assay_join *join)
{
    bool changed = false;
    assert_int_equal(assay_join_settle(join, &changed, NULL), ASSAY_OK);
    return changed;
}

static size_t score_all(struct assay_join *join)
{
    uint32_t chunks[16];
    size_t all = 0;
    for (size_t count; (count = assay_join_next(join, chunks, 3)) > 0; all += count)
        for (size_t i = 0; i < count; i++)
            assay_join_scored(join, chunks[i]);
    return all;
}

static void a_chunk_is_handed_out_once_when_all_its_records_are_there(void **state)
{
    (void)state;
    struct assay_join *join = new_join(3, 2);
    uint32_t chunks[3];
    assay_join_start(join);
    arrive(join, 1, 0, A);
    assert_int_equal(assay_join_next(join, chunks, 3), 0);
    arrive(join, 1, 0, A);
    assert_int_equal(assay_join_next(join, chunks, 3), 0);
    arrive(join, 1, 1, B);
    assert_int_equal(assay_join_next(join, chunks, 3), 1);
    assert_int_equal(chunks[0], 1);
    arrive(join, 1, 1, B);
    assert_int_equal(assay_join_next(join, chunks, 3), 0);
    assay_join_scored(join, 1);
    assert_int_equal(assay_join_scored_count(join), 1);
    assert_false(assay_join_done(join));
    assert_false(settle(join));
    for (size_t chunk = 0; chunk < 3; chunk += 2) {
        arrive(join, chunk, 1, B);
        arrive(join, chunk, 0, A);
    }
    assert_int_equal(score_all(join), 2);
    assert_true(assay_join_done(join));
    assay_join_free(join);
}

static void the_most_complete_set_in_the_store_is_chosen(void **state)
{
    (void)state;
    struct assay_join *join = new_join(4, 1);
    arrive(join, 0, 0, A);
    arrive(join, 1, 0, B);
    arrive(join, 2, 0, B);
    assert_int_equal(assay_join_numerics(join, 0), 0);
    assay_join_start(join);
    assert_int_equal(assay_join_numerics(join, 0), B);
    assert_int_equal(score_all(join), 2);
    arrive(join, 0, 0, B);
    arrive(join, 3, 0, B);
    assert_int_equal(score_all(join), 2);
    assert_true(assay_join_done(join));
    assay_join_free(join);
}

static void the_first_id_wins_when_nothing_is_stored(void **state)
{
    (void)state;
    struct assay_join *join = new_join(2, 1);
    assay_join_start(join);
    arrive(join, 0, 0, B);
    assert_int_equal(assay_join_numerics(join, 0), B);
    arrive(join, 1, 0, A);
    assert_int_equal(assay_join_numerics(join, 0), B);
    assert_int_equal(score_all(join), 1);
    assay_join_free(join);
}

static void a_lost_record_is_asked_for_once_and_the_chunk_waits_for_it(void **state)
{
    (void)state;
    struct assay_join *join = new_join(2, 2);
    struct assay_join_lost lost[4];
    uint32_t chunks[2];
    assay_join_start(join);
    for (size_t i = 0; i < 4; i++)
        arrive(join, i / 2, i % 2, A);
    assert_int_equal(assay_join_next(join, chunks, 2), 2);
    assay_join_lost(join, 1, 1);
    assay_join_lost(join, 1, 1);
    assay_join_returned(join, 1);
    assay_join_scored(join, 0);
    assert_int_equal(assay_join_next(join, chunks, 2), 0);
    assert_int_equal(assay_join_lost_count(join), 1);
    assert_int_equal(assay_join_take_lost(join, lost, 4), 1);
    assert_int_equal(lost[0].chunk, 1);
    assert_int_equal(lost[0].source, 1);
    assert_int_equal(assay_join_take_lost(join, lost, 4), 0);
    assert_false(settle(join));
    arrive(join, 1, 1, A);
    assert_int_equal(score_all(join), 1);
    assert_true(assay_join_done(join));
    assay_join_free(join);
}

static void a_record_lost_before_its_chunk_is_taken_keeps_it_back(void **state)
{
    (void)state;
    struct assay_join *join = new_join(2, 1);
    assay_join_start(join);
    arrive(join, 0, 0, A);
    arrive(join, 1, 0, A);
    assay_join_lost(join, 0, 0);
    assert_int_equal(score_all(join), 1);
    arrive(join, 0, 0, A);
    assert_int_equal(score_all(join), 1);
    assert_true(assay_join_done(join));
    assay_join_free(join);
}

static void what_waiting_chunks_lack_is_told(void **state)
{
    (void)state;
    struct assay_join *join = new_join(3, 2);
    struct assay_join_lost missing[8];
    assay_join_start(join);
    for (size_t i = 0; i < 4; i++)
        arrive(join, i / 2, i % 2, A);
    arrive(join, 2, 0, B); /* of another set than the chosen one */
    assert_int_equal(score_all(join), 2);
    assert_int_equal(assay_join_missing(join, missing, 8), 2);
    assert_int_equal(missing[0].chunk, 2);
    assert_int_equal(missing[0].source, 0);
    assert_int_equal(missing[1].source, 1);
    assert_int_equal(assay_join_missing(join, missing, 1), 1);
    assay_join_free(join);
}

static void a_whole_set_takes_the_place_of_one_that_stays_incomplete(void **state)
{
    (void)state;
    struct assay_join *join = new_join(3, 2);
    for (size_t chunk = 0; chunk < 3; chunk++)
        arrive(join, chunk, 0, A);
    arrive(join, 0, 1, A);
    assay_join_start(join);
    assert_int_equal(score_all(join), 1);
    arrive(join, 0, 1, B);
    arrive(join, 1, 1, B);
    assert_false(settle(join));
    arrive(join, 2, 1, B);
    assert_true(settle(join));
    assert_int_equal(assay_join_numerics(join, 1), B);
    assert_int_equal(assay_join_numerics(join, 0), A);
    assert_int_equal(assay_join_scored_count(join), 0);
    assert_int_equal(score_all(join), 3);
    assert_true(assay_join_done(join));
    assert_int_equal(assay_join_lost_count(join), 0);
    assay_join_free(join);
}

static void two_half_sets_end_with_the_one_that_workers_run_now(void **state)
{
    (void)state;
    struct assay_join *join = new_join(4, 1);
    struct assay_join_lost lost[4];
    arrive(join, 0, 0, A);
    arrive(join, 1, 0, A);
    arrive(join, 2, 0, A);
    assay_join_start(join);
    assert_int_equal(score_all(join), 3);
    arrive(join, 3, 0, B);
    assert_true(settle(join));
    assert_int_equal(assay_join_numerics(join, 0), B);
    assert_int_equal(assay_join_take_lost(join, lost, 4), 3);
    assert_false(settle(join)); /* not before they have been run again */
    for (size_t chunk = 0; chunk < 3; chunk++)
        arrive(join, chunk, 0, B);
    assert_int_equal(score_all(join), 4);
    assert_true(assay_join_done(join));
    assay_join_free(join);
}

static void workers_that_take_turns_for_ever_fail_the_job(void **state)
{
    (void)state;
    struct assay_join *join = new_join(2, 1);
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = ASSAY_OK;
    bool changed;
    assay_join_start(join);
    arrive(join, 0, 0, A);
    arrive(join, 1, 0, B);
    for (int round = 0; round <= ASSAY_JOIN_ROUNDS_MAX && status == ASSAY_OK; round++) {
        struct assay_join_lost lost[2];
        status = assay_join_settle(join, &changed, &err);
        size_t count = assay_join_take_lost(join, lost, 2);
        for (size_t i = 0; i < count; i++) /* the same worker as before makes it again */
            arrive(join, lost[i].chunk, 0, lost[i].chunk == 0 ? A : B);
    }
    assert_int_equal(status, ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "numerics"));
    assay_join_free(join);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chunk_is_handed_out_once_when_all_its_records_are_there),
        cmocka_unit_test(the_most_complete_set_in_the_store_is_chosen),
        cmocka_unit_test(the_first_id_wins_when_nothing_is_stored),
        cmocka_unit_test(a_lost_record_is_asked_for_once_and_the_chunk_waits_for_it),
        cmocka_unit_test(a_record_lost_before_its_chunk_is_taken_keeps_it_back),
        cmocka_unit_test(what_waiting_chunks_lack_is_told),
        cmocka_unit_test(a_whole_set_takes_the_place_of_one_that_stays_incomplete),
        cmocka_unit_test(two_half_sets_end_with_the_one_that_workers_run_now),
        cmocka_unit_test(workers_that_take_turns_for_ever_fail_the_job),
    };
    return cmocka_run_group_tests_name("join", tests, NULL, NULL);
}
