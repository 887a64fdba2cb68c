/* assay keygen: a pair of keys for a service or a user. */
#include <cjson/cJSON.h>
#include <sodium/core.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/wire/keys.h"

static void print(const struct assay_key_pair *pair, const char *secret_path, const char *public_path, bool json)
{
    char digits[ASSAY_KEY_DIGITS + 1];
    assay_public_key_text(&pair->public_key, digits);
    cJSON *object = json ? cJSON_CreateObject() : NULL;
    cJSON_AddStringToObject(object, "role", assay_role_name(pair->role));
    cJSON_AddStringToObject(object, "public", digits);
    cJSON_AddStringToObject(object, "secretFile", secret_path);
    cJSON_AddStringToObject(object, "publicFile", public_path);
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    if (text)
        puts(text);
    else
        printf(
            "role    %s\npublic  %s\nsecret  %s (keep it to yourself)\nallow   %s (copy it to the server's directory "
            "of allowed keys)\n",
            assay_role_name(pair->role), digits, secret_path, public_path);
    cJSON_free(text);
    cJSON_Delete(object);
}

int assay_command_keygen(int argc, char **argv)
{
    const char *role_name = "worker", *name = NULL, *dir = ".";
    bool json = false;
    const struct assay_setting settings[] = {
        {.name = "role",
         .type = ASSAY_SETTING_STRING,
         .target = &role_name,
         .argument = "ROLE",
         .help = "what the key may do: worker, client, metric or admin"},
        {.name = "name",
         .type = ASSAY_SETTING_STRING,
         .target = &name,
         .argument = "NAME",
         .help = "of the files NAME.key and NAME.pub, the role if not given"},
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &dir,
         .argument = "DIR",
         .help = "where to write them (-o)"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print the paths as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay keygen [--role worker|client|metric|admin] [--name NAME] [-o DIR] [--json]",
        .summary =
            "Makes a pair of keys (CURVE): DIR/NAME.key is secret (mode 0600), DIR/NAME.pub goes to the server's "
            "directory of allowed keys.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    char secret_path[ASSAY_PATH_MAX], public_path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_key_pair pair;
    enum assay_role role;
    if (!assay_say_parse("keygen", &command, argc, argv, &code))
        return code;
    if (!assay_role_parse(role_name, &role)) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "--role: found '%.60s', wanted worker, client, metric or admin",
                      role_name);
        return assay_say_setting_failure("keygen", &err);
    }
    if (sodium_init() < 0)
        return ASSAY_EXIT_INTERNAL;
    assay_key_pair_new(role, &pair);
    enum assay_status status =
        assay_key_write(dir, name && name[0] ? name : role_name, &pair, secret_path, public_path, &err);
    if (status == ASSAY_OK)
        print(&pair, secret_path, public_path, json);
    assay_key_pair_clear(&pair);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure("keygen", &err);
}
