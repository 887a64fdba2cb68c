#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/formats/checkpoint.h"
#include "tests/cmocka_all.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/assay-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return assay_remove_tree(dir, NULL) == ASSAY_OK ? 0 : -1;
}

static void put(const char *name, const char *text)
{
    char path[ASSAY_PATH_MAX];
    assert_int_equal(assay_path_join(path, dir, name, NULL), ASSAY_OK);
    assert_int_equal(assay_file_write(path, text, strlen(text), NULL), ASSAY_OK);
}

/* A shard with I8 scalars by these names; the value is the name's first byte. */
static void put_shard(const char *file, const char *const *names, size_t count)
{
    char path[ASSAY_PATH_MAX];
    struct assay_tensor tensors[4] = {0};
    for (size_t i = 0; i < count; i++)
        tensors[i] = (struct assay_tensor){.name = names[i], .dtype = ASSAY_I8};
    struct assay_safetensors_writer *writer = NULL;
    assert_int_equal(assay_path_join(path, dir, file, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_create(path, tensors, count, &writer, NULL), ASSAY_OK);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(assay_safetensors_append(writer, names[i], 1, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_finish(writer, NULL), ASSAY_OK);
}

#define PUT_SHARD(file, ...)                                                                                           \
    put_shard(file, (const char *const[]){__VA_ARGS__}, ASSAY_COUNT(((const char *const[]){__VA_ARGS__})))

static void expect_failure(enum assay_status status, const char *sentence)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status found = assay_checkpoint_open(dir, &checkpoint, &err);
    assert_null(checkpoint);
    if (found != status || !strstr(err.text, sentence))
        fail_msg("wanted %s '%s', found %s '%s'", assay_status_name(status), sentence, assay_status_name(found),
                 err.text);
}

static void tensors_of_all_shards_are_merged_by_name(void **state)
{
    (void)state;
    put("config.json", "{\"x\":1}");
    PUT_SHARD("one.safetensors", "d", "b");
    PUT_SHARD("two.safetensors", "c", "a");
    put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\","
                                        "\"c\":\"two.safetensors\",\"d\":\"one.safetensors\"}}");
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(assay_checkpoint_count(checkpoint), 4);
    for (size_t i = 0; i < 4; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        assert_string_equal(assay_checkpoint_at(checkpoint, i)->name, name);
        assert_ptr_equal(assay_checkpoint_find(checkpoint, name), assay_checkpoint_at(checkpoint, i));
        assert_int_equal(*(const char *)assay_checkpoint_at(checkpoint, i)->data, name[0]);
    }
    assert_null(assay_checkpoint_at(checkpoint, 4));
    assert_null(assay_checkpoint_find(checkpoint, "e"));
    assert_string_equal(assay_checkpoint_dir(checkpoint), dir);
    assert_int_equal(cJSON_GetObjectItem(assay_checkpoint_config(checkpoint), "x")->valueint, 1);
    assay_checkpoint_close(checkpoint);
    assay_checkpoint_close(NULL);
}

static void a_directory_that_is_no_model_is_not_found(void **state)
{
    (void)state;
    expect_failure(ASSAY_NOT_FOUND, "has no config.json");
    put("config.json", "{}");
    expect_failure(ASSAY_NOT_FOUND, "looked for model.safetensors and model.safetensors.index.json");
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
    expect_failure(ASSAY_NOT_FOUND, dir);
}

static void a_pickle_alone_is_refused_with_the_way_to_convert_it(void **state)
{
    (void)state;
    put("config.json", "{}");
    put("pytorch_model.bin", "");
    expect_failure(ASSAY_INVALID_ARGUMENT, "save_pretrained");
}

static void broken_files_are_named(void **state)
{
    (void)state;
    put("config.json", "{");
    PUT_SHARD("model.safetensors", "a");
    expect_failure(ASSAY_INVALID_ARGUMENT, "/config.json: byte 1");
    put("config.json", "[]");
    expect_failure(ASSAY_INVALID_ARGUMENT, "/config.json: not a JSON object");
    put("config.json", "{}");
    put("model.safetensors", "short");
    expect_failure(ASSAY_INVALID_ARGUMENT, "/model.safetensors: not a safetensors file");
}

static void an_index_that_lies_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *sentence;
        enum assay_status status;
    } cases[] = {
        {"[]", "'weight_map' is missing", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":[]}", "'weight_map' is missing", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{}}", "names 0 tensors", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":1}}", "not a string", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not a plain file name", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not a plain file name", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"\"}}", "not a plain file name", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "not a plain file name", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", "absent.safetensors", ASSAY_NOT_FOUND},
        {"{\"weight_map\":{\"q\":\"one.safetensors\"}}", "should be in one.safetensors but is nowhere",
         ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"b\":\"one.safetensors\",\"c\":\"three.safetensors\"}}",
         "should be in one.safetensors but is in three.safetensors", ASSAY_INVALID_ARGUMENT},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}",
         "both in one.safetensors and in two.safetensors", ASSAY_INVALID_ARGUMENT},
    };
    put("config.json", "{}");
    PUT_SHARD("one.safetensors", "a");
    PUT_SHARD("two.safetensors", "a", "b");
    PUT_SHARD("three.safetensors", "b", "c");
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        put("model.safetensors.index.json", cases[i].index);
        expect_failure(cases[i].status, cases[i].sentence);
    }
}

static struct assay_digest id_of(const char *path)
{
    struct assay_model_id id;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_id(path, NULL, NULL, &id, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return id.digest;
}

static void the_id_follows_config_and_weights_and_nothing_else(void **state)
{
    (void)state;
    put("config.json", "{}");
    PUT_SHARD("model.safetensors", "a");
    struct assay_digest before = id_of(dir), after;
    put("README.md", "hello");
    put("tokenizer.json", "{}");
    after = id_of(dir);
    assert_true(assay_digest_equal(&before, &after));

    put("config.json", "{ }");
    after = id_of(dir);
    assert_false(assay_digest_equal(&before, &after));
    put("config.json", "{}");
    PUT_SHARD("model.safetensors", "b");
    after = id_of(dir);
    assert_false(assay_digest_equal(&before, &after));
}

static void the_id_of_symbolic_links_is_that_of_their_targets(void **state)
{
    (void)state;
    put("config.json", "{}");
    PUT_SHARD("model.safetensors", "a");
    char links[80], path[ASSAY_PATH_MAX], target[ASSAY_PATH_MAX];
    static const char *const names[] = {"config.json", "model.safetensors"};
    snprintf(links, sizeof links, "%s/links", dir);
    assert_int_equal(assay_mkdirs(links, 0700, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        assert_int_equal(assay_path_join(path, links, names[i], NULL), ASSAY_OK);
        assert_int_equal(assay_path_join(target, dir, names[i], NULL), ASSAY_OK);
        assert_int_equal(symlink(target, path), 0);
    }
    struct assay_digest one = id_of(dir), two = id_of(links);
    assert_true(assay_digest_equal(&one, &two));
}

static enum assay_status count_calls(void *arg, const char *path, struct assay_digest *ret, struct assay_err *err)
{
    ++*(int *)arg;
    return assay_digest_file(path, ret, err);
}

static void the_callers_digest_function_is_asked_once_a_file(void **state)
{
    (void)state;
    put("config.json", "{}");
    PUT_SHARD("one.safetensors", "a", "b");
    PUT_SHARD("two.safetensors", "c");
    put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\","
                                        "\"c\":\"two.safetensors\"}}");
    int calls = 0;
    struct assay_model_id id;
    assert_int_equal(assay_checkpoint_id(dir, count_calls, &calls, &id, NULL), ASSAY_OK);
    assert_int_equal(calls, 3);
    struct assay_digest plain = id_of(dir);
    assert_true(assay_digest_equal(&plain, &id.digest));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(tensors_of_all_shards_are_merged_by_name),
        TEST(a_directory_that_is_no_model_is_not_found),
        TEST(a_pickle_alone_is_refused_with_the_way_to_convert_it),
        TEST(broken_files_are_named),
        TEST(an_index_that_lies_is_refused),
        TEST(the_id_follows_config_and_weights_and_nothing_else),
        TEST(the_id_of_symbolic_links_is_that_of_their_targets),
        TEST(the_callers_digest_function_is_asked_once_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
