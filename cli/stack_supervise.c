/* The supervisor's thread: the only one that starts and reaps children (they get SIGTERM when it ends). */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/stack_internal.h"
#include "common/base/clock.h"
#include "common/base/paths.h"

#define START_MS 30000
#define TURN_MS 100
#define STARTING_TURN_MS 20
#define CHECK_DEADLINE_MS 500
#define STOP_MS 10000
#define WATCH_AGAIN_MS 500
#define WATCH_CREDIT 8

static void report(struct assay_stack *stack, const char *format, ...) ASSAY_PRINTF(2, 3);

static void report(struct assay_stack *stack, const char *format, ...)
{
    char text[ASSAY_STACK_EVENT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&stack->mutex);
    strcpy(stack->events[stack->events_written++ % ASSAY_STACK_EVENTS_MAX], text);
    pthread_mutex_unlock(&stack->mutex);
}

static void wait_turn(struct assay_stack *stack, int64_t wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + wait_ms * 1000000;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&stack->mutex);
    if (!stack->stop)
        pthread_cond_timedwait(&stack->changed, &stack->mutex, &until);
    pthread_mutex_unlock(&stack->mutex);
}

static bool stopping(struct assay_stack *stack)
{
    pthread_mutex_lock(&stack->mutex);
    bool stop = stack->stop;
    pthread_mutex_unlock(&stack->mutex);
    return stop;
}

/* --- children --- */

/* Workers and users of other hosts talk to the coordinator, put records to evaluators, fetch artifacts of the
 * quantizer. */
static enum assay_status set_keys(struct assay_stack *stack, struct assay_stack_member *member, struct assay_err *err)
{
    char anywhere[ASSAY_ADDRESS_BYTES_MAX];
    bool coordinator = member->rank == ASSAY_RANK_COORDINATOR;
    if (!stack->keys.endpoint[0] || member->rank == ASSAY_RANK_WORKER)
        return ASSAY_OK;
    assay_stack_keys_port_of_any(&stack->keys, anywhere);
    const char *const arguments[] = {"--public",
                                     coordinator ? stack->keys.endpoint : anywhere,
                                     "--server-key",
                                     stack->keys.server_key,
                                     "--keys",
                                     stack->keys.allowed_dir,
                                     NULL};
    return assay_child_arguments(&member->child, arguments, err);
}

static enum assay_status set_arguments(struct assay_stack *stack, struct assay_stack_member *member, const char *cpus,
                                       struct assay_err *err)
{
    bool coordinator = member->rank == ASSAY_RANK_COORDINATOR;
    const char *const data[] = {"--data", stack->data_dir, NULL};
    const char *const listen[] = {"--listen", stack->endpoint, NULL};
    const char *const connect[] = {"--coordinator", stack->endpoint, NULL};
    const char *const precision[] = {"--precision", member->precision, NULL};
    const char *const pinned[] = {"--cpus", cpus, NULL};
    char pages[ASSAY_PATH_MAX];
    const char *const http[] = {"--http", pages, NULL};
    enum assay_status status = assay_child_arguments(&member->child, data, err);
    if (status == ASSAY_OK)
        status = assay_stack_http_of(&stack->http, stack->data_dir, member->child.name, stack->members_count, pages,
                                     sizeof pages, err);
    if (status == ASSAY_OK && pages[0])
        status = assay_child_arguments(&member->child, http, err);
    if (status == ASSAY_OK)
        status = assay_child_arguments(&member->child, coordinator ? listen : connect, err);
    if (status == ASSAY_OK)
        status = set_keys(stack, member, err);
    if (status == ASSAY_OK && member->precision[0])
        status = assay_child_arguments(&member->child, precision, err);
    if (status == ASSAY_OK && cpus[0] && !coordinator)
        status = assay_child_arguments(&member->child, pinned, err);
    if (status == ASSAY_OK && cpus[0])
        status = assay_cpu_list_parse(cpus, "--cpus", &member->child.cpus, err);
    member->child.pinned = cpus[0] != '\0';
    return status;
}

/* The first one has the place that a single one has; the others stand beside it. */
static enum assay_status set_store(struct assay_stack *stack, struct assay_stack_member *member, struct assay_err *err)
{
    char name[32], path[ASSAY_PATH_MAX];
    if (member->evaluator < 2)
        return ASSAY_OK;
    snprintf(name, sizeof name, ASSAY_EVALUATOR_DIR "-%zu", member->evaluator);
    const char *const arguments[] = {"--store", path, NULL};
    enum assay_status status = assay_path_join(path, stack->data_dir, name, err);
    return status == ASSAY_OK ? assay_child_arguments(&member->child, arguments, err) : status;
}

/* Adds a member, to be started at once. `name` is "quantizer" or the like; the program is assay-PROGRAM. */
static enum assay_status add_member(struct assay_stack *stack, enum assay_stack_rank rank, const char *program,
                                    const struct assay_worker_plan *plan, bool on_demand, struct assay_err *err)
{
    if (stack->members_count == ASSAY_STACK_MEMBERS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a local stack has at most %d workers",
                             ASSAY_STACK_WORKERS_MAX);
    struct assay_stack_member *member = &stack->members[stack->members_count];
    *member = (struct assay_stack_member){.rank = rank, .on_demand = on_demand};
    char path[ASSAY_PATH_MAX], file[64], name[ASSAY_CHILD_NAME_MAX];
    size_t same = 0;
    for (size_t i = 0; plan && i < stack->members_count; i++)
        same += strcmp(stack->members[i].precision, plan->precision) == 0;
    snprintf(file, sizeof file, "assay-%s", program);
    for (size_t i = 0; !plan && i < stack->members_count; i++)
        same += stack->members[i].evaluator > 0;
    if (!plan && same > 0)
        snprintf(name, sizeof name, "%s-%zu", program, same + 1);
    else if (plan && same > 0)
        snprintf(name, sizeof name, "%s-%s-%zu", program, plan->precision, same + 1);
    else
        snprintf(name, sizeof name, "%s%s%s", program, plan ? "-" : "", plan ? plan->precision : "");
    if (plan)
        strcpy(member->precision, plan->precision);
    enum assay_status status = assay_path_join(path, stack->program_dir, file, err);
    if (status == ASSAY_OK)
        status = assay_child_init(&member->child, name, stack->log_dir, path, err);
    if (status == ASSAY_OK)
        status = set_arguments(stack, member, plan && plan->cpus[0] ? plan->cpus : stack->cpus, err);
    if (status != ASSAY_OK) {
        assay_child_release(&member->child);
        return status;
    }
    stack->members_count++;
    return ASSAY_OK;
}

static enum assay_status add_evaluator(struct assay_stack *stack, size_t number, struct assay_err *err)
{
    enum assay_status status = add_member(stack, ASSAY_RANK_SERVICE, "evaluator", NULL, false, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_stack_member *member = &stack->members[stack->members_count - 1];
    member->evaluator = number;
    return set_store(stack, member, err);
}

static enum assay_status start_services(struct assay_stack *stack, struct assay_err *err)
{
    enum assay_status status = add_member(stack, ASSAY_RANK_SERVICE, "quantizer", NULL, false, err);
    for (size_t i = 1; i <= stack->evaluators_count && status == ASSAY_OK; i++)
        status = add_evaluator(stack, i, err);
    for (size_t i = 0; i < stack->plans_count && status == ASSAY_OK; i++)
        status = add_member(stack, ASSAY_RANK_WORKER, "inference", &stack->plans[i], false, err);
    stack->services_started = true;
    return status;
}

static void forget_wish(struct assay_stack *stack, const char *precision)
{
    pthread_mutex_lock(&stack->mutex);
    for (size_t i = 0; i < stack->wanted_count; i++)
        if (strcmp(stack->wanted[i], precision) == 0)
            stack->wanted[i][0] = '\0';
    pthread_mutex_unlock(&stack->mutex);
}

/* While the stack starts, a death ends it; later it is a restart, within bounds. */
static enum assay_status handle_death(struct assay_stack *stack, struct assay_stack_member *member, int wait_status,
                                      int64_t now_ms, struct assay_err *err)
{
    struct assay_err why = ASSAY_ERR_INIT;
    int64_t delay_ms = 0;
    assay_child_sentence(&member->child, wait_status, &why);
    if (stack->phase == ASSAY_STACK_STARTING) {
        *err = why;
        return why.status;
    }
    if (member->on_demand && wait_status == 0) {
        member->ended = true;
        forget_wish(stack, member->precision);
        report(stack, "%s ended", member->child.name);
        return ASSAY_OK;
    }
    if (member->evaluator > 0 && stack->evaluators_count > 1 && wait_status == 0) {
        member->ended = true;
        stack->evaluators_count--;
        report(stack, "%s left the stack", member->child.name);
        return ASSAY_OK;
    }
    if (!assay_restarts_died(&member->restarts, now_ms, &delay_ms)) {
        *err = why;
        assay_err_prefix(err, "%d deaths within %d s, the last one", ASSAY_RESTARTS_MAX,
                         ASSAY_RESTARTS_WINDOW_MS / 1000);
        return why.status;
    }
    member->due_ms = now_ms + delay_ms;
    report(stack, "%s; starting it again", why.text);
    return ASSAY_OK;
}

static enum assay_status tend_children(struct assay_stack *stack, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    int64_t now_ms = assay_now_ms();
    for (size_t i = 0; i < stack->members_count && status == ASSAY_OK; i++) {
        struct assay_stack_member *member = &stack->members[i];
        int wait_status;
        if (assay_child_ended(&member->child, &wait_status))
            status = handle_death(stack, member, wait_status, now_ms, err);
        if (status != ASSAY_OK || member->child.pid != 0 || member->ended || member->due_ms > now_ms)
            continue;
        status = assay_child_start(&member->child, err);
        if (status == ASSAY_OK)
            report(stack, "started %s (process %ld)", member->child.name, (long)member->child.pid);
    }
    return status;
}

/* --- the stack --- */

/* True when `kinds` has what was started: one of each service and the planned workers. */
static bool all_registered(const struct assay_stack *stack, const Assay__V1__ListServicesReply *reply)
{
    size_t quantizers = 0, evaluators = 0, workers = 0;
    for (size_t i = 0; i < reply->n_services; i++) {
        const Assay__V1__RegisterRequest *registration = reply->services[i]->registration;
        if (!registration)
            continue;
        quantizers += registration->kind == ASSAY__V1__SERVICE_KIND__SERVICE_KIND_QUANTIZER;
        evaluators += registration->kind == ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR;
        workers += registration->kind == ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE;
    }
    return quantizers > 0 && evaluators >= stack->evaluators_count && workers >= stack->plans_count;
}

static void become_ready(struct assay_stack *stack)
{
    pthread_mutex_lock(&stack->mutex);
    stack->phase = ASSAY_STACK_READY;
    pthread_mutex_unlock(&stack->mutex);
}

static enum assay_status go_on_starting(struct assay_stack *stack, struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    if (assay_now_ms() > stack->start_deadline_ms)
        return assay_err_set(
            err, ASSAY_DEADLINE_EXCEEDED, "the stack was not ready within %d s: %s; logs are in %s", START_MS / 1000,
            stack->services_started ? "a service has not registered" : "the coordinator does not answer",
            stack->log_dir);
    if (!stack->services_started) {
        if (assay_remote_check(&stack->remote, CHECK_DEADLINE_MS, NULL) != ASSAY_OK)
            return ASSAY_OK;
        return start_services(stack, err);
    }
    if (assay_remote_call(&stack->remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CHECK_DEADLINE_MS, &reply,
                          NULL) != ASSAY_OK)
        return ASSAY_OK;
    if (all_registered(stack, assay_reply_message(reply)))
        become_ready(stack);
    assay_reply_free(reply);
    return ASSAY_OK;
}

static struct assay_stack_member *find_worker(struct assay_stack *stack, const char *precision)
{
    for (size_t i = 0; i < stack->members_count; i++)
        if (strcmp(stack->members[i].precision, precision) == 0)
            return &stack->members[i];
    return NULL;
}

static enum assay_status meet_demand(struct assay_stack *stack, struct assay_err *err)
{
    struct assay_worker_plan plan = {0};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_STACK_WORKERS_MAX && status == ASSAY_OK; i++) {
        pthread_mutex_lock(&stack->mutex);
        bool some = i < stack->wanted_count && stack->wanted[i][0];
        if (some)
            strcpy(plan.precision, stack->wanted[i]);
        pthread_mutex_unlock(&stack->mutex);
        if (!some)
            continue;
        struct assay_stack_member *worker = find_worker(stack, plan.precision);
        if (worker)
            worker->ended = false;
        else
            status = add_member(stack, ASSAY_RANK_WORKER, "inference", &plan, true, err);
    }
    return status;
}

static void stop_rank(struct assay_stack *stack, enum assay_stack_rank rank)
{
    int64_t deadline_ms = assay_now_ms() + STOP_MS;
    bool killed = false;
    for (size_t i = 0; i < stack->members_count; i++)
        if (stack->members[i].rank == rank) /* an evaluator stays a member: it will be back with the stack */
            assay_child_signal(&stack->members[i].child, stack->members[i].evaluator ? SIGINT : SIGTERM);
    for (;;) {
        size_t running = 0;
        for (size_t i = 0; i < stack->members_count; i++) {
            struct assay_stack_member *member = &stack->members[i];
            int wait_status;
            if (member->rank == rank && member->child.pid != 0 && !assay_child_ended(&member->child, &wait_status))
                running++;
        }
        if (running == 0)
            return;
        if (!killed && assay_now_ms() > deadline_ms) {
            for (size_t i = 0; i < stack->members_count; i++)
                if (stack->members[i].rank == rank && stack->members[i].child.pid != 0) {
                    report(stack, "%s did not end within %d s; killed", stack->members[i].child.name, STOP_MS / 1000);
                    assay_child_signal(&stack->members[i].child, SIGKILL);
                }
            killed = true;
        }
        const struct timespec pause = {.tv_nsec = STARTING_TURN_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
}

void *assay_stack_supervise(void *arg)
{
    struct assay_stack *stack = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    stack->start_deadline_ms = assay_now_ms() + START_MS;
    enum assay_status status = add_member(stack, ASSAY_RANK_COORDINATOR, "coordinator", NULL, false, &err);
    while (status == ASSAY_OK && !stopping(stack)) {
        status = tend_children(stack, &err);
        bool starting = stack->phase == ASSAY_STACK_STARTING;
        if (status == ASSAY_OK)
            status = starting ? go_on_starting(stack, &err) : meet_demand(stack, &err);
        if (status == ASSAY_OK)
            wait_turn(stack, starting ? STARTING_TURN_MS : TURN_MS);
    }
    stop_rank(stack, ASSAY_RANK_WORKER);
    stop_rank(stack, ASSAY_RANK_SERVICE);
    stop_rank(stack, ASSAY_RANK_COORDINATOR);
    if (status == ASSAY_OK)
        status = assay_err_set(&err, ASSAY_CANCELLED, "the stack was stopped");
    pthread_mutex_lock(&stack->mutex);
    stack->phase = ASSAY_STACK_ENDED;
    stack->err = err;
    stack->err.status = status;
    pthread_mutex_unlock(&stack->mutex);
    return NULL;
}

/* --- demand --- */

static void take_demand(struct assay_stack *stack, const Assay__V1__Demand *demand)
{
    for (size_t i = 0; i < demand->n_precisions; i++)
        if (assay_external_has(stack->external, demand->precisions[i]) || strchr(demand->precisions[i], '@'))
            report(stack, "chunks of %.31s wait for a worker from elsewhere", demand->precisions[i]);
    pthread_mutex_lock(&stack->mutex);
    stack->wanted_count = 0;
    for (size_t i = 0; i < demand->n_precisions && stack->wanted_count < ASSAY_STACK_WORKERS_MAX; i++)
        if (assay_precision_is_plain(demand->precisions[i]) &&
            !assay_external_has(stack->external, demand->precisions[i]))
            strcpy(stack->wanted[stack->wanted_count++], demand->precisions[i]);
    pthread_cond_broadcast(&stack->changed);
    pthread_mutex_unlock(&stack->mutex);
}

void *assay_stack_watch_demand(void *arg)
{
    struct assay_stack *stack = arg;
    while (!stopping(stack)) {
        Assay__V1__WatchDemandRequest request = ASSAY__V1__WATCH_DEMAND_REQUEST__INIT;
        struct assay_stream *stream = NULL;
        struct assay_reply *reply = NULL;
        enum assay_status status =
            assay_stream_open(stack->remote.client, &assay__v1__coordinator__descriptor, ASSAY_COORDINATOR_WATCH_DEMAND,
                              &request.base, NULL, WATCH_CREDIT, &stream, NULL);
        while (status == ASSAY_OK && !stopping(stack)) {
            struct assay_err err = ASSAY_ERR_INIT;
            status = assay_stream_next(stream, WATCH_AGAIN_MS, &reply, &err);
            if (status == ASSAY_OK && !reply)
                break;
            if (status == ASSAY_OK)
                take_demand(stack, assay_reply_message(reply));
            assay_reply_free(reply);
            reply = NULL;
            if (status == ASSAY_DEADLINE_EXCEEDED && !err.text[0])
                status = ASSAY_OK;
        }
        assay_stream_close(stream);
        wait_turn(stack, WATCH_AGAIN_MS);
    }
    return NULL;
}
