/* The evaluators of a stack, for commands that look at their stores. */
#pragma once

#include "cli/remote.h"
#include "common/base/shard_map.h"

struct assay_cache_evaluator {
    struct assay_client *client;
    char endpoint[ASSAY_SHARD_ENDPOINT_MAX];
};

struct assay_cache_evaluators {
    struct assay_cache_evaluator at[ASSAY_SHARDS_MAX];
    size_t count;
};

/* Those that the coordinator lists and that are not silent; *evaluators is zeroed before, release it whatever the
 * outcome. UNAVAILABLE: there is none. */
enum assay_status assay_cache_find(struct assay_remote *remote, struct assay_cache_evaluators *evaluators,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_cache_release(struct assay_cache_evaluators *evaluators);

/* A unary call of the service Cache. */
enum assay_status assay_cache_call(const struct assay_cache_evaluator *evaluator, unsigned method,
                                   const ProtobufCMessage *request, struct assay_reply **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* fn for each message of a stream, one evaluator after the other; between(arg) after each, if it is not NULL. */
enum assay_status assay_cache_read(const struct assay_cache_evaluators *evaluators, unsigned method,
                                   const ProtobufCMessage *request, void (*fn)(void *arg, const void *message),
                                   void (*between)(void *arg), void *arg, struct assay_err *err) ASSAY_MUST_USE;
