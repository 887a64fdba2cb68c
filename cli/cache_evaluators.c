#include "cli/cache_evaluators.h"

#include <string.h>

#include "cli/words.h"
#include "proto/record.pb-c.h"

#define CALL_MS 60000
#define TURN_MS 1000
#define CREDIT 16

static enum assay_status add_evaluator(struct assay_remote *remote, struct assay_cache_evaluators *evaluators,
                                       const char *endpoint, struct assay_err *err)
{
    for (size_t i = 0; i < evaluators->count; i++)
        if (strcmp(evaluators->at[i].endpoint, endpoint) == 0)
            return ASSAY_OK;
    if (evaluators->count == ASSAY_SHARDS_MAX || strlen(endpoint) >= sizeof evaluators->at[0].endpoint)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "more than %d evaluators, or an endpoint that is too long",
                             ASSAY_SHARDS_MAX);
    struct assay_cache_evaluator *evaluator = &evaluators->at[evaluators->count++];
    strcpy(evaluator->endpoint, endpoint);
    return assay_client_new(remote->loop, endpoint, &evaluator->client, err);
}

enum assay_status assay_cache_find(struct assay_remote *remote, struct assay_cache_evaluators *evaluators,
                                   struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ListServicesReply *services = assay_reply_message(reply);
    for (size_t i = 0; i < services->n_services && status == ASSAY_OK; i++) {
        const Assay__V1__RegisterRequest *who = services->services[i]->registration;
        if (who && who->endpoint && who->kind == ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR &&
            strcmp(assay_word_or(services->services[i]->state, ""), "silent") != 0)
            status = add_evaluator(remote, evaluators, who->endpoint, err);
    }
    if (status == ASSAY_OK && evaluators->count == 0)
        status = assay_err_set(err, ASSAY_UNAVAILABLE,
                               "no evaluator is registered with the coordinator; try again in a moment");
    assay_reply_free(reply);
    return status;
}

enum assay_status assay_cache_call(const struct assay_cache_evaluator *evaluator, unsigned method,
                                   const ProtobufCMessage *request, struct assay_reply **ret, struct assay_err *err)
{
    const struct assay_call_options options = {.deadline_ms = CALL_MS};
    return assay_call_unary(evaluator->client, &assay__v1__cache__descriptor, method, request, &options, ret, err);
}

/* fn for each message of a stream. */
static enum assay_status read_one_stream(const struct assay_cache_evaluator *evaluator, unsigned method,
                                         const ProtobufCMessage *request, void (*fn)(void *arg, const void *message),
                                         void *arg, struct assay_err *err)
{
    struct assay_stream *stream = NULL;
    enum assay_status status = assay_stream_open(evaluator->client, &assay__v1__cache__descriptor, method, request,
                                                 NULL, CREDIT, &stream, err);
    while (status == ASSAY_OK) {
        struct assay_reply *reply = NULL;
        struct assay_err why = ASSAY_ERR_INIT;
        status = assay_stream_next(stream, TURN_MS, &reply, &why);
        if (status == ASSAY_OK && !reply)
            break;
        if (status == ASSAY_OK)
            fn(arg, assay_reply_message(reply));
        else if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0])
            status = ASSAY_OK;
        else if (err)
            *err = why;
        assay_reply_free(reply);
    }
    assay_stream_close(stream);
    return status;
}

enum assay_status assay_cache_read(const struct assay_cache_evaluators *evaluators, unsigned method,
                                   const ProtobufCMessage *request, void (*fn)(void *arg, const void *message),
                                   void (*between)(void *arg), void *arg, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < evaluators->count && status == ASSAY_OK; i++) {
        status = read_one_stream(&evaluators->at[i], method, request, fn, arg, err);
        if (status == ASSAY_OK && between)
            between(arg);
    }
    return status;
}

void assay_cache_release(struct assay_cache_evaluators *evaluators)
{
    for (size_t i = 0; i < evaluators->count; i++)
        assay_client_free(evaluators->at[i].client);
    evaluators->count = 0;
}
