/* The sockets of the evaluator: the services Records, Evaluator, Cache and Shards. No decisions. */
#pragma once

#include "common/base/pool.h"
#include "common/obs/metrics.h"
#include "common/wire/server.h"
#include "proto/control.pb-c.h"
#include "services/evaluator/records.h"
#include "services/evaluator/shards.h"

/* Score calls at once; each has a thread. */
#define ASSAY_EVALUATOR_SCORES_MAX 16
/* Calls of Cache and Shards at once; each has a thread. */
#define ASSAY_EVALUATOR_CACHE_CALLS_MAX 16
#define ASSAY_PUT_RECORDS_MAX 256
/* Keys in one Have. */
#define ASSAY_HAVE_KEYS_MAX 1000000

struct assay_evaluator;

/* Adds the services to the server, before the loop runs. Records, shards, pool and artifacts_dir (where heads go whose
 * artifacts are not visible here) outlive it. */
enum assay_status assay_evaluator_new(struct assay_loop *loop, struct assay_server *server,
                                      struct assay_records *records, struct assay_shards *shards,
                                      struct assay_pool *pool, const char *artifacts_dir, struct assay_evaluator **ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* Takes nothing new, commits and acknowledges what waits, tells scoring to end and gives it wait_ms. The loop runs
 * still. */
void assay_evaluator_drain(struct assay_evaluator *evaluator, int64_t wait_ms);
/* After the server was freed, which ends what hangs on a client. NULL is fine. */
void assay_evaluator_free(struct assay_evaluator *evaluator);

/* Adds what it counts to the registry; it outlives the registry's prints. */
void assay_evaluator_measure(struct assay_evaluator *evaluator, struct assay_metrics *metrics);

/* assay_member_counters_fn: chunks and tokens scored, heads loaded, time of scoring. */
void assay_evaluator_count(void *evaluator, Assay__V1__ServiceCounters *counters);
