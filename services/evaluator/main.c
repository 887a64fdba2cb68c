/* assay-evaluator: keeps records, joins pairs, computes metrics. */
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/wire/service.h"
#include "services/evaluator/serve.h"

/* How long scoring may take to end at a shutdown. */
#define DRAIN_MS 5000

struct program {
    double quota_gb;
    struct assay_records *records;
    struct assay_evaluator *evaluator;
};

static enum assay_status open_records(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    char store_dir[ASSAY_PATH_MAX], moved[ASSAY_PATH_MAX] = "";
    enum assay_status status = assay_path_join(store_dir, service->data_dir, ASSAY_EVALUATOR_DIR, err);
    if (status == ASSAY_OK)
        status = assay_records_open(store_dir, (uint64_t)(program->quota_gb * 1e9), moved, &program->records, err);
    if (status == ASSAY_FAILED_PRECONDITION)
        err->status = status = ASSAY_UNAVAILABLE; /* another process has it: a lock that is not to be had */
    if (status == ASSAY_OK && moved[0])
        assay_log(ASSAY_LOG_WARN, "the record store was damaged; it was moved aside and an empty one begun moved=%s",
                  moved);
    return status;
}

static enum assay_status prepare(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    return assay_evaluator_new(service->loop, service->server, program->records, service->pool, &program->evaluator,
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

static void count(void *arg, Assay__V1__ServiceCounters *counters)
{
    const struct program *program = arg;
    assay_evaluator_count(program->evaluator, counters);
}

static void drain(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_evaluator_drain(program->evaluator, DRAIN_MS);
}

static void end(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_evaluator_free(program->evaluator);
    assay_records_close(program->records);
}

int main(int argc, char **argv)
{
    static struct program program = {.quota_gb = 50};
    const struct assay_setting rows[] = {
        {.name = "quota-gb",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &program.quota_gb,
         .min = 0.001,
         .max = 1000000,
         .argument = "GB",
         .help = "room for records and samples; the ones used longest ago make room"},
    };
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
        .measure = measure,
        .begin = begin,
        .count = count,
        .drain = drain,
        .close = end,
    };
    return assay_service_main(&service, argc, argv, &program);
}
