/* Lease calls that wait for work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/work.pb-c.h"
#include "services/coordinator/engine.h"
#include "services/coordinator/serve.h"

static void reply_no_work(struct assay_call *call)
{
    Assay__V1__LeaseReply reply = ASSAY__V1__LEASE_REPLY__INIT;
    assay_call_reply(call, &reply.base, NULL, 0);
}

struct assay_bench *assay_bench_get(struct assay_serve *serve, const char *precision, const char *numerics)
{
    struct assay_bench *bench = serve->benches;
    while (bench && (strcmp(bench->precision, precision) != 0 || strcmp(bench->numerics, numerics) != 0))
        bench = bench->next;
    if (bench)
        return bench;
    bench = calloc(1, sizeof *bench);
    if (!bench)
        return NULL;
    snprintf(bench->precision, sizeof bench->precision, "%s", precision);
    snprintf(bench->numerics, sizeof bench->numerics, "%s", numerics);
    bench->next = serve->benches;
    serve->benches = bench;
    return bench;
}

/* --- which parked workers have a model --- */

static uint64_t key_of(const struct assay_variant_id *variant)
{
    uint64_t key;
    memcpy(&key, variant->digest.bytes, sizeof key);
    return key;
}

/* Without memory the call is found by its age alone. */
static void add_model(struct assay_parked *parked, const struct assay_variant_id *variant)
{
    struct assay_parked_model *model = &parked->models[parked->models_count];
    *model = (struct assay_parked_model){.parked = parked, .key = key_of(variant)};
    model->next = assay_idmap_get(&parked->bench->models, model->key);
    if (!assay_idmap_put(&parked->bench->models, model->key, model))
        return;
    if (model->next)
        model->next->prev = model;
    parked->models_count++;
}

static void remove_models(struct assay_parked *parked)
{
    for (size_t i = 0; i < parked->models_count; i++) {
        struct assay_parked_model *model = &parked->models[i];
        if (model->next)
            model->next->prev = model->prev;
        if (model->prev)
            model->prev->next = model->next;
        else if (model->next) /* replaces what is there, so that no memory is asked for */
            (void)assay_idmap_put(&parked->bench->models, model->key, model->next);
        else
            assay_idmap_remove(&parked->bench->models, model->key);
    }
}

/* --- parked calls --- */

static void unpark(struct assay_parked *parked)
{
    struct assay_bench *bench = parked->bench;
    remove_models(parked);
    *(parked->prev ? &parked->prev->next : &bench->first) = parked->next;
    *(parked->next ? &parked->next->prev : &bench->last) = parked->prev;
    assay_loop_timer_cancel(parked->serve->coordinator->loop, parked->timer);
    parked->serve->coordinator->calls_parked--;
    free(parked);
}

static void parked_over(void *arg)
{
    struct assay_parked *parked = arg;
    struct assay_call *call = parked->call;
    unpark(parked);
    reply_no_work(call);
}

static void parked_cancelled(void *arg)
{
    struct assay_parked *parked = arg;
    struct assay_call *call = parked->call;
    struct assay_err err;
    unpark(parked);
    assay_err_set(&err, ASSAY_CANCELLED, "the worker gave up waiting for a lease");
    assay_call_fail(call, &err);
}

void assay_serve_park(struct assay_serve *serve, struct assay_call *call, struct assay_bench *bench,
                      const struct assay_variant_id *loaded, size_t loaded_count, int64_t wait_ms)
{
    struct assay_parked *parked = bench ? malloc(sizeof *parked) : NULL;
    if (!parked) {
        reply_no_work(call);
        return;
    }
    *parked = (struct assay_parked){.prev = bench->last, .bench = bench, .call = call, .serve = serve};
    *(bench->last ? &bench->last->next : &bench->first) = parked;
    bench->last = parked;
    for (size_t i = 0; i < loaded_count; i++)
        add_model(parked, &loaded[i]);
    serve->coordinator->calls_parked++;
    parked->timer = assay_loop_timer(serve->coordinator->loop, wait_ms, 0, parked_over, parked);
    if (parked->timer == 0) {
        parked_over(parked);
        return;
    }
    assay_call_on_cancel(call, parked_cancelled, parked);
}

/* The parked call that is tried next; NULL when there is no work for the bench. */
static struct assay_parked *next_parked(struct assay_coordinator *c, const struct assay_bench *bench)
{
    char bound[ASSAY_QUEUE_BYTES_MAX];
    assay_queue_of_worker(bench->precision, bench->numerics, bound);
    int64_t now_ms = assay_now_ms();
    const struct assay_parked_model *model = NULL;
    pthread_mutex_lock(&c->lock);
    bool has = assay_registry_pick(&c->registry, ASSAY_SERVICE_EVALUATOR) &&
               (assay_scheduler_has_work(c->scheduler, bound, bench->numerics, now_ms) ||
                assay_scheduler_has_work(c->scheduler, bench->precision, bench->numerics, now_ms));
    if (has) {
        const struct assay_variant_id *next = assay_scheduler_next_variant(c->scheduler, bound, bench->numerics);
        if (!next)
            next = assay_scheduler_next_variant(c->scheduler, bench->precision, bench->numerics);
        model = next ? assay_idmap_get(&bench->models, key_of(next)) : NULL;
    }
    pthread_mutex_unlock(&c->lock);
    return !has ? NULL : model ? model->parked : bench->first;
}

/* A worker that gets nothing although there is work (it is suspect, say) is passed over, and the oldest are tried. */
static void serve_bench(struct assay_coordinator *c, struct assay_bench *bench)
{
    struct assay_parked *parked;
    while ((parked = next_parked(c, bench)) && assay_serve_try_lease(c, parked->call))
        unpark(parked);
    for (struct assay_parked *next = parked ? bench->first : NULL; next && next_parked(c, bench);) {
        parked = next;
        next = parked->next;
        if (assay_serve_try_lease(c, parked->call))
            unpark(parked);
    }
}

void assay_serve_parked(struct assay_serve *serve)
{
    for (struct assay_bench *bench = serve->benches; bench; bench = bench->next)
        serve_bench(serve->coordinator, bench);
}

void assay_serve_benches_free(struct assay_serve *serve)
{
    while (serve->benches) {
        struct assay_bench *bench = serve->benches;
        while (bench->first)
            unpark(bench->first);
        serve->benches = bench->next;
        assay_idmap_release(&bench->models);
        free(bench);
    }
}
