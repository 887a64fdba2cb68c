/* A cancelled job is scored over the chunks whose records are there: for each variant those that the reference has too.
 * A chunk that stands twice in the corpus counts once. */
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "services/coordinator/driver.h"

/* All of it; whoever cancels waits. */
#define PARTIAL_MS 60000

struct assay_partial {
    struct assay_job *job;
    size_t parts_count;
    struct assay_score_part parts[ASSAY_JOB_VARIANTS_MAX];
};

static void partial_free(struct assay_partial *partial)
{
    for (size_t i = 0; i < partial->parts_count; i++)
        free(partial->parts[i].chunks);
    free(partial);
}

/* Locked: the chunks that both runs have; false when out of memory. */
static bool add_part(struct assay_partial *partial, size_t variant)
{
    const struct assay_job *job = partial->job;
    const struct assay_plan *plan = &job->plan;
    const struct assay_run *reference = job->runs[0].run, *run = job->runs[plan->variants[variant].same_as].run;
    struct assay_score_part part = {.variant = variant, .chunks = calloc(plan->chunks.count, 1)};
    if (!part.chunks)
        return false;
    for (size_t i = 0; i < plan->run_count && reference && run; i++) {
        bool both = assay_run_has(reference, i) && assay_run_has(run, i);
        part.chunks[plan->run_chunks[i]] = both;
        part.count += both;
    }
    if (part.count > 0)
        partial->parts[partial->parts_count++] = part;
    else
        free(part.chunks);
    return true;
}

struct assay_partial *assay_partial_begin(struct assay_job *job)
{
    struct assay_partial *partial = calloc(1, sizeof *partial);
    bool made = partial != NULL;
    if (made)
        partial->job = job;
    for (size_t i = 1; i < job->plan.variants_count && made; i++)
        made = add_part(partial, i);
    if (made && partial->parts_count > 0)
        return partial;
    if (partial)
        partial_free(partial);
    return NULL;
}

bool assay_partial_score(struct assay_partial *partial)
{
    struct assay_job *job = partial->job;
    int64_t until_ms = assay_now_ms() + PARTIAL_MS;
    bool scored = false;
    for (size_t i = 0; i < partial->parts_count && !assay_driver_must_stop(job); i++) {
        struct assay_score_part *part = &partial->parts[i];
        struct assay_err err = ASSAY_ERR_INIT;
        part->until_ms = until_ms;
        if (assay_step_score_part(job, part, &err) == ASSAY_OK)
            scored = true;
        else
            assay_log(ASSAY_LOG_WARN, "no partial result variant=%s reason=\"%s\"",
                      job->plan.variants[part->variant].label, err.text);
    }
    partial_free(partial);
    return scored;
}
