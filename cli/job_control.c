/* pause, resume, cancel, retry, rm: one call about one job each. */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/job_id.h"
#include "cli/say.h"
#include "cli/words.h"
#include "common/base/exit_code.h"

#define CALL_MS 10000

struct control {
    const char *name, *usage, *summary;
    const char *done; /* what is told: "paused" */
    enum assay_coordinator_method method;
};

struct arguments {
    const char *data, *coordinator, *job;
    bool json, discard;
};

static enum assay_status call(struct assay_remote *remote, const struct control *control,
                              const struct arguments *arguments, uint8_t *id, Assay__V1__JobState *ret_state,
                              struct assay_err *err)
{
    const ProtobufCBinaryData job_id = {ASSAY_JOB_ID_BYTES, id};
    struct assay_reply *reply = NULL;
    if (control->method == ASSAY_COORDINATOR_CANCEL_JOB) {
        Assay__V1__CancelJobRequest request = ASSAY__V1__CANCEL_JOB_REQUEST__INIT;
        request.has_job_id = request.has_discard = true;
        request.job_id = job_id;
        request.discard = arguments->discard;
        enum assay_status status = assay_remote_call(remote, control->method, &request.base, CALL_MS, &reply, err);
        if (status == ASSAY_OK)
            *ret_state = ((const Assay__V1__CancelJobReply *)assay_reply_message(reply))->state;
        assay_reply_free(reply);
        return status;
    }
    Assay__V1__JobRequest request = ASSAY__V1__JOB_REQUEST__INIT;
    request.has_job_id = true;
    request.job_id = job_id;
    enum assay_status status = assay_remote_call(remote, control->method, &request.base, CALL_MS, &reply, err);
    if (status == ASSAY_OK)
        *ret_state = ((const Assay__V1__JobStateReply *)assay_reply_message(reply))->state;
    assay_reply_free(reply);
    return status;
}

static void tell(const struct control *control, bool json, uint8_t *id, Assay__V1__JobState state)
{
    char hex[2 * ASSAY_JOB_ID_BYTES + 1];
    assay_word_hex((ProtobufCBinaryData){ASSAY_JOB_ID_BYTES, id}, ASSAY_JOB_ID_BYTES, hex);
    if (json)
        printf("{\"job_id\": \"%s\", \"done\": \"%s\", \"state\": \"%s\"}\n", hex, control->done,
               assay_word_job_state(state));
    else
        printf("%s job %s, state %s\n", control->done, hex, assay_word_job_state(state));
}

static int control_job(const struct control *control, int argc, char **argv)
{
    struct arguments arguments = {0};
    struct assay_setting settings[] = {
        ASSAY_REMOTE_SETTINGS(&arguments.data, &arguments.coordinator),
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &arguments.json, .help = "print JSON"},
        {.name = "discard",
         .type = ASSAY_SETTING_FLAG,
         .target = &arguments.discard,
         .help = "end at once, without the figures of what was scored so far"},
    };
    bool cancels = control->method == ASSAY_COORDINATOR_CANCEL_JOB;
    const struct assay_command command = {.usage = control->usage,
                                          .summary = control->summary,
                                          .settings = settings,
                                          .settings_count = ASSAY_COUNT(settings) - !cancels,
                                          .positional = &arguments.job,
                                          .positional_min = 1,
                                          .positional_max = 1};
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    uint8_t id[ASSAY_JOB_ID_BYTES];
    Assay__V1__JobState state = ASSAY__V1__JOB_STATE__JOB_STATE_UNSPECIFIED;
    if (!assay_say_parse(control->name, &command, argc, argv, &code))
        return code;
    enum assay_status status = assay_remote_attach(&remote, arguments.coordinator, arguments.data, &err);
    if (status == ASSAY_OK)
        status = assay_job_id_resolve(&remote, arguments.job, id, &err);
    if (status == ASSAY_OK)
        status = call(&remote, control, &arguments, id, &state, &err);
    assay_remote_close(&remote);
    if (status != ASSAY_OK)
        return assay_say_setting_failure(control->name, &err);
    tell(control, arguments.json, id, state);
    return ASSAY_EXIT_PASS;
}

#define USAGE(name) "assay " name " JOB [--data DIR] [--coordinator ENDPOINT] [--json]"

int assay_command_pause(int argc, char **argv)
{
    return control_job(&(struct control){"pause", USAGE("pause"),
                                         "Gives a job no more workers until 'assay resume'; what is on loan is "
                                         "finished.",
                                         "paused", ASSAY_COORDINATOR_PAUSE_JOB},
                       argc, argv);
}

int assay_command_resume(int argc, char **argv)
{
    return control_job(&(struct control){"resume", USAGE("resume"), "Lets a paused job go on.", "resumed",
                                         ASSAY_COORDINATOR_RESUME_JOB},
                       argc, argv);
}

int assay_command_cancel(int argc, char **argv)
{
    return control_job(&(struct control){"cancel",
                                         "assay cancel JOB [--discard] [--data DIR] [--coordinator "
                                         "ENDPOINT] [--json]",
                                         "Ends a job. Figures of what was scored so far are kept as a partial result; "
                                         "'assay watch JOB' shows it.",
                                         "cancelled", ASSAY_COORDINATOR_CANCEL_JOB},
                       argc, argv);
}

int assay_command_retry(int argc, char **argv)
{
    return control_job(&(struct control){"retry", USAGE("retry"),
                                         "Starts a job again that failed or was cancelled; what it has finished is "
                                         "found in the cache.",
                                         "queued", ASSAY_COORDINATOR_RETRY_JOB},
                       argc, argv);
}

int assay_command_rm(int argc, char **argv)
{
    return control_job(&(struct control){"rm", USAGE("rm"),
                                         "Removes a job that is over, with its corpus and its events; its records stay "
                                         "in the cache.",
                                         "removed", ASSAY_COORDINATOR_REMOVE_JOB},
                       argc, argv);
}
