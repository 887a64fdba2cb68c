/* assay-evaluator: keeps records, joins pairs, computes metrics. */
#include <malloc.h>
#include <signal.h>

#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/wire/service.h"
#include "services/evaluator/serve.h"
#include "services/evaluator/shard_id.h"
#include "services/evaluator/takeover.h"

/* How long scoring may take to end at a shutdown. */
#define DRAIN_MS 5000

struct program {
    const char *store;
    char artifacts_dir[ASSAY_PATH_MAX];
    double quota_gb;
    int64_t leave_s;
    struct assay_records *records;
    struct assay_shards *shards;
    struct assay_takeover *takeover;
    struct assay_evaluator *evaluator;
};

static enum assay_status name_shard(struct program *program, const char *store_dir, struct assay_err *err)
{
    struct assay_shard_id id;
    enum assay_status status = assay_shard_id_of_store(store_dir, &id, err);
    if (status != ASSAY_OK)
        return status;
    program->shards = assay_shards_new(&id);
    return program->shards ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
}

static enum assay_status open_records(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    char store_dir[ASSAY_PATH_MAX], moved[ASSAY_PATH_MAX] = "";
    enum assay_status status = program->store ? assay_data_dir(program->store, store_dir, err)
                                              : assay_path_join(store_dir, service->data_dir, ASSAY_EVALUATOR_DIR, err);
    if (status == ASSAY_OK)
        status = assay_records_open(store_dir, (uint64_t)(program->quota_gb * 1e9), moved, &program->records, err);
    if (status == ASSAY_FAILED_PRECONDITION)
        err->status = status = ASSAY_UNAVAILABLE; /* another process has it: a lock that is not to be had */
    if (status == ASSAY_OK && moved[0])
        assay_log(ASSAY_LOG_WARN, "the record store was damaged; it was moved aside and an empty one begun moved=%s",
                  moved);
    return status == ASSAY_OK ? name_shard(program, store_dir, err) : status;
}

static enum assay_status prepare(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    enum assay_status status = assay_path_join(program->artifacts_dir, service->data_dir, ASSAY_ARTIFACTS_DIR, err);
    return status == ASSAY_OK ? assay_evaluator_new(service->loop, service->server, program->records, program->shards,
                                                    service->pool, program->artifacts_dir, &program->evaluator, err)
                              : status;
}

static enum assay_status start(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    return assay_takeover_start(service->loop, service->client, program->records, program->shards, &program->takeover,
                                err);
}

static void measure(struct assay_service_process *service, struct assay_metrics *metrics)
{
    const struct program *program = service->arg;
    assay_evaluator_measure(program->evaluator, metrics);
}

static enum assay_status begin(struct assay_service_process *service, struct assay_err *err)
{
    const struct program *program = service->arg;
    (void)err;
    assay_log(ASSAY_LOG_INFO, "store open threads=%lld records=%zu bytes=%llu", (long long)service->settings.threads,
              assay_records_count(program->records), (unsigned long long)assay_records_bytes(program->records));
    return ASSAY_OK;
}

static void describe(struct assay_service_process *service, Assay__V1__RegisterRequest *registration)
{
    const struct program *program = service->arg;
    registration->has_shard_id = true;
    registration->shard_id =
        (ProtobufCBinaryData){ASSAY_SHARD_ID_BYTES, (uint8_t *)(uintptr_t)assay_shards_self(program->shards)->bytes};
}

static void count(void *arg, Assay__V1__ServiceCounters *counters)
{
    const struct program *program = arg;
    assay_evaluator_count(program->evaluator, counters);
}

/* SIGTERM: this evaluator is to go for good, its records stay in the stack. SIGINT: it will be back. */
static void leave(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    if (service->signal_number == SIGTERM && program->takeover &&
        assay_takeover_leave(program->takeover, service->member, 1000 * program->leave_s))
        assay_log(ASSAY_LOG_INFO, "the other evaluators have what was here");
}

static void drain(struct assay_service_process *service)
{
    struct program *program = service->arg;
    assay_evaluator_drain(program->evaluator, DRAIN_MS);
    assay_takeover_stop(assay_steal(&program->takeover));
}

static void end(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_evaluator_free(program->evaluator);
    assay_records_close(program->records);
    assay_shards_free(program->shards);
}

/* Records come and go in buffers of megabytes. Given back to the kernel each time, every page of them would be cleared
 * and mapped anew; so much of what was freed stays in the heap. 32 MiB is the most that malloc takes from its heaps.
 * One heap for all threads, else each would keep so much, and malloc_trim gives back the end of the first one alone.
 * An allocator without these options, as sanitizers have, goes its own way: only speed and memory depend on them. */
static void keep_freed_memory(void)
{
    enum { KEPT_BYTES = 32 << 20 };
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

int main(int argc, char **argv)
{
    static struct program program = {.quota_gb = 50, .leave_s = 25};
    const struct assay_setting rows[] = {
        {.name = "store",
         .type = ASSAY_SETTING_STRING,
         .target = &program.store,
         .argument = "DIR",
         .help = "directory of the records, DATA/evaluator if not given; each evaluator has one of its own"},
        {.name = "quota-gb",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &program.quota_gb,
         .min = 0.001,
         .max = 1000000,
         .argument = "GB",
         .help = "room for records and samples; the ones used longest ago make room"},
        {.name = "leave-s",
         .type = ASSAY_SETTING_INT,
         .target = &program.leave_s,
         .min = 0,
         .max = 86400,
         .argument = "SECONDS",
         .help =
             "on SIGTERM, how long the other evaluators may take to fetch what is here (0: nothing is handed over)"},
    };
    keep_freed_memory();
    const struct assay_service_program service = {
        .name = "evaluator",
        .usage = "assay-evaluator [--data DIR] [--coordinator ENDPOINT]",
        .summary = "Keeps the records of a stack, compares variants with their reference.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
        .threads_help = "threads that score",
        .kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR,
        .open = open_records,
        .prepare = prepare,
        .start = start,
        .measure = measure,
        .begin = begin,
        .describe = describe,
        .count = count,
        .leave = leave,
        .drain = drain,
        .close = end,
    };
    return assay_service_main(&service, argc, argv, &program);
}
