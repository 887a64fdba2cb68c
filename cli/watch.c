#include <stdio.h>

#include "cli/commands.h"
#include "cli/eval_job.h"
#include "cli/interrupt.h"
#include "cli/job_id.h"
#include "cli/partial.h"
#include "cli/report.h"
#include "cli/say.h"
#include "cli/words.h"
#include "common/base/exit_code.h"
#include "common/base/text.h"
#include "common/wire/json.h"

/* How long the coordinator may be away. */
#define AWAY_MS 60000

/* A line of JSON for each event. */
static void print_event(const Assay__V1__Event *event)
{
    struct assay_err err = ASSAY_ERR_INIT;
    cJSON *json = NULL;
    char *text = NULL;
    if (assay_message_to_json(&event->base, &json, &err) == ASSAY_OK)
        text = cJSON_PrintUnformatted(json);
    if (text) {
        puts(text);
        fflush(stdout);
    }
    cJSON_free(text);
    cJSON_Delete(json);
}

static enum assay_status print_end(const Assay__V1__Job *job, bool json, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    char hex[33];
    if (json) {
        cJSON *object = job->partial ? assay_partial_json(job) : assay_job_json(job);
        char *line = cJSON_PrintUnformatted(object);
        assay_buf_printf(&text, "%s\n", line ? line : "{}");
        cJSON_free(line);
        cJSON_Delete(object);
    } else if (job->state == ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED) {
        assay_report_table(&(struct assay_report){.job = job}, &text);
    } else if (job->partial) {
        assay_partial_table(job, &text);
    } else {
        assay_buf_printf(&text, "job %s: %s%s%s", assay_word_hex(job->job_id, 16, hex),
                         assay_word_job_state(job->state), job->failure ? ": " : "", assay_word_or(job->failure, ""));
        assay_buf_clean(&text, 0);
        assay_buf_str(&text, "\n");
    }
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK && (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot write to stdout");
    return status;
}

static int watch(struct assay_remote *remote, const char *name, uint64_t from, bool json)
{
    struct assay_display display;
    struct assay_eval_job job = {.remote = remote,
                                 .display = &display,
                                 .away_ms = AWAY_MS,
                                 .from_sequence = from,
                                 .on_event = json ? print_event : NULL};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    int code = ASSAY_EXIT_INTERNAL;
    assay_display_init(&display);
    enum assay_status status = assay_job_id_resolve(remote, name, job.job_id, &err);
    if (status == ASSAY_OK)
        status = assay_eval_job_watch(&job, &err);
    if (status == ASSAY_OK)
        status = assay_eval_job_fetch(&job, &reply, &err);
    if (status == ASSAY_OK) {
        code = assay_report_exit_code(assay_reply_message(reply));
        status = print_end(assay_reply_message(reply), json, &err);
    }
    if (status != ASSAY_OK)
        code = assay_say_failure("watch", &err);
    assay_reply_free(reply);
    assay_eval_job_release(&job);
    return code;
}

int assay_command_watch(int argc, char **argv)
{
    const char *data = NULL, *coordinator = NULL, *name = NULL;
    int64_t from = 1;
    bool json = false;
    const struct assay_setting settings[] = {
        ASSAY_REMOTE_SETTINGS(&data, &coordinator),
        {.name = "from",
         .type = ASSAY_SETTING_INT,
         .target = &from,
         .min = 1,
         .max = 9007199254740992.0,
         .argument = "N",
         .help = "replay the events from this sequence number on"},
        {.name = "json",
         .type = ASSAY_SETTING_FLAG,
         .target = &json,
         .help = "print a line of JSON for each event, then one for the job"},
    };
    const struct assay_command command = {
        .usage = "assay watch JOB [--from N] [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Shows how far a job is until it is over, then its figures; the exit code is that of 'assay eval'.\n"
                   "Ctrl-C cancels the job and shows what was scored so far; a second one leaves at once.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &name,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    if (!assay_say_parse("watch", &command, argc, argv, &code))
        return code;
    assay_interrupt_prepare();
    if (assay_remote_attach(&remote, coordinator, data, &err) == ASSAY_OK)
        code = watch(&remote, name, (uint64_t)from, json);
    else
        code = assay_say_setting_failure("watch", &err);
    assay_remote_close(&remote);
    return code;
}
