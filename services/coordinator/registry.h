/* Who is a member of the stack. Pure: every call gets the time; the caller locks.
 *
 *   registered --heartbeats--> alive --ASSAY_SILENT_MS--> silent --ASSAY_GONE_MS--> gone (forgotten)
 *                                ^-------heartbeat----------'
 *
 * Two thresholds: a silent worker's chunks go to others, but it may come back; a gone one must register anew. */
#pragma once

#include "common/base/status.h"

#define ASSAY_HEARTBEAT_MS 1000
/* Five heartbeats: a loaded machine delays one or two. */
#define ASSAY_SILENT_MS 5000
#define ASSAY_GONE_MS 30000
/* Services in one stack. */
#define ASSAY_SERVICES_MAX 16384

enum assay_service_kind { ASSAY_SERVICE_INFERENCE = 1, ASSAY_SERVICE_QUANTIZER, ASSAY_SERVICE_EVALUATOR };

struct assay_service_counters {
    uint64_t chunks_run, tokens_run, records_sent, compute_us, rss_bytes, models_loaded, cpu_ms;
};

struct assay_service {
    uint64_t id;
    enum assay_service_kind kind;
    char endpoint[256];
    char precision[32];
    char numerics[64];
    char host[64];
    char device[32];
    uint32_t pid;
    uint32_t threads;
    int64_t seen_ms;
    bool silent;
    struct assay_service_counters counters;
};

struct assay_registry {
    struct assay_service *at;
    size_t count, capacity;
};

void assay_registry_release(struct assay_registry *registry);
/* Adds a service; `service->id` is chosen by the caller, random, not 0. RESOURCE_EXHAUSTED: too many. */
enum assay_status assay_registry_add(struct assay_registry *registry, const struct assay_service *service,
                                     int64_t now_ms, struct assay_err *err) ASSAY_MUST_USE;
/* NULL when unknown. Valid until the next add or tick. */
struct assay_service *assay_registry_find(struct assay_registry *registry, uint64_t id);
/* A sign of life. False: unknown, it must register. `counters` may be NULL. */
bool assay_registry_seen(struct assay_registry *registry, uint64_t id, const struct assay_service_counters *counters,
                         int64_t now_ms);
/* The live service of a kind that registered last; NULL when there is none. */
const struct assay_service *assay_registry_pick(const struct assay_registry *registry, enum assay_service_kind kind);
/* Live workers of a precision. */
size_t assay_registry_workers(const struct assay_registry *registry, const char *precision);
/* Marks the silent, forgets the gone; fn(arg, service) is told of each one that fell silent now. */
void assay_registry_tick(struct assay_registry *registry, int64_t now_ms,
                         void (*fn)(void *arg, const struct assay_service *), void *arg);
