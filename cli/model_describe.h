/* What a checkpoint is, without reading its weights but the head. */
#pragma once

#include <cjson/cJSON.h>

#include "common/formats/architecture.h"
#include "common/nn/encoder.h"
#include "common/nn/model.h"

#define MODEL_TEXT_BYTES 640
#define MODEL_PRECISIONS_MAX 32
#define MODEL_CHUNK_TOKENS 512

/* Weights of a worker under one scheme, or why the scheme cannot hold them. */
struct model_precision {
    const char *name;
    enum assay_status status;
    uint64_t worker_bytes;
    char reason[MODEL_TEXT_BYTES];
};

struct model_description {
    char dir[ASSAY_PATH_MAX];
    char architecture[128];
    bool runs;
    char reason[MODEL_TEXT_BYTES]; /* why not */
    bool has_config, has_head;     /* what follows of them is set */
    struct assay_model_config config;
    bool is_encoder;                     /* which embed and classify run, and eval does not; `config` is not set */
    struct assay_encoder_config encoder; /* where it runs */
    size_t encoder_bytes;                /* of a worker */
    struct assay_head_figures head;
    bool head_bias;
    struct assay_digest head_digest;
    size_t chunk_tokens;
    uint64_t parameters, stored_bytes, head_bytes, chunk_bytes;
    char dtypes[MODEL_TEXT_BYTES];    /* "BF16 1234 tensors, F32 2" */
    const char *quantization;         /* quant_method, or NULL */
    char tokenizer[MODEL_TEXT_BYTES]; /* "tokenizer.json (BPE), 32000 tokens, chat template" */
    struct model_precision precisions[MODEL_PRECISIONS_MAX];
    size_t precisions_count;
    struct assay_checkpoint *checkpoint; /* `quantization` points into it */
};

/* As assay_checkpoint_open where DIR is no checkpoint. One that does not run is described as far as it goes. */
enum assay_status model_describe(const char *dir, struct model_description **ret, struct assay_err *err) ASSAY_MUST_USE;
void model_description_free(struct model_description *description); /* NULL is fine */

/* The caller's to delete; NULL when out of memory. */
cJSON *model_description_json(const struct model_description *description);

/* Into text, which is returned. */
const char *model_describe_windows(const struct assay_model_config *config, char text[MODEL_TEXT_BYTES]);
const char *model_describe_positions(const struct assay_model_config *config, char text[MODEL_TEXT_BYTES]);
