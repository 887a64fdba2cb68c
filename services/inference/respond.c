#include "services/inference/respond.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/inference/respond_internal.h"

static const struct assay_metric_row rows[] = {
    {.name = "assay_respond_tokens_total", .help = "Tokens of responses.", .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_respond_texts_total",
     .help = "Texts that were embedded or classified.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_respond_calls",
     .help = "Calls for responses, embeddings and classes that are not answered.",
     .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_respond_models", .help = "Models that are loaded for such calls.", .type = ASSAY_METRIC_GAUGE},
};
enum { TOKENS, TEXTS, CALLS, MODELS, ROWS };
_Static_assert(ROWS == ASSAY_COUNT(rows), "one row each");

static struct {
    struct assay_series *series[ROWS];
    struct assay_respond *respond;
} measured;

static void collect(void *arg)
{
    struct assay_respond *respond = measured.respond;
    (void)arg;
    assay_counter_set(measured.series[TOKENS], atomic_load(&respond->tokens));
    assay_counter_set(measured.series[TEXTS], atomic_load(&respond->texts));
    assay_gauge_set(measured.series[CALLS], (double)atomic_load(&respond->calls));
    assay_gauge_set(measured.series[MODELS], (double)assay_lanes_models(respond->lanes));
}

void assay_respond_measure(struct assay_respond *respond, struct assay_metrics *metrics)
{
    measured.respond = respond;
    for (size_t i = 0; i < ROWS; i++)
        measured.series[i] = assay_metric_only(assay_metrics_add(metrics, &rows[i]));
    assay_metrics_collect(metrics, collect, NULL);
}

/* --- which model --- */

static bool is_below(const char *path, const char *root)
{
    size_t len = strlen(root);
    return strncmp(path, root, len) == 0 && path[len] == '/';
}

/* Over tcp a path of this machine is the caller's only where artifacts stand: one that is not there, and one that is
 * elsewhere, get the same answer. */
static enum assay_status find_dir(const struct assay_respond *respond, bool is_local, struct assay_lane_source *source,
                                  struct assay_err *err)
{
    char real[PATH_MAX], root[PATH_MAX];
    bool is_there = realpath(source->dir, real) && strlen(real) < sizeof source->key;
    int why = errno;
    if (!is_local && !(is_there && realpath(respond->options.lanes.cache_dir, root) && is_below(real, root)))
        return assay_err_set(err, ASSAY_PERMISSION_DENIED,
                             "over tcp a model must be one of the worker's artifacts, found %.300s", source->dir);
    if (is_there) {
        strcpy(source->key, real);
        strcpy(source->dir, real);
        source->endpoint[0] = '\0';
        return ASSAY_OK;
    }
    if (!source->endpoint[0])
        return assay_err_errno(err, why, "cannot open the model %.300s", source->dir);
    char hex[ASSAY_DIGEST_HEX];
    snprintf(source->key, sizeof source->key, "variant %s", assay_digest_hex(&source->variant.digest, hex));
    return ASSAY_OK;
}

static enum assay_status read_model(const struct assay_respond *respond, const struct assay_call *call,
                                    const Assay__V1__Variant *model, struct assay_lane_source *ret,
                                    struct assay_err *err)
{
    const char *scheme = model && model->spec ? model->spec->scheme : NULL;
    const char *precision = respond->options.lanes.precision;
    if (!model || !model->artifact_dir || model->artifact_dir[0] != '/')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "model.artifact_dir is not an absolute path");
    if (strlen(model->artifact_dir) >= sizeof ret->dir ||
        (model->artifact_endpoint && strlen(model->artifact_endpoint) >= sizeof ret->endpoint))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path or endpoint has at most %zu bytes",
                             sizeof ret->dir - 1);
    if (scheme && scheme[0] && strcmp(scheme, precision) != 0)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "this worker runs %s, the model is of %.60s", precision,
                             scheme);
    strcpy(ret->dir, model->artifact_dir);
    ret->has_variant = model->variant_id.len > 0;
    if (ret->has_variant) {
        enum assay_status status =
            assay_digest_from(model->variant_id.data, model->variant_id.len, "variant_id", &ret->variant.digest, err);
        if (status != ASSAY_OK)
            return status;
    }
    /* Whom a worker connects to is not for strangers to say. */
    if (ret->has_variant && assay_call_is_local(call) && model->artifact_endpoint)
        strcpy(ret->endpoint, model->artifact_endpoint);
    return find_dir(respond, assay_call_is_local(call), ret, err);
}

enum assay_status assay_respond_admit(struct assay_respond *respond, const struct assay_call *call,
                                      const Assay__V1__Variant *model, enum assay_lane_kind kind,
                                      struct assay_lane_source *ret, struct assay_err *err)
{
    *ret = (struct assay_lane_source){.kind = kind};
    if (atomic_load(&respond->calls) >= ASSAY_RESPOND_CALLS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "%d calls are under way on this worker, at most so many may", ASSAY_RESPOND_CALLS_MAX);
    enum assay_status status = read_model(respond, call, model, ret, err);
    if (status == ASSAY_OK)
        atomic_fetch_add(&respond->calls, 1);
    return status;
}

void assay_respond_done(void *arg)
{
    struct assay_respond *respond = arg;
    atomic_fetch_sub(&respond->calls, 1);
}

void assay_respond_post(struct assay_respond *respond, const struct assay_lane_source *source,
                        struct assay_lane_work *work)
{
    struct assay_err err = ASSAY_ERR_INIT;
    work->has_variant = source->has_variant;
    work->variant = source->variant;
    if (assay_lanes_post(respond->lanes, source, work, &err) != ASSAY_OK)
        work->fail(work, &err);
}

/* --- the service --- */

enum assay_status assay_respond_new(struct assay_server *server, const struct assay_respond_options *options,
                                    struct assay_respond **ret, struct assay_err *err)
{
    static const assay_method_fn methods[] = {assay_respond_generate, assay_respond_embed, assay_respond_classify};
    struct assay_respond *respond = calloc(1, sizeof *respond);
    if (respond) {
        respond->options = *options;
        respond->lanes = assay_lanes_new(&options->lanes);
    }
    if (!respond || !respond->lanes) {
        free(respond);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    }
    assay_server_add(server, &assay__v1__respond__descriptor, methods, respond);
    *ret = respond;
    return ASSAY_OK;
}

static void nothing(void *arg)
{
    (void)arg;
}

void assay_respond_stop(struct assay_respond *respond)
{
    if (!respond)
        return;
    assay_lanes_stop(respond->lanes);
    /* Answers are sent on the loop's thread, in order: they have left when this comes back. */
    assay_loop_call(respond->options.lanes.loop, nothing, NULL);
}

void assay_respond_free(struct assay_respond *respond)
{
    if (!respond)
        return;
    assay_lanes_free(respond->lanes);
    free(respond);
}
