#include "services/coordinator/driver.h"
#include "services/coordinator/engine.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/shard_message.h"
#include "proto/metric.pb-c.h"

enum { METHOD_SCORE = 0 };

/* Locked. */
static void note_lookups(const struct assay_job *job, const struct assay_run *run)
{
    static const char *const outcomes[] = {"hit", "miss"};
    struct assay_metric *lookups = job->coordinator->metrics.records_found;
    assay_counter_add(assay_metric_series(lookups, &outcomes[0]), assay_run_done(run));
    assay_counter_add(assay_metric_series(lookups, &outcomes[1]), assay_run_total(run) - assay_run_done(run));
}

static enum assay_status add_run(struct assay_job *job, size_t index, const struct assay_have *have,
                                 struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    const struct assay_plan_variant *variant = &job->plan.variants[index];
    struct assay_job_run *run = &job->runs[index];
    enum assay_status status = ASSAY_OK;
    pthread_mutex_lock(&c->lock);
    if (run->run) {
        assay_run_reconcile(run->run, have->bits);
    } else {
        char queue[ASSAY_QUEUE_BYTES_MAX];
        const struct assay_run_options options = {.precision = assay_queue_of_spec(&variant->spec, queue),
                                                  .variant = variant->id,
                                                  .f16 = job->plan.record_dtype == ASSAY__V1__DTYPE__DTYPE_F16,
                                                  .numerics = have->numerics,
                                                  .keys = job->plan.run_keys,
                                                  .have = have->bits,
                                                  .count = job->plan.run_count,
                                                  .job = job->number,
                                                  .paused =
                                                      job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED,
                                                  .priority = assay_job_priority(job),
                                                  .owner = run};
        status = assay_scheduler_add(c->scheduler, &options, &run->run, err);
        if (status == ASSAY_OK)
            note_lookups(job, run->run);
    }
    if (status == ASSAY_OK) {
        run->epoch = have->epoch;
        assay_job_note_run(run);
        assay_coordinator_changed(c);
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

static enum assay_status run_once(struct assay_job *job, size_t index, struct assay_err *err)
{
    struct assay_have have = {0};
    assay_auto(assay_free_ptr) struct assay_shard_map *map = NULL;
    enum assay_status status = assay_driver_wait_shards(job, &map, err);
    if (status == ASSAY_OK)
        status = assay_have_ask(job->coordinator->loop, map, &job->plan, index, NULL, &have, err);
    if (status == ASSAY_OK)
        status = add_run(job, index, &have, err);
    assay_have_release(&have);
    return status;
}

enum assay_status assay_step_run(struct assay_job *job, size_t index, struct assay_err *err)
{
    enum { PAUSE_MS = 500 };
    for (;;) {
        struct assay_err failure = ASSAY_ERR_INIT;
        enum assay_status status = run_once(job, index, &failure);
        if (status == ASSAY_OK || !assay_driver_retriable(status)) {
            *err = failure;
            return status;
        }
        assay_log(ASSAY_LOG_WARN, "the evaluator is asked again reason=\"%s\"", failure.text);
        assay_driver_pause(job, PAUSE_MS);
        if (assay_driver_must_stop(job))
            return assay_err_set(err, ASSAY_CANCELLED, "the job was cancelled");
    }
}

/* The request's arrays; the strings and bytes point into the plan. */
struct score_request {
    Assay__V1__ScoreRequest request;
    Assay__V1__Tensor ids;
    uint64_t ids_shape[1];
    struct assay_variant_message *variants;
    Assay__V1__Variant **variant_pointers;
    ProtobufCBinaryData *keys;
    uint32_t *tokens, *begins, *ends;
    struct assay_shard_message *shards;
    char (*numerics)[sizeof((struct assay_have *)0)->numerics];
    char **numerics_pointers;
    char quantizer[ASSAY_SHARD_ENDPOINT_MAX];
    int32_t *part_ids; /* of a part; NULL: the plan's */
};

static void score_request_release(struct score_request *r)
{
    free(r->part_ids);
    free(r->variants);
    free(r->variant_pointers);
    free(r->keys);
    free(r->tokens);
    free(r->begins);
    free(r->ends);
    free(r->shards);
    free(r->numerics);
    free(r->numerics_pointers);
}

/* Evaluators choose among sets of records for their share only; several must choose alike. */
static void fill_numerics(const struct assay_job *job, struct score_request *r)
{
    size_t count = job->plan.variants_count;
    pthread_mutex_lock(&job->coordinator->lock);
    for (size_t i = 0; i < count; i++) {
        const struct assay_job_run *run = &job->runs[job->plan.variants[i].same_as];
        strncpy(r->numerics[i], run->run ? assay_run_numerics(run->run) : run->numerics, sizeof r->numerics[i] - 1);
        r->numerics_pointers[i] = r->numerics[i];
    }
    pthread_mutex_unlock(&job->coordinator->lock);
    r->request.n_numerics_ids = count;
    r->request.numerics_ids = r->numerics_pointers;
}

/* Who serves the heads to evaluators that do not see the artifacts. */
static void fill_artifact_endpoint(const struct assay_job *job, struct score_request *r)
{
    struct assay_coordinator *c = job->coordinator;
    pthread_mutex_lock(&c->lock);
    const struct assay_service *quantizer = assay_registry_pick(&c->registry, ASSAY_SERVICE_QUANTIZER);
    if (quantizer)
        strcpy(r->quantizer, quantizer->endpoint);
    pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; r->quantizer[0] && i < job->plan.variants_count; i++)
        r->variants[i].variant.artifact_endpoint = r->quantizer;
}

static bool score_request_fill(const struct assay_job *job, const struct assay_shard_map *map, struct score_request *r)
{
    const struct assay_plan *plan = &job->plan;
    size_t n = plan->chunks.count;
    *r = (struct score_request){.variants = calloc(plan->variants_count, sizeof *r->variants),
                                .variant_pointers = calloc(plan->variants_count, sizeof *r->variant_pointers),
                                .keys = calloc(n, sizeof *r->keys),
                                .tokens = calloc(n, sizeof *r->tokens),
                                .begins = calloc(n, sizeof *r->begins),
                                .ends = calloc(n, sizeof *r->ends),
                                .shards = assay_shard_message_new(map),
                                .numerics = calloc(plan->variants_count, sizeof *r->numerics),
                                .numerics_pointers = calloc(plan->variants_count, sizeof *r->numerics_pointers)};
    assay__v1__score_request__init(&r->request);
    if (!r->variants || !r->variant_pointers || !r->keys || !r->tokens || !r->begins || !r->ends || !r->shards ||
        !r->numerics || !r->numerics_pointers)
        return false;
    r->request.shard_map = &r->shards->message;
    if (assay_shard_map_owners(map) > 1)
        fill_numerics(job, r);
    for (size_t i = 0; i < plan->variants_count; i++) {
        assay_variant_message_fill(plan, &plan->variants[i], &r->variants[i]);
        r->variant_pointers[i] = &r->variants[i].variant;
    }
    fill_artifact_endpoint(job, r);
    size_t ids = 0;
    for (size_t i = 0; i < n; i++) {
        const struct assay_chunk *chunk = &plan->chunks.at[i];
        r->keys[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)chunk->key.digest.bytes};
        r->tokens[i] = chunk->tokens;
        r->begins[i] = chunk->score_begin;
        r->ends[i] = chunk->score_end;
        ids += chunk->tokens;
    }
    assay__v1__tensor__init(&r->ids);
    r->ids_shape[0] = ids;
    r->ids.has_dtype = r->ids.has_attachment = true;
    r->ids.dtype = ASSAY__V1__DTYPE__DTYPE_I32;
    r->ids.n_shape = 1;
    r->ids.shape = r->ids_shape;
    r->request.has_job_id = true;
    r->request.job_id = job->record->job_id;
    r->request.reference = r->variant_pointers[0];
    r->request.n_variants = plan->variants_count - 1;
    r->request.variants = r->variant_pointers + 1;
    r->request.protocol = (char *)(uintptr_t)plan->protocol->name;
    r->request.n_chunk_keys = r->request.n_chunk_tokens = r->request.n_score_begin = r->request.n_score_end = n;
    r->request.chunk_keys = r->keys;
    r->request.chunk_tokens = r->tokens;
    r->request.score_begin = r->begins;
    r->request.score_end = r->ends;
    r->request.ids = &r->ids;
    r->request.has_record_dtype = true;
    r->request.record_dtype = plan->record_dtype;
    return true;
}

/* Leaves one variant and the chunks of a part in a request for all. */
static bool score_request_narrow(const struct assay_job *job, const struct assay_score_part *part,
                                 struct score_request *r)
{
    const struct assay_chunks *chunks = &job->plan.chunks;
    size_t kept = 0, ids = 0;
    r->part_ids = malloc(ASSAY_MAX(r->ids_shape[0], 1u) * sizeof *r->part_ids);
    if (!r->part_ids)
        return false;
    for (size_t i = 0; i < chunks->count; i++) {
        if (!part->chunks[i])
            continue;
        r->keys[kept] = r->keys[i];
        r->tokens[kept] = r->tokens[i];
        r->begins[kept] = r->begins[i];
        r->ends[kept++] = r->ends[i];
        memcpy(r->part_ids + ids, chunks->at[i].ids, chunks->at[i].tokens * sizeof *r->part_ids);
        ids += chunks->at[i].tokens;
    }
    r->ids_shape[0] = ids;
    r->request.n_variants = 1;
    r->request.variants = r->variant_pointers + part->variant;
    if (r->request.n_numerics_ids) {
        r->numerics_pointers[1] = r->numerics[part->variant];
        r->request.n_numerics_ids = 2;
    }
    r->request.n_chunk_keys = r->request.n_chunk_tokens = r->request.n_score_begin = r->request.n_score_end = kept;
    return true;
}

static enum assay_status keep_score(Assay__V1__VariantResult *result, const Assay__V1__VariantScore *score,
                                    uint64_t chunks, struct assay_err *err)
{
    size_t bytes = assay__v1__variant_score__get_packed_size(score);
    assay_auto(assay_free_ptr) uint8_t *packed = malloc(ASSAY_MAX(bytes, 1));
    if (!packed)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the scores of a job");
    assay__v1__variant_score__pack(score, packed);
    if (result->score)
        assay__v1__variant_score__free_unpacked(result->score, NULL);
    result->score = assay__v1__variant_score__unpack(NULL, bytes, packed);
    result->has_chunks_scored = true;
    result->chunks_scored = chunks;
    return ASSAY_OK;
}

/* Locked. Scores of the last message go into the record: the reference first. The reference's are those of the largest
 * part. */
static enum assay_status keep_scores(struct assay_job *job, const struct assay_score_part *part,
                                     const Assay__V1__ScoreReply *reply, struct assay_err *err)
{
    Assay__V1__Job *record = job->record;
    size_t wanted = part ? 2 : record->n_results;
    enum assay_status status = ASSAY_OK;
    if (reply->n_scores != wanted)
        return assay_err_set(err, ASSAY_INTERNAL, "the evaluator scored %zu of %zu variants", reply->n_scores, wanted);
    for (size_t i = 0; i < reply->n_scores && status == ASSAY_OK; i++) {
        Assay__V1__VariantResult *result = record->results[part && i == 1 ? part->variant : i];
        if (!part || i == 1 || part->count >= result->chunks_scored)
            status = keep_score(result, reply->scores[i], part ? part->count : job->plan.chunks.count, err);
    }
    record->has_score_us = true;
    record->score_us = reply->compute_us;
    return status;
}

/* Locked: NULL, or why the run waits in vain: no worker that is there and could take it has room for its model. */
static const char *refused_by_all(const struct assay_coordinator *c, const struct assay_run *run)
{
    const char *precision = assay_run_precision(run), *numerics = assay_run_numerics(run), *refusal = NULL;
    const struct assay_service *worker = NULL;
    while ((worker = assay_registry_next(&c->registry, ASSAY_SERVICE_INFERENCE, worker))) {
        char bound[ASSAY_QUEUE_BYTES_MAX];
        assay_queue_of_worker(worker->precision, worker->numerics, bound);
        bool serves = strcmp(worker->precision, precision) == 0 || strcmp(bound, precision) == 0;
        if (!serves || worker->health == ASSAY_HEALTH_DEAD || (numerics[0] && strcmp(numerics, worker->numerics) != 0))
            continue;
        refusal = assay_run_refusal(run, worker->id);
        if (!refusal)
            return NULL;
    }
    return refusal;
}

/* Locked: a failure of a worker that no retry mends, a chunk that failed too often, or a model that fits nowhere. */
static enum assay_status check_runs(struct assay_job *job, struct assay_err *err)
{
    for (size_t i = 0; i < job->plan.variants_count; i++) {
        const struct assay_job_run *run = &job->runs[i];
        if (run->failure.status != ASSAY_OK)
            return assay_err_set(err, run->failure.status, "%s", run->failure.text);
        const char *reason = run->run ? assay_run_dead_reason(run->run) : NULL;
        if (reason)
            return assay_err_set(err, ASSAY_ABORTED, "%s", reason);
        const char *refusal =
            run->run && assay_run_pending(run->run) > 0 ? refused_by_all(job->coordinator, run->run) : NULL;
        if (refusal)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "variant %s fits into the memory of no worker: %s",
                                 job->plan.variants[i].label, refusal);
    }
    return ASSAY_OK;
}

/* One message of the stream. */
static enum assay_status take_reply(struct assay_job *job, const struct assay_score_part *part,
                                    const Assay__V1__ScoreReply *reply, bool *scored, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    enum assay_status status = ASSAY_OK;
    pthread_mutex_lock(&c->lock);
    if (!part)
        assay_job_advance(job, job->phases_count - 1, reply->chunks_done, reply->chunks_cached, reply->chunks_total);
    if (reply->n_scores) {
        status = keep_scores(job, part, reply, err);
        *scored = status == ASSAY_OK;
    }
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    return status;
}

static enum assay_status reconcile_runs(struct assay_job *job, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < job->plan.variants_count && status == ASSAY_OK; i++)
        if (job->plan.variants[i].same_as == i)
            status = assay_step_run(job, i, err);
    return status;
}

/* What is to be done about records that the evaluator misses. */
static enum assay_status take_lost(struct assay_job *job, const struct assay_score_part *part, struct assay_err *err)
{
    return part ? assay_err_set(err, ASSAY_ABORTED, "the evaluator misses records that it had")
                : reconcile_runs(job, err);
}

static enum assay_status follow(struct assay_job *job, const struct assay_score_part *part, struct assay_stream *stream,
                                struct assay_err *err)
{
    bool scored = false;
    for (;;) {
        struct assay_reply *reply = NULL;
        enum assay_status status = assay_stream_next(stream, 200, &reply, err);
        if (status == ASSAY_DEADLINE_EXCEEDED && err->text[0] == '\0')
            status = ASSAY_OK;
        else if (status == ASSAY_OK && !reply)
            return scored ? ASSAY_OK : assay_err_set(err, ASSAY_INTERNAL, "the evaluator ended without scores");
        if (status == ASSAY_OK && reply) {
            const Assay__V1__ScoreReply *message = assay_reply_message(reply);
            status = take_reply(job, part, message, &scored, err);
            if (status == ASSAY_OK && message->n_lost_chunk_keys)
                status = take_lost(job, part, err);
        }
        assay_reply_free(reply);
        if (status == ASSAY_OK && assay_driver_must_stop(job))
            status = assay_err_set(err, ASSAY_CANCELLED, "the job was cancelled");
        if (status == ASSAY_OK && part && assay_now_ms() >= part->until_ms)
            status = assay_err_set(err, ASSAY_DEADLINE_EXCEEDED, "scoring what was there took too long");
        if (status == ASSAY_OK && !scored && !part) {
            pthread_mutex_lock(&job->coordinator->lock);
            status = check_runs(job, err);
            pthread_mutex_unlock(&job->coordinator->lock);
        }
        if (status != ASSAY_OK)
            return status;
    }
}

/* What was there when the evaluators were others may have gone with one of them. */
static enum assay_status refresh_runs(struct assay_job *job, const struct assay_shard_map *map, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < job->plan.variants_count && status == ASSAY_OK; i++)
        if (job->plan.variants[i].same_as == i && job->runs[i].epoch != map->epoch)
            status = assay_step_run(job, i, err);
    return status;
}

/* The evaluator that merges what the others find; jobs are spread as chunks are. */
static const char *leader_of(const struct assay_job *job, const struct assay_shard_map *map)
{
    struct assay_chunk_key key = {0};
    memcpy(key.digest.bytes, job->record->job_id.data, ASSAY_MIN(job->record->job_id.len, sizeof key.digest.bytes));
    return map->shards[assay_shard_map_owner(map, &key)].endpoint;
}

static enum assay_status score_with(struct assay_job *job, const struct assay_shard_map *map,
                                    const struct assay_score_part *part, struct assay_err *err)
{
    struct assay_client *client = NULL;
    struct assay_stream *stream = NULL;
    struct score_request request;
    enum assay_status status = ASSAY_OK;
    if (!score_request_fill(job, map, &request) || (part && !score_request_narrow(job, part, &request)))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a request of %zu chunks",
                               job->plan.chunks.count);
    if (status == ASSAY_OK)
        status = assay_client_new(job->coordinator->loop, leader_of(job, map), &client, err);
    if (status == ASSAY_OK) {
        const struct assay_attachment ids = {.data = part ? request.part_ids : job->plan.chunks.ids,
                                             .bytes = request.ids_shape[0] * sizeof(int32_t)};
        const struct assay_call_options options = {.attachments = &ids, .attachments_count = 1};
        status = assay_stream_open(client, &assay__v1__evaluator__descriptor, METHOD_SCORE, &request.request.base,
                                   &options, 16, &stream, err);
    }
    if (status == ASSAY_OK)
        status = follow(job, part, stream, err);
    assay_stream_close(stream);
    assay_client_free(client);
    score_request_release(&request);
    return status;
}

static enum assay_status score_once(struct assay_job *job, const struct assay_score_part *part, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_shard_map *map = NULL;
    enum assay_status status = assay_driver_wait_shards(job, &map, err);
    if (status == ASSAY_OK && !part)
        status = refresh_runs(job, map, err);
    return status == ASSAY_OK ? score_with(job, map, part, err) : status;
}

enum assay_status assay_step_score(struct assay_job *job, struct assay_err *err)
{
    enum { PAUSE_MS = 500 };
    for (;;) {
        struct assay_err failure = ASSAY_ERR_INIT;
        enum assay_status status = score_once(job, NULL, &failure);
        if (status != ASSAY_UNAVAILABLE) {
            *err = failure;
            return status;
        }
        assay_log(ASSAY_LOG_WARN, "scoring is tried again reason=\"%s\"", failure.text);
        assay_driver_pause(job, PAUSE_MS);
        status = assay_driver_must_stop(job) ? assay_err_set(&failure, ASSAY_CANCELLED, "the job was cancelled")
                                             : reconcile_runs(job, &failure);
        if (status != ASSAY_OK) {
            *err = failure;
            return status;
        }
    }
}

enum assay_status assay_step_score_part(struct assay_job *job, const struct assay_score_part *part,
                                        struct assay_err *err)
{
    return score_once(job, part, err);
}
