#include "cli/listing.h"

#include <stdio.h>

#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/formats/json.h"
#include "common/wire/json.h"

#define CALL_MS 5000

static enum assay_status print_json(const ProtobufCMessage *reply, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_message_to_json(reply, &json, err);
    if (status != ASSAY_OK)
        return status;
    char *text = cJSON_Print(json);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for JSON");
    puts(text);
    cJSON_free(text);
    return ASSAY_OK;
}

static enum assay_status show(const struct assay_listing *listing, struct assay_remote *remote, bool json,
                              struct assay_err *err)
{
    struct assay_reply *reply = NULL;
    enum assay_status status = assay_remote_call(remote, listing->method, listing->request, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    status = (json ? print_json : listing->print)(assay_reply_message(reply), err);
    assay_reply_free(reply);
    return status;
}

int assay_listing_run(const struct assay_listing *listing, int argc, char **argv)
{
    const char *data = NULL, *coordinator = NULL;
    bool json = false;
    const struct assay_setting settings[] = {
        ASSAY_REMOTE_SETTINGS(&data, &coordinator),
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print JSON"},
    };
    const struct assay_command command = {
        .usage = listing->usage,
        .summary = listing->summary,
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_remote remote = {0};
    if (!assay_say_parse(listing->name, &command, argc, argv, &code))
        return code;
    enum assay_status status = assay_remote_attach(&remote, coordinator, data, &err);
    if (status == ASSAY_OK)
        status = show(listing, &remote, json, &err);
    assay_remote_close(&remote);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_setting_failure(listing->name, &err);
}
