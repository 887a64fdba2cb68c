#include "common/wire/member.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/obs/process.h"

/* A call to the coordinator that takes longer is tried again. */
#define CALL_MS 5000
/* Between attempts to register: doubled up to the ceiling, 20 % more or less, so that a fleet does not come at once. */
#define BACKOFF_MS 100
#define BACKOFF_MAX_MS 5000
/* What a coordinator may ask for, and what it means when it asks for nothing. */
#define HEARTBEAT_MIN_MS 10
#define HEARTBEAT_MAX_MS 60000
#define HEARTBEAT_DEFAULT_MS 1000

struct assay_member {
    struct assay_client *coordinator;
    Assay__V1__RegisterRequest *registration;
    assay_member_counters_fn counters;
    void *arg;
    int64_t started_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    uint64_t id; /* 0: not registered */
    bool stopping;
    assay_member_loaded_fn loaded; /* NULL: nothing is said of it */
    void *loaded_arg;
};

static struct timespec at_ms(int64_t ms)
{
    return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}

/* Waits until `ms` passed, the member stops, or the id is no longer `id`. False: it stops. */
static bool pause_ms(struct assay_member *member, int64_t ms, uint64_t id)
{
    struct timespec until = at_ms(assay_now_ms() + ms);
    pthread_mutex_lock(&member->lock);
    while (!member->stopping && member->id == id &&
           pthread_cond_timedwait(&member->changed, &member->lock, &until) == 0)
        continue;
    bool go_on = !member->stopping;
    pthread_mutex_unlock(&member->lock);
    return go_on;
}

static void set_id(struct assay_member *member, uint64_t id)
{
    pthread_mutex_lock(&member->lock);
    member->id = id;
    pthread_cond_broadcast(&member->changed);
    pthread_mutex_unlock(&member->lock);
}

static uint64_t id_now(struct assay_member *member, bool *ret_stopping)
{
    pthread_mutex_lock(&member->lock);
    uint64_t id = member->id;
    *ret_stopping = member->stopping;
    pthread_mutex_unlock(&member->lock);
    return id;
}

static int64_t jittered(int64_t ms)
{
    return assay_jitter_ms(ms, assay_jitter_random());
}

static unsigned method_index(const char *name)
{
    const ProtobufCServiceDescriptor *service = &assay__v1__coordinator__descriptor;
    return (unsigned)(protobuf_c_service_descriptor_get_method_by_name(service, name) - service->methods);
}

static enum assay_status call(struct assay_member *member, const char *method, const ProtobufCMessage *request,
                              struct assay_reply **ret)
{
    struct assay_call_options options = {.deadline_ms = CALL_MS, .owner = member};
    return assay_call_unary(member->coordinator, &assay__v1__coordinator__descriptor, method_index(method), request,
                            &options, ret, NULL);
}

/* True when the coordinator took the registration. */
static bool register_once(struct assay_member *member, int64_t *ret_heartbeat_ms)
{
    struct assay_reply *reply;
    if (call(member, "RegisterService", &member->registration->base, &reply) != ASSAY_OK)
        return false;
    const Assay__V1__RegisterReply *message = assay_reply_message(reply);
    uint64_t id = message->service_id;
    uint64_t heartbeat_ms = message->heartbeat_ms ? message->heartbeat_ms : HEARTBEAT_DEFAULT_MS;
    *ret_heartbeat_ms = (int64_t)ASSAY_MIN(ASSAY_MAX(heartbeat_ms, HEARTBEAT_MIN_MS), HEARTBEAT_MAX_MS);
    assay_reply_free(reply);
    if (id != 0)
        set_id(member, id);
    return id != 0;
}

static void fill_counters(struct assay_member *member, Assay__V1__ServiceCounters *counters)
{
    counters->has_rss_bytes = counters->has_cpu_ms = counters->has_uptime_ms = true;
    counters->rss_bytes = assay_process_rss_bytes();
    counters->cpu_ms = (uint64_t)assay_cpu_ms();
    counters->uptime_ms = (uint64_t)(assay_now_ms() - member->started_ms);
    if (member->counters)
        member->counters(member->arg, counters);
}

/* What is loaded, where the member tells that. */
static void fill_loaded(struct assay_member *member, struct assay_digest ids[ASSAY_MEMBER_LOADED_MAX],
                        ProtobufCBinaryData fields[ASSAY_MEMBER_LOADED_MAX], Assay__V1__HeartbeatRequest *request)
{
    pthread_mutex_lock(&member->lock);
    assay_member_loaded_fn loaded = member->loaded;
    void *arg = member->loaded_arg;
    pthread_mutex_unlock(&member->lock);
    if (!loaded)
        return;
    request->has_tells_loaded = request->tells_loaded = true;
    request->n_loaded_variant_ids = loaded(arg, ids);
    request->loaded_variant_ids = fields;
    for (size_t i = 0; i < request->n_loaded_variant_ids; i++)
        fields[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, ids[i].bytes};
}

/* False when the coordinator forgot the id, or is another process by now. */
static bool heartbeat(struct assay_member *member, uint64_t id)
{
    Assay__V1__ServiceCounters counters = ASSAY__V1__SERVICE_COUNTERS__INIT;
    Assay__V1__HeartbeatRequest request = ASSAY__V1__HEARTBEAT_REQUEST__INIT;
    fill_counters(member, &counters);
    request.has_service_id = true;
    request.service_id = id;
    request.counters = &counters;
    struct assay_digest ids[ASSAY_MEMBER_LOADED_MAX];
    ProtobufCBinaryData fields[ASSAY_MEMBER_LOADED_MAX];
    fill_loaded(member, ids, fields, &request);
    struct assay_reply *reply;
    enum assay_status status = call(member, "Heartbeat", &request.base, &reply);
    if (status != ASSAY_OK)
        return status != ASSAY_UNAVAILABLE; /* the next heartbeat may do better */
    const Assay__V1__HeartbeatReply *message = assay_reply_message(reply);
    bool known = !message->unknown;
    assay_reply_free(reply);
    return known;
}

static void *run(void *arg)
{
    struct assay_member *member = arg;
    pthread_setname_np(pthread_self(), "assay-member");
    int64_t heartbeat_ms = HEARTBEAT_DEFAULT_MS, backoff_ms = BACKOFF_MS;
    bool stopping = false, go_on = true;
    while (go_on) {
        uint64_t id = id_now(member, &stopping);
        if (stopping)
            break;
        if (id == 0) {
            if (register_once(member, &heartbeat_ms)) {
                backoff_ms = BACKOFF_MS;
                continue;
            }
            go_on = pause_ms(member, jittered(backoff_ms), 0);
            backoff_ms = ASSAY_MIN(2 * backoff_ms, BACKOFF_MAX_MS);
        } else if (heartbeat(member, id)) {
            go_on = pause_ms(member, heartbeat_ms, id);
        } else {
            assay_member_forgotten(member, id);
            go_on = pause_ms(member, jittered(BACKOFF_MS), 0);
        }
    }
    return NULL;
}

/* A deep copy with pid and host filled in; NULL when out of memory. */
static Assay__V1__RegisterRequest *copy_registration(const Assay__V1__RegisterRequest *registration)
{
    size_t bytes = assay__v1__register_request__get_packed_size(registration);
    uint8_t *packed = malloc(bytes + 1);
    if (!packed)
        return NULL;
    assay__v1__register_request__pack(registration, packed);
    Assay__V1__RegisterRequest *copy = assay__v1__register_request__unpack(NULL, bytes, packed);
    free(packed);
    char host[256] = "";
    if (!copy || gethostname(host, sizeof host - 1) != 0)
        strcpy(host, "unknown");
    char *host_copy = strdup(host);
    if (!copy || !host_copy) {
        free(host_copy);
        if (copy)
            assay__v1__register_request__free_unpacked(copy, NULL);
        return NULL;
    }
    free(copy->host);
    copy->host = host_copy;
    copy->has_pid = true;
    copy->pid = (uint32_t)getpid();
    return copy;
}

static void member_free(struct assay_member *member)
{
    assay__v1__register_request__free_unpacked(member->registration, NULL);
    pthread_cond_destroy(&member->changed);
    pthread_mutex_destroy(&member->lock);
    free(member);
}

enum assay_status assay_member_start(struct assay_client *coordinator, const Assay__V1__RegisterRequest *registration,
                                     assay_member_counters_fn counters, void *arg, struct assay_member **ret,
                                     struct assay_err *err)
{
    struct assay_member *member = calloc(1, sizeof *member);
    Assay__V1__RegisterRequest *copy = member ? copy_registration(registration) : NULL;
    if (!copy) {
        free(member);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a registration");
    }
    member->coordinator = coordinator;
    member->started_ms = assay_now_ms();
    member->registration = copy;
    member->counters = counters;
    member->arg = arg;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&member->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&member->lock, NULL);
    int errnum = pthread_create(&member->thread, NULL, run, member);
    if (errnum != 0) {
        member_free(member);
        return assay_err_errno(err, errnum, "cannot start the thread that keeps the service registered");
    }
    *ret = member;
    return ASSAY_OK;
}

uint64_t assay_member_id(struct assay_member *member, int64_t wait_ms)
{
    struct timespec until = at_ms(assay_now_ms() + ASSAY_MIN(ASSAY_MAX(wait_ms, 0), INT64_MAX / 4));
    pthread_mutex_lock(&member->lock);
    while (member->id == 0 && !member->stopping && wait_ms > 0 &&
           pthread_cond_timedwait(&member->changed, &member->lock, &until) == 0)
        continue;
    uint64_t id = member->id;
    pthread_mutex_unlock(&member->lock);
    return id;
}

void assay_member_tell_loaded(struct assay_member *member, assay_member_loaded_fn loaded, void *arg)
{
    pthread_mutex_lock(&member->lock);
    member->loaded = loaded;
    member->loaded_arg = arg;
    pthread_mutex_unlock(&member->lock);
}

void assay_member_forgotten(struct assay_member *member, uint64_t id)
{
    pthread_mutex_lock(&member->lock);
    if (member->id == id) {
        member->id = 0;
        pthread_cond_broadcast(&member->changed);
    }
    pthread_mutex_unlock(&member->lock);
}

void assay_member_stop(struct assay_member *member)
{
    if (!member)
        return;
    pthread_mutex_lock(&member->lock);
    member->stopping = true;
    pthread_cond_broadcast(&member->changed);
    pthread_mutex_unlock(&member->lock);
    /* A call that begins just after a cancel would hold the thread for its deadline, so cancels are repeated. */
    const struct timespec pause = {.tv_nsec = 5 * 1000000};
    assay_client_cancel_owned(member->coordinator, member);
    while (pthread_tryjoin_np(member->thread, NULL) != 0) {
        nanosleep(&pause, NULL);
        assay_client_cancel_owned(member->coordinator, member);
    }
    member_free(member);
}
