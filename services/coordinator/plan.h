/* What a job will do: its variants with their ids, and its chunks. Reads files, no sockets. */
#pragma once

#include "common/base/fs.h"
#include "common/corpus/chunks.h"
#include "common/nn/model.h"
#include "common/quant/scheme.h"
#include "common/store/store.h"
#include "proto/control.pb-c.h"

struct assay_plan_variant {
    struct assay_spec spec;
    char label[ASSAY_SPEC_TEXT_MAX];
    struct assay_variant_id id;
    char artifact_dir[ASSAY_PATH_MAX];
    size_t same_as; /* the first variant of the plan with this id; its own index when it is the first */
};

struct assay_plan {
    struct assay_model_id model_id;
    struct assay_model_config model;
    uint64_t parameters;
    struct assay_digest tokenizer_digest;
    struct assay_digest corpus_digest;
    const struct assay_protocol *protocol;
    struct assay_chunks chunks;       /* as the corpus has them; a key may stand twice */
    struct assay_chunk_key *run_keys; /* each key once, in order of first appearance */
    size_t *run_chunks;               /* run_chunks[i] = index into chunks of run_keys[i] */
    size_t run_count;
    struct assay_plan_variant *variants; /* [0] is the reference */
    size_t variants_count;
    uint64_t scored_positions;
    Assay__V1__Dtype record_dtype; /* of hidden states in records: F32 or F16 */
};

/* `store` keeps file digests under (device, inode, size, times) in table "digests", so that an unchanged checkpoint is
 * not read again. Errors are the user's: model, tokenizer, corpus, spec or protocol, each with its sentence. */
enum assay_status assay_plan_make(const Assay__V1__SubmitJobRequest *request, const char *corpus, size_t corpus_bytes,
                                  const char *data_dir, struct assay_store *store, struct assay_plan *ret,
                                  struct assay_err *err) ASSAY_MUST_USE;
void assay_plan_release(struct assay_plan *plan);

/* Checks what can be checked without reading the model: protocol, specs, sizes. INVALID_ARGUMENT / UNIMPLEMENTED. */
enum assay_status assay_plan_check(const Assay__V1__SubmitJobRequest *request, struct assay_err *err) ASSAY_MUST_USE;
