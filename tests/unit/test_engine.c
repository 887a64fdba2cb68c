#include "tests/cmocka_all.h"

#include <string.h>

#include "services/coordinator/engine.h"

static void check_spec(const char *text, const char *queue)
{
    char found[ASSAY_QUEUE_BYTES_MAX];
    struct assay_spec spec;
    assert_int_equal(assay_spec_parse(text, &spec, NULL), ASSAY_OK);
    assert_string_equal(assay_queue_of_spec(&spec, found), queue);
}

static void a_variant_that_names_an_engine_waits_apart(void **state)
{
    (void)state;
    check_spec("fp32", "fp32");
    check_spec("fp32:engine=any", "fp32");
    check_spec("fp32:engine=transformers", "fp32@transformers");
    check_spec("int4:group_size=64:engine=assay", "int4@assay");
}

static void a_workers_engine_is_the_head_of_its_numerics_id(void **state)
{
    (void)state;
    char queue[ASSAY_QUEUE_BYTES_MAX], precision[ASSAY_QUEUE_BYTES_MAX];
    assert_string_equal(assay_queue_of_worker("fp32", "transformers-5-torch-2", queue), "fp32@transformers");
    assert_string_equal(assay_queue_of_worker("int8", "assay-f32-1", queue), "int8@assay");
    assert_string_equal(assay_queue_of_worker("int8", "toy", queue), "int8@toy");
    assert_string_equal(assay_queue_of_worker("int8", "", queue), "int8@");
    assert_string_equal(assay_queue_of_worker("a-precision-of-31-characters---", "an-engine", queue), "");
    assert_true(assay_queue_is_ours("fp32", precision));
    assert_string_equal(precision, "fp32");
    assert_true(assay_queue_is_ours("fp32@assay", precision));
    assert_string_equal(precision, "fp32");
    assert_false(assay_queue_is_ours("fp32@transformers", precision));
}

static void add(struct assay_registry *registry, uint64_t id, const char *numerics)
{
    struct assay_service service = {.id = id, .kind = ASSAY_SERVICE_INFERENCE, .precision = "fp32"};
    strcpy(service.numerics, numerics);
    assert_int_equal(assay_registry_add(registry, &service, 0, NULL), ASSAY_OK);
}

static void ignore(void *arg, const struct assay_service *service)
{
    (void)arg, (void)service;
}

static void only_live_workers_of_the_engine_serve_its_queue(void **state)
{
    (void)state;
    struct assay_registry registry = {0};
    assert_false(assay_queue_has_worker(&registry, "fp32"));
    add(&registry, 1, "transformers-5-torch-2");
    assert_true(assay_queue_has_worker(&registry, "fp32"));
    assert_true(assay_queue_has_worker(&registry, "fp32@transformers"));
    assert_false(assay_queue_has_worker(&registry, "fp32@assay"));
    assert_false(assay_queue_has_worker(&registry, "int8@transformers"));
    add(&registry, 2, "assay-f32-1");
    assert_true(assay_queue_has_worker(&registry, "fp32@assay"));
    assay_registry_tick(&registry, ASSAY_SUSPECT_MS, ignore, NULL);
    assert_false(assay_queue_has_worker(&registry, "fp32"));
    assert_false(assay_queue_has_worker(&registry, "fp32@transformers"));
    assay_registry_release(&registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_variant_that_names_an_engine_waits_apart),
        cmocka_unit_test(a_workers_engine_is_the_head_of_its_numerics_id),
        cmocka_unit_test(only_live_workers_of_the_engine_serve_its_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
