#include "cli/stack.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli/directory.h"
#include "cli/interrupt.h"
#include "cli/stack_internal.h"
#include "cli/stack_lock.h"
#include "common/base/clock.h"
#include "common/base/paths.h"

#define POLL_MS 50
#define DETACHED_START_MS 60000
#define DIRECTORY_MODE 0700

static enum assay_status copy_option(char *ret, size_t ret_bytes, const char *name, const char *value,
                                     struct assay_err *err)
{
    if (!value)
        return ASSAY_OK;
    if (strlen(value) >= ret_bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--%s: at most %zu bytes, found %zu", name, ret_bytes - 1,
                             strlen(value));
    strcpy(ret, value);
    return ASSAY_OK;
}

static enum assay_status take_options(struct assay_stack *stack, const struct assay_stack_options *options,
                                      struct assay_err *err)
{
    cpu_set_t ignored;
    enum assay_status status = copy_option(stack->data_dir, sizeof stack->data_dir, "data", options->data_dir, err);
    if (status == ASSAY_OK)
        status = copy_option(stack->listen, sizeof stack->listen, "listen", options->listen, err);
    if (status == ASSAY_OK)
        status = copy_option(stack->cpus, sizeof stack->cpus, "cpus", options->cpus, err);
    if (status == ASSAY_OK)
        status =
            copy_option(stack->public_endpoint, sizeof stack->public_endpoint, "public", options->public_endpoint, err);
    if (status == ASSAY_OK)
        status = copy_option(stack->external, sizeof stack->external, "external", options->external, err);
    if (status == ASSAY_OK)
        status = assay_external_check(stack->external, err);
    if (status == ASSAY_OK && stack->cpus[0])
        status = assay_cpu_list_parse(stack->cpus, "--cpus", &ignored, err);
    if (status == ASSAY_OK && strchr(stack->listen, '*'))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                               "--listen: found '%.200s', wanted an endpoint with its port, as tcp://127.0.0.1:7421",
                               stack->listen);
    if (status == ASSAY_OK)
        status = assay_worker_plans_parse(options->workers, stack->plans, &stack->plans_count, err);
    if (status == ASSAY_OK)
        status = assay_stack_http_parse(options->http, &stack->http, err);
    stack->evaluators_count = (size_t)ASSAY_MAX(options->evaluators, (int64_t)1);
    if (status != ASSAY_OK)
        return status;
    if (stack->listen[0]) {
        strcpy(stack->endpoint, stack->listen);
        return ASSAY_OK;
    }
    return assay_ipc_endpoint(stack->data_dir, ASSAY_COORDINATOR_SOCKET, stack->endpoint, err);
}

static enum assay_status make_directories(struct assay_stack *stack, struct assay_err *err)
{
    static const char *const names[] = {ASSAY_RUN_DIR, ASSAY_LOGS_DIR, ASSAY_ARTIFACTS_DIR};
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_directory_make(stack->data_dir, DIRECTORY_MODE, err);
    for (size_t i = 0; i < ASSAY_COUNT(names) && status == ASSAY_OK; i++) {
        status = assay_path_join(path, stack->data_dir, names[i], err);
        if (status == ASSAY_OK)
            status = assay_directory_make(path, DIRECTORY_MODE, err);
    }
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "--data");
        return status;
    }
    status = assay_stack_keys_make(stack->data_dir, stack->public_endpoint, &stack->keys, err);
    if (status == ASSAY_OK)
        status = assay_path_join(stack->log_dir, stack->data_dir, ASSAY_LOGS_DIR, err);
    return status == ASSAY_OK ? assay_program_dir(stack->program_dir, err) : status;
}

/* The lock keeps stacks of ours apart; a coordinator that was started by hand has none. */
static enum assay_status claim(struct assay_stack *stack, struct assay_err *err)
{
    enum assay_status status = assay_stack_lock_take(stack->data_dir, stack->endpoint, &stack->lock_fd, err);
    if (status == ASSAY_OK && assay_remote_listener(stack->endpoint) != ASSAY_NOBODY)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "a coordinator that 'assay up' did not start serves %s already",
                             stack->endpoint);
    return status;
}

static enum assay_status start_threads(struct assay_stack *stack, struct assay_err *err)
{
    enum assay_status status = assay_remote_open(&stack->remote, stack->endpoint, err);
    if (status != ASSAY_OK)
        return status;
    stack->supervisor_runs = pthread_create(&stack->supervisor, NULL, assay_stack_supervise, stack) == 0;
    stack->watcher_runs =
        stack->supervisor_runs && pthread_create(&stack->watcher, NULL, assay_stack_watch_demand, stack) == 0;
    if (!stack->watcher_runs)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot start a thread");
    return ASSAY_OK;
}

static enum assay_status wait_until_ready(struct assay_stack *stack, struct assay_err *err)
{
    for (;;) {
        pthread_mutex_lock(&stack->mutex);
        enum assay_stack_phase phase = stack->phase;
        pthread_mutex_unlock(&stack->mutex);
        if (phase != ASSAY_STACK_STARTING)
            return assay_stack_state(stack, err);
        if (assay_interrupt_wait(POLL_MS))
            return assay_err_set(err, ASSAY_CANCELLED, "interrupted while the stack was starting");
    }
}

enum assay_status assay_stack_start(const struct assay_stack_options *options, struct assay_stack **ret,
                                    struct assay_err *err)
{
    struct assay_stack *stack = calloc(1, sizeof *stack);
    if (!stack)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    stack->lock_fd = -1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&stack->mutex, NULL);
    pthread_cond_init(&stack->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum assay_status status = take_options(stack, options, err);
    if (status == ASSAY_OK)
        status = make_directories(stack, err);
    if (status == ASSAY_OK)
        status = claim(stack, err);
    if (status == ASSAY_OK)
        status = start_threads(stack, err);
    if (status == ASSAY_OK)
        status = wait_until_ready(stack, err);
    if (status != ASSAY_OK) {
        assay_stack_stop(stack);
        return status;
    }
    *ret = stack;
    return ASSAY_OK;
}

void assay_stack_stop(struct assay_stack *stack)
{
    if (!stack)
        return;
    pthread_mutex_lock(&stack->mutex);
    stack->stop = true;
    pthread_cond_broadcast(&stack->changed);
    pthread_mutex_unlock(&stack->mutex);
    if (stack->remote.client)
        assay_client_cancel_all(stack->remote.client);
    if (stack->watcher_runs)
        pthread_join(stack->watcher, NULL);
    if (stack->supervisor_runs)
        pthread_join(stack->supervisor, NULL);
    assay_remote_close(&stack->remote);
    for (size_t i = 0; i < stack->members_count; i++)
        assay_child_release(&stack->members[i].child);
    assay_stack_lock_drop(stack->lock_fd);
    pthread_cond_destroy(&stack->changed);
    pthread_mutex_destroy(&stack->mutex);
    free(stack);
}

const char *assay_stack_endpoint(const struct assay_stack *stack)
{
    return stack->endpoint;
}

enum assay_status assay_stack_state(struct assay_stack *stack, struct assay_err *err)
{
    pthread_mutex_lock(&stack->mutex);
    enum assay_status status = stack->phase == ASSAY_STACK_ENDED ? stack->err.status : ASSAY_OK;
    if (status != ASSAY_OK && err)
        *err = stack->err;
    pthread_mutex_unlock(&stack->mutex);
    return status;
}

bool assay_stack_next_event(struct assay_stack *stack, char text[ASSAY_STACK_EVENT_MAX])
{
    pthread_mutex_lock(&stack->mutex);
    if (stack->events_written > stack->events_read + ASSAY_STACK_EVENTS_MAX)
        stack->events_read = stack->events_written - ASSAY_STACK_EVENTS_MAX;
    bool some = stack->events_read < stack->events_written;
    if (some)
        strcpy(text, stack->events[stack->events_read++ % ASSAY_STACK_EVENTS_MAX]);
    pthread_mutex_unlock(&stack->mutex);
    return some;
}

/* "assay up" serves when it holds the data directory and its coordinator answers. */
static enum assay_status wait_for_detached(struct assay_child *child, const char *data_dir, struct assay_err *err)
{
    int64_t deadline_ms = assay_now_ms() + DETACHED_START_MS;
    int wait_status;
    while (assay_now_ms() < deadline_ms) {
        struct assay_remote remote = {0};
        if (assay_child_ended(child, &wait_status))
            return assay_child_sentence(child, wait_status, err);
        if (assay_remote_attach(&remote, NULL, data_dir, NULL) == ASSAY_OK) {
            assay_remote_close(&remote);
            return ASSAY_OK;
        }
        if (assay_interrupt_wait(POLL_MS)) {
            assay_child_signal(child, SIGTERM);
            return assay_err_set(err, ASSAY_CANCELLED, "interrupted while the stack was starting");
        }
    }
    return assay_err_set(err, ASSAY_DEADLINE_EXCEEDED, "the stack was not ready within %d s; see %s",
                         DETACHED_START_MS / 1000, child->log_path);
}

enum assay_status assay_stack_detach(const char *data_dir, struct assay_err *err)
{
    const char *const arguments[] = {"up", "--data", data_dir, NULL};
    const struct assay_stack_options options = {.data_dir = data_dir};
    struct assay_child child = {.detached = true};
    char program[ASSAY_PATH_MAX];
    struct assay_stack *paths = calloc(1, sizeof *paths);
    if (!paths)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    enum assay_status status = take_options(paths, &options, err);
    if (status == ASSAY_OK)
        status = make_directories(paths, err);
    if (status == ASSAY_OK)
        status = assay_path_join(program, paths->program_dir, "assay", err);
    if (status == ASSAY_OK)
        status = assay_child_init(&child, "up", paths->log_dir, program, err);
    if (status == ASSAY_OK)
        status = assay_child_arguments(&child, arguments, err);
    if (status == ASSAY_OK)
        status = assay_child_start(&child, err);
    if (status == ASSAY_OK)
        status = wait_for_detached(&child, data_dir, err);
    assay_child_release(&child);
    free(paths);
    return status;
}
