#include "services/coordinator/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *assay_health_name(enum assay_service_health health)
{
    static const char *const names[ASSAY_HEALTHS] = {"alive", "suspect", "dead"};
    return names[health];
}

static void count_alive(struct assay_service *service, bool up)
{
    if (service->capability && service->health == ASSAY_HEALTH_ALIVE)
        service->capability->alive += up ? 1 : (size_t)-1;
}

/* Takes the service out of the list of its health. */
static void unsee(struct assay_registry *registry, struct assay_service *service)
{
    enum assay_service_health health = service->health;
    count_alive(service, false);
    registry->by_health[health]--;
    *(service->seen_prev ? &service->seen_prev->seen_next : &registry->seen_first[health]) = service->seen_next;
    *(service->seen_next ? &service->seen_next->seen_prev : &registry->seen_last[health]) = service->seen_prev;
    service->seen_prev = service->seen_next = NULL;
}

/* Puts it at the end: whoever comes to a list was seen after those who are there. */
static void see(struct assay_registry *registry, struct assay_service *service, enum assay_service_health health)
{
    service->health = health;
    count_alive(service, true);
    registry->by_health[health]++;
    service->seen_prev = registry->seen_last[health];
    *(service->seen_prev ? &service->seen_prev->seen_next : &registry->seen_first[health]) = service;
    registry->seen_last[health] = service;
}

static void forget(struct assay_registry *registry, struct assay_service *service)
{
    unsee(registry, service);
    *(service->kind_prev ? &service->kind_prev->kind_next : &registry->kinds[service->kind]) = service->kind_next;
    if (service->kind_next)
        service->kind_next->kind_prev = service->kind_prev;
    assay_idmap_remove(&registry->services, service->id);
    registry->count--;
    free(service);
}

void assay_registry_release(struct assay_registry *registry)
{
    for (int health = 0; health < ASSAY_HEALTHS; health++)
        while (registry->seen_first[health])
            forget(registry, registry->seen_first[health]);
    while (registry->capabilities) {
        struct assay_capability *capability = registry->capabilities;
        registry->capabilities = capability->next;
        free(capability);
    }
    assay_idmap_release(&registry->services);
    *registry = (struct assay_registry){0};
}

static struct assay_capability *find_capability(const struct assay_registry *registry, const char *precision)
{
    struct assay_capability *capability = registry->capabilities;
    while (capability && strcmp(capability->precision, precision) != 0)
        capability = capability->next;
    return capability;
}

static struct assay_capability *get_capability(struct assay_registry *registry, const char *precision)
{
    struct assay_capability *capability = find_capability(registry, precision);
    if (capability)
        return capability;
    capability = calloc(1, sizeof *capability);
    if (!capability)
        return NULL;
    snprintf(capability->precision, sizeof capability->precision, "%s", precision);
    capability->next = registry->capabilities;
    registry->capabilities = capability;
    return capability;
}

enum assay_status assay_registry_add(struct assay_registry *registry, const struct assay_service *service,
                                     int64_t now_ms, struct assay_err *err)
{
    if (registry->count >= ASSAY_SERVICES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu services are registered, the most is %d",
                             registry->count, ASSAY_SERVICES_MAX);
    struct assay_service *added = malloc(sizeof *added);
    struct assay_capability *capability = NULL;
    bool works = service->kind == ASSAY_SERVICE_INFERENCE;
    if (added && works)
        capability = get_capability(registry, service->precision);
    if (!added || (works && !capability) || !assay_idmap_put(&registry->services, service->id, added)) {
        free(added);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu services", registry->count + 1);
    }
    *added = *service;
    added->seen_ms = now_ms;
    added->capability = capability;
    added->seen_prev = added->seen_next = added->kind_prev = NULL;
    added->kind_next = registry->kinds[added->kind];
    if (added->kind_next)
        added->kind_next->kind_prev = added;
    registry->kinds[added->kind] = added;
    registry->count++;
    see(registry, added, ASSAY_HEALTH_ALIVE);
    return ASSAY_OK;
}

struct assay_service *assay_registry_find(const struct assay_registry *registry, uint64_t id)
{
    return assay_idmap_get(&registry->services, id);
}

bool assay_registry_seen(struct assay_registry *registry, uint64_t id, const struct assay_service_counters *counters,
                         int64_t now_ms)
{
    struct assay_service *service = assay_registry_find(registry, id);
    if (!service)
        return false;
    unsee(registry, service);
    service->seen_ms = now_ms;
    see(registry, service, ASSAY_HEALTH_ALIVE);
    if (counters)
        service->counters = *counters;
    return true;
}

void assay_registry_remove(struct assay_registry *registry, uint64_t id)
{
    struct assay_service *service = assay_registry_find(registry, id);
    if (service)
        forget(registry, service);
}

const struct assay_service *assay_registry_next(const struct assay_registry *registry, enum assay_service_kind kind,
                                                const struct assay_service *former)
{
    return former ? former->kind_next : registry->kinds[kind];
}

const struct assay_service *assay_registry_pick(const struct assay_registry *registry, enum assay_service_kind kind)
{
    const struct assay_service *suspect = NULL;
    for (const struct assay_service *service = registry->kinds[kind]; service; service = service->kind_next) {
        if (service->health == ASSAY_HEALTH_ALIVE)
            return service;
        if (service->health == ASSAY_HEALTH_SUSPECT && !suspect)
            suspect = service;
    }
    return suspect;
}

size_t assay_registry_workers(const struct assay_registry *registry, const char *precision)
{
    const struct assay_capability *capability = find_capability(registry, precision);
    return capability ? capability->alive : 0;
}

/* Moves those of one health whose time has come to the next one. */
static void age(struct assay_registry *registry, enum assay_service_health from, int64_t after_ms, int64_t now_ms,
                void (*fn)(void *arg, const struct assay_service *), void *arg)
{
    struct assay_service *service;
    while ((service = registry->seen_first[from]) && now_ms - service->seen_ms >= after_ms) {
        if (from == ASSAY_HEALTH_DEAD) {
            forget(registry, service);
            continue;
        }
        unsee(registry, service);
        see(registry, service, from + 1);
        fn(arg, service);
    }
}

void assay_registry_tick(struct assay_registry *registry, int64_t now_ms,
                         void (*fn)(void *arg, const struct assay_service *), void *arg)
{
    age(registry, ASSAY_HEALTH_ALIVE, ASSAY_SUSPECT_MS, now_ms, fn, arg);
    age(registry, ASSAY_HEALTH_SUSPECT, ASSAY_DEAD_MS, now_ms, fn, arg);
    age(registry, ASSAY_HEALTH_DEAD, ASSAY_GONE_MS, now_ms, fn, arg);
}
