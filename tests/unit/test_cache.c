/* Lists, checks and prunes of the record store. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "services/evaluator/cache.h"

enum { ROWS = 4, COLS = 8, VALUES = ROWS * COLS };

struct bench {
    char dir[64];
    struct assay_records *records;
};

static void open_store(struct bench *bench)
{
    char path[ASSAY_PATH_MAX], moved[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_path_join(path, bench->dir, "store", NULL), ASSAY_OK);
    if (assay_records_open(path, 1 << 30, moved, &bench->records, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_string_equal(moved, "");
}

static int make_bench(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    strcpy(bench->dir, "/tmp/assay-cache-XXXXXX");
    if (!mkdtemp(bench->dir))
        return -1;
    open_store(bench);
    *state = bench;
    return 0;
}

static int remove_bench(void **state)
{
    struct bench *bench = *state;
    assay_records_close(bench->records);
    enum assay_status status = assay_remove_tree(bench->dir, NULL);
    free(bench);
    return status == ASSAY_OK ? 0 : -1;
}

static struct assay_digest digest_of(const char *domain, unsigned n)
{
    struct assay_hash hash;
    assay_hash_init(&hash, domain);
    assay_hash_u64(&hash, n);
    return assay_hash_final(&hash);
}

static struct assay_record_key put(struct bench *bench, unsigned chunk, unsigned variant, enum assay_record_dtype dtype)
{
    struct assay_err err = ASSAY_ERR_INIT;
    unsigned char hidden[VALUES * sizeof(float)];
    memset(hidden, 0x21, sizeof hidden);
    struct assay_record record = {.chunk = {digest_of("chunk", chunk)},
                                  .variant = {digest_of("variant", variant)},
                                  .numerics = "n/1",
                                  .rows = ROWS,
                                  .cols = COLS,
                                  .hidden = hidden,
                                  .dtype = dtype};
    if (assay_records_put(bench->records, &record, 1, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return assay_record_key_of(&record.chunk, &record.variant, dtype);
}

static void put_sample(struct bench *bench, unsigned n)
{
    struct assay_blob blob = {.key = {digest_of("sample", n)}, .bytes = "abc", .len = 3};
    assert_int_equal(assay_blobs_put(bench->records, &blob, 1, NULL), ASSAY_OK);
}

static size_t list(struct bench *bench, struct assay_cache_entry **entries)
{
    size_t count = 0;
    assert_int_equal(assay_cache_list(bench->records, entries, &count, NULL), ASSAY_OK);
    return count;
}

static size_t count(struct bench *bench)
{
    struct assay_cache_entry *entries;
    size_t found = list(bench, &entries);
    free(entries);
    return found;
}

static struct assay_cache_pruned prune(struct bench *bench, struct assay_cache_filter filter, bool dry_run)
{
    struct assay_cache_pruned pruned = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_cache_prune(bench->records, &filter, dry_run, &pruned, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return pruned;
}

static void the_list_says_what_every_record_is_after_a_restart_too(void **state)
{
    struct bench *bench = *state;
    put(bench, 1, 1, ASSAY_RECORD_F32);
    put(bench, 1, 2, ASSAY_RECORD_F16);
    put_sample(bench, 1);
    for (int round = 0; round < 2; round++) {
        struct assay_cache_entry *entries;
        size_t known = 0, samples = 0, found = list(bench, &entries);
        struct assay_digest chunk = digest_of("chunk", 1);
        uint64_t now_us = (uint64_t)assay_wall_ms() * 1000;
        assert_int_equal(found, 3);
        for (size_t i = 0; i < found; i++) {
            samples += entries[i].numerics == ASSAY_NUMERICS_NONE;
            if (!entries[i].known)
                continue;
            struct assay_digest variant = digest_of("variant", entries[i].dtype == ASSAY_RECORD_F16 ? 2 : 1);
            assert_true(assay_digest_equal(&entries[i].chunk.digest, &chunk));
            assert_true(assay_digest_equal(&entries[i].variant.digest, &variant));
            assert_true(entries[i].used_us <= now_us + 1000000 && entries[i].used_us + 60000000 > now_us);
            known++;
        }
        assert_int_equal(known, 2);
        assert_int_equal(samples, 1);
        free(entries);
        assay_records_close(bench->records);
        open_store(bench);
    }
}

static void records_of_two_dtypes_are_two_records(void **state)
{
    struct bench *bench = *state;
    struct assay_record_key wide = put(bench, 1, 1, ASSAY_RECORD_F32), half = put(bench, 1, 1, ASSAY_RECORD_F16);
    struct assay_record_data data;
    assert_false(assay_digest_equal(&wide.digest, &half.digest));
    assert_int_equal(assay_records_get(bench->records, &half, 1, &data, NULL), ASSAY_OK);
    assert_int_equal(data.rows, ROWS);
    assert_int_equal(data.cols, COLS);
    /* 0x2121 as binary16: 2^-7 (1 + 0x121 / 1024). */
    assert_true(data.hidden[VALUES - 1] == 0x1p-7f * (1 + 289.0f / 1024));
    free(data.hidden);
}

static void prune_takes_one_variant_and_refuses_an_unclear_prefix(void **state)
{
    struct bench *bench = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_cache_pruned pruned;
    char hex[ASSAY_DIGEST_HEX];
    struct assay_digest variant = digest_of("variant", 2);
    put(bench, 1, 1, ASSAY_RECORD_F32);
    put(bench, 1, 2, ASSAY_RECORD_F32);
    put(bench, 2, 2, ASSAY_RECORD_F32);
    put_sample(bench, 1);
    static const char *const bad[] = {"", "abc", "ABCD", "xyzw",
                                      "00000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        struct assay_cache_filter filter = {.variant_prefix = bad[i]};
        assert_int_equal(assay_cache_prune(bench->records, &filter, false, &pruned, &err), ASSAY_INVALID_ARGUMENT);
    }
    struct assay_cache_filter none = {.variant_prefix = "0123456789"};
    assert_int_equal(assay_cache_prune(bench->records, &none, false, &pruned, &err), ASSAY_NOT_FOUND);
    assay_digest_hex(&variant, hex)[8] = '\0';
    struct assay_cache_filter filter = {.variant_prefix = hex};
    pruned = prune(bench, filter, true);
    assert_int_equal(pruned.records, 2);
    assert_int_equal(count(bench), 4);
    uint64_t bytes = assay_records_bytes(bench->records);
    pruned = prune(bench, filter, false);
    assert_int_equal(pruned.records, 2);
    assert_int_equal(pruned.samples, 0);
    assert_int_equal(count(bench), 2);
    assert_int_equal(assay_records_bytes(bench->records), bytes - pruned.bytes);
    assert_int_equal(pruned.bytes_left, bytes - pruned.bytes);
}

static void prune_never_takes_what_a_running_job_needs(void **state)
{
    struct bench *bench = *state;
    struct assay_record_key key = put(bench, 1, 1, ASSAY_RECORD_F32);
    put(bench, 2, 1, ASSAY_RECORD_F32);
    assert_int_equal(assay_records_pin(bench->records, &key, NULL), ASSAY_OK);
    struct assay_cache_pruned pruned = prune(bench, (struct assay_cache_filter){0}, false);
    assert_int_equal(pruned.records, 1);
    assert_int_equal(pruned.pinned, 1);
    assert_int_equal(count(bench), 1);
    assay_records_unpin(bench->records, &key);
    pruned = prune(bench, (struct assay_cache_filter){0}, false);
    assert_int_equal(pruned.records, 1);
    assert_int_equal(count(bench), 0);
}

static void prune_by_room_takes_what_was_used_longest_ago(void **state)
{
    struct bench *bench = *state;
    struct assay_record_data data;
    struct assay_record_key first = put(bench, 1, 1, ASSAY_RECORD_F32);
    uint64_t one = assay_records_bytes(bench->records);
    put(bench, 2, 1, ASSAY_RECORD_F32);
    put(bench, 3, 1, ASSAY_RECORD_F32);
    assert_int_equal(assay_records_get(bench->records, &first, 1, &data, NULL), ASSAY_OK);
    free(data.hidden);
    struct assay_cache_pruned pruned =
        prune(bench, (struct assay_cache_filter){.has_to_bytes = true, .to_bytes = 2 * one}, false);
    struct assay_cache_entry *entries;
    struct assay_digest second = digest_of("chunk", 2);
    assert_int_equal(pruned.records, 1);
    assert_int_equal(list(bench, &entries), 2);
    for (size_t i = 0; i < 2; i++)
        assert_false(assay_digest_equal(&entries[i].chunk.digest, &second));
    free(entries);
}

static void prune_by_age_counts_from_the_last_use(void **state)
{
    struct bench *bench = *state;
    put(bench, 1, 1, ASSAY_RECORD_F32);
    uint64_t now_us = (uint64_t)assay_wall_ms() * 1000;
    struct assay_cache_filter day_ago = {.has_older_than = true, .older_than_us = now_us - 86400000000u};
    struct assay_cache_filter later = {.has_older_than = true, .older_than_us = now_us + 60000000};
    assert_int_equal(prune(bench, day_ago, false).records, 0);
    assert_int_equal(prune(bench, later, false).records, 1);
}

/* Overwrites the bytes of a record on disk: they are all alike. */
static void damage(struct bench *bench)
{
    char path[ASSAY_PATH_MAX], *text;
    size_t bytes, at = 0;
    assay_records_close(bench->records);
    bench->records = NULL;
    assert_int_equal(assay_path_join(path, bench->dir, "store/data.mdb", NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, 1 << 24, &text, &bytes, NULL), ASSAY_OK);
    for (size_t run = 0; at < bytes && run < VALUES; at++)
        run = text[at] == 0x21 ? run + 1 : 0;
    assert_true(at < bytes);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "?", 1, (off_t)at - 4), 1);
    assert_int_equal(close(fd), 0);
    free(text);
    open_store(bench);
}

static void verify_finds_and_drops_damage(void **state)
{
    struct bench *bench = *state;
    struct assay_cache_entry *entries;
    struct assay_err err = ASSAY_ERR_INIT;
    put(bench, 1, 1, ASSAY_RECORD_F32);
    put_sample(bench, 1);
    assert_int_equal(list(bench, &entries), 2);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(assay_cache_verify(bench->records, &entries[i], &err), ASSAY_OK);
    free(entries);
    damage(bench);
    size_t damaged = 0, found = list(bench, &entries);
    assert_int_equal(found, 2);
    for (size_t i = 0; i < found; i++)
        if (assay_cache_verify(bench->records, &entries[i], &err) != ASSAY_OK) {
            assert_int_equal(err.status, ASSAY_DATA_LOSS);
            assert_non_null(strstr(err.text, "record of chunk "));
            assert_int_equal(assay_cache_verify(bench->records, &entries[i], &err), ASSAY_NOT_FOUND);
            damaged++;
        }
    free(entries);
    assert_int_equal(damaged, 1);
    assert_int_equal(count(bench), 1);
}

static void a_variant_keeps_its_name(void **state)
{
    struct bench *bench = *state;
    struct assay_variant_id variant = {digest_of("variant", 1)};
    struct assay_model_id model = {digest_of("model", 1)};
    struct assay_cache_name name;
    char long_label[400];
    assert_false(assay_cache_name(bench->records, &variant, &name));
    assert_int_equal(assay_cache_set_name(bench->records, &variant, &model, "int8", NULL), ASSAY_OK);
    assay_records_close(bench->records);
    open_store(bench);
    assert_true(assay_cache_name(bench->records, &variant, &name));
    assert_string_equal(name.label, "int8");
    assert_true(assay_digest_equal(&name.model.digest, &model.digest));
    memset(long_label, 'x', sizeof long_label - 1);
    long_label[sizeof long_label - 1] = '\0';
    assert_int_equal(assay_cache_set_name(bench->records, &variant, &model, long_label, NULL), ASSAY_OK);
    assert_true(assay_cache_name(bench->records, &variant, &name));
    assert_int_equal(strlen(name.label), ASSAY_CACHE_LABEL_MAX);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, make_bench, remove_bench)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BENCH(the_list_says_what_every_record_is_after_a_restart_too),
        WITH_BENCH(records_of_two_dtypes_are_two_records),
        WITH_BENCH(prune_takes_one_variant_and_refuses_an_unclear_prefix),
        WITH_BENCH(prune_never_takes_what_a_running_job_needs),
        WITH_BENCH(prune_by_room_takes_what_was_used_longest_ago),
        WITH_BENCH(prune_by_age_counts_from_the_last_use),
        WITH_BENCH(verify_finds_and_drops_damage),
        WITH_BENCH(a_variant_keeps_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
