#include "common/base/settings.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/version.h"

static enum assay_status store_number(const struct assay_setting *setting, const char *origin, const char *value,
                                      struct assay_err *err)
{
    char *end;
    errno = 0;
    bool whole = setting->type == ASSAY_SETTING_INT;
    long long integer = whole ? strtoll(value, &end, 10) : 0;
    double number = whole ? (double)integer : strtod(value, &end);
    if (end == value || *end != '\0' || errno != 0 || !(number >= setting->min && number <= setting->max))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: found '%s', wanted %s from %.15g to %.15g", origin,
                             value, whole ? "a whole number" : "a number", setting->min, setting->max);
    if (whole)
        *(int64_t *)setting->target = integer;
    else
        *(double *)setting->target = number;
    return ASSAY_OK;
}

static enum assay_status store(const struct assay_setting *setting, const char *origin, const char *value,
                               struct assay_err *err)
{
    switch (setting->type) {
    case ASSAY_SETTING_STRING:
        *(const char **)setting->target = value;
        return ASSAY_OK;
    case ASSAY_SETTING_FLAG:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0 && strcmp(value, "1") != 0 &&
            strcmp(value, "0") != 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: found '%s', wanted true or false", origin, value);
        *(bool *)setting->target = value[0] == 't' || value[0] == '1';
        return ASSAY_OK;
    case ASSAY_SETTING_INT:
    case ASSAY_SETTING_DOUBLE:
        return store_number(setting, origin, value, err);
    }
    ASSAY_BUG("unknown type of setting");
}

static void environment_name(const char *name, char *ret, size_t bytes)
{
    size_t used = (size_t)snprintf(ret, bytes, "ASSAY_");
    for (; *name && used + 1 < bytes; name++)
        ret[used++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    ret[used] = '\0';
}

static enum assay_status load_environment(const struct assay_command *command, struct assay_err *err)
{
    for (size_t i = 0; i < command->settings_count; i++) {
        char name[64];
        environment_name(command->settings[i].name, name, sizeof name);
        const char *value = getenv(name);
        enum assay_status status = value ? store(&command->settings[i], name, value, err) : ASSAY_OK;
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static void print_value(const struct assay_setting *setting)
{
    switch (setting->type) {
    case ASSAY_SETTING_STRING: {
        const char *text = *(const char **)setting->target;
        fputs(!text ? "" : setting->is_secret && text[0] ? "(hidden)" : text, stdout);
        break;
    }
    case ASSAY_SETTING_INT:
        printf("%lld", (long long)*(int64_t *)setting->target);
        break;
    case ASSAY_SETTING_DOUBLE:
        printf("%.15g", *(double *)setting->target);
        break;
    case ASSAY_SETTING_FLAG:
        fputs(*(bool *)setting->target ? "true" : "false", stdout);
        break;
    }
}

static void print_help(const struct assay_command *command)
{
    printf("Usage: %s\n%s\n\n", command->usage, command->summary);
    for (size_t i = 0; i < command->settings_count; i++) {
        const struct assay_setting *setting = &command->settings[i];
        char left[64], env[64];
        snprintf(left, sizeof left, "--%s %s", setting->name, setting->argument ? setting->argument : "");
        environment_name(setting->name, env, sizeof env);
        printf("  %-28s %s [%s", left, setting->help, env);
        if (setting->type != ASSAY_SETTING_STRING || *(const char **)setting->target) {
            fputs(", default ", stdout);
            print_value(setting);
        }
        puts("]");
    }
    puts("  --help, --version, --dump-config");
}

static void dump_config(const struct assay_command *command)
{
    for (size_t i = 0; i < command->settings_count; i++) {
        printf("%s=", command->settings[i].name);
        print_value(&command->settings[i]);
        putchar('\n');
    }
}

static const struct assay_setting *find_setting(const struct assay_command *command, const char *name, size_t len)
{
    if (len == 1 && name[0] == 'o')
        return find_setting(command, "output", strlen("output"));
    for (size_t i = 0; i < command->settings_count; i++)
        if (strlen(command->settings[i].name) == len && strncmp(command->settings[i].name, name, len) == 0)
            return &command->settings[i];
    return NULL;
}

/* One "--name[=value]" at argv[*at]; moves *at past its value. */
static enum assay_status parse_flag(const struct assay_command *command, int argc, char **argv, int *at,
                                    struct assay_err *err)
{
    const char *text = argv[*at];
    const char *name = text + (text[1] == '-' ? 2 : 1);
    const char *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct assay_setting *setting = find_setting(command, name, len);
    bool spelled_short = text[1] != '-';
    if (!setting || (spelled_short && len != 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "unknown option %s; usage: %s", text, command->usage);
    char origin[80];
    snprintf(origin, sizeof origin, "--%s", setting->name);
    if (equals)
        return store(setting, origin, equals + 1, err);
    if (setting->type == ASSAY_SETTING_FLAG)
        return store(setting, origin, "true", err);
    if (*at + 1 >= argc)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s wants a value: %s", origin, setting->argument);
    return store(setting, origin, argv[++*at], err);
}

static enum assay_status check_complete(const struct assay_command *command, size_t given, struct assay_err *err)
{
    if (given < command->positional_min)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found %zu arguments, wanted %zu; usage: %s", given,
                             command->positional_min, command->usage);
    for (size_t i = 0; i < command->settings_count; i++) {
        const struct assay_setting *setting = &command->settings[i];
        if (setting->required && !*(const char **)setting->target)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--%s %s is missing; usage: %s", setting->name,
                                 setting->argument, command->usage);
    }
    return ASSAY_OK;
}

enum assay_status assay_settings_parse(const struct assay_command *command, int argc, char **argv,
                                       enum assay_settings_outcome *ret, struct assay_err *err)
{
    *ret = ASSAY_SETTINGS_RUN;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(command);
            *ret = ASSAY_SETTINGS_DONE;
            return ASSAY_OK;
        }
        if (strcmp(argv[i], "--version") == 0) {
            puts("assay " ASSAY_VERSION);
            *ret = ASSAY_SETTINGS_DONE;
            return ASSAY_OK;
        }
    }
    enum assay_status status = load_environment(command, err);
    size_t given = 0;
    bool flags = true, dump = false;
    for (int i = 1; i < argc && status == ASSAY_OK; i++) {
        if (flags && strcmp(argv[i], "--") == 0)
            flags = false;
        else if (flags && strcmp(argv[i], "--dump-config") == 0)
            dump = true;
        else if (flags && argv[i][0] == '-' && argv[i][1] != '\0')
            status = parse_flag(command, argc, argv, &i, err);
        else if (given >= command->positional_max)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "unexpected argument '%s'; usage: %s", argv[i],
                                   command->usage);
        else
            command->positional[given++] = argv[i];
    }
    if (status == ASSAY_OK && dump) {
        dump_config(command);
        *ret = ASSAY_SETTINGS_DONE;
        return ASSAY_OK;
    }
    return status == ASSAY_OK ? check_complete(command, given, err) : status;
}
