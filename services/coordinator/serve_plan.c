/* PlanJob: the plan of a job without starting it. Reading a checkpoint and cutting a corpus take time, so each call has
 * a thread of its own; the coordinator waits for them when it stops. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "services/coordinator/driver.h"
#include "services/coordinator/serve.h"

/* Plans in the making at once. */
#define PLANS_MAX 4

struct planning {
    struct assay_coordinator *coordinator;
    struct assay_call *call;
    struct assay_plan plan;
    Assay__V1__JobPlan message;
    struct assay_variant_message variant_messages[ASSAY_JOB_VARIANTS_MAX + 1];
    Assay__V1__PlannedVariant planned[ASSAY_JOB_VARIANTS_MAX + 1], *pointers[ASSAY_JOB_VARIANTS_MAX + 1];
};

/* Chunks of variant `index` that the evaluator has; absent from the message when it does not say. */
static void ask_cached(struct planning *p, const struct assay_shard_map *map, size_t index)
{
    struct assay_have have;
    Assay__V1__PlannedVariant *planned = &p->planned[index];
    if (assay_have_ask(p->coordinator->loop, map, &p->plan, index, p->call, &have, NULL) != ASSAY_OK)
        return;
    planned->has_chunks_cached = planned->has_chunks_to_run = true;
    planned->chunks_cached = 0;
    for (size_t i = 0; i < p->plan.run_count; i++)
        planned->chunks_cached += have.bits[i] != 0;
    planned->chunks_to_run = p->plan.run_count - planned->chunks_cached;
    assay_have_release(&have);
}

static void fill_variant(struct planning *p, size_t index)
{
    const struct assay_plan_variant *variant = &p->plan.variants[index];
    Assay__V1__PlannedVariant *planned = &p->planned[index];
    assay__v1__planned_variant__init(planned);
    assay_variant_message_fill(&p->plan, variant, &p->variant_messages[index]);
    planned->variant = &p->variant_messages[index].variant;
    char manifest[ASSAY_PATH_MAX];
    planned->has_artifact_ready = true;
    planned->artifact_ready = assay_path_join(manifest, variant->artifact_dir, "manifest.json", NULL) == ASSAY_OK &&
                              access(manifest, R_OK) == 0;
    planned->has_record_bytes = true;
    planned->record_bytes = p->plan.scored_positions * p->plan.model.hidden *
                            (p->plan.record_dtype == ASSAY__V1__DTYPE__DTYPE_F16 ? sizeof(uint16_t) : sizeof(float));
    assay_auto(assay_free_ptr) void *value = NULL;
    uint64_t rate[2];
    size_t bytes;
    if (assay_store_get(p->coordinator->store, "rates", &variant->id, sizeof variant->id, &value, &bytes, NULL) ==
            ASSAY_OK &&
        bytes == sizeof rate) {
        memcpy(rate, value, sizeof rate);
        planned->has_us_per_chunk = rate[1] > 0;
        planned->us_per_chunk = rate[1] ? (double)rate[0] / (double)rate[1] : 0;
    }
    p->pointers[index] = planned;
}

static void fill_message(struct planning *p)
{
    Assay__V1__JobPlan *m = &p->message;
    assay__v1__job_plan__init(m);
    m->has_chunks = m->has_tokens = m->has_window_tokens = m->has_scored_positions = m->has_parameters =
        m->has_adds_bos = true;
    m->chunks = p->plan.chunks.count;
    m->tokens = p->plan.chunks.corpus_tokens;
    m->window_tokens = p->plan.protocol->window;
    m->scored_positions = p->plan.scored_positions;
    m->parameters = p->plan.parameters;
    m->adds_bos = p->plan.chunks.adds_bos;
    m->architecture = (char *)(uintptr_t)p->plan.model.architecture;
    m->has_model_id = true;
    m->model_id = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, p->plan.model_id.digest.bytes};
    m->n_variants = p->plan.variants_count;
    m->variants = p->pointers;
    for (size_t i = 0; i < p->plan.variants_count; i++)
        fill_variant(p, i);
}

static void ask_evaluators(struct planning *p)
{
    struct assay_coordinator *c = p->coordinator;
    assay_auto(assay_free_ptr) struct assay_shard_map *map = malloc(sizeof *map);
    if (!map)
        return;
    pthread_mutex_lock(&c->lock);
    *map = c->shards.map;
    pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; assay_shard_map_owners(map) > 0 && i < p->plan.variants_count; i++)
        ask_cached(p, map, i);
}

static void *plan_main(void *arg)
{
    struct planning *p = arg;
    struct assay_coordinator *c = p->coordinator;
    const Assay__V1__SubmitJobRequest *request = assay_call_request(p->call);
    struct assay_bytes text = assay_call_attachment(p->call, request->corpus->attachment);
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = assay_plan_make(request, text.data, text.bytes, c->data_dir, c->store, &p->plan, &err);
    if (status == ASSAY_OK) {
        fill_message(p);
        ask_evaluators(p);
        assay_call_reply(p->call, &p->message.base, NULL, 0);
        assay_plan_release(&p->plan);
    } else {
        assay_call_fail(p->call, &err);
    }
    free(p);
    pthread_mutex_lock(&c->lock);
    c->plans--;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void assay_serve_plan_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_bytes text;
    enum assay_status status = assay_serve_check_submit(call, c, &text, &err);
    pthread_mutex_lock(&c->lock);
    if (status == ASSAY_OK && c->stopping)
        status = assay_err_set(&err, ASSAY_UNAVAILABLE, "the coordinator is shutting down");
    if (status == ASSAY_OK && c->plans >= PLANS_MAX)
        status = assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "%zu plans are in the making, the most is %d", c->plans,
                               PLANS_MAX);
    if (status == ASSAY_OK)
        c->plans++;
    pthread_mutex_unlock(&c->lock);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        return;
    }
    struct planning *planning = calloc(1, sizeof *planning);
    pthread_t thread;
    if (planning) {
        planning->coordinator = c;
        planning->call = call;
    }
    if (planning && pthread_create(&thread, NULL, plan_main, planning) == 0) {
        pthread_detach(thread);
        return;
    }
    free(planning);
    pthread_mutex_lock(&c->lock);
    c->plans--;
    pthread_mutex_unlock(&c->lock);
    assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "cannot start the thread of a plan");
    assay_call_fail(call, &err);
}
