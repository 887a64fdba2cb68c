/* Texts to embeddings, and texts to the probabilities of a classifier, as sentence-transformers and the pipelines of
 * transformers compute them. */
#pragma once

#include "common/nn/encoder.h"
#include "common/nn/model.h"
#include "common/tokenizer/batch.h"

struct assay_sentences;

/* A directory with an encoder or a decoder and its tokenizer. modules.json and what it names say how tokens become one
 * embedding (of all of them, or of the first or last; normalized or not) and after how many tokens a text is cut; where
 * it is missing: mean, of length 1, cut at the model's positions, but FAILED_PRECONDITION for a decoder. UNIMPLEMENTED
 * names a module or kind of pooling that we do not have. */
enum assay_status assay_sentences_open(const char *dir, struct assay_pool *pool, struct assay_sentences **ret,
                                       struct assay_err *err) ASSAY_MUST_USE;
/* The same over the encoder or the decoder of `dir` that somebody else has loaded, the other one NULL, on this pool; it
 * outlives the sentences. */
enum assay_status assay_sentences_over(const char *dir, const struct assay_encoder *encoder,
                                       const struct assay_model *decoder, struct assay_pool *pool,
                                       struct assay_sentences **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Whether `dir` has a decoder; NOT_FOUND or INVALID_ARGUMENT where it has no config.json that can be read. */
enum assay_status assay_sentences_has_decoder(const char *dir, bool *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_sentences_close(struct assay_sentences *sentences); /* NULL is fine */

size_t assay_sentences_hidden(const struct assay_sentences *sentences);
/* 0 without a classifier. */
size_t assay_sentences_labels(const struct assay_sentences *sentences);
/* The name in id2label, "LABEL_3" where there is none. Valid as long as the sentences are. */
const char *assay_sentences_label(const struct assay_sentences *sentences, size_t index);

/* embeddings[count, hidden]. A text's embedding does not depend on the others. */
enum assay_status assay_sentences_embed(const struct assay_sentences *sentences, const struct assay_text *texts,
                                        size_t count, float *embeddings, struct assay_err *err) ASSAY_MUST_USE;
/* Of texts, or of pairs of texts (texts[i], pairs[i]; `pairs` may be NULL) as the tokenizer joins them.
 * probabilities[count, labels]: the sigmoid of each score for one label or where config.json says
 * multi_label_classification, else the softmax of all. FAILED_PRECONDITION without a classifier. */
enum assay_status assay_sentences_classify(const struct assay_sentences *sentences, const struct assay_text *texts,
                                           const struct assay_text *pairs, size_t count, float *probabilities,
                                           struct assay_err *err) ASSAY_MUST_USE;
