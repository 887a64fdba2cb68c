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

static void add_row(struct assay_grid *grid, const Assay__V1__ServiceInfo *service)
{
    static const Assay__V1__RegisterRequest nobody = ASSAY__V1__REGISTER_REQUEST__INIT;
    static const Assay__V1__ServiceCounters none = ASSAY__V1__SERVICE_COUNTERS__INIT;
    const Assay__V1__RegisterRequest *who = service->registration ? service->registration : &nobody;
    const Assay__V1__ServiceCounters *did = service->counters ? service->counters : &none;
    assay_grid_cell(grid, "%s", assay_word_service(who));
    assay_grid_cell(grid, "%s", assay_word_or(who->precision, "-"));
    assay_grid_cell(grid, "%" PRIu32, who->pid);
    assay_grid_cell(grid, "%s", assay_word_or(service->state, "-"));
    assay_grid_cell(grid, "%" PRIu64, did->chunks_run);
    assay_grid_cell(grid, "%" PRIu64, did->tokens_run);
    assay_grid_cell(grid, "%.1f", (double)did->cpu_ms / 1e3);
    assay_grid_cell(grid, "%.1f", (double)did->rss_bytes / 1e6);
    assay_grid_cell(grid, "%s", assay_word_or(who->endpoint, "-"));
    assay_grid_cell(grid, "%s", assay_word_or(who->http, "-"));
}

static enum assay_status print_table(const Assay__V1__ListServicesReply *reply, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_auto(assay_grid_release) struct assay_grid grid = ASSAY_GRID_INIT;
    assay_grid_head(&grid, "<kind|<precision|pid|<state|chunks|tokens|CPU s|resident MB|<endpoint|<http");
    if (reply->coordinator)
        add_row(&grid, reply->coordinator);
    for (size_t i = 0; i < reply->n_services; i++)
        add_row(&grid, reply->services[i]);
    assay_grid_text(&grid, &text);
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK)
        fputs(assay_buf_cstr(&text), stdout);
    return status;
}

static enum assay_status show(struct assay_remote *remote, bool json, struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ListServicesReply *services = assay_reply_message(reply);
    if (json) {
        cJSON *list = assay_services_json(services);
        char *text = cJSON_Print(list);
        puts(text ? text : "[]");
        cJSON_free(text);
        cJSON_Delete(list);
    } else {
        status = print_table(services, err);
    }
    assay_reply_free(reply);
    return status;
}

int assay_command_workers(int argc, char **argv)
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
        .usage = "assay workers [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Lists the processes that are registered with the coordinator, and what they did.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    if (!assay_say_parse("workers", &command, argc, argv, &code))
        return code;
    enum assay_status status = assay_remote_attach(&remote, coordinator, data, &err);
    if (status == ASSAY_OK)
        status = show(&remote, json, &err);
    assay_remote_close(&remote);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_setting_failure("workers", &err);
}
