/* Ways to make an artifact. One file and one row in methods.inc each.
 *
 * A method that rewrites weights one by one fills in the `layout` functions, and rewrite.c reads the tensors, calls
 * them by blocks of rows on all threads, measures the errors and writes model.safetensors. A method that works
 * otherwise sets `make`. */
#pragma once

#include "common/artifact/job.h"
#include "common/formats/architecture.h"
#include "common/kernels/codec/codec.h"
#include "common/quant/scheme.h"

/* Tensors that stand for one quantized weight, and room to work in. */
#define ASSAY_PARTS_MAX 7

enum assay_part_kind {
    ASSAY_PART_CODES,
    ASSAY_PART_SCALES, /* scales, zero points, tables, words about them */
    ASSAY_PART_ROOM    /* not written */
};

struct assay_part {
    const char *suffix; /* behind the module's name: ".weight_scale"; NULL for room */
    enum assay_dtype dtype;
    size_t rank;
    uint64_t shape[2];
    enum assay_part_kind kind;
};

/* Rows [begin, end) of a weight. begin is a multiple of ASSAY_REWRITE_ROWS, or of 8 where cols is, too; parts[i] is the
 * whole tensor of part i. */
#define ASSAY_REWRITE_ROWS 64
struct assay_rows {
    size_t begin, end, cols;
    void *const *parts;
    const struct assay_codec_ops *ops;
};

/* A work in progress: an artifact's files are made in `dir`. */
struct assay_making {
    const struct assay_quantize_job *job;
    struct assay_spec spec; /* the job's, with what follows from the model filled in */
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

    /* Fills in what follows from the row lengths of all weights. NULL: nothing does. */
    void (*resolve)(struct assay_spec *spec, const size_t *cols, size_t count);
    /* The tensors that stand for a weight [rows, cols], from wide to narrow dtypes, and their number. INVALID_ARGUMENT
     * when the layout cannot hold it. */
    enum assay_status (*plan)(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err);
    /* weights[(end - begin), cols]. INVALID_ARGUMENT where one is not finite. Any thread. */
    enum assay_status (*encode)(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err);
    /* Once all rows are encoded: what is made of the whole tensor. `rows` are all. NULL: nothing is. */
    void (*finish)(const struct assay_spec *spec, const struct assay_rows *rows);
    bool finish_decides; /* what codes stand for; else a block is decoded as soon as it is encoded */
    /* The values that the codes stand for, in weights[(end - begin), cols]. Any thread. */
    void (*decode)(const struct assay_spec *spec, const struct assay_rows *rows, float *weights);
    /* quantization_config of config.json; NULL when out of memory. NULL: the files are those of a plain checkpoint.
     * "lm_head" among the modules left alone becomes the name that the head has. Where an architecture stores its
     * matrices as [inputs, outputs], plain files keep them so; weights with a quantization_config are [outputs, inputs]
     * everywhere, as the readers of these layouts want. */
    cJSON *(*config)(const struct assay_spec *spec);
    const char *dtype; /* torch_dtype of config.json */
};

#define ASSAY_METHOD(name) extern const struct assay_method assay_method_##name;
#include "common/artifact/methods.inc"
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

/* The source's; one that is not known counts as Llama. */
const struct assay_architecture *assay_making_architecture(const struct assay_making *making);

/* Looks the checkpoint's files up and digests their contents. */
enum assay_status assay_making_identify(struct assay_making *making, struct assay_model_id *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* Fills in what the manifest says of the source: head, parameters, bytes. */
enum assay_status assay_making_describe(struct assay_making *making, struct assay_err *err) ASSAY_MUST_USE;
/* Adds DIR/name, which is there, to the files of the manifest. */
enum assay_status assay_making_add_file(struct assay_making *making, const char *name, bool linked,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* DIR/name becomes a link to the checkpoint's file. */
enum assay_status assay_making_link(struct assay_making *making, const char *name,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* Writes config.json: the source's, with these changes and the spec's compute. */
struct assay_config_change {
    const char *dtype;       /* NULL: as it is */
    bool drops_quantization; /* without the source's quantization_config */
    cJSON *quantization;     /* becomes quantization_config, or NULL; the callee's */
};
enum assay_status assay_making_write_config(struct assay_making *making, const struct assay_config_change *change,
                                            struct assay_err *err) ASSAY_MUST_USE;
/* Copies (linked: links to) the tokenizer's and generation's files that the checkpoint has. */
enum assay_status assay_making_add_companions(struct assay_making *making, bool linked,
                                              struct assay_err *err) ASSAY_MUST_USE;
/* Says that `done` of `total` tensors are made; CANCELLED when the job is not wanted any more. */
enum assay_status assay_making_step(const struct assay_making *making, size_t done, size_t total,
                                    struct assay_err *err) ASSAY_MUST_USE;
