/* Models that answer calls, each on a thread of its own: a lane. A lane loads its model when the first call for it
 * comes, and lets go of it when it was idle for a while or another model wants its place. Products of all lanes and of
 * the leases go through one pool, in turn. */
#pragma once

#include <stdatomic.h>

#include "common/base/fs.h"
#include "common/corpus/chat.h"
#include "common/nn/responder.h"
#include "common/nn/sentences.h"
#include "common/wire/loop.h"
#include "services/inference/models.h"

#define ASSAY_LANES_MAX 16

enum assay_lane_kind { ASSAY_LANE_RESPONSES, ASSAY_LANE_TEXTS };

/* Which model, and where it is. */
struct assay_lane_source {
    enum assay_lane_kind kind;
    char key[ASSAY_PATH_MAX]; /* equal for the same files: the real path, or the variant that is to be fetched */
    char dir[ASSAY_PATH_MAX];
    char endpoint[ASSAY_PATH_MAX]; /* who has it in pieces; "": nobody */
    bool has_variant;
    struct assay_variant_id variant;
};

/* A loaded model, on its lane's thread. */
struct assay_lane_model {
    struct assay_resident *decoder, *head, *encoder; /* what is held of it; NULL: nothing */
    struct assay_responder *responder;               /* of ASSAY_LANE_RESPONSES */
    struct assay_sentences *sentences;               /* of ASSAY_LANE_TEXTS */
    char dir[ASSAY_PATH_MAX];
    struct assay_chat *chat; /* NULL until somebody wants it */
    bool has_variant;        /* it is an artifact, of this variant */
    struct assay_variant_id variant;
};

/* Something to do with a model. One of the two is called, once. */
struct assay_lane_work {
    struct assay_lane_work *next;
    void (*run)(struct assay_lane_work *work, struct assay_lane_model *model); /* on the lane's thread */
    void (*fail)(struct assay_lane_work *work, const struct assay_err *err);   /* likewise */
    bool has_variant;                                                          /* fails if the model is another one */
    struct assay_variant_id variant;
};

struct assay_lanes_options {
    struct assay_loop *loop;
    struct assay_pool *pool;
    struct assay_models *models; /* in memory, those of leases too */
    const char *cache_dir;       /* where artifacts go that are not visible here */
    const char *precision;       /* artifacts of another scheme are refused */
    size_t models_max;           /* at once, at most ASSAY_LANES_MAX */
    size_t sequences_max;        /* of one model's batch */
    uint64_t cache_bytes_max;    /* of keys and values of one model's batch; 0: no limit */
    int64_t idle_ms;
};

struct assay_lanes;

/* Strings, loop, pool and models outlive the lanes. NULL when out of memory. */
struct assay_lanes *assay_lanes_new(const struct assay_lanes_options *options);
/* Hands work to the lane of a model. RESOURCE_EXHAUSTED: all places are taken by models at work, or no memory or
 * thread; the work is the caller's then. One thread. */
enum assay_status assay_lanes_post(struct assay_lanes *lanes, const struct assay_lane_source *source,
                                   struct assay_lane_work *work, struct assay_err *err) ASSAY_MUST_USE;
/* Any thread: work is to be broken off. */
bool assay_lanes_stopping(const struct assay_lanes *lanes);
/* Fails what waits, lets the lanes break off what they do, joins them. */
void assay_lanes_stop(struct assay_lanes *lanes);
void assay_lanes_free(struct assay_lanes *lanes); /* stops first; NULL is fine */
/* Models that are loaded, or being loaded. Any thread. */
size_t assay_lanes_models(struct assay_lanes *lanes);

/* Lane's thread: the model's chat templates, read once. */
enum assay_status assay_lane_chat(struct assay_lane_model *model, const struct assay_chat **ret,
                                  struct assay_err *err) ASSAY_MUST_USE;
