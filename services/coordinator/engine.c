#include "services/coordinator/engine.h"

#include <stdio.h>
#include <string.h>

const char *assay_queue_of_spec(const struct assay_spec *spec, char ret[ASSAY_QUEUE_BYTES_MAX])
{
    bool any = spec->engine == ASSAY_ENGINE_ANY;
    snprintf(ret, ASSAY_QUEUE_BYTES_MAX, "%s%s%s", assay_scheme_name(spec->scheme), any ? "" : "@",
             any ? "" : assay_engine_name(spec->engine));
    return ret;
}

const char *assay_queue_of_worker(const char *precision, const char *numerics, char ret[ASSAY_QUEUE_BYTES_MAX])
{
    size_t left = strlen(precision), right = strcspn(numerics, "-");
    ret[0] = '\0';
    if (left + 1 + right >= ASSAY_QUEUE_BYTES_MAX)
        return ret;
    memcpy(ret, precision, left);
    ret[left] = '@';
    memcpy(ret + left + 1, numerics, right);
    ret[left + 1 + right] = '\0';
    return ret;
}

bool assay_queue_has_worker(const struct assay_registry *registry, const char *queue)
{
    if (!strchr(queue, '@'))
        return assay_registry_workers(registry, queue) > 0;
    const struct assay_service *worker = NULL;
    while ((worker = assay_registry_next(registry, ASSAY_SERVICE_INFERENCE, worker))) {
        char own[ASSAY_QUEUE_BYTES_MAX];
        if (worker->health == ASSAY_HEALTH_ALIVE &&
            strcmp(assay_queue_of_worker(worker->precision, worker->numerics, own), queue) == 0)
            return true;
    }
    return false;
}

bool assay_queue_is_ours(const char *queue, char ret[ASSAY_QUEUE_BYTES_MAX])
{
    size_t precision = strcspn(queue, "@");
    snprintf(ret, ASSAY_QUEUE_BYTES_MAX, "%.*s", (int)precision, queue);
    return queue[precision] == '\0' || strcmp(queue + precision + 1, assay_engine_name(ASSAY_ENGINE_ASSAY)) == 0;
}
