/* One quantized tensor each: `describe` checks what belongs to it and fills in name, shape, dtype and layout, `read`
 * decodes what `describe` has accepted. Private to the layer. */
#pragma once

#include "common/artifact/stored.h"

#define NF4_STATE ".quant_state.bitsandbytes__nf4"

enum assay_status assay_int8_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                      struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_int8_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                  struct assay_arena *arena, float *values, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_int4_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                      struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_int4_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                  struct assay_arena *arena, float *values, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_nf4_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                     struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_nf4_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                 struct assay_arena *arena, float *values, struct assay_err *err) ASSAY_MUST_USE;

/* UNIMPLEMENTED or INVALID_ARGUMENT, with `what`, where quantization_config says that the codes mean something else
 * than we read in them. */
enum assay_status assay_stored_check_config(const cJSON *quantization, const char *what, bool is_compressed,
                                            struct assay_err *err) ASSAY_MUST_USE;
/* compressed-tensors' "strategy" of these weights is "group". */
bool assay_stored_by_group(const cJSON *weights);

/* NAME + suffix, or NULL. */
const struct assay_tensor *assay_stored_part(const struct assay_checkpoint *checkpoint,
                                             const struct assay_stored *stored, const char *suffix);
/* A copy, aligned, as f32 (copy_f32) or byte by byte. NULL when out of memory. */
float *assay_stored_copy_f32(struct assay_arena *arena, const struct assay_tensor *tensor);
void *assay_stored_copy(struct assay_arena *arena, const struct assay_tensor *tensor);
/* rows * cols elements are a matrix that we would read. */
bool assay_stored_is_sane(uint64_t rows, uint64_t cols);
