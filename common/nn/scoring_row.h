/* Rows of logits by their parts: what scoring does between the products. */
#pragma once

#include "common/kernels/score/score.h"
#include "common/nn/scoring.h"

/* A row of the reference. ln sum exp = max + log_sum, kept apart so that small ones keep their digits. */
struct assay_row_figures {
    double max, log_sum;
    uint32_t top; /* ASSAY_TOP_NONE_REF for a row with NaN or +inf, and for one of -inf only */
};

size_t assay_row_parts(size_t vocab);

/* The parts of a row as one. shares[i] receives part i's share of the probability; NaN for a broken row. */
struct assay_row_figures assay_row_join(const struct assay_score_part *parts, size_t count, double *shares);

/* A variant's row against it. label_ref and label_var are the logits of the label. gaps_room[count] is scratch. */
struct assay_position assay_row_compare(const struct assay_score_ops *ops, const struct assay_row_figures *ref,
                                        const struct assay_score_part *parts, const double *shares,
                                        const struct assay_score_gap *gaps, size_t count, float label_ref,
                                        float label_var, double *gaps_room);
