#include "cli/rpc_target.h"

#include <string.h>

#include "cli/words.h"
#include "common/base/paths.h"

#define CALL_MS 5000

static bool is_wanted(const Assay__V1__RegisterRequest *who, const char *kind, size_t kind_bytes, const char *precision)
{
    const char *word = assay_word_service_kind(who->kind);
    return who->endpoint && strlen(word) == kind_bytes && memcmp(word, kind, kind_bytes) == 0 &&
           (!precision || (who->precision && strcmp(who->precision, precision) == 0));
}

/* The first that fits, one that is not silent before others. */
static enum assay_status pick(const Assay__V1__ListServicesReply *services, const char *target,
                              char endpoint[ASSAY_PATH_MAX], struct assay_err *err)
{
    const char *colon = strchr(target, ':');
    size_t kind_bytes = colon ? (size_t)(colon - target) : strlen(target);
    const char *found = NULL;
    bool found_silent = false;
    for (size_t i = 0; i < services->n_services; i++) {
        const Assay__V1__ServiceInfo *service = services->services[i];
        bool silent = service->state && strcmp(service->state, "silent") == 0;
        if (!service->registration || (found && (!found_silent || silent)) ||
            !is_wanted(service->registration, target, kind_bytes, colon ? colon + 1 : NULL))
            continue;
        found = service->registration->endpoint;
        found_silent = silent;
    }
    if (!found || strlen(found) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_NOT_FOUND,
                             "the coordinator lists no '%.60s'; 'assay workers' shows what is registered", target);
    strcpy(endpoint, found);
    return ASSAY_OK;
}

static enum assay_status ask_coordinator(const char *target, const char *data_given, char endpoint[ASSAY_PATH_MAX],
                                         struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct assay_remote remote = {0};
    struct assay_reply *reply = NULL;
    enum assay_status status = assay_remote_attach(&remote, NULL, data_given, err);
    if (status == ASSAY_OK)
        status = assay_remote_call(&remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CALL_MS, &reply, err);
    if (status == ASSAY_OK)
        status = pick(assay_reply_message(reply), target, endpoint, err);
    assay_reply_free(reply);
    assay_remote_close(&remote);
    return status;
}

enum assay_status assay_rpc_target_find(const char *target, const char *data_given, char endpoint[ASSAY_PATH_MAX],
                                        struct assay_err *err)
{
    static const char *const kinds[] = {"inference", "quantizer", "evaluator"};
    char data_dir[ASSAY_PATH_MAX];
    if (strstr(target, "://")) {
        if (strlen(target) >= ASSAY_PATH_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the endpoint is too long");
        strcpy(endpoint, target);
        return ASSAY_OK;
    }
    if (strcmp(target, "coordinator") == 0) {
        enum assay_status status = assay_data_dir(data_given, data_dir, err);
        return status == ASSAY_OK ? assay_remote_find(NULL, data_dir, endpoint, err) : status;
    }
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
        if (strncmp(target, kinds[i], strlen(kinds[i])) == 0 && strchr(":", target[strlen(kinds[i])]))
            return ask_coordinator(target, data_given, endpoint, err);
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "found '%.100s', wanted ipc://PATH, tcp://HOST:PORT, coordinator, evaluator, quantizer or "
                         "inference[:PRECISION]",
                         target);
}
