#include "services/coordinator/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/obs/spans.h"

bool assay_driver_must_stop(struct assay_job *job)
{
    struct assay_coordinator *c = job->coordinator;
    pthread_mutex_lock(&c->lock);
    bool stop = c->stopping || atomic_load(&job->cancel);
    pthread_mutex_unlock(&c->lock);
    return stop;
}

/* Locked: waits for a change, at most `ms`. */
static void wait_changed(struct assay_coordinator *c, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

void assay_driver_pause(struct assay_job *job, int64_t ms)
{
    struct assay_coordinator *c = job->coordinator;
    int64_t until_ms = assay_now_ms() + ms;
    pthread_mutex_lock(&c->lock);
    for (int64_t left = ms; left > 0 && !c->stopping && !atomic_load(&job->cancel); left = until_ms - assay_now_ms())
        wait_changed(c, left);
    pthread_mutex_unlock(&c->lock);
}

bool assay_driver_retriable(enum assay_status status)
{
    return status == ASSAY_UNAVAILABLE || status == ASSAY_RESOURCE_EXHAUSTED || status == ASSAY_ABORTED ||
           status == ASSAY_DEADLINE_EXCEEDED;
}

enum assay_status assay_driver_wait_service(struct assay_job *job, enum assay_service_kind kind,
                                            char endpoint[ASSAY_SHARD_ENDPOINT_MAX], struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    enum assay_status status = ASSAY_CANCELLED;
    pthread_mutex_lock(&c->lock);
    while (!c->stopping && !atomic_load(&job->cancel)) {
        const struct assay_service *service = assay_registry_pick(&c->registry, kind);
        if (service) {
            snprintf(endpoint, ASSAY_SHARD_ENDPOINT_MAX, "%s", service->endpoint);
            status = ASSAY_OK;
            break;
        }
        wait_changed(c, 1000);
    }
    pthread_mutex_unlock(&c->lock);
    return status == ASSAY_OK ? status : assay_err_set(err, status, "the job was cancelled");
}

enum assay_status assay_driver_wait_shards(struct assay_job *job, struct assay_shard_map **ret, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    struct assay_shard_map *map = malloc(sizeof *map);
    if (!map)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    bool found = false;
    pthread_mutex_lock(&c->lock);
    while (!found && !c->stopping && !atomic_load(&job->cancel)) {
        found = assay_shard_map_owners(&c->shards.map) > 0;
        if (found)
            *map = c->shards.map;
        else
            wait_changed(c, 1000);
    }
    pthread_mutex_unlock(&c->lock);
    if (found) {
        *ret = map;
        return ASSAY_OK;
    }
    free(map);
    return assay_err_set(err, ASSAY_CANCELLED, "the job was cancelled");
}

void assay_variant_message_fill(const struct assay_plan *plan, const struct assay_plan_variant *variant,
                                struct assay_variant_message *ret)
{
    assay__v1__variant__init(&ret->variant);
    assay_spec_message_fill(&ret->spec, variant->label);
    ret->spec.spec.compute = (char *)(uintptr_t)assay_compute_name(variant->spec.compute);
    ret->variant.has_variant_id = ret->variant.has_model_id = true;
    ret->variant.variant_id = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)variant->id.digest.bytes};
    ret->variant.model_id =
        (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)plan->model_id.digest.bytes};
    ret->variant.spec = &ret->spec.spec;
    ret->variant.label = (char *)(uintptr_t)variant->label;
    ret->variant.artifact_dir = (char *)(uintptr_t)variant->artifact_dir;
}

/* A heap copy of a digest as a message's bytes. */
static ProtobufCBinaryData copy_digest(const struct assay_digest *digest)
{
    uint8_t *bytes = malloc(ASSAY_DIGEST_BYTES);
    if (!bytes)
        return (ProtobufCBinaryData){0, NULL};
    memcpy(bytes, digest->bytes, ASSAY_DIGEST_BYTES);
    return (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, bytes};
}

/* A VariantResult on the heap with its Variant; NULL when out of memory. */
static Assay__V1__VariantResult *new_result(const struct assay_plan *plan, const struct assay_plan_variant *variant)
{
    struct assay_variant_message message;
    assay_variant_message_fill(plan, variant, &message);
    Assay__V1__VariantResult source = ASSAY__V1__VARIANT_RESULT__INIT;
    source.variant = &message.variant;
    size_t bytes = assay__v1__variant_result__get_packed_size(&source);
    assay_auto(assay_free_ptr) uint8_t *packed = malloc(bytes);
    if (!packed)
        return NULL;
    assay__v1__variant_result__pack(&source, packed);
    return assay__v1__variant_result__unpack(NULL, bytes, packed);
}

/* Locked: what the plan found out goes into the record. A resumed job starts its results anew. */
static enum assay_status note_plan(struct assay_job *job, struct assay_err *err)
{
    const struct assay_plan *plan = &job->plan;
    Assay__V1__Job *record = job->record;
    for (size_t i = 0; i < record->n_results; i++)
        assay__v1__variant_result__free_unpacked(record->results[i], NULL);
    free(record->results);
    record->n_results = 0;
    record->results = calloc(plan->variants_count, sizeof *record->results);
    for (size_t i = 0; record->results && i < plan->variants_count; i++) {
        record->results[i] = new_result(plan, &plan->variants[i]);
        if (!record->results[i])
            break;
        record->n_results++;
    }
    free(record->model_id.data);
    free(record->corpus_digest.data);
    free(record->tokenizer_digest.data);
    record->model_id = copy_digest(&plan->model_id.digest);
    record->corpus_digest = copy_digest(&plan->corpus_digest);
    record->tokenizer_digest = copy_digest(&plan->tokenizer_digest);
    if (record->n_results < plan->variants_count || !record->model_id.data || !record->corpus_digest.data ||
        !record->tokenizer_digest.data)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the results of a job");
    record->has_model_id = record->has_corpus_digest = record->has_tokenizer_digest = true;
    record->has_chunks = record->has_tokens = record->has_scored_positions = true;
    record->chunks = plan->chunks.count;
    record->tokens = plan->chunks.corpus_tokens;
    record->scored_positions = plan->scored_positions;
    record->has_adds_bos = record->has_parameters = true;
    record->adds_bos = plan->chunks.adds_bos;
    record->parameters = plan->parameters;
    assay_job_set_string(&record->architecture, plan->model.architecture);
    for (size_t i = 0; i < plan->variants_count; i++) {
        job->runs[i] = (struct assay_job_run){.job = job};
        assay_job_add_phase(job, "quantize", plan->variants[i].label, "tensors", 0);
    }
    for (size_t i = 0; i < plan->variants_count; i++)
        job->runs[i].phase = assay_job_add_phase(job, "run", plan->variants[i].label, "chunks", plan->run_count);
    assay_job_add_phase(job, "score", "", "chunks", plan->chunks.count);
    return ASSAY_OK;
}

static enum assay_status make_plan(struct assay_job *job, const char *corpus, size_t corpus_bytes,
                                   struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    struct assay_plan plan;
    struct assay_span span;
    assay_span_begin(&span, "plan", NULL);
    enum assay_status status =
        assay_plan_make(job->record->request, corpus, corpus_bytes, c->data_dir, c->store, &plan, err);
    assay_span_end(&span);
    if (status != ASSAY_OK)
        return status;
    pthread_mutex_lock(&c->lock);
    job->plan = plan;
    job->phases_count = 0;
    status = note_plan(job, err);
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    return status;
}

enum assay_status assay_driver_keep_summary(struct assay_job *job, size_t index,
                                            const Assay__V1__ArtifactSummary *summary, struct assay_err *err)
{
    size_t bytes = assay__v1__artifact_summary__get_packed_size(summary);
    assay_auto(assay_free_ptr) uint8_t *packed = malloc(ASSAY_MAX(bytes, 1));
    Assay__V1__ArtifactSummary *copy = NULL;
    if (packed) {
        assay__v1__artifact_summary__pack(summary, packed);
        copy = assay__v1__artifact_summary__unpack(NULL, bytes, packed);
    }
    if (!copy)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for an artifact's summary");
    pthread_mutex_lock(&job->coordinator->lock);
    Assay__V1__VariantResult *result = job->record->results[index];
    if (result->artifact)
        assay__v1__artifact_summary__free_unpacked(result->artifact, NULL);
    result->artifact = copy;
    pthread_mutex_unlock(&job->coordinator->lock);
    return ASSAY_OK;
}

/* A variant that stands twice, such as the reference against itself, is made and run once. */
static enum assay_status share_steps(struct assay_job *job, size_t index, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    size_t first = job->plan.variants[index].same_as;
    Assay__V1__VariantResult *result = job->record->results[index];
    enum assay_status status = assay_driver_keep_summary(job, index, job->record->results[first]->artifact, err);
    pthread_mutex_lock(&c->lock);
    result->has_chunks_cached = true;
    result->chunks_cached = job->plan.run_count;
    assay_job_advance(job, index, job->phases[first].total, job->phases[first].total, job->phases[first].total);
    assay_job_advance(job, job->runs[index].phase, job->plan.run_count, job->plan.run_count, job->plan.run_count);
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    return status;
}

static enum assay_status trace_step(const char *name,
                                    enum assay_status (*step)(struct assay_job *, size_t, struct assay_err *),
                                    struct assay_job *job, size_t index, struct assay_err *err)
{
    struct assay_span span;
    assay_span_begin(&span, name, NULL);
    assay_span_text(&span, "variant", job->plan.variants[index].label);
    enum assay_status status = step(job, index, err);
    assay_span_text(&span, "status", assay_status_name(status));
    assay_span_end(&span);
    return status;
}

static enum assay_status run_steps(struct assay_job *job, const char *corpus, size_t corpus_bytes,
                                   struct assay_err *err)
{
    enum assay_status status = make_plan(job, corpus, corpus_bytes, err);
    for (size_t i = 0; i < job->plan.variants_count && status == ASSAY_OK; i++) {
        if (job->plan.variants[i].same_as != i) {
            status = share_steps(job, i, err);
            continue;
        }
        status = trace_step("job.quantize", assay_step_quantize, job, i, err);
        if (status == ASSAY_OK)
            status = trace_step("job.lookup", assay_step_run, job, i, err);
    }
    if (status != ASSAY_OK)
        return status;
    struct assay_span span;
    assay_span_begin(&span, "job.score", NULL);
    status = assay_step_score(job, err);
    assay_span_end(&span);
    return status;
}

/* Time of the forward passes that cached records saved, at the rate measured in this job or in the one that ran them;
 * kept in table "rates" by variant. */
static void note_rates(struct assay_job *job)
{
    struct assay_coordinator *c = job->coordinator;
    uint64_t saved_us = 0;
    bool known = true;
    for (size_t i = 0; i < job->plan.variants_count; i++) {
        const struct assay_job_run *run = &job->runs[i];
        const struct assay_variant_id *id = &job->plan.variants[i].id;
        uint64_t rate[2] = {run->compute_us, job->record->results[i]->chunks_run};
        uint64_t cached = job->plan.variants[i].same_as == i ? job->record->results[i]->chunks_cached : 0;
        if (rate[1]) {
            const struct assay_put put = {"rates", id, sizeof *id, rate, sizeof rate};
            struct assay_err err = ASSAY_ERR_INIT;
            if (assay_store_put(c->store, &put, 1, &err) != ASSAY_OK)
                assay_log(ASSAY_LOG_WARN, "cannot keep a rate reason=\"%s\"", err.text);
        } else if (cached) {
            assay_auto(assay_free_ptr) void *value = NULL;
            size_t bytes;
            if (assay_store_get(c->store, "rates", id, sizeof *id, &value, &bytes, NULL) == ASSAY_OK &&
                bytes == sizeof rate)
                memcpy(rate, value, sizeof rate);
        }
        if (cached && rate[1])
            saved_us += cached * rate[0] / rate[1];
        else if (cached)
            known = false;
    }
    job->record->has_saved_us = known;
    job->record->saved_us = saved_us;
}

/* Locked: counts of the runs go into the record, the runs out of the scheduler. */
static void close_runs(struct assay_job *job)
{
    for (size_t i = 0; i < job->plan.variants_count; i++) {
        struct assay_job_run *run = &job->runs[i];
        if (!run->run)
            continue;
        Assay__V1__VariantResult *result = job->record->results[i];
        assay_job_note_run(run);
        result->has_compute_us = result->has_tokens_run = true;
        result->tokens_run = run->tokens_run;
        result->compute_us = run->compute_us;
        snprintf(run->numerics, sizeof run->numerics, "%s", assay_run_numerics(run->run));
        assay_scheduler_remove(job->coordinator->scheduler, run->run);
        run->run = NULL;
    }
}

static void finish(struct assay_job *job, enum assay_status status, const struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    Assay__V1__Job *record = job->record;
    pthread_mutex_lock(&c->lock);
    bool cancelled = atomic_load(&job->cancel);
    struct assay_partial *partial = cancelled && job->keeps_partial && !c->stopping ? assay_partial_begin(job) : NULL;
    job->ending = true;
    close_runs(job);
    if (partial) {
        /* From here on another cancel ends the scoring. */
        atomic_store(&job->cancel, false);
        assay_coordinator_changed(c);
        pthread_mutex_unlock(&c->lock);
        bool scored = assay_partial_score(partial);
        pthread_mutex_lock(&c->lock);
        record->has_partial = record->partial = scored;
    }
    record->has_finished_wall_ms = true;
    record->finished_wall_ms = (uint64_t)assay_wall_ms();
    if (status == ASSAY_OK)
        note_rates(job);
    if (status == ASSAY_OK && assay_report_fill(record)) {
        assay_job_enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED, "job completed");
    } else if (cancelled) {
        assay_job_enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED,
                        record->partial ? "job cancelled, with a partial result" : "job cancelled");
    } else if (!c->stopping) {
        record->has_failure_status = true;
        record->failure_status = (uint32_t)(status == ASSAY_OK ? ASSAY_RESOURCE_EXHAUSTED : status);
        assay_job_set_string(&record->failure,
                             status == ASSAY_OK ? "out of memory for the report of a job" : err->text);
        assay_job_enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_FAILED, "job failed");
    }
    pthread_mutex_unlock(&c->lock);
}

void assay_driver_run(struct assay_job *job)
{
    struct assay_coordinator *c = job->coordinator;
    struct assay_err err = {ASSAY_CANCELLED, "the job was cancelled"};
    char hex[2 * ASSAY_JOB_ID_BYTES + 1];
    struct assay_span span;
    void *corpus = NULL;
    size_t bytes = 0;
    enum assay_status status = ASSAY_CANCELLED;
    assay_trace_set(assay_job_hex(job, hex));
    assay_span_begin(&span, "job", NULL);
    if (!assay_driver_must_stop(job))
        status =
            assay_store_get(c->store, "corpora", job->record->job_id.data, ASSAY_JOB_ID_BYTES, &corpus, &bytes, &err);
    if (status == ASSAY_OK)
        status = run_steps(job, corpus, bytes, &err);
    free(corpus);
    finish(job, status, &err);
    assay_span_number(&span, "variants", (int64_t)job->plan.variants_count);
    assay_span_number(&span, "chunks", (int64_t)job->plan.chunks.count);
    assay_span_text(&span, "status", assay_status_name(status));
    assay_span_end(&span);
}
