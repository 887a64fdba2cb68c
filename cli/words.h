/* Words and figures that several commands print, and the JSON of messages that several commands list. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/digest.h"
#include "proto/control.pb-c.h"

/* text, or `otherwise` when it is NULL or empty. */
const char *assay_word_or(const char *text, const char *otherwise);

const char *assay_word_service_kind(Assay__V1__ServiceKind kind); /* "inference"; "?" for one we do not know */
const char *assay_word_job_state(Assay__V1__JobState state);      /* "completed" */
const char *assay_word_verdict(Assay__V1__Verdict verdict); /* "PASS", "FAIL", "INCONCLUSIVE"; also for an unset one */

/* Lower-case hex of the first bytes_max bytes into hex[2 * bytes_max + 1]; returns hex. */
char *assay_word_hex(ProtobufCBinaryData bytes, size_t bytes_max, char *hex);

/* "2026-01-31T12:00:00Z" into text[24]; "-" for 0. Returns text. */
char *assay_word_time(uint64_t wall_ms, char text[24]);

/* A spec as the user writes it, "int4:group_size=64", into text (cut to bytes); "?" for NULL. Returns text. */
char *assay_word_spec(const Assay__V1__VariantSpec *spec, char *text, size_t bytes);

/* The same of a registration; "coordinator" for the one that names no kind. */
const char *assay_word_service(const Assay__V1__RegisterRequest *who);

/* One process. The caller's to delete. */
cJSON *assay_service_json(const Assay__V1__ServiceInfo *service);
/* What ListServices answered, the coordinator first. The caller's to delete. */
cJSON *assay_services_json(const Assay__V1__ListServicesReply *services);
/* The head of a job, as ListJobs answers it. The caller's to delete. */
cJSON *assay_job_json(const Assay__V1__Job *job);
