#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/grid.h"
#include "cli/listing.h"
#include "cli/words.h"

static void add_what(struct assay_grid *grid, const Assay__V1__Job *job)
{
    const Assay__V1__SubmitJobRequest *request = job->request;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    char spec[256];
    if (request) {
        assay_buf_str(&text, assay_word_spec(request->reference, spec, sizeof spec));
        for (size_t i = 0; i < request->n_variants; i++)
            assay_buf_printf(&text, "%s%s", i == 0 ? " -> " : ",",
                             assay_word_spec(request->variants[i], spec, sizeof spec));
        assay_buf_printf(&text, "  %s", assay_word_or(request->model_dir, "?"));
    }
    if (job->failure)
        assay_buf_printf(&text, "  %s", job->failure);
    assay_grid_cell(grid, "%s", assay_buf_cstr(&text));
}

/* Of the forward passes. */
static void add_done(struct assay_grid *grid, const Assay__V1__Job *job)
{
    if (job->chunks_planned > 0)
        assay_grid_cell(grid, "%.0f %%", 100.0 * (double)job->chunks_done / (double)job->chunks_planned);
    else
        assay_grid_cell(grid, "-");
}

static enum assay_status print_table(const ProtobufCMessage *message, struct assay_err *err)
{
    const Assay__V1__ListJobsReply *reply = (const Assay__V1__ListJobsReply *)(const void *)message;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_auto(assay_grid_release) struct assay_grid grid = ASSAY_GRID_INIT;
    assay_grid_head(&grid, "<job|<submitted|<state|priority|done|<verdict|chunks|<what");
    for (size_t i = 0; i < reply->n_jobs; i++) {
        const Assay__V1__Job *job = reply->jobs[i];
        char hex[33], time[24];
        bool judged = job->has_verdict && job->verdict != ASSAY__V1__VERDICT__VERDICT_UNSPECIFIED;
        assay_grid_cell(&grid, "%s", assay_word_hex(job->job_id, 16, hex));
        assay_grid_cell(&grid, "%s", assay_word_time(job->submitted_wall_ms, time));
        assay_grid_cell(&grid, "%s", assay_word_job_state(job->state));
        assay_grid_cell(&grid, "%d", job->request ? (int)job->request->priority : 0);
        add_done(&grid, job);
        assay_grid_cell(&grid, "%s", judged ? assay_word_verdict(job->verdict) : "-");
        assay_grid_cell(&grid, "%" PRIu64, job->chunks);
        add_what(&grid, job);
    }
    assay_grid_text(&grid, &text);
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK)
        fputs(assay_buf_cstr(&text), stdout);
    return status;
}

int assay_command_jobs(int argc, char **argv)
{
    const Assay__V1__ListJobsRequest request = ASSAY__V1__LIST_JOBS_REQUEST__INIT;
    const struct assay_listing listing = {
        .name = "jobs",
        .usage = "assay jobs [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Lists the jobs that the coordinator knows, the newest first.",
        .method = ASSAY_COORDINATOR_LIST_JOBS,
        .request = &request.base,
        .print = print_table,
    };
    return assay_listing_run(&listing, argc, argv);
}
