/* assay.v1.Health of every server: one status for the whole server and all its services. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/server_internal.h"

struct watch {
    struct assay_health *health;
    struct assay_call *call;
    Assay__V1__ServingStatus sent; /* UNSPECIFIED: nothing yet */
    struct watch *prev, *next;
};

struct assay_health {
    struct assay_server *server;
    bool serving;
    struct watch *watches;
};

static const char *service_of(const struct assay_call *call)
{
    const Assay__V1__HealthCheckRequest *request = assay_call_request(call);
    return request->service ? request->service : "";
}

static Assay__V1__ServingStatus status_of(const struct assay_health *health, const char *service)
{
    const struct assay_server *server = health->server;
    bool known = *service == '\0';
    for (size_t i = 0; i < server->services_count; i++)
        known |= strcmp(server->services[i].descriptor->name, service) == 0;
    return !known            ? ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVICE_UNKNOWN
           : health->serving ? ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING
                             : ASSAY__V1__SERVING_STATUS__SERVING_STATUS_NOT_SERVING;
}

static void check(struct assay_call *call, void *service)
{
    struct assay_health *health = service;
    Assay__V1__HealthCheckReply reply = ASSAY__V1__HEALTH_CHECK_REPLY__INIT;
    reply.has_status = true;
    reply.status = status_of(health, service_of(call));
    if (reply.status == ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVICE_UNKNOWN) {
        struct assay_err err = ASSAY_ERR_INIT;
        assay_err_set(&err, ASSAY_NOT_FOUND, "%s has no service \"%.200s\"", health->server->endpoint,
                      service_of(call));
        assay_call_fail(call, &err);
        return;
    }
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void watch_end(struct watch *watch, enum assay_status status, const char *text)
{
    *(watch->prev ? &watch->prev->next : &watch->health->watches) = watch->next;
    if (watch->next)
        watch->next->prev = watch->prev;
    struct assay_err err = ASSAY_ERR_INIT;
    assay_err_set(&err, status, "Health/Watch: %s", text);
    assay_call_fail(watch->call, &err);
    free(watch);
}

/* Sends the present status when it is another than the one sent last. Without credit it waits for some. The watch may
 * be gone afterwards. */
static void watch_update(void *arg)
{
    struct watch *watch = arg;
    Assay__V1__HealthCheckReply reply = ASSAY__V1__HEALTH_CHECK_REPLY__INIT;
    reply.has_status = true;
    reply.status = status_of(watch->health, service_of(watch->call));
    if (reply.status == watch->sent || assay_call_credit(watch->call) == 0)
        return;
    watch->sent = reply.status;
    enum assay_status status = assay_call_send(watch->call, &reply.base, NULL, 0);
    if (status != ASSAY_OK)
        watch_end(watch, status, "the status could not be sent");
}

static void watch_cancelled(void *arg)
{
    watch_end(arg, ASSAY_CANCELLED, "cancelled");
}

static void watch(struct assay_call *call, void *service)
{
    struct assay_health *health = service;
    struct watch *added = calloc(1, sizeof *added);
    if (!added) {
        struct assay_err err = ASSAY_ERR_INIT;
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "Health/Watch: out of memory");
        assay_call_fail(call, &err);
        return;
    }
    *added = (struct watch){.health = health, .call = call, .next = health->watches};
    if (added->next)
        added->next->prev = added;
    health->watches = added;
    assay_call_on_cancel(call, watch_cancelled, added);
    assay_call_on_credit(call, watch_update, added);
    watch_update(added);
}

/* In the order of the service's methods in rpc.proto. */
static const assay_method_fn handlers[] = {check, watch};

struct assay_health *assay_health_new(struct assay_server *server)
{
    struct assay_health *health = calloc(1, sizeof *health);
    if (!health)
        return NULL;
    health->server = server;
    health->serving = true;
    assay_server_add(server, &assay__v1__health__descriptor, handlers, health);
    return health;
}

void assay_health_set(struct assay_health *health, bool serving)
{
    health->serving = serving;
    struct watch *next;
    for (struct watch *watch = health->watches; watch; watch = next) {
        next = watch->next;
        watch_update(watch);
    }
}

void assay_health_free(struct assay_health *health)
{
    if (!health)
        return;
    while (health->watches)
        watch_end(health->watches, ASSAY_UNAVAILABLE, "the server is going down");
    free(health);
}
