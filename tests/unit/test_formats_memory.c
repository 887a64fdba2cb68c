/* Readers and writers of formats with the n-th allocation failing, for every n: an error, nothing leaked, nothing
 * half-made. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/formats/checkpoint.h"
#include "tests/cmocka_all.h"

/* The linker sends the layer's allocations here (-Wl,--wrap); cJSON's come through its hooks. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
char *__wrap_strdup(const char *text);

static long allocations_left = -1; /* negative: all succeed */

static bool fails(void)
{
    if (allocations_left < 0)
        return false;
    return allocations_left-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return fails() ? NULL : __real_realloc(memory, bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){__wrap_malloc, free});
    strcpy(dir, "/tmp/assay-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    allocations_left = -1;
    return assay_remove_tree(dir, NULL) == ASSAY_OK ? 0 : -1;
}

/* Runs `work` with ever later failures until none is left to fail. */
static void expect_exhaustion(enum assay_status (*work)(struct assay_err *err))
{
    enum { FAILURES_MAX = 10000 };
    for (long n = 0; n < FAILURES_MAX; n++) {
        struct assay_err err = ASSAY_ERR_INIT;
        allocations_left = n;
        enum assay_status status = work(&err);
        bool failed = allocations_left < 0;
        allocations_left = -1;
        if (!failed) {
            assert_int_equal(status, ASSAY_OK);
            assert_true(n > 0);
            return;
        }
        if (status != ASSAY_RESOURCE_EXHAUSTED || !err.text[0])
            fail_msg("allocation %ld: %s '%s'", n, assay_status_name(status), err.text);
    }
    fail_msg("more than %d allocations", FAILURES_MAX);
}

static enum assay_status write_shard(struct assay_err *err)
{
    const struct assay_tensor tensors[] = {
        {.name = "a", .dtype = ASSAY_F32, .rank = 1, .shape = {1}},
        {.name = "b", .dtype = ASSAY_I8, .rank = 0},
    };
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors_writer *writer = NULL;
    enum assay_status status = assay_path_join(path, dir, "one.safetensors", err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, tensors, ASSAY_COUNT(tensors), &writer, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_safetensors_append(writer, "12345", 5, err);
    enum assay_status finished = assay_safetensors_finish(writer, err);
    return status == ASSAY_OK ? finished : status;
}

static void put(const char *name, const char *text)
{
    char path[ASSAY_PATH_MAX];
    assert_int_equal(assay_path_join(path, dir, name, NULL), ASSAY_OK);
    assert_int_equal(assay_file_write(path, text, strlen(text), NULL), ASSAY_OK);
}

static enum assay_status open_checkpoint(struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    assert_true((status == ASSAY_OK) == (checkpoint != NULL));
    assay_checkpoint_close(checkpoint);
    return status;
}

static enum assay_status take_id(struct assay_err *err)
{
    struct assay_model_id id;
    return assay_checkpoint_id(dir, NULL, NULL, &id, err);
}

static void writing_reports_every_failed_allocation(void **state)
{
    (void)state;
    expect_exhaustion(write_shard);
}

static void opening_a_checkpoint_reports_every_failed_allocation(void **state)
{
    (void)state;
    assert_int_equal(write_shard(NULL), ASSAY_OK);
    put("config.json", "{\"a\":[1,{\"b\":\"text\"}]}");
    put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}");
    expect_exhaustion(open_checkpoint);
    expect_exhaustion(take_id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writing_reports_every_failed_allocation, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(opening_a_checkpoint_reports_every_failed_allocation, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
