/* Decisions of the supervisor: which workers, when to restart, what a log's last line says. No processes, no clocks.
 * Any thread. */
#pragma once

#include <sched.h>

#include "common/base/status.h"

#define ASSAY_PRECISION_MAX 32
#define ASSAY_CPU_LIST_MAX 128
/* Workers of one local stack. */
#define ASSAY_STACK_WORKERS_MAX 32

struct assay_worker_plan {
    char precision[ASSAY_PRECISION_MAX];
    char cpus[ASSAY_CPU_LIST_MAX]; /* "" = no list of its own */
};

/* "0-3,8" into *ret. INVALID_ARGUMENT, naming `option`, for anything else and for CPUs beyond CPU_SETSIZE. */
enum assay_status assay_cpu_list_parse(const char *text, const char *option, cpu_set_t *ret,
                                       struct assay_err *err) ASSAY_MUST_USE;

/* "fp32:0-3;int8:4-7" or "fp32,int8": separated by ';', or by ',' where a new name begins. NULL and "" are no workers.
 * INVALID_ARGUMENT: a part without a name, a name or list that is too long or holds other characters, too many. */
enum assay_status assay_worker_plans_parse(const char *text, struct assay_worker_plan plans[ASSAY_STACK_WORKERS_MAX],
                                           size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE;

/* "fp32,int8", or "all": precisions whose workers somebody else starts. NULL and "" are none. INVALID_ARGUMENT: a name
 * that is empty, too long or holds other characters, too many of them. */
enum assay_status assay_external_check(const char *text, struct assay_err *err) ASSAY_MUST_USE;
/* Whether a checked list has the precision. */
bool assay_external_has(const char *text, const char *precision);
#define ASSAY_EXTERNAL_MAX (ASSAY_STACK_WORKERS_MAX * ASSAY_PRECISION_MAX)

/* Letters, digits, '-' and '_', at most ASSAY_PRECISION_MAX - 1: a precision that arrives in a message becomes an
 * argument and part of a file name. */
bool assay_precision_is_plain(const char *text);

/* A process may die ASSAY_RESTARTS_MAX - 1 times in ASSAY_RESTARTS_WINDOW_MS; then it is given up. */
#define ASSAY_RESTARTS_MAX 5
#define ASSAY_RESTARTS_WINDOW_MS 60000
#define ASSAY_RESTART_FIRST_MS 250

struct assay_restarts {
    int64_t deaths_ms[ASSAY_RESTARTS_MAX];
    size_t deaths;
};

/* Counts a death at now_ms. True: start again after *ret_delay_ms, twice as long for each death within the window.
 * False: give up. */
bool assay_restarts_died(struct assay_restarts *restarts, int64_t now_ms, int64_t *ret_delay_ms);

/* The last line of a log that is not blank, without time, level and component where it has them. "" when there is none.
 */
void assay_log_last_sentence(const char *text, size_t len, char *ret, size_t ret_bytes);

/* A status whose exit code is that of a process that ended so (as waitpid tells): its own code, or INTERNAL for a
 * signal and for codes that stand for no failure. A usage error is INVALID_ARGUMENT. */
enum assay_status assay_status_of_wait(int wait_status);

/* Where the processes of a stack serve their pages. */
enum assay_stack_http_kind {
    ASSAY_STACK_HTTP_OFF,
    ASSAY_STACK_HTTP_UNIX,  /* DATA/run/NAME-http.sock */
    ASSAY_STACK_HTTP_FREE,  /* ADDRESS, a free port each */
    ASSAY_STACK_HTTP_PORTS, /* ADDRESS, the coordinator at `port`, the others in order of their start behind it */
};
struct assay_stack_http {
    enum assay_stack_http_kind kind;
    char address[64];
    unsigned port;
};
/* "unix", "127.0.0.1:*" or "127.0.0.1:9464"; NULL or "": off. Only the loopback: one token for several processes of one
 * machine is not to be had from a command line. INVALID_ARGUMENT. */
enum assay_status assay_stack_http_parse(const char *text, struct assay_stack_http *ret,
                                         struct assay_err *err) ASSAY_MUST_USE;
/* The --http of process number `index` (the coordinator is 0) with the name `name`, into text; "" when off.
 * INVALID_ARGUMENT: the path is too long, or there are no more ports. */
enum assay_status assay_stack_http_of(const struct assay_stack_http *http, const char *data_dir, const char *name,
                                      size_t index, char *text, size_t bytes, struct assay_err *err) ASSAY_MUST_USE;
