/* Ways to make an artifact. One file and one row in methods.inc each.
 *
 * A method that rewrites weights one by one fills in the `layout` functions, and rewrite.c reads the tensors, calls
 * them by blocks of rows on all threads, measures the errors and writes model.safetensors. A method that works
 * otherwise sets `make`. */
#pragma once

#include "common/formats/checkpoint.h"
#include "common/quant/scheme.h"
#include "services/quantizer/job.h"

/* Tensors that stand for one quantized weight. */
#define ASSAY_PARTS_MAX 4

struct assay_part {
    const char *suffix; /* behind the module's name: ".weight_scale" */
    enum assay_dtype dtype;
    size_t rank;
    uint64_t shape[2];
    bool is_code; /* counted as codes, else as scales */
};

/* Rows [begin, end) of a weight. begin is a multiple of ASSAY_REWRITE_ROWS; parts[i] is the whole tensor of part i. */
#define ASSAY_REWRITE_ROWS 64
struct assay_rows {
    size_t begin, end, cols;
    void *const *parts;
};

/* A work in progress: an artifact's files are made in `dir`. */
struct assay_making {
    const struct assay_quantize_job *job;
    const struct assay_checkpoint *source;
    const char **source_files; /* config.json first, then the weight files */
    size_t source_files_count;
    const char *dir;
    struct assay_manifest *manifest; /* bytes, errors and files are added; the arena is for all that lives as long */
};

struct assay_method {
    enum assay_scheme scheme;

    /* Makes all files but the manifest. NULL: rewrite.c does, with the functions below. */
    enum assay_status (*make)(struct assay_making *making, struct assay_err *err);

    /* The tensors that stand for a weight [rows, cols], and their number. INVALID_ARGUMENT when the layout cannot hold
     * it. */
    enum assay_status (*plan)(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err);
    /* weights[(end - begin), cols] are finite. Any thread. */
    enum assay_status (*encode)(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err);
    /* The values that the codes stand for, in weights[(end - begin), cols]. Any thread. */
    void (*decode)(const struct assay_spec *spec, const struct assay_rows *rows, float *weights);
    /* quantization_config of config.json; NULL when out of memory. */
    cJSON *(*config)(const struct assay_spec *spec);
};

#define ASSAY_METHOD(name) extern const struct assay_method assay_method_##name;
#include "services/quantizer/methods.inc"
#undef ASSAY_METHOD

/* NULL when there is no method for the scheme. */
const struct assay_method *assay_method_find(enum assay_scheme scheme);

/* The general way of a method with layout functions. */
enum assay_status assay_rewrite(struct assay_making *making, const struct assay_method *method,
                                struct assay_err *err) ASSAY_MUST_USE;

/* True for the weights that schemes apply to: 2-D tensors NAME.weight of linear layers, which embeddings, norms and the
 * head are not. */
bool assay_is_linear_weight(const struct assay_tensor *tensor);

/* --- for all methods --- */

/* Looks the checkpoint's files up and checks that their contents are the job's model_id: FAILED_PRECONDITION otherwise.
 */
enum assay_status assay_making_verify(struct assay_making *making, struct assay_err *err) ASSAY_MUST_USE;
/* Fills in what the manifest says of the source: head, parameters, bytes. */
enum assay_status assay_making_describe(struct assay_making *making, struct assay_err *err) ASSAY_MUST_USE;
/* Adds DIR/name, which is there, to the files of the manifest. */
enum assay_status assay_making_add_file(struct assay_making *making, const char *name, bool linked,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* DIR/name becomes a link to the checkpoint's file. */
enum assay_status assay_making_link(struct assay_making *making, const char *name,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* Copies (linked: links to) the tokenizer's and generation's files that the checkpoint has. */
enum assay_status assay_making_add_companions(struct assay_making *making, bool linked,
                                              struct assay_err *err) ASSAY_MUST_USE;
/* Says that `done` of `total` tensors are made; CANCELLED when the job is not wanted any more. */
enum assay_status assay_making_step(const struct assay_making *making, size_t done, size_t total,
                                    struct assay_err *err) ASSAY_MUST_USE;
