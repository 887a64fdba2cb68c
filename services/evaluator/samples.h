/* What scoring found out about one pair, token by token, as it is kept in the store. */
#pragma once

#include "common/nn/scoring.h"
#include "services/evaluator/records.h"

/* Raised when the meaning of a sample changes: old ones are then never found. */
#define ASSAY_SAMPLE_VERSION 2

/* Names everything that decides a sample: both records with their numerics, and the version of the metric. */
struct assay_record_key assay_sample_key_of(const struct assay_record_key *reference, const char *reference_numerics,
                                            const struct assay_record_key *variant, const char *variant_numerics);

/* Rows of assay_score as bytes (malloc; caller frees). RESOURCE_EXHAUSTED: out of memory. */
enum assay_status assay_sample_encode(const struct assay_position *positions, size_t rows, void **ret, size_t *ret_len,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* How many rows so many bytes are. False: they are no sample. */
bool assay_sample_rows(size_t len, size_t *ret);
/* Fills positions[rows]. False when the bytes are not a sample of that many rows: as good as absent. */
bool assay_sample_decode(const void *bytes, size_t len, struct assay_position *positions, size_t rows);
