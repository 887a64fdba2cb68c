/* Messages as JSON and back. Built so that malloc, calloc and realloc of ours, and cJSON's, can be made to fail. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cmocka_all.h"

#include "common/formats/json.h"
#include "common/wire/json.h"
#include "common/wire/json_text.h"
#include "common/wire/reflection.h"
#include "proto/control.pb-c.h"
#include "proto/jobfile.pb-c.h"
#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/rpc.pb-c.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static int countdown = -1; /* allocations until the one that fails; below zero: none does */

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return fails() ? NULL : __real_realloc(old, bytes);
}

#define PATTERNS 4

static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *descriptor, unsigned pattern);

static char *copy_of(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    assert_non_null(copy);
    return strcpy(copy, text);
}

/* One value at an end of its range; which end is the pattern's. */
static void fill_value(const ProtobufCFieldDescriptor *field, unsigned pattern, void *value)
{
    static const int32_t int32s[PATTERNS] = {INT32_MIN, INT32_MAX, 0, -1};
    static const uint32_t uint32s[PATTERNS] = {0, UINT32_MAX, 1, INT32_MAX};
    static const int64_t int64s[PATTERNS] = {INT64_MIN, INT64_MAX, 0, 9007199254740993};
    static const uint64_t uint64s[PATTERNS] = {0, UINT64_MAX, 9007199254740993u, 1};
    static const double doubles[PATTERNS] = {-0.0, DBL_MAX, DBL_TRUE_MIN, 0.1 + 0.2};
    static const double specials[PATTERNS] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 1.0 / 3};
    static const float floats[PATTERNS] = {-0.0f, FLT_MAX, FLT_TRUE_MIN, 0.1f};
    static const char *const texts[PATTERNS] = {"", "\"\\/\b\f\n\r\t\x01\x7f", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x8e\xb2",
                                                "null"};
    static const uint8_t bytes[] = {0xff, 0x00, 0xfb, 0xef, 0x80, 0x3f};
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        *(int32_t *)value = int32s[pattern];
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        *(uint32_t *)value = uint32s[pattern];
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        *(int64_t *)value = int64s[pattern];
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        *(uint64_t *)value = uint64s[pattern];
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)value = floats[pattern];
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)value = field->id % 2 ? doubles[pattern] : specials[pattern];
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)value = pattern % 2;
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumDescriptor *descriptor = field->descriptor;
        *(int32_t *)value = pattern < PATTERNS - 1 ? descriptor->values[pattern % descriptor->n_values].value : 12345;
        break;
    }
    case PROTOBUF_C_TYPE_STRING:
        *(char **)value = copy_of(texts[pattern]);
        break;
    case PROTOBUF_C_TYPE_BYTES: {
        ProtobufCBinaryData data = {.len = pattern + (pattern == 3 ? 3 : 0), .data = malloc(sizeof bytes)};
        assert_non_null(data.data);
        memcpy(data.data, bytes, sizeof bytes);
        *(ProtobufCBinaryData *)value = data;
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)value = filled(field->descriptor, pattern);
        break;
    }
}

static void fill_field(const ProtobufCFieldDescriptor *field, unsigned pattern, ProtobufCMessage *message)
{
    char *base = (char *)message, *member = base + field->offset;
    void *quantifier = base + field->quantifier_offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t size = assay_field_value_bytes(field->type);
        char *values = calloc(PATTERNS, size);
        assert_non_null(values);
        *(char **)(void *)member = values;
        *(size_t *)quantifier = PATTERNS;
        for (unsigned i = 0; i < PATTERNS; i++)
            fill_value(field, (pattern + i) % PATTERNS, values + i * size);
        return;
    }
    fill_value(field, pattern, member);
    if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
        *(protobuf_c_boolean *)quantifier = 1;
}

/* A message with every field set. */
static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *descriptor, unsigned pattern)
{
    ProtobufCMessage *message = calloc(1, descriptor->sizeof_message);
    assert_non_null(message);
    protobuf_c_message_init(descriptor, message);
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        fill_field(&descriptor->fields[i], (pattern + i) % PATTERNS, message);
    return message;
}

static char *printed(const ProtobufCMessage *message)
{
    struct assay_err err = ASSAY_ERR_INIT;
    cJSON *json = NULL;
    if (assay_message_to_json(message, &json, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    char *text = cJSON_PrintUnformatted(json);
    assert_non_null(text);
    cJSON_Delete(json);
    return text;
}

static enum assay_status read_text(const ProtobufCMessageDescriptor *descriptor, const char *text,
                                   ProtobufCMessage **ret, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_json_parse(text, strlen(text), "text", &json, err);
    return status == ASSAY_OK ? assay_message_from_json(descriptor, json, ret, NULL, err) : status;
}

static void assert_survives(const ProtobufCMessage *message)
{
    struct assay_err err = ASSAY_ERR_INIT;
    char *text = printed(message);
    ProtobufCMessage *again = NULL;
    if (read_text(message->descriptor, text, &again, &err) != ASSAY_OK)
        fail_msg("%s: %s in %s", message->descriptor->name, err.text, text);
    size_t bytes = protobuf_c_message_get_packed_size(message);
    assert_int_equal(protobuf_c_message_get_packed_size(again), bytes);
    uint8_t *before = malloc(bytes + 1), *after = malloc(bytes + 1);
    assert_non_null(before);
    assert_non_null(after);
    protobuf_c_message_pack(message, before);
    protobuf_c_message_pack(again, after);
    assert_memory_equal(before, after, bytes);
    free(before);
    free(after);
    free(text);
    protobuf_c_message_free_unpacked(again, NULL);
}

static size_t visited;

static void visit(const ProtobufCMessageDescriptor *descriptor)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (descriptor->fields[i].label != PROTOBUF_C_LABEL_OPTIONAL &&
            descriptor->fields[i].label != PROTOBUF_C_LABEL_REPEATED)
            fail_msg("%s.%s is neither optional nor repeated", descriptor->name, descriptor->fields[i].name);
    for (unsigned pattern = 0; pattern < PATTERNS; pattern++) {
        ProtobufCMessage *message = filled(descriptor, pattern);
        assert_survives(message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    ProtobufCMessage *empty = calloc(1, descriptor->sizeof_message);
    assert_non_null(empty);
    protobuf_c_message_init(descriptor, empty);
    assert_survives(empty);
    protobuf_c_message_free_unpacked(empty, NULL);
    visited++;
}

static void every_message_survives_the_way_through_json_with_extreme_values(void **state)
{
    (void)state;
    size_t count;
    const ProtobufCServiceDescriptor *const *services = assay_services_known(&count);
    visited = 0;
    for (size_t i = 0; i < count; i++) {
        for (unsigned method = 0; method < services[i]->n_methods; method++) {
            visit(services[i]->methods[method].input);
            visit(services[i]->methods[method].output);
        }
    }
    visit(&assay__v1__header__descriptor);
    visit(&assay__v1__job_file__descriptor);
    assert_true(visited >= 30);
}

static void the_spellings_are_those_of_the_mapping(void **state)
{
    (void)state;
    Assay__V1__ScoreReply reply = ASSAY__V1__SCORE_REPLY__INIT;
    Assay__V1__VariantScore score = ASSAY__V1__VARIANT_SCORE__INIT, *scores[] = {&score};
    Assay__V1__Estimate estimate = ASSAY__V1__ESTIMATE__INIT;
    uint8_t id[] = {0xfb, 0xff};
    double means[] = {-0.0, 0.1, 1e300};
    reply.has_chunks_done = reply.has_compute_us = true;
    reply.chunks_done = 0;
    reply.compute_us = UINT64_MAX;
    reply.scores = scores;
    reply.n_scores = 1;
    score.has_variant_id = true;
    score.variant_id = (ProtobufCBinaryData){sizeof id, id};
    score.chunk_kl_nats = means;
    score.n_chunk_kl_nats = 3;
    score.delta_p_rms_percent = &estimate;
    estimate.has_value = estimate.has_standard_error = true;
    estimate.value = (double)NAN;
    estimate.standard_error = -(double)INFINITY;
    char *text = printed(&reply.base);
    assert_string_equal(text,
                        "{\"chunksDone\":\"0\",\"scores\":[{\"variantId\":\"+/8=\",\"deltaPRmsPercent\":{\"value\":"
                        "\"NaN\",\"standardError\":\"-Infinity\"},\"chunkKlNats\":[-0.0,0.1,1e+300]}],"
                        "\"computeUs\":\"18446744073709551615\"}");
    free(text);
}

static void both_names_both_alphabets_and_both_kinds_of_integers_are_read(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    ProtobufCMessage *message = NULL;
    static const char text[] =
        "{\"job_id\": \"-_8\", \"modelId\": \"+/8=\", \"submitted_wall_ms\": 5, \"startedWallMs\": "
        "\"18446744073709551615\","
        "\"chunks\": 9007199254740992, \"state\": 3, \"verdict\": \"VERDICT_FAIL\", \"failure\": null, \"results\": "
        "[{}],"
        "\"request\": {\"thresholds\": {\"kl_mean_nats\": \"0.5\", \"perplexityIncreasePercent\": 8}}}";
    if (read_text(&assay__v1__job__descriptor, text, &message, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const Assay__V1__Job *job = (const Assay__V1__Job *)(const void *)message;
    assert_int_equal(job->job_id.len, 2);
    assert_int_equal(job->model_id.len, 2);
    assert_memory_equal(job->job_id.data, job->model_id.data, 2);
    assert_true(job->submitted_wall_ms == 5 && job->started_wall_ms == UINT64_MAX && job->chunks == 1ull << 53);
    assert_int_equal(job->state, ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED);
    assert_int_equal(job->verdict, ASSAY__V1__VERDICT__VERDICT_FAIL);
    assert_null(job->failure);
    assert_int_equal(job->n_results, 1);
    assert_true(job->request->thresholds->kl_mean_nats == 0.5);
    assert_true(job->request->thresholds->perplexity_increase_percent == 8);
    protobuf_c_message_free_unpacked(message, NULL);
}

static const struct refusal {
    const char *text, *sentence;
} refusals[] = {
    {"[]", "SubmitJobRequest: found an array, wanted an object"},
    {"{\"variants\": [{}, {\"schem\": 1}]}", "field \"variants[1].schem\": VariantSpec has no such field"},
    {"{\"variants\": [{}, {\"scheme\": 8}]}", "field \"variants[1].scheme\": found 8, wanted a string"},
    {"{\"variants\": [null]}", "field \"variants[0]\": found null, wanted an object"},
    {"{\"variants\": {}}", "field \"variants\": found an object, wanted an array"},
    {"{\"model_dir\": \"a\", \"modelDir\": \"b\"}", "field \"modelDir\": stands twice, or beside another of its oneof"},
    {"{\"variants\": [{}], \"Variants\": []}", "field \"Variants\": SubmitJobRequest has no such field"},
    {"{\"chunksMax\": -1}", "field \"chunksMax\": found -1, wanted a whole number from 0 to 18446744073709551615"},
    {"{\"chunksMax\": 1.5}", "field \"chunksMax\": found 1.5, wanted a whole number from 0 to 18446744073709551615"},
    {"{\"chunksMax\": 9007199254740994}",
     "field \"chunksMax\": found 9007199254740994, wanted a string: a number beyond 2^53 is not exact"},
    {"{\"chunksMax\": \"18446744073709551616\"}",
     "field \"chunksMax\": found \"18446744073709551616\", wanted a whole number from 0 to 18446744073709551615"},
    {"{\"chunksMax\": \"007\"}",
     "field \"chunksMax\": found \"007\", wanted a whole number from 0 to 18446744073709551615"},
    {"{\"corpus\": {\"attachment\": 4294967296}}",
     "field \"corpus.attachment\": found 4294967296, wanted a whole number from 0 to 4294967295"},
    {"{\"corpus\": {\"attachment\": 1e999}}",
     "field \"corpus.attachment\": found inf, wanted a whole number from 0 to 4294967295"},
    {"{\"corpus\": {\"dtype\": \"F32\"}}", "field \"corpus.dtype\": found \"F32\", wanted one of DTYPE_UNSPECIFIED, "
                                           "DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I32, DTYPE_I8, DTYPE_U8"},
    {"{\"corpus\": {\"shape\": [1, true]}}",
     "field \"corpus.shape[1]\": found true, wanted a whole number from 0 to 18446744073709551615"},
    {"{\"thresholds\": {\"klMeanNats\": \"\"}}",
     "field \"thresholds.klMeanNats\": found \"\", wanted a number, or \"NaN\", \"Infinity\", \"-Infinity\""},
    {"{\"thresholds\": {\"klMeanNats\": \"0x1\"}}",
     "field \"thresholds.klMeanNats\": found \"0x1\", wanted a number, or \"NaN\", \"Infinity\", \"-Infinity\""},
    {"{\"thresholds\": {\"klMeanNats\": 1e999}}",
     "field \"thresholds.klMeanNats\": found a number beyond the range, wanted at most 1.79769e+308"},
};

static void what_is_wrong_is_refused_with_its_path_and_what_was_wanted(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(refusals); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        ProtobufCMessage *message = NULL;
        assert_int_equal(read_text(&assay__v1__submit_job_request__descriptor, refusals[i].text, &message, &err),
                         ASSAY_INVALID_ARGUMENT);
        assert_string_equal(err.text, refusals[i].sentence);
        assert_null(message);
    }
}

static void the_value_at_fault_is_told(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    ProtobufCMessage *message = NULL;
    const cJSON *fault = NULL;
    cJSON *json = cJSON_Parse("{\"name\": \"x\", \"variants\": [{\"compute\": 7}]}");
    assert_non_null(json);
    assert_int_equal(assay_message_from_json(&assay__v1__submit_job_request__descriptor, json, &message, &fault, &err),
                     ASSAY_INVALID_ARGUMENT);
    assert_ptr_equal(fault, json->child->next->child->child);
    cJSON_Delete(json);
}

static void base64_of_a_wrong_length_or_letter_or_with_spare_bits_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"A", "AAAAA", "A===", "AA=A", "====", "AB", "AAB", "AA A", "AA==A", "\xc3\xbc"};
    static const char *const good[] = {"", "AA", "AA==", "AAA=", "AAAA", "__-_"};
    uint8_t data[16];
    size_t bytes;
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++)
        if (assay_base64_read(bad[i], data, &bytes))
            fail_msg("\"%s\" was taken for base64", bad[i]);
    for (size_t i = 0; i < ASSAY_COUNT(good); i++)
        if (!assay_base64_read(good[i], data, &bytes))
            fail_msg("\"%s\" was not taken for base64", good[i]);
}

static void text_that_is_not_utf8_is_refused_both_ways(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__VariantSpec spec = ASSAY__V1__VARIANT_SPEC__INIT;
    char bad[] = "\xff";
    cJSON *json = NULL;
    ProtobufCMessage *message = NULL;
    spec.scheme = bad;
    assert_int_equal(assay_message_to_json(&spec.base, &json, &err), ASSAY_INVALID_ARGUMENT);
    assert_string_equal(err.text, "VariantSpec: field \"scheme\": the text is not UTF-8");
    json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "scheme", bad);
    assert_int_equal(assay_message_from_json(spec.base.descriptor, json, &message, NULL, &err), ASSAY_INVALID_ARGUMENT);
    assert_string_equal(err.text, "field \"scheme\": the text is not UTF-8");
    cJSON_Delete(json);
}

static void a_failed_allocation_is_a_status_and_leaks_nothing(void **state)
{
    (void)state;
    cJSON_Hooks hooks = {.malloc_fn = malloc, .free_fn = free};
    cJSON_InitHooks(&hooks);
    ProtobufCMessage *message = filled(&assay__v1__submit_job_request__descriptor, 1);
    enum assay_status status = ASSAY_RESOURCE_EXHAUSTED;
    int n = 0;
    for (; status != ASSAY_OK; n++) {
        cJSON *json = NULL;
        countdown = n;
        status = assay_message_to_json(message, &json, NULL);
        countdown = -1;
        assert_true(status == ASSAY_OK || status == ASSAY_RESOURCE_EXHAUSTED);
        cJSON_Delete(json);
    }
    assert_true(n > 20);
    cJSON *json = NULL;
    char *text = printed(message);
    json = cJSON_Parse(text);
    status = ASSAY_RESOURCE_EXHAUSTED;
    for (n = 0; status != ASSAY_OK; n++) {
        ProtobufCMessage *again = NULL;
        countdown = n;
        status = assay_message_from_json(message->descriptor, json, &again, NULL, NULL);
        countdown = -1;
        assert_true(status == ASSAY_OK || status == ASSAY_RESOURCE_EXHAUSTED);
        if (again)
            protobuf_c_message_free_unpacked(again, NULL);
    }
    assert_true(n > 20);
    cJSON_Delete(json);
    free(text);
    protobuf_c_message_free_unpacked(message, NULL);
    cJSON_InitHooks(NULL);
}

static void services_and_messages_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(assay_service_find("assay.v1.Coordinator"), &assay__v1__coordinator__descriptor);
    assert_null(assay_service_find("assay.v1.Nobody"));
    assert_ptr_equal(assay_message_find("assay.v1.Parameter"), &assay__v1__parameter__descriptor);
    assert_ptr_equal(assay_message_find("assay.v1.Record"), &assay__v1__record__descriptor);
    assert_null(assay_message_find("assay.v1.Nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_survives_the_way_through_json_with_extreme_values),
        cmocka_unit_test(the_spellings_are_those_of_the_mapping),
        cmocka_unit_test(both_names_both_alphabets_and_both_kinds_of_integers_are_read),
        cmocka_unit_test(what_is_wrong_is_refused_with_its_path_and_what_was_wanted),
        cmocka_unit_test(the_value_at_fault_is_told),
        cmocka_unit_test(base64_of_a_wrong_length_or_letter_or_with_spare_bits_is_refused),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_both_ways),
        cmocka_unit_test(a_failed_allocation_is_a_status_and_leaks_nothing),
        cmocka_unit_test(services_and_messages_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
