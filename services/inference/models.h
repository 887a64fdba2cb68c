/* Models in memory: several at a time within a budget of bytes. Who uses one holds a reference; one that nobody holds
 * stays until its room is wanted, and the one used longest ago goes first. Any thread.
 *
 *   absent --acquire--> loading --> held <--acquire, release--> idle --its room is wanted--> absent
 *
 * What a model takes is known before it is loaded, from the shapes in its files, as packed: so two never stand in
 * memory where there is room for one. Callers who want what somebody loads already wait for it. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/nn/encoder.h"
#include "common/nn/model.h"

/* What of an artifact or a checkpoint is wanted. */
enum assay_model_part { ASSAY_MODEL_DECODER, ASSAY_MODEL_HEAD, ASSAY_MODEL_ENCODER };
#define ASSAY_MODEL_PARTS 3

struct assay_models_options {
    struct assay_pool *pool; /* outlives the table */
    uint64_t bytes_max;      /* of all parts together */
    /* The budget is only for what nobody holds: what is wanted is loaded although it, or what others hold, takes more.
     */
    bool is_soft;
};

struct assay_models;
struct assay_resident; /* one part in memory */

struct assay_models *assay_models_new(const struct assay_models_options *options); /* NULL when out of memory */
void assay_models_free(struct assay_models *models);                               /* all is released; NULL is fine */

struct assay_model_want {
    enum assay_model_part part;
    struct assay_digest id; /* of the contents: a variant id, or of assay_models_identify; includes how it computes */
    const char *dir;        /* an artifact or a checkpoint */
    /* May be NULL, else called when the part has to be loaded: where it stands here instead of at `dir`. */
    enum assay_status (*find)(void *arg, char dir[ASSAY_PATH_MAX], struct assay_err *err);
    int64_t wait_ms;              /* for room that others hold, and for somebody who loads it; 0: not at all */
    bool (*cancelled)(void *arg); /* may be NULL; looked at while waiting */
    void *arg;
};

/* A reference; *ret_was_there (may be NULL) says that nothing had to be loaded. RESOURCE_EXHAUSTED: the part alone
 * takes more than the budget; UNAVAILABLE: others hold the room, or the wait was cancelled. Else the errors of `find`,
 * assay_checkpoint_open, loading and assay_model_check_rows, and nothing is left of it. Loading runs on the caller's
 * thread and the pool. */
enum assay_status assay_models_acquire(struct assay_models *models, const struct assay_model_want *want,
                                       struct assay_resident **ret, bool *ret_was_there,
                                       struct assay_err *err) ASSAY_MUST_USE;
void assay_models_release(struct assay_models *models, struct assay_resident *resident); /* NULL is fine */

/* What it is, as long as it is held; the part must be the one that was wanted. */
const struct assay_model *assay_resident_decoder(const struct assay_resident *resident);
const struct assay_head *assay_resident_head(const struct assay_resident *resident);
const struct assay_encoder *assay_resident_encoder(const struct assay_resident *resident);

/* The id of what stands in a directory: the variant's where it is an artifact of ours, else one of names, sizes and
 * times of the files, so that a checkpoint which changes is loaded anew. */
enum assay_status assay_models_identify(const char *dir, struct assay_digest *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* Ids of decoders and encoders that are loaded, at most `max`, the one used last first. The number. */
size_t assay_models_list(struct assay_models *models, struct assay_digest *ids, size_t max);

/* Counts since the start, and what is there now. */
struct assay_models_stats {
    uint64_t loads, unloads; /* of any part; unloads: those that made room */
    size_t resident;         /* decoders and encoders */
    uint64_t bytes, bytes_max;
};
struct assay_models_stats assay_models_stats(struct assay_models *models);

/* One forward pass at a time a pool: between these two it is the caller's. Callers get it in the order of asking. */
void assay_models_begin_pass(struct assay_models *models);
void assay_models_end_pass(struct assay_models *models);
