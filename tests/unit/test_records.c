#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "services/evaluator/records.h"
#include "services/evaluator/share.h"
#include "services/evaluator/writer.h"

enum { ROWS = 16, COLS = 64, RECORD_FLOATS = ROWS * COLS };
/* What a record of that shape takes of the quota: its bytes, its head and what the store adds. */
#define RECORD_ROOM ((uint64_t)(RECORD_FLOATS * 4 + 96 + 256))

static int make_dir(void **state)
{
    char path[] = "/tmp/assay-records-XXXXXX";
    if (!mkdtemp(path))
        return -1;
    *state = strdup(path);
    return 0;
}

static int remove_dir(void **state)
{
    enum assay_status status = assay_remove_tree(*state, NULL);
    free(*state);
    return status == ASSAY_OK ? 0 : -1;
}

static struct assay_records *open_in(const char *dir, uint64_t quota, bool expect_moved)
{
    char store[ASSAY_PATH_MAX], moved[ASSAY_PATH_MAX];
    struct assay_records *records = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_path_join(store, dir, "store", NULL), ASSAY_OK);
    if (assay_records_open(store, quota, moved, &records, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(moved[0] != '\0', expect_moved);
    return records;
}

static struct assay_chunk_key chunk_of(unsigned n)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "test.chunk");
    assay_hash_u64(&hash, n);
    return (struct assay_chunk_key){assay_hash_final(&hash)};
}

static struct assay_variant_id variant_of(unsigned n)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "test.variant");
    assay_hash_u64(&hash, n);
    return (struct assay_variant_id){assay_hash_final(&hash)};
}

static struct assay_record_key key_of(unsigned chunk, unsigned variant)
{
    struct assay_chunk_key c = chunk_of(chunk);
    struct assay_variant_id v = variant_of(variant);
    return assay_record_key_of(&c, &v, ASSAY_RECORD_F32);
}

static void fill(float hidden[RECORD_FLOATS], unsigned chunk, unsigned salt)
{
    for (unsigned i = 0; i < RECORD_FLOATS; i++)
        hidden[i] = (float)(chunk * 7 + salt * 13 + i) / 17;
}

static enum assay_status put_one(struct assay_records *records, unsigned chunk, unsigned variant, const char *numerics,
                                 unsigned salt, struct assay_err *err)
{
    float hidden[RECORD_FLOATS];
    fill(hidden, chunk, salt);
    struct assay_record record = {chunk_of(chunk), variant_of(variant), numerics, ROWS, COLS, hidden, ASSAY_RECORD_F32};
    return assay_records_put(records, &record, 1, err);
}

static void put(struct assay_records *records, unsigned chunk, unsigned variant, const char *numerics, unsigned salt)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (put_one(records, chunk, variant, numerics, salt, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static void note_number(void *arg, uint32_t numerics)
{
    *(uint32_t *)arg = numerics;
}

/* The record under the one numerics id it has. */
static enum assay_status get(struct assay_records *records, unsigned chunk, unsigned variant,
                             struct assay_record_data *ret)
{
    struct assay_record_key key = key_of(chunk, variant);
    uint32_t numerics = 0;
    assay_records_each(records, &key, note_number, &numerics);
    return numerics ? assay_records_get(records, &key, numerics, ret, NULL) : ASSAY_NOT_FOUND;
}

static void expect(struct assay_records *records, unsigned chunk, unsigned variant, unsigned salt)
{
    struct assay_record_data data;
    float hidden[RECORD_FLOATS];
    fill(hidden, chunk, salt);
    assert_int_equal(get(records, chunk, variant, &data), ASSAY_OK);
    assert_int_equal(data.rows, ROWS);
    assert_int_equal(data.cols, COLS);
    assert_memory_equal(data.hidden, hidden, sizeof hidden);
    free(data.hidden);
}

static bool there(struct assay_records *records, unsigned chunk, unsigned variant)
{
    char numerics[ASSAY_NUMERICS_BYTES_MAX + 1];
    struct assay_variant_id id = variant_of(variant);
    struct assay_chunk_key key = chunk_of(chunk);
    uint8_t have = 7;
    assert_int_equal(assay_records_have(records, &id, ASSAY_RECORD_F32, &key, 1, &have, numerics, NULL), ASSAY_OK);
    assert_true(have == 0 || have == 1);
    return have;
}

static void the_same_record_twice_changes_nothing(void **state)
{
    struct assay_records *records = open_in(*state, 1 << 30, false);
    put(records, 1, 1, "engine-1", 5);
    uint64_t bytes = assay_records_bytes(records);
    put(records, 1, 1, "engine-1", 6);
    expect(records, 1, 1, 5);
    assert_int_equal(assay_records_count(records), 1);
    assert_int_equal(assay_records_bytes(records), bytes);
    float first[RECORD_FLOATS], second[RECORD_FLOATS];
    fill(first, 2, 5);
    fill(second, 2, 6);
    struct assay_record twice[2] = {{chunk_of(2), variant_of(1), "engine-1", ROWS, COLS, first, ASSAY_RECORD_F32},
                                    {chunk_of(2), variant_of(1), "engine-1", ROWS, COLS, second, ASSAY_RECORD_F32}};
    assert_int_equal(assay_records_put(records, twice, 2, NULL), ASSAY_OK);
    assert_int_equal(assay_records_count(records), 2);
    expect(records, 2, 1, 5);
    assay_records_close(records);
}

static void the_most_complete_numerics_is_told(void **state)
{
    struct assay_records *records = open_in(*state, 1 << 30, false);
    struct assay_variant_id variant = variant_of(1), other = variant_of(2);
    struct assay_chunk_key keys[4] = {chunk_of(1), chunk_of(2), chunk_of(3), chunk_of(2)};
    char numerics[ASSAY_NUMERICS_BYTES_MAX + 1];
    uint8_t have[4];
    assert_int_equal(assay_records_have(records, &variant, ASSAY_RECORD_F32, keys, 4, have, numerics, NULL), ASSAY_OK);
    assert_string_equal(numerics, "");
    assert_memory_equal(have, "\0\0\0\0", 4);
    put(records, 1, 1, "zeta", 1);
    put(records, 1, 1, "alpha", 1);
    put(records, 3, 2, "zeta", 1);
    assert_int_equal(assay_records_have(records, &variant, ASSAY_RECORD_F32, keys, 4, have, numerics, NULL), ASSAY_OK);
    assert_string_equal(numerics, "alpha");
    put(records, 2, 1, "zeta", 1);
    assert_int_equal(assay_records_have(records, &variant, ASSAY_RECORD_F32, keys, 4, have, numerics, NULL), ASSAY_OK);
    assert_string_equal(numerics, "zeta");
    assert_memory_equal(have, "\1\1\0\1", 4);
    assert_int_equal(assay_records_have(records, &other, ASSAY_RECORD_F32, keys, 4, have, numerics, NULL), ASSAY_OK);
    assert_memory_equal(have, "\0\0\1\0", 4);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(put_one(records, 9, 1, "has a blank", 1, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(put_one(records, 9, 1, "", 1, &err), ASSAY_INVALID_ARGUMENT);
    assay_records_close(records);
}

static void the_quota_evicts_what_was_used_longest_ago_and_never_what_is_pinned(void **state)
{
    struct assay_records *records = open_in(*state, 4 * RECORD_ROOM, false);
    struct assay_record_key pinned = key_of(0, 1);
    assert_int_equal(assay_records_pin(records, &pinned, NULL), ASSAY_OK);
    for (unsigned chunk = 0; chunk < 4; chunk++)
        put(records, chunk, 1, "n", 1);
    expect(records, 1, 1, 1); /* used: now chunk 2 is the oldest that is not pinned */
    put(records, 4, 1, "n", 1);
    assert_true(there(records, 0, 1));
    assert_true(there(records, 1, 1));
    assert_false(there(records, 2, 1));
    put(records, 5, 1, "n", 1);
    assert_false(there(records, 3, 1));
    assert_true(assay_records_bytes(records) <= 4 * RECORD_ROOM);
    put(records, 6, 1, "n", 1);
    put(records, 7, 1, "n", 1);
    assert_true(there(records, 0, 1));
    expect(records, 0, 1, 1);
    assay_records_unpin(records, &pinned);
    for (unsigned chunk = 8; chunk < 12; chunk++)
        put(records, chunk, 1, "n", 1);
    assert_false(there(records, 0, 1));
    assay_records_close(records);
}

static void a_quota_full_of_pinned_records_refuses_and_changes_nothing(void **state)
{
    struct assay_records *records = open_in(*state, 2 * RECORD_ROOM, false);
    struct assay_err err = ASSAY_ERR_INIT;
    for (unsigned chunk = 0; chunk < 2; chunk++) {
        struct assay_record_key key = key_of(chunk, 1);
        assert_int_equal(assay_records_pin(records, &key, NULL), ASSAY_OK);
        put(records, chunk, 1, "n", 1);
    }
    assert_int_equal(put_one(records, 2, 1, "n", 1, &err), ASSAY_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.text, "--quota-gb"));
    expect(records, 0, 1, 1);
    expect(records, 1, 1, 1);
    assert_false(there(records, 2, 1));
    assay_records_close(records);
}

static void what_would_have_made_room_in_vain_stays(void **state)
{
    struct assay_records *records = open_in(*state, 3 * RECORD_ROOM, false);
    struct assay_record_key pinned = key_of(0, 1);
    float hidden[RECORD_FLOATS] = {0};
    struct assay_record three[3];
    assert_int_equal(assay_records_pin(records, &pinned, NULL), ASSAY_OK);
    put(records, 0, 1, "n", 1);
    put(records, 1, 1, "n", 1);
    for (unsigned i = 0; i < 3; i++)
        three[i] = (struct assay_record){chunk_of(10 + i), variant_of(1), "n", ROWS, COLS, hidden, ASSAY_RECORD_F32};
    assert_int_equal(assay_records_put(records, three, 3, NULL), ASSAY_RESOURCE_EXHAUSTED);
    expect(records, 1, 1, 1);
    assert_false(there(records, 10, 1));
    assay_records_close(records);
}

static void a_restart_keeps_records_and_the_order_of_use(void **state)
{
    enum { COUNT = 12 };
    static const unsigned by_use[COUNT] = {5, 0, 11, 3, 8, 1, 7, 2, 10, 4, 9, 6};
    struct assay_records *records = open_in(*state, COUNT * RECORD_ROOM, false);
    for (unsigned chunk = 0; chunk < COUNT; chunk++)
        put(records, chunk, 1, "n", chunk);
    for (unsigned i = 0; i < COUNT; i++)
        expect(records, by_use[i], 1, by_use[i]);
    uint64_t bytes = assay_records_bytes(records);
    assay_records_close(records);
    records = open_in(*state, COUNT * RECORD_ROOM, false);
    assert_int_equal(assay_records_count(records), COUNT);
    assert_int_equal(assay_records_bytes(records), bytes);
    for (unsigned gone = 0; gone < COUNT; gone++) {
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(there(records, by_use[i], 1), i >= gone);
        put(records, 100 + gone, 1, "n", 1);
        assert_int_equal(assay_records_count(records), COUNT);
    }
    assay_records_close(records);
}

static void a_damaged_record_is_told_and_forgotten(void **state)
{
    char path[ASSAY_PATH_MAX];
    float hidden[RECORD_FLOATS];
    struct assay_record_data data;
    struct assay_records *records = open_in(*state, 1 << 30, false);
    put(records, 1, 1, "n", 9);
    assay_records_close(records);
    fill(hidden, 1, 9);
    assert_int_equal(assay_path_join(path, *state, "store/data.mdb", NULL), ASSAY_OK);
    struct assay_mapping file;
    assert_int_equal(assay_map_file(path, &file, NULL), ASSAY_OK);
    const unsigned char *at = memmem(file.data, file.bytes, hidden, sizeof hidden);
    assert_non_null(at);
    unsigned char flipped = *at ^ 1;
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &flipped, 1, at - file.data), 1);
    close(fd);
    assay_unmap(&file);
    records = open_in(*state, 1 << 30, false);
    assert_true(there(records, 1, 1));
    assert_int_equal(get(records, 1, 1, &data), ASSAY_DATA_LOSS);
    assert_false(there(records, 1, 1));
    put(records, 1, 1, "n", 9);
    expect(records, 1, 1, 9);
    assay_records_close(records);
}

static void a_damaged_store_is_moved_aside_and_an_empty_one_begun(void **state)
{
    char path[ASSAY_PATH_MAX];
    struct assay_records *records = open_in(*state, 1 << 30, false);
    put(records, 1, 1, "n", 1);
    assay_records_close(records);
    assert_int_equal(assay_path_join(path, *state, "store/data.mdb", NULL), ASSAY_OK);
    assert_int_equal(truncate(path, 9000), 0);
    records = open_in(*state, 1 << 30, true);
    assert_int_equal(assay_records_count(records), 0);
    put(records, 1, 1, "n", 1);
    expect(records, 1, 1, 1);
    assay_records_close(records);
}

static void what_is_not_finite_or_has_no_shape_is_refused_by_name(void **state)
{
    (void)state;
    float hidden[RECORD_FLOATS] = {0};
    struct assay_record record = {chunk_of(1), variant_of(1), "n", ROWS, COLS, hidden, ASSAY_RECORD_F32};
    struct assay_err err = ASSAY_ERR_INIT;
    char hex[ASSAY_DIGEST_HEX];
    assert_int_equal(assay_record_check(&record, &err), ASSAY_OK);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        hidden[RECORD_FLOATS - 1] = bad[i];
        assert_int_equal(assay_record_check(&record, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, assay_digest_hex(&record.chunk.digest, hex)));
        assert_non_null(strstr(err.text, "row 15"));
    }
    record.rows = 0;
    assert_int_equal(assay_record_check(&record, &err), ASSAY_INVALID_ARGUMENT);
    record.rows = 1;
    record.cols = (1u << 20) + 1;
    assert_int_equal(assay_record_check(&record, &err), ASSAY_INVALID_ARGUMENT);
    record.cols = UINT64_MAX / 2;
    assert_int_equal(assay_record_check(&record, &err), ASSAY_INVALID_ARGUMENT);
}

/* --- the writer --- */

struct pending {
    struct assay_writer_entry entry;
    struct assay_record record;
    float hidden[RECORD_FLOATS];
    struct assay_err err;
    sem_t done;
};

static void pending_done(void *arg, const struct assay_err *err)
{
    struct pending *pending = arg;
    pending->err = *err;
    sem_post(&pending->done);
}

static void submit(struct assay_writer *writer, struct pending *pending, unsigned chunk, unsigned salt)
{
    fill(pending->hidden, chunk, salt);
    pending->record =
        (struct assay_record){chunk_of(chunk), variant_of(1), "n", ROWS, COLS, pending->hidden, ASSAY_RECORD_F32};
    pending->entry = (struct assay_writer_entry){&pending->record, 1, pending_done, pending, NULL};
    sem_init(&pending->done, 0, 0);
    assert_int_equal(assay_writer_submit(writer, &pending->entry, NULL), ASSAY_OK);
}

static void the_writer_answers_each_after_the_commit_and_the_bad_one_alone_fails(void **state)
{
    enum { COUNT = 40, BAD = 17 };
    struct assay_records *records = open_in(*state, 1 << 30, false);
    struct assay_writer *writer = NULL;
    struct pending *pending = calloc(COUNT, sizeof *pending);
    assert_int_equal(assay_writer_new(records, &writer, NULL), ASSAY_OK);
    for (unsigned i = 0; i < COUNT; i++) {
        if (i != BAD) {
            submit(writer, &pending[i], i, 3);
            continue;
        }
        fill(pending[i].hidden, i, 3);
        pending[i].hidden[5] = NAN;
        pending[i].record =
            (struct assay_record){chunk_of(i), variant_of(1), "n", ROWS, COLS, pending[i].hidden, ASSAY_RECORD_F32};
        pending[i].entry = (struct assay_writer_entry){&pending[i].record, 1, pending_done, &pending[i], NULL};
        sem_init(&pending[i].done, 0, 0);
        assert_int_equal(assay_writer_submit(writer, &pending[i].entry, NULL), ASSAY_OK);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        sem_wait(&pending[i].done);
        assert_int_equal(pending[i].err.status, i == BAD ? ASSAY_INVALID_ARGUMENT : ASSAY_OK);
        assert_int_equal(there(records, i, 1), i != BAD);
        if (i != BAD)
            expect(records, i, 1, 3);
        sem_destroy(&pending[i].done);
    }
    assay_writer_stop(writer);
    struct pending late = {0};
    late.entry = (struct assay_writer_entry){&late.record, 0, pending_done, &late, NULL};
    assert_int_equal(assay_writer_submit(writer, &late.entry, NULL), ASSAY_UNAVAILABLE);
    assay_writer_free(writer);
    assay_records_close(records);
    free(pending);
}

struct gate {
    struct assay_writer_entry entry;
    sem_t reached, open;
};

static void gate_done(void *arg, const struct assay_err *err)
{
    (void)err;
    struct gate *gate = arg;
    sem_post(&gate->reached);
    sem_wait(&gate->open);
}

static void one_put_that_finds_no_room_does_not_take_others_with_it(void **state)
{
    struct assay_records *records = open_in(*state, 2 * RECORD_ROOM, false);
    struct assay_writer *writer = NULL;
    struct gate gate = {.entry = {.done = gate_done, .arg = &gate}};
    struct pending *pending = calloc(3, sizeof *pending);
    sem_init(&gate.reached, 0, 0);
    sem_init(&gate.open, 0, 0);
    assert_int_equal(assay_writer_new(records, &writer, NULL), ASSAY_OK);
    assert_int_equal(assay_writer_submit(writer, &gate.entry, NULL), ASSAY_OK);
    sem_wait(&gate.reached); /* what is submitted now waits, and is one group */
    for (unsigned i = 0; i < 3; i++) {
        struct assay_record_key key = key_of(i, 1);
        assert_int_equal(assay_records_pin(records, &key, NULL), ASSAY_OK);
        submit(writer, &pending[i], i, 1);
    }
    sem_post(&gate.open);
    for (unsigned i = 0; i < 3; i++) {
        sem_wait(&pending[i].done);
        assert_int_equal(pending[i].err.status, i < 2 ? ASSAY_OK : ASSAY_RESOURCE_EXHAUSTED);
        assert_int_equal(there(records, i, 1), i < 2);
        sem_destroy(&pending[i].done);
    }
    assay_writer_free(writer);
    assay_records_close(records);
    sem_destroy(&gate.reached);
    sem_destroy(&gate.open);
    free(pending);
}

/* Ten records of a MiB in one Put, all pinned; its status. */
static enum assay_status put_large(const char *dir, uint64_t quota, bool there_after[10])
{
    enum { COUNT = 10, LARGE_ROWS = 256, LARGE_COLS = 1024 };
    struct assay_records *records = open_in(dir, quota, false);
    struct assay_writer *writer = NULL;
    struct pending large = {0}, question = {0};
    struct assay_record list[COUNT];
    float *hidden = calloc((size_t)LARGE_ROWS * LARGE_COLS, sizeof *hidden);
    assert_non_null(hidden);
    for (unsigned i = 0; i < COUNT; i++) {
        struct assay_record_key key = key_of(i, 1);
        assert_int_equal(assay_records_pin(records, &key, NULL), ASSAY_OK);
        list[i] =
            (struct assay_record){chunk_of(i), variant_of(1), "n", LARGE_ROWS, LARGE_COLS, hidden, ASSAY_RECORD_F32};
    }
    large.entry = (struct assay_writer_entry){list, COUNT, pending_done, &large, NULL};
    question.entry = (struct assay_writer_entry){NULL, 0, pending_done, &question, NULL};
    sem_init(&large.done, 0, 0);
    sem_init(&question.done, 0, 0);
    assert_int_equal(assay_writer_new(records, &writer, NULL), ASSAY_OK);
    assert_int_equal(assay_writer_submit(writer, &large.entry, NULL), ASSAY_OK);
    assert_int_equal(assay_writer_submit(writer, &question.entry, NULL), ASSAY_OK);
    sem_wait(&question.done);
    for (unsigned i = 0; i < COUNT; i++)
        there_after[i] = there(records, i, 1);
    assert_int_equal(sem_trywait(&large.done), 0); /* answered before what came behind it */
    assay_writer_free(writer);
    assay_records_close(records);
    sem_destroy(&large.done);
    sem_destroy(&question.done);
    free(hidden);
    return large.err.status;
}

static void a_put_larger_than_a_transaction_is_acknowledged_when_all_of_it_is_written(void **state)
{
    bool found[10];
    assert_int_equal(put_large(*state, 1 << 30, found), ASSAY_OK);
    for (unsigned i = 0; i < 10; i++)
        assert_true(found[i]);
}

static void a_put_that_finds_room_for_its_first_transaction_alone_fails(void **state)
{
    bool found[10];
    assert_int_equal(put_large(*state, 6 << 20, found), ASSAY_RESOURCE_EXHAUSTED);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(found[i], i < ASSAY_WRITER_BATCH_BYTES >> 20);
}

static void what_another_evaluator_has_goes_when_no_score_call_reads_it(void **state)
{
    struct assay_records *records = open_in(*state, 4 * RECORD_ROOM, false);
    struct assay_record_key pinned = key_of(0, 1);
    struct assay_share_entry entries[2];
    struct assay_err err = ASSAY_ERR_INIT;
    uint64_t dropped = 0;
    for (unsigned i = 0; i < 2; i++) {
        put(records, i, 1, "n", 1);
        entries[i] = (struct assay_share_entry){.key = key_of(i, 1),
                                                .numerics = "n",
                                                .chunk = chunk_of(i),
                                                .variant = variant_of(1),
                                                .dtype = ASSAY_RECORD_F32,
                                                .bytes = RECORD_ROOM};
    }
    assert_int_equal(assay_records_pin(records, &pinned, NULL), ASSAY_OK);
    assert_int_equal(assay_share_drop(records, entries, 2, &dropped, &err), ASSAY_UNAVAILABLE);
    assert_int_equal(dropped, 1);
    assert_true(there(records, 0, 1));
    assert_false(there(records, 1, 1));
    assay_records_unpin(records, &pinned);
    assert_int_equal(assay_share_drop(records, entries, 2, &dropped, &err), ASSAY_OK);
    assert_int_equal(dropped, 1);
    assert_false(there(records, 0, 1));
    assert_int_equal(assay_share_drop(records, entries, 2, &dropped, &err), ASSAY_OK);
    assert_int_equal(dropped, 0);
    assay_records_close(records);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(the_same_record_twice_changes_nothing),
        T(the_most_complete_numerics_is_told),
        T(the_quota_evicts_what_was_used_longest_ago_and_never_what_is_pinned),
        T(a_quota_full_of_pinned_records_refuses_and_changes_nothing),
        T(what_would_have_made_room_in_vain_stays),
        T(a_restart_keeps_records_and_the_order_of_use),
        T(a_damaged_record_is_told_and_forgotten),
        T(a_damaged_store_is_moved_aside_and_an_empty_one_begun),
        T(what_is_not_finite_or_has_no_shape_is_refused_by_name),
        T(the_writer_answers_each_after_the_commit_and_the_bad_one_alone_fails),
        T(a_put_larger_than_a_transaction_is_acknowledged_when_all_of_it_is_written),
        T(a_put_that_finds_room_for_its_first_transaction_alone_fails),
        T(one_put_that_finds_no_room_does_not_take_others_with_it),
        T(what_another_evaluator_has_goes_when_no_score_call_reads_it),
    };
#undef T
    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
