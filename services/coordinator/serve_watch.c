#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "services/coordinator/engine.h"
#include "services/coordinator/serve.h"

/* Precisions in one Demand message. */
#define PRECISIONS_MAX 64

static void watcher_remove(struct assay_watcher *watcher)
{
    struct assay_watcher **at = &watcher->serve->watchers;
    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    free(watcher->sent);
    free(watcher);
}

static void watcher_cancelled(void *arg)
{
    struct assay_watcher *watcher = arg;
    struct assay_err err;
    assay_err_set(&err, ASSAY_CANCELLED, "the watcher went away");
    assay_call_fail(watcher->call, &err);
    watcher_remove(watcher);
}

/* Sends the events that are there, as far as the credit goes. True when the stream has ended. */
static bool send_events(struct assay_watcher *watcher)
{
    struct assay_coordinator *c = watcher->serve->coordinator;
    while (assay_call_credit(watcher->call) > 0) {
        pthread_mutex_lock(&c->lock);
        const struct assay_job_event *event = assay_job_event_from(watcher->job, watcher->next_sequence);
        bool over = !event && assay_job_is_over(watcher->job);
        uint64_t sequence = event ? event->sequence : 0;
        Assay__V1__Event *message = event ? assay__v1__event__unpack(NULL, event->bytes, event->packed) : NULL;
        pthread_mutex_unlock(&c->lock);
        if (over) {
            assay_call_end(watcher->call);
            watcher_remove(watcher);
            return true;
        }
        if (!message)
            return false;
        enum assay_status status = assay_call_send(watcher->call, &message->base, NULL, 0);
        assay__v1__event__free_unpacked(message, NULL);
        if (status != ASSAY_OK)
            return false;
        watcher->next_sequence = sequence + 1;
    }
    return false;
}

/* Locked: what has chunks waiting and no live worker. A precision where a worker of ours would do, each once; else the
 * queue with its engine. */
static size_t lacking(struct assay_coordinator *c, char names[PRECISIONS_MAX][ASSAY_QUEUE_BYTES_MAX])
{
    const char *queues[PRECISIONS_MAX];
    size_t wanted = assay_scheduler_wanted(c->scheduler, queues, PRECISIONS_MAX), kept = 0;
    for (size_t i = 0; i < wanted; i++) {
        if (assay_queue_has_worker(&c->registry, queues[i]))
            continue;
        if (!assay_queue_is_ours(queues[i], names[kept]))
            snprintf(names[kept], sizeof names[kept], "%s", queues[i]);
        bool known = false;
        for (size_t k = 0; k < kept; k++)
            known = known || strcmp(names[k], names[kept]) == 0;
        kept += !known;
    }
    return kept;
}

static void send_demand(struct assay_watcher *watcher)
{
    struct assay_coordinator *c = watcher->serve->coordinator;
    if (assay_call_credit(watcher->call) == 0)
        return;
    char names[PRECISIONS_MAX][ASSAY_QUEUE_BYTES_MAX], *pointers[PRECISIONS_MAX];
    assay_auto(assay_buf_release) struct assay_buf joined = ASSAY_BUF_INIT;
    pthread_mutex_lock(&c->lock);
    size_t count = lacking(c, names);
    for (size_t i = 0; i < count; i++) {
        pointers[i] = names[i];
        assay_buf_printf(&joined, "%s ", names[i]);
    }
    pthread_mutex_unlock(&c->lock);
    const char *now = assay_buf_cstr(&joined);
    if (watcher->sent && strcmp(watcher->sent, now) == 0)
        return;
    Assay__V1__Demand message = ASSAY__V1__DEMAND__INIT;
    message.n_precisions = count;
    message.precisions = pointers;
    if (assay_call_send(watcher->call, &message.base, NULL, 0) == ASSAY_OK) {
        free(watcher->sent);
        watcher->sent = strdup(now);
    }
}

void assay_serve_watchers(struct assay_serve *serve)
{
    struct assay_watcher *next;
    for (struct assay_watcher *watcher = serve->watchers; watcher; watcher = next) {
        next = watcher->next;
        if (watcher->job)
            send_events(watcher);
        else
            send_demand(watcher);
    }
}

static void credit_came(void *arg)
{
    struct assay_watcher *watcher = arg;
    if (watcher->job)
        send_events(watcher);
    else
        send_demand(watcher);
}

static void watcher_add(struct assay_serve *serve, struct assay_call *call, struct assay_job *job, uint64_t from)
{
    struct assay_watcher *watcher = malloc(sizeof *watcher);
    if (!watcher) {
        struct assay_err err;
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a watcher");
        assay_call_fail(call, &err);
        return;
    }
    *watcher = (struct assay_watcher){serve->watchers, call, serve, job, from, NULL};
    serve->watchers = watcher;
    assay_call_on_cancel(call, watcher_cancelled, watcher);
    assay_call_on_credit(call, credit_came, watcher);
    credit_came(watcher);
}

void assay_serve_watch_events(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__WatchEventsRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = assay_serve_find_job(c, request->job_id, &err);
    pthread_mutex_unlock(&c->lock);
    if (job)
        watcher_add(c->serve, call, job, request->from_sequence);
    else
        assay_call_fail(call, &err);
}

void assay_serve_watch_demand(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    watcher_add(c->serve, call, NULL, 0);
}

void assay_serve_unwatch(struct assay_serve *serve, const struct assay_job *job)
{
    struct assay_err err;
    struct assay_watcher *next;
    assay_err_set(&err, ASSAY_NOT_FOUND, "the job was removed");
    for (struct assay_watcher *watcher = serve->watchers; watcher; watcher = next) {
        next = watcher->next;
        if (watcher->job == job) {
            assay_call_fail(watcher->call, &err);
            watcher_remove(watcher);
        }
    }
}

void assay_serve_watchers_free(struct assay_serve *serve)
{
    while (serve->watchers)
        watcher_remove(serve->watchers);
}
