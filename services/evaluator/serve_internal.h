/* What the serve_*.c files share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "proto/types.pb-c.h"
#include "services/evaluator/heads.h"
#include "services/evaluator/serve.h"
#include "services/evaluator/share.h"
#include "services/evaluator/writer.h"

struct score_call;
struct cache_call;

struct assay_evaluator {
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_records *records;
    struct assay_pool *pool;
    const char *artifacts_dir;
    struct assay_heads *heads;
    struct assay_writer *writer;
    struct assay_shards *shards;
    /* Held from reading whose a record is until its Put waits for the writer: under a later map no Put is in between.
     */
    pthread_mutex_t taking;
    atomic_bool stopping;
    atomic_uint_fast64_t chunks_scored, chunks_cached, tokens_scored, compute_us;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended; /* a score call did */
    struct score_call *calls;
    struct cache_call *cache_calls;
};

/* A tensor's dtype as records have it; false for one that they do not have. An unset one is F32. */
bool serve_record_dtype(bool has, Assay__V1__Dtype dtype, enum assay_record_dtype *ret);

/* The attachment of a tensor, checked against dtype, number of dimensions and bytes; shape[dims] is filled.
 * INVALID_ARGUMENT names `what`. */
enum assay_status serve_tensor(const struct assay_call *call, const Assay__V1__Tensor *tensor, Assay__V1__Dtype dtype,
                               size_t dims, const char *what, uint64_t *shape, struct assay_bytes *ret,
                               struct assay_err *err) ASSAY_MUST_USE;

void serve_put(struct assay_call *call, void *evaluator);
void serve_have(struct assay_call *call, void *evaluator);
void serve_score(struct assay_call *call, void *evaluator);
void serve_cache_stat(struct assay_call *call, void *evaluator);
void serve_cache_list(struct assay_call *call, void *evaluator);
void serve_cache_verify(struct assay_call *call, void *evaluator);
void serve_cache_prune(struct assay_call *call, void *evaluator);

void serve_shard_list(struct assay_call *call, void *evaluator);
void serve_shard_fetch(struct assay_call *call, void *evaluator);
void serve_shard_release(struct assay_call *call, void *evaluator);

/* Runs a call on a thread of its own, of ASSAY_EVALUATOR_CACHE_CALLS_MAX at most. run answers the call when it returns
 * OK. */
typedef enum assay_status (*serve_run_fn)(struct assay_evaluator *evaluator, struct assay_call *call,
                                          struct assay_err *err);
void serve_on_thread(struct assay_call *call, struct assay_evaluator *evaluator, serve_run_fn run);

/* Joins the threads of score calls that have ended; all of them when `all` is true. */
void serve_reap(struct assay_evaluator *evaluator, bool all);
/* The same for serve_on_thread. */
void serve_reap_cache(struct assay_evaluator *evaluator, bool all);
bool serve_scores_running(struct assay_evaluator *evaluator); /* lock is held */
