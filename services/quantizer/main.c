/* assay-quantizer: checkpoint in, artifact out. */
#include <malloc.h>

#include "common/artifact/serve_pieces.h"
#include "common/artifact/staging.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/wire/service.h"
#include "services/quantizer/serve.h"

struct program {
    char artifacts_dir[ASSAY_PATH_MAX];
    struct assay_quantizer *quantizer;
    struct assay_piece_server *pieces;
};

static enum assay_status open_artifacts(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    size_t removed = 0;
    enum assay_status status = assay_path_join(program->artifacts_dir, service->data_dir, ASSAY_ARTIFACTS_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(program->artifacts_dir, 0755, err);
    if (status == ASSAY_OK)
        status = assay_staging_sweep(program->artifacts_dir, &removed, err);
    if (status == ASSAY_OK && removed)
        assay_log(ASSAY_LOG_INFO, "half-made artifacts of dead processes removed count=%zu", removed);
    return status;
}

static enum assay_status prepare(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    enum assay_status status = assay_quantizer_start(service->loop, service->server, program->artifacts_dir,
                                                     service->pool, &program->quantizer, err);
    return status == ASSAY_OK ? assay_piece_server_start(service->server, program->artifacts_dir, &program->pieces, err)
                              : status;
}

static void measure(struct assay_service_process *service, struct assay_metrics *metrics)
{
    const struct program *program = service->arg;
    assay_quantizer_measure(program->quantizer, metrics);
}

static void drain(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_quantizer_stop(program->quantizer);
    assay_piece_server_stop(program->pieces);
}

static void end(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_quantizer_stop(program->quantizer);
    assay_quantizer_free(program->quantizer);
    assay_piece_server_stop(program->pieces);
    assay_piece_server_free(program->pieces);
}

int main(int argc, char **argv)
{
    static struct program program;
    const struct assay_service_program service = {
        .name = "quantizer",
        .usage = "assay-quantizer [--data DIR] [--coordinator ENDPOINT]",
        .summary =
            "Makes quantized artifacts of checkpoints, on request of the coordinator, and serves them in pieces.",
        .threads_help = "threads that quantize",
        .kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_QUANTIZER,
        .open = open_artifacts,
        .prepare = prepare,
        .measure = measure,
        .drain = drain,
        .close = end,
    };
    /* Each call has a thread; a heap for each of them would keep what the largest job needed. */
    (void)mallopt(M_ARENA_MAX, 1);
    return assay_service_main(&service, argc, argv, &program);
}
