#include "services/coordinator/registry.h"

#include <stdlib.h>
#include <string.h>

void assay_registry_release(struct assay_registry *registry)
{
    free(registry->at);
    *registry = (struct assay_registry){0};
}

enum assay_status assay_registry_add(struct assay_registry *registry, const struct assay_service *service,
                                     int64_t now_ms, struct assay_err *err)
{
    if (registry->count >= ASSAY_SERVICES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu services are registered, the most is %d",
                             registry->count, ASSAY_SERVICES_MAX);
    if (registry->count == registry->capacity) {
        size_t capacity = ASSAY_MAX(16, registry->capacity * 2);
        struct assay_service *grown = realloc(registry->at, capacity * sizeof *grown);
        if (!grown)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu services", capacity);
        registry->at = grown;
        registry->capacity = capacity;
    }
    registry->at[registry->count] = *service;
    registry->at[registry->count].seen_ms = now_ms;
    registry->at[registry->count].silent = false;
    registry->count++;
    return ASSAY_OK;
}

struct assay_service *assay_registry_find(struct assay_registry *registry, uint64_t id)
{
    for (size_t i = 0; i < registry->count; i++)
        if (registry->at[i].id == id)
            return &registry->at[i];
    return NULL;
}

bool assay_registry_seen(struct assay_registry *registry, uint64_t id, const struct assay_service_counters *counters,
                         int64_t now_ms)
{
    struct assay_service *service = assay_registry_find(registry, id);
    if (!service)
        return false;
    service->seen_ms = now_ms;
    service->silent = false;
    if (counters)
        service->counters = *counters;
    return true;
}

const struct assay_service *assay_registry_pick(const struct assay_registry *registry, enum assay_service_kind kind)
{
    for (size_t i = registry->count; i-- > 0;)
        if (registry->at[i].kind == kind && !registry->at[i].silent)
            return &registry->at[i];
    return NULL;
}

size_t assay_registry_workers(const struct assay_registry *registry, const char *precision)
{
    size_t workers = 0;
    for (size_t i = 0; i < registry->count; i++) {
        const struct assay_service *service = &registry->at[i];
        if (service->kind == ASSAY_SERVICE_INFERENCE && !service->silent && strcmp(service->precision, precision) == 0)
            workers++;
    }
    return workers;
}

void assay_registry_tick(struct assay_registry *registry, int64_t now_ms,
                         void (*fn)(void *arg, const struct assay_service *), void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < registry->count; i++) {
        struct assay_service *service = &registry->at[i];
        int64_t silent_ms = now_ms - service->seen_ms;
        if (!service->silent && silent_ms >= ASSAY_SILENT_MS) {
            service->silent = true;
            fn(arg, service);
        }
        if (silent_ms < ASSAY_GONE_MS)
            registry->at[kept++] = *service;
    }
    registry->count = kept;
}
