/* The inside of an encoder, for the files of this folder. */
#pragma once

#include "common/nn/encoder.h"
#include "common/nn/model_impl.h"

/* Of distances, in models that have some; a table may have more, which are not used. */
#define ASSAY_ENCODER_BUCKETS 32

enum assay_encoder_linear {
    ASSAY_ENCODER_Q,
    ASSAY_ENCODER_K,
    ASSAY_ENCODER_V,
    ASSAY_ENCODER_O,
    ASSAY_ENCODER_UP,
    ASSAY_ENCODER_DOWN,
    ASSAY_ENCODER_LINEARS
};

/* What differs between encoders, as data: one row each. Names of tensors are base + name + ".weight" or ".bias"; those
 * of a layer base + layers + number + "." + name. */
struct assay_encoder_family {
    const char *stem; /* "Roberta": of RobertaModel, RobertaForMaskedLM and RobertaForSequenceClassification */
    const char *base; /* "roberta.", or nothing where a model was saved alone */
    const char *layers;
    const char *linears[ASSAY_ENCODER_LINEARS];
    const char *attention_norm, *output_norm;
    const char *pooler;   /* NULL: the model has none */
    const char *relative; /* [buckets, heads]: what is added to scores by the distance of their tokens; NULL: nothing */
    /* Of a classifier, without the base; no `dense`: the pooler. */
    struct {
        const char *dense, *out;
        bool relu; /* else tanh, which poolers have */
    } head;
    /* Members of config.json; NULL: it has none. */
    struct {
        const char *hidden, *layers, *heads, *intermediate, *activation, *types, *norm_eps, *buckets;
    } keys;
    /* Positions begin at 0; or behind pad_token_id, and tokens of that id do not count; or likewise with an id of 1. */
    enum { ASSAY_ENCODER_FROM_0, ASSAY_ENCODER_FROM_PAD, ASSAY_ENCODER_FROM_PAD_1 } positions;
};

/* NULL for an architecture that has no row; else *ret_classifies. */
const struct assay_encoder_family *assay_encoder_family_find(const char *architecture, bool *ret_classifies);
/* "BertModel, ...": for errors. Static. */
const char *assay_encoder_family_names(void);

struct assay_encoder_layer {
    struct assay_linear_weights linears[ASSAY_ENCODER_LINEARS];
    struct assay_norm_weights attention_norm, output_norm;
};

struct assay_encoder {
    struct assay_encoder_config config;
    const struct assay_kernels *kernels;
    void (*activation)(size_t n, float *x);
    float *words, *positions, *types; /* [vocab, hidden], [pad + 1 + positions, hidden], [types, hidden] or NULL */
    float *relative;                  /* as in struct assay_attention_shape, or NULL */
    struct assay_norm_weights embedding_norm;
    struct assay_encoder_layer *layers;
    struct assay_linear_weights pooler, classifier; /* empty where the checkpoint has none */
    size_t bytes;
};
