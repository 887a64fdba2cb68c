/* No chunk is lost or counted twice, and a decision costs O(log n) steps, whatever happens.
 *
 *   test_scheduler_sim [CHUNKS_MAX]   sizes from 1,000 by tens up to CHUNKS_MAX (100,000) */
#include "tests/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/sim_stack.h"

/* Steps of a decision for each doubling of the number of chunks. Measured: 0.44 at 1,000, falling to 0.30 at 10
 * million. */
#define STEPS_PER_DOUBLING_MAX 0.6

static size_t chunks_max = 100000;

static void check(const struct sim_result *r)
{
    assert_int_equal(r->missing, 0);
    assert_int_equal(r->dead, 0);
    assert_int_equal(r->regranted, 0);
    assert_int_equal(r->miscounted, 0);
    assert_int_equal(r->counted, r->chunks + r->lost);
    assert_int_equal(r->stats.chunks_done, r->counted);
    assert_int_equal(r->stats.chunks_pending, 0);
    assert_int_equal(r->stats.leases, r->stats.leases_open + r->stats.leases_completed + r->stats.leases_returned +
                                          r->stats.leases_expired + r->stats.leases_dropped + r->stats.leases_outrun +
                                          r->stats.leases_removed);
}

static void print(const struct sim_options *o, const struct sim_result *r)
{
    printf("%9zu chunks %6zu workers %s: %8llu leases (%llu copies) %6.2f steps a decision, %5.3f by log2(chunks); "
           "%6.0f s simulated; silent %llu, failed %llu, late %llu, lost leases %llu, records lost %llu\n",
           r->chunks, o->workers, o->faults ? "with faults   " : "without faults", (unsigned long long)r->stats.leases,
           (unsigned long long)r->stats.leases_copied, r->steps_per_decision,
           r->steps_per_decision / log2((double)r->chunks), r->simulated_s, (unsigned long long)r->silences,
           (unsigned long long)r->failures, (unsigned long long)r->late_answers, (unsigned long long)r->lost_answers,
           (unsigned long long)r->lost);
}

static size_t workers_for(size_t chunks)
{
    return chunks >= 10000000 ? 10000 : chunks / 1000 * 4 > 10000 ? 10000 : chunks / 1000 * 4;
}

static void nothing_is_lost_or_counted_twice_and_decisions_are_logarithmic(void **state)
{
    (void)state;
    for (int faults = 0; faults < 2; faults++) {
        for (size_t chunks = 1000; chunks <= chunks_max; chunks *= 10) {
            const struct sim_options options = {
                .workers = workers_for(chunks), .chunks = chunks, .seed = 20, .faults = faults};
            struct sim_result result;
            assert_true(sim_run(&options, &result));
            print(&options, &result);
            check(&result);
            assert_true(result.steps_per_decision <= STEPS_PER_DOUBLING_MAX * log2((double)chunks));
        }
    }
}

static void other_seeds_change_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const struct sim_options options = {.workers = 30, .chunks = 4000, .seed = seed, .faults = true};
        struct sim_result result;
        assert_true(sim_run(&options, &result));
        check(&result);
    }
}

/* Each precision has two variants, which several jobs want in turns. */
static void workers_that_hold_both_models_load_each_once(void **state)
{
    (void)state;
    uint64_t loads[2];
    for (size_t models = 1; models <= 2; models++) {
        const struct sim_options options = {.workers = 20, .chunks = 40000, .seed = 7, .models = models};
        struct sim_result result;
        assert_true(sim_run(&options, &result));
        check(&result);
        assert_true(result.steps_per_decision <= STEPS_PER_DOUBLING_MAX * log2((double)options.chunks));
        loads[models - 1] = result.loads;
    }
    printf("20 workers that hold one model: %llu loads; two: %llu\n", (unsigned long long)loads[0],
           (unsigned long long)loads[1]);
    assert_true(loads[1] <= 2 * 20);
    assert_true(loads[0] > loads[1]);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    const struct sim_options options = {.workers = 200, .chunks = 40000, .seed = 3, .faults = true};
    struct sim_result first, second;
    assert_true(sim_run(&options, &first));
    assert_true(sim_run(&options, &second));
    assert_int_equal(first.stats.steps, second.stats.steps);
    assert_int_equal(first.stats.leases, second.stats.leases);
    assert_true(first.silences > 0 && first.late_answers > 0 && first.lost_answers > 0 &&
                first.stats.leases_copied > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_counted_twice_and_decisions_are_logarithmic),
        cmocka_unit_test(other_seeds_change_nothing),
        cmocka_unit_test(workers_that_hold_both_models_load_each_once),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    if (argc > 1)
        chunks_max = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
