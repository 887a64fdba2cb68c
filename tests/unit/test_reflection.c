/* What every server says about itself. */
#include "tests/unit/test_wire_support.h"

#include <stdlib.h>
#include <string.h>

#include "common/wire/reflection.h"
#include "proto/reflection.pb-c.h"

enum { LIST_SERVICES, FILE_DESCRIPTOR_SET };

static bool contains(const uint8_t *bytes, size_t count, const char *text)
{
    return memmem(bytes, count, text, strlen(text)) != NULL;
}

static void a_server_lists_what_it_serves(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__ReflectServicesRequest request = ASSAY__V1__REFLECT_SERVICES_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 5000};
    if (assay_call_unary(wire->client, &assay__v1__reflection__descriptor, LIST_SERVICES, &request.base, &options,
                         &reply, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const Assay__V1__ReflectServicesReply *list = assay_reply_message(reply);
    const char *wanted[] = {"assay.v1.Health", "assay.v1.Reflection", "assay.v1.Work", "assay.v1.Evaluator"};
    for (size_t i = 0; i < ASSAY_COUNT(wanted); i++) {
        bool found = false;
        for (size_t k = 0; k < list->n_names; k++)
            found |= strcmp(list->names[k], wanted[i]) == 0;
        if (!found)
            fail_msg("%s is not in the list", wanted[i]);
    }
    for (size_t k = 0; k < list->n_names; k++)
        assert_non_null(assay_service_find(list->names[k]));
    assay_reply_free(reply);
}

static void the_descriptor_set_has_every_service_that_this_build_knows(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__ReflectDescriptorsRequest request = ASSAY__V1__REFLECT_DESCRIPTORS_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 5000};
    if (assay_call_unary(wire->client, &assay__v1__reflection__descriptor, FILE_DESCRIPTOR_SET, &request.base, &options,
                         &reply, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const Assay__V1__ReflectDescriptorsReply *set = assay_reply_message(reply);
    assert_true(set->has_file_descriptor_set);
    size_t count;
    const ProtobufCServiceDescriptor *const *services = assay_services_known(&count);
    for (size_t i = 0; i < count; i++)
        assert_true(contains(set->file_descriptor_set.data, set->file_descriptor_set.len, services[i]->short_name));
    assert_true(contains(set->file_descriptor_set.data, set->file_descriptor_set.len, "jobfile.proto"));
    assay_reply_free(reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(a_server_lists_what_it_serves),
        WIRE_TEST(the_descriptor_set_has_every_service_that_this_build_knows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
