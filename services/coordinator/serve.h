/* The loop thread's state: calls that wait for something. */
#pragma once

#include "services/coordinator/coordinator.h"

/* A model that the worker of a parked call has loaded. */
struct assay_parked_model {
    struct assay_parked *parked;
    struct assay_parked_model *prev, *next; /* of the same bench and model, the newest call first */
    uint64_t key;                           /* of the model: the first bytes of its id */
};

/* A Lease call without work, until its time is over. */
struct assay_parked {
    struct assay_parked *prev, *next; /* in its bench */
    struct assay_bench *bench;
    struct assay_call *call;
    struct assay_serve *serve;
    uint64_t timer;
    struct assay_parked_model models[ASSAY_LOADED_MAX];
    size_t models_count;
};

/* Parked calls of workers with one precision and numerics id, the oldest first: looked at only when there is work for
 * them. */
struct assay_bench {
    struct assay_bench *next;
    char precision[32];
    char numerics[64];
    struct assay_parked *first, *last;
    struct assay_idmap models; /* by key: the newest struct assay_parked_model */
};

/* A WatchEvents or WatchDemand call. */
struct assay_watcher {
    struct assay_watcher *next;
    struct assay_call *call;
    struct assay_serve *serve;
    struct assay_job *job;  /* NULL: demand */
    uint64_t next_sequence; /* events */
    char *sent;             /* demand: what was sent last, joined by spaces; NULL before */
};

struct assay_serve {
    struct assay_coordinator *coordinator;
    uint64_t timer;
    struct assay_bench *benches;
    struct assay_watcher *watchers;
    struct assay_shard_watcher *shard_watchers;
};

/* One service as a message; strings point into `entry`, which is filled by the caller. */
struct assay_service_message {
    Assay__V1__ServiceInfo info;
    Assay__V1__RegisterRequest registration;
    Assay__V1__ServiceCounters counters;
    ProtobufCBinaryData loaded[ASSAY_LOADED_MAX];
    struct assay_service entry;
};
void assay_serve_fill_service(struct assay_service_message *message, bool leased, int64_t now_ms);

/* Locked: which models a worker says it has loaded; ids of a wrong size are left out. */
void assay_service_note_loaded(struct assay_service *service, const ProtobufCBinaryData *ids, size_t count);

extern const assay_method_fn assay_serve_status_methods[];
extern const assay_method_fn assay_serve_work_methods[];
extern const assay_method_fn assay_serve_coordinator_methods[];

/* serve_work.c: answers a Lease call if there is work for its worker. */
bool assay_serve_try_lease(struct assay_coordinator *coordinator, struct assay_call *call);
/* serve_bench.c. NULL: out of memory. */
struct assay_bench *assay_bench_get(struct assay_serve *serve, const char *precision, const char *numerics);
/* Keeps the call until there is work or its time is over. `loaded` are the models of its worker. NULL as bench: answers
 * that there is no work. */
void assay_serve_park(struct assay_serve *serve, struct assay_call *call, struct assay_bench *bench,
                      const struct assay_variant_id *loaded, size_t loaded_count, int64_t wait_ms);
/* Tries parked leases again for which there may be work now: first that of a worker which has the model loaded that is
 * next, else the oldest. */
void assay_serve_parked(struct assay_serve *serve);
void assay_serve_benches_free(struct assay_serve *serve);
/* Locked: runs whose counts changed say so to their jobs. */
void assay_serve_note_runs(struct assay_coordinator *coordinator);
/* serve_status.c */
void assay_serve_list_services(struct assay_call *call, void *service);
/* serve_watch.c */
void assay_serve_watch_events(struct assay_call *call, void *service);
void assay_serve_watch_demand(struct assay_call *call, void *service);
void assay_serve_watchers(struct assay_serve *serve);
void assay_serve_watchers_free(struct assay_serve *serve);
/* The job is gone: its watchers are told. */
void assay_serve_unwatch(struct assay_serve *serve, const struct assay_job *job);
/* serve_jobs.c */
void assay_serve_submit_job(struct assay_call *call, void *service);
void assay_serve_get_job(struct assay_call *call, void *service);
void assay_serve_list_jobs(struct assay_call *call, void *service);
void assay_serve_cancel_job(struct assay_call *call, void *service);
void assay_serve_pause_job(struct assay_call *call, void *service);
void assay_serve_resume_job(struct assay_call *call, void *service);
void assay_serve_retry_job(struct assay_call *call, void *service);
void assay_serve_remove_job(struct assay_call *call, void *service);
/* What SubmitJob and PlanJob check before anything is started; the corpus into *ret_corpus. */
enum assay_status assay_serve_check_submit(struct assay_call *call, const struct assay_coordinator *coordinator,
                                           struct assay_bytes *ret_corpus, struct assay_err *err) ASSAY_MUST_USE;
/* serve_shards.c */
void assay_serve_watch_shards(struct assay_call *call, void *service);
void assay_serve_leave_shards(struct assay_call *call, void *service);
void assay_serve_shard_watchers(struct assay_serve *serve);
void assay_serve_shard_watchers_free(struct assay_serve *serve);
/* serve_plan.c */
void assay_serve_plan_job(struct assay_call *call, void *service);
/* Locked. NULL after answering the call with what is wrong with the id. */
struct assay_job *assay_serve_find_job(struct assay_coordinator *coordinator, ProtobufCBinaryData id,
                                       struct assay_err *err);
