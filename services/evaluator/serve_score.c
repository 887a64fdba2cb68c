#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/artifact/fetch_remote.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/corpus/chunks.h"
#include "common/obs/spans.h"
#include "common/wire/shard_message.h"
#include "services/evaluator/cache.h"
#include "services/evaluator/report.h"
#include "services/evaluator/score_merge.h"
#include "services/evaluator/score_remote.h"
#include "services/evaluator/serve_internal.h"

/* A call under way; what its spec points to lives in it and in the request. */
struct score_call {
    struct score_call *next;
    struct assay_evaluator *evaluator;
    struct assay_call *call;
    pthread_t thread;
    bool ended;
    uint64_t chunks_counted, cached_counted, tokens_counted, compute_counted;
    struct assay_score_spec spec;
    struct assay_score_side *variants;
    struct assay_chunk_key *keys;
    struct assay_shard_map *map; /* NULL: all records are here */
    char **head_dirs;            /* of the reference, then of the variants: what the sides point to */
};

static void free_score(struct score_call *score)
{
    free(score->variants);
    free(score->keys);
    free(score->map);
    for (size_t i = 0; score->head_dirs && i <= score->spec.variants_count; i++)
        free(score->head_dirs[i]);
    free(score->head_dirs);
    free(score);
}

/* --- the request --- */

static enum assay_status read_side(const Assay__V1__Variant *message, struct assay_score_side *ret,
                                   struct assay_err *err)
{
    if (!message)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "reference is missing");
    if (!message->artifact_dir || message->artifact_dir[0] != '/')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "artifact_dir of '%.80s' is not an absolute path",
                             message->label ? message->label : "");
    ret->artifact_dir = message->artifact_dir;
    ret->label = message->label && message->label[0] ? message->label : message->artifact_dir;
    return assay_digest_from(message->variant_id.data, message->variant_id.len, "variant_id", &ret->variant.digest,
                             err);
}

static enum assay_status read_sides(const Assay__V1__ScoreRequest *request, struct score_call *score,
                                    struct assay_err *err)
{
    enum assay_status status = read_side(request->reference, &score->spec.reference, err);
    for (size_t i = 0; i < request->n_variants && status == ASSAY_OK; i++)
        status = read_side(request->variants[i], &score->variants[i], err);
    score->spec.variants = score->variants;
    score->spec.variants_count = request->n_variants;
    return status;
}

static enum assay_status read_chunks(const struct assay_call *call, const Assay__V1__ScoreRequest *request,
                                     struct score_call *score, struct assay_err *err)
{
    uint64_t shape[1];
    struct assay_bytes ids = {0};
    size_t count = request->n_chunk_keys;
    if (request->n_chunk_tokens != count || request->n_score_begin != count || request->n_score_end != count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "chunk_keys, chunk_tokens, score_begin and score_end have %zu, %zu, %zu and %zu entries, "
                             "wanted the same number",
                             count, request->n_chunk_tokens, request->n_score_begin, request->n_score_end);
    enum assay_status status =
        serve_tensor(call, request->ids, ASSAY__V1__DTYPE__DTYPE_I32, 1, "ids", shape, &ids, err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = assay_digest_from(request->chunk_keys[i].data, request->chunk_keys[i].len, "chunk_keys",
                                   &score->keys[i].digest, err);
    if (status != ASSAY_OK)
        return status;
    score->spec.chunks_count = count;
    score->spec.keys = score->keys;
    score->spec.tokens = request->chunk_tokens;
    score->spec.begin = request->score_begin;
    score->spec.end = request->score_end;
    score->spec.ids = ids.data;
    score->spec.ids_count = (size_t)shape[0];
    return ASSAY_OK;
}

/* The map that the job goes by must be ours, with our share complete. */
static enum assay_status read_map(struct score_call *score, const Assay__V1__ScoreRequest *request,
                                  struct assay_err *err)
{
    if (request->n_numerics_ids != 0 && request->n_numerics_ids != request->n_variants + 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "numerics_ids has %zu entries, wanted none or %zu",
                             request->n_numerics_ids, request->n_variants + 1);
    if (request->n_numerics_ids > 0)
        score->spec.numerics = (const char *const *)request->numerics_ids;
    if (!request->shard_map)
        return ASSAY_OK;
    score->map = calloc(1, sizeof *score->map);
    if (!score->map)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    enum assay_status status = assay_shard_map_of_message(request->shard_map, score->map, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_shards_check(score->evaluator->shards, score->map->epoch, true, err);
    /* For the coordinator both mean: look at the map again. */
    if (status == ASSAY_ABORTED && err)
        err->status = ASSAY_UNAVAILABLE;
    return status == ASSAY_ABORTED ? ASSAY_UNAVAILABLE : status;
}

static enum assay_status read_request(struct assay_evaluator *evaluator, struct assay_call *call,
                                      struct score_call **ret, struct assay_err *err)
{
    const Assay__V1__ScoreRequest *request = assay_call_request(call);
    const char *protocol = request->protocol ? request->protocol : "";
    if (!assay_protocol_find(protocol))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "protocol is '%.80s', wanted one of %.300s", protocol,
                             assay_protocol_names());
    if (request->n_variants > ASSAY_JOB_VARIANTS_MAX || request->n_chunk_keys > ASSAY_JOB_CHUNKS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a job has at most %d variants and %u chunks, found %zu and %zu", ASSAY_JOB_VARIANTS_MAX,
                             ASSAY_JOB_CHUNKS_MAX, request->n_variants, request->n_chunk_keys);
    struct score_call *score = calloc(1, sizeof *score);
    if (score) {
        score->evaluator = evaluator;
        score->call = call;
        score->variants = calloc(request->n_variants + 1, sizeof *score->variants);
        score->keys = calloc(request->n_chunk_keys + 1, sizeof *score->keys);
    }
    enum assay_status status = ASSAY_OK;
    if (!score || !score->variants || !score->keys)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Score of %zu chunks",
                               request->n_chunk_keys);
    if (status == ASSAY_OK && !serve_record_dtype(request->has_record_dtype, request->record_dtype, &score->spec.dtype))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "record_dtype is neither F32 nor F16");
    if (status == ASSAY_OK)
        status = read_sides(request, score, err);
    if (status == ASSAY_OK)
        status = read_chunks(call, request, score, err);
    if (status == ASSAY_OK)
        status = read_map(score, request, err);
    if (status == ASSAY_OK)
        *ret = score;
    else if (score)
        free_score(score);
    return status;
}

/* --- the thread --- */

static bool map_changed(const struct score_call *score)
{
    return score->map && assay_shards_epoch(score->evaluator->shards) != score->map->epoch;
}

static bool is_cancelled(void *arg)
{
    const struct score_call *score = arg;
    return atomic_load(&score->evaluator->stopping) || assay_call_cancelled(score->call) || map_changed(score);
}

static enum assay_status send_reply(void *arg, const Assay__V1__ScoreReply *reply, struct assay_err *err)
{
    struct score_call *score = arg;
    enum assay_status status = assay_call_send(score->call, &reply->base, NULL, 0);
    return status == ASSAY_OK ? status : assay_err_set(err, status, "the client of a Score call is gone");
}

static void count_up(atomic_uint_fast64_t *total, uint64_t *counted, uint64_t now)
{
    /* A job may begin anew with fewer; what was done was done. */
    if (now > *counted)
        atomic_fetch_add(total, now - *counted);
    *counted = now;
}

static enum assay_status send_progress(void *arg, const struct assay_score_progress *progress, struct assay_err *err)
{
    struct score_call *score = arg;
    struct assay_evaluator *evaluator = score->evaluator;
    count_up(&evaluator->chunks_scored, &score->chunks_counted, progress->chunks_done);
    count_up(&evaluator->chunks_cached, &score->cached_counted, progress->chunks_cached);
    count_up(&evaluator->tokens_scored, &score->tokens_counted, progress->tokens_scored);
    count_up(&evaluator->compute_us, &score->compute_counted, progress->compute_us);
    return assay_report_progress(progress, send_reply, score, err);
}

/* What `assay cache ls` calls the records. They can be listed without a name. */
static void keep_name(struct assay_evaluator *evaluator, const struct assay_score_side *side,
                      const Assay__V1__Variant *message)
{
    struct assay_model_id model;
    struct assay_err err = ASSAY_ERR_INIT;
    if (!message->label || !message->label[0] || message->model_id.len != ASSAY_DIGEST_BYTES)
        return;
    memcpy(model.digest.bytes, message->model_id.data, ASSAY_DIGEST_BYTES);
    if (assay_cache_set_name(evaluator->records, &side->variant, &model, message->label, &err) != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "the name of a variant is not kept reason=\"%s\"", err.text);
}

static void keep_names(const struct score_call *score)
{
    const Assay__V1__ScoreRequest *request = assay_call_request(score->call);
    keep_name(score->evaluator, &score->spec.reference, request->reference);
    for (size_t i = 0; i < request->n_variants; i++)
        keep_name(score->evaluator, &score->variants[i], request->variants[i]);
}

/* --- heads --- */

/* Where the head of a side is: in the artifact, or fetched. */
static enum assay_status find_head(struct score_call *score, const Assay__V1__Variant *message,
                                   struct assay_score_side *side, char **ret, struct assay_err *err)
{
    char dir[ASSAY_PATH_MAX];
    const struct assay_artifact_source source = {.loop = score->evaluator->loop,
                                                 .variant = &side->variant,
                                                 .artifact_dir = message->artifact_dir,
                                                 .endpoint = message->artifact_endpoint,
                                                 .cache_dir = score->evaluator->artifacts_dir,
                                                 .head_only = true,
                                                 .cancelled = is_cancelled,
                                                 .arg = score};
    enum assay_status status = assay_artifact_find(&source, dir, err);
    if (status != ASSAY_OK)
        return status;
    *ret = strdup(dir);
    if (!*ret)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a head");
    side->artifact_dir = *ret;
    return ASSAY_OK;
}

static enum assay_status find_heads(struct score_call *score, struct assay_err *err)
{
    const Assay__V1__ScoreRequest *request = assay_call_request(score->call);
    score->head_dirs = calloc(request->n_variants + 1, sizeof *score->head_dirs);
    if (!score->head_dirs)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the heads of a job");
    enum assay_status status = find_head(score, request->reference, &score->spec.reference, &score->head_dirs[0], err);
    for (size_t i = 0; i < request->n_variants && status == ASSAY_OK; i++)
        status = find_head(score, request->variants[i], &score->variants[i], &score->head_dirs[i + 1], err);
    return status;
}

static enum assay_status send_samples(void *arg, const struct assay_score_samples *samples, struct assay_err *err)
{
    struct score_call *score = arg;
    return assay_report_samples(samples, score->call, err);
}

/* --- several evaluators --- */

static enum assay_status run_here(void *arg, const struct assay_score_spec *spec, const struct assay_score_sink *sink,
                                  struct assay_err *err)
{
    const struct score_call *score = arg;
    struct assay_evaluator *evaluator = score->evaluator;
    const struct assay_score_deps deps = {evaluator->records, evaluator->heads, evaluator->pool, 0};
    assay_trace_set(assay_call_trace_id(score->call)); /* a share has a thread of its own */
    return assay_score_run(&deps, spec, sink, err);
}

static size_t owner_of(void *arg, const struct assay_chunk_key *chunk)
{
    return assay_shard_map_owner(arg, chunk);
}

/* Each owner scores its chunks, we put them together. */
static enum assay_status run_merged(struct score_call *score, const struct assay_score_sink *sink,
                                    struct assay_err *err)
{
    size_t count = score->map->count,
           self = assay_shard_map_find(score->map, assay_shards_self(score->evaluator->shards));
    assay_auto(assay_free_ptr) struct score_remote *remotes = calloc(count, sizeof *remotes);
    assay_auto(assay_free_ptr) struct assay_score_share *shares = calloc(count, sizeof *shares);
    if (!remotes || !shares)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job over %zu evaluators", count);
    for (size_t i = 0; i < count; i++) {
        remotes[i] = (struct score_remote){score->evaluator->loop, score->map->shards[i].endpoint,
                                           assay_call_trace_id(score->call), assay_call_request(score->call)};
        shares[i] = i == self ? (struct assay_score_share){run_here, score}
                              : (struct assay_score_share){score_remote_run, &remotes[i]};
    }
    return assay_score_merge(&score->spec, shares, count, owner_of, score->map, sink, err);
}

static enum assay_status run_score(struct score_call *score, struct assay_err *err)
{
    bool samples_only = ((const Assay__V1__ScoreRequest *)assay_call_request(score->call))->samples_only;
    const struct assay_score_sink sink = {score, is_cancelled, send_progress, samples_only ? send_samples : NULL};
    if (!samples_only && score->map && assay_shard_map_owners(score->map) > 1)
        return run_merged(score, &sink, err);
    return run_here(score, &score->spec, &sink, err);
}

static void *score_main(void *arg)
{
    struct score_call *score = arg;
    struct assay_evaluator *evaluator = score->evaluator;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_span span;
    pthread_setname_np(pthread_self(), "assay-score");
    assay_trace_set(assay_call_trace_id(score->call));
    assay_span_begin(&span, "score", NULL);
    keep_names(score);
    enum assay_status status = find_heads(score, &err);
    if (status == ASSAY_OK)
        status = run_score(score, &err);
    assay_span_number(&span, "chunks", (int64_t)score->spec.chunks_count);
    assay_span_number(&span, "variants", (int64_t)score->spec.variants_count);
    assay_span_text(&span, "status", assay_status_name(status));
    assay_span_end(&span);
    if (status == ASSAY_CANCELLED && atomic_load(&evaluator->stopping))
        status = assay_err_set(&err, ASSAY_UNAVAILABLE, "the evaluator is shutting down");
    else if (status == ASSAY_CANCELLED && map_changed(score))
        status = assay_err_set(&err, ASSAY_UNAVAILABLE, "the evaluators of the stack changed");
    if (status == ASSAY_OK) {
        assay_log(ASSAY_LOG_INFO, "score done chunks=%zu variants=%zu compute_us=%llu", score->spec.chunks_count,
                  score->spec.variants_count, (unsigned long long)score->compute_counted);
        assay_call_end(score->call);
    } else {
        assay_log(status == ASSAY_CANCELLED ? ASSAY_LOG_INFO : ASSAY_LOG_WARN, "score ended status=%s reason=\"%s\"",
                  assay_status_name(status), err.text);
        assay_call_fail(score->call, &err);
    }
    pthread_mutex_lock(&evaluator->lock);
    score->ended = true;
    bool last = !serve_scores_running(evaluator);
    pthread_cond_broadcast(&evaluator->ended);
    pthread_mutex_unlock(&evaluator->lock);
    /* Each thread's heap keeps what it once took (see main.c): for the buffers of one job after the other, not for
     * ever.
     */
    if (last)
        malloc_trim(0);
    return NULL;
}

/* The first call that has ended, or with `all` the first call, out of the list. */
static struct score_call *take_ended(struct assay_evaluator *evaluator, bool all)
{
    pthread_mutex_lock(&evaluator->lock);
    struct score_call **link = &evaluator->calls;
    while (*link && !(*link)->ended && !all)
        link = &(*link)->next;
    struct score_call *score = *link;
    if (score)
        *link = score->next;
    pthread_mutex_unlock(&evaluator->lock);
    return score;
}

void serve_reap(struct assay_evaluator *evaluator, bool all)
{
    for (struct score_call *score; (score = take_ended(evaluator, all));) {
        pthread_join(score->thread, NULL);
        free_score(score);
    }
}

bool serve_scores_running(struct assay_evaluator *evaluator)
{
    for (const struct score_call *score = evaluator->calls; score; score = score->next)
        if (!score->ended)
            return true;
    return false;
}

static enum assay_status start_thread(struct assay_evaluator *evaluator, struct score_call *score,
                                      struct assay_err *err)
{
    size_t running = 0;
    pthread_mutex_lock(&evaluator->lock);
    for (const struct score_call *other = evaluator->calls; other; other = other->next)
        running++;
    enum assay_status status = ASSAY_OK;
    if (running >= ASSAY_EVALUATOR_SCORES_MAX)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu jobs are being scored already, at most %d may",
                               running, ASSAY_EVALUATOR_SCORES_MAX);
    int failed = status == ASSAY_OK ? pthread_create(&score->thread, NULL, score_main, score) : 0;
    if (failed)
        status = assay_err_errno(err, failed, "cannot start a thread for a Score call");
    if (status == ASSAY_OK) {
        score->next = evaluator->calls;
        evaluator->calls = score;
    }
    pthread_mutex_unlock(&evaluator->lock);
    return status;
}

void serve_score(struct assay_call *call, void *service)
{
    struct assay_evaluator *evaluator = service;
    struct score_call *score = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    serve_reap(evaluator, false);
    enum assay_status status = ASSAY_OK;
    if (atomic_load(&evaluator->stopping))
        status = assay_err_set(&err, ASSAY_UNAVAILABLE, "the evaluator is shutting down");
    if (status == ASSAY_OK)
        status = read_request(evaluator, call, &score, &err);
    if (status == ASSAY_OK) {
        status = start_thread(evaluator, score, &err);
        if (status != ASSAY_OK)
            free_score(score);
    }
    if (status != ASSAY_OK)
        assay_call_fail(call, &err);
}
