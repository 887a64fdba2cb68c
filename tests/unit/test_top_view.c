/* What `assay top` makes of reports. */
#include <stdlib.h>
#include <string.h>

#include "cli/top_view.h"
#include "tests/cmocka_all.h"

struct report {
    Assay__V1__StackStatus status;
    Assay__V1__ServiceInfo coordinator, worker, *services[1];
    Assay__V1__RegisterRequest who[2];
    Assay__V1__ServiceCounters counters[2];
    Assay__V1__JobStatus job, *jobs[1];
    Assay__V1__Phase phase, *phases[1];
    uint8_t job_id[16];
};

static void fill(struct report *r, uint64_t uptime_ms, uint64_t cpu_ms, uint64_t tokens)
{
    memset(r, 0, sizeof *r);
    assay__v1__stack_status__init(&r->status);
    assay__v1__service_info__init(&r->coordinator);
    assay__v1__service_info__init(&r->worker);
    for (size_t i = 0; i < 2; i++) {
        assay__v1__register_request__init(&r->who[i]);
        assay__v1__service_counters__init(&r->counters[i]);
        r->counters[i].has_uptime_ms = r->counters[i].has_cpu_ms = r->counters[i].has_rss_bytes = true;
        r->counters[i].uptime_ms = uptime_ms;
        r->counters[i].cpu_ms = cpu_ms;
        r->counters[i].rss_bytes = 12300000;
    }
    r->counters[1].has_tokens_run = true;
    r->counters[1].tokens_run = tokens;
    r->who[1].has_kind = true;
    r->who[1].kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE;
    r->who[1].precision = (char *)(uintptr_t) "in\x1bt8";
    r->coordinator.registration = &r->who[0];
    r->coordinator.counters = &r->counters[0];
    r->worker.registration = &r->who[1];
    r->worker.counters = &r->counters[1];
    r->worker.has_service_id = true;
    r->worker.service_id = 7;
    r->services[0] = &r->worker;
    r->status.coordinator = &r->coordinator;
    r->status.n_services = 1;
    r->status.services = r->services;
}

static void add_job(struct report *r)
{
    assay__v1__job_status__init(&r->job);
    assay__v1__phase__init(&r->phase);
    r->phase.name = (char *)(uintptr_t) "run int8";
    r->phase.unit = (char *)(uintptr_t) "chunks";
    r->phase.done = 40;
    r->phase.cached = 20;
    r->phase.total = 100;
    r->phase.elapsed_ms = 10000;
    r->phases[0] = &r->phase;
    r->job.job_id = (ProtobufCBinaryData){16, r->job_id};
    r->job.state = ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING;
    r->job.n_phases = 1;
    r->job.phases = r->phases;
    r->jobs[0] = &r->job;
    r->status.n_jobs = 1;
    r->status.jobs = r->jobs;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItem(object, key);
    if (!cJSON_IsNumber(value))
        fail_msg("%s is no number", key);
    return value->valuedouble;
}

static void rates_are_over_the_processes_own_clock_and_stay_until_the_next_report(void **state)
{
    (void)state;
    struct assay_top top = {0};
    struct report r;
    fill(&r, 1000, 500, 100);
    assert_true(assay_top_update(&top, &r.status));
    cJSON *json = assay_top_json(&top, &r.status, "e");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "tokens_per_second")));
    cJSON_Delete(json);
    fill(&r, 3000, 1500, 2100);
    for (int i = 0; i < 3; i++) { /* the same report again is no news */
        assert_true(assay_top_update(&top, &r.status));
        json = assay_top_json(&top, &r.status, "e");
        const cJSON *worker = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "services"), 1);
        assert_true(number(json, "tokens_per_second") == 1000);
        assert_true(number(worker, "tokens_per_second") == 1000);
        assert_true(number(worker, "cpu_percent") == 50);
        cJSON_Delete(json);
    }
    fill(&r, 100, 10, 5); /* another process in its place: nothing is known of it yet */
    assert_true(assay_top_update(&top, &r.status));
    json = assay_top_json(&top, &r.status, "e");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "tokens_per_second")));
    cJSON_Delete(json);
    assay_top_release(&top);
}

static void a_running_job_shows_its_phase_and_what_is_left(void **state)
{
    (void)state;
    struct assay_top top = {0};
    struct assay_buf text = ASSAY_BUF_INIT;
    struct report r;
    fill(&r, 1000, 500, 100);
    add_job(&r);
    assert_true(assay_top_update(&top, &r.status));
    assay_top_text(&top, &r.status, "ipc://x", &text);
    assert_non_null(strstr(assay_buf_cstr(&text), "run int8: 40/100 chunks, 20 cached, 2.0/s, 0:30 left"));
    assert_non_null(strstr(assay_buf_cstr(&text), "2 processes, 1 jobs running, 0 queued, tokens/s not known yet"));
    assert_null(strchr(assay_buf_cstr(&text), '\x1b'));
    cJSON *json = assay_top_json(&top, &r.status, "ipc://x");
    const cJSON *job = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "jobs"), 0);
    assert_string_equal(cJSON_GetObjectItem(job, "phase")->valuestring, "run int8");
    assert_true(number(cJSON_GetArrayItem(cJSON_GetObjectItem(job, "phases"), 0), "seconds_left") == 30);
    cJSON_Delete(json);
    assay_buf_release(&text);
    assay_top_release(&top);
}

static void a_frame_fits_the_terminal_and_cuts_between_characters(void **state)
{
    (void)state;
    struct assay_buf frame = ASSAY_BUF_INIT;
    assay_top_frame("a\xc3\xa9"
                    "bcd\nsecond\nthird\n",
                    3, 2, &frame);
    assert_string_equal(assay_buf_cstr(&frame), "\033[Ha\xc3\xa9"
                                                "b\033[K\r\nsec\033[K\033[J");
    assay_buf_release(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_over_the_processes_own_clock_and_stay_until_the_next_report),
        cmocka_unit_test(a_running_job_shows_its_phase_and_what_is_left),
        cmocka_unit_test(a_frame_fits_the_terminal_and_cuts_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
