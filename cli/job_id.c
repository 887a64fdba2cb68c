#include "cli/job_id.h"

#include <string.h>

#include "cli/words.h"

#define CALL_MS 5000
#define PREFIX_MIN 4

static bool is_hex(const char *text)
{
    return text[strspn(text, "0123456789abcdef")] == '\0';
}

static void decode(const char *hex, uint8_t *bytes)
{
    for (size_t i = 0; i < ASSAY_JOB_ID_BYTES; i++) {
        uint8_t value = 0;
        for (int k = 0; k < 2; k++) {
            char digit = hex[2 * i + (size_t)k];
            value = (uint8_t)(value << 4 | (digit <= '9' ? digit - '0' : digit - 'a' + 10));
        }
        bytes[i] = value;
    }
}

static enum assay_status choose(const Assay__V1__ListJobsReply *jobs, const char *text, uint8_t *ret,
                                struct assay_err *err)
{
    bool last = strcmp(text, "last") == 0;
    const Assay__V1__Job *found = NULL;
    size_t matches = 0;
    for (size_t i = 0; i < jobs->n_jobs && !(last && found); i++) {
        char hex[2 * ASSAY_JOB_ID_BYTES + 1];
        const Assay__V1__Job *job = jobs->jobs[i];
        if (job->job_id.len != ASSAY_JOB_ID_BYTES)
            continue;
        assay_word_hex(job->job_id, ASSAY_JOB_ID_BYTES, hex);
        if (!last && strncmp(hex, text, strlen(text)) != 0)
            continue;
        found = job;
        matches++;
    }
    if (!found)
        return assay_err_set(err, ASSAY_NOT_FOUND, last ? "there is no job" : "no job begins with '%s'", text);
    if (matches > 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%zu jobs begin with '%s', wanted more digits", matches,
                             text);
    memcpy(ret, found->job_id.data, ASSAY_JOB_ID_BYTES);
    return ASSAY_OK;
}

enum assay_status assay_job_id_resolve(struct assay_remote *remote, const char *text, uint8_t ret[ASSAY_JOB_ID_BYTES],
                                       struct assay_err *err)
{
    size_t digits = strlen(text);
    bool last = strcmp(text, "last") == 0;
    if (!last && (!is_hex(text) || digits < PREFIX_MIN || digits > 2 * ASSAY_JOB_ID_BYTES))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "JOB: found '%.64s', wanted %d to %d hexadecimal digits of a job's id, or last", text,
                             PREFIX_MIN, 2 * ASSAY_JOB_ID_BYTES);
    if (digits == 2 * ASSAY_JOB_ID_BYTES) {
        decode(text, ret);
        return ASSAY_OK;
    }
    Assay__V1__ListJobsRequest request = ASSAY__V1__LIST_JOBS_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_JOBS, &request.base, CALL_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    status = choose(assay_reply_message(reply), text, ret, err);
    assay_reply_free(reply);
    return status;
}
