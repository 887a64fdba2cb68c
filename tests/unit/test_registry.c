#include "tests/cmocka_all.h"

#include <string.h>

#include "services/coordinator/bits.h"
#include "services/coordinator/heap.h"
#include "services/coordinator/registry.h"

struct told {
    int suspect, dead;
};

static void count_told(void *arg, const struct assay_service *service)
{
    struct told *told = arg;
    told->suspect += service->health == ASSAY_HEALTH_SUSPECT;
    told->dead += service->health == ASSAY_HEALTH_DEAD;
}

static void add(struct assay_registry *registry, uint64_t id, enum assay_service_kind kind, int64_t now_ms)
{
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_service service = {.id = id, .kind = kind, .precision = "int8"};
    assert_int_equal(assay_registry_add(registry, &service, now_ms, &err), ASSAY_OK);
}

static void a_service_is_suspect_then_dead_then_gone_and_a_heartbeat_brings_it_back(void **state)
{
    (void)state;
    struct assay_registry registry = {0};
    struct told told = {0};
    add(&registry, 5, ASSAY_SERVICE_INFERENCE, 100);
    assay_registry_tick(&registry, 100 + ASSAY_SUSPECT_MS - 1, count_told, &told);
    assert_int_equal(told.suspect, 0);
    assert_int_equal(assay_registry_workers(&registry, "int8"), 1);
    assay_registry_tick(&registry, 100 + ASSAY_SUSPECT_MS, count_told, &told);
    assert_int_equal(told.suspect, 1);
    assert_int_equal(assay_registry_workers(&registry, "int8"), 0);
    assert_non_null(assay_registry_pick(&registry, ASSAY_SERVICE_INFERENCE)); /* nobody better is there */
    assay_registry_tick(&registry, 100 + ASSAY_DEAD_MS - 1, count_told, &told);
    assert_int_equal(told.dead, 0);
    assay_registry_tick(&registry, 100 + ASSAY_DEAD_MS, count_told, &told);
    assay_registry_tick(&registry, 101 + ASSAY_DEAD_MS, count_told, &told);
    assert_int_equal(told.dead, 1);
    assert_null(assay_registry_pick(&registry, ASSAY_SERVICE_INFERENCE));
    assert_true(assay_registry_seen(&registry, 5, NULL, 200 + ASSAY_DEAD_MS));
    assert_int_equal(assay_registry_workers(&registry, "int8"), 1);
    assay_registry_tick(&registry, 200 + ASSAY_DEAD_MS + ASSAY_GONE_MS, count_told, &told);
    assert_int_equal(told.dead, 2); /* it goes through all of them, however late the tick */
    assert_false(assay_registry_seen(&registry, 5, NULL, 300 + ASSAY_DEAD_MS + ASSAY_GONE_MS));
    assert_int_equal(registry.count, 0);
    assay_registry_release(&registry);
}

static void the_service_that_registered_last_is_picked_while_it_lives(void **state)
{
    (void)state;
    struct assay_registry registry = {0};
    struct told told = {0};
    add(&registry, 1, ASSAY_SERVICE_EVALUATOR, 0);
    add(&registry, 2, ASSAY_SERVICE_EVALUATOR, 10);
    add(&registry, 3, ASSAY_SERVICE_QUANTIZER, 20);
    assert_int_equal(assay_registry_pick(&registry, ASSAY_SERVICE_EVALUATOR)->id, 2);
    assert_true(assay_registry_seen(&registry, 1, NULL, ASSAY_SUSPECT_MS));
    assay_registry_tick(&registry, 10 + ASSAY_SUSPECT_MS, count_told, &told);
    assert_int_equal(assay_registry_pick(&registry, ASSAY_SERVICE_EVALUATOR)->id, 1);
    const struct assay_service *at = assay_registry_next(&registry, ASSAY_SERVICE_EVALUATOR, NULL);
    assert_int_equal(at->id, 2);
    at = assay_registry_next(&registry, ASSAY_SERVICE_EVALUATOR, at);
    assert_int_equal(at->id, 1);
    assert_null(assay_registry_next(&registry, ASSAY_SERVICE_EVALUATOR, at));
    assay_registry_release(&registry);
}

/* Ids come and go in an order that a generator with a fixed seed chooses; a plain array says what must be there. */
static void many_services_come_and_go(void **state)
{
    (void)state;
    enum { IDS = 500, ROUNDS = 20000 };
    struct assay_registry registry = {0};
    struct told told = {0};
    int64_t seen_ms[IDS];
    uint64_t random = 1;
    memset(seen_ms, 0xff, sizeof seen_ms);
    for (int64_t now_ms = 0; now_ms < ROUNDS * 10; now_ms += 10) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t i = (random >> 33) % IDS;
        if (seen_ms[i] < 0)
            add(&registry, i + 1, ASSAY_SERVICE_INFERENCE, now_ms);
        else
            assert_true(assay_registry_seen(&registry, i + 1, NULL, now_ms));
        seen_ms[i] = now_ms;
        assay_registry_tick(&registry, now_ms, count_told, &told);
        size_t alive = 0, known = 0;
        for (size_t k = 0; k < IDS; k++) {
            if (seen_ms[k] >= 0 && now_ms - seen_ms[k] >= ASSAY_GONE_MS)
                seen_ms[k] = -1;
            known += seen_ms[k] >= 0;
            alive += seen_ms[k] >= 0 && now_ms - seen_ms[k] < ASSAY_SUSPECT_MS;
        }
        assert_int_equal(registry.count, known);
        assert_int_equal(assay_registry_workers(&registry, "int8"), alive);
    }
    assert_true(told.dead > 100);
    assay_registry_release(&registry);
}

static void a_heap_gives_back_in_order(void **state)
{
    (void)state;
    enum { NODES = 300 };
    struct assay_heap_node nodes[NODES] = {0};
    uint64_t steps = 0, random = 7;
    struct assay_heap heap = {.steps = &steps};
    assert_true(assay_heap_reserve(&heap, NODES));
    for (size_t i = 0; i < NODES; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        nodes[i] = (struct assay_heap_node){.key = (int64_t)(random >> 58), .order = i};
        assay_heap_push(&heap, &nodes[i]);
    }
    for (size_t i = 0; i < NODES; i += 3) {
        nodes[i].key = 63 - nodes[i].key;
        assay_heap_moved(&heap, &nodes[i]);
    }
    for (size_t i = 1; i < NODES; i += 3)
        assay_heap_remove(&heap, &nodes[i]);
    assay_heap_remove(&heap, &nodes[1]); /* is out already */
    const struct assay_heap_node *former = NULL;
    size_t count = 0;
    for (struct assay_heap_node *node; (node = assay_heap_first(&heap)); former = node, count++) {
        assert_true(!former || former->key < node->key || (former->key == node->key && former->order < node->order));
        assay_heap_remove(&heap, node);
    }
    assert_int_equal(count, NODES - NODES / 3);
    assay_heap_release(&heap);
}

static void bits_find_the_smallest_member(void **state)
{
    (void)state;
    enum { COUNT = 300000 };
    static const size_t members[] = {COUNT - 1, 0, 63, 64, 4095, 4096, 262143, 262144};
    struct assay_bits bits;
    assert_true(assay_bits_init(&bits, COUNT));
    assert_int_equal(assay_bits_first(&bits), SIZE_MAX);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        assay_bits_add(&bits, members[i]);
    assay_bits_add(&bits, 63);
    assert_int_equal(bits.members, 8);
    static const size_t in_order[] = {0, 63, 64, 4095, 4096, 262143, 262144, COUNT - 1};
    for (size_t i = 0; i < sizeof in_order / sizeof *in_order; i++) {
        assert_int_equal(assay_bits_first(&bits), in_order[i]);
        assay_bits_remove(&bits, in_order[i]);
        assay_bits_remove(&bits, in_order[i]);
    }
    assert_int_equal(assay_bits_first(&bits), SIZE_MAX);
    assay_bits_release(&bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_service_is_suspect_then_dead_then_gone_and_a_heartbeat_brings_it_back),
        cmocka_unit_test(the_service_that_registered_last_is_picked_while_it_lives),
        cmocka_unit_test(many_services_come_and_go),
        cmocka_unit_test(a_heap_gives_back_in_order),
        cmocka_unit_test(bits_find_the_smallest_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
