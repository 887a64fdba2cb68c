#include "tests/unit/sim_stack.h"

#include <stdlib.h>
#include <string.h>

#include "services/coordinator/heap.h"

enum { VARIANTS = 4, RUNS = 6, PRECISIONS = 2 };

#define BEAT_MS 1000
#define TICK_MS 200
#define ASK_MS 500
#define DAY_MS 86400000
/* Of a chunk on an ordinary worker. */
#define CHUNK_MS 40

static const char *const precisions[PRECISIONS] = {"fp32", "int8"};

struct sim_worker {
    struct assay_heap_node due; /* what it does next */
    uint64_t id;
    const char *precision;
    int64_t chunk_ms;
    int64_t silent_until_ms; /* no sign of life before */
    int64_t beat_ms;
    struct assay_variant_id loaded[SIM_MODELS_MAX]; /* the one used last first */
    size_t loaded_count;
    uint64_t lease;
    size_t run, *chunks, count, done; /* of its lease */
};

struct sim_run {
    struct assay_run *run;
    size_t variant, begin, count, job;
    int priority;
    int64_t from_ms, until_ms; /* when it is submitted, and when cancelled */
};

struct sim {
    const struct sim_options *options;
    struct assay_scheduler *scheduler;
    struct assay_registry registry;
    struct assay_heap due;
    struct sim_worker *workers;
    struct assay_chunk_key *keys; /* [per_variant], the same for each variant */
    uint8_t *have[VARIANTS];      /* the evaluator's records: what Completes were taken for, less what it lost */
    struct sim_run runs[RUNS];
    size_t per_variant;
    int64_t now_ms;
    uint64_t random, next_id, beats;
    struct sim_result *result;
};

static uint64_t draw(struct sim *sim)
{
    uint64_t z = sim->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* True once in `one_in`, when there are faults. */
static bool strikes(struct sim *sim, uint64_t one_in)
{
    return sim->options->faults && draw(sim) % one_in == 0;
}

static struct assay_variant_id variant_id(size_t variant)
{
    return (struct assay_variant_id){{{(uint8_t)(variant + 1), 9}}};
}

/* --- jobs --- */

/* Four jobs: one over two variants, one over halves of the second and third, one with priority that comes later, and
 * one that shares chunks with the first and is cancelled. */
static void plan_runs(struct sim *sim)
{
    size_t n = sim->per_variant;
    const struct sim_run runs[RUNS] = {
        {.variant = 0, .count = n, .job = 1},
        {.variant = 1, .count = n, .job = 1},
        {.variant = 1, .begin = n / 2, .count = n - n / 2, .job = 2},
        {.variant = 2, .count = n, .job = 2},
        {.variant = 3, .count = n, .job = 3, .priority = 2, .from_ms = 3000},
        {.variant = 0, .begin = n / 4, .count = n / 2, .job = 4, .from_ms = 1000, .until_ms = 6000},
    };
    memcpy(sim->runs, runs, sizeof runs);
}

static bool submit(struct sim *sim, struct sim_run *run)
{
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_run_options options = {.precision = precisions[run->variant % PRECISIONS],
                                              .variant = variant_id(run->variant),
                                              .numerics = "",
                                              .keys = sim->keys + run->begin,
                                              .have = sim->have[run->variant] + run->begin,
                                              .count = run->count,
                                              .job = run->job,
                                              .priority = run->priority,
                                              .owner = run};
    return assay_scheduler_add(sim->scheduler, &options, &run->run, &err) == ASSAY_OK;
}

static bool submit_and_cancel(struct sim *sim)
{
    for (size_t i = 0; i < RUNS; i++) {
        struct sim_run *run = &sim->runs[i];
        if (!run->run && sim->now_ms >= run->from_ms && (!run->until_ms || sim->now_ms < run->until_ms)) {
            if (!submit(sim, run))
                return false;
        } else if (run->run && run->until_ms && sim->now_ms >= run->until_ms) {
            assay_scheduler_remove(sim->scheduler, run->run);
            run->run = NULL;
        }
    }
    return true;
}

static bool all_done(const struct sim *sim)
{
    for (size_t i = 0; i < RUNS; i++) {
        const struct sim_run *run = &sim->runs[i];
        if (run->until_ms ? sim->now_ms < run->until_ms
                          : !run->run || assay_run_done(run->run) < assay_run_total(run->run))
            return false;
    }
    return true;
}

/* One in a hundred records of a variant is gone; each job that wants it asks what is there. */
static void lose_records(struct sim *sim)
{
    size_t variant = draw(sim) % VARIANTS;
    for (size_t i = 0; i < sim->per_variant; i++)
        if (sim->have[variant][i] && draw(sim) % 100 == 0) {
            sim->have[variant][i] = 0;
            sim->result->lost++;
        }
    for (size_t i = 0; i < RUNS; i++)
        if (sim->runs[i].run && sim->runs[i].variant == variant)
            assay_run_reconcile(sim->runs[i].run, sim->have[variant] + sim->runs[i].begin);
}

/* --- workers --- */

static bool enroll(struct sim *sim, struct sim_worker *worker)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_service service = {.id = ++sim->next_id, .kind = ASSAY_SERVICE_INFERENCE, .numerics = "n1"};
    strcpy(service.precision, worker->precision);
    worker->id = service.id;
    sim->result->registrations++;
    return assay_registry_add(&sim->registry, &service, sim->now_ms, &err) == ASSAY_OK;
}

static void next_at(struct sim *sim, struct sim_worker *worker, int64_t at_ms)
{
    worker->due.key = at_ms;
    assay_heap_moved(&sim->due, &worker->due);
}

/* The model becomes the first of the list. */
static void load(struct sim *sim, struct sim_worker *worker, struct assay_variant_id variant)
{
    size_t at = 0, models = sim->options->models ? sim->options->models : 1;
    while (at < worker->loaded_count && !assay_digest_equal(&worker->loaded[at].digest, &variant.digest))
        at++;
    if (at == worker->loaded_count) {
        sim->result->loads++;
        worker->loaded_count = ASSAY_MIN(worker->loaded_count + 1, models);
        at = worker->loaded_count - 1;
    }
    memmove(worker->loaded + 1, worker->loaded, at * sizeof *worker->loaded);
    worker->loaded[0] = variant;
}

static void ask(struct sim *sim, struct sim_worker *worker)
{
    struct assay_lease got;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_ask request = {.service_id = worker->id,
                                      .precision = worker->precision,
                                      .numerics_id = "n1",
                                      .loaded = worker->loaded,
                                      .loaded_count = worker->loaded_count,
                                      .chunks_max = ASSAY_LEASE_CHUNKS_MAX,
                                      .workers = assay_registry_workers(&sim->registry, worker->precision)};
    if (!assay_scheduler_lease(sim->scheduler, &request, sim->now_ms, &got, &err)) {
        next_at(sim, worker, sim->now_ms + ASK_MS);
        return;
    }
    const struct sim_run *run = assay_run_owner(got.run);
    worker->lease = got.id;
    worker->run = (size_t)(run - sim->runs);
    worker->count = got.count;
    worker->done = 0;
    load(sim, worker, variant_id(run->variant));
    for (size_t i = 0; i < got.count; i++) {
        worker->chunks[i] = run->begin + got.chunks[i];
        sim->result->regranted += sim->have[run->variant][worker->chunks[i]];
    }
    next_at(sim, worker, sim->now_ms + worker->chunk_ms * (int64_t)ASSAY_MIN(got.count, 32));
}

/* The records go to the evaluator, then the coordinator hears of them. */
static void answer(struct sim *sim, struct sim_worker *worker)
{
    struct assay_chunk_key keys[32];
    size_t count = ASSAY_MIN(worker->count - worker->done, 32), newly = 0;
    size_t variant = sim->runs[worker->run].variant;
    struct assay_run *run;
    for (size_t i = 0; i < count; i++)
        keys[i] = sim->keys[worker->chunks[worker->done + i]];
    bool kept = assay_scheduler_complete(sim->scheduler, worker->id, worker->lease, keys, count,
                                         (uint64_t)worker->chunk_ms * count * 1000, sim->now_ms, &run, &newly);
    size_t wanted = 0;
    for (size_t i = 0; i < count && kept; i++) {
        uint8_t *have = &sim->have[variant][worker->chunks[worker->done + i]];
        wanted += *have == 0;
        *have = 1;
    }
    sim->result->miscounted += newly != wanted;
    sim->result->counted += newly;
    sim->result->lost_answers += !kept;
    worker->done = kept ? worker->done + count : worker->count;
    if (worker->done < worker->count)
        next_at(sim, worker, sim->now_ms + worker->chunk_ms * (int64_t)ASSAY_MIN(worker->count - worker->done, 32));
    else
        worker->lease = 0;
}

static bool step_worker(struct sim *sim, struct sim_worker *worker)
{
    bool was_silent = worker->silent_until_ms > 0;
    worker->silent_until_ms = 0;
    sim->beats++;
    if (!assay_registry_seen(&sim->registry, worker->id, NULL, sim->now_ms) && !enroll(sim, worker))
        return false;
    if (worker->lease) {
        sim->result->late_answers += was_silent;
        if (strikes(sim, 500)) {
            sim->result->failures++;
            assay_scheduler_return(sim->scheduler, worker->id, worker->lease, true, "simulated");
            worker->lease = 0;
        } else {
            answer(sim, worker);
        }
    }
    if (!worker->lease)
        ask(sim, worker);
    if (strikes(sim, 100)) {
        sim->result->silences++;
        worker->silent_until_ms = sim->now_ms + 1000 + (int64_t)(draw(sim) % 60000);
        next_at(sim, worker, ASSAY_MAX(worker->due.key, worker->silent_until_ms));
    }
    return true;
}

/* --- time --- */

static void health_changed(void *arg, const struct assay_service *service)
{
    struct sim *sim = arg;
    if (service->health == ASSAY_HEALTH_DEAD)
        assay_scheduler_drop_service(sim->scheduler, service->id);
}

/* A heartbeat of each worker that is not silent. */
static void beat(struct sim *sim)
{
    for (size_t i = 0; i < sim->options->workers; i++) {
        struct sim_worker *worker = &sim->workers[i];
        if (worker->silent_until_ms > 0)
            continue;
        sim->beats++;
        assay_registry_seen(&sim->registry, worker->id, NULL, sim->now_ms);
    }
}

static bool run_until_done(struct sim *sim)
{
    int64_t next_tick_ms = 0, next_beat_ms = 0, next_loss_ms = 2000;
    while (!all_done(sim)) {
        struct sim_worker *worker = ASSAY_HEAP_OWNER(assay_heap_first(&sim->due), struct sim_worker, due);
        if (worker->due.key < next_tick_ms) {
            sim->now_ms = worker->due.key;
            if (!step_worker(sim, worker))
                return false;
            continue;
        }
        sim->now_ms = next_tick_ms;
        next_tick_ms += TICK_MS;
        assay_registry_tick(&sim->registry, sim->now_ms, health_changed, sim);
        assay_scheduler_expire(sim->scheduler, sim->now_ms);
        while (assay_scheduler_next_changed(sim->scheduler))
            continue;
        if (sim->now_ms >= next_beat_ms) {
            next_beat_ms += BEAT_MS;
            beat(sim);
        }
        if (sim->options->faults && sim->now_ms >= next_loss_ms) {
            next_loss_ms = 2 * next_loss_ms;
            lose_records(sim);
        }
        if (!submit_and_cancel(sim) || sim->now_ms > DAY_MS)
            return false;
    }
    return true;
}

static bool build(struct sim *sim)
{
    size_t n = sim->per_variant;
    sim->scheduler = assay_scheduler_new();
    sim->workers = calloc(sim->options->workers, sizeof *sim->workers);
    sim->keys = calloc(n, sizeof *sim->keys);
    bool built = sim->scheduler && sim->workers && sim->keys;
    for (size_t i = 0; i < VARIANTS && built; i++) {
        sim->have[i] = calloc(n, 1);
        built = sim->have[i] != NULL;
    }
    built = built && assay_heap_reserve(&sim->due, sim->options->workers);
    for (size_t i = 0; i < n && built; i++)
        for (size_t word = 0; word < 4; word++) {
            uint64_t bits = draw(sim);
            memcpy(sim->keys[i].digest.bytes + 8 * word, &bits, sizeof bits);
        }
    plan_runs(sim);
    for (size_t i = 0; i < sim->options->workers && built; i++) {
        struct sim_worker *worker = &sim->workers[i];
        worker->precision = precisions[i % PRECISIONS];
        worker->chunk_ms = CHUNK_MS * (sim->options->faults && draw(sim) % 10 == 0 ? 10 : 1);
        worker->chunks = calloc(ASSAY_LEASE_CHUNKS_MAX, sizeof *worker->chunks);
        worker->due = (struct assay_heap_node){.key = (int64_t)(draw(sim) % 2000), .order = i};
        assay_heap_push(&sim->due, &worker->due);
        built = worker->chunks && enroll(sim, worker);
    }
    return built;
}

static void tear_down(struct sim *sim)
{
    for (size_t i = 0; sim->workers && i < sim->options->workers; i++)
        free(sim->workers[i].chunks);
    free(sim->workers);
    free(sim->keys);
    for (size_t i = 0; i < VARIANTS; i++)
        free(sim->have[i]);
    assay_heap_release(&sim->due);
    assay_registry_release(&sim->registry);
    assay_scheduler_free(sim->scheduler);
}

static void conclude(struct sim *sim)
{
    struct sim_result *result = sim->result;
    assay_scheduler_stats(sim->scheduler, &result->stats);
    result->chunks = VARIANTS * sim->per_variant;
    result->simulated_s = (double)sim->now_ms / 1e3;
    for (size_t i = 0; i < RUNS; i++)
        result->dead += sim->runs[i].run && assay_run_dead_reason(sim->runs[i].run);
    for (size_t variant = 0; variant < VARIANTS; variant++)
        for (size_t i = 0; i < sim->per_variant; i++)
            result->missing += sim->have[variant][i] == 0;
    uint64_t decisions = result->stats.decisions + result->stats.chunks_leased + result->stats.chunks_done + sim->beats;
    result->steps_per_decision = (double)result->stats.steps / (double)decisions;
}

bool sim_run(const struct sim_options *options, struct sim_result *ret)
{
    *ret = (struct sim_result){0};
    struct sim sim = {
        .options = options, .random = options->seed, .per_variant = options->chunks / VARIANTS, .result = ret};
    bool ended = build(&sim) && run_until_done(&sim);
    if (ended)
        conclude(&sim);
    tear_down(&sim);
    return ended;
}
