/* Who is a member of the stack. Pure: every call gets the time; the caller locks. All but lists take O(1).
 *
 *   registered --> alive --ASSAY_SUSPECT_MS--> suspect --ASSAY_DEAD_MS--> dead --ASSAY_GONE_MS--> gone (forgotten)
 *                    ^---------- sign of life ----'------------------------'
 *
 * A suspect worker gets no new leases; a dead one's chunks go to others, but it may come back; a gone one must register
 * anew. Times are those of a monotonic clock and never go back. */
#pragma once

#include "common/base/shard_map.h"
#include "services/coordinator/idmap.h"

#define ASSAY_HEARTBEAT_MS 1500
/* Two heartbeats are late; three are: a loaded machine delays one or two. */
#define ASSAY_SUSPECT_MS 3500
#define ASSAY_DEAD_MS 5000
#define ASSAY_GONE_MS 30000
/* Services in one stack. */
#define ASSAY_SERVICES_MAX 16384
/* Models that a worker may say it has loaded. */
#define ASSAY_LOADED_MAX 16

enum assay_service_kind { ASSAY_SERVICE_INFERENCE = 1, ASSAY_SERVICE_QUANTIZER, ASSAY_SERVICE_EVALUATOR };
#define ASSAY_SERVICE_KINDS 4

enum assay_service_health { ASSAY_HEALTH_ALIVE, ASSAY_HEALTH_SUSPECT, ASSAY_HEALTH_DEAD };
#define ASSAY_HEALTHS 3

struct assay_service_counters {
    uint64_t chunks_run, tokens_run, records_sent, compute_us, rss_bytes, models_loaded, cpu_ms, uptime_ms;
};

struct assay_service {
    uint64_t id;
    enum assay_service_kind kind;
    char endpoint[ASSAY_SHARD_ENDPOINT_MAX];
    char precision[32];
    char numerics[64];
    char host[64];
    char device[32];
    char http[256]; /* where its pages are, "" = nowhere */
    uint32_t pid;
    uint32_t threads;
    uint64_t memory_bytes;          /* that models may take; 0 = not said */
    struct assay_shard_id shard_id; /* of an evaluator */
    bool leaving;                   /* an evaluator that hands its records over */
    /* What the rest says is the registry's and the worker's last call's. */
    int64_t seen_ms;
    enum assay_service_health health;
    struct assay_service_counters counters;
    struct assay_variant_id loaded[ASSAY_LOADED_MAX]; /* the one used last first */
    size_t loaded_count;
    struct assay_service *seen_prev, *seen_next; /* of the same health, by seen_ms */
    struct assay_service *kind_prev, *kind_next; /* of the same kind, the newest first */
    struct assay_capability *capability;         /* INFERENCE */
};

/* Live workers of one precision. */
struct assay_capability {
    struct assay_capability *next;
    char precision[32];
    size_t alive;
};

struct assay_registry {
    struct assay_idmap services; /* by id */
    struct assay_service *seen_first[ASSAY_HEALTHS], *seen_last[ASSAY_HEALTHS];
    struct assay_service *kinds[ASSAY_SERVICE_KINDS];
    struct assay_capability *capabilities;
    size_t count, by_health[ASSAY_HEALTHS];
};

void assay_registry_release(struct assay_registry *registry);
/* Adds a copy; `service->id` is chosen by the caller, random, not 0. RESOURCE_EXHAUSTED: too many, or out of memory. */
enum assay_status assay_registry_add(struct assay_registry *registry, const struct assay_service *service,
                                     int64_t now_ms, struct assay_err *err) ASSAY_MUST_USE;
/* NULL when unknown. Valid until a tick forgets it. */
struct assay_service *assay_registry_find(const struct assay_registry *registry, uint64_t id);
/* A sign of life. False: unknown, it must register. `counters` may be NULL. */
bool assay_registry_seen(struct assay_registry *registry, uint64_t id, const struct assay_service_counters *counters,
                         int64_t now_ms);
/* Forgets a service. Unknown ids are fine. */
void assay_registry_remove(struct assay_registry *registry, uint64_t id);
/* The live service of a kind that registered last, else a suspect one; NULL when all are dead or there is none. */
const struct assay_service *assay_registry_pick(const struct assay_registry *registry, enum assay_service_kind kind);
/* The services of a kind, the newest first: the one after `former`, the first for NULL; NULL at the end. */
const struct assay_service *assay_registry_next(const struct assay_registry *registry, enum assay_service_kind kind,
                                                const struct assay_service *former);
/* Live workers of a precision. */
size_t assay_registry_workers(const struct assay_registry *registry, const char *precision);
/* Ages the services whose time has come; fn(arg, service) is told of each one that became suspect or dead now. */
void assay_registry_tick(struct assay_registry *registry, int64_t now_ms,
                         void (*fn)(void *arg, const struct assay_service *), void *arg);
const char *assay_health_name(enum assay_service_health health);
