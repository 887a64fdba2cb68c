#include <inttypes.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/grid.h"
#include "cli/listing.h"
#include "cli/words.h"

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

static enum assay_status print_table(const ProtobufCMessage *message, struct assay_err *err)
{
    const Assay__V1__ListServicesReply *reply = (const Assay__V1__ListServicesReply *)(const void *)message;
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

int assay_command_workers(int argc, char **argv)
{
    const Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    const struct assay_listing listing = {
        .name = "workers",
        .usage = "assay workers [--data DIR] [--coordinator ENDPOINT] [--json]",
        .summary = "Lists the processes that are registered with the coordinator, and what they did.",
        .method = ASSAY_COORDINATOR_LIST_SERVICES,
        .request = &request.base,
        .print = print_table,
    };
    return assay_listing_run(&listing, argc, argv);
}
