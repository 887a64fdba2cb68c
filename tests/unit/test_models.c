/* The table of models in memory. */
#include "tests/cmocka_all.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "services/inference/models.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"

static struct assay_pool *pool;
static size_t model_bytes, head_bytes;

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

static int measure(void **state)
{
    (void)state;
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    must(assay_pool_new(2, NULL, &pool, &err), &err);
    must(assay_checkpoint_open(MODEL, &checkpoint, &err), &err);
    must(assay_model_measure(checkpoint, &model_bytes, &err), &err);
    must(assay_head_measure(checkpoint, &head_bytes, &err), &err);
    assay_checkpoint_close(checkpoint);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    assay_pool_free(pool);
    return 0;
}

static struct assay_models *table(uint64_t bytes_max, bool is_soft)
{
    const struct assay_models_options options = {.pool = pool, .bytes_max = bytes_max, .is_soft = is_soft};
    struct assay_models *models = assay_models_new(&options);
    assert_non_null(models);
    return models;
}

static struct assay_model_want want(unsigned char id)
{
    struct assay_model_want want = {.part = ASSAY_MODEL_DECODER, .dir = MODEL};
    memset(want.id.bytes, id, sizeof want.id.bytes);
    return want;
}

/* False: it had to be loaded. */
static bool get(struct assay_models *models, unsigned char id, struct assay_resident **ret)
{
    const struct assay_model_want wanted = want(id);
    struct assay_err err = ASSAY_ERR_INIT;
    bool was_there;
    must(assay_models_acquire(models, &wanted, ret, &was_there, &err), &err);
    return was_there;
}

static bool use(struct assay_models *models, unsigned char id)
{
    struct assay_resident *resident;
    bool was_there = get(models, id, &resident);
    assay_models_release(models, resident);
    return was_there;
}

static void what_is_measured_is_what_is_loaded(void **state)
{
    (void)state;
    struct assay_models *models = table(model_bytes + head_bytes, false);
    struct assay_resident *decoder, *head;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_model_want wanted = want(1);
    get(models, 1, &decoder);
    wanted.part = ASSAY_MODEL_HEAD;
    must(assay_models_acquire(models, &wanted, &head, NULL, &err), &err);
    assert_int_equal(assay_model_bytes(assay_resident_decoder(decoder)), model_bytes);
    assert_int_equal(assay_head_bytes(assay_resident_head(head)), head_bytes);
    struct assay_models_stats stats = assay_models_stats(models);
    assert_int_equal(stats.bytes, model_bytes + head_bytes);
    assert_int_equal(stats.loads, 2);
    assert_int_equal(stats.resident, 1); /* a head is a part of a model */
    assay_models_release(models, decoder);
    assay_models_release(models, head);
    assay_models_free(models);
}

static void the_one_used_longest_ago_makes_room(void **state)
{
    (void)state;
    struct assay_models *models = table(2 * model_bytes, false);
    struct assay_digest ids[4];
    assert_false(use(models, 1));
    assert_false(use(models, 2));
    assert_true(use(models, 1));
    assert_false(use(models, 3)); /* 2 goes */
    assert_int_equal(assay_models_list(models, ids, 4), 2);
    assert_int_equal(ids[0].bytes[0], 3);
    assert_int_equal(ids[1].bytes[0], 1);
    assert_int_equal(assay_models_list(models, ids, 1), 1);
    assert_true(use(models, 1));
    assert_false(use(models, 2)); /* 3 goes */
    struct assay_models_stats stats = assay_models_stats(models);
    assert_int_equal(stats.loads, 4);
    assert_int_equal(stats.unloads, 2);
    assert_int_equal(stats.bytes, 2 * model_bytes);
    assay_models_free(models);
}

static void one_that_is_held_stays_and_others_do_not_fit(void **state)
{
    (void)state;
    struct assay_models *models = table(2 * model_bytes - 1, false);
    struct assay_resident *held, *other = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    get(models, 1, &held);
    const struct assay_model_want wanted = want(2);
    assert_int_equal(assay_models_acquire(models, &wanted, &other, NULL, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, "--memory-gb"));
    assert_null(other);
    assert_true(use(models, 1));
    assay_models_release(models, held);
    assert_false(use(models, 2));
    assay_models_free(models);
}

static void one_that_never_fits_is_refused_with_its_size(void **state)
{
    (void)state;
    struct assay_models *models = table(model_bytes - 1, false);
    struct assay_resident *resident;
    struct assay_err err = ASSAY_ERR_INIT;
    char wanted_bytes[32], allowed_bytes[32];
    struct assay_model_want wanted = want(1);
    wanted.wait_ms = 60000; /* is not waited for */
    snprintf(wanted_bytes, sizeof wanted_bytes, "takes %zu bytes", model_bytes);
    snprintf(allowed_bytes, sizeof allowed_bytes, "allows %zu", model_bytes - 1);
    assert_int_equal(assay_models_acquire(models, &wanted, &resident, NULL, &err), ASSAY_RESOURCE_EXHAUSTED);
    if (!strstr(err.text, MODEL) || !strstr(err.text, wanted_bytes) || !strstr(err.text, allowed_bytes))
        fail_msg("%s", err.text);
    assert_int_equal(assay_models_stats(models).bytes, 0);
    assay_models_free(models);
}

static void a_soft_budget_is_for_idle_ones_only(void **state)
{
    (void)state;
    struct assay_models *models = table(1, true);
    struct assay_resident *first, *second;
    get(models, 1, &first);
    get(models, 2, &second);
    assert_int_equal(assay_models_stats(models).resident, 2);
    assay_models_release(models, first);
    assert_true(use(models, 1)); /* nobody wanted its room */
    assert_false(use(models, 3));
    struct assay_models_stats stats = assay_models_stats(models);
    assert_int_equal(stats.resident, 2);
    assert_int_equal(stats.unloads, 1);
    assay_models_release(models, second);
    assay_models_free(models);
}

static void a_failure_leaves_nothing(void **state)
{
    (void)state;
    struct assay_models *models = table(2 * model_bytes, false);
    struct assay_resident *resident;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_model_want wanted = want(1);
    wanted.dir = "/nowhere/at/all";
    assert_int_equal(assay_models_acquire(models, &wanted, &resident, NULL, &err), ASSAY_NOT_FOUND);
    struct assay_models_stats stats = assay_models_stats(models);
    assert_true(stats.resident == 0 && stats.bytes == 0 && stats.loads == 0);
    assert_false(use(models, 1));
    assay_models_free(models);
}

/* --- several threads --- */

struct user {
    struct assay_models *models;
    struct assay_model_want want;
    atomic_int *stage;
    enum assay_status status;
    bool was_there;
};

static void *use_one(void *arg)
{
    struct user *user = arg;
    struct assay_resident *resident;
    struct assay_err err = ASSAY_ERR_INIT;
    atomic_fetch_add(user->stage, 1);
    user->status = assay_models_acquire(user->models, &user->want, &resident, &user->was_there, &err);
    if (user->status == ASSAY_OK)
        assay_models_release(user->models, resident);
    return NULL;
}

static void all_who_want_one_at_once_load_it_once(void **state)
{
    (void)state;
    enum { USERS = 6 };
    atomic_int stage = 0;
    struct assay_models *models = table(2 * model_bytes, false);
    struct user users[USERS];
    pthread_t threads[USERS];
    size_t loaded = 0;
    for (size_t i = 0; i < USERS; i++) {
        users[i] = (struct user){.models = models, .want = want(1), .stage = &stage};
        users[i].want.wait_ms = 20000;
        assert_int_equal(pthread_create(&threads[i], NULL, use_one, &users[i]), 0);
    }
    for (size_t i = 0; i < USERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(users[i].status, ASSAY_OK);
        loaded += !users[i].was_there;
    }
    assert_int_equal(loaded, 1);
    assert_int_equal(assay_models_stats(models).loads, 1);
    assay_models_free(models);
}

static void who_waits_for_room_gets_it_with_the_release(void **state)
{
    (void)state;
    atomic_int stage = 0;
    struct assay_models *models = table(model_bytes, false);
    struct assay_resident *held;
    struct user user = {.models = models, .want = want(2), .stage = &stage};
    pthread_t thread;
    user.want.wait_ms = 20000;
    get(models, 1, &held);
    assert_int_equal(pthread_create(&thread, NULL, use_one, &user), 0);
    while (atomic_load(&stage) == 0)
        usleep(1000);
    usleep(20000);
    assert_int_equal(assay_models_stats(models).loads, 1);
    assay_models_release(models, held);
    pthread_join(thread, NULL);
    assert_int_equal(user.status, ASSAY_OK);
    assert_int_equal(assay_models_stats(models).unloads, 1);
    assay_models_free(models);
}

static bool is_cancelled(void *arg)
{
    return atomic_load((atomic_bool *)arg);
}

static void a_wait_is_cancelled(void **state)
{
    (void)state;
    atomic_int stage = 0;
    atomic_bool cancelled = false;
    struct assay_models *models = table(model_bytes, false);
    struct assay_resident *held;
    struct user user = {.models = models, .want = want(2), .stage = &stage};
    pthread_t thread;
    user.want.wait_ms = 60000;
    user.want.cancelled = is_cancelled;
    user.want.arg = &cancelled;
    get(models, 1, &held);
    int64_t started_ms = assay_now_ms();
    assert_int_equal(pthread_create(&thread, NULL, use_one, &user), 0);
    atomic_store(&cancelled, true);
    pthread_join(thread, NULL);
    assert_int_equal(user.status, ASSAY_UNAVAILABLE);
    assert_true(assay_now_ms() - started_ms < 20000);
    assay_models_release(models, held);
    assay_models_free(models);
}

struct passes {
    struct assay_models *models;
    atomic_int inside, most;
};

static void *pass_often(void *arg)
{
    struct passes *passes = arg;
    for (size_t i = 0; i < 200; i++) {
        assay_models_begin_pass(passes->models);
        int inside = atomic_fetch_add(&passes->inside, 1) + 1;
        if (inside > atomic_load(&passes->most))
            atomic_store(&passes->most, inside);
        atomic_fetch_sub(&passes->inside, 1);
        assay_models_end_pass(passes->models);
    }
    return NULL;
}

static void one_pass_runs_at_a_time(void **state)
{
    (void)state;
    struct passes passes = {.models = table(1, true)};
    pthread_t threads[3];
    for (size_t i = 0; i < ASSAY_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pass_often, &passes), 0);
    for (size_t i = 0; i < ASSAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&passes.most), 1);
    assay_models_free(passes.models);
}

/* --- ids --- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void a_checkpoint_that_changes_is_another_one(void **state)
{
    (void)state;
    char dir[] = "/tmp/assay-models-XXXXXX", path[ASSAY_PATH_MAX];
    struct assay_digest before, same, after;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_text(path, "{}");
    must(assay_models_identify(dir, &before, &err), &err);
    must(assay_models_identify(dir, &same, &err), &err);
    assert_true(assay_digest_equal(&before, &same));
    write_text(path, "{ }");
    must(assay_models_identify(dir, &after, &err), &err);
    assert_false(assay_digest_equal(&before, &after));
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
    assert_int_not_equal(assay_models_identify(dir, &after, &err), ASSAY_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_measured_is_what_is_loaded),
        cmocka_unit_test(the_one_used_longest_ago_makes_room),
        cmocka_unit_test(one_that_is_held_stays_and_others_do_not_fit),
        cmocka_unit_test(one_that_never_fits_is_refused_with_its_size),
        cmocka_unit_test(a_soft_budget_is_for_idle_ones_only),
        cmocka_unit_test(a_failure_leaves_nothing),
        cmocka_unit_test(all_who_want_one_at_once_load_it_once),
        cmocka_unit_test(who_waits_for_room_gets_it_with_the_release),
        cmocka_unit_test(a_wait_is_cancelled),
        cmocka_unit_test(one_pass_runs_at_a_time),
        cmocka_unit_test(a_checkpoint_that_changes_is_another_one),
    };
    return cmocka_run_group_tests(tests, measure, forget);
}
