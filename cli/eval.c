#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/eval_job.h"
#include "cli/eval_plan.h"
#include "cli/grid.h"
#include "cli/interrupt.h"
#include "cli/partial.h"
#include "cli/report.h"
#include "cli/say.h"
#include "cli/stack_lock.h"
#include "cli/trace_collect.h"
#include "cli/words.h"
#include "common/base/clock.h"
#include "common/base/exit_code.h"
#include "common/base/paths.h"

#define ATTACH_MS 30000
#define TURN_MS 100
#define CALL_MS 5000
/* Heartbeats come every second. */
#define FRESH_MS 1500

/* What one run holds. */
struct eval {
    const struct assay_eval_options *options;
    struct assay_display display;
    struct assay_stack *stack; /* ours, or NULL */
    struct assay_remote remote;
    char endpoint[ASSAY_PATH_MAX];
    int64_t started_ms;
};

/* A stack that was just started needs some seconds until it answers. */
static enum assay_status attach(struct eval *eval, struct assay_err *err)
{
    int64_t deadline_ms = assay_now_ms() + ATTACH_MS;
    for (;;) {
        enum assay_status status =
            assay_remote_find(eval->options->coordinator, eval->options->data_dir, eval->endpoint, err);
        if (status == ASSAY_OK)
            status = assay_remote_attach(&eval->remote, eval->endpoint, NULL, err);
        if (status == ASSAY_OK || eval->options->coordinator || assay_now_ms() > deadline_ms)
            return status;
        if (assay_interrupt_wait(TURN_MS))
            return assay_err_set(err, ASSAY_CANCELLED, "interrupted before the job was submitted");
    }
}

/* Finds the stack, or starts one for this job. */
static enum assay_status connect_stack(struct eval *eval, struct assay_err *err)
{
    const struct assay_eval_options *options = eval->options;
    const struct assay_stack_options stack_options = {.data_dir = options->data_dir};
    struct assay_stack_holder holder = {0};
    if (options->coordinator)
        return attach(eval, err);
    enum assay_status status = assay_ipc_endpoint(options->data_dir, ASSAY_COORDINATOR_SOCKET, eval->endpoint, err);
    if (status == ASSAY_OK)
        status = assay_stack_lock_look(options->data_dir, &holder, err);
    if (status != ASSAY_OK)
        return status;
    if (holder.running || assay_remote_listener(eval->endpoint) != ASSAY_NOBODY)
        return attach(eval, err);
    assay_display_note(&eval->display, "no stack runs on the data directory: starting one for this job");
    if (options->keep_stack)
        status = assay_stack_detach(options->data_dir, err);
    else
        status = assay_stack_start(&stack_options, &eval->stack, err);
    return status == ASSAY_OK ? attach(eval, err) : status;
}

static void show_processes(struct eval *eval, const Assay__V1__ListServicesReply *services)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    struct assay_grid grid = ASSAY_GRID_INIT;
    long pid = assay_remote_listener(eval->endpoint);
    assay_buf_str(&text, "processes:\n");
    assay_grid_head(&grid, "<  kind|<precision|pid|chunks run|CPU s|resident MB");
    assay_grid_cell(&grid, "  coordinator");
    assay_grid_cell(&grid, "-");
    assay_grid_cell(&grid, pid > 0 ? "%ld" : "-", pid);
    for (int i = 0; i < 3; i++)
        assay_grid_cell(&grid, "-");
    for (size_t i = 0; i < services->n_services; i++) {
        const Assay__V1__ServiceInfo *service = services->services[i];
        if (!service->registration)
            continue;
        assay_grid_cell(&grid, "  %s", assay_word_service_kind(service->registration->kind));
        assay_grid_cell(&grid, "%s", assay_word_or(service->registration->precision, "-"));
        assay_grid_cell(&grid, "%" PRIu32, service->registration->pid);
        assay_grid_cell(&grid, "%" PRIu64, service->counters ? service->counters->chunks_run : 0);
        assay_grid_cell(&grid, "%.1f", service->counters ? (double)service->counters->cpu_ms / 1e3 : 0.0);
        assay_grid_cell(&grid, "%.1f", service->counters ? (double)service->counters->rss_bytes / 1e6 : 0.0);
    }
    assay_grid_text(&grid, &text);
    assay_grid_release(&grid);
    assay_display_block(&eval->display, assay_buf_cstr(&text));
}

/* Whether the workers' counters, which come with their heartbeats, cover what the job's result says that they ran. */
static bool counters_are_fresh(const Assay__V1__ListServicesReply *services, const Assay__V1__Job *job)
{
    for (size_t i = 0; i < job->n_results; i++) {
        const Assay__V1__VariantResult *result = job->results[i];
        const char *scheme = result->variant && result->variant->spec ? result->variant->spec->scheme : NULL;
        uint64_t counted = 0;
        for (size_t k = 0; scheme && k < services->n_services; k++) {
            const Assay__V1__ServiceInfo *service = services->services[k];
            const char *precision = service->registration ? service->registration->precision : NULL;
            if (precision && service->counters && strcmp(precision, scheme) == 0)
                counted += service->counters->chunks_run;
        }
        if (counted < result->chunks_run)
            return false;
    }
    return true;
}

/* NULL when the coordinator does not say. */
static struct assay_reply *list_services(struct eval *eval, const Assay__V1__Job *job)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    int64_t deadline_ms = assay_now_ms() + FRESH_MS;
    for (;;) {
        struct assay_reply *reply = NULL;
        if (assay_remote_call(&eval->remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CALL_MS, &reply, NULL) !=
            ASSAY_OK)
            return NULL;
        if (counters_are_fresh(assay_reply_message(reply), job) || assay_now_ms() > deadline_ms ||
            assay_interrupt_wait(TURN_MS))
            return reply;
        assay_reply_free(reply);
    }
}

static enum assay_status print_result(const struct assay_report *report, bool json, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    if (json) {
        cJSON *object = assay_report_json(report);
        char *printed = cJSON_Print(object);
        if (printed)
            assay_buf_printf(&text, "%s\n", printed);
        else
            text.failed = true;
        cJSON_free(printed);
        cJSON_Delete(object);
    } else {
        assay_report_table(report, &text);
    }
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK && (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot write the result to stdout");
    return status;
}

static enum assay_status print_partial(const Assay__V1__Job *job, bool json, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    if (json) {
        cJSON *object = assay_partial_json(job);
        char *printed = cJSON_Print(object);
        assay_buf_printf(&text, "%s\n", printed ? printed : "{}");
        cJSON_free(printed);
        cJSON_Delete(object);
    } else {
        assay_partial_table(job, &text);
    }
    enum assay_status status = assay_buf_check(&text, err);
    if (status == ASSAY_OK && (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot write the result to stdout");
    return status;
}

static enum assay_status report_job(struct eval *eval, struct assay_eval_job *handle, const Assay__V1__Job *job,
                                    struct assay_err *err)
{
    struct assay_environment environment;
    struct assay_reply *services = list_services(eval, job);
    assay_auto(assay_buf_release) struct assay_buf cost = ASSAY_BUF_INIT;
    if (services)
        show_processes(eval, assay_reply_message(services));
    assay_environment_read(&environment);
    const struct assay_report report = {
        .job = job,
        .services = services ? assay_reply_message(services) : NULL,
        .last_event = handle->last_event ? assay_reply_message(handle->last_event) : NULL,
        .environment = &environment,
        .command = assay_buf_cstr(&eval->options->command),
        .coordinator = eval->endpoint,
        .coordinator_pid = ASSAY_MAX(assay_remote_listener(eval->endpoint), 0),
        .wall_seconds = (double)(assay_now_ms() - eval->started_ms) / 1e3,
    };
    assay_report_cost(&report, &cost);
    assay_display_block(&eval->display, assay_buf_cstr(&cost));
    enum assay_status status =
        job->partial ? print_partial(job, eval->options->json, err) : print_result(&report, eval->options->json, err);
    if (status == ASSAY_OK)
        status = assay_report_write(&report, eval->options->out_dir, err);
    if (status == ASSAY_OK) {
        char note[ASSAY_PATH_MAX];
        snprintf(note, sizeof note, "reports: %.400s/%s and others", eval->options->out_dir,
                 ASSAY_REPORT_MARKDOWN_NAME);
        assay_display_note(&eval->display, note);
    }
    assay_reply_free(services);
    return status;
}

/* The job's trace, before a stack of ours goes. It is not the result: a failure is told and changes no exit code. */
static void write_trace(struct eval *eval, const Assay__V1__Job *job)
{
    char hex[33], note[ASSAY_PATH_MAX + 64];
    struct assay_trace trace = ASSAY_TRACE_INIT;
    struct assay_err err = ASSAY_ERR_INIT;
    assay_word_hex(job->job_id, 16, hex);
    enum assay_status status = assay_trace_collect(&eval->remote, eval->endpoint, hex, &trace, &err);
    if (status == ASSAY_OK)
        status = assay_file_write(eval->options->trace_path, trace.json.data, trace.json.len, &err);
    if (status == ASSAY_OK)
        snprintf(note, sizeof note, "trace: %zu spans in %.4000s", trace.spans_count, eval->options->trace_path);
    else
        snprintf(note, sizeof note, "no trace was written: %.500s", err.text);
    assay_display_note(&eval->display, note);
    assay_trace_release(&trace);
}

/* The job's exit code, or that of what stopped us. */
static int run_job(struct eval *eval)
{
    struct assay_eval_job job = {.remote = &eval->remote,
                                 .stack = eval->stack,
                                 .display = &eval->display,
                                 .away_ms = eval->options->away_s * 1000};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    int code = ASSAY_EXIT_INTERNAL;
    enum assay_status status = assay_eval_job_submit(&job, eval->options, &err);
    if (status == ASSAY_OK)
        status = assay_eval_job_watch(&job, &err);
    if (status == ASSAY_OK)
        status = assay_eval_job_fetch(&job, &reply, &err);
    if (status == ASSAY_OK) {
        const Assay__V1__Job *done = assay_reply_message(reply);
        code = assay_report_exit_code(done);
        if (eval->options->trace_path)
            write_trace(eval, done);
        if (done->state == ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED || done->partial) {
            status = report_job(eval, &job, done, &err);
        } else {
            assay_err_set(&err, ASSAY_UNKNOWN, "job %s: %s", assay_word_job_state(done->state),
                          assay_word_or(done->failure, done->state == ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED
                                                           ? "nothing was scored until then"
                                                           : "no reason is known"));
            assay_say_failure("eval", &err);
        }
    }
    if (status != ASSAY_OK)
        code = assay_say_failure("eval", &err);
    assay_reply_free(reply);
    assay_eval_job_release(&job);
    return code;
}

/* The machine's speed at the shapes of the model. */
static enum assay_status measure(const char *model_dir, size_t window_tokens, struct assay_speed *ret,
                                 struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_pool *pool = NULL;
    struct assay_model_config config;
    enum assay_status status = assay_checkpoint_open(model_dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = assay_model_config_read(assay_checkpoint_config(checkpoint), model_dir, &config, err);
    if (status == ASSAY_OK)
        status = assay_pool_new(assay_cpu_count(), NULL, &pool, err);
    if (status == ASSAY_OK)
        status = assay_speed_measure(&config, window_tokens, pool, ret, err);
    assay_pool_free(pool);
    assay_checkpoint_close(checkpoint);
    return status;
}

static int plan_job(struct eval *eval)
{
    struct assay_eval_job job = {.remote = &eval->remote,
                                 .stack = eval->stack,
                                 .display = &eval->display,
                                 .away_ms = eval->options->away_s * 1000};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    struct assay_speed speed;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    enum assay_status status = assay_eval_job_plan(&job, eval->options, &reply, &err);
    if (status == ASSAY_OK) {
        const Assay__V1__JobPlan *plan = assay_reply_message(reply);
        status = measure(eval->options->model_dir, (size_t)plan->window_tokens, &speed, &err);
        if (status == ASSAY_OK)
            assay_plan_print(plan, &speed, eval->options->json, &text);
    }
    if (status == ASSAY_OK)
        status = assay_buf_check(&text, &err);
    if (status == ASSAY_OK && (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0))
        status = assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "cannot write the plan to stdout");
    assay_reply_free(reply);
    assay_eval_job_release(&job);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure("eval", &err);
}

int assay_command_eval(int argc, char **argv)
{
    struct assay_eval_options *options = calloc(1, sizeof *options);
    struct eval eval = {.options = options, .started_ms = assay_now_ms()};
    struct assay_err err = ASSAY_ERR_INIT;
    int code = ASSAY_EXIT_RESOURCES;
    if (options && assay_eval_options_parse(argc, argv, options, &code)) {
        assay_interrupt_prepare();
        assay_display_init(&eval.display);
        if (connect_stack(&eval, &err) == ASSAY_OK)
            code = options->dry_run ? plan_job(&eval) : run_job(&eval);
        else
            code = assay_say_setting_failure("eval", &err);
        assay_remote_close(&eval.remote);
        assay_stack_stop(eval.stack);
    }
    if (options)
        assay_eval_options_release(options);
    free(options);
    return code;
}
