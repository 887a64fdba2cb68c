#include "services/inference/respond_lane.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/artifact/fetch_remote.h"
#include "common/artifact/manifest.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/obs/spans.h"
#include "common/quant/scheme.h"

/* For room that leases or other lanes hold. */
#define ROOM_WAIT_MS 30000

struct lane {
    struct assay_lanes *lanes;
    struct assay_lane_source source;
    struct lane *before; /* had the place; its model goes before ours comes */
    pthread_t thread;
    struct assay_lane_model model; /* the lane's thread's */
    /* Guarded by the lanes' lock: */
    pthread_cond_t changed;
    struct assay_lane_work *first, **last;
    bool waits;  /* for work */
    bool leaves; /* is to end, with nothing left to do */
    bool over;   /* takes no more work */
    int64_t used_ms;
};

struct assay_lanes {
    struct assay_lanes_options options;
    atomic_bool stopping;
    pthread_mutex_t lock;
    struct lane *places[ASSAY_LANES_MAX];
};

/* --- a model --- */

static bool is_stopping(void *arg)
{
    return assay_lanes_stopping(arg);
}

/* What is made by a quantizer says of which scheme it is; a checkpoint as it came runs as fp32. */
static enum assay_status check_scheme(const struct lane *lane, struct assay_lane_model *model, struct assay_err *err)
{
    const char *precision = lane->lanes->options.precision;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    struct assay_err why = ASSAY_ERR_INIT;
    struct assay_spec spec = {.scheme = ASSAY_SCHEME_FP32};
    enum assay_status status = assay_manifest_read(model->dir, &manifest, &why);
    if (status == ASSAY_OK) {
        status = assay_spec_parse(manifest.spec, &spec, &why);
        model->has_variant = true;
        model->variant = manifest.variant_id;
    } else if (status == ASSAY_NOT_FOUND) {
        status = ASSAY_OK;
    }
    assay_manifest_release(&manifest);
    if (status != ASSAY_OK)
        return assay_err_set(err, status, "%s", why.text);
    if (strcmp(assay_scheme_name(spec.scheme), precision) != 0)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "this worker runs %s, %.300s is %s", precision, model->dir,
                             assay_scheme_name(spec.scheme));
    return ASSAY_OK;
}

static enum assay_status hold(struct lane *lane, enum assay_model_part part, const struct assay_digest *id,
                              struct assay_resident **ret, struct assay_err *err)
{
    const struct assay_model_want want = {.part = part,
                                          .id = *id,
                                          .dir = lane->model.dir,
                                          .wait_ms = ROOM_WAIT_MS,
                                          .cancelled = is_stopping,
                                          .arg = lane->lanes};
    return assay_models_acquire(lane->lanes->options.models, &want, ret, NULL, err);
}

/* Over an encoder, or a decoder whose files say how its tokens become an embedding. */
static enum assay_status open_sentences(struct lane *lane, struct assay_lane_model *model,
                                        const struct assay_digest *id, struct assay_err *err)
{
    bool decodes = false;
    enum assay_status status = assay_sentences_has_decoder(model->dir, &decodes, err);
    if (status == ASSAY_OK && decodes)
        status = hold(lane, ASSAY_MODEL_DECODER, id, &model->decoder, err);
    else if (status == ASSAY_OK)
        status = hold(lane, ASSAY_MODEL_ENCODER, id, &model->encoder, err);
    if (status != ASSAY_OK)
        return status;
    return assay_sentences_over(model->dir, decodes ? NULL : assay_resident_encoder(model->encoder),
                                decodes ? assay_resident_decoder(model->decoder) : NULL, lane->lanes->options.pool,
                                &model->sentences, err);
}

static enum assay_status open_files(struct lane *lane, struct assay_lane_model *model, struct assay_err *err)
{
    const struct assay_lanes_options *options = &lane->lanes->options;
    struct assay_digest id;
    enum assay_status status = assay_models_identify(model->dir, &id, err);
    if (status == ASSAY_OK && lane->source.kind == ASSAY_LANE_TEXTS)
        return open_sentences(lane, model, &id, err);
    if (status == ASSAY_OK)
        status = hold(lane, ASSAY_MODEL_DECODER, &id, &model->decoder, err);
    if (status == ASSAY_OK)
        status = hold(lane, ASSAY_MODEL_HEAD, &id, &model->head, err);
    if (status == ASSAY_OK)
        status =
            assay_responder_over(model->dir, assay_resident_decoder(model->decoder), assay_resident_head(model->head),
                                 options->pool, options->sequences_max, ASSAY_F32, &model->responder, err);
    if (status == ASSAY_OK)
        assay_responder_limit_cache(model->responder, options->cache_bytes_max);
    return status;
}

static enum assay_status open_model(struct lane *lane, struct assay_err *err)
{
    struct assay_lane_model *model = &lane->model;
    const struct assay_artifact_source source = {.loop = lane->lanes->options.loop,
                                                 .variant = &lane->source.variant,
                                                 .artifact_dir = lane->source.dir,
                                                 .endpoint = lane->source.endpoint,
                                                 .cache_dir = lane->lanes->options.cache_dir,
                                                 .cancelled = is_stopping,
                                                 .arg = lane->lanes};
    struct assay_span span;
    int64_t started_ms = assay_now_ms();
    assay_span_begin(&span, "load", NULL);
    enum assay_status status = assay_artifact_find(&source, model->dir, err);
    if (status == ASSAY_OK)
        status = check_scheme(lane, model, err);
    if (status == ASSAY_OK)
        status = open_files(lane, model, err);
    assay_span_end(&span);
    if (status == ASSAY_OK)
        assay_log(ASSAY_LOG_INFO, "model loaded for calls dir=%s wall_ms=%lld", model->dir,
                  (long long)(assay_now_ms() - started_ms));
    else
        assay_log(ASSAY_LOG_WARN, "no model for calls dir=%s status=%s reason=\"%s\"", lane->source.dir,
                  assay_status_name(status), err->text);
    return status;
}

static void close_model(struct assay_models *models, struct assay_lane_model *model)
{
    assay_responder_close(model->responder);
    assay_sentences_close(model->sentences);
    assay_chat_close(model->chat);
    assay_models_release(models, model->decoder);
    assay_models_release(models, model->head);
    assay_models_release(models, model->encoder);
    *model = (struct assay_lane_model){0};
}

enum assay_status assay_lane_chat(struct assay_lane_model *model, const struct assay_chat **ret, struct assay_err *err)
{
    enum assay_status status = model->chat ? ASSAY_OK : assay_chat_open(model->dir, &model->chat, err);
    if (status == ASSAY_OK)
        *ret = model->chat;
    return status;
}

/* --- a lane's thread --- */

static struct timespec timespec_of(int64_t us)
{
    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
}

/* With the lock held. */
static struct assay_lane_work *take_all(struct lane *lane)
{
    struct assay_lane_work *work = lane->first;
    lane->first = NULL;
    lane->last = &lane->first;
    return work;
}

/* What has come; waits for something while the lane has nothing else to do. False: the lane ends. */
static bool take(struct lane *lane, bool is_busy, struct assay_lane_work **ret)
{
    struct assay_lanes *lanes = lane->lanes;
    struct timespec until = timespec_of(assay_now_us() + lanes->options.idle_ms * 1000);
    pthread_mutex_lock(&lanes->lock);
    lane->waits = true;
    while (!is_busy && !lane->first && !lane->leaves && !atomic_load(&lanes->stopping))
        if (pthread_cond_timedwait(&lane->changed, &lanes->lock, &until) == ETIMEDOUT && !lane->first)
            lane->leaves = true;
    lane->waits = false;
    *ret = take_all(lane);
    bool goes_on = is_busy || *ret || (!lane->leaves && !atomic_load(&lanes->stopping));
    lane->over = lane->over || !goes_on;
    pthread_mutex_unlock(&lanes->lock);
    return goes_on;
}

static void fail_all(struct assay_lane_work *work, const struct assay_err *err)
{
    while (work) {
        struct assay_lane_work *next = work->next;
        work->fail(work, err);
        work = next;
    }
}

static void run_all(struct lane *lane, struct assay_lane_work *work)
{
    while (work) {
        struct assay_lane_work *next = work->next;
        struct assay_err err = ASSAY_ERR_INIT;
        const struct assay_lane_model *model = &lane->model;
        if (assay_lanes_stopping(lane->lanes))
            assay_err_set(&err, ASSAY_UNAVAILABLE, "the worker is shutting down");
        else if (work->has_variant &&
                 !(model->has_variant && assay_digest_equal(&work->variant.digest, &model->variant.digest)))
            assay_err_set(&err, ASSAY_FAILED_PRECONDITION, "%.300s is not the variant that was asked for", model->dir);
        if (err.status == ASSAY_OK)
            work->run(work, &lane->model);
        else
            work->fail(work, &err);
        work = next;
    }
}

static void *lane_main(void *arg)
{
    struct lane *lane = arg;
    struct assay_lane_work *work = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_setname_np(pthread_self(), "assay-respond");
    if (lane->before) {
        pthread_join(lane->before->thread, NULL);
        pthread_cond_destroy(&lane->before->changed);
        free(lane->before);
    }
    if (open_model(lane, &err) == ASSAY_OK) {
        for (bool is_busy = false; take(lane, is_busy, &work);) {
            run_all(lane, work);
            is_busy = lane->model.responder && assay_responder_step(lane->model.responder);
        }
    } else {
        pthread_mutex_lock(&lane->lanes->lock);
        lane->over = true;
        work = take_all(lane);
        pthread_mutex_unlock(&lane->lanes->lock);
        fail_all(work, &err);
    }
    close_model(lane->lanes->options.models, &lane->model);
    return NULL;
}

/* --- the lanes --- */

struct assay_lanes *assay_lanes_new(const struct assay_lanes_options *options)
{
    struct assay_lanes *lanes = calloc(1, sizeof *lanes);
    if (!lanes)
        return NULL;
    lanes->options = *options;
    pthread_mutex_init(&lanes->lock, NULL);
    return lanes;
}

static struct lane *lane_new(struct assay_lanes *lanes, const struct assay_lane_source *source, struct lane *before,
                             struct assay_err *err)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (!lane) {
        assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model");
        return NULL;
    }
    lane->lanes = lanes;
    lane->source = *source;
    lane->before = before;
    lane->last = &lane->first;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failed = pthread_create(&lane->thread, NULL, lane_main, lane);
    if (!failed)
        return lane;
    assay_err_errno(err, failed, "cannot start a thread for a model");
    pthread_cond_destroy(&lane->changed);
    free(lane);
    return NULL;
}

/* With the lock held: an empty place, that of a lane that has ended, or of the one that was idle for longest. */
static struct lane **find_place(struct assay_lanes *lanes)
{
    struct lane **best = NULL;
    for (size_t i = 0; i < lanes->options.models_max; i++) {
        struct lane **place = &lanes->places[i];
        if (!*place || (*place)->over)
            return place;
        if ((*place)->waits && !(*place)->first && (!best || (*place)->used_ms < (*best)->used_ms))
            best = place;
    }
    return best;
}

/* With the lock held. */
static struct lane *find_lane(struct assay_lanes *lanes, const struct assay_lane_source *source)
{
    for (size_t i = 0; i < lanes->options.models_max; i++) {
        struct lane *lane = lanes->places[i];
        if (lane && !lane->over && !lane->leaves && lane->source.kind == source->kind &&
            strcmp(lane->source.key, source->key) == 0)
            return lane;
    }
    return NULL;
}

/* With the lock held. */
static struct lane *open_lane(struct assay_lanes *lanes, const struct assay_lane_source *source, struct assay_err *err)
{
    struct lane **place = find_place(lanes);
    if (!place) {
        assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu models are answering already, at most so many may at once",
                      lanes->options.models_max);
        return NULL;
    }
    struct lane *before = *place;
    if (before) { /* told now: the thread of the new one frees it */
        before->leaves = true;
        pthread_cond_signal(&before->changed);
    }
    struct lane *lane = lane_new(lanes, source, before, err);
    if (lane)
        *place = lane;
    return lane;
}

enum assay_status assay_lanes_post(struct assay_lanes *lanes, const struct assay_lane_source *source,
                                   struct assay_lane_work *work, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    work->next = NULL;
    pthread_mutex_lock(&lanes->lock);
    struct lane *lane = NULL;
    if (atomic_load(&lanes->stopping)) {
        status = assay_err_set(err, ASSAY_UNAVAILABLE, "the worker is shutting down");
    } else {
        lane = find_lane(lanes, source);
        if (!lane && !(lane = open_lane(lanes, source, err)))
            status = err->status;
    }
    if (lane) {
        *lane->last = work;
        lane->last = &work->next;
        lane->used_ms = assay_now_ms();
        pthread_cond_signal(&lane->changed);
    }
    pthread_mutex_unlock(&lanes->lock);
    return status;
}

bool assay_lanes_stopping(const struct assay_lanes *lanes)
{
    return atomic_load(&lanes->stopping);
}

void assay_lanes_stop(struct assay_lanes *lanes)
{
    pthread_mutex_lock(&lanes->lock);
    atomic_store(&lanes->stopping, true);
    for (size_t i = 0; i < lanes->options.models_max; i++)
        if (lanes->places[i])
            pthread_cond_signal(&lanes->places[i]->changed);
    pthread_mutex_unlock(&lanes->lock);
    /* No place changes any more. */
    for (size_t i = 0; i < lanes->options.models_max; i++) {
        struct lane *lane = lanes->places[i];
        if (!lane)
            continue;
        pthread_join(lane->thread, NULL);
        pthread_cond_destroy(&lane->changed);
        free(lane);
        lanes->places[i] = NULL;
    }
}

void assay_lanes_free(struct assay_lanes *lanes)
{
    if (!lanes)
        return;
    assay_lanes_stop(lanes);
    pthread_mutex_destroy(&lanes->lock);
    free(lanes);
}

size_t assay_lanes_models(struct assay_lanes *lanes)
{
    size_t models = 0;
    pthread_mutex_lock(&lanes->lock);
    for (size_t i = 0; i < lanes->options.models_max; i++)
        models += lanes->places[i] && !lanes->places[i]->over;
    pthread_mutex_unlock(&lanes->lock);
    return models;
}
