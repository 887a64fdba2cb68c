/* The worker's conversations: leases with the coordinator, records with an evaluator. Messages end here. Calls block;
 * any thread, but records are put by one thread at a time. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/base/shard_map.h"
#include "common/obs/spans.h"
#include "common/wire/client.h"

#define ASSAY_SCHEME_TEXT_MAX 64
#define ASSAY_ENDPOINT_MAX ASSAY_SHARD_ENDPOINT_MAX

/* One chunk on loan. */
struct assay_leased_chunk {
    struct assay_chunk_key key;
    const int32_t *ids;          /* [tokens], owned by the lease */
    uint32_t tokens, begin, end; /* scored positions [begin, end), end <= tokens */
};

struct assay_worker_lease {
    uint64_t service_id, lease_id;
    struct assay_variant_id variant;
    char scheme[ASSAY_SCHEME_TEXT_MAX];
    char artifact_dir[ASSAY_PATH_MAX];
    char artifact_endpoint[ASSAY_ENDPOINT_MAX]; /* who serves it in pieces; "" = nobody */
    char evaluator[ASSAY_ENDPOINT_MAX];
    char trace_id[ASSAY_SPAN_TRACE_DIGITS + 1]; /* "" = none */
    struct assay_shard_map *map;                /* of the evaluators; NULL: `evaluator` is the only one */
    bool wants_f16;                             /* records of f16, not f32 */
    struct assay_chunk_key first_of_job;        /* zeros when the coordinator does not say */
    size_t count;                               /* 0: no work now, and nothing else is set */
    struct assay_leased_chunk *chunks;
    struct assay_reply *reply; /* owns the ids */
};

void assay_worker_lease_release(struct assay_worker_lease *lease); /* an empty one is fine */

/* One record on its way: hidden[rows, width]. The rows belong to the memory of its batch. */
struct assay_outgoing {
    struct assay_chunk_key key;
    const void *hidden;
    size_t rows, width;
    bool is_f16;   /* else f32 */
    bool is_extra; /* beside the record of the chunk that was asked for: no chunk is complete by it */
};
size_t assay_outgoing_bytes(const struct assay_outgoing *record);

/* Memory of a batch's records. Attachments may outlive the call they went with, so it is counted. */
struct assay_batch_memory;
struct assay_batch_memory *assay_batch_memory_new(size_t floats); /* NULL when out of memory; one reference */
float *assay_batch_memory_floats(struct assay_batch_memory *memory);
void assay_batch_memory_drop(struct assay_batch_memory *memory); /* NULL is fine */

/* Records that travel in one message: one attachment each, beside header and payload. */
#define ASSAY_PUT_RECORDS_MAX 60

struct assay_link;

/* Connects in the background. Leases have a connection of their own, so that a waiting Lease can be broken off alone.
 */
enum assay_status assay_link_new(struct assay_loop *loop, const char *coordinator, struct assay_link **ret,
                                 struct assay_err *err) ASSAY_MUST_USE;
void assay_link_free(struct assay_link *link); /* NULL is fine */
/* The connection for all but leases: for the member. */
struct assay_client *assay_link_coordinator(struct assay_link *link);

/* Models that a worker may say it has loaded. */
#define ASSAY_LEASE_LOADED_MAX 16

/* What a worker asks for. */
struct assay_lease_wish {
    uint64_t service_id;
    size_t chunks_max;
    int64_t wait_ms;                   /* for work */
    const struct assay_digest *loaded; /* variants whose models are loaded, the one used last first */
    size_t loaded_count;               /* at most ASSAY_LEASE_LOADED_MAX */
    const uint64_t *held;              /* all leases that are not completed yet: others go back */
    size_t held_count;
};

/* One call at a time. NOT_FOUND: the coordinator does not know service_id. INTERNAL: a reply that contradicts itself;
 * its lease has been given back. CANCELLED: assay_link_stop_leasing. */
enum assay_status assay_link_lease(struct assay_link *link, const struct assay_lease_wish *wish,
                                   struct assay_worker_lease *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Records that go to one evaluator in one message. */
struct assay_put_group {
    const char *endpoint;
    uint64_t epoch; /* of the map that chose the endpoint; 0: none did */
    const struct assay_variant_id *variant;
    size_t count;
    const struct assay_outgoing *records[ASSAY_PUT_RECORDS_MAX];
    bool moved[ASSAY_PUT_RECORDS_MAX]; /* afterwards: the record belongs to another evaluator and was not stored */
};

/* One attempt. OK: the evaluator has all records but those that are marked as moved. When it knows a later map, *map
 * (may be NULL when epoch is 0) is that one, else its epoch is 0; a group of no records asks for nothing else.
 * Connections to evaluators are kept. */
enum assay_status assay_link_put(struct assay_link *link, struct assay_put_group *group,
                                 struct assay_batch_memory *memory, struct assay_shard_map *map, int64_t deadline_ms,
                                 struct assay_err *err) ASSAY_MUST_USE;

/* What has become of chunks of a lease. */
struct assay_completion {
    const struct assay_chunk_key *keys;
    size_t count;
    uint64_t tokens, compute_us;
    const struct assay_err *failure; /* NULL, or why the rest of the lease goes back */
    bool too_large;                  /* with a failure: the model does not fit into memory here */
};
enum assay_status assay_link_complete(struct assay_link *link, uint64_t service_id, uint64_t lease_id,
                                      const struct assay_completion *completion, int64_t deadline_ms,
                                      bool *ret_lease_lost, struct assay_err *err) ASSAY_MUST_USE;

/* Breaks a waiting Lease off. */
void assay_link_stop_leasing(struct assay_link *link);
/* Breaks everything off. */
void assay_link_cancel_all(struct assay_link *link);
