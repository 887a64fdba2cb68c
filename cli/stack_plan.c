#include "cli/stack_plan.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/exit_code.h"

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
