#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/say.h"
#include "cli/stack_lock.h"
#include "common/base/clock.h"
#include "common/base/exit_code.h"
#include "common/base/paths.h"

/* Three ranks of processes have 10 s each (stack.h). */
#define DOWN_MS 45000
#define TURN_MS 50

static enum assay_status stop_holder(const char *data_dir, pid_t *ret_pid, struct assay_err *err)
{
    struct assay_stack_holder holder, now;
    enum assay_status status = assay_stack_lock_look(data_dir, &holder, err);
    if (status != ASSAY_OK)
        return status;
    if (!holder.running || holder.pid == 0)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "no stack runs on %s", data_dir);
    if (kill(holder.pid, SIGTERM) != 0)
        return assay_err_errno(err, errno, "cannot signal process %ld", (long)holder.pid);
    int64_t deadline_ms = assay_now_ms() + DOWN_MS;
    for (;;) {
        status = assay_stack_lock_look(data_dir, &now, err);
        if (status != ASSAY_OK || !now.running || (now.pid != 0 && now.pid != holder.pid))
            break;
        if (assay_now_ms() > deadline_ms)
            return assay_err_set(err, ASSAY_DEADLINE_EXCEEDED, "process %ld has not ended within %d s",
                                 (long)holder.pid, DOWN_MS / 1000);
        if (assay_interrupt_wait(TURN_MS))
            return assay_err_set(err, ASSAY_CANCELLED, "interrupted; process %ld is still ending", (long)holder.pid);
    }
    if (status == ASSAY_OK)
        *ret_pid = holder.pid;
    return status;
}

static void print_stopped(pid_t pid, const char *data_dir, bool json)
{
    cJSON *object = json ? cJSON_CreateObject() : NULL;
    cJSON_AddNumberToObject(object, "pid", (double)pid);
    cJSON_AddStringToObject(object, "data", data_dir);
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    if (text)
        puts(text);
    else
        printf("stopped: process %ld on %s\n", (long)pid, data_dir);
    cJSON_free(text);
    cJSON_Delete(object);
}

int assay_command_down(int argc, char **argv)
{
    const char *data = NULL;
    bool json = false;
    pid_t pid = 0;
    const struct assay_setting settings[] = {
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &data,
         .argument = "DIR",
         .help = "data directory of the stack (else $XDG_DATA_HOME/assay)"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print what was stopped as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay down [--data DIR] [--json]",
        .summary = "Stops the stack that runs on a data directory and waits until it has ended.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    char data_dir[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    if (!assay_say_parse("down", &command, argc, argv, &code))
        return code;
    assay_interrupt_prepare();
    if (assay_data_dir(data, data_dir, &err) != ASSAY_OK || stop_holder(data_dir, &pid, &err) != ASSAY_OK)
        return assay_say_failure("down", &err);
    print_stopped(pid, data_dir, json);
    return ASSAY_EXIT_PASS;
}
