#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include "cli/say.h"
#include "cli/top_view.h"
#include "common/base/exit_code.h"
#include "common/base/paths.h"

#define CALL_MS 5000
#define GET_STATUS 0
/* Between the two looks of --once: services report every second. */
#define ONCE_MS 1200
#define JOBS_MAX 200
#define ALTERNATE_SCREEN "\033[?1049h\033[?25l"
#define NORMAL_SCREEN "\033[?25h\033[?1049l"

struct settings {
    const char *data, *coordinator;
    double interval_s;
    int64_t jobs;
    bool once, json;
};

struct watch {
    const struct settings *settings;
    struct assay_remote remote;
    char endpoint[ASSAY_PATH_MAX];
    struct assay_top top;
    bool live; /* on a terminal that is drawn over */
};

static enum assay_status look(struct watch *watch, struct assay_reply **ret, struct assay_err *err)
{
    Assay__V1__GetStatusRequest request = ASSAY__V1__GET_STATUS_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = CALL_MS};
    request.has_jobs_max = true;
    request.jobs_max = (uint32_t)watch->settings->jobs;
    enum assay_status status = assay_call_unary(watch->remote.client, &assay__v1__status__descriptor, GET_STATUS,
                                                &request.base, &options, ret, err);
    if (status == ASSAY_OK && !assay_top_update(&watch->top, assay_reply_message(*ret)))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the list of processes");
    return status;
}

static void write_frame(const char *text)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 && size.ws_row > 4;
    assay_auto(assay_buf_release) struct assay_buf frame = ASSAY_BUF_INIT;
    assay_top_frame(text, known ? size.ws_col : 100, known ? size.ws_row : 24, &frame);
    fwrite(assay_buf_cstr(&frame), 1, frame.len, stdout);
}

static void show_json(struct watch *watch, const Assay__V1__StackStatus *status)
{
    cJSON *object = assay_top_json(&watch->top, status, watch->endpoint);
    char *text = watch->settings->once ? cJSON_Print(object) : cJSON_PrintUnformatted(object);
    puts(text ? text : "{}");
    cJSON_free(text);
    cJSON_Delete(object);
}

static void show_text(struct watch *watch, const Assay__V1__StackStatus *status, const struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    if (status)
        assay_top_text(&watch->top, status, watch->endpoint, &text);
    else
        assay_buf_printf(&text, "stack %s does not answer: %s\n", watch->endpoint, err->text);
    if (watch->live)
        write_frame(assay_buf_cstr(&text));
    else
        printf("%s%s", assay_buf_cstr(&text), watch->settings->once ? "" : "\n");
}

static void show(struct watch *watch, const struct assay_reply *reply, const struct assay_err *err)
{
    const Assay__V1__StackStatus *status = reply ? assay_reply_message(reply) : NULL;
    if (watch->settings->json && status)
        show_json(watch, status);
    else if (!watch->settings->json)
        show_text(watch, status, err);
    else
        assay_say_failure("top", err);
    fflush(stdout);
}

static enum assay_status run_once(struct watch *watch, struct assay_err *err)
{
    struct assay_reply *reply = NULL;
    enum assay_status status = look(watch, &reply, err);
    if (status == ASSAY_OK && assay_interrupt_wait(ONCE_MS))
        status = assay_err_set(err, ASSAY_CANCELLED, "interrupted");
    assay_reply_free(reply);
    reply = NULL;
    if (status == ASSAY_OK)
        status = look(watch, &reply, err);
    if (status == ASSAY_OK)
        show(watch, reply, err);
    assay_reply_free(reply);
    return status;
}

/* Until it is interrupted; a coordinator that is away may come back. */
static void run_live(struct watch *watch)
{
    if (watch->live)
        fputs(ALTERNATE_SCREEN, stdout);
    do {
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_reply *reply = NULL;
        enum assay_status status = look(watch, &reply, &err);
        show(watch, status == ASSAY_OK ? reply : NULL, &err);
        assay_reply_free(reply);
    } while (!ferror(stdout) && !assay_interrupt_wait((int)(watch->settings->interval_s * 1000)));
    if (watch->live)
        fputs(NORMAL_SCREEN, stdout);
    fflush(stdout);
}

static enum assay_status run(const struct settings *settings, struct assay_err *err)
{
    struct watch watch = {.settings = settings,
                          .live = !settings->once && !settings->json && isatty(STDOUT_FILENO) == 1};
    char data_dir[ASSAY_PATH_MAX] = "";
    enum assay_status status = settings->coordinator ? ASSAY_OK : assay_data_dir(settings->data, data_dir, err);
    if (status == ASSAY_OK)
        status = assay_remote_find(settings->coordinator, data_dir, watch.endpoint, err);
    if (status == ASSAY_OK)
        status = assay_remote_attach(&watch.remote, watch.endpoint, NULL, err);
    if (status == ASSAY_OK && settings->once)
        status = run_once(&watch, err);
    else if (status == ASSAY_OK)
        run_live(&watch);
    assay_remote_close(&watch.remote);
    assay_top_release(&watch.top);
    return status;
}

int assay_command_top(int argc, char **argv)
{
    struct settings settings = {.interval_s = 1, .jobs = 3};
    const struct assay_setting rows[] = {
        {.name = "once", .type = ASSAY_SETTING_FLAG, .target = &settings.once, .help = "print once and end"},
        {.name = "interval",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &settings.interval_s,
         .min = 0.1,
         .max = 3600,
         .argument = "SECONDS",
         .help = "between two looks"},
        {.name = "jobs",
         .type = ASSAY_SETTING_INT,
         .target = &settings.jobs,
         .min = 0,
         .max = JOBS_MAX,
         .argument = "N",
         .help = "ended jobs to show besides those under way"},
        ASSAY_REMOTE_SETTINGS(&settings.data, &settings.coordinator),
        {.name = "json",
         .type = ASSAY_SETTING_FLAG,
         .target = &settings.json,
         .help = "print JSON: one object with --once, else one line a look"},
    };
    const struct assay_command command = {
        .usage = "assay top [--once] [--interval SECONDS] [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Shows the processes, the queue and the jobs of a running stack, again every second.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    if (!assay_say_parse("top", &command, argc, argv, &code))
        return code;
    assay_interrupt_prepare();
    return run(&settings, &err) == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_setting_failure("top", &err);
}
