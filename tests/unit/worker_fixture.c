#include "tests/unit/worker_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int32_t some_ids[FAKE_CHUNKS_MAX * CHUNK_TOKENS];

void must(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

static int set_up_with(void **state, bool with_coordinator)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct assay_err err = ASSAY_ERR_INIT;
    for (size_t i = 0; i < ASSAY_COUNT(some_ids); i++)
        some_ids[i] = (int32_t)(i * 2654435761u % 4096);
    fixture->retry_ms = 5000;
    strcpy(fixture->root, "/tmp/assay-worker-XXXXXX");
    if (!mkdtemp(fixture->root))
        return -1;
    must(assay_pool_new(2, NULL, &fixture->pool, &err), &err);
    fixture->fakes = fakes_new(fixture->root, with_coordinator);
    must(assay_loop_new(&fixture->loop, &err), &err);
    fixture->models = assay_models_new(
        &(struct assay_models_options){.pool = fixture->pool, .bytes_max = (uint64_t)100 * 1000 * 1000});
    assert_non_null(fixture->models);
    must(assay_link_new(fixture->loop, fixture->fakes->coordinator_endpoint, &fixture->link, &err), &err);
    must(assay_loop_start(fixture->loop, &err), &err);
    *state = fixture;
    return 0;
}

int set_up(void **state)
{
    return set_up_with(state, true);
}

int set_up_without_coordinator(void **state)
{
    return set_up_with(state, false);
}

void stop_worker(struct fixture *fixture)
{
    if (fixture->is_stopped)
        return;
    fixture->is_stopped = true;
    assay_worker_stop(fixture->worker, 5000);
    assay_member_stop(fixture->member);
}

int tear_down(void **state)
{
    struct fixture *fixture = *state;
    fakes_release_puts(fixture->fakes);
    stop_worker(fixture);
    assay_worker_free(fixture->worker);
    assay_models_free(fixture->models);
    assay_link_free(fixture->link);
    assay_loop_stop_join(fixture->loop);
    assay_loop_free(fixture->loop);
    fakes_free(fixture->fakes);
    assay_pool_free(fixture->pool);
    enum assay_status status = assay_remove_tree(fixture->root, NULL);
    free(fixture);
    return status == ASSAY_OK ? 0 : -1;
}

static void fill_counters(void *arg, Assay__V1__ServiceCounters *counters)
{
    struct assay_worker_counts counts = assay_worker_counts(((struct fixture *)arg)->worker);
    counters->chunks_run = counts.chunks_run;
    counters->has_chunks_run = true;
}

/* The worker with short times. */
void start_worker(struct fixture *fixture, const char *precision, size_t batch_tokens, int64_t lease_wait_ms)
{
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_worker_options options = {
        .link = fixture->link,
        .pool = fixture->pool,
        .models = fixture->models,
        .precision = precision,
        .batch_tokens = batch_tokens,
        .lease_wait_ms = lease_wait_ms,
        .outbox =
            {.put_ms = 5000, .complete_ms = 5000, .backoff_ms = 5, .retry_ms = fixture->retry_ms, .attempts_max = 4},
    };
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    must(assay_worker_new(&options, &fixture->worker, &err), &err);
    must(assay_member_start(assay_link_coordinator(fixture->link), &registration, fill_counters, fixture,
                            &fixture->member, &err),
         &err);
    must(assay_worker_start(fixture->worker, fixture->member, &err), &err);
}

/* Chunk i of variant `variant`: a part of some_ids, scored in its second half. */
struct fake_lease make_lease(unsigned char variant, const char *dir, size_t first, size_t count)
{
    struct fake_lease lease = {.scheme = "fp32", .artifact_dir = dir, .count = count};
    memset(lease.variant_id, variant, sizeof lease.variant_id);
    for (size_t i = 0; i < count; i++) {
        uint32_t tokens = CHUNK_TOKENS - (uint32_t)(first + i) % 5;
        lease.chunks[i] = (struct fake_chunk){
            .ids = some_ids + (first + i) * CHUNK_TOKENS, .tokens = tokens, .begin = tokens / 2, .end = tokens - 1};
        memset(lease.chunks[i].key, (int)(first + i), 32);
        lease.chunks[i].key[0] = variant;
    }
    return lease;
}

/* --- conditions to wait for --- */

bool completed_chunks(const struct fakes *fakes, const void *arg)
{
    size_t chunks = 0;
    for (size_t i = 0; i < fakes->completes_count; i++)
        chunks += fakes->completes[i].count;
    return chunks >= *(const size_t *)arg;
}

bool was_asked_again(const struct fakes *fakes, const void *arg)
{
    return fakes->lease_calls >= *(const size_t *)arg;
}

bool has_failure(const struct fakes *fakes, const void *arg)
{
    (void)arg;
    return fakes->completes_count > 0 && fakes->completes[fakes->completes_count - 1].failure[0];
}

void wait_until(struct fixture *fixture, bool (*done)(const struct fakes *, const void *), size_t number)
{
    if (!fakes_wait(fixture->fakes, done, &number))
        fail_msg("waited in vain for %zu", number);
}

const struct fake_complete *last_complete(const struct fixture *fixture)
{
    assert_true(fixture->fakes->completes_count > 0);
    return &fixture->fakes->completes[fixture->fakes->completes_count - 1];
}

/* --- records --- */

/* The record of each chunk of the lease has the bits that a forward pass over this chunk alone gives. */
void assert_records(struct fixture *fixture, const struct fake_lease *lease)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_model *model = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    must(assay_checkpoint_open(lease->artifact_dir, &checkpoint, &err), &err);
    must(assay_model_load(checkpoint, fixture->pool, &model, &err), &err);
    assay_checkpoint_close(checkpoint);
    size_t width = assay_model_config(model)->hidden;
    float *want = malloc(CHUNK_TOKENS * width * sizeof *want);
    for (size_t i = 0; i < lease->count; i++) {
        const struct fake_chunk *chunk = &lease->chunks[i];
        const struct fake_record *record = fakes_record(fixture->fakes, chunk->key);
        const struct assay_sequence sequence = {chunk->ids, chunk->tokens, chunk->begin, chunk->end, want, NULL};
        assert_non_null(record);
        assert_memory_equal(record->variant_id, lease->variant_id, 32);
        assert_string_equal(record->numerics_id, assay_numerics_id());
        assert_int_equal(record->rows, chunk->end - chunk->begin);
        assert_int_equal(record->width, width);
        must(assay_model_forward(model, fixture->pool, &sequence, 1, NULL, &err), &err);
        assert_memory_equal(record->hidden, want, record->rows * width * sizeof *want);
    }
    free(want);
    assay_model_free(model);
}
