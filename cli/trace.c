#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/grid.h"
#include "cli/remote.h"
#include "cli/say.h"
#include "cli/trace_collect.h"
#include "cli/words.h"
#include "common/base/exit_code.h"
#include "common/base/paths.h"
#include "common/base/text.h"

#define CALL_MS 5000
#define JOB_DIGITS 32

/* The job that `text` names: an id or the begin of one, or "last". */
static enum assay_status find_job(struct assay_remote *remote, const char *text, char job[JOB_DIGITS + 1],
                                  struct assay_err *err)
{
    Assay__V1__ListJobsRequest request = ASSAY__V1__LIST_JOBS_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    size_t length = strlen(text), found = 0;
    bool last = strcmp(text, "last") == 0;
    if (!last && (length == 0 || length > JOB_DIGITS || strspn(text, "0123456789abcdef") != length))
        return assay_err_set(
            err, ASSAY_INVALID_ARGUMENT,
            "JOB: found '%.80s', wanted a job's id (up to 32 hexadecimal digits, as 'assay jobs' lists "
            "them) or last",
            text);
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_JOBS, &request.base, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ListJobsReply *jobs = assay_reply_message(reply);
    for (size_t i = 0; i < jobs->n_jobs && !(last && found); i++) {
        char hex[JOB_DIGITS + 1];
        assay_word_hex(jobs->jobs[i]->job_id, JOB_DIGITS / 2, hex);
        if (!last && strncmp(hex, text, length) != 0)
            continue;
        strcpy(job, hex);
        found++;
    }
    assay_reply_free(reply);
    if (found == 0)
        return assay_err_set(err, ASSAY_NOT_FOUND, "the coordinator knows no job %s; 'assay jobs' lists them", text);
    if (found > 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%zu jobs begin with %s: give more digits", found, text);
    return ASSAY_OK;
}

static void tell_missing(const struct assay_trace *trace)
{
    for (size_t i = 0; i < trace->processes_count; i++) {
        const struct assay_trace_process *process = &trace->processes[i];
        assay_auto(assay_buf_release) struct assay_buf line = ASSAY_BUF_INIT;
        if (process->why_missing[0])
            assay_buf_printf(&line, "%s is missing: %s", process->name, process->why_missing);
        else if (process->lost)
            assay_buf_printf(&line, "%" PRIu64 " older spans of %s have left its memory", process->lost, process->name);
        assay_buf_clean(&line, 0);
        if (line.len > 0)
            fprintf(stderr, "assay trace: %s\n", assay_buf_cstr(&line));
    }
}

static enum assay_status print_summary(const struct assay_trace *trace, const char *path, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_auto(assay_grid_release) struct assay_grid grid = ASSAY_GRID_INIT;
    assay_grid_head(&grid, "<process|pid|<host|spans");
    for (size_t i = 0; i < trace->processes_count; i++) {
        const struct assay_trace_process *process = &trace->processes[i];
        bool is_there = !process->why_missing[0];
        assay_grid_cell(&grid, "%s", process->name);
        assay_grid_cell(&grid, is_there ? "%" PRIu32 : "-", process->pid);
        assay_grid_cell(&grid, "%s", is_there ? process->host : "-");
        assay_grid_cell(&grid, is_there ? "%zu" : "missing", process->spans);
    }
    assay_grid_text(&grid, &text);
    assay_buf_printf(&text, "job %s: %zu spans over %.3f s in %s\n", trace->job, trace->spans_count,
                     (double)(trace->end_us - trace->begin_us) / 1e6, path);
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK)
        fputs(assay_buf_cstr(&text), stdout);
    return status;
}

static enum assay_status run(struct assay_remote *remote, const char *endpoint, const char *name, const char *output,
                             struct assay_err *err)
{
    struct assay_trace trace = ASSAY_TRACE_INIT;
    char job[JOB_DIGITS + 1];
    enum assay_status status = find_job(remote, name, job, err);
    if (status == ASSAY_OK)
        status = assay_trace_collect(remote, endpoint, job, &trace, err);
    if (status == ASSAY_OK) {
        tell_missing(&trace);
        if (output)
            status = assay_file_write(output, trace.json.data, trace.json.len, err);
        else if (fwrite(trace.json.data, 1, trace.json.len, stdout) != trace.json.len || fflush(stdout) != 0)
            status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot write the trace to stdout");
    }
    if (status == ASSAY_OK && output)
        status = print_summary(&trace, output, err);
    assay_trace_release(&trace);
    return status;
}

int assay_command_trace(int argc, char **argv)
{
    const char *data = NULL, *coordinator = NULL, *output = NULL, *job = NULL;
    const struct assay_setting settings[] = {
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &output,
         .argument = "FILE",
         .help = "where to write the trace (-o FILE), else to stdout"},
        ASSAY_REMOTE_SETTINGS(&data, &coordinator),
    };
    const struct assay_command command = {
        .usage = "assay trace JOB|last [-o FILE] [--data DIR] [--coordinator ENDPOINT]",
        .summary = "Writes what every process of the stack did for a job as Chrome trace JSON, for Perfetto.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &job,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    char data_dir[ASSAY_PATH_MAX] = "", endpoint[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    if (!assay_say_parse("trace", &command, argc, argv, &code))
        return code;
    enum assay_status status = coordinator ? ASSAY_OK : assay_data_dir(data, data_dir, &err);
    if (status == ASSAY_OK)
        status = assay_remote_find(coordinator, data_dir, endpoint, &err);
    if (status == ASSAY_OK)
        status = assay_remote_attach(&remote, endpoint, NULL, &err);
    if (status == ASSAY_OK)
        status = run(&remote, endpoint, job, output, &err);
    assay_remote_close(&remote);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure("trace", &err);
}
