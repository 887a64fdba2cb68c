/* The steps of one job: quantize, run, score. Blocking; the job's own thread. Each returns CANCELLED when the job was
 * cancelled or the coordinator stops. */
#pragma once

#include "common/wire/spec_message.h"
#include "services/coordinator/coordinator.h"

/* True when the job's thread is to end. No lock. */
bool assay_driver_must_stop(struct assay_job *job);

/* Waits for a live service of a kind; its endpoint into endpoint[ASSAY_SHARD_ENDPOINT_MAX]. */
enum assay_status assay_driver_wait_service(struct assay_job *job, enum assay_service_kind kind,
                                            char endpoint[ASSAY_SHARD_ENDPOINT_MAX],
                                            struct assay_err *err) ASSAY_MUST_USE;

/* Waits until there is an evaluator; *ret (malloc) is the map of them. */
enum assay_status assay_driver_wait_shards(struct assay_job *job, struct assay_shard_map **ret,
                                           struct assay_err *err) ASSAY_MUST_USE;

/* Goes through the steps of a job until it is over or the coordinator stops. */
void assay_driver_run(struct assay_job *job);

/* A status that another try may mend: the service died, restarted or was full. */
bool assay_driver_retriable(enum assay_status status);
void assay_driver_pause(struct assay_job *job, int64_t ms);

/* The message form of a variant, pointing into the plan and itself. */
struct assay_variant_message {
    Assay__V1__Variant variant;
    struct assay_spec_message spec;
};
void assay_variant_message_fill(const struct assay_plan *plan, const struct assay_plan_variant *variant,
                                struct assay_variant_message *ret);

/* A heap copy of an artifact's summary into the record of variant `index`. Takes the lock. */
enum assay_status assay_driver_keep_summary(struct assay_job *job, size_t index,
                                            const Assay__V1__ArtifactSummary *summary,
                                            struct assay_err *err) ASSAY_MUST_USE;

/* Which records of a variant the evaluators have: of the most complete set of one numerics id. */
struct assay_have {
    uint8_t *bits; /* one byte a key of the plan */
    char numerics[64];
    uint64_t epoch; /* of the map */
};
/* Asks each evaluator of the map for its share, on behalf of the call `parent` (NULL: of a job); the answer is the one
 * that a single evaluator with all records would give. UNAVAILABLE: one is not there, or still fetches its share from
 * others. */
enum assay_status assay_have_ask(struct assay_loop *loop, const struct assay_shard_map *map,
                                 const struct assay_plan *plan, size_t index, const struct assay_call *parent,
                                 struct assay_have *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_have_release(struct assay_have *have);

/* Makes the artifact of variant `index`; its summary into the record. */
enum assay_status assay_step_quantize(struct assay_job *job, size_t index, struct assay_err *err) ASSAY_MUST_USE;
/* Asks the evaluator what it has of variant `index` and gives the rest to the scheduler; with a run there already,
 * reconciles. */
enum assay_status assay_step_run(struct assay_job *job, size_t index, struct assay_err *err) ASSAY_MUST_USE;
/* Chunks of one variant that are scored alone, once: what a cancelled job has. */
struct assay_score_part {
    size_t variant;  /* of the plan, not the reference */
    uint8_t *chunks; /* one byte a chunk of the plan: 1 = the reference's and the variant's records are there */
    size_t count;    /* of these */
    int64_t until_ms;
};
/* Its scores into the record. ABORTED: records are missing. DEADLINE_EXCEEDED: it took too long. */
enum assay_status assay_step_score_part(struct assay_job *job, const struct assay_score_part *part,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* What a cancelled job leaves: begin while its runs are in the scheduler (locked), score later (not locked), which
 * frees it. NULL when there is nothing, or memory is out. */
struct assay_partial;
struct assay_partial *assay_partial_begin(struct assay_job *job);
/* True when a variant was scored. */
bool assay_partial_score(struct assay_partial *partial);

/* Scores while records arrive, until all is done; scores into the record. */
enum assay_status assay_step_score(struct assay_job *job, struct assay_err *err) ASSAY_MUST_USE;
