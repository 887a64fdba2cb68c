/* Whose turn it is: weighted fair sharing by virtual time. A flow (one job in one queue) is charged for what it is
 * lent, divided by its weight; the one with the least goes next. A flow that had nothing to lend starts at the time of
 * the one served last, so that nobody saves up turns. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/coordinator/scheduler_internal.h"

/* --- queues --- */

static struct group *group_find(const struct assay_scheduler *s, const char *precision)
{
    struct group *group = s->groups;
    while (group && strcmp(group->precision, precision) != 0)
        group = group->next;
    return group;
}

static struct queue *queue_in(const struct group *group, const char *numerics)
{
    struct queue *queue = group ? group->queues : NULL;
    while (queue && strcmp(queue->numerics, numerics) != 0)
        queue = queue->next;
    return queue;
}

const struct queue *assay_queue_find(const struct assay_scheduler *s, const char *precision, const char *numerics)
{
    return queue_in(group_find(s, precision), numerics);
}

struct queue *assay_queue_get(struct assay_scheduler *s, const char *precision, const char *numerics)
{
    struct group *group = group_find(s, precision);
    if (!group) {
        struct group **at = &s->groups;
        while (*at)
            at = &(*at)->next;
        group = calloc(1, sizeof *group);
        if (!group)
            return NULL;
        snprintf(group->precision, sizeof group->precision, "%s", precision);
        *at = group;
    }
    struct queue *queue = queue_in(group, numerics);
    if (queue)
        return queue;
    queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    snprintf(queue->numerics, sizeof queue->numerics, "%s", numerics);
    queue->turns.steps = queue->late.steps = &s->steps;
    queue->group = group;
    queue->next = group->queues;
    group->queues = queue;
    return queue;
}

void assay_queues_free(struct assay_scheduler *s)
{
    while (s->groups) {
        struct group *group = s->groups;
        s->groups = group->next;
        while (group->queues) {
            struct queue *queue = group->queues;
            group->queues = queue->next;
            assay_idmap_release(&queue->flows);
            assay_heap_release(&queue->turns);
            assay_heap_release(&queue->late);
            free(queue);
        }
        free(group);
    }
}

size_t assay_scheduler_wanted(const struct assay_scheduler *scheduler, const char **precisions, size_t max)
{
    size_t count = 0;
    for (const struct group *group = scheduler->groups; group && count < max; group = group->next) {
        const struct queue *queue = group->queues;
        while (queue && queue->turns.count == 0)
            queue = queue->next;
        if (queue)
            precisions[count++] = group->precision;
    }
    return count;
}

/* --- flows --- */

static void flow_drop(struct flow *flow)
{
    if (flow->runs_count > 0)
        return;
    assay_heap_remove(&flow->queue->turns, &flow->in_queue);
    assay_idmap_remove(&flow->queue->flows, flow->job);
    assay_heap_release(&flow->runs);
    free(flow);
}

/* The job's flow with room for one more run; NULL when out of memory. */
static struct flow *flow_get(struct assay_scheduler *s, struct queue *queue, uint64_t job, int priority)
{
    struct flow *flow = assay_idmap_get(&queue->flows, job);
    if (!flow) {
        flow = calloc(1, sizeof *flow);
        if (!flow)
            return NULL;
        *flow = (struct flow){.queue = queue, .job = job, .priority = priority};
        flow->served_us = queue->group->clock_us;
        flow->in_queue.order = s->next_serial++;
        flow->runs.steps = &s->steps;
        if (!assay_heap_reserve(&queue->turns, queue->flows.count + 1) || !assay_idmap_put(&queue->flows, job, flow)) {
            free(flow);
            return NULL;
        }
    }
    flow->runs_count++;
    if (assay_heap_reserve(&flow->runs, flow->runs_count))
        return flow;
    flow->runs_count--;
    flow_drop(flow);
    return NULL;
}

bool assay_turn_join(struct assay_run *run, struct queue *queue, uint64_t job, int priority)
{
    run->flow = flow_get(run->scheduler, queue, job, priority);
    run->in_flow.key = run->in_set.key = (int64_t)run->serial;
    return run->flow != NULL;
}

void assay_turn_leave(struct assay_run *run)
{
    struct flow *flow = run->flow;
    assay_heap_remove(&run->set->ready, &run->in_set);
    assay_heap_remove(&flow->runs, &run->in_flow);
    if (flow->runs.count == 0)
        assay_heap_remove(&flow->queue->turns, &flow->in_queue);
    flow->runs_count--;
    run->flow = NULL;
    flow_drop(flow);
}

void assay_turn_refresh(struct assay_run *run)
{
    struct flow *flow = run->flow;
    bool ready = run->pending.members > 0 && !run->paused;
    if (ready == (run->in_flow.place != 0))
        return;
    if (!ready) {
        assay_heap_remove(&flow->runs, &run->in_flow);
        assay_heap_remove(&run->set->ready, &run->in_set);
        if (flow->runs.count == 0)
            assay_heap_remove(&flow->queue->turns, &flow->in_queue);
        return;
    }
    assay_heap_push(&flow->runs, &run->in_flow);
    assay_heap_push(&run->set->ready, &run->in_set);
    if (flow->in_queue.place == 0) {
        flow->served_us = ASSAY_MAX(flow->served_us, flow->queue->group->clock_us);
        flow->in_queue.key = flow->served_us;
        assay_heap_push(&flow->queue->turns, &flow->in_queue);
    }
}

void assay_turn_charge(struct flow *flow, int64_t us)
{
    double share = ldexp((double)us, -flow->priority);
    flow->served_us += (int64_t)ASSAY_MIN(ASSAY_MAX(share, -1e15), 1e15);
    flow->in_queue.key = flow->served_us;
    if (flow->in_queue.place)
        assay_heap_moved(&flow->queue->turns, &flow->in_queue);
}

bool assay_turn_fix(struct assay_scheduler *s, struct chunk_set *set, const char *numerics)
{
    struct queue *queue = assay_queue_get(s, set->queue->group->precision, numerics);
    if (!queue)
        return false;
    for (size_t i = 0; i < set->runs_slots; i++) {
        struct assay_run *run = set->runs[i];
        if (!run)
            continue;
        int64_t served_us = run->flow->served_us;
        struct flow *flow = flow_get(s, queue, run->flow->job, run->flow->priority);
        if (!flow) /* the runs that have moved are served from their new queue all the same */
            return false;
        assay_turn_leave(run);
        run->flow = flow;
        if (flow->in_queue.place == 0)
            flow->served_us = ASSAY_MAX(flow->served_us, served_us);
        assay_turn_refresh(run);
    }
    set->queue = queue;
    return true;
}

/* --- the choice --- */

static struct flow *first_flow(const struct queue *queue)
{
    struct assay_heap_node *node = queue ? assay_heap_first(&queue->turns) : NULL;
    return node ? ASSAY_HEAP_OWNER(node, struct flow, in_queue) : NULL;
}

/* The oldest run of the flow that has had least. */
static struct assay_run *first_run(const struct queue *fixed, const struct queue *open)
{
    struct flow *flow = first_flow(fixed), *other = first_flow(open);
    if (!flow || (other && other->served_us < flow->served_us))
        flow = other;
    return flow ? ASSAY_HEAP_OWNER(assay_heap_first(&flow->runs), struct assay_run, in_flow) : NULL;
}

/* The same for a worker that some models do not fit into: looks at every run that is ready, which are few. */
static struct assay_run *first_fitting(struct assay_scheduler *s, const struct client *client,
                                       const struct queue *fixed, const struct queue *open)
{
    const struct queue *const queues[] = {fixed, open};
    struct assay_run *best = NULL;
    for (size_t q = 0; q < ASSAY_COUNT(queues); q++)
        for (size_t f = 1; queues[q] && f <= queues[q]->turns.count; f++) {
            const struct flow *flow = ASSAY_HEAP_OWNER(queues[q]->turns.at[f], struct flow, in_queue);
            for (size_t i = 1; i <= flow->runs.count; i++) {
                struct assay_run *run = ASSAY_HEAP_OWNER(flow->runs.at[i], struct assay_run, in_flow);
                s->steps++;
                if (!assay_client_refusal(client, &run->set->variant) &&
                    (!best || flow->served_us < best->flow->served_us ||
                     (flow == best->flow && run->serial < best->serial)))
                    best = run;
            }
        }
    return best;
}

/* The oldest ready run of a variant that this worker may run. */
static struct assay_run *ready_run(const struct assay_scheduler *s, const struct assay_variant_id *variant,
                                   const struct queue *fixed, const struct queue *open)
{
    uint64_t bucket;
    memcpy(&bucket, variant->digest.bytes, sizeof bucket);
    struct assay_run *oldest = NULL;
    for (struct chunk_set *set = assay_idmap_get(&s->sets, bucket); set; set = set->next) {
        struct assay_heap_node *node = assay_heap_first(&set->ready);
        if (!node || (set->queue != fixed && set->queue != open) ||
            !assay_digest_equal(&set->variant.digest, &variant->digest))
            continue;
        struct assay_run *run = ASSAY_HEAP_OWNER(node, struct assay_run, in_set);
        oldest = !oldest || run->serial < oldest->serial ? run : oldest;
    }
    return oldest;
}

struct assay_run *assay_turn_choose(struct assay_scheduler *s, const struct assay_ask *ask)
{
    struct group *group = group_find(s, ask->precision);
    const struct queue *fixed = queue_in(group, ask->numerics_id), *open = queue_in(group, "");
    const struct client *client = assay_idmap_get(&s->clients, ask->service_id);
    bool refuses = client && client->refusals_count > 0;
    struct assay_run *first = refuses ? first_fitting(s, client, fixed, open) : first_run(fixed, open), *best = NULL;
    if (!first)
        return NULL;
    const struct flow *flow = first->flow;
    group->clock_us = ASSAY_MAX(group->clock_us, flow->served_us);
    for (size_t i = 0; i < ask->loaded_count; i++) {
        struct assay_run *loaded = ready_run(s, &ask->loaded[i], fixed, open);
        s->steps++;
        if (loaded && (loaded->flow == flow || loaded->flow->served_us <= flow->served_us + ASSAY_LOADED_SLACK_US) &&
            (!best || loaded->flow->served_us < best->flow->served_us))
            best = loaded;
    }
    return best ? best : first;
}

const struct assay_variant_id *assay_scheduler_next_variant(struct assay_scheduler *scheduler, const char *precision,
                                                            const char *numerics_id)
{
    const struct assay_ask ask = {.precision = precision, .numerics_id = numerics_id};
    const struct assay_run *run = assay_turn_choose(scheduler, &ask);
    return run ? &run->set->variant : NULL;
}

bool assay_scheduler_has_work(const struct assay_scheduler *scheduler, const char *precision, const char *numerics_id,
                              int64_t now_ms)
{
    const struct group *group = group_find(scheduler, precision);
    const struct queue *fixed = queue_in(group, numerics_id), *open = queue_in(group, "");
    if ((fixed && fixed->turns.count > 0) || (open && open->turns.count > 0))
        return true;
    const struct assay_heap_node *late = fixed ? assay_heap_first(&fixed->late) : NULL;
    return late && late->key <= now_ms;
}
