#include "services/evaluator/join.h"

#include <stdlib.h>
#include <string.h>

#define NO_SET UINT32_MAX

enum chunk_state { CHUNK_WAITING, CHUNK_READY, CHUNK_TAKEN, CHUNK_SCORED };

/* The records of one source under one numerics id. */
struct set {
    uint32_t numerics;
    uint8_t *has; /* by chunk */
    size_t count;
};

struct source {
    struct set sets[ASSAY_JOIN_SETS_MAX];
    uint32_t sets_count;
    uint32_t chosen;  /* NO_SET at first */
    uint32_t arrived; /* the set of the last arrival */
    uint8_t *covered; /* by chunk: some set has it, and it was not asked for again since */
    size_t covered_count;
    unsigned rounds;
    bool wanted; /* the chosen set is the caller's choice */
};

struct assay_join {
    size_t chunks, sources_count;
    struct source *sources;
    uint8_t *states;
    uint32_t *present; /* by chunk: sources whose chosen set has it */
    uint32_t *ready;   /* a ring; a chunk is in it once, while READY */
    size_t ready_first, ready_count;
    size_t scored;
    bool started;
    struct assay_join_lost *lost;
    size_t lost_count, lost_capacity;
};

enum assay_status assay_join_new(size_t chunks, size_t sources, struct assay_join **ret, struct assay_err *err)
{
    struct assay_join *join = calloc(1, sizeof *join);
    if (join) {
        join->chunks = chunks;
        join->sources_count = sources;
        join->sources = calloc(sources, sizeof *join->sources);
        join->states = calloc(chunks, 1);
        join->present = calloc(chunks, sizeof *join->present);
        join->ready = calloc(chunks, sizeof *join->ready);
    }
    bool made = join && join->sources && join->states && join->present && join->ready;
    for (size_t i = 0; made && i < sources; i++) {
        join->sources[i].chosen = join->sources[i].arrived = NO_SET;
        join->sources[i].covered = calloc(chunks, 1);
        made = join->sources[i].covered != NULL;
    }
    if (!made) {
        assay_join_free(join);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job of %zu chunks", chunks);
    }
    *ret = join;
    return ASSAY_OK;
}

void assay_join_free(struct assay_join *join)
{
    if (!join)
        return;
    for (size_t i = 0; join->sources && i < join->sources_count; i++) {
        for (uint32_t s = 0; s < join->sources[i].sets_count; s++)
            free(join->sources[i].sets[s].has);
        free(join->sources[i].covered);
    }
    free(join->sources);
    free(join->states);
    free(join->present);
    free(join->ready);
    free(join->lost);
    free(join);
}

/* --- chunks --- */

static void make_ready(struct assay_join *join, size_t chunk)
{
    join->states[chunk] = CHUNK_READY;
    join->ready[(join->ready_first + join->ready_count++) % join->chunks] = (uint32_t)chunk;
}

static void gain(struct assay_join *join, size_t chunk)
{
    join->present[chunk]++;
    if (join->present[chunk] == join->sources_count && join->states[chunk] == CHUNK_WAITING)
        make_ready(join, chunk);
}

static bool ask_again(struct assay_join *join, size_t chunk, size_t source)
{
    if (join->lost_count == join->lost_capacity) {
        size_t capacity = join->lost_capacity ? join->lost_capacity * 2 : 16;
        struct assay_join_lost *lost = realloc(join->lost, capacity * sizeof *lost);
        if (!lost)
            return false;
        join->lost = lost;
        join->lost_capacity = capacity;
    }
    join->lost[join->lost_count++] = (struct assay_join_lost){(uint32_t)chunk, (uint32_t)source};
    return true;
}

/* --- sets --- */

static enum assay_status find_set(struct assay_join *join, struct source *source, uint32_t numerics, uint32_t *ret,
                                  struct assay_err *err)
{
    for (uint32_t s = 0; s < source->sets_count; s++) {
        if (source->sets[s].numerics == numerics) {
            *ret = s;
            return ASSAY_OK;
        }
    }
    if (source->sets_count == ASSAY_JOIN_SETS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a variant has records of more than %d numerics ids",
                             ASSAY_JOIN_SETS_MAX);
    uint8_t *has = calloc(join->chunks, 1);
    if (!has)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job of %zu chunks", join->chunks);
    source->sets[source->sets_count] = (struct set){numerics, has, 0};
    *ret = source->sets_count++;
    return ASSAY_OK;
}

enum assay_status assay_join_arrived(struct assay_join *join, size_t chunk, size_t source_index, uint32_t numerics,
                                     struct assay_err *err)
{
    struct source *source = &join->sources[source_index];
    uint32_t at = 0;
    enum assay_status status = find_set(join, source, numerics, &at, err);
    if (status != ASSAY_OK)
        return status;
    struct set *set = &source->sets[at];
    if (!source->covered[chunk]) {
        source->covered[chunk] = 1;
        source->covered_count++;
    }
    source->arrived = at;
    if (set->has[chunk])
        return ASSAY_OK;
    set->has[chunk] = 1;
    set->count++;
    if (join->started && source->chosen == NO_SET)
        source->chosen = at;
    if (source->chosen == at)
        gain(join, chunk);
    return ASSAY_OK;
}

enum assay_status assay_join_want(struct assay_join *join, size_t source_index, uint32_t numerics,
                                  struct assay_err *err)
{
    struct source *source = &join->sources[source_index];
    enum assay_status status = find_set(join, source, numerics, &source->chosen, err);
    source->wanted = status == ASSAY_OK;
    return status;
}

/* Counts anew who is present where, and puts chunks back to where that says. */
static void recount(struct assay_join *join)
{
    memset(join->present, 0, join->chunks * sizeof *join->present);
    join->ready_first = join->ready_count = 0;
    join->scored = 0;
    for (size_t chunk = 0; chunk < join->chunks; chunk++) {
        join->states[chunk] = CHUNK_WAITING;
        for (size_t i = 0; i < join->sources_count; i++) {
            const struct source *source = &join->sources[i];
            if (source->chosen != NO_SET && source->sets[source->chosen].has[chunk])
                gain(join, chunk);
        }
    }
}

void assay_join_start(struct assay_join *join)
{
    for (size_t i = 0; i < join->sources_count; i++) {
        struct source *source = &join->sources[i];
        for (uint32_t s = 0; s < source->sets_count; s++)
            if (source->chosen == NO_SET ||
                (!source->wanted && source->sets[s].count > source->sets[source->chosen].count))
                source->chosen = s;
        source->arrived = NO_SET;
    }
    join->started = true;
    recount(join);
}

void assay_join_lost(struct assay_join *join, size_t chunk, size_t source_index)
{
    struct source *source = &join->sources[source_index];
    if (source->chosen == NO_SET || !source->sets[source->chosen].has[chunk])
        return;
    source->sets[source->chosen].has[chunk] = 0;
    source->sets[source->chosen].count--;
    source->covered[chunk] = 0;
    source->covered_count--;
    join->present[chunk]--;
    if (!ask_again(join, chunk, source_index))
        ASSAY_BUG("out of memory for a list of lost records");
    if (join->states[chunk] == CHUNK_SCORED) {
        join->scored--;
        join->states[chunk] = CHUNK_WAITING;
    }
}

/* --- scoring --- */

size_t assay_join_next(struct assay_join *join, uint32_t *ret, size_t max)
{
    size_t count = 0;
    while (count < max && join->ready_count > 0) {
        uint32_t chunk = join->ready[join->ready_first];
        join->ready_first = (join->ready_first + 1) % join->chunks;
        join->ready_count--;
        if (join->present[chunk] < join->sources_count) { /* lost while it was in the ring */
            join->states[chunk] = CHUNK_WAITING;
            continue;
        }
        join->states[chunk] = CHUNK_TAKEN;
        ret[count++] = chunk;
    }
    return count;
}

void assay_join_scored(struct assay_join *join, size_t chunk)
{
    if (join->states[chunk] != CHUNK_TAKEN)
        ASSAY_BUG("a chunk was scored that nobody took");
    join->states[chunk] = CHUNK_SCORED;
    join->scored++;
}

void assay_join_returned(struct assay_join *join, size_t chunk)
{
    if (join->states[chunk] != CHUNK_TAKEN)
        ASSAY_BUG("a chunk was returned that nobody took");
    if (join->present[chunk] == join->sources_count)
        make_ready(join, chunk);
    else
        join->states[chunk] = CHUNK_WAITING;
}

size_t assay_join_scored_count(const struct assay_join *join)
{
    return join->scored;
}

bool assay_join_done(const struct assay_join *join)
{
    return join->scored == join->chunks;
}

/* --- choosing anew --- */

static uint32_t whole_set(const struct assay_join *join, const struct source *source)
{
    for (uint32_t s = 0; s < source->sets_count; s++)
        if (source->sets[s].count == join->chunks)
            return s;
    return NO_SET;
}

static enum assay_status run_rest_again(struct assay_join *join, size_t source_index, struct assay_err *err)
{
    struct source *source = &join->sources[source_index];
    if (++source->rounds > ASSAY_JOIN_ROUNDS_MAX)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                             "workers with %u different numerics ids took turns over one variant: no set of records is "
                             "complete after %d rounds",
                             source->sets_count, ASSAY_JOIN_ROUNDS_MAX);
    for (size_t chunk = 0; chunk < join->chunks; chunk++) {
        if (source->sets[source->chosen].has[chunk])
            continue;
        source->covered[chunk] = 0;
        source->covered_count--;
        if (!ask_again(join, chunk, source_index))
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of lost records");
    }
    return ASSAY_OK;
}

enum assay_status assay_join_settle(struct assay_join *join, bool *changed, struct assay_err *err)
{
    bool any = false;
    for (size_t i = 0; i < join->sources_count; i++) {
        struct source *source = &join->sources[i];
        if (source->covered_count < join->chunks || source->chosen == NO_SET ||
            source->sets[source->chosen].count == join->chunks)
            continue;
        uint32_t before = source->chosen, whole = source->wanted ? NO_SET : whole_set(join, source);
        source->chosen = source->wanted              ? before
                         : whole != NO_SET           ? whole
                         : source->arrived != NO_SET ? source->arrived
                                                     : before;
        any = any || source->chosen != before;
        enum assay_status status = whole == NO_SET ? run_rest_again(join, i, err) : ASSAY_OK;
        if (status != ASSAY_OK)
            return status;
    }
    if (any)
        recount(join);
    *changed = any;
    return ASSAY_OK;
}

size_t assay_join_lost_count(const struct assay_join *join)
{
    return join->lost_count;
}

size_t assay_join_take_lost(struct assay_join *join, struct assay_join_lost *ret, size_t max)
{
    size_t count = ASSAY_MIN(max, join->lost_count);
    if (count > 0)
        memcpy(ret, join->lost + join->lost_count - count, count * sizeof *ret);
    join->lost_count -= count;
    return count;
}

size_t assay_join_missing(const struct assay_join *join, struct assay_join_lost *ret, size_t max)
{
    size_t count = 0;
    for (size_t chunk = 0; chunk < join->chunks; chunk++) {
        for (size_t i = 0; i < join->sources_count && join->states[chunk] == CHUNK_WAITING; i++) {
            const struct source *source = &join->sources[i];
            if (source->chosen != NO_SET && source->sets[source->chosen].has[chunk])
                continue;
            if (count == max)
                return count;
            ret[count++] = (struct assay_join_lost){(uint32_t)chunk, (uint32_t)i};
        }
    }
    return count;
}

uint32_t assay_join_numerics(const struct assay_join *join, size_t source)
{
    const struct source *at = &join->sources[source];
    return at->chosen == NO_SET ? 0 : at->sets[at->chosen].numerics;
}
