#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/grid.h"
#include "cli/remote.h"
#include "cli/say.h"
#include "cli/words.h"
#include "common/base/exit_code.h"

#define CALL_MS 5000

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

static enum assay_status print_table(const Assay__V1__ListJobsReply *reply, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_auto(assay_grid_release) struct assay_grid grid = ASSAY_GRID_INIT;
    assay_grid_head(&grid, "<job|<submitted|<state|<verdict|chunks|<what");
    for (size_t i = 0; i < reply->n_jobs; i++) {
        const Assay__V1__Job *job = reply->jobs[i];
        char hex[33], time[24];
        bool judged = job->has_verdict && job->verdict != ASSAY__V1__VERDICT__VERDICT_UNSPECIFIED;
        assay_grid_cell(&grid, "%s", assay_word_hex(job->job_id, 16, hex));
        assay_grid_cell(&grid, "%s", assay_word_time(job->submitted_wall_ms, time));
        assay_grid_cell(&grid, "%s", assay_word_job_state(job->state));
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

static enum assay_status show(struct assay_remote *remote, bool json, struct assay_err *err)
{
    Assay__V1__ListJobsRequest request = ASSAY__V1__LIST_JOBS_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_JOBS, &request.base, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ListJobsReply *jobs = assay_reply_message(reply);
    if (json) {
        cJSON *list = cJSON_CreateArray();
        for (size_t i = 0; i < jobs->n_jobs; i++)
            cJSON_AddItemToArray(list, assay_job_json(jobs->jobs[i]));
        char *text = cJSON_Print(list);
        puts(text ? text : "[]");
        cJSON_free(text);
        cJSON_Delete(list);
    } else {
        status = print_table(jobs, err);
    }
    assay_reply_free(reply);
    return status;
}

int assay_command_jobs(int argc, char **argv)
{
    const char *data = NULL, *coordinator = NULL;
    bool json = false;
    const struct assay_setting settings[] = {
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &data,
         .argument = "DIR",
         .help = "data directory of the stack (else $XDG_DATA_HOME/assay)"},
        {.name = "coordinator",
         .type = ASSAY_SETTING_STRING,
         .target = &coordinator,
         .argument = "ENDPOINT",
         .help = "coordinator of another stack"},
        ASSAY_REMOTE_KEY_SETTINGS,
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print JSON"},
    };
    const struct assay_command command = {
        .usage = "assay jobs [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Lists the jobs that the coordinator knows, the newest first.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    if (!assay_say_parse("jobs", &command, argc, argv, &code))
        return code;
    enum assay_status status = assay_remote_attach(&remote, coordinator, data, &err);
    if (status == ASSAY_OK)
        status = show(&remote, json, &err);
    assay_remote_close(&remote);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_setting_failure("jobs", &err);
}
