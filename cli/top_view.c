#include "cli/top_view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_progress.h"
#include "cli/grid.h"
#include "cli/words.h"
#include "common/base/text.h"

/* --- rates --- */

static struct assay_top_rate *find(const struct assay_top *top, uint64_t service_id)
{
    for (size_t i = 0; i < top->count; i++)
        if (top->rates[i].service_id == service_id)
            return &top->rates[i];
    return NULL;
}

static struct assay_top_rate rate_of(const struct assay_top_rate *former, const Assay__V1__ServiceInfo *service)
{
    static const Assay__V1__ServiceCounters none = ASSAY__V1__SERVICE_COUNTERS__INIT;
    const Assay__V1__ServiceCounters *now = service->counters ? service->counters : &none;
    struct assay_top_rate rate = {.service_id = service->service_id,
                                  .uptime_ms = now->uptime_ms,
                                  .cpu_ms = now->cpu_ms,
                                  .tokens = now->tokens_run};
    bool grew = former && now->uptime_ms > former->uptime_ms && now->cpu_ms >= former->cpu_ms &&
                now->tokens_run >= former->tokens;
    if (grew) {
        double seconds = (double)(now->uptime_ms - former->uptime_ms) / 1e3;
        rate.known = true;
        rate.cpu_percent = (double)(now->cpu_ms - former->cpu_ms) / 10 / seconds;
        rate.tokens_per_second = (double)(now->tokens_run - former->tokens) / seconds;
    } else if (former && now->uptime_ms == former->uptime_ms) {
        rate.known = former->known;
        rate.cpu_percent = former->cpu_percent;
        rate.tokens_per_second = former->tokens_per_second;
    }
    return rate;
}

bool assay_top_update(struct assay_top *top, const Assay__V1__StackStatus *status)
{
    struct assay_top_rate *rates = calloc(status->n_services + 1, sizeof *rates);
    size_t count = 0;
    if (!rates)
        return false;
    if (status->coordinator)
        rates[count++] = rate_of(find(top, 0), status->coordinator);
    for (size_t i = 0; i < status->n_services; i++)
        rates[count++] = rate_of(find(top, status->services[i]->service_id), status->services[i]);
    free(top->rates);
    *top = (struct assay_top){rates, count};
    return true;
}

void assay_top_release(struct assay_top *top)
{
    free(top->rates);
    *top = (struct assay_top){0};
}

/* Workers only: what evaluators count as tokens are positions scored. False: no worker's rate is known. */
static bool tokens_per_second(const struct assay_top *top, const Assay__V1__StackStatus *status, double *ret)
{
    double sum = 0;
    bool known = false;
    for (size_t i = 0; i < status->n_services; i++) {
        const Assay__V1__RegisterRequest *who = status->services[i]->registration;
        const struct assay_top_rate *rate = find(top, status->services[i]->service_id);
        if (!who || who->kind != ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE || !rate || !rate->known)
            continue;
        sum += rate->tokens_per_second;
        known = true;
    }
    *ret = sum;
    return known;
}

/* --- text --- */

static size_t count_jobs(const Assay__V1__StackStatus *status, Assay__V1__JobState state)
{
    size_t count = 0;
    for (size_t i = 0; i < status->n_jobs; i++)
        count += status->jobs[i]->state == state;
    return count;
}

static void add_service(struct assay_grid *grid, const struct assay_top *top, const Assay__V1__ServiceInfo *service)
{
    static const Assay__V1__RegisterRequest nobody = ASSAY__V1__REGISTER_REQUEST__INIT;
    static const Assay__V1__ServiceCounters none = ASSAY__V1__SERVICE_COUNTERS__INIT;
    const Assay__V1__RegisterRequest *who = service->registration ? service->registration : &nobody;
    const Assay__V1__ServiceCounters *did = service->counters ? service->counters : &none;
    const struct assay_top_rate *rate = find(top, service->service_id);
    bool known = rate && rate->known;
    assay_grid_cell(grid, "%s", assay_word_service(who));
    assay_grid_cell(grid, "%s", assay_word_or(who->precision, "-"));
    assay_grid_cell(grid, "%s", assay_word_or(service->state, "-"));
    assay_grid_cell(grid, "%" PRIu32, who->pid);
    assay_grid_cell(grid, "%s", assay_word_or(who->host, "-"));
    assay_grid_cell(grid, known ? "%.0f" : "-", known ? rate->cpu_percent : 0.0);
    assay_grid_cell(grid, did->has_rss_bytes ? "%.1f" : "-", (double)did->rss_bytes / 1e6);
    assay_grid_cell(grid, known && did->has_tokens_run ? "%.0f" : "-", known ? rate->tokens_per_second : 0.0);
    assay_grid_cell(grid, did->has_tokens_run ? "%" PRIu64 : "-", did->tokens_run);
    assay_grid_cell(grid, did->has_chunks_run ? "%" PRIu64 : "-", did->chunks_run);
}

static void print_services(const struct assay_top *top, const Assay__V1__StackStatus *status, struct assay_buf *out)
{
    assay_auto(assay_grid_release) struct assay_grid grid = ASSAY_GRID_INIT;
    assay_grid_head(&grid, "<kind|<precision|<state|pid|<host|CPU %|resident MB|tokens/s|tokens|chunks");
    if (status->coordinator)
        add_service(&grid, top, status->coordinator);
    for (size_t i = 0; i < status->n_services; i++)
        add_service(&grid, top, status->services[i]);
    assay_grid_text(&grid, out);
}

static void print_queue(const Assay__V1__StackStatus *status, struct assay_buf *out)
{
    assay_buf_str(out, "\n");
    size_t begin = out->len;
    assay_buf_str(out, "queue:");
    for (size_t i = 0; i < status->n_queues; i++) {
        const Assay__V1__QueueStatus *queue = status->queues[i];
        assay_buf_printf(out, "%s %.32s %" PRIu64 " pending, %" PRIu64 " leased", i ? ";" : "",
                         assay_word_or(queue->precision, "?"), queue->pending, queue->leased);
    }
    assay_buf_printf(out, "%s; workers that wait: %" PRIu64, status->n_queues ? "" : " empty", status->waiting_workers);
    assay_buf_clean(out, begin);
    assay_buf_str(out, "\n");
}

/* The phase in which a job is: the first that is not done and has begun, else the first that waits. */
static const Assay__V1__Phase *current_phase(const Assay__V1__JobStatus *job)
{
    const Assay__V1__Phase *waiting = NULL;
    for (size_t i = 0; i < job->n_phases; i++) {
        enum assay_phase_stage stage = assay_phase_stage(job->phases[i]);
        if (stage == ASSAY_PHASE_WORKING)
            return job->phases[i];
        if (stage == ASSAY_PHASE_WAITING && !waiting)
            waiting = job->phases[i];
    }
    return waiting;
}

static void print_job(const Assay__V1__JobStatus *job, struct assay_buf *out)
{
    char hex[33], time[24];
    size_t begin = out->len;
    assay_buf_printf(out, "job %s  %s  submitted %s  %.80s", assay_word_hex(job->job_id, 16, hex),
                     assay_word_job_state(job->state), assay_word_time(job->submitted_wall_ms, time),
                     assay_word_or(job->name, assay_word_or(job->model_dir, "")));
    assay_buf_clean(out, begin);
    assay_buf_str(out, "\n");
    begin = out->len;
    if (job->failure && job->failure[0]) {
        assay_buf_printf(out, "  %.300s", job->failure);
        assay_buf_clean(out, begin);
        assay_buf_str(out, "\n");
    }
    if (job->state != ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING)
        return;
    for (size_t i = 0; i < job->n_phases; i++) {
        if (assay_phase_stage(job->phases[i]) != ASSAY_PHASE_WORKING)
            continue;
        assay_buf_str(out, "  ");
        assay_phase_line(job->phases[i], 0, true, 0, out);
        assay_buf_str(out, "\n");
    }
}

void assay_top_text(const struct assay_top *top, const Assay__V1__StackStatus *status, const char *endpoint,
                    struct assay_buf *out)
{
    double rate = 0;
    bool known = tokens_per_second(top, status, &rate);
    size_t begin = out->len;
    assay_buf_printf(out, "stack %s: %zu processes, %zu jobs running, %zu queued, ", endpoint,
                     status->n_services + (status->coordinator != NULL),
                     count_jobs(status, ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING),
                     count_jobs(status, ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED));
    if (known)
        assay_buf_printf(out, "%.0f tokens/s", rate);
    else
        assay_buf_str(out, "tokens/s not known yet");
    assay_buf_clean(out, begin);
    assay_buf_str(out, "\n\n");
    print_services(top, status, out);
    print_queue(status, out);
    for (size_t i = 0; i < status->n_jobs; i++)
        print_job(status->jobs[i], out);
}

/* --- JSON --- */

static void add_known(cJSON *object, const char *key, bool known, double value)
{
    if (known)
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

static cJSON *service_json(const struct assay_top *top, const Assay__V1__ServiceInfo *service)
{
    cJSON *object = assay_service_json(service);
    const struct assay_top_rate *rate = find(top, service->service_id);
    bool known = rate && rate->known;
    bool has_tokens = service->counters && service->counters->has_tokens_run;
    add_known(object, "cpu_percent", known, known ? rate->cpu_percent : 0);
    add_known(object, "tokens_per_second", known && has_tokens, known ? rate->tokens_per_second : 0);
    return object;
}

static cJSON *phase_json(const Assay__V1__Phase *phase)
{
    struct assay_pace pace = assay_phase_pace(phase, 0);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", assay_word_or(phase->name, "?"));
    cJSON_AddStringToObject(object, "unit", assay_word_or(phase->unit, ""));
    cJSON_AddNumberToObject(object, "done", (double)phase->done);
    cJSON_AddNumberToObject(object, "cached", (double)phase->cached);
    cJSON_AddNumberToObject(object, "total", (double)phase->total);
    cJSON_AddNumberToObject(object, "elapsed_ms", (double)phase->elapsed_ms);
    add_known(object, "per_second", pace.known, pace.per_second);
    add_known(object, "seconds_left", pace.known, pace.left_seconds);
    return object;
}

static cJSON *job_json(const Assay__V1__JobStatus *job)
{
    char hex[33];
    const Assay__V1__Phase *phase = current_phase(job);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "job_id", assay_word_hex(job->job_id, 16, hex));
    cJSON_AddStringToObject(object, "state", assay_word_job_state(job->state));
    cJSON_AddStringToObject(object, "name", assay_word_or(job->name, ""));
    cJSON_AddStringToObject(object, "model_dir", assay_word_or(job->model_dir, ""));
    if (phase)
        cJSON_AddStringToObject(object, "phase", assay_word_or(phase->name, "?"));
    else
        cJSON_AddNullToObject(object, "phase");
    cJSON *phases = cJSON_AddArrayToObject(object, "phases");
    for (size_t i = 0; i < job->n_phases; i++)
        cJSON_AddItemToArray(phases, phase_json(job->phases[i]));
    return object;
}

cJSON *assay_top_json(const struct assay_top *top, const Assay__V1__StackStatus *status, const char *endpoint)
{
    double rate = 0;
    bool known = tokens_per_second(top, status, &rate);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "endpoint", endpoint);
    add_known(object, "tokens_per_second", known, rate);
    cJSON *services = cJSON_AddArrayToObject(object, "services");
    if (status->coordinator)
        cJSON_AddItemToArray(services, service_json(top, status->coordinator));
    for (size_t i = 0; i < status->n_services; i++)
        cJSON_AddItemToArray(services, service_json(top, status->services[i]));
    cJSON *queues = cJSON_AddArrayToObject(object, "queues");
    for (size_t i = 0; i < status->n_queues; i++) {
        cJSON *queue = cJSON_CreateObject();
        cJSON_AddStringToObject(queue, "precision", assay_word_or(status->queues[i]->precision, "?"));
        cJSON_AddNumberToObject(queue, "pending", (double)status->queues[i]->pending);
        cJSON_AddNumberToObject(queue, "leased", (double)status->queues[i]->leased);
        cJSON_AddItemToArray(queues, queue);
    }
    cJSON_AddNumberToObject(object, "waiting_workers", (double)status->waiting_workers);
    cJSON *jobs = cJSON_AddArrayToObject(object, "jobs");
    for (size_t i = 0; i < status->n_jobs; i++)
        cJSON_AddItemToArray(jobs, job_json(status->jobs[i]));
    return object;
}

/* --- a frame --- */

/* Bytes of the first `width` code points of a line. */
static size_t fitting(const char *line, size_t bytes, size_t width)
{
    size_t at = 0, points = 0;
    while (at < bytes) {
        bool begins = ((unsigned char)line[at] & 0xc0) != 0x80;
        if (begins && points++ == width)
            break;
        at++;
    }
    return at;
}

void assay_top_frame(const char *text, size_t width, size_t height, struct assay_buf *out)
{
    assay_buf_str(out, "\033[H");
    for (size_t row = 0; *text && row < height; row++) {
        size_t bytes = strcspn(text, "\n");
        assay_buf_append(out, text, fitting(text, bytes, width));
        assay_buf_str(out, row + 1 < height ? "\033[K\r\n" : "\033[K");
        text += bytes + (text[bytes] == '\n');
    }
    assay_buf_str(out, "\033[J");
}
