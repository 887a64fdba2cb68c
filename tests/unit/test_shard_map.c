/* Which evaluator owns a chunk, and who the evaluators are. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/shard_message.h"
#include "services/coordinator/shards.h"
#include "tests/cmocka_all.h"

enum { CHUNKS = 20000 };

static struct assay_shard shard_of(unsigned number)
{
    struct assay_shard shard = {.leaving = false};
    struct assay_hash hash;
    assay_hash_init(&hash, "test.shard");
    assay_hash_u64(&hash, number);
    struct assay_digest digest = assay_hash_final(&hash);
    memcpy(shard.id.bytes, digest.bytes, sizeof shard.id.bytes);
    strcpy(shard.endpoint, "ipc:///tmp/x");
    return shard;
}

static struct assay_chunk_key chunk_of(uint64_t number)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "test.chunk");
    assay_hash_u64(&hash, number);
    return (struct assay_chunk_key){assay_hash_final(&hash)};
}

static struct assay_shard_map *map_of(unsigned count)
{
    struct assay_shard_map *map = calloc(1, sizeof *map);
    for (unsigned i = 0; i < count; i++) {
        struct assay_shard shard = shard_of(i);
        assert_true(assay_shard_map_add(map, &shard));
    }
    return map;
}

static void shares_are_about_equal(void **state)
{
    (void)state;
    struct assay_shard_map *map = map_of(5);
    size_t shares[5] = {0};
    for (uint64_t i = 0; i < CHUNKS; i++) {
        struct assay_chunk_key chunk = chunk_of(i);
        shares[assay_shard_map_owner(map, &chunk)]++;
    }
    /* 4,000 each; the standard deviation of a binomial share is 57. */
    for (size_t i = 0; i < 5; i++)
        assert_in_range(shares[i], 4000 - 5 * 57, 4000 + 5 * 57);
    free(map);
}

/* One that joins takes from all; nothing else moves. One that leaves gives to all; nothing else moves. */
static void a_change_moves_only_one_share(void **state)
{
    (void)state;
    struct assay_shard_map *before = map_of(4), *after = map_of(4);
    struct assay_shard fresh = shard_of(99);
    assert_true(assay_shard_map_add(after, &fresh));
    size_t moved = 0;
    for (uint64_t i = 0; i < CHUNKS; i++) {
        struct assay_chunk_key chunk = chunk_of(i);
        const struct assay_shard *was = &before->shards[assay_shard_map_owner(before, &chunk)];
        const struct assay_shard *is = &after->shards[assay_shard_map_owner(after, &chunk)];
        if (assay_shard_id_compare(&was->id, &is->id) == 0)
            continue;
        assert_int_equal(assay_shard_id_compare(&is->id, &fresh.id), 0);
        moved++;
    }
    assert_in_range(moved, CHUNKS / 5 - 5 * 57, CHUNKS / 5 + 5 * 57);
    after->shards[assay_shard_map_find(after, &fresh.id)].leaving = true;
    for (uint64_t i = 0; i < CHUNKS; i++) {
        struct assay_chunk_key chunk = chunk_of(i);
        const struct assay_shard *was = &before->shards[assay_shard_map_owner(before, &chunk)];
        const struct assay_shard *is = &after->shards[assay_shard_map_owner(after, &chunk)];
        assert_int_equal(assay_shard_id_compare(&was->id, &is->id), 0);
    }
    free(before);
    free(after);
}

/* The formula is part of the protocol: clients in other languages have it, too. */
static void the_weight_is_the_documented_one(void **state)
{
    (void)state;
    struct assay_shard_id id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
    struct assay_digest chunk = {{255, 254, 253, 252, 251, 250, 249, 248}};
    assert_int_equal(assay_shard_weight(&id, &chunk), UINT64_C(3162191800267814215));
}

static void a_map_survives_its_message(void **state)
{
    (void)state;
    struct assay_shard_map *map = map_of(3), *read = calloc(1, sizeof *read);
    map->epoch = 17;
    map->shards[1].leaving = true;
    struct assay_shard_message *message = assay_shard_message_new(map);
    assert_int_equal(assay_shard_map_of_message(&message->message, read, NULL), ASSAY_OK);
    assert_int_equal(read->epoch, 17);
    assert_true(assay_shard_map_same(map, read));
    message->message.shards[1] = message->message.shards[0];
    assert_int_equal(assay_shard_map_of_message(&message->message, read, NULL), ASSAY_INVALID_ARGUMENT);
    message->shards[0].shard_id.len = 15;
    assert_int_equal(assay_shard_map_of_message(&message->message, read, NULL), ASSAY_INVALID_ARGUMENT);
    free(message);
    free(map);
    free(read);
}

/* --- who the evaluators are --- */

static void ignore(void *arg, const struct assay_service *service)
{
    (void)arg;
    (void)service;
}

static uint64_t add_evaluator(struct assay_registry *registry, unsigned number, const char *endpoint, int64_t now_ms)
{
    static uint64_t next_id = 1;
    struct assay_shard shard = shard_of(number);
    struct assay_service service = {.id = next_id++, .kind = ASSAY_SERVICE_EVALUATOR, .shard_id = shard.id};
    strcpy(service.endpoint, endpoint);
    assert_int_equal(assay_registry_add(registry, &service, now_ms, NULL), ASSAY_OK);
    return service.id;
}

static void evaluators_join_leave_and_fall_silent(void **state)
{
    (void)state;
    struct assay_registry registry = {.count = 0};
    struct assay_shards *shards = calloc(1, sizeof *shards);
    assay_shards_init(shards, &(struct assay_shard_map){.epoch = 0}, 0);
    assert_false(assay_shards_update(shards, &registry, 0, 1000));
    uint64_t first = add_evaluator(&registry, 1, "ipc:///a", 0), second = add_evaluator(&registry, 2, "ipc:///b", 0);
    assert_true(assay_shards_update(shards, &registry, 0, 1000));
    assert_int_equal(shards->map.epoch, 1000);
    assert_int_equal(assay_shard_map_owners(&shards->map), 2);
    assert_false(assay_shards_update(shards, &registry, 1, 5000));

    assay_registry_find(&registry, second)->leaving = true;
    assert_true(assay_shards_update(shards, &registry, 2, 0));
    assert_int_equal(shards->map.epoch, 1001);
    assert_int_equal(shards->map.count, 2);
    assert_int_equal(assay_shard_map_owners(&shards->map), 1);
    assay_registry_remove(&registry, second);
    assert_true(assay_shards_update(shards, &registry, 3, 0));
    assert_int_equal(shards->map.epoch, 1001); /* nobody owns anything else by that */

    add_evaluator(&registry, 1, "ipc:///again", 100); /* started anew: the same store elsewhere */
    assert_true(assay_shards_update(shards, &registry, 100, 0));
    assert_int_equal(shards->map.epoch, 1002);
    assert_int_equal(shards->map.count, 1);
    assert_string_equal(shards->map.shards[0].endpoint, "ipc:///again");

    assay_registry_seen(&registry, first, NULL, 100);
    assay_registry_tick(&registry, 100 + ASSAY_DEAD_MS, ignore, NULL);
    assay_registry_tick(&registry, 100 + ASSAY_DEAD_MS, ignore, NULL);
    assert_true(assay_shards_update(shards, &registry, 100 + ASSAY_DEAD_MS, 0));
    assert_int_equal(shards->map.count, 0);
    assay_registry_release(&registry);
    free(shards);
}

static void evaluators_of_before_are_expected_after_a_start(void **state)
{
    (void)state;
    struct assay_registry registry = {.count = 0};
    struct assay_shards *shards = calloc(1, sizeof *shards);
    struct assay_shard_map *before = map_of(3);
    before->epoch = 7;
    assay_shards_init(shards, before, 1000);
    assert_false(assay_shards_update(shards, &registry, 1000 + ASSAY_SHARDS_EXPECT_MS - 1, 0));
    add_evaluator(&registry, 0, "ipc:///tmp/x", 2000);
    assert_false(assay_shards_update(shards, &registry, 2000, 0));
    assert_true(assay_shards_update(shards, &registry, 1000 + ASSAY_SHARDS_EXPECT_MS, 0));
    assert_int_equal(shards->map.count, 1);
    assert_int_equal(shards->map.epoch, 8);
    assay_registry_release(&registry);
    free(before);
    free(shards);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_about_equal),
        cmocka_unit_test(a_change_moves_only_one_share),
        cmocka_unit_test(the_weight_is_the_documented_one),
        cmocka_unit_test(a_map_survives_its_message),
        cmocka_unit_test(evaluators_join_leave_and_fall_silent),
        cmocka_unit_test(evaluators_of_before_are_expected_after_a_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
