#include "services/coordinator/job.h"

#include <sodium/randombytes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

/* Each start of the coordinator goes on at a multiple of this, above all sequences of the one before. */
#define SEQUENCE_EPOCH ((uint64_t)1 << 24)
/* Events of one job in memory, unless more are stored. */
#define EVENTS_MAX 4096

void assay_job_set_string(char **string, const char *text)
{
    free(*string);
    *string = strdup(text);
}

static uint64_t next_number(void)
{
    static atomic_uint_fast64_t last;
    return atomic_fetch_add(&last, 1) + 1;
}

/* A deep copy of a message, all on the heap. */
static void *copy_message(const ProtobufCMessage *message)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(ASSAY_MAX(bytes, 1));
    if (!packed)
        return NULL;
    protobuf_c_message_pack(message, packed);
    void *copy = protobuf_c_message_unpack(message->descriptor, NULL, bytes, packed);
    free(packed);
    return copy;
}

struct assay_job *assay_job_new(struct assay_coordinator *coordinator, const Assay__V1__SubmitJobRequest *request)
{
    struct assay_job *job = calloc(1, sizeof *job);
    Assay__V1__Job *record = malloc(sizeof *record);
    uint8_t *id = malloc(ASSAY_JOB_ID_BYTES);
    if (record)
        assay__v1__job__init(record);
    Assay__V1__SubmitJobRequest *copy = copy_message(&request->base);
    if (!job || !record || !id || !copy) {
        free(job);
        free(record);
        free(id);
        if (copy)
            assay__v1__submit_job_request__free_unpacked(copy, NULL);
        return NULL;
    }
    randombytes_buf(id, ASSAY_JOB_ID_BYTES);
    job->number = next_number();
    record->has_job_id = true;
    record->job_id = (ProtobufCBinaryData){ASSAY_JOB_ID_BYTES, id};
    record->has_state = true;
    record->state = ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED;
    record->request = copy;
    record->has_submitted_wall_ms = true;
    record->submitted_wall_ms = (uint64_t)assay_wall_ms();
    job->record = record;
    job->coordinator = coordinator;
    job->next_sequence = 1;
    return job;
}

struct assay_job *assay_job_load(struct assay_coordinator *coordinator, const void *bytes, size_t len)
{
    struct assay_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->record = assay__v1__job__unpack(NULL, len, bytes);
    if (!job->record || job->record->job_id.len != ASSAY_JOB_ID_BYTES || !job->record->request) {
        assay_job_free(job);
        return NULL;
    }
    job->coordinator = coordinator;
    job->number = next_number();
    job->next_sequence = 1;
    return job;
}

void assay_job_free(struct assay_job *job)
{
    if (!job)
        return;
    for (size_t i = 0; i < job->events_count; i++)
        free(job->events[i].packed);
    free(job->events);
    assay_plan_release(&job->plan);
    if (job->record)
        assay__v1__job__free_unpacked(job->record, NULL);
    free(job);
}

bool assay_job_has_id(const struct assay_job *job, const void *id, size_t bytes)
{
    return bytes == ASSAY_JOB_ID_BYTES && memcmp(job->record->job_id.data, id, bytes) == 0;
}

char *assay_job_hex(const struct assay_job *job, char hex[2 * ASSAY_JOB_ID_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < ASSAY_JOB_ID_BYTES; i++) {
        hex[2 * i] = digits[job->record->job_id.data[i] >> 4];
        hex[2 * i + 1] = digits[job->record->job_id.data[i] & 15];
    }
    hex[2 * ASSAY_JOB_ID_BYTES] = '\0';
    return hex;
}

bool assay_job_is_over(const struct assay_job *job)
{
    switch (job->record->state) {
    case ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED:
    case ASSAY__V1__JOB_STATE__JOB_STATE_FAILED:
    case ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED:
        return true;
    default:
        return false;
    }
}

int assay_job_priority(const struct assay_job *job)
{
    return job->record->request->priority;
}

/* Every second event of progress goes: each of them says all. */
static void thin_events(struct assay_job *job)
{
    size_t kept = 0;
    bool drop = false;
    for (size_t i = 0; i < job->events_count; i++) {
        drop = !job->events[i].stored && !drop;
        if (drop)
            free(job->events[i].packed);
        else
            job->events[kept++] = job->events[i];
    }
    job->events_count = kept;
}

static bool append_packed(struct assay_job *job, uint64_t sequence, bool stored, const uint8_t *packed, size_t bytes)
{
    if (!stored && job->events_count >= EVENTS_MAX)
        thin_events(job);
    if (job->events_count == job->events_capacity) {
        size_t capacity = ASSAY_MAX(16, job->events_capacity * 2);
        struct assay_job_event *grown = realloc(job->events, capacity * sizeof *grown);
        if (!grown)
            return false;
        job->events = grown;
        job->events_capacity = capacity;
    }
    uint8_t *copy = malloc(ASSAY_MAX(bytes, 1));
    if (!copy)
        return false;
    memcpy(copy, packed, bytes);
    job->events[job->events_count++] = (struct assay_job_event){sequence, stored, copy, bytes};
    job->next_sequence = sequence + 1;
    return true;
}

void assay_job_fill_phase(const struct assay_phase *phase, int64_t now_ms, Assay__V1__Phase *ret)
{
    assay__v1__phase__init(ret);
    ret->name = (char *)(uintptr_t)phase->name;
    ret->unit = (char *)(uintptr_t)phase->unit;
    ret->has_done = ret->has_cached = ret->has_total = ret->has_elapsed_ms = true;
    ret->done = phase->done;
    ret->cached = phase->cached;
    ret->total = phase->total;
    int64_t until = phase->finished_ms ? phase->finished_ms : now_ms;
    ret->elapsed_ms = phase->started_ms ? (uint64_t)(until - phase->started_ms) : 0;
}

/* Packs an event of the job as it stands; malloc. NULL when out of memory. */
static uint8_t *pack_event(const struct assay_job *job, const char *text, size_t *ret_bytes)
{
    Assay__V1__Event event = ASSAY__V1__EVENT__INIT;
    Assay__V1__Phase phases[ASSAY_JOB_PHASES_MAX], *pointers[ASSAY_JOB_PHASES_MAX];
    int64_t now_ms = assay_now_ms();
    for (size_t i = 0; i < job->phases_count; i++) {
        assay_job_fill_phase(&job->phases[i], now_ms, &phases[i]);
        pointers[i] = &phases[i];
    }
    event.has_sequence = event.has_wall_ms = event.has_state = true;
    event.sequence = job->next_sequence;
    event.wall_ms = (uint64_t)assay_wall_ms();
    event.state = job->record->state;
    event.phases = pointers;
    event.n_phases = job->phases_count;
    event.text = (char *)(uintptr_t)text;
    event.failure = job->record->failure;
    event.has_failure_status = job->record->has_failure_status;
    event.failure_status = job->record->failure_status;
    *ret_bytes = assay__v1__event__get_packed_size(&event);
    uint8_t *packed = malloc(ASSAY_MAX(*ret_bytes, 1));
    if (packed)
        assay__v1__event__pack(&event, packed);
    return packed;
}

struct event_key {
    uint8_t job_id[ASSAY_JOB_ID_BYTES];
    uint8_t sequence_big_endian[8];
};

static struct event_key event_key_of(const struct assay_job *job, uint64_t sequence)
{
    struct event_key key;
    memcpy(key.job_id, job->record->job_id.data, sizeof key.job_id);
    for (int i = 0; i < 8; i++)
        key.sequence_big_endian[i] = (uint8_t)(sequence >> (56 - 8 * i));
    return key;
}

enum assay_status assay_job_commit(struct assay_job *job, struct assay_store *store, const void *corpus,
                                   size_t corpus_bytes, const char *text, struct assay_err *err)
{
    size_t event_bytes, record_bytes = assay__v1__job__get_packed_size(job->record);
    assay_auto(assay_free_ptr) uint8_t *event = pack_event(job, text, &event_bytes);
    assay_auto(assay_free_ptr) uint8_t *record = malloc(record_bytes);
    if (!event || !record)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while storing a job");
    assay__v1__job__pack(job->record, record);
    struct event_key key = event_key_of(job, job->next_sequence);
    const uint8_t *id = job->record->job_id.data;
    const struct assay_put puts[] = {
        {"jobs", id, ASSAY_JOB_ID_BYTES, record, record_bytes},
        {"events", &key, sizeof key, event, event_bytes},
        {"corpora", id, ASSAY_JOB_ID_BYTES, corpus, corpus_bytes},
    };
    enum assay_status status = assay_store_put(store, puts, corpus ? 3 : 2, err);
    if (status == ASSAY_OK && !append_packed(job, job->next_sequence, true, event, event_bytes))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the event log of a job");
    job->progressed = false;
    return status;
}

enum assay_status assay_job_erase(struct assay_job *job, struct assay_store *store, struct assay_err *err)
{
    size_t count = 0, keys_count = job->events_count + 1;
    const uint8_t *id = job->record->job_id.data;
    assay_auto(assay_free_ptr) struct event_key *keys = calloc(keys_count, sizeof *keys);
    assay_auto(assay_free_ptr) struct assay_put *puts = calloc(keys_count + 2, sizeof *puts);
    if (!keys || !puts)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while removing a job");
    puts[count++] = (struct assay_put){"jobs", id, ASSAY_JOB_ID_BYTES, NULL, 0};
    puts[count++] = (struct assay_put){"corpora", id, ASSAY_JOB_ID_BYTES, NULL, 0};
    for (size_t i = 0; i < job->events_count; i++) {
        if (!job->events[i].stored)
            continue;
        keys[i] = event_key_of(job, job->events[i].sequence);
        puts[count++] = (struct assay_put){"events", &keys[i], sizeof keys[i], NULL, 0};
    }
    return assay_store_put(store, puts, count, err);
}

void assay_job_reset(struct assay_job *job)
{
    Assay__V1__Job *record = job->record;
    assay_plan_release(&job->plan);
    memset(job->runs, 0, sizeof job->runs);
    job->phases_count = 0;
    atomic_store(&job->cancel, false);
    job->ending = false;
    job->keeps_partial = false;
    record->partial = false;
    for (size_t i = 0; i < record->n_results; i++)
        assay__v1__variant_result__free_unpacked(record->results[i], NULL);
    free(record->results);
    record->results = NULL;
    record->n_results = 0;
    free(record->failure);
    record->failure = NULL;
    record->has_failure_status = record->has_finished_wall_ms = record->has_started_wall_ms = false;
    record->has_verdict = record->has_partial = record->has_saved_us = record->has_score_us = false;
}

struct load_state {
    struct assay_job *job;
    bool failed;
};

static bool load_event(void *arg, const void *key_bytes, size_t len, const void *value, size_t value_bytes)
{
    struct load_state *state = arg;
    const struct event_key *key = key_bytes;
    if (len != sizeof *key)
        return true;
    uint64_t sequence = 0;
    for (int i = 0; i < 8; i++)
        sequence = sequence << 8 | key->sequence_big_endian[i];
    state->failed = !append_packed(state->job, sequence, true, value, value_bytes);
    return !state->failed;
}

enum assay_status assay_job_load_events(struct assay_job *job, struct assay_store *store, struct assay_err *err)
{
    struct load_state state = {job, false};
    enum assay_status status =
        assay_store_visit(store, "events", job->record->job_id.data, ASSAY_JOB_ID_BYTES, true, load_event, &state, err);
    if (status == ASSAY_OK && state.failed)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the event log of a job");
    job->next_sequence = (job->next_sequence / SEQUENCE_EPOCH + 1) * SEQUENCE_EPOCH;
    return status;
}

void assay_job_note_run(struct assay_job_run *run)
{
    struct assay_job *job = run->job;
    Assay__V1__VariantResult *result = job->record->results[run - job->runs];
    size_t done = assay_run_done(run->run), ran = assay_run_ran(run->run);
    result->has_chunks_run = result->has_chunks_cached = true;
    result->chunks_run = ran;
    result->chunks_cached = done - ASSAY_MIN(ran, done);
    assay_job_advance(job, run->phase, done, result->chunks_cached, assay_run_total(run->run));
}

void assay_job_note_progress(struct assay_job *job)
{
    if (!job->progressed)
        return;
    size_t bytes;
    assay_auto(assay_free_ptr) uint8_t *packed = pack_event(job, NULL, &bytes);
    if (packed && append_packed(job, job->next_sequence, false, packed, bytes))
        job->progressed = false;
}

const struct assay_job_event *assay_job_event_from(const struct assay_job *job, uint64_t from)
{
    size_t low = 0, high = job->events_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (job->events[middle].sequence < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < job->events_count ? &job->events[low] : NULL;
}

size_t assay_job_add_phase(struct assay_job *job, const char *verb, const char *label, const char *unit, uint64_t total)
{
    if (job->phases_count >= ASSAY_JOB_PHASES_MAX)
        ASSAY_BUG("a job has more phases than its variants allow");
    struct assay_phase *phase = &job->phases[job->phases_count];
    *phase = (struct assay_phase){.unit = unit, .total = total};
    snprintf(phase->name, sizeof phase->name, "%s%s%s", verb, label[0] ? " " : "", label);
    job->progressed = true;
    return job->phases_count++;
}

void assay_job_advance(struct assay_job *job, size_t phase_index, uint64_t done, uint64_t cached, uint64_t total)
{
    struct assay_phase *phase = &job->phases[phase_index];
    int64_t now_ms = assay_now_ms();
    if (!phase->started_ms)
        phase->started_ms = now_ms;
    phase->done = done;
    phase->cached = cached;
    phase->total = total;
    phase->finished_ms = done >= total ? (phase->finished_ms ? phase->finished_ms : now_ms) : 0;
    job->progressed = true;
}
