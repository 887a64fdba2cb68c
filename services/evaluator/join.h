/* Which chunks of a job have all their records, and which are next to be scored. Pure; not thread-safe.
 *
 * A source is a variant (the reference is one too). For each source one numerics id is chosen, and a chunk is complete
 * when it has a record of each source under the chosen id. Chosen is the most complete set when the job starts, else
 * the first id that arrives. It changes in two cases, since otherwise the job would wait for ever: another set holds
 * all chunks; or every chunk has some record, yet no set holds them all: then the id that arrived last, the one that
 * workers run now, is chosen, and the chunks it lacks are to be run again.
 *
 *   WAITING --all sources there--> READY --next--> TAKEN --scored--> SCORED
 *      ^------------- lost, or another numerics chosen ----------------'
 */
#pragma once

#include "common/base/status.h"

struct assay_join;

/* Rounds of running chunks again because of mixed numerics ids, for one source. */
#define ASSAY_JOIN_ROUNDS_MAX 8
#define ASSAY_JOIN_SETS_MAX 16

/* A record that has to be made again. */
struct assay_join_lost {
    uint32_t chunk, source;
};

/* chunks >= 1, sources >= 1. */
enum assay_status assay_join_new(size_t chunks, size_t sources, struct assay_join **ret,
                                 struct assay_err *err) ASSAY_MUST_USE;
void assay_join_free(struct assay_join *join); /* NULL is fine */

/* A record is there; twice is fine. numerics > 0. RESOURCE_EXHAUSTED: more than ASSAY_JOIN_SETS_MAX ids for a source,
 * or memory. */
enum assay_status assay_join_arrived(struct assay_join *join, size_t chunk, size_t source, uint32_t numerics,
                                     struct assay_err *err) ASSAY_MUST_USE;
/* Before the start: the set of this numerics id is chosen for the source, whatever arrives, and stays so. */
enum assay_status assay_join_want(struct assay_join *join, size_t source, uint32_t numerics,
                                  struct assay_err *err) ASSAY_MUST_USE;
/* What was in the store has arrived: chooses, and from now on the first id wins. */
void assay_join_start(struct assay_join *join);

/* The record is not there after all: it is to be made again. The chunk goes back to WAITING. */
void assay_join_lost(struct assay_join *join, size_t chunk, size_t source);

/* Up to max chunks that are READY; they are TAKEN then. */
size_t assay_join_next(struct assay_join *join, uint32_t *ret, size_t max);
void assay_join_scored(struct assay_join *join, size_t chunk);   /* TAKEN -> SCORED */
void assay_join_returned(struct assay_join *join, size_t chunk); /* TAKEN -> READY, or WAITING when a record was lost */
size_t assay_join_scored_count(const struct assay_join *join);
bool assay_join_done(const struct assay_join *join); /* all chunks are SCORED */

/* Looks for a source that waits in vain (see above) and chooses anew. Reports what is to be run again. With `changed`
 * true, chunks that were SCORED are READY or WAITING again. FAILED_PRECONDITION: too many rounds. */
enum assay_status assay_join_settle(struct assay_join *join, bool *changed, struct assay_err *err) ASSAY_MUST_USE;

size_t assay_join_lost_count(const struct assay_join *join); /* not taken yet */
/* Takes up to max records that are to be made again, each once. */
size_t assay_join_take_lost(struct assay_join *join, struct assay_join_lost *ret, size_t max);

/* Up to max records that chunks in WAITING lack; nothing changes. */
size_t assay_join_missing(const struct assay_join *join, struct assay_join_lost *ret, size_t max);

/* The chosen numerics of a source; 0 when none is yet. */
uint32_t assay_join_numerics(const struct assay_join *join, size_t source);
