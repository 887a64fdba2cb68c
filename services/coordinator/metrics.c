#include "services/coordinator/metrics.h"

#include "services/coordinator/coordinator.h"

/* 1 us to 100 ms: a decision is to take microseconds whatever the number of workers and chunks. */
static const uint64_t decision_us[] = {1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000};

/* In the order of the members of struct assay_coordinator_metrics, as assay_coordinator_measure lists them. */
static const struct assay_metric_row rows[] = {
    {.name = "assay_chunks_run_total",
     .help = "Chunks that workers ran, by precision.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"precision"}},
    {.name = "assay_tokens_run_total",
     .help = "Tokens that workers ran, by precision.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"precision"}},
    {.name = "assay_compute_seconds_total",
     .help = "Wall time of the workers' forward passes, by precision.",
     .type = ASSAY_METRIC_COUNTER,
     .scale = 1e-6,
     .labels = {"precision"}},
    {.name = "assay_record_lookups_total",
     .help = "Records that jobs wanted, by outcome: hit, the evaluator had it; miss, it had to be run.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"outcome"}},
    {.name = "assay_jobs_ended_total",
     .help = "Jobs that ended, by state.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"state"}},
    {.name = "assay_late_answers_total",
     .help = "Answers of workers whose lease had ended; their records count all the same.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_lease_decision_seconds",
     .help = "Time that looking for a lease took, the reply made and the lock waited for included.",
     .type = ASSAY_METRIC_HISTOGRAM,
     .scale = 1e-6,
     .buckets = decision_us,
     .buckets_count = ASSAY_COUNT(decision_us)},
    {.name = "assay_leases_granted_total", .help = "Leases handed out.", .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_leases_copied_total",
     .help = "Of these, leases of chunks that another worker was late with.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_leases_ended_total",
     .help =
         "Leases that ended, by reason: completed, returned by the worker, expired without progress, dropped (worker "
         "dead), outrun by a copy, removed with their job.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"reason"}},
    {.name = "assay_leases_open", .help = "Leases out now.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_chunks_leased_total",
     .help = "Chunks handed out; one that came back counts again.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_chunks_retried_total",
     .help = "Chunks that came back by their own or their worker's fault.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_chunks_dead_total", .help = "Chunks given up after too many tries.", .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_jobs", .help = "Jobs that are kept, by state.", .type = ASSAY_METRIC_GAUGE, .labels = {"state"}},
    {.name = "assay_queue_chunks",
     .help = "Chunks of running jobs, by precision and state: pending, leased.",
     .type = ASSAY_METRIC_GAUGE,
     .labels = {"precision", "state"}},
    {.name = "assay_services",
     .help = "Registered services, by kind, precision and state: ready, leased, suspect, silent.",
     .type = ASSAY_METRIC_GAUGE,
     .labels = {"kind", "precision", "state"}},
    {.name = "assay_lease_waits", .help = "Workers whose Lease call waits for work.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_event_watchers", .help = "Streams of events and of demand.", .type = ASSAY_METRIC_GAUGE},
};

static const char *const job_states[] = {"queued", "running", "completed", "failed", "cancelled", "paused"};

static const char *kind_name(enum assay_service_kind kind)
{
    return kind == ASSAY_SERVICE_INFERENCE ? "inference" : kind == ASSAY_SERVICE_QUANTIZER ? "quantizer" : "evaluator";
}

static void collect_jobs(const struct assay_coordinator *c)
{
    size_t counts[ASSAY_COUNT(job_states)] = {0};
    for (const struct assay_job *job = c->jobs; job; job = job->next)
        if (job->record->state >= ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED &&
            job->record->state <= ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED)
            counts[job->record->state - ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED]++;
    for (size_t i = 0; i < ASSAY_COUNT(job_states); i++)
        assay_gauge_set(assay_metric_series(c->metrics.jobs, &job_states[i]), (double)counts[i]);
}

static void collect_chunks(const struct assay_coordinator *c)
{
    assay_gauge_zero_all(c->metrics.chunks);
    for (const struct assay_job *job = c->jobs; job; job = job->next) {
        for (size_t i = 0; i < job->plan.variants_count; i++) {
            const struct assay_run *run = job->runs[i].run;
            const char *precision = assay_scheme_name(job->plan.variants[i].spec.scheme);
            const char *const waiting[] = {precision, "pending"}, *const lent[] = {precision, "leased"};
            size_t pending = run ? assay_run_pending(run) : 0;
            size_t leased = run ? assay_run_total(run) - assay_run_done(run) - pending : 0;
            assay_gauge_add(assay_metric_series(c->metrics.chunks, waiting), (double)pending);
            assay_gauge_add(assay_metric_series(c->metrics.chunks, lent), (double)leased);
        }
    }
}

static const char *state_of(const struct assay_coordinator *c, const struct assay_service *service)
{
    if (service->health != ASSAY_HEALTH_ALIVE)
        return service->health == ASSAY_HEALTH_SUSPECT ? "suspect" : "silent";
    return assay_scheduler_has_lease(c->scheduler, service->id) ? "leased" : "ready";
}

static void collect_services(const struct assay_coordinator *c)
{
    assay_gauge_zero_all(c->metrics.services);
    for (int kind = 1; kind < ASSAY_SERVICE_KINDS; kind++) {
        const struct assay_service *service = NULL;
        while ((service = assay_registry_next(&c->registry, (enum assay_service_kind)kind, service))) {
            const char *const values[] = {kind_name(service->kind), service->precision, state_of(c, service)};
            assay_gauge_add(assay_metric_series(c->metrics.services, values), 1);
        }
    }
}

static void collect_leases(const struct assay_coordinator *c)
{
    const struct assay_coordinator_metrics *m = &c->metrics;
    struct assay_scheduler_stats stats;
    assay_scheduler_stats(c->scheduler, &stats);
    const struct {
        const char *reason;
        uint64_t count;
    } ends[] = {{"completed", stats.leases_completed}, {"returned", stats.leases_returned},
                {"expired", stats.leases_expired},     {"dropped", stats.leases_dropped},
                {"outrun", stats.leases_outrun},       {"removed", stats.leases_removed}};
    for (size_t i = 0; i < ASSAY_COUNT(ends); i++)
        assay_counter_set(assay_metric_series(m->leases_ended, &ends[i].reason), ends[i].count);
    assay_counter_set(assay_metric_only(m->leases), stats.leases);
    assay_counter_set(assay_metric_only(m->leases_copied), stats.leases_copied);
    assay_gauge_set(assay_metric_only(m->leases_open), (double)stats.leases_open);
    assay_counter_set(assay_metric_only(m->chunks_leased), stats.chunks_leased);
    assay_counter_set(assay_metric_only(m->chunks_retried), stats.chunks_retried);
    assay_counter_set(assay_metric_only(m->chunks_dead), stats.chunks_dead);
}

static void collect(void *arg)
{
    struct assay_coordinator *c = arg;
    pthread_mutex_lock(&c->lock);
    collect_jobs(c);
    collect_chunks(c);
    collect_services(c);
    collect_leases(c);
    pthread_mutex_unlock(&c->lock);
}

void assay_coordinator_measure(struct assay_coordinator *coordinator, struct assay_metrics *metrics)
{
    struct assay_coordinator_metrics *m = &coordinator->metrics;
    struct assay_metric **const families[] = {&m->chunks_run,     &m->tokens_run,   &m->compute,     &m->records_found,
                                              &m->jobs_ended,     &m->late_answers, &m->decisions,   &m->leases,
                                              &m->leases_copied,  &m->leases_ended, &m->leases_open, &m->chunks_leased,
                                              &m->chunks_retried, &m->chunks_dead,  &m->jobs,        &m->chunks,
                                              &m->services,       &m->parked,       &m->watchers};
    _Static_assert(ASSAY_COUNT(families) == ASSAY_COUNT(rows), "one family for each row");
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++)
        *families[i] = assay_metrics_add(metrics, &rows[i]);
    assay_gauge_set(assay_metric_only(m->parked), 0);
    assay_gauge_set(assay_metric_only(m->watchers), 0);
    assay_metrics_collect(metrics, collect, coordinator);
}
