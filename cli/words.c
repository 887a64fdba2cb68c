#include "cli/words.h"

#include <stdio.h>
#include <time.h>

const char *assay_word_or(const char *text, const char *otherwise)
{
    return text && text[0] ? text : otherwise;
}

const char *assay_word_service_kind(Assay__V1__ServiceKind kind)
{
    switch ((int)kind) {
    case ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE:
        return "inference";
    case ASSAY__V1__SERVICE_KIND__SERVICE_KIND_QUANTIZER:
        return "quantizer";
    case ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR:
        return "evaluator";
    default:
        return "?";
    }
}

const char *assay_word_job_state(Assay__V1__JobState state)
{
    switch ((int)state) {
    case ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED:
        return "queued";
    case ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING:
        return "running";
    case ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED:
        return "completed";
    case ASSAY__V1__JOB_STATE__JOB_STATE_FAILED:
        return "failed";
    case ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED:
        return "cancelled";
    case ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED:
        return "paused";
    default:
        return "?";
    }
}

const char *assay_word_verdict(Assay__V1__Verdict verdict)
{
    switch ((int)verdict) {
    case ASSAY__V1__VERDICT__VERDICT_PASS:
        return "PASS";
    case ASSAY__V1__VERDICT__VERDICT_FAIL:
        return "FAIL";
    default:
        return "INCONCLUSIVE";
    }
}

char *assay_word_hex(ProtobufCBinaryData bytes, size_t bytes_max, char *hex)
{
    size_t len = ASSAY_MIN(bytes.len, bytes_max);
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes.data[i]);
    hex[2 * len] = '\0';
    return hex;
}

char *assay_word_time(uint64_t wall_ms, char text[24])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    if (wall_ms == 0 || !gmtime_r(&seconds, &utc) || strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(text, 24, "-");
    return text;
}

char *assay_word_spec(const Assay__V1__VariantSpec *spec, char *text, size_t bytes)
{
    int used = snprintf(text, bytes, "%s", spec ? assay_word_or(spec->scheme, "?") : "?");
    for (size_t i = 0; spec && i < spec->n_parameters && used >= 0 && (size_t)used < bytes; i++)
        used += snprintf(text + used, bytes - (size_t)used, ":%s=%s", assay_word_or(spec->parameters[i]->key, "?"),
                         assay_word_or(spec->parameters[i]->value, "?"));
    return text;
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text && text[0])
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_counters(cJSON *object, const Assay__V1__ServiceCounters *counters)
{
    if (!counters)
        return;
    object = cJSON_AddObjectToObject(object, "counters");
    cJSON_AddNumberToObject(object, "chunks_run", (double)counters->chunks_run);
    cJSON_AddNumberToObject(object, "tokens_run", (double)counters->tokens_run);
    cJSON_AddNumberToObject(object, "records_sent", (double)counters->records_sent);
    cJSON_AddNumberToObject(object, "compute_us", (double)counters->compute_us);
    cJSON_AddNumberToObject(object, "models_loaded", (double)counters->models_loaded);
    cJSON_AddNumberToObject(object, "cpu_ms", (double)counters->cpu_ms);
    cJSON_AddNumberToObject(object, "rss_bytes", (double)counters->rss_bytes);
    if (counters->has_uptime_ms)
        cJSON_AddNumberToObject(object, "uptime_ms", (double)counters->uptime_ms);
}

static void add_loaded(cJSON *object, const Assay__V1__ServiceInfo *service)
{
    cJSON *list = cJSON_AddArrayToObject(object, "loaded");
    for (size_t i = 0; i < service->n_loaded_variant_ids; i++) {
        char hex[ASSAY_DIGEST_HEX];
        cJSON_AddItemToArray(
            list, cJSON_CreateString(assay_word_hex(service->loaded_variant_ids[i], ASSAY_DIGEST_BYTES, hex)));
    }
}

const char *assay_word_service(const Assay__V1__RegisterRequest *who)
{
    return who->has_kind ? assay_word_service_kind(who->kind) : "coordinator";
}

cJSON *assay_service_json(const Assay__V1__ServiceInfo *service)
{
    const Assay__V1__RegisterRequest *who = service->registration;
    cJSON *object = cJSON_CreateObject();
    if (who) {
        cJSON_AddStringToObject(object, "kind", assay_word_service(who));
        add_text(object, "precision", who->precision);
        cJSON_AddNumberToObject(object, "pid", who->pid);
        add_text(object, "host", who->host);
        add_text(object, "endpoint", who->endpoint);
        add_text(object, "http", who->http);
        add_text(object, "numerics_id", who->numerics_id);
        add_text(object, "device", who->device);
        cJSON_AddNumberToObject(object, "threads", who->threads);
        if (who->has_memory_bytes)
            cJSON_AddNumberToObject(object, "memory_bytes", (double)who->memory_bytes);
    }
    if (who && who->kind == ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE)
        add_loaded(object, service);
    add_text(object, "state", service->state);
    cJSON_AddNumberToObject(object, "silent_ms", (double)service->silent_ms);
    add_counters(object, service->counters);
    return object;
}

cJSON *assay_services_json(const Assay__V1__ListServicesReply *services)
{
    cJSON *list = cJSON_CreateArray();
    if (services->coordinator)
        cJSON_AddItemToArray(list, assay_service_json(services->coordinator));
    for (size_t i = 0; i < services->n_services; i++)
        cJSON_AddItemToArray(list, assay_service_json(services->services[i]));
    return list;
}

cJSON *assay_job_json(const Assay__V1__Job *job)
{
    char hex[33], time[24], spec[256];
    cJSON *object = cJSON_CreateObject();
    const Assay__V1__SubmitJobRequest *request = job->request;
    cJSON_AddStringToObject(object, "job_id", assay_word_hex(job->job_id, 16, hex));
    cJSON_AddStringToObject(object, "state", assay_word_job_state(job->state));
    if (request) {
        add_text(object, "name", request->name);
        cJSON_AddNumberToObject(object, "priority", request->priority);
        add_text(object, "model_dir", request->model_dir);
        add_text(object, "corpus", request->corpus_name);
        add_text(object, "protocol", request->protocol);
        cJSON_AddStringToObject(object, "reference", assay_word_spec(request->reference, spec, sizeof spec));
        cJSON *variants = cJSON_AddArrayToObject(object, "variants");
        for (size_t i = 0; i < request->n_variants; i++)
            cJSON_AddItemToArray(variants,
                                 cJSON_CreateString(assay_word_spec(request->variants[i], spec, sizeof spec)));
    }
    add_text(object, "submitted", job->submitted_wall_ms ? assay_word_time(job->submitted_wall_ms, time) : NULL);
    add_text(object, "started", job->started_wall_ms ? assay_word_time(job->started_wall_ms, time) : NULL);
    add_text(object, "finished", job->finished_wall_ms ? assay_word_time(job->finished_wall_ms, time) : NULL);
    cJSON_AddNumberToObject(object, "chunks", (double)job->chunks);
    if (job->has_chunks_planned) {
        cJSON_AddNumberToObject(object, "chunks_done", (double)job->chunks_done);
        cJSON_AddNumberToObject(object, "chunks_planned", (double)job->chunks_planned);
    }
    add_text(object, "verdict", job->has_verdict && job->verdict ? assay_word_verdict(job->verdict) : NULL);
    add_text(object, "failure", job->failure);
    return object;
}
