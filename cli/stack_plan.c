#include "cli/stack_plan.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/exit_code.h"
#include "common/base/paths.h"

bool assay_precision_is_plain(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= ASSAY_PRECISION_MAX || text[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)text[i]) && text[i] != '-' && text[i] != '_')
            return false;
    return true;
}

/* One number of at most six digits at *at; moves past it. */
static bool take_cpu(const char **at, long *ret)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > 6)
        return false;
    *ret = strtol(*at, NULL, 10);
    *at += digits;
    return *ret < CPU_SETSIZE;
}

enum assay_status assay_cpu_list_parse(const char *text, const char *option, cpu_set_t *ret, struct assay_err *err)
{
    cpu_set_t set;
    const char *at = text;
    CPU_ZERO(&set);
    for (;;) {
        long first, last;
        bool good = take_cpu(&at, &first);
        last = first;
        if (good && *at == '-') {
            at++;
            good = take_cpu(&at, &last) && last >= first;
        }
        if (!good || (*at != ',' && *at != '\0'))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: found CPU list '%.100s', wanted one as 0-3,8",
                                 option, text);
        for (long cpu = first; cpu <= last; cpu++)
            CPU_SET((size_t)cpu, &set);
        if (*at == '\0')
            break;
        at++;
    }
    *ret = set;
    return ASSAY_OK;
}

/* Length of the first worker in text: up to ';', or up to ',' with a letter behind it. */
static size_t part_length(const char *text)
{
    size_t len = 0;
    while (text[len] && text[len] != ';' && !(text[len] == ',' && !isdigit((unsigned char)text[len + 1])))
        len++;
    return len;
}

static enum assay_status parse_part(const char *part, size_t len, struct assay_worker_plan *ret, struct assay_err *err)
{
    const char *colon = memchr(part, ':', len);
    size_t name_len = colon ? (size_t)(colon - part) : len;
    size_t cpus_len = colon ? len - name_len - 1 : 0;
    *ret = (struct assay_worker_plan){0};
    if (name_len < sizeof ret->precision)
        memcpy(ret->precision, part, name_len);
    if (!assay_precision_is_plain(ret->precision))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--workers: found '%.*s', wanted PRECISION or PRECISION:CPUS, as in fp32:0-3;int8:4-7",
                             (int)ASSAY_MIN(len, 100), part);
    if (cpus_len >= sizeof ret->cpus)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--workers: a CPU list has at most %d bytes, found %zu",
                             ASSAY_CPU_LIST_MAX - 1, cpus_len);
    if (!colon)
        return ASSAY_OK;
    memcpy(ret->cpus, colon + 1, cpus_len);
    cpu_set_t ignored;
    return assay_cpu_list_parse(ret->cpus, "--workers", &ignored, err);
}

enum assay_status assay_worker_plans_parse(const char *text, struct assay_worker_plan plans[ASSAY_STACK_WORKERS_MAX],
                                           size_t *ret_count, struct assay_err *err)
{
    size_t count = 0;
    while (text && *text) {
        size_t len = part_length(text);
        if (count == ASSAY_STACK_WORKERS_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--workers: a local stack has at most %d workers",
                                 ASSAY_STACK_WORKERS_MAX);
        enum assay_status status = parse_part(text, len, &plans[count], err);
        if (status != ASSAY_OK)
            return status;
        count++;
        text += len + (text[len] != '\0');
    }
    *ret_count = count;
    return ASSAY_OK;
}

enum assay_status assay_external_check(const char *text, struct assay_err *err)
{
    if (text && strlen(text) >= ASSAY_EXTERNAL_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--external: at most %d bytes, found %zu",
                             ASSAY_EXTERNAL_MAX - 1, strlen(text));
    for (const char *at = text; at && *at;) {
        char name[ASSAY_PRECISION_MAX];
        size_t len = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)ASSAY_MIN(len, sizeof name), at);
        bool ends_in_comma = at[len] == ',' && at[len + 1] == '\0';
        if (len >= sizeof name || !assay_precision_is_plain(name) || ends_in_comma)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "--external: found '%.100s', wanted precisions, as in fp32,int8, or all", text);
        at += len + (at[len] != '\0');
    }
    return ASSAY_OK;
}

bool assay_external_has(const char *text, const char *precision)
{
    size_t wanted = strlen(precision);
    if (text && strcmp(text, "all") == 0)
        return true;
    for (const char *at = text; at && *at;) {
        size_t len = strcspn(at, ",");
        if (len == wanted && memcmp(at, precision, len) == 0)
            return true;
        at += len + (at[len] != '\0');
    }
    return false;
}

bool assay_restarts_died(struct assay_restarts *restarts, int64_t now_ms, int64_t *ret_delay_ms)
{
    size_t kept = 0;
    for (size_t i = 0; i < restarts->deaths; i++)
        if (now_ms - restarts->deaths_ms[i] < ASSAY_RESTARTS_WINDOW_MS)
            restarts->deaths_ms[kept++] = restarts->deaths_ms[i];
    restarts->deaths = kept;
    if (kept + 1 >= ASSAY_RESTARTS_MAX)
        return false;
    restarts->deaths_ms[restarts->deaths++] = now_ms;
    *ret_delay_ms = (int64_t)ASSAY_RESTART_FIRST_MS << kept;
    return true;
}

/* Past "2026-01-31T12:00:00.000Z level component " when the line begins so. */
static size_t prefix_length(const char *line, size_t len)
{
    if (len < 25 || !isdigit((unsigned char)line[0]) || line[4] != '-' || line[10] != 'T' || line[23] != 'Z')
        return 0;
    size_t at = 0;
    for (int field = 0; field < 3; field++) {
        const char *space = memchr(line + at, ' ', len - at);
        if (!space)
            return 0;
        at = (size_t)(space - line) + 1;
    }
    return at;
}

void assay_log_last_sentence(const char *text, size_t len, char *ret, size_t ret_bytes)
{
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    size_t begin = len;
    while (begin > 0 && text[begin - 1] != '\n')
        begin--;
    begin += prefix_length(text + begin, len - begin);
    size_t take = ASSAY_MIN(len - begin, ret_bytes - 1);
    for (size_t i = 0; i < take; i++) {
        unsigned char c = (unsigned char)text[begin + i];
        ret[i] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    ret[take] = '\0';
}

enum assay_status assay_status_of_wait(int wait_status)
{
    if (!WIFEXITED(wait_status))
        return ASSAY_INTERNAL;
    switch (WEXITSTATUS(wait_status)) {
    case ASSAY_EXIT_USAGE:
        return ASSAY_INVALID_ARGUMENT;
    case ASSAY_EXIT_BAD_INPUT:
        return ASSAY_FAILED_PRECONDITION;
    case ASSAY_EXIT_UNAVAILABLE:
        return ASSAY_UNAVAILABLE;
    case ASSAY_EXIT_RESOURCES:
        return ASSAY_RESOURCE_EXHAUSTED;
    case ASSAY_EXIT_DEADLINE:
        return ASSAY_DEADLINE_EXCEEDED;
    case ASSAY_EXIT_PERMISSION:
        return ASSAY_PERMISSION_DENIED;
    case ASSAY_EXIT_CANCELLED:
        return ASSAY_CANCELLED;
    default:
        return ASSAY_INTERNAL;
    }
}

/* --- pages --- */

enum assay_status assay_stack_http_parse(const char *text, struct assay_stack_http *ret, struct assay_err *err)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};
    struct assay_stack_http http = {0};
    const char *colon = text ? strrchr(text, ':') : NULL;
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool known = false;
    if (!text || !text[0]) {
        *ret = http;
        return ASSAY_OK;
    }
    if (strcmp(text, "unix") == 0) {
        ret->kind = ASSAY_STACK_HTTP_UNIX;
        return ASSAY_OK;
    }
    for (size_t i = 0; i < ASSAY_COUNT(hosts); i++)
        known |= strlen(hosts[i]) == length && strncmp(text, hosts[i], length) == 0;
    bool is_free = known && strcmp(colon, ":*") == 0;
    bool digits = known && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) <= 5;
    http.port = digits ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
    if (!is_free && (http.port == 0 || http.port > UINT16_MAX))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--http: found '%.200s', wanted unix, 127.0.0.1:* or 127.0.0.1:PORT", text);
    http.kind = is_free ? ASSAY_STACK_HTTP_FREE : ASSAY_STACK_HTTP_PORTS;
    memcpy(http.address, text, length);
    *ret = http;
    return ASSAY_OK;
}

enum assay_status assay_stack_http_of(const struct assay_stack_http *http, const char *data_dir, const char *name,
                                      size_t index, char *text, size_t bytes, struct assay_err *err)
{
    int used = 0;
    if (http->kind == ASSAY_STACK_HTTP_PORTS && http->port + index > UINT16_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--http: no port is left for %s behind %u", name, http->port);
    if (http->kind == ASSAY_STACK_HTTP_OFF)
        text[0] = '\0';
    else if (http->kind == ASSAY_STACK_HTTP_UNIX)
        used = snprintf(text, bytes, "unix:%s/%s/%s-http.sock", data_dir, ASSAY_RUN_DIR, name);
    else if (http->kind == ASSAY_STACK_HTTP_FREE)
        used = snprintf(text, bytes, "%s:*", http->address);
    else
        used = snprintf(text, bytes, "%s:%zu", http->address, http->port + index);
    if (used < 0 || (size_t)used >= bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--http: the path of the socket of %s is too long", name);
    return ASSAY_OK;
}
